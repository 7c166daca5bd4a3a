"""`gateway revoke`: end tokens before their time.

Imports: gateway.asgi.revocations, gateway.cli, gateway.config, gateway.tokens, click.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway.asgi.revocations import (
    BARE,
    NAMES,
    OrderRefused,
    RevocationOrder,
    Told,
)
from gateway.cli.common import Parsed, loaded_or_exit, moment_or_seconds
from gateway.cli.orders import (
    EXIT_FAILED,
    give,
    give_each,
    lines_of,
    order_options,
    read,
    refuse,
)
from gateway.tokens.strict_json import loads

EVERYTHING = "everything"
# What one value names; `gateway block` has its own words.
FLAGS = [name for name in NAMES if "block" not in name]
KINDS = [name for name in FLAGS if NAMES[name] not in BARE]


@click.command("revoke")
@order_options
@click.option("--jti", multiple=True, help="A token, by its id.")
@click.option("--sid", multiple=True, help="A login session: all that carry this sid.")
@click.option("--family", multiple=True, help="All that came of one login by refresh.")
@click.option("--sub", multiple=True, help="A subject: all issued to it until now.")
@click.option("--client", multiple=True, help="A client: all issued to it until now.")
@click.option("--api-key", multiple=True, help="An API key, by its id.")
@click.option("--all-of-issuer", is_flag=True, help="All that it issued until now.")
@click.option("--everything", is_flag=True, help="All that anybody issued until now.")
@click.option(
    "--before",
    type=Parsed("moment", moment_or_seconds),
    help="Issued until then instead of now; RFC 3339 or Unix seconds.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A file with an order a line, in JSON, or with --kind a value; - is stdin.",
)
@click.option("--kind", type=click.Choice(KINDS), help="Of the values in the file.")
@click.option("--yes", is_flag=True, help="Don't ask whether everything is meant.")
def command(
    *,
    before: float | None,
    source: Path | None,
    kind: str | None,
    yes: bool,
    **said: Any,
) -> None:
    """End tokens, sessions, or all that was issued to somebody, or by."""
    named = {name: said.pop(name) for name in FLAGS}
    given = [name for name, values in named.items() if values]
    if len(given) + (source is not None) != 1:
        wanted = ", ".join(f"--{name.replace('_', '-')}" for name in FLAGS)
        raise click.UsageError(f"exactly one of {wanted}, --from is needed")
    if kind is not None and source is None:
        raise click.UsageError("--kind is for the values in a file")
    common = {} if before is None else {"before": before}
    if source is not None:
        _give_lines(source, kind, common, **said)
    (name,) = given
    if name == EVERYTHING and not (yes or said["dry_run"]):
        _confirm()
    values = [True] if NAMES[name] in BARE else named[name]
    give_each([{name: value, **common} for value in values], **said)


def _give_lines(
    source: Path,
    kind: str | None,
    common: Told,
    *,
    files: Sequence[Path],
    issuer: str | None,
    reason: str,
    **ways: Any,
) -> NoReturn:
    loaded = loaded_or_exit(files)
    lines, orders = _orders(lines_of(source), kind, common, issuer, reason)
    if not orders:
        refuse(["the file holds no order"])
    give(loaded, orders, lines=lines, **ways)


def _confirm() -> None:
    asked = f'this ends every token of every issuer; type "{EVERYTHING}" to go on'
    if click.prompt(asked, err=True) != EVERYTHING:
        click.echo("nothing was revoked", err=True)
        sys.exit(EXIT_FAILED)


def _orders(
    lines: Iterator[tuple[int, bytes]],
    kind: str | None,
    common: Told,
    issuer: str | None,
    reason: str,
) -> tuple[list[int], list[RevocationOrder]]:
    """Return the orders in *lines*, and their numbers; or end the command."""
    numbers, orders, mistakes = [], [], []
    for number, line in lines:
        try:
            said = _said(line, kind)
            if not said.get(EVERYTHING):
                orders.append(read({**common, **said}, issuer, reason))
                numbers.append(number)
            else:
                mistakes.append(f"line {number}: --{EVERYTHING} stands in no file")
        except OrderRefused as refusal:
            mistakes.append(f"line {number}: {refusal}")
    refuse(mistakes)
    return numbers, orders


def _said(line: bytes, kind: str | None) -> Told:
    if kind is None:
        said = loads(line)
        if said is None:
            raise OrderRefused("it is not a JSON object, or is ambiguous")
        return said
    try:
        return {kind: line.decode()}
    except UnicodeDecodeError:
        raise OrderRefused("it is not UTF-8") from None

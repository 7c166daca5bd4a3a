"""`gateway keys`: make the keys that sign identity, and see how all keys are.

Imports: gateway.app, gateway.cli, gateway.identity, gateway.model,
gateway.tokens.key_status, click, httpx2.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import click
import httpx2

from gateway.app import CLOCK
from gateway.cli.common import ask_admin, config_option, loaded_or_exit
from gateway.cli.people import write_private
from gateway.identity.keys import new_key_pem, signing_key_from_pem
from gateway.model import Unavailable
from gateway.tokens.key_status import KeySetStatus, KeyStatus, load


@click.group("keys")
def command() -> None:
    """Make keys, and see how all keys are."""


@command.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help='The directory of [identity] keys = "dir:...".',
)
@click.option(
    "--algorithm",
    type=click.Choice(["ES256", "EdDSA", "RS256"]),
    default="ES256",
    show_default=True,
)
def generate(directory: Path, algorithm: Literal["ES256", "EdDSA", "RS256"]) -> None:
    """Make a key that signs identity; the newest file signs, all are published."""
    now = dt.datetime.fromtimestamp(CLOCK.wall(), dt.UTC)
    pem = new_key_pem(algorithm)
    file = directory / f"{now:%Y%m%dT%H%M%SZ}.pem"
    write_private(file, pem)
    click.echo(f"{file}  {signing_key_from_pem(pem, algorithm).key_id}")


@command.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(files: Sequence[Path], *, as_json: bool) -> None:
    """Show the keys of every issuer, and our own, as the running gateway has them."""
    loaded = loaded_or_exit(files)
    try:
        answer = ask_admin(loaded.settings.admin, "GET", "/-/keys")
    except Unavailable as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    if answer.status_code != httpx2.codes.OK:
        click.echo(f"refused: {answer.json().get('detail')}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(answer.text)
        return
    report, now = load(answer.content), CLOCK.wall()
    for what, sets in (("issuer", report.issuers), ("identity", report.identities)):
        for each in sets:
            click.echo("\n".join(_lines(what, each, now)))


def _lines(what: str, keys: KeySetStatus, now: float) -> Iterator[str]:
    """Yield *keys* as lines of a table; *now*: Unix seconds."""
    head = f"{what} {keys.name} ({keys.source})"
    if keys.refreshed_at is not None:
        head += f", refreshed {_span(now - keys.refreshed_at)} ago"
    if keys.refresh_at is not None:
        head += f", next in {_span(keys.refresh_at - now)}"
    yield head
    if keys.trouble:
        yield f"  trouble: {keys.trouble}"
    rows = [_row(key, now) for key in keys.keys]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
    if not rows:
        yield "  no keys"
    for why in keys.skipped:
        yield f"  not used: {why}"


def _row(key: KeyStatus, now: float) -> tuple[str, ...]:
    age = f"for {_span(now - key.seen_at)}"
    if key.gone_at is not None:
        age = f"withdrawn {_span(now - key.gone_at)} ago"
    # What an issuer calls its key is shown as it may go to a terminal.
    name = "-" if key.key_id is None else ascii(key.key_id)[1:-1]
    return key.state, name, ",".join(key.algorithms), key.thumbprint or "-", age


def _span(seconds: float) -> str:
    """Return a time as people say it, in its largest unit."""
    whole = max(0, round(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"

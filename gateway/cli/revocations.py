"""`gateway revocations`: what is revoked, how much of it, and from elsewhere.

As for `gateway revoke`: with a memory store the running gateway is asked, on its admin
port; with Redis the store itself is.

Imports: gateway.app, gateway.asgi, gateway.cli, gateway.config, gateway.model,
gateway.revocation, gateway.tokens, click, httpx2.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import httpx2

from gateway.app import CLOCK, Engine
from gateway.asgi.revocation_list import (
    LIMIT,
    MAX_ENTRIES,
    MAX_LIMIT,
    Inquiry,
    entry_in,
)
from gateway.asgi.revocations import OrderRefused, RevocationOrder, Told
from gateway.cli.common import ask_admin, config_option, loaded_or_exit
from gateway.cli.orders import EXIT_FAILED, lines_of, refuse
from gateway.config.load import Loaded
from gateway.model import Unavailable
from gateway.revocation.entries import KINDS
from gateway.revocation_desk import entry_from
from gateway.tokens.strict_json import loads

Show = Callable[[Told], None]
_LAST = 253_402_300_799  # Unix seconds; the last that a calendar has


@click.group("revocations")
def command() -> None:
    """List what is revoked, count it, and take it over from elsewhere."""


@command.command("list")
@config_option
@click.option("--kind", type=click.Choice(KINDS), help="Of one kind alone.")
@click.option("--sub", help="What there is about a subject.")
@click.option("--issuer", help="Of that subject; needed where there are two.")
@click.option("--limit", type=click.IntRange(1), default=LIMIT, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def list_(
    files: Sequence[Path],
    kind: str | None,
    sub: str | None,
    issuer: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List entries; names are fingerprints, so one is looked up by what it names."""
    loaded = loaded_or_exit(files)
    if issuer is not None and sub is None:
        raise click.UsageError("--issuer is that of a --sub")
    name = "" if sub is None else _fingerprint(loaded, issuer, sub)

    def show(told: Told) -> None:
        click.echo(json.dumps(told) if as_json else _in_words(told))

    inquiry = Inquiry("list", kind or "", name, limit)
    if _carry_out(loaded, inquiry, show)["more"]:
        click.echo(f"there are more than {limit}: --limit", err=True)


@command.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def stats(files: Sequence[Path], *, as_json: bool) -> None:
    """Say how many entries there are, and how far the workers are."""
    told = _carry_out(loaded_or_exit(files), Inquiry("stats"))
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(f"entries: {sum(told['entries'].values())}")
    for kind, count in told["entries"].items():
        click.echo(f"  {kind}: {count}")
    click.echo(f"feed: epoch {told['epoch'] or '-'}, number {told['number']}")
    click.echo(f"workers: {len(told['workers'])}")
    for each in told["workers"]:
        click.echo(f"  {_lease(each['lease'])}, {_behind(each['behind'])}")
    if told["memory"] is not None:
        click.echo(f"memory of the store: {told['memory']} bytes")


@command.command("import")
@config_option
@click.argument("source", type=click.Path(path_type=Path, allow_dash=True))
def import_(files: Sequence[Path], source: Path) -> None:
    """Take over what `list --json` has written, from a file or from - (stdin)."""
    loaded, now = loaded_or_exit(files), CLOCK.wall()
    entries, mistakes = [], []
    for number, line in lines_of(source):
        said = loads(line)
        try:
            entry_in(said, 0, now)
        except OrderRefused as refusal:
            mistakes.append(f"line {number}: {refusal}")
        else:
            entries.append(said or {})
    refuse(mistakes)
    done = Counts()
    for first in range(0, len(entries), MAX_ENTRIES):
        batch = tuple(entries[first : first + MAX_ENTRIES])
        told = _carry_out(loaded, Inquiry("import", entries=batch), done=str(done))
        done.add(told)
    click.echo(f"{done}; {done.ended} had ended")


class Counts:
    """How much was imported."""

    def __init__(self) -> None:
        self.imported = self.ended = 0

    def add(self, told: Told) -> None:
        """Count what one exchange has done."""
        self.imported += told["imported"]
        self.ended += told["ended"]

    def __str__(self) -> str:
        return f"imported: {self.imported}"


def _carry_out(
    loaded: Loaded, inquiry: Inquiry, show: Show = lambda _: None, done: str = ""
) -> Told:
    """Return the answer to *inquiry*; entries are shown as they come."""
    try:
        if not loaded.settings.store.is_memory:
            return asyncio.run(_by_ourselves(loaded, inquiry, show))
        told = _by_the_gateway(loaded, inquiry)
    except (OrderRefused, Unavailable) as error:
        click.echo("; ".join(filter(None, (str(error), done))), err=True)
        sys.exit(EXIT_FAILED)
    for each in told.get("entries", ()) if inquiry.verb == "list" else ():
        show(each)
    return told


async def _by_ourselves(loaded: Loaded, inquiry: Inquiry, show: Show) -> Told:
    engine = Engine(loaded)
    desk = engine.revocation_desk
    try:
        if inquiry.verb != "list":
            return await desk.inquire(inquiry)
        count = 0
        # One after another: there may be more than one would keep at once.
        async for told in desk.entries(inquiry.kind, inquiry.name):
            if count == inquiry.limit:
                return {"more": True}
            show(told)
            count += 1
        return {"more": False}
    finally:
        await engine.aclose()


def _by_the_gateway(loaded: Loaded, inquiry: Inquiry) -> Told:
    said: dict[str, Any] | None = None
    method, path = "GET", "/-/revocations"
    match inquiry.verb:
        case "list":
            if inquiry.limit > MAX_LIMIT:
                raise click.UsageError(f"a gateway lists at most {MAX_LIMIT}")
            query = {"kind": inquiry.kind, "name": inquiry.name, "limit": inquiry.limit}
            path += f"?{urlencode({key: text for key, text in query.items() if text})}"
        case "stats":
            path += "/stats"
        case "import":
            said = {"entries": [*inquiry.entries]}
            method, path = "POST", f"{path}/import"
    answer = ask_admin(loaded.settings.admin, method, path, said, within=30.0)
    told: Told = answer.json()
    if answer.status_code != httpx2.codes.OK:
        raise OrderRefused(f"refused: {told.get('detail', answer.status_code)}")
    return told


def _fingerprint(loaded: Loaded, issuer: str | None, sub: str) -> str:
    order = RevocationOrder(issuer or "", "subject", sub)
    try:
        _, entry = entry_from(order, loaded.settings, CLOCK.wall())
    except OrderRefused as refusal:
        raise click.UsageError(str(refusal)) from None
    return entry.name.hex()


def _in_words(told: Told) -> str:
    words = [told["kind"], told["name"]]
    if "before" in told:
        words.append(f"before {_date(told['before'])}")
    if told.get("lifts"):
        words.append("lifted")
    words.append(f"until {_date(told['until'])}")
    return "  ".join(words)


def _date(seconds: float | None) -> str:
    if seconds is None:
        return "any time"
    when = dt.datetime.fromtimestamp(min(seconds, _LAST), dt.UTC)
    return f"{when:%FT%TZ}"


def _lease(seconds: float | None) -> str:
    if seconds is None:
        return "no lease"
    if seconds < 0:
        return f"its lease ended {-seconds:.1f} s ago"
    return f"its lease ends in {seconds:.1f} s"


def _behind(entries: int | None) -> str:
    return "in another epoch" if entries is None else f"{entries} entries behind"

"""What the verbs that revoke share: orders are given, and it is said what came of them.

With a memory store the running gateway is told, on its admin port; with Redis the
entries are written there, and every gateway that shares it knows.

Imports: gateway.app, gateway.asgi, gateway.cli, gateway.config, gateway.model,
gateway.revocation_desk, click, httpx2.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import httpx2

from gateway.app import CLOCK, Engine
from gateway.asgi.revocations import (
    MAX_WAIT,
    WAIT,
    OrderRefused,
    RevocationOrder,
    Told,
    order_from,
    said_of,
)
from gateway.cli.common import DURATION, ask_admin, config_option, loaded_or_exit
from gateway.config.load import Loaded
from gateway.model import API_KEYS, Unavailable
from gateway.revocation_desk import check_key, entry_from

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAILED = 1
EXIT_NOT_EVERYWHERE = 4  # it is revoked, but not known to be in force everywhere
BATCH = 500  # orders in one exchange with the gateway: half of what a body may hold
MAX_FILE = 256 * 1024 * 1024  # bytes
SHOWN = 20  # mistakes that are shown
PATIENCE = 10.0  # seconds for the gateway beyond what it is to wait itself

_PLURALS = {"family": "families"}
_OPTIONS = (
    config_option,
    click.option(
        "--issuer", help="Its name in gateway.toml; needed where there are two."
    ),
    click.option("--reason", default="", help="For the log, such as INC-7."),
    click.option(
        "--wait",
        type=DURATION,
        default=WAIT,
        show_default="2s",
        help="Until every worker has applied it, at most.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Write nothing; say what it would do."
    ),
    click.option("--json", "as_json", is_flag=True, help="For programs."),
)


def order_options(command: F) -> F:
    """Give *command* the options of all verbs that revoke."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read(said: Told, issuer: str | None, reason: str) -> RevocationOrder:
    """Return the order that *said* and the options give.

    Raises:
        OrderRefused: They give none.
    """
    common = {"issuer": issuer, "reason": reason}
    return order_from({name: text for name, text in common.items() if text} | said)


def give_each(
    said: Sequence[Told],
    *,
    files: Sequence[Path],
    issuer: str | None,
    reason: str,
    **ways: Any,
) -> NoReturn:
    """Give the orders that *said* and the options say; see `give`."""
    loaded = loaded_or_exit(files)
    try:
        orders = [read(each, issuer, reason) for each in said]
    except OrderRefused as refusal:
        raise click.UsageError(str(refusal)) from None
    give(loaded, orders, **ways)


def give(
    loaded: Loaded,
    orders: Sequence[RevocationOrder],
    *,
    wait: float,
    dry_run: bool,
    as_json: bool,
    lines: Sequence[int] | None = None,
) -> NoReturn:
    """Give *orders*, say what came of them, and end the command.

    Args:
        loaded: The configuration.
        orders: At least one. Nothing is written unless all of them can be meant.
        wait: Seconds, at most, until they are in force everywhere.
        dry_run: Write nothing, and say what would be done.
        as_json: In JSON.
        lines: Where in a file each of them stands; None: on the command line.
    """
    if not 0 <= wait <= MAX_WAIT:
        raise click.UsageError(f"--wait is at most {MAX_WAIT:g}s")
    orders = _named(loaded, orders, lines)
    told: list[Told] = []
    try:
        if loaded.settings.store.is_memory:
            effect = _tell_the_gateway(loaded, orders, wait, told, dry_run=dry_run)
        else:
            work = _write(loaded, orders, wait, told, dry_run=dry_run)
            effect = asyncio.run(work)
            if dry_run:
                _count_streams(loaded, orders, told)
    except (OrderRefused, Unavailable) as error:
        if dry_run:
            words = "nothing was written"
        elif told:
            words = f"{len(told)} of {len(orders)} are revoked: give all of them again"
        elif isinstance(error, Unavailable):
            # It may have been written, and the answer was lost.
            words = "not known to be revoked: give it again"
        else:
            words = "nothing was revoked"
        click.echo(f"{error}: {words}", err=True)
        sys.exit(EXIT_FAILED)
    if dry_run:
        for each in [{"orders": told, "dry_run": True}] if as_json else told:
            click.echo(json.dumps(each) if as_json else would_in_words(each))
        sys.exit(0)
    if as_json:
        click.echo(json.dumps({"orders": told, "effect": effect}))
    else:
        click.echo(f"{in_words(told)}; {effect_in_words(effect)}")
    sys.exit(0 if effect and effect["effective"] else EXIT_NOT_EVERYWHERE)


def lines_of(source: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold something, with their numbers."""
    try:
        with click.open_file(str(source), "rb") as stream:
            text = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise click.UsageError(f"{source} can't be read: {error}") from None
    if len(text) > MAX_FILE:
        raise click.UsageError(f"{source} is longer than {MAX_FILE} bytes")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def refuse(mistakes: Sequence[str]) -> None:
    """End the command if there are *mistakes*."""
    if not mistakes:
        return
    for each in mistakes[:SHOWN]:
        click.echo(each, err=True)
    if len(mistakes) > SHOWN:
        click.echo(f"... and {len(mistakes) - SHOWN} more", err=True)
    click.echo("nothing was revoked", err=True)
    sys.exit(EXIT_FAILED)


def _named(
    loaded: Loaded, orders: Sequence[RevocationOrder], lines: Sequence[int] | None
) -> list[RevocationOrder]:
    """Return *orders*, each with its issuer; or end the command."""
    now, named, mistakes = CLOCK.wall(), [], []
    for place, order in enumerate(orders):
        try:
            if order.kind == "api_key":
                check_key(order, loaded.settings)
                named.append(order)
            else:
                # The gateway that is told may have others by now.
                issuer, _ = entry_from(order, loaded.settings, now)
                named.append(replace(order, issuer=issuer))
        except OrderRefused as refusal:
            if lines is None:
                raise click.UsageError(str(refusal)) from None
            mistakes.append(f"line {lines[place]}: {refusal}")
    refuse(mistakes)
    return named


def _batches(
    orders: Sequence[RevocationOrder], wait: float
) -> Iterator[tuple[Sequence[RevocationOrder], float]]:
    """Yield some of *orders* at a time, and how long to wait for them."""
    for first in range(0, len(orders), BATCH):
        end = first + BATCH
        # Where the last one is in force, so are all.
        yield orders[first:end], wait if end >= len(orders) else 0.0


async def _write(
    loaded: Loaded,
    orders: Sequence[RevocationOrder],
    wait: float,
    told: list[Told],
    *,
    dry_run: bool,
) -> Told | None:
    engine = Engine(loaded)
    try:
        effect = None
        for batch, wait_now in _batches(orders, wait):
            answer = await engine.revoke(*batch, wait=wait_now, dry_run=dry_run)
            told += answer["orders"]
            effect = answer.get("effect")
        return effect
    finally:
        await engine.aclose()


def _tell_the_gateway(
    loaded: Loaded,
    orders: Sequence[RevocationOrder],
    wait: float,
    told: list[Told],
    *,
    dry_run: bool,
) -> Told | None:
    effect: Told | None = None
    for batch, wait_now in _batches(orders, wait):
        said: Told = {"orders": [*map(said_of, batch)], "wait": wait_now}
        said["dry_run"] = dry_run
        answer = ask_admin(
            loaded.settings.admin,
            *("POST", "/-/revocations", said),
            within=wait_now + PATIENCE,
        )
        found = answer.json()
        if answer.status_code != httpx2.codes.OK:
            raise OrderRefused(f"refused: {found.get('detail', answer.status_code)}")
        told += found["orders"]
        effect = found.get("effect")
    return effect


def _count_streams(
    loaded: Loaded, orders: Sequence[RevocationOrder], told: Sequence[Told]
) -> None:
    """Note in *told* how many streams are open, if a gateway here can be asked."""
    if loaded.settings.admin is None:
        return
    said: list[Told] = []
    with suppress(OrderRefused, Unavailable):
        _tell_the_gateway(loaded, orders, 0.0, said, dry_run=True)
    for each, known in zip(told, said, strict=False):
        each["open_streams"] = known["open_streams"]


def in_words(told: Sequence[Told]) -> str:
    """Say what was done."""
    kinds: set[tuple[str, str]] = {
        (each["kind"], each.get("issuer", "")) for each in told
    }
    (kind, issuer), *others = sorted(kinds)
    done = {"block": "blocked", "unblock": "unblocked"}.get(kind, "revoked")
    what = {"block": "subject", "unblock": "subject", "api_key": "API key"}
    noun, count = what.get(kind, kind), len(told)
    if others:
        words = f"revoked: {count} entries"
    elif kind == "all":
        words = "revoked: everything"
    elif kind == "issuer":
        words = f"revoked: all of {issuer}"
    elif count > 1:
        words = f"{done}: {count} {_PLURALS.get(noun, f'{noun}s')} of {issuer}"
    else:
        words = f"{done}: {noun} of {issuer}"
    if kind == "unblock":
        return words
    ends = dt.datetime.fromtimestamp(max(each["until"] for each in told), dt.UTC)
    until = "until" if kind == "block" and not others else "kept until"
    return f"{words}; {until} {ends:%FT%TZ}"


def would_in_words(told: Told) -> str:
    """Say what an order would do."""
    held = told["held"]
    said = [f"would be {in_words([told])}"]
    if held is None:
        said.append("there is no entry yet")
    elif held.get("lifts"):
        said.append("a block was lifted")
    else:
        said.append("there is an entry already")
    keys = told.get("owned_keys", 0)
    if keys:
        noun = "API key has" if keys == 1 else "API keys have"
        ends = "" if told["issuer"] == API_KEYS else f", of the issuer {API_KEYS}"
        said.append(f"{keys} {noun} an owner of this name{ends}")
    streams = told.get("open_streams")
    if streams is None:
        said.append("no gateway here says how many streams are open")
    else:
        said.append(f"{streams} open stream{'' if streams == 1 else 's'}")
    return "; ".join(said)


def effect_in_words(effect: Told | None) -> str:
    """Say where it is in force."""
    if effect is None:
        return "the store does not say where it is effective yet"
    workers, lapsed, stale = effect["workers"], effect["lapsed"], effect["stale"]
    after = _spelled(effect["seconds"])
    missing = workers - effect["applied"] - lapsed
    if missing:
        said = [f"not yet effective on {missing} of {workers} workers after {after}"]
    elif workers:
        applied = effect["applied"]
        said = [f"effective on {applied} of {workers} workers after {after}"]
    else:
        said = ["no worker has a mirror of the list"]
    if lapsed == 1:
        said.append("1 worker does not answer, its lease is over and it asks the store")
    elif lapsed:
        said.append(
            f"{lapsed} workers do not answer, their leases are over and they ask"
            " the store"
        )
    if stale:
        verb = "allows" if stale == 1 else "allow"
        late = _spelled(effect["late"])
        said.append(f"{stale} that {verb} stale decisions may be late by up to {late}")
    return "; ".join(said)


def _spelled(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{round(seconds, 1):g} s"

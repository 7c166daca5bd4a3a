"""`gateway explain`: how a request would be decided, and why.

It drives the main path itself, with the configured keys and the configured store; a
token is read from stdin (never from the command line, where `ps` shows it) and is
never printed back.

Imports: gateway.app, gateway.cli, gateway.config, gateway.model, gateway.wire, click.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.app import CLOCK, Engine
from gateway.cli.common import config_option, loaded_or_exit
from gateway.model import Denial, Peer, Permit, Principal, Route, Unavailable
from gateway.wire import problems
from gateway.wire.request import read_head

EXIT_DENIED = 1


@click.command("explain")
@config_option
@click.argument("method")
@click.argument("path")
@click.option("--host", help="The Host of the request; default: one that is served.")
@click.option("--token-stdin", is_flag=True, help="Read a bearer token from stdin.")
def command(
    files: Sequence[Path], method: str, path: str, host: str | None, token_stdin: bool
) -> None:
    """Say how METHOD PATH would be decided; exit with 0 if permitted, 1 if not."""
    loaded = loaded_or_exit(files)
    token = sys.stdin.read().strip() if token_stdin else None
    engine = Engine(loaded)
    served = sorted(loaded.settings.server.hosts | loaded.policy.hosts)
    host = host or (served[0] if served else "localhost")
    lines, permitted = asyncio.run(_explain(engine, method, path, host, token))
    click.echo("\n".join(f"{word:<9} {what}" for word, what in lines))
    sys.exit(0 if permitted else EXIT_DENIED)


Lines = list[tuple[str, str]]


async def _explain(
    engine: Engine, method: str, path: str, host: str, token: str | None
) -> tuple[Lines, bool]:
    now = CLOCK.wall()
    headers = [(b"host", host.encode("utf-8", "surrogateescape"))]
    if token is not None:
        bearer = f"Bearer {token}".encode("utf-8", "surrogateescape")
        headers.append((b"authorization", bearer))
    head = read_head(
        kind="http",
        method=method,
        scheme="http",
        target=path.encode("utf-8", "surrogateescape"),
        headers=tuple(headers),
        peer=Peer("127.0.0.1"),
    )
    lines: Lines = [("request", f"{method} {json.dumps(path)} at {host}")]
    if isinstance(head, Denial):
        return [*lines, *_denied(head)], False
    lines.append(("segments", " | ".join(map(json.dumps, head.segments))))
    try:
        outcome = await engine.decider.decide(head, now, engine.answer)
    except Unavailable as outage:
        lines += _route(engine, outage.route) + _principal(outage.principal, now)
        return [*lines, ("verdict", f"503 outage: {outage}")], False
    finally:
        await engine.aclose()
    lines += _route(engine, outcome.route)
    lines += _principal(outcome.principal, now)
    if isinstance(outcome, Denial):
        return [*lines, *_denied(outcome)], False
    return [*lines, *_permitted(engine, outcome)], True


def _route(engine: Engine, route: Route | None) -> Lines:
    if route is None:
        return [("route", "none")]
    lines = [("route", f"{route.id} {f'({route.place})' if route.place else ''}")]
    if route.service:
        lines.append(("rule", engine.policy.describe(route)))
    return lines


def _principal(principal: Principal | None, now: float) -> Lines:
    if principal is None:
        return [("caller", "not known: no token was believed")]
    if principal.kind == "anonymous":
        return [("caller", "anonymous: no credential was asked for, or none came")]
    expires = dt.datetime.fromtimestamp(principal.expires_at, dt.UTC)
    return [
        ("caller", f"{principal.kind} {principal.subject} of {principal.issuer}"),
        ("roles", ", ".join(sorted(principal.roles)) or "none"),
        ("scope", " ".join(sorted(principal.scope)) or "none"),
        ("expires", f"{expires:%FT%TZ}, in {principal.expires_at - now:.0f} s"),
    ]


def _permitted(engine: Engine, permit: Permit) -> Lines:
    granted = " ".join(engine.policy.names(permit.granted))
    target = permit.target.decode("ascii", "backslashreplace")
    return [
        ("granted", granted or "nothing"),
        ("verdict", f"permitted: {target} is sent to {permit.upstream}"),
    ]


def _denied(denial: Denial) -> Lines:
    status = problems.problem(denial, request_id="explain").status
    return [("verdict", f"{status} {denial}")]

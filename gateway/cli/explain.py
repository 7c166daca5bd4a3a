"""`gateway explain`: how a request, or a token, would be judged, and why.

It drives the main path itself, with the configured keys and the configured store; a
token is read from stdin (never from the command line, where `ps` shows it) and is
never printed back. A token alone is judged by the same steps, on a route that asks for
nothing but somebody's token.

Imports: gateway.app, gateway.cli, gateway.config, gateway.model, gateway.policy,
gateway.tokens, gateway.wire, click.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from gateway.app import CLOCK, Engine
from gateway.cli.common import config_option, loaded_or_exit
from gateway.cli.outages import during
from gateway.model import (
    Denial,
    Peer,
    Permit,
    Principal,
    Reason,
    RequestHead,
    Route,
    Unavailable,
)
from gateway.policy.compile import any_route
from gateway.tokens.describe import Description, describe, since
from gateway.wire import problems
from gateway.wire.request import read_head

EXIT_DENIED = 1

Lines = list[tuple[str, str]]

# What is asked of a token, in the order of the main path, and what it is refused with.
_CHECKS: Mapping[str, frozenset[Reason]] = {
    "form": frozenset(
        {
            Reason.CREDENTIAL_MALFORMED,
            Reason.CREDENTIAL_UNRECOGNISED,
            Reason.TOKEN_MALFORMED,
        }
    ),
    "issuer": frozenset({Reason.ISSUER_UNTRUSTED}),
    "type": frozenset({Reason.TYPE_FORBIDDEN}),
    "algorithm": frozenset({Reason.ALGORITHM_FORBIDDEN}),
    "key": frozenset({Reason.KEY_UNKNOWN}),
    "signature": frozenset({Reason.SIGNATURE_INVALID, Reason.TOKEN_INACTIVE}),
    "claims": frozenset({Reason.CLAIM_INVALID, Reason.LIFETIME_TOO_LONG}),
    "time": frozenset({Reason.TOKEN_EXPIRED, Reason.TOKEN_NOT_YET_VALID}),
    "audience": frozenset({Reason.AUDIENCE_WRONG, Reason.ISSUER_NOT_ACCEPTED}),
    "binding": frozenset(
        {
            Reason.BINDING_MISSING,
            Reason.BINDING_WRONG,
            Reason.DPOP_MISSING,
            Reason.DPOP_KEY,
            Reason.DPOP_INVALID,
        }
    ),
    "revoked": frozenset({Reason.TOKEN_REVOKED}),
}
_ASKED = frozenset().union(*_CHECKS.values())
# What another kind than a JWT is not asked for by itself: who sealed it, or who was
# asked about it, has said it all.
_WITHOUT: Mapping[str, frozenset[str]] = {
    "JWT": frozenset(),
    "encrypted JWT": frozenset({"issuer"}),
    "Fernet token": frozenset({"issuer", "type", "algorithm", "key"}),
    "opaque token": frozenset({"issuer", "type", "algorithm", "key"}),
    "API key": frozenset({"issuer", "type", "algorithm", "signature"}),
}


@click.command("explain")
@config_option
@click.argument("method", required=False)
@click.argument("path", required=False)
@click.option("--host", help="The Host of the request; default: one that is served.")
@click.option("--token-stdin", is_flag=True, help="Read a bearer token from stdin.")
def command(
    files: Sequence[Path],
    method: str | None,
    path: str | None,
    host: str | None,
    token_stdin: bool,
) -> None:
    """Say how METHOD PATH would be decided; exit with 0 if permitted, 1 if not.

    Without METHOD and PATH: whether the token would be believed, check by check.
    """
    if (method is None) != (path is None) or (method is None and not token_stdin):
        raise click.UsageError("METHOD and PATH are needed, or --token-stdin, or both")
    loaded = loaded_or_exit(files)
    token = sys.stdin.read().strip() if token_stdin else None
    engine = Engine(loaded)
    served = sorted(loaded.settings.server.hosts | loaded.policy.hosts)
    host = host or (served[0] if served else "localhost")
    if method is not None and path is not None:
        work = _explain(engine, method, path, host, token)
    else:
        work = _explain_token(engine, host, token or "")
    lines, permitted = asyncio.run(work)
    click.echo("\n".join(f"{word:<9} {what}" for word, what in lines))
    sys.exit(0 if permitted else EXIT_DENIED)


async def _explain(
    engine: Engine, method: str, path: str, host: str, token: str | None
) -> tuple[Lines, bool]:
    now = CLOCK.wall()
    head = _head(method, path, host, token)
    lines: Lines = [("request", f"{method} {json.dumps(path)} at {host}")]
    if isinstance(head, Denial):
        return [*lines, *_denied(head)], False
    lines.append(("segments", " | ".join(map(json.dumps, head.segments))))
    try:
        outcome = await engine.decider.decide(head, now, engine.answer)
    except Unavailable as outage:
        lines += _route(engine, outage.route) + _principal(outage.principal, now)
        return [*lines, _outage(outage)], False
    finally:
        await engine.aclose()
    lines += _route(engine, outcome.route)
    if isinstance(outcome, Denial):
        if token is not None and any(
            outcome.reason in each for each in _CHECKS.values()
        ):
            lines += _checks(engine, describe(token, now), outcome, now)
        lines += _principal(outcome.principal, now)
        return [*lines, *_denied(outcome)], False
    lines += _principal(outcome.principal, now)
    return [*lines, *_permitted(engine, outcome)], True


async def _explain_token(engine: Engine, host: str, token: str) -> tuple[Lines, bool]:
    now = CLOCK.wall()
    head = _head("GET", "/", host, token)
    if isinstance(head, Denial):  # its Host
        return _denied(head), False
    decider = engine.decider.by(any_route(engine.settings.issuers))
    found = describe(token, now)
    try:
        outcome = await decider.decide(head, now, engine.answer)
    except Unavailable as outage:
        lines = _description(found) + _principal(outage.principal, now)
        return [*lines, _outage(outage)], False
    finally:
        await engine.aclose()
    denial = outcome if isinstance(outcome, Denial) else None
    lines = _checks(engine, found, denial, now)
    lines += _principal(outcome.principal, now)
    if denial is not None:
        return [*lines, *_denied(denial)], False
    assert outcome.principal is not None, "a permit has one"
    granted = engine.policy.names(engine.policy.granted(outcome.principal))
    lines.append(("grants", " ".join(granted) or "nothing"))
    return [*lines, ("verdict", "believed: what it may do, its route decides")], True


def _head(method: str, path: str, host: str, token: str | None) -> RequestHead | Denial:
    headers = [(b"host", host.encode("utf-8", "surrogateescape"))]
    if token is not None:
        bearer = f"Bearer {token}".encode("utf-8", "surrogateescape")
        headers.append((b"authorization", bearer))
    return read_head(
        kind="http",
        method=method,
        scheme="http",
        target=path.encode("utf-8", "surrogateescape"),
        headers=tuple(headers),
        peer=Peer("127.0.0.1"),
    )


def _description(found: Description) -> Lines:
    header = f": {', '.join(found.header)}" if found.header else ""
    lines = [("token", found.form + header)]
    if found.claims:
        lines.append(("says", "; ".join(found.claims)))
    return lines


def _checks(
    engine: Engine, found: Description, denial: Denial | None, now: float
) -> Lines:
    """Say what *found* was asked, as far as the one that refused it."""
    lines, over = _description(found), False
    for name, reasons in _CHECKS.items():
        if name in _WITHOUT[found.form]:
            continue
        if over:
            lines.append((name, "not asked"))
        elif denial is not None and denial.reason in reasons:
            lines.append((name, f"refused{_why(engine, found, denial, now)}"))
            over = True
        else:
            lines.append((name, "ok"))
    return lines


def _why(engine: Engine, found: Description, denial: Denial, now: float) -> str:
    """Say more of *denial* than its reason does, as far as it can be known."""
    who, times = denial.principal, found.times or {}
    if denial.reason is Reason.TOKEN_EXPIRED:
        at = who.expires_at if who is not None else times.get("exp")
        leeway = f", leeway {who.leeway:g} s" if who is not None else ""
        return f": expired {since(now - at)}{leeway}" if at is not None else ""
    if denial.reason is Reason.TOKEN_NOT_YET_VALID:
        starts = times.get(denial.at)
        return f": {denial.at} is {since(now - starts)}" if starts is not None else ""
    if denial.reason is Reason.AUDIENCE_WRONG and who is not None:
        wanted = engine.settings.issuers[who.issuer].audience
        if denial.route is not None and denial.route.audience is not None:
            wanted = denial.route.audience
        return f": it is for {_listed(who.audience)}, not for {_listed(wanted)}"
    if denial.reason is Reason.KEY_UNKNOWN and found.form == "API key":
        return ": there is no such key"
    if denial.reason is Reason.KEY_UNKNOWN:
        sets = engine.keys.status()
        fetched = [
            f"those of {each.name} were fetched {since(now - each.refreshed_at)}"
            for each in sets
            if each.refreshed_at is not None
        ]
        return "; ".join([": no such key", *fetched])
    return f": {denial.at}" if denial.at else ""


def _listed(names: frozenset[str]) -> str:
    return ", ".join(map(json.dumps, sorted(names)))


def _route(engine: Engine, route: Route | None) -> Lines:
    if route is None:
        return [("route", "none")]
    lines = [("route", f"{route.id} {f'({route.place})' if route.place else ''}")]
    if route.service:
        lines.append(("rule", engine.policy.describe(route)))
        if not engine.settings.store.is_memory:
            lines.append(("outage", f"the store away: {during(route)}"))
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


def _outage(outage: Unavailable) -> tuple[str, str]:
    return "verdict", f"503 outage: {outage}"

"""The probes port: /livez, /readyz and /startupz, and nothing else (R18, R102).

Liveness asks only whether this process still turns its loop: a Redis that is away
must not restart every pod. Readiness fails only for what would make every request
fail; all else it knows is in `/readyz?verbose`.

Imports: starlette.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that readiness looks at."""

    name: str
    trouble: str = ""  # what is wrong, in our own words; "" when nothing is
    fatal: bool = False  # while in trouble, every request would fail


def probes(
    started: Callable[[], bool], checks: Callable[[], Sequence[Check]]
) -> Starlette:
    """Return the app of the probes port.

    Args:
        started: Whether the data port has accepted connections.
        checks: What is known of our dependencies, without asking them now.
    """

    async def livez(_request: Request) -> Response:
        return _plain("ok", ok=True)

    async def startupz(_request: Request) -> Response:
        return _plain("ok" if started() else "starting", ok=started())

    async def readyz(request: Request) -> Response:
        found = [Check("started", "" if started() else "starting", fatal=True)]
        found += checks()
        ready = not any(check.fatal and check.trouble for check in found)
        if "verbose" not in request.query_params:
            return _plain("ok" if ready else "not ready", ok=ready)
        lines = [
            f"[{'-' if check.trouble else '+'}] {check.name}: {check.trouble or 'ok'}"
            for check in found
        ]
        lines.append("ready" if ready else "not ready")
        return _plain("\n".join(lines), ok=ready)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/startupz", startupz),
        ]
    )


def _plain(text: str, *, ok: bool) -> Response:
    return PlainTextResponse(
        text + "\n", 200 if ok else 503, headers={"cache-control": "no-store"}
    )

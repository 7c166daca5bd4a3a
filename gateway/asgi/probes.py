"""The probes port: /livez, /readyz, /startupz and /metrics; nothing else (R18, R102).

Liveness asks only whether this process still turns its loop: a Redis that is away
must not restart every pod. Readiness fails only for what would make every request
fail; all else it knows is in `/readyz?verbose`. Of the metrics no label holds what a
client chose (R98), so whoever may scrape them reads nothing about anybody.

Imports: gateway.observe.metrics, starlette.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.observe.metrics import OPENMETRICS, TEXT, Snapshot, render


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that readiness looks at."""

    name: str
    trouble: str = ""  # what is wrong, in our own words; "" when nothing is
    fatal: bool = False  # while in trouble, every request would fail
    note: str = ""  # what else there is to say, in trouble or not


def probes(
    started: Callable[[], bool],
    checks: Callable[[], Sequence[Check]],
    snapshots: Callable[[], Awaitable[Sequence[Snapshot]]],
) -> Starlette:
    """Return the app of the probes port.

    Args:
        started: Whether the data port has accepted connections.
        checks: What is known of our dependencies, without asking them now.
        snapshots: What every process has counted.
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
            f"{'; ' if check.note else ''}{check.note}"
            for check in found
        ]
        lines.append("ready" if ready else "not ready")
        return _plain("\n".join(lines), ok=ready)

    async def metrics(request: Request) -> Response:
        # Prometheus asks for the one it prefers by name.
        is_open = "application/openmetrics-text" in request.headers.get("accept", "")
        pieces = render(await snapshots(), openmetrics=is_open)
        return StreamingResponse(
            _by_turns(pieces),
            headers={"content-type": OPENMETRICS if is_open else TEXT},
        )

    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/startupz", startupz),
            Route("/metrics", metrics),
        ]
    )
    app.router.redirect_slashes = False  # /metrics/ is nothing
    return app


async def _by_turns(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Pass *pieces* on; between two of them requests have their turn."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


def _plain(text: str, *, ok: bool) -> Response:
    return PlainTextResponse(
        text + "\n", 200 if ok else 503, headers={"cache-control": "no-store"}
    )

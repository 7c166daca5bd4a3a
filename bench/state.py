"""What a gateway takes when nothing happens yet: time to start, memory to hold.

Imports: bench.lineup, bench.processes, bench.results, bench.trial.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Mapping
from pathlib import Path

from bench.lineup import LIVE, REVOKED, Server
from bench.processes import NotStartedError, launched
from bench.results import Figure
from bench.trial import call

PATIENCE = 30.0  # seconds
STEP = 0.003  # seconds between two tries
SETTLED = 1.0  # seconds after which a worker that nobody asks is idle
MIB = 1 << 20


def start_time(
    server: Server, path: str, headers: Mapping[str, str], log: Path
) -> float:
    """Return the seconds from starting *server* to its first answer, a 200.

    Raises:
        NotStartedError: There was none.
    """
    begun = time.perf_counter()
    with launched(server.command, core=server.core, log=log, env=server.env) as process:
        while time.perf_counter() - begun < PATIENCE and process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = call(server.port, path, headers)
                if status == 200:
                    return time.perf_counter() - begun
            time.sleep(STEP)
        raise NotStartedError(f"{server.name} did not answer: exit {process.poll()}")


def starts(took: tuple[float, ...]) -> Figure:
    """Return the figure of several starts."""
    return Figure(
        "cold start to the first answered request",
        "start",
        "s",
        took,
        most=0.7,
        note="new process; files in the page cache, bytecode compiled",
    )


def memory(idle: int, revoked: int, before: int, live: int) -> list[Figure]:
    """Return what memory goes into.

    Args:
        idle: Bytes of a worker that nobody has asked.
        revoked: The same with REVOKED entries.
        before: Bytes of a worker after its trial.
        live: The same, LIVE tokens later.
    """
    return [
        Figure("idle worker", "memory", "MB", (idle / 1e6,), most=60.0, note="VmRSS"),
        Figure(
            "each revoked entry",
            "memory",
            "bytes",
            ((revoked - idle) / REVOKED,),
            most=24.0,
            note=f"VmRSS with {REVOKED:,} in the memory store, less idle",
        ),
        Figure(
            "each live token",
            "memory",
            "bytes",
            ((live - before) / LIVE,),
            most=1500.0,
            note=f"VmRSS after {LIVE:,} callers, less before; with signed identities",
        ),
    ]

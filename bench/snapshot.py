"""How long a mirror takes to know a million revocations, and what it costs meanwhile.

    python -m bench.snapshot redis://127.0.0.1:6379/0 1000000

A process of its own: what it holds is then the mirror's. It prints four numbers: the
seconds until the mirror counts, the longest time in which the loop did nothing else,
how long that was in as many seconds in which there was nothing to do, and the bytes
that each entry takes.

Imports: bench.pace, bench.results, gateway.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable

from bench.pace import WrongError
from bench.processes import resident
from bench.results import Figure
from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.clock import Clock
from gateway.revocation.entries import key_of
from gateway.tokens.fingerprints import SIZE

LIFE = 3_600_000  # milliseconds: no entry ends while the bench runs
AT_ONCE = 10_000  # commands
PATIENCE = 300.0  # seconds
BEAT = 0.001  # seconds


def snapshot(port: int, entries: int, rounds: int) -> list[Figure]:
    """Fill the store at *port* with *entries*, and let mirrors learn of them.

    Raises:
        WrongError: One did not.
    """
    fill(port, entries)
    found = []
    for _ in range(rounds):
        words = [f"redis://127.0.0.1:{port}/0", str(entries)]
        said = subprocess.run(
            [sys.executable, "-m", "bench.snapshot", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if said.returncode:
            raise WrongError(said.stderr.strip().rpartition("\n")[2])
        found.append(tuple(json.loads(said.stdout)))
    took, stall, idle, size = zip(*found, strict=True)
    note = f"{entries:,} entries in Redis, a process that does nothing else"
    return [
        Figure("a mirror's snapshot", "snapshot", "s", took, note=note),
        Figure(
            "the longest stall meanwhile",
            "snapshot",
            "ms",
            tuple(each * 1e3 for each in stall),
            most=5.0,
            note="by which a beat of 1 ms is late",
        ),
        Figure(
            "the same with nothing to do",
            "snapshot",
            "ms",
            tuple(each * 1e3 for each in idle),
            note="what the machine does to a process, in as long a time",
        ),
        Figure(
            "each entry of a mirror",
            "snapshot",
            "bytes",
            size,
            most=24.0,
            note="VmRSS with all of them, less without",
        ),
    ]


def fill(port: int, entries: int) -> None:
    """Put so many *entries* into the store at *port*, as if they had been written."""
    with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
        connection.settimeout(PATIENCE)
        replies = connection.makefile("rb")
        for first in range(0, entries, AT_ONCE):
            count = min(AT_ONCE, entries - first)
            connection.sendall(b"".join(_written() for _ in range(count)))
            for _ in range(count):
                if replies.readline() != b"+OK\r\n":
                    raise WrongError("the store takes no entries")


def _written() -> bytes:
    key = key_of("token", secrets.token_bytes(SIZE))
    words = (b"SET", key, b"1:0", b"PX", b"%d" % LIFE)
    parts = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%b" % (len(words), parts)


async def _latest(work: Awaitable[None]) -> float:
    """Return by how much a beat was late at most, in seconds, while *work* was done."""
    worst = 0.0

    async def beat() -> None:
        nonlocal worst
        while True:
            due = time.monotonic() + BEAT
            await asyncio.sleep(BEAT)
            worst = max(worst, time.monotonic() - due)

    beating = asyncio.ensure_future(beat())
    await work
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    return worst


async def _learn(url: str, entries: int) -> tuple[float, float, float, float]:
    mirror = MirroredRevocations(url, Clock(time.time, time.monotonic))
    gc.collect()
    before, begun = resident(os.getpid()), time.monotonic()
    running = asyncio.ensure_future(mirror.run())
    worst = await _latest(mirror.ready(PATIENCE))
    took = time.monotonic() - begun
    if not mirror.is_live or len(mirror) != entries:
        raise WrongError(f"{len(mirror)} of {entries} are known: {mirror.health()}")
    gc.collect()
    size = (resident(os.getpid()) - before) / entries
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await mirror.aclose()
    idle = await _latest(asyncio.sleep(took))
    return took, worst, idle, size


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_learn(sys.argv[1], int(sys.argv[2])))))

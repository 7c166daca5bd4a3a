"""Clients for the soak: so many requests a second, and no more, on loopback.

Open loop: a request is due at its time whether or not the one before it was answered,
and its latency counts from then, so that a gateway that stalls can't hide it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 10.0  # seconds for one answer; a longer wait is a failure


@dataclass
class Tally:
    """What became of the requests of one load."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # seconds

    def quantile(self, share: float) -> float:
        """Return the latency, in milliseconds, that *share* of the requests kept."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def count(self) -> int:
        return sum(self.statuses.values())


class Caller(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.is_open = True
        self._buffer = bytearray()
        self._waiting: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        _, _, rest = head.partition(b"content-length: ")
        size = int(rest.split(b"\r\n")[0]) if rest else 0
        if len(self._buffer) < end + 4 + size:
            return
        del self._buffer[: end + 4 + size]
        if b"connection: close" in head:
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError())

    async def call(self, request: bytes) -> int:
        """Send *request*; return the status of its answer."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(PATIENCE):
            return await self._waiting

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


async def connect(port: int) -> Caller:
    """Return a new connection to *port*."""
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
    return caller


async def load(
    port: int,
    requests: Iterator[bytes],
    *,
    rate: float,
    seconds: float,
    callers: int = 8,
) -> Tally:
    """Send *rate* of *requests* a second, for so many *seconds*."""
    tally = Tally()
    turns = itertools.count()
    begun = time.monotonic()

    async def work() -> None:
        caller: Caller | None = None
        for turn in turns:
            due = begun + turn / rate
            if due >= begun + seconds:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                if caller is None or not caller.is_open:
                    caller = await connect(port)
                status = await caller.call(next(requests))
                tally.statuses[status] += 1
                tally.latencies.append(time.monotonic() - due)
            except (OSError, TimeoutError) as error:
                tally.failures.append(repr(error))
                caller = None
        if caller is not None:
            caller.close()

    await asyncio.gather(*[work() for _ in range(callers)])
    return tally


async def drip(
    port: int, *, connections: int, until: asyncio.Event, pause: float = 1.0
) -> list[float]:
    """Keep *connections* open, each sending its head a byte at a time.

    Returns how long each was let live, in seconds; one that was closed comes again.
    """
    lives: list[float] = []
    heads = (b"GET /api/orders/status HTTP/1.1\r\nHost: a\r\nX: ", b"GET /")

    async def one(number: int) -> None:
        await asyncio.sleep(pause * number / connections)
        while not until.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(pause)
                continue
            begun = time.monotonic()
            text = itertools.chain(heads[number % 2], itertools.repeat(ord("a")))
            with contextlib.suppress(OSError):
                while not reader.at_eof() and not until.is_set():
                    writer.write(bytes([next(text)]))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await reader.read(4096)
                            await reader.read()
            if not until.is_set():
                lives.append(time.monotonic() - begun)
            writer.transport.abort()

    await asyncio.gather(*[one(number) for number in range(connections)])
    return lives


async def elsewhere(words: list[str]) -> Any:
    """Run a load in a process of its own, and return what it says in JSON.

    A loop that sends a thousand requests a second is late for the answers to others,
    and would measure itself. It gets what the measuring loop leaves of their core.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.soak.load",
        *words,
        cwd=Path(__file__).parent.parent.parent,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(said)


async def _main(kind: str, port: str, size: str, seconds: str) -> Any:
    # Not os.nice: even with 19 Linux lets us finish our slice of 3 ms before somebody
    # who wakes up, and the measuring loop would take its own wait for the gateway's.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if kind == "drip":
        end = asyncio.Event()
        asyncio.get_running_loop().call_later(float(seconds), end.set)
        return await drip(int(port), connections=int(size), until=end)
    from tests.soak.attacks import mixed

    tally = await load(
        int(port), mixed(), rate=float(size), seconds=float(seconds), callers=32
    )
    return {"statuses": tally.statuses, "failures": tally.failures}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(*sys.argv[1:]))))

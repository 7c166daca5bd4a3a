"""Gateways as processes, and clients that go on calling whatever happens to them.

A client keeps its connection, honours `Connection: close`, and counts as failed
whatever is not a whole answer with the status it should have.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ports import free_port
from tests.backends import Behaviour, Connection, answer, echoing, running
from tests.e2e.processes import PATIENCE, Command
from tests.site import POLICY, Site

STATUS = "/api/orders/status"
LATE = b"late"


@dataclass
class Node:
    """One `gateway serve` with its configuration."""

    site: Site
    port: int
    probes: int
    command: Command

    @property
    def pid(self) -> int:
        return self.command.process.pid

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ready(self) -> tuple[int, str]:
        """Return status and text of /readyz?verbose."""
        asking = http.client.HTTPConnection("127.0.0.1", self.probes, timeout=PATIENCE)
        with contextlib.closing(asking):
            asking.request("GET", "/readyz?verbose")
            answer = asking.getresponse()
            return answer.status, answer.read().decode()

    async def told(
        self, words: str, times: int = 1, *, within: float = PATIENCE
    ) -> None:
        """Wait until *words* are in the log so many times."""
        told = self.command
        await until(lambda: told.err.count(words) >= times, told, within=within)

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        return children(self.pid)


def node(
    directory: Path,
    upstream: int,
    *,
    server: str = "",
    drain: str = 'drain_delay = "500ms"',
    store: str = "memory",
    words: Sequence[str] = ("-m", "gateway", "serve", "-c"),
    more: Sequence[str] = (),
    policy: str = POLICY,
    upstream_more: str = "",
) -> Node:
    """Start a gateway in front of the port *upstream*; return when it is ready.

    Args:
        directory: For its files.
        upstream: On loopback.
        server: More lines of `[server]`.
        drain: Those of it that say how it stops.
        store: A URL, or "memory".
        words: The command, up to its configuration.
        more: And behind it.
        policy: Of the service.
        upstream_more: More lines of its `[upstream.orders]`.
    """
    directory.mkdir(exist_ok=True)
    port, probes = free_port(), free_port()
    url = f"http://127.0.0.1:{upstream}"
    site = Site(directory, url, store, f"127.0.0.1:{port}", server, drain)
    site.policy = policy
    site.more = f'{upstream_more}\n[probes]\nlisten = "127.0.0.1:{probes}"\n'
    command = Command([*words, str(site.write()), *more], cwd=directory)
    with contextlib.ExitStack() as unless_ready:
        unless_ready.enter_context(command)
        command.wait_for(f"http://127.0.0.1:{probes}/readyz")
        unless_ready.pop_all()
    return Node(site, port, probes, command)


@contextlib.asynccontextmanager
async def serving(
    directory: Path, behaviour: Behaviour = echoing, **more: Any
) -> AsyncIterator[Node]:
    """Run a gateway in front of a backend; see `node`."""
    async with running(behaviour) as backend:
        given = node(directory, backend.port, **more)
        with given.command:
            yield given


def children(pid: int) -> list[int]:
    """Return the living children of *pid*."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [child for child in map(int, text.split()) if lives(child)]


def lives(pid: int) -> bool:
    """Tell whether *pid* runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def ask(port: int, path: str, headers: Mapping[str, str] | None = None) -> int:
    """Return the status of one call on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {path} HTTP/1.1", "Host: shop.example", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return int(answer[9:12])


async def until(
    true: Callable[[], bool],
    command: Command | None = None,
    *,
    within: float = PATIENCE,
) -> None:
    """Wait until it is *true*, for some seconds."""
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, command.out + command.err if command else ""
        await asyncio.sleep(0.02)


async def at_leisure(connection: Connection) -> None:
    """Answer at once, and `?wait=` so many seconds after the answer has begun."""
    whole = answer(LATE)
    while True:
        request = await connection.request()
        wait = float(request.target.partition(b"?wait=")[2] or 0)
        if wait:
            await connection.send(whole[: -len(LATE)])
            await asyncio.sleep(wait)
            await connection.send(LATE)
        else:
            await connection.send(whole)


async def comes_whole(port: int, wait: float) -> bool:
    """Tell whether an answer that takes *wait* seconds comes whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    target = f"{STATUS}?wait={wait}"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n".encode())
    try:
        async with asyncio.timeout(wait + PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            return await reader.readexactly(len(LATE)) == LATE
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()


@dataclass
class Callers:
    """What many clients met."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    connections: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def calls(self) -> int:
        return self.statuses.total()

    @property
    def rate(self) -> float:
        """Calls that were answered in each second, since the first."""
        return self.calls / (time.monotonic() - self.begun)

    async def more(self, calls: int) -> None:
        """Wait until so many more calls have been answered."""
        wanted = self.calls + calls
        async with asyncio.timeout(PATIENCE):
            while self.calls < wanted and not self.failures:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def calling(
    port: int, path: str = STATUS, *, clients: int = 25, rate: float = 400
) -> AsyncIterator[Callers]:
    """Have *clients* call, so many times a second altogether.

    Each call is due at its time, whatever became of those before it: who had to wait
    makes up for it.
    """
    callers = Callers()
    stopping = asyncio.Event()
    request = f"GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n".encode()

    async def client(number: int) -> None:
        due = callers.begun + number / rate
        await asyncio.sleep(number / rate)
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not stopping.is_set():
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", port)
                    callers.connections += 1
                reader, writer = streams
                writer.write(request)
                async with asyncio.timeout(PATIENCE):
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(_length(head))
            except (OSError, EOFError) as error:
                callers.failures.append(repr(error))
                streams = None
                continue
            callers.statuses[int(head[9:12])] += 1
            if b"\r\nconnection: close\r\n" in head.lower():
                writer.close()
                streams = None
            due += clients / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if streams is not None:
            streams[1].close()

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(client(number)) for number in range(clients)]
    try:
        yield callers
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    raise ValueError(head)

"""A backend that records every byte it is sent, and misbehaves on demand.

What it received is the evidence of most tests of the data port: not what a client of
ours believes it sent, but what stood on the wire.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class Received:
    """One request as the backend read it, strictly."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def value(self, name: bytes) -> bytes:
        (value,) = self.values(name)
        return value


@dataclass(slots=True)
class Connection:
    """One connection of the backend, and all the bytes that came by it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    backend: Backend
    raw: bytearray = field(default_factory=bytearray)
    ended: bool = False  # the other side closed, or reset, it
    is_busy: bool = False  # a request has begun, and its answer has not ended

    async def _take(self, read: Awaitable[bytes]) -> bytes:
        data = await read
        self.raw += data
        return data

    async def request(self) -> Received:
        """Read one request to its end; a half one raises."""
        self.is_busy = False
        request = await self.head()
        self.is_busy = True
        await self.body(request)
        self.backend.requests.append(request)
        return request

    async def head(self) -> Received:
        raw = await self._take(self.reader.readuntil(b"\r\n\r\n"))
        line, *fields = raw[:-4].split(b"\r\n")
        match = re.fullmatch(rb"([A-Z-]+) (\S+) HTTP/1\.1", line)
        assert match, line
        headers = []
        for each in fields:
            name, _, value = each.partition(b": ")
            assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9a-z-]+", name), each
            headers.append((name, value))
        return Received(match[1], match[2], headers)

    async def body(self, request: Received) -> None:
        lengths = request.values(b"content-length")
        codings = request.values(b"transfer-encoding")
        assert len(lengths) + len(codings) <= 1, request
        if lengths:
            request.body = await self._take(self.reader.readexactly(int(lengths[0])))
        elif codings:
            assert codings == [b"chunked"], request
            while True:
                line = await self._take(self.reader.readuntil(b"\r\n"))
                size = int(line, 16)
                data = await self._take(self.reader.readexactly(size + 2))
                if not size:
                    if data != b"\r\n":
                        rest = await self._take(self.reader.readuntil(b"\r\n\r\n"))
                        request.trailers = data + rest
                    return
                request.body += data[:-2]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> None:
        """Read until the other side closes."""
        while await self._take(self.reader.read(65536)):
            pass

    def reset(self) -> None:
        self.writer.transport.abort()


Behaviour = Callable[[Connection], Awaitable[None]]


class Backend:
    """A server on a free loopback port, or on a Unix socket."""

    host = "127.0.0.1"

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.connections: list[Connection] = []
        self.requests: list[Received] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def raw(self) -> bytes:
        """Everything received, by all connections."""
        return b"".join(bytes(one.raw) for one in self.connections)

    async def start(self, path: str = "", secure: ssl.SSLContext | None = None) -> None:
        """Listen, where it did before if it did."""
        if path:
            self._server = await asyncio.start_unix_server(self._serve, path)
        else:
            self._server = await asyncio.start_server(
                self._serve, self.host, self.port, ssl=secure
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more; what is connected stays."""
        assert self._server is not None
        self._server.close()

    async def stop(self) -> None:
        assert self._server is not None
        await self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in self.connections:
            one.writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(reader, writer, self)
        self.connections.append(connection)
        try:
            await self.behaviour(connection)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            connection.raw += getattr(error, "partial", b"")
            connection.ended = True
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            with suppress(ConnectionError):
                writer.close()


@asynccontextmanager
async def running(
    behaviour: Behaviour, path: str = "", secure: ssl.SSLContext | None = None
) -> AsyncIterator[Backend]:
    """Run a backend that treats each of its connections so."""
    backend = Backend(behaviour)
    await backend.start(path, secure)
    try:
        yield backend
    finally:
        await backend.stop()


def answer(
    body: bytes = b"ok",
    *,
    status: bytes = b"200 OK",
    fields: bytes = b"",
) -> bytes:
    """Return an answer with a Content-Length."""
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status,
        len(body),
        fields,
        body,
    )


# Behaviours. Each serves one connection.


async def echoing(connection: Connection) -> None:
    """Answer with the target, a nonce if there was one, and the body."""
    while True:
        request = await connection.request()
        nonce = b"".join(request.values(b"nonce"))
        body = b"%b %b %b" % (request.target, nonce, request.body)
        if request.method == b"HEAD":
            head, _, _ = answer(body).partition(b"\r\n\r\n")
            await connection.send(head + b"\r\n\r\n")
        else:
            await connection.send(answer(body))


def saying(raw: bytes, *, close: bool = False) -> Behaviour:
    """Answer every request with *raw*, whatever it is."""

    async def behave(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(raw)
            if close:
                return

    return behave


def saying_late(raw: bytes, late: bytes, after: float) -> Behaviour:
    """Answer with *raw*, and say *late* when nobody has asked any more."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(raw)
        await asyncio.sleep(after)
        await connection.send(late)
        await connection.rest()

    return behave


async def silent(connection: Connection) -> None:
    """Read all and say nothing."""
    await connection.rest()
    connection.ended = True


async def endless_head(connection: Connection) -> None:
    """Begin an answer, and never come to its body."""
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\nx-endless: ")
    while True:
        await connection.send(b"a" * 4096)


def dribbling(*pieces: bytes, pause: float) -> Behaviour:
    """Send *pieces* with a pause before each."""

    async def behave(connection: Connection) -> None:
        while True:
            await connection.request()
            for piece in pieces:
                await asyncio.sleep(pause)
                await connection.send(piece)

    return behave


def dropping(times: int, then: Behaviour = echoing) -> Behaviour:
    """Close the first connections after they have served one request each.

    The second request on such a connection is read, and answered with a close.
    """
    left = times

    async def behave(connection: Connection) -> None:
        nonlocal left
        if left <= 0:
            await then(connection)
            return
        left -= 1
        request = await connection.request()
        await connection.send(answer(request.target))
        await connection.head()
        connection.reset()

    return behave


async def hasty(connection: Connection) -> None:
    """Answer as soon as the head is there, and read nothing more."""
    request = await connection.head()
    connection.backend.requests.append(request)
    await connection.send(answer(b"no thanks", status=b"403 Forbidden"))
    await connection.rest()


async def patient(connection: Connection) -> None:
    """Say 100 Continue to whoever waits for it."""
    while True:
        request = await connection.head()
        if request.values(b"expect"):
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.body(request)
        connection.backend.requests.append(request)
        await connection.send(answer(request.body))


@contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port whose connections neither open nor fail: its queue is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
            waiting.append(sock)
        try:
            yield listening.getsockname()[1]
        finally:
            for sock in waiting:
                sock.close()

"""A backend process that can be troubled, and that says what it has done.

    python -m tests.soak.endpoint NAME HOST PORT LEDGER

Before it answers a request it adds a line to the file LEDGER, so that a kill can't make
it forget one that it has executed: the method, the last segment of the path, its own
name, and how many requests had come by that connection. A WebSocket is echoed, with its
name before each message; `/stream/` is answered in pieces; all else after a moment.

What it is told on standard input, a word in each line, is how it behaves from then on.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

PIECES, PAUSE = 10, 0.1  # of a stream; seconds between two
THOUGHT = 0.02  # seconds at most before an answer
STATUSES = {"failing": b"500 Internal Server Error", "overloaded": b"503 Busy"}


class Endpoint:
    """What all its connections share."""

    def __init__(self, name: str, ledger: str) -> None:
        self.name = name.encode()
        self.mode = "well"  # | failing | overloaded | moody
        self.random = random.Random(name)
        self.connections: set[Served] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, method: bytes, target: bytes, count: int) -> None:
        name = target.rpartition(b"/")[2]
        os.write(self._ledger, b"%b %b %b %d\n" % (method, name, self.name, count))

    async def close_some(self) -> None:
        """While it is moody, close idle connections when it likes."""
        while True:
            await asyncio.sleep(self.random.random() * 0.05)
            idle = [one for one in self.connections if one.is_idle]
            if self.mode == "moody" and idle:
                self.random.choice(idle).transport.close()

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class Served(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.count = 0
        self.buffer = b""
        self.socket: ServerProtocol | None = None
        self.answering: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        is_busy = self.answering is not None or self.socket is not None
        return self.count > 0 and not is_busy and not self.buffer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.endpoint.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.connections.discard(self)
        if self.answering is not None:
            self.answering.cancel()

    def data_received(self, data: bytes) -> None:
        if self.socket is not None:
            self._echo(data)
            return
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        if not end or len(rest) < size:
            return
        assert len(rest) == size, "requests are not pipelined"
        data, self.buffer = self.buffer, b""
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        self.count += 1
        self.endpoint.note(method, target, self.count)
        status = STATUSES.get(self.endpoint.mode)
        if status is None and b"\r\nupgrade: websocket" in head.lower():
            self.socket = ServerProtocol()
            self._echo(data)
            return
        is_stream = b"/stream/" in target and status is None
        answer = self._stream() if is_stream else self._answer(status, target)
        self.answering = self.endpoint.spawn(answer)

    async def _answer(self, status: bytes | None, target: bytes) -> None:
        await asyncio.sleep(self.endpoint.random.random() * THOUGHT)
        self.transport.write(
            b"HTTP/1.1 %b\r\nx-endpoint: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (status or b"200 OK", self.endpoint.name, len(target), target)
        )
        self.answering = None

    async def _stream(self) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nx-endpoint: %b\r\ntransfer-encoding: chunked\r\n\r\n"
            % self.endpoint.name
        )
        for _ in range(PIECES):
            self.transport.write(b"5\r\npiece\r\n")
            await asyncio.sleep(PAUSE)
        self.transport.write(b"0\r\n\r\n")
        self.answering = None

    def _echo(self, data: bytes) -> None:
        assert self.socket is not None
        self.socket.receive_data(data)
        for event in self.socket.events_received():
            if isinstance(event, Request):
                self.socket.send_response(self.socket.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self.socket.send_text(self.endpoint.name + b" " + bytes(event.data))
        for piece in self.socket.data_to_send():
            if piece:
                self.transport.write(piece)
            else:
                self.transport.write_eof()


async def main(name: str, host: str, port: str, ledger: str) -> None:
    endpoint = Endpoint(name, ledger)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    endpoint.spawn(endpoint.close_some())
    await loop.create_server(lambda: Served(endpoint), host, int(port), backlog=512)
    while line := await reader.readline():
        endpoint.mode = line.strip().decode()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A peer that speaks RESP as it is told: late, in pieces, wrongly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import hiredis

Command = list[bytes]
Answer = Callable[[Command, asyncio.StreamWriter], Awaitable[None]]
"""Writes the reply to a command, or not."""


class Peer:
    """A server on a loopback port that answers the handshake like Redis."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.commands: list[Command] = []
        self.greetings: list[Command] = []  # CLIENT, whatever it says
        self.connections = 0
        self.port = 0
        self._is_closed = False
        self._served: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._is_closed:  # it was on its way when the last ones were ended
            writer.transport.abort()
            return
        self._writers.add(writer)
        self._served.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def close(self) -> None:
        self._is_closed = True
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)
        # Also of those that ended before they had begun.
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        parser = hiredis.Reader()
        try:
            while received := await reader.read(65_536):
                parser.feed(received)
                while (command := parser.gets()) is not False:
                    if command[0].upper() == b"CLIENT":
                        self.greetings.append(command)
                        writer.write(b"+OK\r\n")
                    else:
                        self.commands.append(command)
                        await self._answer(command, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._writers.discard(writer)


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[Peer]:
    """Run a Peer that answers commands with *answer*."""
    made = Peer(answer)
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()


def says(reply: bytes) -> Answer:
    """Answer every command with *reply*, whatever it is."""

    async def answer(_command: Command, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)

    return answer


def nothing_revoked(command: Command) -> bytes:
    """Return the reply of an empty list to a check."""
    keys, number = int(command[2]), command[-1]
    return b"*%d\r\n$%d\r\n%b\r\n" % (keys + 1, len(number), number) + b"$-1\r\n" * keys

"""The line between the supervisor and one worker: a socket pair, frames both ways.

Either side tells the other something, or asks and waits for the answer, with a bound.
The end of the line is how each learns of the other's death: the kernel closes a dead
process's sockets, whatever killed it.

A frame is its length, a number, a kind, and what is said: a name, a line end, bytes.

Imports: the standard library only.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

# Bytes of a frame. Both ends are ours; this ends a line that has lost its step before
# it takes the memory.
MAX_FRAME = 16 * 1024 * 1024
_HEAD = struct.Struct(">IIc")
_TELL, _ASK, _ANSWER, _FAILURE = b"t", b"a", b"r", b"f"

Handler = Callable[[str, bytes], Awaitable[bytes]]


class Refused(Exception):  # noqa: N818
    """The other side could not do what it was asked; says why."""


class Channel:
    """One end.

    Args:
        reader: Of a connected socket.
        writer: Of the same.
        spawn: Runs a coroutine in the background; keeps, logs and isolates it.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._spawn = spawn
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> Channel:
        """Return the end that *sock*, which is its own from now on, is."""
        return cls(*await asyncio.open_connection(sock=sock), spawn)

    def tell(self, name: str, said: bytes = b"") -> None:
        """Say something that needs no answer. Never waits."""
        self._send(0, _TELL, name, said)

    async def ask(self, name: str, said: bytes = b"", *, within: float) -> bytes:
        """Ask the other side, and wait up to *within* seconds.

        Raises:
            TimeoutError: It did not answer.
            ConnectionError: It is no more.
            Refused: It could not.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the line has ended")
        number = next(self._numbers)
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            self._send(number, _ASK, name, said)
            async with asyncio.timeout(within):
                answer: bytes = await waiting
                return answer
        finally:
            del self._waiting[number]

    async def serve(self, handle: Handler) -> None:
        """Hand what is said to *handle*, until the other side is no more.

        What is asked is handled in the background, so that no order waits for an
        answer. Where *handle* raises, the other side is refused in its words.
        """
        try:
            while True:
                head = await self._reader.readexactly(_HEAD.size)
                size, number, kind = _HEAD.unpack(head)
                if size > MAX_FRAME:
                    logger.error("a frame of %d bytes ends the line", size)
                    return
                frame = await self._reader.readexactly(size)
                name, _, said = frame.partition(b"\n")
                if kind == _ASK:
                    self._spawn(self._answer(number, handle, name.decode(), said))
                elif kind == _TELL:
                    await handle(name.decode(), said)
                else:
                    self._settle(number, kind, said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End the line; whoever waits for an answer gets none."""
        self._writer.transport.abort()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the line has ended"))

    async def _answer(
        self, number: int, handle: Handler, name: str, said: bytes
    ) -> None:
        try:
            answer, kind = await handle(name, said), _ANSWER
        except Exception as error:  # noqa: BLE001  (the one who asked is told)
            answer, kind = f"{type(error).__name__}: {error}".encode(), _FAILURE
        self._send(number, kind, "", answer)

    def _settle(self, number: int, kind: bytes, said: bytes) -> None:
        waiting = self._waiting.get(number)  # none: whoever asked has given up
        if waiting is None or waiting.done():
            return
        if kind == _ANSWER:
            waiting.set_result(said)
        else:
            waiting.set_exception(Refused(said.decode("utf-8", "replace")))

    def _send(self, number: int, kind: bytes, name: str, said: bytes) -> None:
        if self._writer.is_closing():
            return
        frame = name.encode() + b"\n" + said
        self._writer.write(_HEAD.pack(len(frame), number, kind) + frame)

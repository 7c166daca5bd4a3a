"""Scripts over one connection to Redis 7 or Valkey.

A Line serves one exchange at a time, and knows no deadline: whoever uses it sets one,
and drops the connection when anything went wrong. Where it leads is
gateway.adapters.redis_places' to know. A script's first argument is a number that it
repeats as the first element of its reply. An answer that is late, or another's, is
thereby known as one, whatever happened on the connection before (CVE-2023-28858).

Imports: hiredis, redis, gateway.adapters.redis_places, gateway.adapters.script.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as ConnectionBroken
from redis.exceptions import MovedError, NoScriptError, ResponseError

from gateway.adapters.redis_places import hang_up, places_of
from gateway.adapters.script import Script

Reply = list[Any] | ResponseError
"""What a script returned after the number, or the error reply to it."""


class Garbled(Exception):  # noqa: N818  (what the other end said)
    """A reply that is none to what was asked."""


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script; its ARGV[1] is the number, *args* follow."""

    script: Script
    keys: tuple[bytes, ...]
    args: tuple[bytes, ...] = ()


class Line:
    """A connection that is made when it is needed.

    Args:
        url: Of [store], with the passwords in it. In Redis Cluster all keys of one
            Line have to share one hash tag.
        connect_timeout: Seconds.

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """

    def __init__(self, url: str, *, connect_timeout: float) -> None:
        self._places = places_of(url, connect_timeout=connect_timeout)
        self._connection: AbstractConnection | None = None
        self._numbers = itertools.count(1)

    async def run(self, calls: Sequence[Call]) -> list[Reply]:
        """Return the replies to *calls*, in one round trip.

        They may run twice: if a connection that was made before turns out to be broken,
        the other end may have hung up while nobody looked, which says nothing about
        the store.
        """
        if not calls:
            # An empty write is not nothing: from Python 3.12 on it stays in the
            # transport's buffer for good, keeps the loop spinning, and the connection
            # can't be closed any more (python/cpython#155888).
            return []
        reused = self._connection is not None
        try:
            return await self._run(calls)
        except (ConnectionBroken, Garbled):
            if not reused:
                raise
        await self.drop()
        return await self._run(calls)

    async def command(self, *words: bytes) -> Any:
        """Return the reply to a plain command, on the connection of the last `run`.

        Nothing tells a late answer to it from an early one to the next: whoever gave up
        on one drops the connection.

        Raises:
            ResponseError: The reply is an error.
            ConnectionError: There is no connection, or none any more.
        """
        if self._connection is None:
            raise ConnectionBroken("not connected")
        command: Any = words
        packed: bytes = hiredis.pack_command(command)
        await self._connection.send_packed_command(packed, check_health=False)
        return await self._connection.read_response(disable_decoding=True)

    async def wait(self, replicas: int, *, within: float) -> int:
        """Return how many replicas have all that was written on this connection.

        Args:
            replicas: That one waits for.
            within: Seconds.
        """
        milliseconds = b"%d" % max(1, within * 1000)
        has = await self.command(b"WAIT", b"%d" % replicas, milliseconds)
        if not isinstance(has, int):
            raise Garbled
        return has

    async def drop(self) -> None:
        """Let go of the connection, without a word."""
        self._places.lost()
        await self._hang_up()

    async def aclose(self) -> None:
        """Let go of the connection, and wait until it is closed."""
        await self._hang_up(is_patient=True)
        # One turn of the loop, in which what was dropped without a word is closed.
        await asyncio.sleep(0)

    async def _hang_up(self, *, is_patient: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await hang_up(connection, is_patient=is_patient)

    async def _run(self, calls: Sequence[Call]) -> list[Reply]:
        replies = await self._run_here(calls)
        moved = next((each for each in replies if isinstance(each, MovedError)), None)
        if moved is not None and self._places.moved(moved):
            # Whoever says MOVED has run nothing. It is followed once: what moves on
            # meanwhile, or two nodes that name each other, are an outage.
            await self._hang_up()
            await _redo(MovedError, calls, replies, self._run_here)
        return replies

    async def _run_here(self, calls: Sequence[Call]) -> list[Reply]:
        """Return what is said where the connection leads."""
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._places.open()
        replies = await self._round_trip(connection, calls)
        # A store that has been restarted knows no script; it is told the text.
        tell = partial(self._round_trip, connection, whole=True)
        await _redo(NoScriptError, calls, replies, tell)
        return replies

    async def _round_trip(
        self,
        connection: AbstractConnection,
        calls: Sequence[Call],
        *,
        whole: bool = False,
    ) -> list[Reply]:
        numbers = [b"%d" % next(self._numbers) for _ in calls]
        packed = [
            _pack(call, number, whole=whole)
            for call, number in zip(calls, numbers, strict=True)
        ]
        await connection.send_packed_command(b"".join(packed), check_health=False)
        replies: list[Reply] = []
        for number in numbers:
            try:
                reply = await connection.read_response(disable_decoding=True)
            except ResponseError as error:
                replies.append(error)
                continue
            if not isinstance(reply, list) or reply[:1] != [number]:
                raise Garbled
            replies.append(reply[1:])
        return replies


async def _redo(
    kind: type[ResponseError],
    calls: Sequence[Call],
    replies: list[Reply],
    run: Callable[[Sequence[Call]], Awaitable[list[Reply]]],
) -> None:
    """Give those of *calls* to *run* whose reply is a *kind*, for another one."""
    places = [place for place, reply in enumerate(replies) if isinstance(reply, kind)]
    if places:
        again = await run([calls[place] for place in places])
        for place, reply in zip(places, again, strict=True):
            replies[place] = reply


def _pack(call: Call, number: bytes, *, whole: bool) -> bytes:
    script = call.script
    head = (b"EVAL", script.text) if whole else (b"EVALSHA", script.digest)
    count = b"%d" % len(call.keys)
    command: Any = (*head, count, *call.keys, number, *call.args)
    packed: bytes = hiredis.pack_command(command)
    return packed

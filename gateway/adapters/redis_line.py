"""Scripts over one connection to Redis 7 or Valkey.

A Line serves one exchange at a time, and knows no deadline: whoever uses it sets one,
and drops the connection when anything went wrong. A script's first argument is a number
that it repeats as the first element of its reply. An answer that is late, or another's,
is thereby known as one, whatever happened on the connection before (CVE-2023-28858).

Imports: hiredis, redis.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionBroken
from redis.exceptions import NoScriptError, RedisError, ResponseError

Reply = list[Any] | ResponseError
"""What a script returned after the number, or the error reply to it."""


class Garbled(Exception):  # noqa: N818  (what the other end said)
    """A reply that is none to what was asked."""


class Script:
    """A Lua script. Redis knows one that it has run by its digest."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.digest = sha1(text, usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script; its ARGV[1] is the number, *args* follow."""

    script: Script
    keys: tuple[bytes, ...]
    args: tuple[bytes, ...] = ()


class Line:
    """A connection that is made when it is needed.

    Args:
        url: redis://, rediss:// or unix://, with the password in it.
        connect_timeout: Seconds.

    Raises:
        ValueError: *url* is none of these; the message does not quote it.
    """

    def __init__(self, url: str, *, connect_timeout: float) -> None:
        self._connect = _connector(url, connect_timeout)
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
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Let go of the connection, and wait until it is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect()
        # One turn of the loop, in which what was dropped without a word is closed.
        await asyncio.sleep(0)

    async def _run(self, calls: Sequence[Call]) -> list[Reply]:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
            await connection.connect()  # type: ignore[no-untyped-call]
        replies = await self._round_trip(connection, calls, whole=False)
        # A store that has been restarted knows no script; it is told the text.
        unknown = [
            place
            for place, reply in enumerate(replies)
            if isinstance(reply, NoScriptError)
        ]
        if unknown:
            again = await self._round_trip(
                connection, [calls[place] for place in unknown], whole=True
            )
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        return replies

    async def _round_trip(
        self, connection: AbstractConnection, calls: Sequence[Call], *, whole: bool
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


def _pack(call: Call, number: bytes, *, whole: bool) -> bytes:
    script = call.script
    head = (b"EVAL", script.text) if whole else (b"EVALSHA", script.digest)
    count = b"%d" % len(call.keys)
    command: Any = (*head, count, *call.keys, number, *call.args)
    packed: bytes = hiredis.pack_command(command)
    return packed


_FROM_URL = {"host", "port", "path", "db", "username", "password"}


def _connector(url: str, timeout: float) -> Callable[[], AbstractConnection]:
    """Return what makes a connection to *url*."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        # "Port could not be cast to integer value as 'half of the password'".
        raise ValueError(
            "[store] url is not a redis://, rediss:// or unix:// URL"
        ) from None
    kind = options.pop("connection_class", Connection)
    # A query string must not bring back what is settled here: retries, longer
    # timeouts, decoding. What it may say is about TLS, and the database.
    for name in options:
        if name not in _FROM_URL and not name.startswith("ssl_"):
            raise ValueError(f"[store] url does not take {name!r}")
    options |= {
        "retry": Retry(NoBackoff(), 0),
        # Whoever uses a Line bounds a whole exchange, and so each part of it. Another
        # bound within costs a task for each write (Python 3.11), a fifth of a check.
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "client_name": "auth-gateway",
        "decode_responses": False,
        "protocol": 2,  # no pushes, and what RESP3 adds is not used
    }
    if "path" not in options:
        options["socket_keepalive"] = True

    def connect() -> AbstractConnection:
        connection: AbstractConnection = kind(**options)
        # No CLIENT SETINFO: two round trips more for a new connection, and one more
        # command to allow. How to say so depends on the version of redis-py.
        for name in ("driver_info", "lib_name", "lib_version"):
            setattr(connection, name, None)
        return connection

    try:
        connect()
    except Exception:  # noqa: BLE001  (an option that its class does not know)
        raise ValueError("[store] url has an option that is none") from None
    return connect

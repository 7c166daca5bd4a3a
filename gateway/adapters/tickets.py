"""Tickets that were given and not used yet: in memory, or in Redis 7 or Valkey.

To take one is to remove it, in one step: of any number of requests that present the
same ticket at once, one is answered. What is kept is gateway.tokens.tickets' to read.

Imports: gateway.adapters.redis_line, gateway.clock, gateway.model.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from gateway.adapters.redis_line import Call, Line, Reply, Script
from gateway.clock import Clock
from gateway.model import Unavailable

_LOG = logging.getLogger(__name__)

STORE = "ticket store"
# In memory: given within half a minute, 10 MB of them, 80 with the longest tokens.
MAX_TICKETS = 10_000
MAX_WAITING = 1024  # questions to Redis; whoever comes after them fails at once
MAX_CALLS = 64  # of them in one exchange: half a megabyte

_KEEP = Script(b"""#!lua
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {ARGV[1], 'kept'}
""")
_TAKE = Script(b"""#!lua
return {ARGV[1], redis.call('GETDEL', KEYS[1])}
""")

_Question = tuple[Call, asyncio.Future[Reply | None]]


class Tickets(Protocol):
    """What is kept of tickets. Everything may raise Unavailable."""

    async def keep(self, name: bytes, value: bytes, life: float) -> None:
        """Keep *value* under *name* for *life* seconds."""
        ...

    async def take(self, name: bytes) -> bytes | None:
        """Return what is kept under *name*, and keep it no more."""
        ...

    async def aclose(self) -> None: ...


class MemoryTickets:
    """Those of one process."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._kept: dict[bytes, tuple[bytes, float]] = {}  # oldest first

    async def keep(self, name: bytes, value: bytes, life: float) -> None:
        now = self._monotonic()
        # All live equally long, so the oldest is the next one that has run out.
        while self._kept and next(iter(self._kept.values()))[1] <= now:
            del self._kept[next(iter(self._kept))]
        if len(self._kept) >= MAX_TICKETS:
            raise Unavailable(STORE)
        self._kept[name] = (value, now + life)

    async def take(self, name: bytes) -> bytes | None:
        value, until = self._kept.pop(name, (b"", 0.0))
        return value if until > self._monotonic() else None

    async def aclose(self) -> None:
        """Keep what there is: the next generation may go on with it."""


class RedisTickets:
    """Those of all gateways on one store.

    Whatever is asked while an exchange is under way goes out together in the next one.
    The exchange is a task of its own, so that a caller who is cancelled leaves no
    answer behind for another (I7).

    Args:
        url: redis://, rediss:// or unix://, with the password in it.
        deadline: Seconds from a question to its answer or Unavailable (R60).

    Raises:
        ValueError: *url* is none of these; the message does not quote it.
    """

    def __init__(self, url: str, *, deadline: float = 0.150) -> None:
        self._line = Line(url, connect_timeout=deadline)
        self._deadline = deadline
        self._waiting: deque[_Question] = deque()
        # Not app.spawn: it lives no longer than somebody waits for it.
        self._sender: asyncio.Task[None] | None = None
        self._trouble = ""  # of the last exchange

    async def keep(self, name: bytes, value: bytes, life: float) -> None:
        await self._ask(_KEEP, name, value, b"%d" % (life * 1000))

    async def take(self, name: bytes) -> bytes | None:
        # If the connection breaks after Redis has read it, it may be asked again, and
        # finds nothing: a ticket may be lost, but is never used twice.
        value: bytes | None
        (value,) = await self._ask(_TAKE, name)
        return value

    async def aclose(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        for _, answer in self._waiting:
            if not answer.done():
                answer.set_result(None)
        self._waiting.clear()
        await self._line.aclose()

    async def _ask(self, script: Script, name: bytes, *args: bytes) -> list[Any]:
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable(STORE)
        call = Call(script, (b"gw:ticket:" + name.hex().encode(),), args)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply | None] = loop.create_future()
        self._waiting.append((call, answer))
        if self._sender is None:
            self._sender = loop.create_task(self._send())
        reply = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._deadline):
                reply = await answer
        if not isinstance(reply, list):
            raise Unavailable(STORE)
        return reply

    async def _send(self) -> None:
        """Serve whoever waits, one exchange after the other, until nobody does."""
        try:
            while self._waiting:
                taken = [
                    self._waiting.popleft()
                    for _ in range(min(len(self._waiting), MAX_CALLS))
                ]
                # Whoever has given up is not to lose a ticket by it.
                batch = [each for each in taken if not each[1].done()]
                if batch:
                    await self._exchange(batch)
        finally:
            self._sender = None

    async def _exchange(self, batch: list[_Question]) -> None:
        """Answer all of *batch*; the answer None is a failure."""
        replies: Sequence[Reply | None] = [None] * len(batch)
        is_good = False
        try:
            async with asyncio.timeout(self._deadline):
                replies = await self._line.run([call for call, _ in batch])
            # After an error reply, too, the connection goes: a store that has become a
            # replica may by now be another one behind the same name.
            is_good = all(isinstance(reply, list) for reply in replies)
            self._tell("")
        except Exception as error:  # noqa: BLE001  (a parser fed with anything at all)
            # The class of an error and no more: its text may hold an address.
            self._tell(type(error).__name__)
        finally:
            for (_, answer), reply in zip(batch, replies, strict=True):
                if not answer.done():
                    answer.set_result(reply)
            if not is_good:
                await self._line.drop()

    def _tell(self, trouble: str) -> None:
        """Log an outage once, and its end."""
        if bool(trouble) is not bool(self._trouble):
            say = f"is away: {trouble}" if trouble else "is back"
            _LOG.warning("%s %s", STORE, say)
        self._trouble = trouble

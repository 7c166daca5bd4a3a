"""Tickets that were given and not used yet: in memory, or in Redis 7 or Valkey.

To take one is to remove it, in one step: of any number of requests that present the
same ticket at once, one is answered. What is kept is gateway.tokens.tickets' to read.

Imports: gateway.adapters.redis_queue, gateway.adapters.script, gateway.clock,
gateway.model.
"""

from __future__ import annotations

from typing import Protocol

from gateway.adapters.script import Script
from gateway.clock import Clock
from gateway.model import Unavailable

STORE = "ticket store"
# In memory: given within half a minute, 10 MB of them, 80 with the longest tokens.
MAX_TICKETS = 10_000

_KEEP = Script(b"""#!lua
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {ARGV[1], 'kept'}
""")
_TAKE = Script(b"""#!lua
return {ARGV[1], redis.call('GETDEL', KEYS[1])}
""")


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

    Args:
        url: Of [store], with the passwords in it.
        deadline: Seconds from a question to its answer or Unavailable (R60).

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """

    def __init__(self, url: str, *, deadline: float = 0.150) -> None:
        # redis takes 90 ms to import: who keeps these in memory doesn't wait for it.
        from gateway.adapters.redis_queue import Queue  # noqa: PLC0415

        self._queue = Queue(url, STORE, deadline=deadline)

    async def keep(self, name: bytes, value: bytes, life: float) -> None:
        await self._queue.ask(_KEEP, _keys(name), value, b"%d" % (life * 1000))

    async def take(self, name: bytes) -> bytes | None:
        # If the connection breaks after Redis has read it, it may be asked again, and
        # finds nothing: a ticket may be lost, but is never used twice.
        value: bytes | None
        (value,) = await self._queue.ask(_TAKE, _keys(name))
        return value

    async def aclose(self) -> None:
        await self._queue.aclose()


def _keys(name: bytes) -> tuple[bytes]:
    # One hash tag: those of one exchange go to one node, in Cluster as well.
    return (b"{gw:ticket}:" + name.hex().encode(),)

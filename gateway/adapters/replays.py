"""The DPoP proofs that were used and are not too old yet: in memory, or in Redis.

To ask is to use: look and note are one step, so that of any number of requests with one
proof one is answered. A list that can't be asked is an outage, never consent (R61), and
so is one that does not reach back far enough: whoever starts empty, because it is new,
has been emptied, has lost its last writes or is another one than before, can't tell
about proofs from before that moment (R80).

Imports: gateway.adapters.redis_queue, gateway.adapters.script, gateway.clock,
gateway.model, gateway.tokens.dpop.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from gateway.adapters.script import Script
from gateway.clock import Clock
from gateway.model import Unavailable
from gateway.tokens.dpop import AHEAD, WINDOW

STORE = "replay list"
# From the first moment at which a proof is good to the last; and the clocks of two
# instances may differ by so much (seconds).
LIFE = AHEAD + WINDOW + 60.0
MAX_PROOFS = 200_000  # in memory, about 30 MB: 1,500 a second

# KEYS[1] names the proof, KEYS[2] holds which server it is, and since when (Unix
# seconds) its list is whole. INFO is the one place where a server says that it has
# started anew: with a snapshot for its data, the second key would be there again.
_USE = Script(b"""#!lua
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local known = redis.call('GET', KEYS[2]) or ''
local was, since = string.match(known, '^(%w+) (%d+)$')
if was ~= run then
  since = ARGV[4]
  redis.call('SET', KEYS[2], run .. ' ' .. since)
end
if tonumber(ARGV[2]) <= tonumber(since) then
  return {ARGV[1], 'since', since}
end
if redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[3]) then
  return {ARGV[1], 'first', ''}
end
return {ARGV[1], 'again', ''}
""")
# One hash tag: the two keys are used together, in Cluster as well.
_SINCE = b"{gw:dpop}:since"


class Replays(Protocol):
    """What is kept of proofs. Everything may raise Unavailable."""

    async def use(self, name: bytes, issued_at: float) -> bool:
        """Tell whether the proof *name* is used for the first time.

        Args:
            name: A digest.
            issued_at: Of the proof, Unix seconds.
        """
        ...

    async def begin(self) -> None:
        """Let the list begin now, if it has not: before the first proof comes."""
        ...

    async def aclose(self) -> None: ...


class MemoryReplays:
    """Those of one process; it knows nothing of proofs from before its start."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._since = int(clock.wall())  # proofs count in whole seconds
        self._used: dict[bytes, float] = {}  # oldest first

    async def use(self, name: bytes, issued_at: float) -> bool:
        if issued_at < self._since:
            raise Unavailable(STORE)
        now = self._monotonic()
        # All are kept equally long, so the oldest is the next that has run out.
        while self._used and next(iter(self._used.values())) <= now:
            del self._used[next(iter(self._used))]
        if name in self._used:
            return False
        if len(self._used) >= MAX_PROOFS:
            raise Unavailable(STORE)
        self._used[name] = now + LIFE
        return True

    async def begin(self) -> None:
        """Go on: it began when it was made."""

    async def aclose(self) -> None:
        """Keep what there is: the next generation goes on with it."""


class RedisReplays:
    """Those of all gateways on one store.

    Args:
        url: Of [store], with the passwords in it.
        clock: Tells when a list begins.
        deadline: Seconds from a question to its answer or Unavailable (R60).

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """

    def __init__(self, url: str, clock: Clock, *, deadline: float = 0.150) -> None:
        # redis takes 90 ms to import: who keeps these in memory doesn't wait for it.
        from gateway.adapters.redis_queue import Queue  # noqa: PLC0415

        self._queue = Queue(url, STORE, deadline=deadline)
        self._wall = clock.wall

    async def use(self, name: bytes, issued_at: float) -> bool:
        # If the connection breaks after Redis has read it, it may be asked again, and
        # the proof counts as used: it may be lost, but is never used twice.
        #
        # A proof that was used before the list began may be dated later than that, by
        # a clock that is ahead.
        oldest = int(issued_at - AHEAD)
        reply, since = await self._queue.ask(
            _USE,
            (b"{gw:dpop}:used:" + name.hex().encode(), _SINCE),
            b"%d" % oldest,
            b"%d" % (LIFE * 1000),
            b"%d" % self._wall(),
        )
        if reply == b"since":
            raise Unavailable(STORE, retry_after=int(since) + 1 - oldest)
        return bool(reply == b"first")

    async def begin(self) -> None:
        with suppress(Unavailable):  # there will be another occasion
            await self.use(b"", 0.0)

    async def aclose(self) -> None:
        await self._queue.aclose()

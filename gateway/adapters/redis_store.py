"""The revocation list that gateways share, in Redis 7 or Valkey.

What a reader should know first. One connection for each process; checks that arrive
in the same turn of the event loop, or while an exchange is under way, go out together
in the next one. The exchange belongs to a task of its own, never to a caller, and
every reply repeats a number that its command carried: a caller who is cancelled can't
leave an answer behind for the next one (CVE-2023-28858, I7). Whatever goes wrong is
an Unavailable within the deadline, never an answer (R60), and a connection on which
anything went wrong is not used again.

Imports: gateway.adapters, gateway.clock, gateway.model, gateway.revocation.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.adapters.circuit import Circuit
from gateway.adapters.redis_line import Call, Garbled, Line
from gateway.adapters.redis_scripts import NO_KEY, position_of, write_of
from gateway.adapters.script import Script
from gateway.clock import Clock
from gateway.model import Principal, Unavailable
from gateway.revocation.entries import (
    Kind,
    Revocation,
    entry_of,
    is_revoked,
    key_of,
    names,
)
from gateway.revocation.feed import Position

_T = TypeVar("_T")
STORE = "revocation store"
MAX_WAITING = 4096  # checks and writes; whoever comes after them fails at once
MAX_CHECKS = 256  # in one exchange: a thousand GETs are half a millisecond of Redis
MAX_WRITES = 64  # in one exchange, so that a bulk of them does not hold up checks

# No plain command, for a reason. MGET answers "nothing there" for a key of another
# type, which would read as "not revoked"; GET in a script says so. And without flags it
# makes Redis refuse the script where it would refuse a write: on a replica, which may
# not have heard of a revocation yet, and on a store too full to take one. Such a store
# is away.
_CHECK = Script(b"""#!lua
local reply = {ARGV[1]}
for place, key in ipairs(KEYS) do
  local held = redis.pcall('GET', key)
  if type(held) == 'table' and held.err then
    if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
    held = ''
  end
  reply[place + 1] = held
end
return reply
""")
_Found = dict[bytes, Any]
"""What is held under each key that was asked for; of a write its reply, under b"", and
how many replicas have it, where that was asked."""
_REPLICAS = b"replicas"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Somebody who waits for the next exchange; the answer None is a failure."""

    keys: tuple[bytes, ...]  # of a check
    write: Call | None
    replicas: int  # that it has to be waited for
    answer: asyncio.Future[_Found | None]


class RedisRevocations:
    """The list in Redis, asked each time.

    Args:
        url: Of [store], with the passwords in it.
        clock: For the life of what is written.
        deadline: Seconds from a question to its answer or Unavailable.
        replicas: How many have to have a write before it is acknowledged.

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """

    def __init__(
        self, url: str, clock: Clock, *, deadline: float = 0.150, replicas: int = 0
    ) -> None:
        self._line = Line(url, connect_timeout=deadline)
        self._clock = clock
        self._deadline = deadline
        self._replicas = replicas
        self._checks: deque[_Waiting] = deque()
        self._writes: deque[_Waiting] = deque()
        # Not app.spawn: it lives no longer than its exchange, and what goes wrong in it
        # is an answer to whoever waits.
        self._sender: asyncio.Task[None] | None = None
        self._circuit = Circuit(STORE, self.probe)
        self._closed = False

    async def check(self, principal: Principal) -> bool:
        """See RevocationList.check."""
        asked = {kind: key_of(kind, name) for kind, name in names(principal)}
        found = await self._ask(tuple(asked.values())) if asked else {}

        def held(kind: Kind) -> Callable[[bytes, float], float | None]:
            # By item, not by `get`: a key that nobody asked for is a bug, not a "no".
            value = found[asked[kind]]

            def get(name: bytes, now: float) -> float | None:  # noqa: ARG001
                if value is None:
                    return None
                entry = entry_of(kind, name, value, math.inf)
                return None if entry.lifts else entry.cutoff

            return get

        return is_revoked(principal, {kind: held(kind) for kind in asked}, 0.0)

    async def revoke(self, entry: Revocation) -> Position:
        """See RevocationList.revoke."""
        life = max(1, math.ceil((entry.until - self._clock.wall()) * 1000))
        return await self.run(
            write_of(entry, life=life), position_of, replicas=self._replicas
        )

    async def restore(self, entry: Revocation) -> Position:
        """See RevocationList.restore."""
        return await self.run(write_of(entry), position_of, replicas=self._replicas)

    async def run(
        self, call: Call, read: Callable[[list[Any]], _T], *, replicas: int = 0
    ) -> _T:
        """Return what *read* makes of the reply to *call*, in its turn with the writes.

        Args:
            call: What is asked.
            read: Raises Garbled where a reply is none.
            replicas: How many have to have what was written.

        Raises:
            Unavailable: There was none in time, or it is none. Or so many replicas did
                not say in time that they have it: it is written all the same.
        """
        found = await self._ask((), call, replicas=replicas)
        if found.get(_REPLICAS, 0) < replicas:
            raise Unavailable(f"replicas of the {STORE}")
        try:
            return read(found[b""])
        except Garbled:
            raise Unavailable(STORE) from None

    async def probe(self) -> None:
        await self._ask((), even_if_open=True)

    def health(self) -> str | None:
        fault = self._circuit.fault
        return fault and f"{STORE} is away: {fault}"

    async def aclose(self) -> None:
        self._closed = True
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._circuit.aclose()
        self._give_up()
        await self._line.aclose()

    async def _ask(
        self,
        keys: tuple[bytes, ...],
        write: Call | None = None,
        *,
        even_if_open: bool = False,
        replicas: int = 0,
    ) -> _Found:
        """Return what the store holds under *keys*, or its reply to *write*."""
        queue = self._checks if write is None else self._writes
        open_ = self._circuit.fault is not None and not even_if_open
        if self._closed or open_ or len(queue) >= MAX_WAITING:
            raise Unavailable(STORE)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(keys, write, replicas, loop.create_future())
        queue.append(waiting)
        if self._sender is None:
            # It starts in the next turn of the loop, and so takes along whoever else
            # comes in this one.
            self._sender = loop.create_task(self._send())
        try:
            async with asyncio.timeout(self._deadline):
                found = await waiting.answer
        except TimeoutError:
            found = None
        if found is None:
            # One of one's own: whoever catches it writes route and principal into it.
            raise Unavailable(STORE)
        return found

    async def _send(self) -> None:
        """Serve whoever waits, one exchange after the other, until nobody does."""
        try:
            while checks_and_writes := self._take():
                checks, writes = checks_and_writes
                try:
                    await self._exchange(checks, writes)
                finally:
                    _fail(checks)
                    _fail(writes)
                if self._circuit.fault is not None:
                    self._give_up()
        finally:
            self._sender = None

    def _take(self) -> tuple[list[_Waiting], list[_Waiting]] | None:
        checks = _first(self._checks, MAX_CHECKS)
        writes = _first(self._writes, MAX_WRITES)
        return (checks, writes) if checks or writes else None

    async def _exchange(self, checks: list[_Waiting], writes: list[_Waiting]) -> None:
        """Answer *checks* and *writes*; those left unanswered have failed."""
        error: Exception | None
        try:
            async with asyncio.timeout(self._deadline):
                error = await self._talk(checks, writes)
        except Exception as caught:  # noqa: BLE001  (a parser fed with anything at all)
            error = caught
        except BaseException:
            await self._line.drop()
            raise
        if error is None:
            self._circuit.succeeded()
        else:
            # Also after a mere error reply: a store that has become a replica may by
            # now be another one behind the same name.
            await self._line.drop()
            self._circuit.failed(type(error).__name__)

    async def _talk(
        self, checks: list[_Waiting], writes: list[_Waiting]
    ) -> Exception | None:
        """Send, read, and hand out the answers.

        Returns:
            The first error reply. Whom it concerns stays unanswered.
        """
        # The same user asking ten times in one turn is one question.
        keys = tuple(dict.fromkeys(key for check in checks for key in check.keys))
        # A probe, and a check that only goes along with writes, are about a key too: in
        # Cluster a script without one is run by any master, and refused by any replica.
        keys = keys or (NO_KEY,)
        calls = [write.write for write in writes if write.write is not None]
        *written, held = await self._line.run([*calls, Call(_CHECK, keys)])
        most = max((write.replicas for write in writes), default=0)
        has = await self._line.wait(most, within=self._deadline / 2) if most else 0

        for write, reply in zip(writes, written, strict=True):
            if isinstance(reply, list):
                _answer(write, {b"": reply, _REPLICAS: has})
        if isinstance(held, list):
            found = _read(keys, held)
            for check in checks:
                _answer(check, found)
        errors = (reply for reply in (held, *written) if isinstance(reply, Exception))
        return next(errors, None)

    def _give_up(self) -> None:
        """Fail whoever waits."""
        for queue in (self._checks, self._writes):
            _fail(queue)
            queue.clear()


def _read(keys: tuple[bytes, ...], held: list[Any]) -> _Found:
    """Return what is held under each of *keys*."""
    if not all(value is None or isinstance(value, bytes) for value in held):
        raise Garbled
    return dict(zip(keys, held, strict=True))  # one too few is an error


def _first(queue: deque[_Waiting], count: int) -> list[_Waiting]:
    """Take up to *count* of those in *queue* who still wait."""
    taken: list[_Waiting] = []
    while queue and len(taken) < count:
        waiting = queue.popleft()
        if not waiting.answer.done():
            taken.append(waiting)
    return taken


def _answer(waiting: _Waiting, found: _Found | None) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(found)


def _fail(several: list[_Waiting] | deque[_Waiting]) -> None:
    for waiting in several:
        _answer(waiting, None)

"""The revocation list in Redis, mirrored in this process: to check it waits for nobody.

One connection follows the feed: it says how far this mirror is, waits for what is new,
applies it, and says so again. From each time that the store acknowledges this, the
mirror counts for a lease, measured on our own clock from before we asked. When the
lease is over, whatever the reason, checks go to the store itself; and whoever revokes
waits for each mirror to have applied it, or for its lease to be over. So nobody has to
know which worker can't be reached.

What has been applied here stays applied: a mirror is never cleared, and what a store
has lost (a new epoch) is written back to it before the mirror counts again.

Imports: gateway.adapters, gateway.clock, gateway.config.settings, gateway.model,
gateway.revocation.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.adapters.redis_line import Call, Garbled, Line
from gateway.adapters.redis_scripts import (
    FEED,
    effect_of,
    found_of,
    leaving,
    lookup,
    page,
    page_of,
    position_of,
    renewal,
    standing,
    standing_of,
    status,
    where,
    write_of,
)
from gateway.adapters.redis_store import STORE, RedisRevocations
from gateway.clock import Clock
from gateway.config.settings import LEASE
from gateway.model import Principal
from gateway.revocation.entries import MARGIN, Kind, Revocation, key_of
from gateway.revocation.feed import Follower, Hole, Position, entry_at, read_entry
from gateway.revocation.lists import (
    Effect,
    ListState,
    MirrorState,
    Told,
    Watchers,
)
from gateway.revocation.mirror import Mirror

_LOG = logging.getLogger(__name__)

BEAT = 0.250  # seconds between two of these, when nothing happens
AGAIN = 0.050  # seconds, doubled up to BEAT, until a lost store is asked again
PAGE = 100  # keys of a snapshot in one exchange
SLICE = 25  # entries applied in one turn of the loop: half a millisecond
PATIENCE = 5.0  # seconds for a part of a snapshot: nobody waits for it
POLL, LONGEST_POLL = 0.002, 0.050  # seconds between two looks whether it is in force
_NAME_BYTES = 8
_NEVER = float("-inf")


class MirroredRevocations:
    """A RevocationList in Redis, with a mirror of it here.

    Args:
        url: Of [store], with the passwords in it.
        clock: For entries, and for the lease.
        deadline: Seconds from a question to its answer or Unavailable.
        stale: Seconds; the longest that any route allows to decide by an old mirror.
        replicas: How many have to have a write before it is acknowledged.

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        deadline: float = 0.150,
        stale: float = 0.0,
        replicas: int = 0,
    ) -> None:
        self._store = RedisRevocations(url, clock, deadline=deadline, replicas=replicas)
        self._line = Line(url, connect_timeout=deadline)
        self._wall, self._monotonic = clock.wall, clock.monotonic
        self._deadline = deadline
        self._stale = stale
        self._name = secrets.token_hex(_NAME_BYTES).encode()
        self._mirror = Mirror()
        self._follower = Follower()
        self._watchers = Watchers()
        self._live_until = _NEVER  # monotonic seconds
        self._level_at = _NEVER  # monotonic seconds; the mirror was whole then
        self._asked_at = _NEVER  # monotonic seconds; the last time
        self._swept_at = _NEVER  # Unix seconds
        self._joined = False
        self._settled = asyncio.Event()  # it counts, or it is known why not
        self._fault = ""  # what ended the last connection to the feed
        self.resyncs = 0

    def __len__(self) -> int:
        return len(self._mirror)

    @property
    def is_live(self) -> bool:
        """Whether the mirror counts."""
        return self._monotonic() < self._live_until

    @property
    def age(self) -> float:
        """How many seconds ago the mirror was last known to be whole."""
        return self._monotonic() - self._level_at

    def check_now(self, principal: Principal) -> bool | None:
        is_known = self._mirror.revokes(principal, self._wall())
        if is_known or self._monotonic() < self._live_until:
            return is_known
        return None

    async def check(self, principal: Principal) -> bool:
        # What was revoked here once stays so, whatever the store has lost since.
        is_revoked = await self._store.check(principal)
        return is_revoked or self._mirror.revokes(principal, self._wall())

    def check_stale(
        self, principal: Principal, most: float
    ) -> tuple[bool, float] | None:
        age = self.age
        if age > most:
            return None
        return self._mirror.revokes(principal, self._wall()), age

    async def revoke(self, entry: Revocation) -> Position:
        return await self._store.revoke(entry)

    async def restore(self, entry: Revocation) -> Position:
        return await self._store.restore(entry)

    async def effect(self, position: Position, within: float) -> Effect:
        began, pause = self._monotonic(), POLL
        while True:
            found = await self._store.run(status(), partial(effect_of, position))
            seconds = self._monotonic() - began
            if found.is_whole or seconds >= within:
                return replace(found, seconds=seconds)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)

    async def find(self, kind: Kind, name: bytes) -> Revocation | None:
        key = key_of(kind, name)
        return await self._store.run(lookup(kind, name), partial(found_of, key))

    async def entries(self) -> AsyncIterator[Revocation]:
        seen = set[bytes]()
        cursor = b""
        while cursor != b"0":
            cursor, keys = await self._store.run(page(cursor or b"0", PAGE), page_of)
            for key, value, ends in keys:
                # SCAN may name a key twice.
                entry = None if key in seen else entry_at(key, value, ends)
                seen.add(key)
                if entry is not None:
                    yield entry

    async def standing(self) -> ListState:
        return await self._store.run(standing(), standing_of)

    def watch(self, told: Told) -> Callable[[], None]:
        return self._watchers.watch(told)

    async def probe(self) -> None:
        await self._store.probe()

    def health(self) -> str | None:
        if self.is_live:
            return None
        if self._fault:
            return f"{STORE} is away: {self._fault}"
        return self._store.health()

    def state(self) -> MirrorState:
        return MirrorState(self.is_live, self.age, len(self), self.resyncs)

    async def ready(self, within: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._settled.wait()

    async def aclose(self) -> None:
        """Say that this mirror decides no more, if that can be said, and let go."""
        self._live_until = _NEVER
        if self._joined and not self._fault:
            try:
                async with asyncio.timeout(self._deadline):
                    await self._line.run([leaving(self._name)])
            except Exception:  # noqa: BLE001  (its lease will end by itself)
                self._joined = False
        await self._line.aclose()
        await self._store.aclose()

    # The mirror is kept

    async def run(self) -> None:
        pause = AGAIN
        while True:
            try:
                await self._follow()
            except Hole:
                # The connection is good, and what is missing is there to be had.
                self._live_until = _NEVER
                self._follower.at = None
                pause = AGAIN
                await asyncio.sleep(pause)
            except Exception as error:  # noqa: BLE001  (a parser fed with anything)
                await self._line.drop()
                self._lost(type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(2 * pause, BEAT)
            except BaseException:
                await self._line.drop()
                raise

    def _lost(self, fault: str) -> None:
        # The class of an error and no more: its text may hold an address.
        if not self._fault:
            _LOG.warning("the feed of the %s is away: %s", STORE, fault)
        self._fault = fault
        self._asked_at = _NEVER  # monotonic seconds; the last time
        self._joined = False
        self._settled.set()

    async def _follow(self) -> None:
        """Follow the feed until it can't be followed.

        Raises:
            Hole: Something of it was missed.
            Exception: Whatever went wrong with the connection.
        """
        store = position_of(await self._ask(where()))
        if not self._follower.can_go_on(store):
            self._swept_at = self._wall()
            await self._resync(store)
        heard = True
        while True:
            await self._renew(heard=heard)
            if self._fault:
                self._fault = ""
                _LOG.warning("the feed of the %s is back", STORE)
            heard = await self._read()
            now = self._wall()
            if now < self._swept_at - MARGIN:
                # The clock was ahead, and what was forgotten by it had not ended.
                raise Hole
            self._swept_at = now
            self._mirror.sweep(now)

    async def _renew(self, *, heard: bool) -> None:
        """Say how far this mirror is, and count on, if that is far enough."""
        sent, follower = self._monotonic(), self._follower
        assert follower.at is not None, "there was a snapshot"
        call = renewal(
            self._name,
            follower.at,
            lease=LEASE,
            stale=max(0.0, self._stale - LEASE),
            joins=not self._joined,
        )
        store = position_of(await self._ask(call))
        self._joined = True
        # All that there was when we asked the last time, whatever came since.
        caught_up = follower.at.number >= follower.owed > 0
        if caught_up:
            self._level_at = max(self._level_at, self._asked_at)
        if self._monotonic() >= self._live_until:
            # Whoever revoked while it did not count was told that it asks the store. It
            # counts again when it has all that was written before it was waited for.
            follower.is_level = caught_up and sent - self._asked_at < LEASE
        follower.told(store, heard=heard)
        self._asked_at = sent
        if follower.is_level:
            self._live_until = sent + LEASE
            self._settled.set()
        if follower.at == store:
            self._level_at = sent

    async def _read(self) -> bool:
        """Apply what the feed says within a beat; tell whether it said anything."""
        at = self._follower.at
        assert at is not None, "there was a snapshot"
        async with asyncio.timeout(BEAT + self._deadline):
            reply = await self._line.command(
                *(b"XREAD", b"COUNT", b"%d" % SLICE, b"BLOCK", b"%d" % (BEAT * 1000)),
                *(b"STREAMS", FEED, b"%d" % at.number),
            )
        if reply is None:
            return False
        try:
            [[_, entries]] = reply
            steps = [read_entry(entry_id, fields) for entry_id, fields in entries]
        except (TypeError, ValueError):
            raise Garbled from None
        for position, entry in steps:
            self._follower.follow(position)
            if entry is not None:
                self._apply(entry)
        return True

    def _apply(self, entry: Revocation) -> None:
        if self._mirror.put(entry, self._wall()):
            self._watchers.tell(entry)

    async def _resync(self, store: Position) -> None:
        """Take a snapshot, and give the store back what it has lost."""
        began, mirror = self._monotonic(), self._mirror
        # What the store holds; not needed if there is nothing that it could lack.
        held = Mirror() if len(mirror) else None
        cursor, found = b"", 0
        while cursor != b"0":
            asked = self._ask(page(cursor or b"0", PAGE), within=PATIENCE)
            cursor, keys = page_of(await asked)
            for first in range(0, len(keys), SLICE):
                for each in keys[first : first + SLICE]:
                    entry = entry_at(*each)
                    if entry is None:
                        continue
                    found += 1
                    if held is not None:
                        held.put(entry, self._wall())
                    self._apply(entry)
                await asyncio.sleep(0)
        lost = [] if held is None else await self._lacking(held)
        for first in range(0, len(lost), SLICE):
            calls = (write_of(each) for each in lost[first : first + SLICE])
            await self._ask(*calls, within=PATIENCE)
        self._follower.begin(store)
        self.resyncs += 1
        _LOG.info(
            "took a snapshot of %d revocations in %.3f s, gave %d back",
            *(found, self._monotonic() - began, len(lost)),
        )

    async def _lacking(self, held: Mirror) -> list[Revocation]:
        """Return what this mirror holds beyond *held*."""
        lost = []
        for count, entry in enumerate(self._mirror, 1):
            if held.put(entry, self._wall()):
                lost.append(entry)
            if count % SLICE == 0:
                await asyncio.sleep(0)
        return lost

    async def _ask(self, *calls: Call, within: float = 0.0) -> list[Any]:
        """Return the reply to the last of *calls*, of which none may fail."""
        async with asyncio.timeout(max(within, self._deadline)):
            replies = await self._line.run(calls)
        answer: list[Any] = []
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
            answer = reply
        return answer

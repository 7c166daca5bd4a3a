"""The revocation list of one process: for `dev`, for tests, for a single worker.

Always live, forgotten on restart. What it does is what a mirror does
(gateway.revocation.mirror), with no store behind it.

Imports: gateway.clock, gateway.model, gateway.revocation.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from gateway.clock import Clock
from gateway.model import Principal
from gateway.revocation.entries import Kind, Revocation
from gateway.revocation.feed import Position
from gateway.revocation.lists import (
    Effect,
    Follows,
    ListState,
    MirrorState,
    Told,
    Watchers,
)
from gateway.revocation.mirror import Mirror


class MemoryRevocations:
    """A RevocationList that answers at once."""

    def __init__(self, clock: Clock) -> None:
        self._wall = clock.wall
        self._mirror = Mirror()
        self._at = Position(b"memory", int(clock.wall() * 1000))
        self._watchers = Watchers()

    def __len__(self) -> int:
        return len(self._mirror)

    def check_now(self, principal: Principal) -> bool:
        return self._mirror.revokes(principal, self._wall())

    async def check(self, principal: Principal) -> bool:
        return self.check_now(principal)

    def check_stale(
        self,
        principal: Principal,
        most: float,  # noqa: ARG002  (it never is)
    ) -> tuple[bool, float]:
        return self.check_now(principal), 0.0

    async def revoke(self, entry: Revocation) -> Position:
        at = self._at = Position(self._at.epoch, self._at.number + 1)
        if entry.kind == "block" and not entry.number:
            # One that was brought from elsewhere may have a higher number.
            held = self._mirror.find("block", entry.name, self._wall())
            past = 0 if held is None else held.number
            entry = replace(entry, number=max(at.number, past + 1))
        self._mirror.put(entry, self._wall())
        self._watchers.tell(entry)
        return at

    async def restore(self, entry: Revocation) -> Position:
        return await self.revoke(entry)

    async def effect(self, position: Position, within: float) -> Effect:  # noqa: ARG002
        return Effect(workers=1, applied=1)

    async def find(self, kind: Kind, name: bytes) -> Revocation | None:
        return self._mirror.find(kind, name, self._wall())

    async def entries(self) -> AsyncIterator[Revocation]:
        now = self._wall()
        for entry in self._mirror:
            if entry.until > now:
                yield entry

    async def standing(self) -> ListState:
        # Its one worker has no lease that could end.
        return ListState(self._at, (Follows(math.inf, 0),))

    def watch(self, told: Told) -> Callable[[], None]:
        return self._watchers.watch(told)

    async def run(self) -> None:
        """Wait: nobody else writes to it."""
        await asyncio.Event().wait()

    async def ready(self, within: float) -> None:  # noqa: ARG002
        return

    async def probe(self) -> None:
        return

    def health(self) -> None:
        return

    def state(self) -> MirrorState:
        return MirrorState(is_live=True, age=0.0, entries=len(self), resyncs=0)

    async def aclose(self) -> None:
        """Keep what there is: the next generation goes on with it."""

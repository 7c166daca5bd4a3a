"""The revocation list of one process: for `dev`, for tests, for a single worker.

Always live, forgotten on restart. Entries go when they have run out, without a job:
each visit to the list first drops what is due, so memory is bounded by what is alive.

Imports: gateway.clock, gateway.model, gateway.revocation.entries.
"""

from __future__ import annotations

import heapq

from gateway.clock import Clock
from gateway.model import Principal
from gateway.revocation.entries import Revocation, is_revoked


class MemoryRevocations:
    """A RevocationList that answers at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[float, float]] = {}  # cut-off, until
        # One element for each entry, however often it is renewed; when it comes up
        # and the entry has been given a longer life, it goes back with the new date.
        self._due: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        self._drop()
        return len(self._entries)

    def check_now(self, principal: Principal) -> bool:
        if not self._entries and principal.fingerprints is not None:
            return False
        self._drop()
        return is_revoked(principal, self._cutoff)

    async def check(self, principal: Principal) -> bool:
        return self.check_now(principal)

    async def revoke(self, entry: Revocation) -> None:
        self._drop()
        name = entry.name
        held = self._entries.get(name)
        if held is None:
            self._entries[name] = (entry.cutoff, entry.until)
            heapq.heappush(self._due, (entry.until, name))
        else:
            self._entries[name] = (
                max(held[0], entry.cutoff),
                max(held[1], entry.until),
            )

    async def probe(self) -> None:
        return

    def health(self) -> None:
        return

    async def aclose(self) -> None:
        return

    def _cutoff(self, name: bytes) -> float | None:
        held = self._entries.get(name)
        return None if held is None else held[0]

    def _drop(self) -> None:
        """Forget what has run out."""
        due = self._due
        if not due:
            return
        now = self._clock.wall()
        while due and due[0][0] <= now:
            name = due[0][1]
            until = self._entries[name][1]
            if until > now:
                heapq.heapreplace(due, (until, name))
            else:
                heapq.heappop(due)
                del self._entries[name]

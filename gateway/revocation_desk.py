"""The desk for revocations: what an operator orders, carried out on the list.

All of several orders are understood before the first is written. What is said to be
revoked the store has acknowledged (R62); where it is in force by then is said too.

Imports: gateway.asgi.revocations, gateway.clock, gateway.config.settings,
gateway.key_desk, gateway.model, gateway.revocation.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from gateway.asgi.api_keys import KeyRefused
from gateway.asgi.revocation_list import Inquiry, entry_in, told_of
from gateway.asgi.revocations import (
    NAME_OF,
    OrderRefused,
    Orders,
    RevocationOrder,
    Told,
)
from gateway.clock import Clock
from gateway.config.settings import Issuer, Settings
from gateway.key_desk import KeyDesk
from gateway.model import API_KEYS, Unavailable
from gateway.revocation.entries import (
    CUTOFFS,
    KINDS,
    MAX_LIFE,
    Revocation,
    block_for,
    entry_for,
)
from gateway.revocation.feed import Position
from gateway.revocation.lists import RevocationList

_LOG = logging.getLogger("gateway")

SLICE = 64  # orders at once: as many writes as travel together


@dataclass(frozen=True, slots=True)
class _Work:
    """An order that is understood."""

    order: RevocationOrder
    issuer: str  # a name in gateway.toml
    entry: Revocation  # of an API key that of its first secret

    def told(self) -> Told:
        """Say what it does."""
        kind, entry = self.order.kind, self.entry
        told: Told = {"kind": kind, "until": entry.until}
        if kind != "all":
            told["issuer"] = self.issuer
        if kind in CUTOFFS:
            told["before"] = entry.cutoff
        return told


class RevocationDesk:
    """Carries orders out.

    Args:
        settings: Whose issuers may be named.
        revocations: The list.
        keys: Knows API keys; None: there are none.
        clock: Says when.
    """

    def __init__(
        self,
        settings: Settings,
        revocations: RevocationList,
        keys: KeyDesk | None,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._revocations = revocations
        self._keys = keys
        self._clock = clock
        # How many open streams an entry would end at a time (Unix seconds); None: there
        # are none here.
        self.count_streams: Callable[[Revocation, float], int] | None = None

    async def carry_out(self, orders: Orders) -> Told:
        """Do what *orders* say, or find out what that would do.

        Returns what there is to say about each.

        Raises:
            OrderRefused: One of them can't be meant; nothing was written.
            Unavailable: The store has not acknowledged all of them.
        """
        now = self._clock.wall()
        if now > orders.until:
            # Somebody else has carried them out: once more would be newer than what
            # was ordered since.
            raise Unavailable("this worker in time")
        works = []
        for place, order in enumerate(orders.each):
            try:
                works.append(await self._understood(order, now))
            except OrderRefused as refusal:
                refusal.place = place
                raise
        if orders.dry_run:
            told = [await self._would(work) for work in works]
            return {"orders": told, "dry_run": True}
        latest = await self._written(works)
        counts = Counter((w.issuer, w.order.kind, w.order.reason) for w in works)
        for (issuer, kind, reason), count in counts.items():
            _LOG.warning(
                "revoked by order: issuer=%s kind=%s reason=%s count=%d",
                *(issuer, kind, reason or "-", count),
            )
        effect = await self._effect(latest, orders.wait)
        return {"orders": [work.told() for work in works], "effect": effect}

    async def entries(self, kind: str = "", name: str = "") -> AsyncIterator[Told]:
        """Yield what the list holds: all, those of a *kind*, or the one called *name*.

        Raises:
            Unavailable: The list does not say, or no more.
        """
        kinds = [each for each in KINDS if kind in {"", each}]
        if name:
            for each in kinds:
                found = await self._revocations.find(each, bytes.fromhex(name))
                if found is not None:
                    yield told_of(found)
            return
        async for entry in self._revocations.entries():
            if entry.kind in kinds:
                yield told_of(entry)

    async def inquire(self, inquiry: Inquiry) -> Told:
        """Return what *inquiry* asks for, or what came of what it brings.

        Raises:
            OrderRefused: An entry is none; none was written.
            Unavailable: The list does not say, or has not acknowledged all of it.
        """
        match inquiry.verb:
            case "list":
                found: list[Told] = []
                async for told in self.entries(inquiry.kind, inquiry.name):
                    if len(found) == inquiry.limit:
                        return {"entries": found, "more": True}
                    found.append(told)
                return {"entries": found, "more": False}
            case "stats":
                return await self._stats()
            case "import":
                return await self._import(inquiry.entries)

    async def _stats(self) -> Told:
        standing = await self._revocations.standing()
        counts = Counter([told["kind"] async for told in self.entries()])
        return {
            "entries": {kind: counts[kind] for kind in KINDS if counts[kind]},
            "epoch": standing.position.epoch.decode("ascii", "replace"),
            "number": standing.position.number,
            "workers": [
                # What never ends has no number in JSON.
                {
                    "lease": each.lease if math.isfinite(each.lease) else None,
                    "behind": each.behind,
                }
                for each in standing.workers
            ],
            "memory": standing.memory,
        }

    async def _import(self, said: Sequence[Told]) -> Told:
        now = self._clock.wall()
        entries = [entry_in(each, place, now) for place, each in enumerate(said)]
        alive = [entry for entry in entries if entry.until > now]
        for first in range(0, len(alive), SLICE):
            await _all(map(self._revocations.restore, alive[first : first + SLICE]))
        _LOG.warning("revocations imported: %d of %d", len(alive), len(entries))
        return {"imported": len(alive), "ended": len(entries) - len(alive)}

    async def _understood(self, order: RevocationOrder, now: float) -> _Work:
        if order.kind != "api_key":
            issuer, entry = entry_from(order, self._settings, now)
            return _Work(order, issuer, entry)
        check_key(order, self._settings)
        assert self._keys is not None, "there is an issuer of keys"
        try:
            entries = await self._keys.entries(order.value)
        except KeyRefused as refusal:
            raise OrderRefused(str(refusal), NAME_OF[order.kind]) from None
        return _Work(order, API_KEYS, entries[0])

    async def _would(self, work: _Work) -> Told:
        """Say what *work* would do, beside what is there already."""
        entry = work.entry
        held = await self._revocations.find(entry.kind, entry.name)
        told = {**work.told(), "held": None if held is None else told_of(held)}
        if self.count_streams is not None:
            told["open_streams"] = self.count_streams(entry, self._clock.wall())
        if work.order.kind in {"subject", "block"} and self._keys is not None:
            told["owned_keys"] = await self._keys.owned_by(work.order.value)
        return told

    async def _written(self, works: Sequence[_Work]) -> Position:
        """Write what is to be done; return where the last of it is in the list."""
        found: list[Position] = []
        for first in range(0, len(works), SLICE):
            places = range(first, min(first + SLICE, len(works)))
            found += await _all(self._write(works[place], place) for place in places)
        # Numbers go up, from one epoch to the next as well.
        return max(found, key=lambda position: position.number)

    async def _write(self, work: _Work, place: int) -> Position:
        order = work.order
        if order.kind != "api_key":
            return await self._revocations.revoke(work.entry)
        assert self._keys is not None, "it was asked what such a key is made of"
        try:
            _, position = await self._keys.revoke(order.value, order.reason)
        except KeyRefused as refusal:
            raise OrderRefused(str(refusal), NAME_OF[order.kind], place) from None
        return position

    async def _effect(self, latest: Position, wait: float) -> Told | None:
        try:
            found = await self._revocations.effect(latest, wait)
        except Unavailable:
            return None  # it is revoked all the same
        return {"effective": found.is_whole and not found.stale, **asdict(found)}


async def _all(writes: Iterable[Awaitable[Position]]) -> list[Position]:
    """Return what *writes* return, when all of them have ended."""
    found: list[Position] = []
    for outcome in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return found


def entry_from(
    order: RevocationOrder, settings: Settings, now: float
) -> tuple[str, Revocation]:
    """Return whose tokens *order* ends, and the entry that does it.

    Args:
        order: Of any kind but "api_key".
        settings: Whose issuers may be named.
        now: Unix seconds.

    Raises:
        OrderRefused: No token can be meant.
    """
    before = order.before
    if before is not None and not before <= now:
        raise OrderRefused("the cut-off lies in the future", "before")
    if order.kind == "all":
        issuers = settings.issuers.values()
        if not issuers:
            raise OrderRefused("there is no issuer whose tokens could be meant")
        leeway = max(each.leeway for each in issuers)
        longest = max(each.max_lifetime for each in issuers)
        name, url = "", ""
    else:
        issuer = _issuer(order, settings)
        leeway, longest = issuer.leeway, issuer.max_lifetime
        name, url = issuer.name, issuer.issuer
    try:
        match order.kind:
            case "api_key":
                raise AssertionError("it is not known here what such a key is made of")
            case "block":
                entry = block_for(url, order.value, now=now, seconds=order.seconds)
            case "unblock":
                # How long the block would last is not known for certain: the store may
                # have lost it, and be given it back. So this lives as long as any.
                entry = block_for(
                    url, order.value, now=now, seconds=MAX_LIFE, lifts=True
                )
            case kind:
                entry = entry_for(
                    kind,
                    url,
                    order.value,
                    now=now,
                    max_lifetime=longest,
                    leeway=leeway,
                    before=before,
                )
    except ValueError as error:
        raise OrderRefused(str(error), NAME_OF[order.kind]) from None
    return name, entry


def check_key(order: RevocationOrder, settings: Settings) -> None:
    """Check what is known of *order*, about an API key, without the store.

    Raises:
        OrderRefused: It can't be carried out.
    """
    if order.issuer not in {"", API_KEYS}:
        raise OrderRefused(f"the issuer of API keys is {API_KEYS}", "issuer")
    if settings.api_keys is None:
        raise OrderRefused("gateway.toml has no [api_keys]", NAME_OF[order.kind])


def _issuer(order: RevocationOrder, settings: Settings) -> Issuer:
    issuers = settings.issuers
    name = order.issuer
    if not name and len(issuers) == 1:
        (name,) = issuers
    if name not in issuers:
        raise OrderRefused(
            f"issuer must be one of: {', '.join(sorted(issuers))}", "issuer"
        )
    return issuers[name]

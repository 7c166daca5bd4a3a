"""What every revocation list can do, wherever it is kept.

Imports: gateway.model, gateway.revocation.entries, gateway.revocation.feed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.model import Principal
from gateway.revocation.entries import Kind, Revocation
from gateway.revocation.feed import Position

Told = Callable[[Revocation], None]


@dataclass(frozen=True, slots=True)
class Effect:
    """Where an entry is in force."""

    workers: int  # all that there are
    applied: int  # that have applied it
    lapsed: int = 0  # whose mirror counts no more: they ask the store
    stale: int = 0  # of those that may decide by what they knew, for a while
    late: float = 0.0  # seconds, at most, for which they still may
    seconds: float = 0.0  # until then

    @property
    def is_whole(self) -> bool:
        """Whether no worker lets through what was revoked, but by `allow-stale`."""
        return self.applied + self.lapsed == self.workers


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How the local mirror of a list is."""

    is_live: bool  # it counts
    age: float  # seconds since it was last known to be whole; infinite: it never was
    entries: int
    resyncs: int  # snapshots taken


@dataclass(frozen=True, slots=True)
class Follows:
    """How far one worker is."""

    lease: float  # seconds for which its mirror still counts; below 0 it does not
    behind: int | None  # entries that it has not applied; None: it is in another epoch


@dataclass(frozen=True, slots=True)
class ListState:
    """How a list is, beside what it holds."""

    position: Position
    workers: tuple[Follows, ...]
    memory: int | None = None  # bytes, of all that its store holds


class RevocationList(Protocol):
    """Who knows what is revoked."""

    def check_now(self, principal: Principal) -> bool | None:
        """Tell without waiting whether *principal* is revoked; None: can't tell."""
        ...

    async def check(self, principal: Principal) -> bool:
        """Tell whether *principal* is revoked, by the list itself.

        Raises:
            Unavailable: The list can't be read, which does not mean it is empty.
        """
        ...

    def check_stale(
        self, principal: Principal, most: float
    ) -> tuple[bool, float] | None:
        """Tell whether *principal* was revoked when that was last known for certain.

        Args:
            principal: Who asks to pass.
            most: Seconds.

        Returns:
            That, and how many seconds ago it was. None: it is longer ago than *most*,
            or was never known.
        """
        ...

    async def revoke(self, entry: Revocation) -> Position:
        """Return where *entry* is in the list, for everybody who shares it (R62).

        Raises:
            Unavailable: The list did not say so. It may hold the entry or not; to
                ask again is harmless.
        """
        ...

    async def restore(self, entry: Revocation) -> Position:
        """Return where *entry* is in the list, with the very end that it had elsewhere.

        Raises:
            Unavailable: As for `revoke`.
        """
        ...

    async def effect(self, position: Position, within: float) -> Effect:
        """Return where what is at *position* is in force.

        Waits until it is everywhere, or *within* seconds are over.

        Raises:
            Unavailable: The list does not say so.
        """
        ...

    async def find(self, kind: Kind, name: bytes) -> Revocation | None:
        """Return what the list holds under *name*.

        Raises:
            Unavailable: The list does not say.
        """
        ...

    def entries(self) -> AsyncIterator[Revocation]:
        """Return what the list holds, each at least once, and in no order.

        Raises:
            Unavailable: The list does not say, or no more.
        """
        ...

    async def standing(self) -> ListState:
        """Return how the list is.

        Raises:
            Unavailable: The list does not say.
        """
        ...

    def watch(self, told: Told) -> Callable[[], None]:
        """Call *told* with whatever is applied here from now on.

        Returns what ends that.
        """
        ...

    async def run(self) -> None:
        """Keep what is known here up to date; does not return."""
        ...

    async def ready(self, within: float) -> None:
        """Wait until checks need not wait, if that comes within so many seconds."""
        ...

    async def probe(self) -> None:
        """Return if a check would be answered now.

        Raises:
            Unavailable: It would not.
        """
        ...

    def health(self) -> str | None:
        """Say in words what keeps checks from being answered; None: nothing."""
        ...

    def state(self) -> MirrorState:
        """Say how the local mirror is."""
        ...

    async def aclose(self) -> None:
        """Let go of connections. What waits for an answer gets an Unavailable."""
        ...


class Watchers:
    """Who is told of what was applied."""

    def __init__(self) -> None:
        self._all: dict[object, Told] = {}

    def watch(self, told: Told) -> Callable[[], None]:
        """See RevocationList.watch."""
        key = object()
        self._all[key] = told
        return lambda: self._all.pop(key, None) and None

    def tell(self, entry: Revocation) -> None:
        """Tell them."""
        for told in tuple(self._all.values()):
            told(entry)

"""What is open for longer: answers under way and WebSockets, by who opened them.

A token may end while its holder still receives something. Whoever learns of it finds
here what to end: by the token's own time, or by the names under which a revocation may
call it (gateway.revocation.entries). A short exchange is never entered. To enter and to
leave costs the same however many there are.

Imports: gateway.model, gateway.revocation.entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.model import Principal, Reason
from gateway.revocation.entries import names

Seat = tuple[str, str, str]
"""A route, an issuer and a subject: what WebSockets are counted by."""


class Stream(Protocol):
    """Something that can be ended."""

    def end(self, reason: Reason) -> None:
        """End, because the token that opened it has. It leaves the list by itself."""
        ...


class _Open(NamedTuple):
    principal: Principal
    ends: float  # Unix seconds


class Streams:
    """All that is open in one worker."""

    def __init__(self) -> None:
        self._open: dict[Stream, _Open] = {}
        self._by_name: dict[bytes, dict[Stream, None]] = {}
        self._seats: Counter[Seat] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Stream, principal: Principal, ends: float) -> None:
        """Enter *stream*.

        Args:
            stream: What is open.
            principal: Whose token opened it.
            ends: When that ends it, in Unix seconds; infinity for never.
        """
        self._open[stream] = _Open(principal, ends)
        for name in _names(principal):
            self._by_name.setdefault(name, {})[stream] = None

    def remove(self, stream: Stream) -> None:
        """Forget *stream*, if it was entered."""
        one = self._open.pop(stream, None)
        if one is None:
            return
        for name in _names(one.principal):
            named = self._by_name[name]
            del named[stream]
            if not named:
                del self._by_name[name]

    def close_where(
        self, name: bytes, is_meant: Callable[[Principal], bool] = lambda _: True
    ) -> int:
        """End what was opened by a token that can be called *name*.

        Args:
            name: The fingerprint of a token, a session, a subject or a client.
            is_meant: Whether it is this one, where a name has a cut-off.

        Returns how many there were.
        """
        found = [
            stream
            for stream in self._by_name.get(name, ())
            if is_meant(self._open[stream].principal)
        ]
        for stream in found:
            stream.end(Reason.TOKEN_REVOKED)
        return len(found)

    def expired(self, now: float) -> list[Stream]:
        """Return what has outlived its token at *now* (Unix seconds)."""
        return [stream for stream, one in self._open.items() if one.ends <= now]

    def take_seat(self, seat: Seat, limit: int) -> bool:
        """Count one WebSocket more; False: as many are open as may be."""
        if self._seats[seat] >= limit:
            return False
        self._seats[seat] += 1
        return True

    def leave_seat(self, seat: Seat) -> None:
        """Count one WebSocket less."""
        self._seats[seat] -= 1
        if not self._seats[seat]:
            del self._seats[seat]


def _names(principal: Principal) -> frozenset[bytes]:
    """Return each of its names once: a subject may be revoked, and blocked."""
    return frozenset(name for _, name in names(principal))

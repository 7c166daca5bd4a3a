"""What is open for longer, by who opened it, and what ends it before its time.

A token may end while its holder still sends or receives something, and a policy may
take back what it has allowed. Whoever learns of it finds here what to end: by the
token's own time, by the names under which a revocation may call it
(gateway.revocation.entries), or one after the other, to be judged again.

A short exchange is never entered: the port's sweeper enters what has lasted. Whether it
was revoked in between is asked then. To enter and to leave costs the same however many
there are; to end many takes turns with everything else.

Imports: gateway.model, gateway.proxy.standing, gateway.revocation.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from gateway.model import Denial, Principal, Reason, Unavailable
from gateway.proxy.standing import Judge, Standing
from gateway.revocation.entries import Revocation, names
from gateway.revocation.mirror import Mirror

logger = logging.getLogger(__name__)

# Streams that are ended, or looked at to that end, in one turn of the loop: some two
# milliseconds, which everybody else waits.
AT_ONCE = 16
BATCH = 32  # streams that are judged at once
AGAIN = 1.0  # seconds until those are judged whom nobody could judge

Seat = tuple[str, str, str]
"""A route, an issuer and a subject: what WebSockets are counted by."""


class Stream(Protocol):
    """Something that can be ended."""

    def end(self, denial: Denial) -> None:
        """End for that reason. It leaves the list by itself."""
        ...


class _Open(NamedTuple):
    standing: Standing
    ends: float  # Unix seconds


class Streams:
    """All that is open in one worker.

    Args:
        is_revoked: Tells without waiting, as far as it is known here.
    """

    def __init__(
        self, is_revoked: Callable[[Principal], bool] = lambda _: False
    ) -> None:
        self._is_revoked = is_revoked
        self._open: dict[Stream, _Open] = {}
        self._by_name: dict[bytes, dict[Stream, None]] = {}
        self._seats: Counter[Seat] = Counter()
        self._due: deque[tuple[Iterator[Stream], Reason]] = deque()
        self._unjudged: dict[Stream, None] | None = None  # None: the rules are the same
        self._has_unjudged = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Stream, standing: Standing, ends: float) -> None:
        """Enter *stream*, or end it if it has been revoked since it was decided.

        Args:
            stream: What is open.
            standing: How it was let in.
            ends: When its token ends it, in Unix seconds; infinity for never.
        """
        principal = standing.principal
        self._open[stream] = _Open(standing, ends)
        for name in _names(principal):
            self._by_name.setdefault(name, {})[stream] = None
        if self._unjudged is not None:
            self._unjudged[stream] = None
            self._has_unjudged.set()
        if self._is_revoked(principal):
            _end(stream, Reason.TOKEN_REVOKED)

    def remove(self, stream: Stream) -> None:
        """Forget *stream*, if it was entered."""
        one = self._open.pop(stream, None)
        if one is None:
            return
        for name in _names(one.standing.principal):
            named = self._by_name[name]
            del named[stream]
            if not named:
                del self._by_name[name]
        if self._unjudged is not None:
            self._unjudged.pop(stream, None)

    def revoke(self, entry: Revocation) -> None:
        """End what *entry*, which the list has just been given, has revoked.

        Its name says whom to ask about, the list who is meant: there is a cut-off, and
        a block may have been lifted before it was heard of.
        """
        found = self._by_name.get(entry.name)
        if found:
            self._end_soon(found, Reason.TOKEN_REVOKED)

    def count(self, entry: Revocation, now: float) -> int:
        """Return how many *entry* would end at *now* (Unix seconds)."""
        alone = Mirror()
        alone.put(entry, now)
        named = self._by_name.get(entry.name, ())
        return sum(
            alone.revokes(self._open[each].standing.principal, now) for each in named
        )

    def expire(self, now: float) -> None:
        """End what has outlived its token at *now* (Unix seconds)."""
        late = [stream for stream, one in self._open.items() if one.ends <= now]
        if late:
            self._end_soon(late, Reason.TOKEN_EXPIRED)

    async def keep_judged(self, judge: Judge) -> None:
        """Have *judge* decide on all that is open and will be; does not return."""
        unjudged = self._unjudged = dict.fromkeys(self._open)
        while True:
            if not unjudged:
                self._has_unjudged.clear()
                await self._has_unjudged.wait()
            batch = list(islice(unjudged, BATCH))
            if not await self._judge(batch, judge):
                await asyncio.sleep(AGAIN)
            # Where nothing had to be waited for, the others have their turn here.
            await asyncio.sleep(0)

    async def _judge(self, batch: list[Stream], judge: Judge) -> bool:
        """Have *judge* decide on *batch*; tell whether anything could be decided."""
        unjudged = self._unjudged
        assert unjudged is not None, "somebody judges"
        try:
            verdicts = await judge([self._open[each].standing for each in batch])
        except Unavailable:
            for stream in batch:  # behind the others, if it is one of these
                if stream in unjudged:
                    del unjudged[stream]
                    unjudged[stream] = None
            return False
        known = False
        for stream, verdict in zip(batch, verdicts, strict=True):
            if stream not in unjudged:  # it has ended meanwhile
                continue
            del unjudged[stream]
            if isinstance(verdict, Unavailable):
                unjudged[stream] = None  # behind the others
                continue
            known = True
            if verdict is not None:
                _end(stream, verdict)
        return known

    def _end_soon(self, streams: Iterable[Stream], reason: Reason) -> None:
        if not self._due:
            asyncio.get_running_loop().call_soon(self._end_some)
        self._due.append((iter(tuple(streams)), reason))

    def _end_some(self) -> None:
        due = self._due
        for _ in range(AT_ONCE):
            streams, reason = due[0]
            stream = next(streams, None)
            if stream is None:
                due.popleft()
                if not due:
                    return
                continue
            one = self._open.get(stream)
            if one is None or (
                reason is Reason.TOKEN_REVOKED
                and not self._is_revoked(one.standing.principal)
            ):
                continue
            _end(stream, reason)
        asyncio.get_running_loop().call_soon(self._end_some)

    # WebSockets are counted

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


def _end(stream: Stream, why: Denial | Reason) -> None:
    try:
        stream.end(Denial(why) if isinstance(why, Reason) else why)
    except Exception:
        # The others must not depend on this one, nor whoever brought the news.
        logger.exception("a stream could not be ended")


def _names(principal: Principal) -> frozenset[bytes]:
    """Return each of its names once: a subject may be revoked, and blocked."""
    return frozenset(name for _, name in names(principal))

"""Who goes first: what is known, and then what has to be read.

What comes again is answered where it is received. What has to be parsed, verified and
perhaps refused takes ten times as long, and anybody can send it. Of such requests that
arrive together the first is seen to at once; the others wait, and one or two of them
are taken in each turn of the loop, so that whose head is known waits for no more than
those (R100). Where the loop is so busy that they have waited for a while, they get as
much of each turn as everything else took: they are late then, and not starved.

Nothing is refused here, and each connection waits once, with what one read brought.

Imports: the standard library only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

SHARE = 0.0002  # seconds of a turn of the loop
PATIENCE = 0.02  # seconds that they wait until they get more


class Precedence:
    """Shares the turns of a loop.

    Args:
        monotonic: Seconds.
        later: Calls something in the next turn of the loop.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._monotonic = monotonic
        self._later = later
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()
        self._is_on = False  # the loop will call us
        self._since = 0.0  # when it last did, or since it will
        self._until: float | None = None  # of the share; None: it was not begun

    def take(self, work: Callable[[], None], now: float) -> bool:
        """Tell whether it is the turn of *work*; if not, it is called later.

        It raises nothing.
        """
        if not self._is_on:
            self._is_on = True
            self._since = now
            self._later(self._next)
        if not self._queue:
            if self._until is None:
                self._until = now + SHARE
                return True
            if now < self._until:
                return True
        self._queue.append((now, work))
        return False

    def _next(self) -> None:
        # Whatever had arrived was looked at; when we are done, the loop looks again.
        queue, now = self._queue, self._monotonic()
        until = now + SHARE if self._until is None else self._until
        if queue and now - queue[0][0] > PATIENCE:
            until = max(until, now + (now - self._since))
        self._until = until
        while queue and now < until:
            queue.popleft()[1]()
            now = self._monotonic()
        self._until = None
        self._since = now
        if queue:
            self._later(self._next)
        else:
            self._is_on = False

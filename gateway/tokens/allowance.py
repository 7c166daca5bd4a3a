"""How much work may be done in vain: for what costs us more than whoever asks for it.

An attempt takes from the allowance before it is made, and what has led to something
gives back. So both are bounded: how many are under way, and how many have failed
lately. Those that fail pay by waiting; honest ones only while there are too many of
the others (R100). Nobody has all of it: whoever has used up his share waits alone.

Imports: gateway.wire.request.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.wire.request import household

MAX_SHARES = 1024  # households that are told apart
# Of what all have. Two households can take all that there is at once; but of what comes
# back, whoever fails as fast as he can leaves three quarters.
_OF_AT_ONCE, _OF_RATE = 1 / 2, 1 / 4


class Allowance:
    """So much, and so much more with each second.

    Args:
        rate: What comes back in a second.
        most: That can be taken at once.
    """

    def __init__(self, rate: float, most: float) -> None:
        self._rate = rate
        self._most = most
        self._left = most
        self._at = float("-inf")  # seconds

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take *cost* at *now* (seconds of any clock), or tell that too little is left.

        A clock that is set back brings nothing.
        """
        passed = max(0.0, now - self._at)
        self._left = min(self._most, self._left + passed * self._rate)
        self._at = now
        if self._left < cost:
            return False
        self._left -= cost
        return True

    def give_back(self, cost: float = 1.0) -> None:
        """Return what was taken: it was not in vain."""
        self._left = min(self._most, self._left + cost)


class Shares:
    """An allowance of which no client can use up all.

    Args:
        rate: What comes back in a second, to all.
        most: That all can take at once.
    """

    def __init__(self, rate: float, most: float) -> None:
        self._rate, self._most = rate, most
        self._all = Allowance(rate, most)
        # By household, the one that came last at the end.
        self._own: OrderedDict[str, Allowance] = OrderedDict()

    def take(self, client: str, now: float, cost: float = 1.0) -> bool:
        """Take *cost* for *client*, or tell that too little is left for it.

        Args:
            client: Its address, normalised; "" where none is known: it has no share of
                its own, and may take what there is.
            now: Seconds of any clock.
            cost: What the attempt costs.
        """
        own = self._share(client)
        if own is not None and not own.take(now, cost):
            return False
        if self._all.take(now, cost):
            return True
        if own is not None:
            own.give_back(cost)
        return False

    def give_back(self, client: str, cost: float = 1.0) -> None:
        """Return what was taken for *client*: it was not in vain."""
        own = self._share(client)
        if own is not None:
            own.give_back(cost)
        self._all.give_back(cost)

    def _share(self, client: str) -> Allowance | None:
        name = household(client)
        if not name:
            return None
        own = self._own.get(name)
        if own is None:
            own = Allowance(self._rate * _OF_RATE, self._most * _OF_AT_ONCE)
            self._own[name] = own
            if len(self._own) > MAX_SHARES:
                self._own.popitem(last=False)
        else:
            self._own.move_to_end(name)
        return own

"""How much work may be done in vain: for what costs us more than whoever asks for it.

An attempt takes from the allowance before it is made, and what has led to something
gives back. So both are bounded: how many are under way, and how many have failed
lately. Those that fail pay by waiting; honest ones only while there are too many of
the others (R100).

Imports: the standard library only.
"""

from __future__ import annotations


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

"""gateway.revocation.lists: where an entry is in force, and who is told."""

from __future__ import annotations

import pytest

from gateway.revocation.entries import Revocation
from gateway.revocation.lists import Effect, Watchers


@pytest.mark.parametrize(
    ("effect", "is_whole"),
    [
        (Effect(workers=0, applied=0), True),
        (Effect(workers=6, applied=6), True),
        (Effect(workers=6, applied=5), False),
        (Effect(workers=6, applied=5, lapsed=1), True),
        (Effect(workers=6, applied=5, lapsed=1, stale=1), True),
    ],
)
def test_an_effect_is_whole_when_no_mirror_lets_it_through(
    effect: Effect, is_whole: bool
) -> None:
    """A mirror whose lease is over lets nobody through."""
    assert effect.is_whole is is_whole


def test_who_watches_is_told_until_he_does_no_more() -> None:
    """Each by himself, though they be the same."""
    watchers, told = Watchers(), list[Revocation]()
    entry = Revocation("token", b"name", 0.0, 9.0)
    ends = [watchers.watch(told.append) for _ in range(2)]

    watchers.tell(entry)
    assert told == [entry, entry]
    ends[0]()
    ends[0]()
    watchers.tell(entry)
    assert len(told) == 3
    ends[1]()
    watchers.tell(entry)
    assert len(told) == 3

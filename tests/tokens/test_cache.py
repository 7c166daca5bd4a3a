"""gateway.tokens.cache: what is remembered of verified tokens, and for how long."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Principal, VerificationKey
from gateway.observe.metrics import VERIFIED, VERIFIED_BYTES, VERIFIED_LOOKUPS
from gateway.tokens.cache import BYTES_PER_CHARACTER, ENTRY_BYTES, VerifiedTokens

ALICE = Principal("user", "corp", "alice", expires_at=2_000.0, leeway=30.0)
BOB = Principal("user", "partner", "bob", expires_at=3_000.0)


class Wall:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def known(cache: VerifiedTokens, *tokens: str) -> list[str]:
    """Return which of *tokens* are remembered."""
    return [each for each in tokens if cache.get("bearer", each) is not None]


def test_the_same_bytes_are_the_same_principal() -> None:
    """A token that was verified isn't verified again."""
    cache = VerifiedTokens()
    cache.put("bearer", "a.b.c", ALICE)

    assert cache.get("bearer", "a.b.c") is ALICE


def test_every_byte_counts() -> None:
    """Another spelling is another token, and has to be verified (R50)."""
    cache = VerifiedTokens()
    cache.put("bearer", "a.b.c", ALICE)

    assert known(cache, "a.b.c=", "a.b.C", "a.b.c ", "", "a.b.\ud800") == []


def test_the_entries_are_bounded_and_the_unused_ones_go_first() -> None:
    """The least recently used make room."""
    cache = VerifiedTokens(max_entries=2)
    cache.put("bearer", "one", ALICE)
    cache.put("bearer", "two", ALICE)
    cache.get("bearer", "one")
    cache.put("bearer", "three", BOB)

    assert known(cache, "one", "two", "three") == ["one", "three"]
    assert len(cache) == 2


def test_the_bytes_are_bounded() -> None:
    """Long tokens make room for themselves, or are not kept at all."""
    room = 2 * ENTRY_BYTES + 200 * BYTES_PER_CHARACTER
    cache = VerifiedTokens(max_bytes=room)
    one, two, three = ("1" * 100, "2" * 100, "3" * 100)
    for token in (one, two, three):
        cache.put("bearer", token, ALICE)
    cache.put("bearer", "x" * room, ALICE)

    assert known(cache, one, two, three, "x" * room) == [two, three]
    assert cache.bytes == room


def test_a_token_verified_again_is_one_entry() -> None:
    """What is known last is what counts."""
    cache = VerifiedTokens()
    cache.put("bearer", "one", ALICE)
    cache.put("bearer", "one", BOB)

    assert cache.get("bearer", "one") is BOB
    assert len(cache) == 1
    assert cache.bytes == ENTRY_BYTES + 3 * BYTES_PER_CHARACTER


def test_expired_tokens_leave() -> None:
    """A put takes out those that nobody has used for longest, once they are dead."""
    wall = Wall()
    cache = VerifiedTokens(now=wall)
    for token in ("one", "two"):
        cache.put("bearer", token, ALICE)
    wall.now = 2_029.0
    cache.put("bearer", "three", BOB)
    assert known(cache, "one", "two", "three") == ["one", "two", "three"]

    wall.now = 2_030.0
    cache.put("bearer", "four", BOB)
    assert known(cache, "one", "two", "three", "four") == ["three", "four"]


def test_a_dead_token_alone_leaves_nothing_behind() -> None:
    """An entry may be the oldest, the newest and expired at once."""
    wall = Wall()
    wall.now = 9_000.0
    cache = VerifiedTokens(now=wall)
    cache.put("bearer", "one", ALICE)

    assert len(cache) == 0
    assert cache.bytes == 0


def test_one_put_sweeps_a_few_only() -> None:
    """No single request pays for all the dead tokens of a night."""
    wall = Wall()
    cache = VerifiedTokens(now=wall)
    for number in range(100):
        cache.put("bearer", str(number), ALICE)
    wall.now = 2_500.0
    cache.put("bearer", "new", BOB)

    assert 90 < len(cache) < 100


def test_the_tokens_of_a_withdrawn_key_can_be_dropped() -> None:
    """Those of which the key isn't known go with them, and nobody else's."""
    old, new = (VerificationKey("HS256", name, b"") for name in ("old", "new"))
    cache = VerifiedTokens()
    cache.put("bearer", "one", dataclasses.replace(ALICE, key=old))
    cache.put("bearer", "one again", dataclasses.replace(ALICE, key=old))
    cache.put("bearer", "two", dataclasses.replace(ALICE, key=new))
    cache.put("bearer", "three", ALICE)
    cache.put("bearer", "four", dataclasses.replace(BOB, key=old))
    asked = []

    def is_still(key: VerificationKey) -> bool:
        asked.append(key)
        return key == new

    cache.drop_keys("corp", is_still)

    assert known(cache, "one", "one again", "two", "three", "four") == ["two", "four"]
    assert cache.bytes == 2 * ENTRY_BYTES + 7 * BYTES_PER_CHARACTER
    assert asked == [old, new]  # once each, however many tokens there are


def test_an_entry_may_have_an_end_of_its_own() -> None:
    """By the clock that nobody sets: what was asked for is asked for again (R104)."""
    ticks = Wall()
    cache = VerifiedTokens(monotonic=ticks)
    cache.put("bearer", "one", dataclasses.replace(ALICE, known_for=60.0))
    cache.put("bearer", "two", ALICE)
    ticks.now += 59.9
    assert known(cache, "one", "two") == ["one", "two"]

    ticks.now += 0.1
    assert known(cache, "one", "two") == ["two"]
    assert len(cache) == 1
    assert [value for *_, value in cache.measure()][2:] == [3, 1]


def test_an_entry_that_has_ended_makes_room() -> None:
    """A put takes it out, also when its token is good for longer."""
    ticks = Wall()
    cache = VerifiedTokens(now=Wall(), monotonic=ticks)
    for token in ("one", "two"):
        cache.put("bearer", token, dataclasses.replace(ALICE, known_for=60.0))
    ticks.now += 60.0
    cache.put("bearer", "three", ALICE)

    assert len(cache) == 1


PUTS = st.lists(st.tuples(st.text(max_size=3), st.integers(0, 50)), max_size=60)


@settings(deadline=None)
@given(PUTS, st.integers(1, 5), st.integers(ENTRY_BYTES, 4 * ENTRY_BYTES))
def test_the_bounds_hold_whatever_happens(
    puts: list[tuple[str, int]], entries: int, room: int
) -> None:
    """Never more entries or bytes than allowed, and the count is right."""
    wall = Wall()
    cache = VerifiedTokens(entries, room, now=wall)
    for token, later in puts:
        wall.now += later
        expires_at = wall.now + 60
        cache.put("bearer", token, dataclasses.replace(ALICE, expires_at=expires_at))
        assert len(cache) <= entries
        assert cache.bytes <= room

    cache.drop_keys("corp", lambda _key: True)
    assert (len(cache), cache.bytes) == (0, 0)


def test_it_says_how_often_it_has_helped() -> None:
    """A token that is not known is a miss each time, until it is kept."""
    cache = VerifiedTokens()
    assert known(cache, "a.b.c", "a.b.c") == []
    cache.put("bearer", "a.b.c", ALICE)
    assert known(cache, "a.b.c", "a.b.c", "a.b.c")

    assert list(cache.measure()) == [
        (VERIFIED, (), 1),
        (VERIFIED_BYTES, (), cache.bytes),
        (VERIFIED_LOOKUPS, ("hit",), 3),
        (VERIFIED_LOOKUPS, ("miss",), 2),
    ]

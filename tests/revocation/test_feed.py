"""gateway.revocation.feed: a mirror is whole, or knows that it is not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.revocation.entries import CUTOFFS, KINDS, Revocation, key_of, value_of
from gateway.revocation.feed import Follower, Hole, Position, entry_at, read_entry

EPOCH, OTHER = b"e1", b"e2"
NAME = bytes(range(16))
KEY = key_of("client", NAME)


def at(number: int, epoch: bytes = EPOCH) -> Position:
    return Position(epoch, number)


def begun(number: int = 5) -> Follower:
    follower = Follower()
    follower.begin(at(number))
    return follower


def test_a_mirror_without_a_snapshot_can_follow_nothing() -> None:
    """It does not know what was before."""
    follower = Follower()

    assert not follower.can_go_on(at(0))
    with pytest.raises(Hole):
        follower.follow(at(1))
    with pytest.raises(Hole):
        follower.told(at(1), heard=True)


def test_a_feed_without_a_gap_is_followed() -> None:
    """Number by number; it is level once it is as far as the store was."""
    follower = begun()
    follower.told(at(7), heard=True)
    assert not follower.is_level
    for number in (6, 7):
        follower.follow(at(number))
    follower.told(at(7), heard=True)
    assert follower.is_level
    assert follower.at == at(7)
    # From then on it is on the way to where the store is, and says so.
    follower.told(at(9), heard=False)
    assert follower.is_level
    assert follower.at == at(7)


@pytest.mark.parametrize(
    "to", [at(5), at(4), at(7), at(6, OTHER)], ids=["again", "back", "jump", "epoch"]
)
def test_a_step_that_is_not_the_next_is_a_hole(to: Position) -> None:
    """Never passed over in silence."""
    follower = begun()
    with pytest.raises(Hole):
        follower.follow(to)
    assert follower.at == at(5)


@pytest.mark.parametrize("store", [at(4), at(9, OTHER)], ids=["back", "epoch"])
def test_a_store_that_is_another_one_is_a_hole(store: Position) -> None:
    """It has lost something, or began anew."""
    with pytest.raises(Hole):
        begun().told(store, heard=True)


def test_a_feed_that_keeps_what_it_owes_is_a_hole() -> None:
    """The store has more, the feed was read after that, and was silent: trimmed."""
    follower = begun()
    follower.told(at(6), heard=True)
    with pytest.raises(Hole):
        follower.told(at(6), heard=False)
    # What was written only after the feed was read is not owed yet.
    follower = begun()
    follower.told(at(5), heard=True)
    follower.told(at(6), heard=False)


def test_after_a_break_it_goes_on_where_the_epoch_is_the_same() -> None:
    """A connection that was cut costs no snapshot."""
    follower = begun()

    assert follower.can_go_on(at(5))
    assert follower.can_go_on(at(500))
    assert not follower.can_go_on(at(4))
    assert not follower.can_go_on(at(500, OTHER))


def test_a_new_snapshot_is_not_level_before_it_has_caught_up() -> None:
    """Or what came meanwhile would be let through."""
    follower = begun()
    follower.told(at(5), heard=True)
    assert follower.is_level
    follower.begin(at(8, OTHER))
    assert not follower.is_level
    follower.told(at(8, OTHER), heard=True)
    assert follower.is_level


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_read_as_it_was_written(kind: str) -> None:
    """Of every kind; milliseconds become seconds."""
    (known,) = (each for each in KINDS if each == kind)
    has_cutoff = known in CUTOFFS
    entry = Revocation(known, NAME, 9.5 if has_cutoff else 0.0, 12.345)

    key, value = key_of(known, NAME), value_of(entry)
    assert entry_at(key, value, 12_345) == entry
    fields = [b"epoch", EPOCH, b"key", key, b"value", value, b"ends", b"12345"]
    assert read_entry(b"77-0", fields) == (at(77), entry)


def test_a_key_without_end_has_none() -> None:
    """Redis says -1."""
    found = entry_at(KEY, b"1:5", -1)
    assert found is not None
    assert found.until == math.inf


@pytest.mark.parametrize(
    "key",
    [
        b"{gw:revocation}:state",
        b"{gw:revocation}:workers",
        b"{gw:revocation}:planet:" + NAME.hex().encode(),
        b"{gw:revocation}:token:" + NAME.hex().encode()[1:],
        b"{gw:revocation}:token:" + NAME.hex().encode() + b"0",
        b"{gw:revocation}:token:" + NAME.hex().upper().encode(),
        b"{gw:revocation}:token:" + b"z" * 32,
        b"{gw:revocation}:token:" + b"\xff" * 32,
        b"{gw:ticket}:token:" + NAME.hex().encode(),
        b"",
        b"\xff",
    ],
)
def test_other_keys_are_no_entries(key: bytes) -> None:
    """What lies beside them, and what a later version knows."""
    assert entry_at(key, b"1:5", 1) is None
    fields = [b"epoch", EPOCH, b"key", key, b"value", b"", b"ends", b"1"]
    assert read_entry(b"77-0", fields) == (at(77), None)


GOOD = [b"epoch", EPOCH, b"key", KEY, b"value", b"1:5", b"ends", b"1"]


@pytest.mark.parametrize(
    ("entry_id", "fields"),
    [
        (b"77", GOOD),
        (b"77-1", GOOD),
        (b"-0", GOOD),
        (b"x-0", GOOD),
        (b"77-0", []),
        (b"77-0", GOOD[:-1]),
        (b"77-0", GOOD[2:]),
        (b"77-0", [*GOOD[:-1], b"x"]),
    ],
)
def test_an_entry_that_is_not_understood_is_a_hole(
    entry_id: bytes, fields: list[bytes]
) -> None:
    """It may be anything: the snapshot knows."""
    with pytest.raises(Hole):
        read_entry(entry_id, fields)


@given(st.lists(st.binary(max_size=20), max_size=12), st.binary(max_size=12))
def test_nothing_but_a_hole_comes_of_nonsense(
    fields: list[bytes], entry_id: bytes
) -> None:
    """Whatever somebody has put into the stream."""
    with pytest.raises(Hole):
        read_entry(entry_id, fields)

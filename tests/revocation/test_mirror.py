"""gateway.revocation.mirror: it holds the union of what is alive, in little memory."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from mmap import PAGESIZE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import ANONYMOUS, Principal
from gateway.revocation.entries import CUTOFFS, KINDS, LISTED, Kind, Revocation, names
from gateway.revocation.mirror import Mirror, _Shard, merge
from gateway.tokens.fingerprints import SIZE, fingerprints

NOW = 1_000_000.0  # Unix seconds
ALICE = Principal(
    "user",
    "corp",
    "alice",
    issued_at=NOW,
    fingerprints=fingerprints(
        "https://id.example",
        token_id="t-1",
        session_id="s-1",
        subject="alice",
        client_id="app",
        family="f-1",
    ),
)
NAMES = dict(names(ALICE))


def entry(
    kind: Kind, *, name: bytes = b"", life: float = 600.0, cutoff: float = NOW
) -> Revocation:
    return Revocation(kind, name or NAMES[kind], cutoff, NOW + life)


def mirror(*entries: Revocation) -> Mirror:
    made = Mirror()
    for each in entries:
        made.put(each, NOW)
    return made


def test_an_empty_mirror_revokes_nobody_but_whom_it_cannot_look_up() -> None:
    """As the rule of gateway.revocation.entries says."""
    assert not Mirror().revokes(ALICE, NOW)
    assert not Mirror().revokes(ANONYMOUS, NOW)
    assert Mirror().revokes(replace(ALICE, fingerprints=None), NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_revokes_whom_it_names_for_its_time(kind: Kind) -> None:
    """From when it was entered until it has run out, and nobody else."""
    held = mirror(entry(kind))

    assert len(held) == 1
    assert held.revokes(ALICE, NOW)
    assert held.revokes(ALICE, NOW + 599.9)
    assert not held.revokes(ALICE, NOW + 600)
    near = NAMES[kind][:-1] + bytes([NAMES[kind][-1] ^ 1])
    for other in (bytes(SIZE), NAMES[kind][:1] + bytes(SIZE - 1), near):
        assert not mirror(entry(kind, name=other)).revokes(ALICE, NOW)
    assert not mirror(entry(kind, life=0.0)).revokes(ALICE, NOW)


@pytest.mark.parametrize("kind", sorted(CUTOFFS))
def test_a_cutoff_spares_what_was_issued_later(kind: Kind) -> None:
    """And the higher one counts, in either order."""
    low, high = entry(kind, cutoff=NOW - 9), entry(kind)

    assert not mirror(low).revokes(ALICE, NOW)
    assert mirror(low, high).revokes(ALICE, NOW)
    assert mirror(high, low).revokes(ALICE, NOW)


def test_it_says_what_is_news() -> None:
    """A store is given back only what it lacks."""
    held = Mirror()
    for kind in KINDS:
        first = entry(kind)
        assert held.put(first, NOW)
        assert not held.put(first, NOW)
        assert not held.put(replace(first, until=first.until - 9), NOW)
        assert not held.put(replace(first, until=NOW), NOW)
        longer = replace(first, until=first.until + 9)
        # Of a block the number counts, not the length.
        assert held.put(longer, NOW) is (kind != "block")


def test_all_that_it_holds_can_be_had_again() -> None:
    """Whole names: what was given back is what was there."""
    entries = [
        entry(kind, name=random.randbytes(SIZE)) for kind in KINDS for _ in range(300)
    ]
    held = mirror(*entries)

    def plain(each: Revocation) -> Revocation:
        return replace(each, cutoff=0.0) if each.kind in LISTED else each

    assert len(held) == len(entries)
    assert set(held) == {plain(each) for each in entries}


def test_names_that_begin_alike_are_told_apart() -> None:
    """Half a name finds the place, the whole of it is compared."""
    heads = [bytes(8), b"\x00" * 7 + b"\x01", b"\xff" * 8]
    tails = [bytes(8), b"\x00" * 7 + b"\x01", b"\x7f" * 8, b"\xff" * 8]
    all_of_them = [head + tail for head in heads for tail in tails]
    random.Random(1).shuffle(all_of_them)

    held = Mirror()
    for count, name in enumerate(all_of_them, 1):
        held.put(entry("token", name=name), NOW)
        assert {each.name for each in held} == set(all_of_them[:count])
    assert not held.put(entry("token", name=all_of_them[0]), NOW)


def test_whoever_chooses_names_that_lie_side_by_side_makes_nothing_wrong() -> None:
    """Some pages of them, in any order, a third of which soon run out."""
    chosen = [b"\xaa" + random.randbytes(SIZE - 1) for _ in range(2_000)]
    held = Mirror()
    for number, name in enumerate(chosen):
        held.put(entry("token", name=name, life=10.0 if number % 3 else 20.0), NOW)
    assert [each.name for each in held] == sorted(chosen)
    assert all(held.find("token", name, NOW) for name in chosen)

    for _ in range(256):
        held.sweep(NOW + 10)

    assert [each.name for each in held] == sorted(chosen[::3])
    assert {each.until for each in held} == {NOW + 20}
    assert held.put(entry("token", name=chosen[1]), NOW + 10)
    assert [each.name for each in held] == sorted([*chosen[::3], chosen[1]])
    for _ in range(256):
        held.sweep(NOW + 20)
    assert [each.name for each in held] == [chosen[1]]


def test_columns_have_little_room_that_nobody_uses() -> None:
    """Two pages and a thirtieth of them at most, whatever there is."""
    shard = _Shard()
    for count in range(1, 20_000):
        shard.insert(count - 1, count, 0, 1)
        spare = len(shard.heads) - count
        assert spare <= count // 32 + 2 * PAGESIZE // 20


FORKING = """
import os
from gateway.revocation.entries import Revocation
from gateway.revocation.mirror import Mirror

held = Mirror()
for number in range(1_000):
    held.put(Revocation("token", b"%016d" % number, 0.0, 9e8), 0.0)
before = list(held)
child = os.fork()
if not child:
    held.put(Revocation("token", bytes(16), 0.0, 9e8), 0.0)
    held.put(Revocation("token", b"%016d" % 0, 0.0, 2e9), 0.0)
    os._exit(0)
os.waitpid(child, 0)
assert list(held) == before
"""


def test_a_child_writes_into_memory_of_its_own() -> None:
    """Also where that is in pages from the system, which can be had as shared ones."""
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=30)


def test_the_newest_number_of_a_block_counts() -> None:
    """In whichever order they come; what lifts one outlives it."""
    first = replace(entry("block", life=600.0), number=1)
    lift = replace(entry("block", life=60.0), number=2, lifts=True)
    again = replace(entry("block", life=300.0), number=3)

    assert not mirror(first, lift).revokes(ALICE, NOW)
    assert not mirror(lift, first).revokes(ALICE, NOW)
    assert not mirror(first, lift).revokes(ALICE, NOW + 500)
    for order in ((first, lift, again), (again, lift, first), (lift, again, first)):
        held = mirror(*order)
        assert held.revokes(ALICE, NOW)
        assert not held.revokes(ALICE, NOW + 300)
    assert merge(first, lift) == merge(lift, first) == replace(lift, until=first.until)


def test_what_has_run_out_takes_no_memory() -> None:
    """A million revocations of a day ago are no entries today."""
    kinds: tuple[Kind, ...] = ("token", "client")
    for kind in kinds:
        held = Mirror()
        for number in range(5_000):
            held.put(entry(kind, name=random.randbytes(SIZE), life=1.0 + number), NOW)
        assert len(held) == 5_000
        for _ in range(256):
            held.sweep(NOW + 4_900)
        assert len(held) == len(list(held)) == 100
        for _ in range(256):
            held.sweep(NOW + 9_000)
        assert len(held) == 0
        assert list(held) == []


def test_an_entry_that_was_renewed_is_kept_until_its_later_end() -> None:
    """And is one entry, however often it is; a block ends as its newest one says."""
    for kind in (kind for kind in KINDS if kind != "block"):
        held = mirror(entry(kind, life=10.0), entry(kind, life=20.0))
        for _ in range(256):
            held.sweep(NOW + 10)
        assert held.revokes(ALICE, NOW + 10)
        assert len(held) == 1
        for _ in range(256):
            held.sweep(NOW + 20)
        assert (len(held), held.is_empty) == (0, True)


def test_to_enter_pays_for_looking_through_what_there_is() -> None:
    """Without anybody who sweeps, memory is bounded by what is alive, and some."""
    held = Mirror()
    for number in range(20_000):
        now = NOW + number
        name = random.randbytes(SIZE)
        held.put(Revocation("token", name, 0.0, now + 1_000), now)
        held.put(Revocation("subject", name, 0.0, now + 1_000), now)
    assert len(held) < 2 * 1_000 * 2


def test_an_end_beyond_all_dates_is_the_last_that_can_be_held() -> None:
    """Somebody made an entry last for ever: it does."""
    for kind in KINDS:
        held = mirror(replace(entry(kind), until=float("inf")))
        assert held.revokes(ALICE, NOW + 10 * 365 * 86_400)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # seconds that pass
            st.sampled_from(["token", "session", "client", "all"]),
            st.sampled_from([b"a" * SIZE, b"b" * SIZE, b"a" * 15 + b"b"]),
            st.integers(0, 20),  # seconds of life
            st.integers(0, 9),  # cut-off
        ),
        max_size=40,
    )
)
def test_the_mirror_is_the_union_of_what_is_alive(
    writes: list[tuple[int, Kind, bytes, int, int]],
) -> None:
    """At any moment it holds exactly what some write asked it to hold then."""
    held, now = Mirror(), NOW
    model: dict[tuple[Kind, bytes], tuple[float, float]] = {}
    for passes, kind, name, life, cutoff in writes:
        now += passes
        made = Revocation(kind, name, float(cutoff), now + life)
        held.put(made, now)
        old_cutoff, old_until = model.get((kind, name), (0.0, 0.0))
        if old_until <= now:
            old_cutoff = 0.0
        if life:
            model[kind, name] = max(old_cutoff, cutoff), max(old_until, made.until)

        found = {
            (each.kind, each.name): (each.cutoff, each.until)
            for each in held
            if each.until > now
        }
        assert found == {
            key: (0.0 if key[0] in LISTED else cutoff_, until)
            for key, (cutoff_, until) in model.items()
            if until > now
        }


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_found_by_its_name_as_long_as_it_lives(kind: Kind) -> None:
    """With what it says; what only stands beside it is not."""
    made = entry(kind)
    held = mirror(made)
    other = bytes([*made.name[:-1], made.name[-1] ^ 1])

    found = held.find(kind, made.name, NOW)
    assert found == replace(made, cutoff=made.cutoff if kind not in LISTED else 0.0)
    assert held.find(kind, made.name, NOW + 600) is None
    assert held.find(kind, other, NOW) is None
    assert held.find(kind, bytes([made.name[0] ^ 1, *made.name[1:]]), NOW) is None
    assert Mirror().find(kind, made.name, NOW) is None

"""gateway.adapters.memory_store: what is its own; the rest is one suite for all."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.memory_store import MemoryRevocations
from gateway.clock import Clock
from gateway.revocation.entries import Revocation, block_for
from gateway.revocation.lists import Effect
from gateway.tokens.fingerprints import fingerprint
from tests.adapters.principals import ISSUER, principal


@dataclass
class Hands:
    """A clock that is moved by hand."""

    now: float = 1_000.0  # Unix seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now)


def token(name: str, until: float, cutoff: float = 0.0) -> Revocation:
    return Revocation("token", fingerprint("token", ISSUER, name), cutoff, until)


async def test_the_list_in_memory_answers_without_waiting() -> None:
    """It is always live, so no decision ever waits for it."""
    hands = Hands()
    revocations = MemoryRevocations(hands.clock)
    await revocations.revoke(token("t-1", until=1_010.0))

    assert revocations.check_now(principal("t-1")) is True
    assert revocations.check_now(principal("t-2")) is False
    hands.now = 1_010.0
    assert revocations.check_now(principal("t-1")) is False


async def test_a_block_ends_when_it_is_lifted() -> None:
    """Each write is newer than the last."""
    revocations = MemoryRevocations(Hands().clock)
    who = principal(issued_at=2_000.0)
    for lifts in (False, True, False):
        block = block_for(ISSUER, "alice", now=1_000.0, seconds=60.0, lifts=lifts)
        await revocations.revoke(block)
        assert revocations.check_now(who) is not lifts


async def test_a_block_from_elsewhere_can_be_lifted() -> None:
    """Its number may be higher than any that was given here."""
    revocations = MemoryRevocations(Hands().clock)
    who = principal(issued_at=2_000.0)
    block = block_for(ISSUER, "alice", now=1_000.0, seconds=60.0)
    await revocations.restore(replace(block, number=10**15))
    assert revocations.check_now(who) is True
    await revocations.revoke(replace(block, lifts=True))
    assert revocations.check_now(who) is False


async def test_what_is_written_is_in_force_at_once() -> None:
    """There is one worker; whoever watches is told before the writer goes on."""
    revocations, told = MemoryRevocations(Hands().clock), list[Revocation]()
    end = revocations.watch(told.append)
    position = await revocations.revoke(token("t-1", until=1_010.0))

    assert told == [token("t-1", until=1_010.0)]
    assert await revocations.effect(position, 1.0) == Effect(workers=1, applied=1)
    assert revocations.check_stale(principal("t-1"), 0.0) == (True, 0.0)
    assert revocations.check_stale(principal("t-2"), 0.0) == (False, 0.0)
    end()
    later = await revocations.revoke(token("t-2", until=1_010.0))
    assert later.number == position.number + 1
    assert len(told) == 1


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # seconds that pass
            st.sampled_from(["t-1", "t-2", "t-3"]),
            st.integers(0, 20),  # seconds of life
            st.integers(0, 9),  # cut-off
        ),
        max_size=30,
    )
)
async def test_the_list_is_the_union_of_what_is_alive(
    writes: list[tuple[int, str, int, int]],
) -> None:
    """At any moment it holds exactly what some write asked it to hold then."""
    hands = Hands()
    revocations = MemoryRevocations(hands.clock)
    until: dict[str, float] = {}
    for passes, name, life, cutoff in writes:
        hands.now += passes
        await revocations.revoke(token(name, hands.now + life, float(cutoff)))
        until[name] = max(until.get(name, 0.0), hands.now + life)
        alive = {name for name, end in until.items() if end > hands.now}

        for other in ("t-1", "t-2", "t-3"):
            assert revocations.check_now(principal(other)) is (other in alive)

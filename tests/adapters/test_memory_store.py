"""gateway.adapters.memory_store: what is its own; the rest is one suite for all."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.memory_store import MemoryRevocations
from gateway.clock import Clock
from gateway.revocation.entries import Revocation
from tests.adapters.principals import ISSUER, principal


@dataclass
class Hands:
    """A clock that is moved by hand."""

    now: float = 1_000.0  # Unix seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now)


def token(name: str, until: float, cutoff: float = 0.0) -> Revocation:
    return Revocation("token", ISSUER, name, cutoff, until)


async def test_the_list_in_memory_answers_without_waiting() -> None:
    """It is always live, so no decision ever waits for it."""
    hands = Hands()
    revocations = MemoryRevocations(hands.clock)
    await revocations.revoke(token("t-1", until=1_010.0))

    assert revocations.check_now(principal("t-1")) is True
    assert revocations.check_now(principal("t-2")) is False
    hands.now = 1_010.0
    assert revocations.check_now(principal("t-1")) is False


async def test_what_has_run_out_takes_no_memory() -> None:
    """A million revocations of a day ago are no entries today."""
    hands = Hands()
    revocations = MemoryRevocations(hands.clock)
    for n in range(1_000):
        await revocations.revoke(token(f"t-{n}", until=1_001.0 + n))

    assert len(revocations) == 1_000
    hands.now = 1_900.0
    assert len(revocations) == 100
    assert len(revocations._due) == 100


async def test_renewing_an_entry_takes_no_memory() -> None:
    """Logging alice out a thousand times is one entry."""
    revocations = MemoryRevocations(Hands().clock)
    for n in range(1_000):
        await revocations.revoke(token("t-1", until=1_001.0 + n))

    assert (len(revocations), len(revocations._due)) == (1, 1)


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

        assert len(revocations) == len(alive)
        for other in ("t-1", "t-2", "t-3"):
            assert revocations.check_now(principal(other)) is (other in alive)

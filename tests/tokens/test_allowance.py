"""gateway.tokens.allowance: what fails comes back slowly, what succeeds at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens.allowance import Allowance

NOW = 1_000_000.0


def taken(allowance: Allowance, now: float, cost: float = 1.0) -> int:
    """Take until nothing is left; return how often."""
    count = 0
    while allowance.take(now, cost):
        count += 1
    return count


def test_so_many_at_once_and_so_many_a_second() -> None:
    """And never more than at once, however long nobody came."""
    allowance = Allowance(rate=50, most=128)
    assert taken(allowance, NOW) == 128
    assert taken(allowance, NOW + 0.5) == 25
    assert taken(allowance, NOW + 1000) == 128


def test_what_was_not_in_vain_counts_for_nothing() -> None:
    """Any number of good ones go through; and to give back twice makes no riches."""
    allowance = Allowance(rate=1, most=2)
    for _ in range(1000):
        assert allowance.take(NOW)
        allowance.give_back()
    allowance.give_back(10)
    assert taken(allowance, NOW) == 2


def test_what_costs_more_is_allowed_less_often() -> None:
    """In the same measure."""
    allowance = Allowance(rate=12, most=12)
    assert taken(allowance, NOW, cost=6) == 2
    assert taken(allowance, NOW + 0.5, cost=6) == 1


def test_a_clock_that_is_set_back_brings_nothing_and_takes_nothing() -> None:
    """An hour back: from then on it counts by the new time."""
    allowance = Allowance(rate=50, most=100)
    assert taken(allowance, NOW) == 100
    assert taken(allowance, NOW - 3600) == 0
    assert taken(allowance, NOW - 3599) == 50


@given(st.lists(st.floats(0, 0.05), max_size=200))
def test_no_rhythm_gets_more_than_the_rate(pauses: list[float]) -> None:
    """Of those that fail, in any stretch of time."""
    allowance = Allowance(rate=50, most=10)
    now, count = NOW, 0
    for pause in pauses:
        now += pause
        count += allowance.take(now)
    assert count <= 10 + (now - NOW) * 50 + 1e-3

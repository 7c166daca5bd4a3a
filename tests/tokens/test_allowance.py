"""gateway.tokens.allowance: what fails comes back slowly, what succeeds at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens import allowance as rooms
from gateway.tokens.allowance import Allowance, Shares

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


def taken_by(client: str, shares: Shares, now: float, cost: float = 1.0) -> int:
    """Take for *client* until nothing is left for it; return how often."""
    count = 0
    while shares.take(client, now, cost):
        count += 1
    return count


def test_nobody_uses_up_what_all_have() -> None:
    """Half of what there is at once, and then a quarter of what comes back."""
    shares = Shares(rate=40, most=100)
    assert taken_by("192.0.2.1", shares, NOW) == 50
    assert taken_by("192.0.2.2", shares, NOW) == 50
    assert taken_by("192.0.2.3", shares, NOW) == 0
    # 20 came back: 5 for each of those two at most, and the rest for whoever comes.
    now = NOW + 0.5
    assert taken_by("192.0.2.1", shares, now) == 5
    assert taken_by("192.0.2.2", shares, now) == 5
    assert taken_by("192.0.2.3", shares, now) == 10


def test_who_fails_is_refused_while_others_go_on() -> None:
    """For as long as it likes, and however many the others are."""
    shares = Shares(rate=40, most=100)
    now = NOW
    for second in range(100):
        now += 1
        taken_by("2001:db8:ffff::bad", shares, now)
        for other in range(200):
            client = f"2001:db8:{second}:{other}::1"
            assert shares.take(client, now)
            shares.give_back(client)


def test_a_refusal_costs_no_share() -> None:
    """What all have is used up: nobody pays for that with his own."""
    shares = Shares(rate=40, most=100)
    taken_by("192.0.2.1", shares, NOW)
    taken_by("192.0.2.2", shares, NOW)
    for _ in range(1000):
        assert not shares.take("192.0.2.3", NOW)
    # All that has come back: its share is whole, and larger.
    assert taken_by("192.0.2.3", shares, NOW + 0.5) == 20


def test_an_address_that_says_nothing_has_no_share() -> None:
    """Of a Unix socket or of loopback: it may be one, or all there are."""
    for client in ("", "127.0.0.1", "::1", "no address"):
        assert taken_by(client, Shares(rate=40, most=100), NOW) == 100


def test_who_has_one_address_of_a_network_has_them_all() -> None:
    """RFC 6177: a /64 is one household."""
    shares = Shares(rate=40, most=100)
    assert taken_by("2001:db8::1", shares, NOW) == 50
    assert taken_by("2001:db8::2", shares, NOW) == 0
    assert taken_by("2001:db8:0:1::1", shares, NOW) == 50


def test_shares_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has many addresses meets what all have."""
    monkeypatch.setattr(rooms, "MAX_SHARES", 3)
    shares = Shares(rate=40, most=100)
    found = [shares.take(f"192.0.2.{number}", NOW) for number in range(150)]
    assert found == [True] * 100 + [False] * 50
    assert len(shares._own) == 3


def test_who_keeps_coming_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a busy hour would give him a new share."""
    monkeypatch.setattr(rooms, "MAX_SHARES", 3)
    shares = Shares(rate=0, most=100)
    taken_by("192.0.2.1", shares, NOW)
    for number in range(2, 50):
        assert shares.take(f"192.0.2.{number}", NOW)
        shares.give_back(f"192.0.2.{number}")
        assert not shares.take("192.0.2.1", NOW)


def test_what_was_given_back_is_there_again() -> None:
    """To all, and to whom it was taken from."""
    shares = Shares(rate=0, most=100)
    for _ in range(1000):
        assert shares.take("192.0.2.1", NOW, 40)
        shares.give_back("192.0.2.1", 40)
    assert taken_by("192.0.2.1", shares, NOW, 10) == 5
    assert taken_by("", shares, NOW, 10) == 5

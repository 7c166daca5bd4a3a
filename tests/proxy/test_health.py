"""gateway.proxy.health: when an endpoint is left alone, and how it comes back."""

from __future__ import annotations

import pytest

from gateway.config.settings import Ejection, HealthCheck
from gateway.proxy.health import FIRST_TRIAL, LAST_TRIAL, LIMIT, Health


class Watched(Health):
    """A Health that counts how often it told of a change."""

    __slots__ = ("changes",)

    def __init__(
        self, ejection: Ejection | None = None, check: HealthCheck | None = None
    ) -> None:
        self.changes = 0
        super().__init__(ejection or Ejection(), check, self._changed)
        self.can_be_ejected = True

    def _changed(self) -> None:
        self.changes += 1


def fail(health: Health, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        health.failed(now)


def test_failures_in_a_row_eject_it() -> None:
    """Five by default; an answer between them begins anew."""
    health = Watched()
    fail(health, 4)
    health.answered()
    fail(health, 4)
    assert (health.state, health.changes) == ("up", 0)
    health.failed(100.0)
    assert (health.state, health.changes) == ("ejected", 1)
    assert health.ejected_until == 110.0
    assert not health.is_available
    assert health.is_reachable


def test_who_is_alone_is_not_ejected() -> None:
    """There would be nobody to ask instead."""
    health = Watched()
    health.can_be_ejected = False
    fail(health, 100)
    assert health.state == "up"


def test_it_comes_back_on_trial() -> None:
    """One answer, and it is up; one failure, and it is out again."""
    health = Watched()
    fail(health, 5)
    health.end_ejection(10.0)
    assert (health.state, health.is_available) == ("trial", True)
    health.answered()
    assert (health.state, health.failures) == ("up", 0)
    fail(health, 5, 20.0)
    health.end_ejection(40.0)
    health.failed(41.0)
    assert health.state == "ejected"


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_on_trial_an_answer_is_looked_at(failures: int) -> None:
    """Connections tell of answers only where there have been failures."""
    health = Watched(Ejection(failures=failures))
    fail(health, failures)
    health.end_ejection(10.0)
    assert health.failures


def test_each_ejection_is_twice_as_long_as_the_last_one() -> None:
    """Up to max_time; and after as long a good time they begin anew."""
    health = Watched(Ejection(failures=1, time=10.0, max_time=60.0))
    now, lengths = 0.0, []
    for _ in range(5):
        health.failed(now)
        lengths.append(health.ejected_until - now)
        now = health.ejected_until
        health.end_ejection(now)
    assert lengths == [10.0, 20.0, 40.0, 60.0, 60.0]
    health.answered()
    now += 61.0
    health.failed(now)
    assert health.ejected_until - now == 10.0
    assert (health.total_ejections, health.total_failures) == (6, 6)


def test_a_thousand_ejections_are_no_longer_than_the_longest() -> None:
    """Not even where doubling them would be infinite."""
    health = Watched(Ejection(failures=1, time=10.0, max_time=60.0))
    now = 0.0
    for _ in range(2000):
        health.failed(now)
        now = health.ejected_until
        health.end_ejection(now)
    assert health.ejections == 2000


def test_failures_while_ejected_change_nothing() -> None:
    """Requests that were in flight, or sent in panic."""
    health = Watched()
    fail(health, 5, 0.0)
    fail(health, 50, 9.0)
    assert (health.ejected_until, health.ejections) == (10.0, 1)


def test_what_cannot_be_reached_is_not_tried_for_a_moment() -> None:
    """After some failures in a row; the moments grow with each trial that fails."""
    health = Watched()
    for _ in range(LIMIT - 1):
        health.not_connected(5.0)
    health.connected()
    assert (health.state, health.changes) == ("up", 0)
    for _ in range(LIMIT + 100):  # as many were waiting at once
        health.not_connected(5.0)
    assert (health.state, health.changes) == ("unreachable", 1)
    assert health.trial_at == 5.0 + FIRST_TRIAL
    now, pauses = health.trial_at, []
    for _ in range(7):
        health.trial_failed(now)
        pauses.append(health.trial_at - now)
        now = health.trial_at
    assert pauses == [1.0, 2.0, 4.0, 8.0, LAST_TRIAL, LAST_TRIAL, LAST_TRIAL]
    health.connected()
    assert (health.state, health.changes) == ("up", 2)
    for _ in range(LIMIT):
        health.not_connected(50.0)
    assert health.trial_at == 50.0 + FIRST_TRIAL


@pytest.mark.parametrize(
    ("results", "healthy"),
    [
        ([], True),
        ([True], True),
        ([False], False),  # the first one counts at once
        ([True, False, False], True),
        ([True, False, False, False], False),
        ([True, False, False, True, False, False], True),
        ([False, True], False),
        ([False, True, True], True),
        ([False, True, False, True], False),
        ([False, True, True, False, False], True),
    ],
)
def test_checks_in_a_row_count(results: list[bool], *, healthy: bool) -> None:
    """Three to be left alone, two to come back."""
    health = Watched(check=HealthCheck("/healthz"))
    for passed in results:
        health.checked(passed=passed)
    assert health.is_healthy is healthy
    assert health.is_available is healthy
    assert health.state == ("up" if healthy else "unhealthy")
    assert health.failed_checks == results.count(False)


def test_it_is_called_by_the_worst_of_its_states() -> None:
    """Whoever can't be reached need not be healthy."""
    health = Watched(check=HealthCheck("/healthz"))
    said = [health.state]
    fail(health, 5)
    said.append(health.state)
    health.checked(passed=False)
    said.append(health.state)
    for _ in range(LIMIT):
        health.not_connected(0.0)
    said.append(health.state)
    assert said == ["up", "ejected", "unhealthy", "unreachable"]

"""Whether an endpoint of an upstream should be given requests. No I/O, no clock.

Three things are known of an endpoint, from three sources, and are kept apart:

- reachable: whether connections to it open. After LIMIT failures in a row it is not
  tried for a moment that grows; then a connection of our own is the trial, so that
  nobody's request is. What can't be reached is never asked.
- ejected: it takes requests and answers with 502, 503 or 504, breaks off or is late,
  [upstream.x.ejection] failures in a row. It comes back on trial: one request at a time
  until one is answered, and out again, for longer, if that fails.
- healthy: what [upstream.x.health] asked it itself.

Of the last two the pool may think otherwise, when too few would be left
(gateway.proxy.pool).

Imports: gateway.config.settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from gateway.config.settings import Ejection, HealthCheck

# Answers by which an endpoint says that it can't serve at all (RFC 9110 section
# 15.6). 500 is not among them: one broken page, asked for often, would eject all.
GATEWAY_ERRORS = frozenset({502, 503, 504})
LIMIT = 3  # failures to connect in a row; one may be a listener that is replaced
# Seconds until a connection is tried: first, and at most. A backend that comes back
# is used again within the latter.
FIRST_TRIAL = 0.5
LAST_TRIAL = 10.0

State = Literal["up", "trial", "ejected", "unhealthy", "unreachable"]
STATES: tuple[State, ...] = get_args(State)


class Health:
    """What is known of one endpoint.

    Args:
        ejection: When it is ejected, and for how long.
        check: When its own word counts; None: it isn't asked.
        on_change: Called when it should be given requests again, or no more.
    """

    __slots__ = (
        "_check",
        "_checks",
        "_connect_failures",
        "_ejection",
        "_on_change",
        "_pause",
        "_returned_at",
        "_streak",
        "can_be_ejected",
        "ejected_until",
        "ejections",
        "failed_checks",
        "failures",
        "is_healthy",
        "is_on_trial",
        "is_reachable",
        "total_connect_failures",
        "total_ejections",
        "total_failures",
        "trial_at",
    )

    def __init__(
        self,
        ejection: Ejection,
        check: HealthCheck | None,
        on_change: Callable[[], None],
    ) -> None:
        self._ejection = ejection
        self._check = check
        self._on_change = on_change
        self.failures = 0  # in a row; the way of a request looks at this one alone
        self.can_be_ejected = False  # there are others
        self.is_on_trial = False
        self.ejected_until = 0.0  # monotonic seconds; 0: it is not ejected
        self.ejections = 0  # of late; each doubles the time of the next
        self._returned_at = 0.0
        self.is_reachable = True
        self.trial_at = 0.0  # monotonic seconds, while it is not reachable
        self._pause = FIRST_TRIAL
        self._connect_failures = 0  # in a row
        self.is_healthy = True
        self._checks = 0  # made so far
        self._streak = 0  # of checks that say the other thing
        self.total_failures = self.total_connect_failures = 0
        self.total_ejections = self.failed_checks = 0

    @property
    def is_available(self) -> bool:
        """Whether it should be given requests, if it can be reached."""
        return self.is_healthy and not self.ejected_until

    @property
    def state(self) -> State:
        """Say it in a word, the worst first."""
        if not self.is_reachable:
            return "unreachable"
        if not self.is_healthy:
            return "unhealthy"
        if self.ejected_until:
            return "ejected"
        return "trial" if self.is_on_trial else "up"

    # Requests

    def answered(self) -> None:
        """Note an answer after failures."""
        self.failures = 0
        if self.is_on_trial:
            self.is_on_trial = False
            self._on_change()

    def failed(self, now: float) -> None:
        """Note that a request was not answered, or with one of GATEWAY_ERRORS.

        Args:
            now: Monotonic seconds.
        """
        self.failures += 1
        self.total_failures += 1
        rules = self._ejection
        if (
            self.failures < rules.failures
            or self.ejected_until
            or not self.can_be_ejected
        ):
            return
        if now - self._returned_at > rules.max_time:
            self.ejections = 0  # it has been well for long
        doublings = min(self.ejections, 30)  # a float has its limits too
        self.ejections += 1
        self.total_ejections += 1
        self.ejected_until = now + min(rules.time * 2**doublings, rules.max_time)
        self.is_on_trial = False
        self._on_change()

    def end_ejection(self, now: float) -> None:
        """Take it back on trial."""
        self.ejected_until = 0.0
        self._returned_at = now
        self.is_on_trial = True
        # One failure more ejects it, and an answer is looked at.
        self.failures = max(1, self._ejection.failures - 1)
        self._on_change()

    # Connections

    def connected(self) -> None:
        """Note a connection."""
        self._connect_failures = 0
        if not self.is_reachable:
            self.is_reachable = True
            self._on_change()

    def not_connected(self, now: float) -> None:
        """Note that a connection for a request did not open."""
        self.total_connect_failures += 1
        self._connect_failures += 1
        if self.is_reachable and self._connect_failures >= LIMIT:
            self.is_reachable = False
            self._pause = FIRST_TRIAL
            self.trial_at = now + self._pause
            self._on_change()

    def trial_failed(self, now: float) -> None:
        """Note that the connection of a trial did not open."""
        self.total_connect_failures += 1
        self._pause = min(2 * self._pause, LAST_TRIAL)
        self.trial_at = now + self._pause

    # Checks

    def checked(self, *, passed: bool) -> None:
        """Note what a check said; the first one counts at once."""
        check = self._check
        assert check is not None
        self._checks += 1
        if not passed:
            self.failed_checks += 1
        if passed == self.is_healthy:
            self._streak = 0
            return
        self._streak += 1
        needed = check.healthy if passed else check.unhealthy
        if self._streak >= needed or self._checks == 1:
            self.is_healthy = passed
            self._streak = 0
            self._on_change()

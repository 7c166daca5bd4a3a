"""The two clocks of whoever waits; only gateway.app knows where they come from.

Imports: the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` for claims, `monotonic` for durations; both in seconds (R104)."""

    wall: Callable[[], float]  # Unix seconds
    monotonic: Callable[[], float]

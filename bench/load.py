"""One measurement: wrk against one port, and what it reported.

Imports: the standard library only.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import pinned

SCRIPT = Path(__file__).with_name("tokens.lua")

UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}  # to milliseconds


class SpoiltError(Exception):
    """A run whose figure means nothing: it had errors."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one run of wrk found."""

    rate: float  # requests per second
    p50: float  # milliseconds, 64 connections kept busy
    p99: float  # milliseconds
    requests: int
    cpu: float = 0.0  # microseconds of the server's processor time for each request


def measure(
    port: int,
    path: str,
    headers: Mapping[str, str],
    *,
    seconds: int,
    core: int = 1,
    tokens: Path | None = None,
    first: int = 0,
) -> Reading:
    """Keep 64 connections to *port* busy for *seconds*.

    Args:
        port: On loopback.
        path: What to GET.
        headers: Beside those of wrk.
        seconds: How long.
        core: Where wrk runs.
        tokens: A file of tokens, one on each line; every request takes the next.
        first: How many of them to leave out at the beginning.

    Raises:
        SpoiltError: When one answer was not a 2xx, or a connection failed.
    """
    fields = [word for name in headers for word in ("-H", f"{name}: {headers[name]}")]
    # An answer after two seconds is late, not wrong: a slow peer has a figure too.
    late = ["--timeout", "20s"]
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", *late, *fields]
    command.append(f"http://127.0.0.1:{port}{path}")
    if tokens is not None:
        command[1:1] = ["-s", str(SCRIPT)]
        command += ["--", str(tokens), str(first)]
    done = subprocess.run(
        pinned(core, command),
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 20,
    )
    return read(done.stdout)


def read(report: str) -> Reading:
    """Return the figures in wrk's *report*."""
    for sign in ("Non-2xx", "Socket errors"):
        found = re.search(rf"{sign}.*", report)
        if found:
            raise SpoiltError(found[0].strip())

    def number(pattern: str) -> re.Match[str]:
        found = re.search(pattern, report)
        if found is None:
            raise SpoiltError(f"wrk reported no {pattern!r}")
        return found

    def latency(percentile: int) -> float:
        found = number(rf"{percentile}%\s+([\d.]+)(us|ms|s|m)\b")
        return float(found[1]) * UNITS[found[2]]

    return Reading(
        rate=float(number(r"Requests/sec:\s+([\d.]+)")[1]),
        p50=latency(50),
        p99=latency(99),
        requests=int(number(r"(\d+) requests in")[1]),
    )

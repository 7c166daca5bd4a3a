"""What a run found: medians, ratios of medians, the tables that show them.

A bare figure says more about the machine than about the product, so what is compared
with a goal is always a ratio of two medians of the same run.

Imports: bench.lineup, bench.load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench.lineup import Contestant, Server
from bench.load import Reading

MINIMAL, BROWSER = "minimal", "browser"
Key = tuple[str, str]  # contestant, kind of request


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio and what it should reach."""

    of: str
    to: str
    kind: str
    least: float


GOALS = (
    Goal("gateway", "envoy jwt_authn cached", MINIMAL, 2.5),
    Goal("gateway", "haproxy jwt_verify", MINIMAL, 2.0),
    Goal("gateway", "nginx plain", MINIMAL, 0.5),
    Goal("gateway", "envoy jwt_authn cached", BROWSER, 2.0),
    Goal("gateway", "haproxy jwt_verify", BROWSER, 1.5),
    Goal("gateway", "nginx plain", BROWSER, 0.4),
    Goal("gateway", "starlette + httpx", MINIMAL, 30.0),
    Goal("gateway", "gateway public route", MINIMAL, 0.85),
)


@dataclass(slots=True)
class Findings:
    """Filled while the rounds go on."""

    readings: dict[Key, list[Reading]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # not installed
    unfit: dict[str, str] = field(default_factory=dict)  # there, but not as it says
    spoilt: list[str] = field(default_factory=list)  # runs with errors
    asked: dict[str, int] = field(default_factory=dict)  # answered, by each server

    def add(self, name: str, kind: str, reading: Reading) -> None:
        """Keep one round's *reading*."""
        self.readings.setdefault((name, kind), []).append(reading)

    def rate(self, name: str, kind: str) -> float | None:
        """Return the median requests per second, None where nothing was measured."""
        found = self.readings.get((name, kind))
        return median(reading.rate for reading in found) if found else None

    def cpu(self, name: str, kind: str) -> float | None:
        """Return the median microseconds of processor time for each request."""
        found = self.readings.get((name, kind))
        return median(reading.cpu for reading in found) if found else None

    def ratio(self, goal: Goal) -> float | None:
        """Return the ratio of medians that *goal* is about."""
        of, to = self.rate(goal.of, goal.kind), self.rate(goal.to, goal.kind)
        return of / to if of and to else None

    def cpu_ratio(self, goal: Goal) -> float | None:
        """Return what the ratio would be on cores that nobody else uses."""
        of, to = self.cpu(goal.of, goal.kind), self.cpu(goal.to, goal.kind)
        return to / of if of and to else None


def table(
    findings: Findings, contestants: Sequence[Contestant], servers: dict[str, Server]
) -> str:
    """Return what a person reads."""
    rows = [("", "req/s", "browser", "cpu us", "p50 ms", "p99 ms", "what it does")]
    for who in contestants:
        found = findings.readings.get((who.name, MINIMAL))
        if not found:
            continue
        rows.append(
            (
                who.name,
                _rate(findings.rate(who.name, MINIMAL)),
                _rate(findings.rate(who.name, BROWSER)),
                f"{findings.cpu(who.name, MINIMAL) or 0:.1f}",
                f"{median(reading.p50 for reading in found):.2f}",
                f"{median(reading.p99 for reading in found):.2f}",
                who.does,
            )
        )
    lines = ["One core, 64 connections, medians", "", *_columns(rows, range(1, 6)), ""]
    goals = [("ratio of medians", "request", "goal", "req/s", "by cpu", "")]
    for goal in GOALS:
        ratio = findings.ratio(goal)
        goals.append(
            (
                f"{goal.of} / {goal.to}",
                goal.kind,
                f">= {goal.least:g}",
                _ratio(ratio),
                _ratio(findings.cpu_ratio(goal)),
                "" if ratio is None or ratio >= goal.least else "not reached",
            )
        )
    lines += [*_columns(goals, range(2, 5)), ""]
    peers = [("peer", "version", "config", "cache")]
    for who in contestants:
        if (who.name, MINIMAL) in findings.readings:
            server = servers[who.server]
            peers.append((who.name, server.version, server.config, who.cache))
    lines += _columns(peers)
    for title, what in (
        ("skipped", findings.skipped),
        ("not measured", findings.unfit),
    ):
        lines += [f"{title}: {name}: {why}" for name, why in what.items()]
    lines += [f"spoilt run: {what}" for what in findings.spoilt]
    return "\n".join(lines)


def record(
    findings: Findings, contestants: Sequence[Contestant], servers: dict[str, Server]
) -> dict[str, Any]:
    """Return what a program reads."""
    return {
        "contestants": [
            {
                "name": who.name,
                "does": who.does,
                "cache": who.cache,
                "refuses": sorted(who.refuses),
                "version": servers[who.server].version,
                "config": servers[who.server].config,
                "median": {
                    kind: findings.rate(who.name, kind) for kind in (MINIMAL, BROWSER)
                },
                "rounds": {
                    kind: [asdict(reading) for reading in readings]
                    for (name, kind), readings in findings.readings.items()
                    if name == who.name
                },
            }
            for who in contestants
        ],
        "ratios": [
            asdict(goal)
            | {"ratio": findings.ratio(goal), "by_cpu": findings.cpu_ratio(goal)}
            for goal in GOALS
        ],
        "skipped": findings.skipped,
        "not_measured": findings.unfit,
        "spoilt": findings.spoilt,
    }


def chart(findings: Findings, contestants: Sequence[Contestant]) -> str:
    """Return the medians as an SVG bar chart."""
    rates = {
        who.name: rate
        for who in contestants
        if (rate := findings.rate(who.name, MINIMAL)) is not None
    }
    top = max(rates.values(), default=1.0)
    bars = []
    for row, (name, rate) in enumerate(rates.items()):
        y, width = 34 + row * 26, 420 * rate / top
        colour = "#2563eb" if name.startswith("gateway") else "#94a3b8"
        bars.append(
            f'<text x="170" y="{y + 13}" text-anchor="end">{name}</text>'
            f'<rect x="180" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>'
            f'<text x="{186 + width:.1f}" y="{y + 13}">{rate:,.0f}</text>'
        )
    height = 44 + len(bars) * 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#0f172a">'
        f'<rect width="680" height="{height}" fill="#ffffff"/>'
        '<text x="10" y="20" font-size="14">requests per second of one core</text>'
        f"{''.join(bars)}</svg>\n"
    )


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _columns(rows: Sequence[Sequence[str]], numbers: range = range(0)) -> list[str]:
    """Return *rows* as aligned lines; the columns *numbers* stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

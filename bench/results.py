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
    least: float | None  # None: shown, without a goal


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured that is no rate of requests, and what it should reach."""

    name: str
    group: str
    unit: str
    rounds: tuple[float, ...]
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def is_met(self) -> bool | None:
        """Tell whether the goal is reached; None where there is none."""
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most

    @property
    def share(self) -> float | None:
        """How far it is on its way to the goal: 1.0 is there, more is better."""
        if self.least is not None:
            return self.value / self.least
        if self.most is None:
            return None
        return self.most / self.value if self.value > 0 else float("inf")


GOALS = (
    Goal("gateway", "envoy jwt_authn cached", MINIMAL, 2.5),
    Goal("gateway", "haproxy jwt_verify", MINIMAL, 2.0),
    Goal("gateway", "nginx plain", MINIMAL, 0.5),
    Goal("gateway", "envoy jwt_authn cached", BROWSER, 2.0),
    Goal("gateway", "haproxy jwt_verify", BROWSER, 1.5),
    Goal("gateway", "nginx plain", BROWSER, 0.4),
    Goal("gateway", "starlette + httpx", MINIMAL, 30.0),
    Goal("gateway", "gateway public route", MINIMAL, 0.85),
    Goal("gateway, base", "gateway, no log", MINIMAL, 0.9),
    Goal("gateway, 10,000 routes", "gateway, 10 routes", MINIMAL, 0.95),
    Goal("gateway, 1,000,000 revoked", "gateway, base", MINIMAL, 0.95),
    Goal("gateway, 100,000 tokens held", "gateway, one token", MINIMAL, None),
    Goal("gateway, 100,000 tokens in turn", "gateway, one token", MINIMAL, 0.95),
    Goal("gateway RS256 cold", "haproxy RS256 cold", MINIMAL, 0.4),
    Goal("gateway ES256 cold", "haproxy ES256 cold", MINIMAL, None),
    Goal("gateway HS256 cold", "haproxy HS256 cold", MINIMAL, None),
    Goal("gateway ES256 cold", "gateway RS256 cold", MINIMAL, None),
    Goal("gateway HS256 cold", "gateway RS256 cold", MINIMAL, None),
)


@dataclass(slots=True)
class Findings:
    """Filled while the rounds go on."""

    readings: dict[Key, list[Reading]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # not installed
    unfit: dict[str, str] = field(default_factory=dict)  # there, but not as it says
    spoilt: list[str] = field(default_factory=list)  # runs with errors
    figures: list[Figure] = field(default_factory=list)

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
    lines = []
    measured = [who for who in contestants if (who.name, MINIMAL) in findings.readings]
    if measured:
        lines += ["One core, 64 connections, medians", ""]
        lines += [*_columns(_rates(findings, measured), range(1, 6)), ""]
        lines += [*_columns(_ratios(findings), range(2, 5)), ""]
        peers = [("row", "version", "config", "cache")]
        for who in measured:
            server = servers[who.server]
            peers.append((who.name, server.version, server.config, who.cache))
        lines += [*_columns(peers), ""]
    if findings.figures:
        lines += [*_columns(_figures(findings), range(1, 4)), ""]
    for title, what in (
        ("skipped", findings.skipped),
        ("not measured", findings.unfit),
    ):
        lines += [f"{title}: {name}: {why}" for name, why in what.items()]
    lines += [f"spoilt run: {what}" for what in findings.spoilt]
    return "\n".join(lines)


def _rates(findings: Findings, measured: Sequence[Contestant]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("", "req/s", "browser", "cpu us", "p50 ms", "p99 ms", "what it does")
    ]
    group = measured[0].group
    for who in measured:
        if who.group != group:
            rows.append(("",) * len(rows[0]))
            group = who.group
        found = findings.readings[who.name, MINIMAL]
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
    return rows


def _ratios(findings: Findings) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("ratio of medians", "request", "goal", "req/s", "by cpu", "")
    ]
    for goal in GOALS:
        ratio = findings.ratio(goal)
        if ratio is None:
            continue
        is_missed = goal.least is not None and ratio < goal.least
        rows.append(
            (
                f"{goal.of} / {goal.to}",
                goal.kind,
                "-" if goal.least is None else f">= {goal.least:g}",
                _ratio(ratio),
                _ratio(findings.cpu_ratio(goal)),
                "not reached" if is_missed else "",
            )
        )
    return rows


def _figures(findings: Findings) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("figure, median", "goal", "found", "unit", "", "how")]
    for figure in findings.figures:
        goal = "-"
        if figure.least is not None:
            goal = f">= {figure.least:g}"
        elif figure.most is not None:
            goal = f"<= {figure.most:g}"
        missed = "not reached" if figure.is_met is False else ""
        found = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.3g}"
        rows.append((figure.name, goal, found, figure.unit, missed, figure.note))
    return rows


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
            if any(name == who.name for name, _ in findings.readings)
        ],
        "ratios": [
            asdict(goal)
            | {"ratio": findings.ratio(goal), "by_cpu": findings.cpu_ratio(goal)}
            for goal in GOALS
        ],
        "figures": [
            asdict(figure) | {"value": figure.value, "met": figure.is_met}
            for figure in findings.figures
        ],
        "skipped": findings.skipped,
        "not_measured": findings.unfit,
        "spoilt": findings.spoilt,
    }


WIDTH, LEFT, LONGEST = 760, 270, 380
CUT = 2.5  # a goal exceeded more than this is drawn no longer


def chart(findings: Findings, contestants: Sequence[Contestant]) -> str:
    """Return the medians, and how far every goal is reached, as an SVG bar chart."""
    rates = {
        who.name: rate
        for who in contestants
        if (rate := findings.rate(who.name, MINIMAL)) is not None
    }
    top = max(rates.values(), default=1.0)
    drawn = []
    y = 20
    if rates:
        drawn.append(_title(y, "requests per second of one core"))
        y += 14
    for name, rate in rates.items():
        colour = "#2563eb" if name.startswith("gateway") else "#94a3b8"
        drawn.append(_bar(y, name, LONGEST * rate / top, colour, f"{rate:,.0f}"))
        y += 22
    shares = [
        (f"{goal.of} / {goal.to}, {goal.kind}", ratio / goal.least)
        for goal in GOALS
        if goal.least and (ratio := findings.ratio(goal)) is not None
    ]
    shares += [(it.name, it.share) for it in findings.figures if it.share is not None]
    if shares:
        y += 30
        drawn.append(_title(y, "how far each goal is reached; the line is the goal"))
        y += 14
        line = 2 * LEFT - 100 + (WIDTH - 2 * LEFT + 40) / CUT
        drawn.append(
            f'<path d="M{line:.1f} {y - 4}V{y + 22 * len(shares)}" stroke="#0f172a"/>'
        )
    for name, share in shares:
        length = (WIDTH - 2 * LEFT + 40) * min(share, CUT) / CUT
        colour = "#16a34a" if share >= 1 else "#dc2626"
        drawn.append(_bar(y, name, length, colour, f"{share:.2f}", 2 * LEFT - 100))
        y += 22
    height = y + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#0f172a">'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        f"{''.join(drawn)}</svg>\n"
    )


def _title(y: int, text: str) -> str:
    return f'<text x="10" y="{y}" font-size="14">{text}</text>'


def _bar(
    y: int, name: str, length: float, colour: str, figure: str, left: int = LEFT
) -> str:
    return (
        f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{name}</text>'
        f'<rect x="{left}" y="{y}" width="{length:.1f}" height="16" fill="{colour}"/>'
        f'<text x="{left + length + 6:.1f}" y="{y + 13}">{figure}</text>'
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

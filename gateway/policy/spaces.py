"""Which service a path belongs to: (host, prefix) spaces and their fences.

Two services whose prefixes are equal or nested, on a common host, would take paths from
one another, so that does not load unless one says `inside = "other"`. Then all their
routes compete, and the most specific wins. A service that names hosts has, on those
hosts, its prefix to itself: services that name none are not asked there, unless they
are linked to it by `inside`.

Imports: gateway.policy.spec, gateway.policy.suggest, gateway.policy.table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.policy.spec import KeyPath, Problem
from gateway.policy.suggest import did_you_mean
from gateway.policy.table import Entry, Space

Line = Callable[[str, KeyPath], str]
"""Returns "file:line" of a key path in a file, for messages that name two places."""


@dataclass(frozen=True, slots=True)
class Territory:
    """Where one service's routes may stand."""

    file: str
    at: KeyPath
    service: str
    hosts: frozenset[str]  # all, when empty
    prefix: tuple[str, ...]
    inside: str | None

    def meets(self, other: Territory) -> bool:
        """Tell whether neither of two services gives way to the other by its hosts."""
        if not self.hosts and not other.hosts:
            return True
        return not self.hosts.isdisjoint(other.hosts)

    def contains(self, other: Territory) -> bool:
        """Tell whether the other's prefix is this one's, or lies below it."""
        return other.prefix[: len(self.prefix)] == self.prefix


def check(territories: Sequence[Territory], line: Line) -> list[Problem]:
    """Return what is wrong between services, in the order of *territories*."""
    problems: list[Problem] = []
    by_name = {territory.service: territory for territory in territories}
    outer = {territory.service: _outer(territory, by_name) for territory in territories}
    for index, mine in enumerate(territories):
        if mine.inside is not None:
            problems += _check_inside(mine, by_name, line)
        for other in territories[:index]:
            if not mine.meets(other):
                continue
            if not (mine.contains(other) or other.contains(mine)):
                continue
            if other.service in outer[mine.service]:
                continue
            if mine.service in outer[other.service]:
                continue
            inner, wide = (mine, other) if other.contains(mine) else (other, mine)
            problems.append(
                Problem(
                    mine.file,
                    (*mine.at, "prefix"),
                    f'service "{mine.service}": prefix overlaps that of service '
                    f'"{other.service}" ({line(other.file, (*other.at, "prefix"))})',
                    f'if it is meant, write inside = "{wide.service}" '
                    f'in service "{inner.service}"',
                )
            )
    return problems


def _outer(mine: Territory, by_name: Mapping[str, Territory]) -> frozenset[str]:
    """Return the services that *mine* is inside of, near and far."""
    found: set[str] = set()
    at: Territory | None = mine
    while at is not None and at.inside is not None and at.inside not in found:
        found.add(at.inside)
        at = by_name.get(at.inside)
    return frozenset(found)


def _check_inside(
    mine: Territory, by_name: Mapping[str, Territory], line: Line
) -> list[Problem]:
    name = mine.inside or ""
    at = (*mine.at, "inside")
    say = f'service "{mine.service}": '
    other = by_name.get(name)
    if other is None or other is mine:
        known = by_name.keys() - {mine.service}
        what = f'unknown service "{name}"' if other is None else "is inside itself"
        return [Problem(mine.file, at, say + what, did_you_mean(name, known), name)]
    where = line(other.file, (*other.at, "prefix"))
    if not other.contains(mine):
        what = f'its prefix is not below that of service "{name}" ({where})'
        return [Problem(mine.file, at, say + what, value=name)]
    if mine.hosts and other.hosts and not mine.meets(other):
        what = f'it has no host in common with service "{name}" ({where})'
        return [Problem(mine.file, at, say + what, value=name)]
    return []


def spaces(
    territories: Sequence[Territory], entries: Mapping[str, Sequence[Entry]]
) -> list[Space]:
    """Return what the services that name hosts have to themselves.

    Args:
        territories: The services, found free of problems.
        entries: The routes of each service.
    """
    linked = _linked(territories)
    found: dict[tuple[tuple[str, ...], frozenset[str], frozenset[str]], set[str]] = {}
    for host in sorted({host for mine in territories for host in mine.hosts}):
        for prefix, named, unnamed in _on_host(host, territories, linked):
            found.setdefault((prefix, named, unnamed), set()).add(host)
    return [
        Space(
            frozenset(hosts),
            prefix,
            tuple(entry for name in sorted(named) for entry in entries[name]),
            tuple(entry for name in sorted(unnamed) for entry in entries[name]),
        )
        for (prefix, named, unnamed), hosts in found.items()
    ]


def _linked(territories: Sequence[Territory]) -> Mapping[str, int]:
    """Number the services so that those linked by `inside` have one number."""
    number = {mine.service: index for index, mine in enumerate(territories)}
    for mine in territories:
        if mine.inside is not None:
            old, new = number[mine.service], number[mine.inside]
            number = {name: new if at == old else at for name, at in number.items()}
    return number


def _on_host(
    host: str, territories: Sequence[Territory], linked: Mapping[str, int]
) -> list[tuple[tuple[str, ...], frozenset[str], frozenset[str]]]:
    """Return (prefix, services that name *host*, linked ones that name none)."""
    result = []
    active = [mine for mine in territories if host in mine.hosts or not mine.hosts]
    for group in sorted({linked[mine.service] for mine in active if mine.hosts}):
        members = [mine for mine in active if linked[mine.service] == group]
        tops = {
            mine.prefix
            for mine in members
            if not any(
                other.contains(mine) and other.prefix != mine.prefix
                for other in members
            )
        }
        for top in sorted(tops):
            below = [m for m in members if m.prefix[: len(top)] == top]
            named = frozenset(mine.service for mine in below if mine.hosts)
            unnamed = frozenset(mine.service for mine in below if not mine.hosts)
            if named:
                result.append((top, named, unnamed))
    return result

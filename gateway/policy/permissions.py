"""Permissions and roles: the vocabulary, who grants what, closures as bits.

A permission is a name of segments between colons, `orders:read`. Each has a bit, in the
order of names, so that what a principal may do is one integer. A service file declares
and grants `<its name>:*` only; operators' files may also grant what they don't declare,
let roles inherit, and use `*` for one whole segment. A wildcard is expanded here, over
the vocabulary as it stands, so that nothing at request time compares patterns.

Imports: gateway.policy.spec, gateway.policy.suggest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from gateway.policy.spec import KeyPath, PolicyFile, Problem, RoleSpec
from gateway.policy.suggest import did_you_mean, nearest

# All of it may stand in a scope (RFC 6749 section 3.3), where clients find it.
_NAME = re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)*")


class Vocabulary:
    """Every declared permission, and its bit."""

    __slots__ = ("_bits", "_places", "names")

    def __init__(self, places: Mapping[str, str]) -> None:
        """Take every name with its "file:line"."""
        self.names = tuple(sorted(places))
        self._places = dict(places)
        self._bits = {name: 1 << index for index, name in enumerate(self.names)}

    def __contains__(self, name: str) -> bool:
        return name in self._bits

    def bit(self, name: str) -> int:
        """Return the bit of a declared *name*."""
        return self._bits[name]

    def bits(self, names: Iterable[str]) -> int:
        """Return those of *names* that are declared; the others say nothing here."""
        found = 0
        for name in names:
            found |= self._bits.get(name, 0)
        return found

    def names_of(self, bits: int) -> tuple[str, ...]:
        """Return the names of *bits*, sorted."""
        found = []
        while bits:
            lowest = bits & -bits
            found.append(self.names[lowest.bit_length() - 1])
            bits ^= lowest
        return tuple(found)

    def pairs_of(self, bits: int) -> tuple[tuple[str, int], ...]:
        """Return the names of *bits* with the bit of each, sorted."""
        return tuple((name, self._bits[name]) for name in self.names_of(bits))

    def expand(self, pattern: str) -> tuple[str, ...]:
        """Return the names that *pattern* covers, `*` being one whole segment."""
        wanted = pattern.split(":")
        return tuple(name for name in self.names if _covers(wanted, name.split(":")))

    def suggestion(self, name: str) -> str:
        """Return the declared name that *name* may stand for, with its place."""
        near = nearest(name, self.names)
        if near is None:
            return "declare it in [permissions]"
        return f'did you mean "{near}"? ({self._places[near]})'


def _covers(wanted: Sequence[str], name: Sequence[str]) -> bool:
    return len(wanted) == len(name) and all(
        mine in ("*", theirs) for mine, theirs in zip(wanted, name, strict=True)
    )


def fence(file: PolicyFile) -> str | None:
    """Return what a service file's permissions begin with; None for operators."""
    if file.operators or file.service is None:
        return None
    return f"{file.service.name}:"


def read_vocabulary(
    files: Sequence[PolicyFile], line: Callable[[str, KeyPath], str]
) -> tuple[Vocabulary, list[Problem]]:
    """Collect every [permissions]."""
    places: dict[str, str] = {}
    problems: list[Problem] = []
    for file in files:
        own = fence(file)
        for name in file.permissions:
            at: KeyPath = ("permissions", name)
            fault = None
            suggestion = ""
            if "*" in name:
                fault = 'a permission is declared by its full name, without "*"'
            elif not _NAME.fullmatch(name):
                fault = "a permission is letters, digits and _.- between colons"
            elif own is not None and not name.startswith(own):
                fault = f"this file declares {own}* only"
                suggestion = f'did you mean "{own}{name.rpartition(":")[2]}"?'
            elif name in places:
                fault = f"declared twice (first at {places[name]})"
            if fault is not None:
                say = f'permission "{name}": {fault}'
                problems.append(Problem(file.file, at, say, suggestion, name))
            places.setdefault(name, line(file.file, at))
    return Vocabulary(places), problems


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a role inherits another."""

    file: str
    at: KeyPath


def read_roles(
    files: Sequence[PolicyFile], vocabulary: Vocabulary
) -> tuple[Mapping[str, int], list[Problem]]:
    """Return what every role grants in the end, as bits."""
    problems: list[Problem] = []
    bits: dict[str, int] = {}
    parents: dict[str, dict[str, _Origin]] = {}
    for file in files:
        for role in file.roles:
            granted = _granted(file, role, vocabulary, problems)
            bits[role.name] = bits.get(role.name, 0) | granted
            links = parents.setdefault(role.name, {})
            for index, name in enumerate(role.inherits):
                at: KeyPath = (*role.at, "inherits", index)
                links.setdefault(name, _Origin(file.file, at))
            problems += _check_role(file, role)
    for role_name, links in parents.items():
        for name, origin in list(links.items()):
            if name not in bits:
                del links[name]
                say = f'role "{role_name}": inherits unknown role "{name}"'
                hint = did_you_mean(name, bits.keys() - {role_name})
                problems.append(Problem(origin.file, origin.at, say, hint, name))
    for name in _order(parents, problems):
        for parent in parents[name]:
            bits[name] |= bits[parent]
    return bits, problems


def _check_role(file: PolicyFile, role: RoleSpec) -> list[Problem]:
    say = f'role "{role.name}": '
    if not role.name:
        return [Problem(file.file, role.at, "a role has a name")]
    if not role.permissions and not role.inherits:
        return [Problem(file.file, role.at, say + "grants nothing")]
    if role.inherits and not file.operators:
        return [
            Problem(
                file.file,
                (*role.at, "inherits"),
                say + "only operators' files may use inherits",
                "list its permissions, or move it to a file of [roles] in gateway.toml",
            )
        ]
    return []


def _granted(
    file: PolicyFile, role: RoleSpec, vocabulary: Vocabulary, problems: list[Problem]
) -> int:
    own = fence(file)
    bits = 0
    for index, name in enumerate(role.permissions):
        fault = None
        suggestion = ""
        names = vocabulary.expand(name) if "*" in name else (name,)
        if own is not None and "*" in name:
            fault = 'only operators\' files may use "*"'
            mine = [it for it in names if it.startswith(own)]
            suggestion = f"write {', '.join(mine)}" if mine else ""
        elif any("*" in part and part != "*" for part in name.split(":")):
            fault = '"*" stands for a whole segment'
        elif not names:
            fault = "matches no permission"
            suggestion = '"*" stands for one segment: "*:*" is all names with two'
        elif own is not None and not name.startswith(own):
            fault = f"this file grants {own}* only"
            here = f"{own}{name.rpartition(':')[2]}"
            suggestion = (
                f'did you mean "{here}"?'
                if here in vocabulary
                else "another service's are granted in an operators' file"
            )
        elif names == (name,) and name not in vocabulary:
            fault = "unknown permission"
            suggestion = vocabulary.suggestion(name)
        if fault is None:
            bits |= vocabulary.bits(names)
            continue
        at: KeyPath = (*role.at, "permissions", index)
        say = f'role "{role.name}": "{name}": {fault}'
        if fault == "unknown permission":
            say = f'role "{role.name}": {fault} "{name}"'
        problems.append(Problem(file.file, at, say, suggestion, name))
    return bits


def _order(
    parents: Mapping[str, dict[str, _Origin]], problems: list[Problem]
) -> list[str]:
    """Return the roles, parents first; circles are reported and cut."""
    while True:
        try:
            return list(TopologicalSorter(parents).static_order())
        except CycleError as error:
            # graphlib lists each role before the one that inherits it.
            circle: list[str] = error.args[1][::-1]
            origin = parents[circle[0]].pop(circle[1])
            say = f"roles inherit in a circle: {' -> '.join(circle)}"
            problems.append(
                Problem(origin.file, origin.at, say, value=circle[1]),
            )

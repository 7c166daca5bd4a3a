"""The three-valued tree of `require`, and ownership.

A node answers yes, no or unknown, or what it depends on is away (Unavailable). `any`
is yes as soon as one branch is, `all` is no as soon as one is, whatever the others are
and in whatever order they stand (as CEL's `||` and `&&`). Short of that an outage
outweighs an unknown, and both outweigh what is settled:

    all: the least of   no < outage < unknown < yes
    any: the least of  yes < outage < unknown < no

so that `not` turns one into the other. In the end unknown denies and an outage is
raised. What would be a refusal but rests on something absent, such as a claim that the
token doesn't have, is an unknown too: `not` must not make a yes of it.

Whoever drives the steps throws Unavailable into them when a Need can't be answered; a
branch that doesn't depend on it may still decide.

Imports: gateway.model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

from gateway.model import Case, Denial, Reason, Rule, Steps, Unavailable


@dataclass(frozen=True, slots=True)
class Yes:
    """It holds."""


@dataclass(frozen=True, slots=True)
class No:
    """It doesn't hold."""

    denial: Denial


@dataclass(frozen=True, slots=True)
class Unknown:
    """It can't be told. Denies, also under `not`."""

    denial: Denial


Verdict = Yes | No | Unknown
YES = Yes()


class Plain(Protocol):
    """One part of a `require` that needs nothing from outside."""

    def settle(self, case: Case) -> Verdict:
        """Judge *case*."""
        ...


class Waiting(Protocol):
    """One part of a `require` that may have to ask."""

    def evaluate(self, case: Case) -> Steps[Verdict]:
        """Judge *case*.

        Raises:
            Unavailable: What this rests on did not answer.
        """
        ...


Node = Plain | Waiting


Bits = tuple[tuple[str, int], ...]
"""Permissions and their bits."""


def missing(named: Bits, granted: int) -> Denial:
    """Say which of *named* is missing first, and name all that are needed."""
    first = next(name for name, bit in named if not bit & granted)
    needed = tuple(name for name, _ in named)
    return Denial(Reason.PERMISSION_MISSING, first, needed)


@dataclass(frozen=True, slots=True)
class Every:
    """All of these permissions are granted."""

    named: Bits
    bits: int = field(init=False)
    # In a tree a failing branch is an everyday thing: its answers are made before.
    _no: tuple[No, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", _join(self.named))
        no = tuple(No(missing(self.named, ~bit)) for _, bit in self.named)
        object.__setattr__(self, "_no", no)

    def settle(self, case: Case) -> Verdict:
        if not self.bits & ~case.granted:
            return YES
        return next(
            no
            for no, (_, bit) in zip(self._no, self.named, strict=True)
            if not bit & case.granted
        )

    def __str__(self) -> str:
        return " and ".join(name for name, _ in self.named)


@dataclass(frozen=True, slots=True)
class Some:
    """One of these permissions is granted."""

    named: Bits
    bits: int = field(init=False)
    _no: No = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", _join(self.named))
        object.__setattr__(self, "_no", No(missing(self.named, 0)))

    def settle(self, case: Case) -> Verdict:
        return YES if self.bits & case.granted else self._no

    def __str__(self) -> str:
        return " or ".join(name for name, _ in self.named)


def _join(named: Bits) -> int:
    bits = 0
    for _, bit in named:
        bits |= bit
    return bits


_NOT_OWNER = No(Denial(Reason.CONDITION_FAILED, "owner"))
_NOBODY = Unknown(_NOT_OWNER.denial)


@dataclass(frozen=True, slots=True)
class Owner:
    """A path parameter equals, octet by octet, a claim of one issuer's (R86).

    Strings only: 1, "1" and "01" are three different things, a full-width digit is a
    fourth. The parameter is the decoded segment. Python compares strings by code point,
    with no normalisation, which for UTF-8 is the same as comparing octets.
    """

    param: str
    claim: str
    issuer: str  # a subject means nothing without its issuer

    def settle(self, case: Case) -> Verdict:
        principal = case.principal
        if principal.kind == "anonymous" or not principal.issuer:
            return _NOBODY
        if principal.issuer != self.issuer:
            return _NOT_OWNER
        value: object = (
            principal.subject
            if self.claim == "sub"
            else principal.claims.get(self.claim)
        )
        if not isinstance(value, str) or not value:
            return _NOBODY
        return YES if value == case.params[self.param] else _NOT_OWNER

    def __str__(self) -> str:
        return f"@owner ({{{self.param}}} is {self.claim} of {self.issuer})"


@dataclass(frozen=True, slots=True)
class All:
    """Every one of these holds. What needs nothing from outside is judged first."""

    plain: tuple[Plain, ...]
    waiting: tuple[Waiting, ...] = ()

    def settle(self, case: Case) -> Verdict:
        """Judge as far as `plain` goes."""
        verdict: Verdict = YES
        for node in self.plain:
            found = node.settle(case)
            if isinstance(found, No):
                return found
            if verdict is YES:
                verdict = found
        return verdict

    def evaluate(self, case: Case) -> Steps[Verdict]:
        verdict = self.settle(case)
        if isinstance(verdict, No):
            return verdict
        outage: Unavailable | None = None
        for node in self.waiting:
            try:
                found = yield from node.evaluate(case)
            except Unavailable as error:
                outage = outage or error
                continue
            if isinstance(found, No):
                return found
            if verdict is YES:
                verdict = found
        if outage is not None:
            raise outage
        return verdict

    def __str__(self) -> str:
        return " and ".join(_bracketed(node, (Any, Some)) for node in _parts(self))


@dataclass(frozen=True, slots=True)
class Any:
    """One of these holds. What needs nothing from outside is judged first."""

    plain: tuple[Plain, ...]
    waiting: tuple[Waiting, ...] = ()

    def settle(self, case: Case) -> Verdict:
        """Judge as far as `plain` goes."""
        denials: list[Denial] = []
        return self._settle(case, denials) or No(_closest(denials))

    def _settle(self, case: Case, denials: list[Denial]) -> Yes | Unknown | None:
        unknown: Unknown | None = None
        for node in self.plain:
            found = node.settle(case)
            if isinstance(found, Yes):
                return found
            if isinstance(found, No):
                denials.append(found.denial)
            else:
                unknown = unknown or found
        return unknown

    def evaluate(self, case: Case) -> Steps[Verdict]:
        denials: list[Denial] = []
        verdict = self._settle(case, denials)
        if isinstance(verdict, Yes):
            return verdict
        outage: Unavailable | None = None
        for node in self.waiting:
            try:
                found = yield from node.evaluate(case)
            except Unavailable as error:
                outage = outage or error
                continue
            if isinstance(found, Yes):
                return found
            if isinstance(found, No):
                denials.append(found.denial)
            else:
                verdict = verdict or found
        if outage is not None:
            raise outage
        return verdict or No(_closest(denials))

    def __str__(self) -> str:
        return " or ".join(_bracketed(node, (All, Every)) for node in _parts(self))


@dataclass(frozen=True, slots=True)
class Not:
    """This doesn't hold."""

    node: Plain
    name: str = "not"  # for the log, such as "not owner"

    def settle(self, case: Case) -> Verdict:
        return _reversed(self.node.settle(case), self.name)

    def __str__(self) -> str:
        return f"not {_bracketed(self.node, (All, Any))}"


@dataclass(frozen=True, slots=True)
class NotWaiting:
    """This doesn't hold, and has to be asked for."""

    node: Waiting
    name: str = "not"

    def evaluate(self, case: Case) -> Steps[Verdict]:
        return _reversed((yield from self.node.evaluate(case)), self.name)

    def __str__(self) -> str:
        return f"not {_bracketed(self.node, (All, Any))}"


def _reversed(found: Verdict, name: str) -> Verdict:
    if isinstance(found, No):
        return YES
    if isinstance(found, Unknown):
        return found
    return No(Denial(Reason.CONDITION_FAILED, name))


def _parts(node: All | Any) -> tuple[Node, ...]:
    return (*node.plain, *node.waiting)


def _bracketed(node: Node, kinds: tuple[type, ...]) -> str:
    is_one = isinstance(node, Every | Some) and len(node.named) == 1
    return f"({node})" if isinstance(node, kinds) and not is_one else str(node)


def _closest(denials: Sequence[Denial]) -> Denial:
    """Return the denial of the branch that came furthest.

    Where a condition failed, the permissions before it were there, so that is the news.
    Otherwise every permission that would have helped is named.
    """
    for denial in denials:
        if denial.reason is not Reason.PERMISSION_MISSING:
            return denial
    needed = dict.fromkeys(name for denial in denials for name in denial.needed)
    return Denial(Reason.PERMISSION_MISSING, denials[0].at, tuple(needed))


def permission(name: str, bit: int) -> Every:
    """Return the node of one permission."""
    return Every(((name, bit),))


def all_of(nodes: Iterable[Node]) -> Node:
    """Join *nodes* by "and": permissions first, as one comparison of bits."""
    named: dict[str, int] = {}
    rest: list[Node] = []
    for node in nodes:
        for part in _parts(node) if isinstance(node, All) else (node,):
            if isinstance(part, Every):
                named.update(part.named)
            else:
                rest.append(part)
    if named:
        rest.insert(0, Every(tuple(named.items())))
    return rest[0] if len(rest) == 1 else All(*_sorted(rest))


def any_of(nodes: Iterable[Node]) -> Node:
    """Join *nodes* by "or": permissions first, as one comparison of bits."""
    named: dict[str, int] = {}
    rest: list[Node] = []
    for node in nodes:
        for part in _parts(node) if isinstance(node, Any) else (node,):
            if isinstance(part, Some) or (
                isinstance(part, Every) and len(part.named) == 1
            ):
                named.update(part.named)
            else:
                rest.append(part)
    if len(named) == 1:
        rest.insert(0, permission(*next(iter(named.items()))))
    elif named:
        rest.insert(0, Some(tuple(named.items())))
    return rest[0] if len(rest) == 1 else Any(*_sorted(rest))


def not_of(node: Node, name: str = "not") -> Node:
    """Return the opposite of *node*; a denial calls it *name*."""
    if _is_plain(node):
        return Not(node, name)
    assert _is_waiting(node)
    return NotWaiting(node, name)


def _is_plain(node: Node) -> TypeGuard[Plain]:
    if isinstance(node, All | Any):
        return not node.waiting
    return hasattr(node, "settle")


def _is_waiting(node: Node) -> TypeGuard[Waiting]:
    return not _is_plain(node)


def _sorted(nodes: Sequence[Node]) -> tuple[tuple[Plain, ...], tuple[Waiting, ...]]:
    return (
        tuple(node for node in nodes if _is_plain(node)),
        tuple(node for node in nodes if _is_waiting(node)),
    )


@dataclass(frozen=True, slots=True)
class _Required:
    """The rule of a route: *node*, with what it leaves open read as a refusal."""

    node: Plain

    def judge(self, case: Case) -> Steps[Denial | None]:
        yield from ()
        verdict = self.node.settle(case)
        return None if isinstance(verdict, Yes) else verdict.denial


@dataclass(frozen=True, slots=True)
class _RequiredWaiting:
    node: Waiting

    def judge(self, case: Case) -> Steps[Denial | None]:
        verdict = yield from self.node.evaluate(case)
        return None if isinstance(verdict, Yes) else verdict.denial


def rule(node: Node) -> Rule:
    """Return the rule of a route that requires *node*."""
    if _is_plain(node):
        return _Required(node)
    assert _is_waiting(node)
    return _RequiredWaiting(node)

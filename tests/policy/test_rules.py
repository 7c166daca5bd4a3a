"""gateway.policy.rules: three values and an outage, in any order; who owns what."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import (
    ANONYMOUS,
    Case,
    Denial,
    Principal,
    Reason,
    RevocationNeeded,
    Route,
    Steps,
    Unavailable,
)
from gateway.policy.rules import (
    YES,
    No,
    Node,
    Owner,
    Unknown,
    Verdict,
    all_of,
    any_of,
    not_of,
    permission,
    rule,
)
from tests.policy.making import end, head, principal

Outcome = Literal["yes", "no", "unknown", "outage"]

MAYBE = Unknown(Denial(Reason.CONDITION_UNKNOWN, "maybe"))
READ, WRITE, STAFF = permission("read", 1), permission("write", 2), permission("st", 4)


def case(
    granted: int = 0, who: Principal = ANONYMOUS, params: dict[str, str] | None = None
) -> Case:
    route = Route("r", "s", "u", "require")
    return Case(head(), route, params or {}, who, granted)


@dataclass(frozen=True, slots=True)
class Told:
    """Knows its verdict, or raises."""

    verdict: Verdict | None

    def evaluate(self, case: Case) -> Steps[Verdict]:
        yield from ()
        if self.verdict is None:
            raise Unavailable("authorizer")
        return self.verdict


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks for its verdict."""

    answer: Outcome  # what the outside says; "outage": it doesn't

    def evaluate(self, case: Case) -> Steps[Verdict]:
        told: str = yield RevocationNeeded(ANONYMOUS)
        assert told == "asked"
        return VERDICTS[self.answer]


@dataclass(frozen=True, slots=True)
class Settled:
    """Needs nothing from outside."""

    verdict: Verdict

    def settle(self, case: Case) -> Verdict:
        return self.verdict


NAY = No(Denial(Reason.CONDITION_FAILED, "nay"))
VERDICTS: dict[Outcome, Verdict] = {"yes": YES, "no": NAY, "unknown": MAYBE}
LEAVES: list[tuple[Node, Outcome]] = [
    (permission("have", 1), "yes"),
    (permission("lack", 2), "no"),
    (Settled(YES), "yes"),
    (Settled(NAY), "no"),
    (Settled(MAYBE), "unknown"),
    (Told(YES), "yes"),
    (Told(NAY), "no"),
    (Told(MAYBE), "unknown"),
    (Told(None), "outage"),
    (Asking("yes"), "yes"),
    (Asking("no"), "no"),
    (Asking("unknown"), "unknown"),
]


def outcome(node: Node) -> Outcome:
    """Judge *node* for a caller that holds permission 1, answering what it asks."""
    steps = rule(node).judge(case(granted=1))
    try:
        next(steps)
        while True:
            steps.send("asked")
    except StopIteration as stop:
        return _outcome(stop.value)
    except Unavailable:
        return "outage"


def _outcome(denial: Denial | None) -> Outcome:
    if denial is None:
        return "yes"
    return "unknown" if denial.reason is Reason.CONDITION_UNKNOWN else "no"


# --- a tree beside the value it must have

Tree = tuple[str, Any]
ALL: list[Outcome] = ["no", "outage", "unknown", "yes"]
ANY: list[Outcome] = ["yes", "outage", "unknown", "no"]
NOT: dict[Outcome, Outcome] = {
    "yes": "no",
    "no": "yes",
    "unknown": "unknown",
    "outage": "outage",
}

trees = st.recursive(
    st.tuples(st.just("leaf"), st.integers(0, len(LEAVES) - 1)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1)),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=12,
)


def grow(tree: Tree) -> Node:
    kind, inner = tree
    match kind:
        case "leaf":
            return LEAVES[inner][0]
        case "not":
            return not_of(grow(inner))
        case "all":
            return all_of([grow(it) for it in inner])
        case _:
            return any_of([grow(it) for it in inner])


def reference(tree: Tree) -> Outcome:
    kind, inner = tree
    match kind:
        case "leaf":
            return LEAVES[inner][1]
        case "not":
            return NOT[reference(inner)]
        case "all":
            return min((reference(it) for it in inner), key=ALL.index)
        case _:
            return min((reference(it) for it in inner), key=ANY.index)


def shuffled(tree: Tree, random_: random.Random) -> Tree:
    kind, inner = tree
    if kind == "leaf":
        return tree
    if kind == "not":
        return kind, shuffled(inner, random_)
    mixed = [shuffled(it, random_) for it in inner]
    random_.shuffle(mixed)
    return kind, mixed


@settings(deadline=None, max_examples=300)
@given(trees, st.randoms())
def test_a_tree_has_the_value_of_the_truth_table_in_any_order(
    tree: Tree, random_: random.Random
) -> None:
    """The order of branches never matters, and neither does who has to ask."""
    expected = reference(tree)

    assert outcome(grow(tree)) == expected
    assert outcome(grow(shuffled(tree, random_))) == expected


@settings(deadline=None, max_examples=100)
@given(st.lists(trees, min_size=1, max_size=4))
def test_not_turns_any_into_all(inner: list[Tree]) -> None:
    """`not any(a, b)` is `all(not a, not b)`, for outages and unknowns as well."""
    one = not_of(any_of([grow(it) for it in inner]))
    two = all_of([not_of(grow(it)) for it in inner])

    assert outcome(one) == outcome(two)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("join", "other", "said"),
    [
        (any_of, Told(YES), "yes"),
        (any_of, Told(NAY), "outage"),
        (any_of, Told(MAYBE), "outage"),
        (all_of, Told(NAY), "no"),
        (all_of, Told(YES), "outage"),
        (all_of, Told(MAYBE), "outage"),
    ],
)
def test_an_unanswered_need_counts_only_where_nothing_else_decides(
    first: bool, join: Any, other: Node, said: Outcome
) -> None:
    """The driver throws Unavailable in; a branch that can decide without it does."""
    nodes = [Asking("yes"), other]
    steps = rule(join(nodes if first else nodes[::-1])).judge(case())
    found: Outcome
    try:
        next(steps)
        steps.throw(Unavailable("authorizer"))
    except StopIteration as stop:
        found = _outcome(stop.value)
    except Unavailable:
        found = "outage"

    assert found == said


def test_no_branch_is_asked_once_the_matter_is_decided() -> None:
    """Local before remote: a permission that decides saves the question."""
    assert end(rule(any_of([Asking("no"), READ])).judge(case(1))) is None
    assert end(rule(all_of([Asking("yes"), READ])).judge(case(0))) is not None


@pytest.mark.parametrize(
    ("node", "granted", "said", "needed"),
    [
        (READ, 0, "permission.missing:read", ("read",)),
        (all_of([READ, WRITE]), 0, "permission.missing:read", ("read", "write")),
        (all_of([READ, WRITE]), 1, "permission.missing:write", ("read", "write")),
        (any_of([WRITE, READ]), 0, "permission.missing:write", ("write", "read")),
        (
            any_of([STAFF, all_of([READ, WRITE])]),
            1,
            "permission.missing:st",
            ("st", "read", "write"),
        ),
        # The branch that came furthest is the news, wherever it stands.
        (any_of([STAFF, all_of([READ, Settled(NAY)])]), 1, "condition.failed:nay", ()),
        (any_of([all_of([READ, Settled(NAY)]), STAFF]), 1, "condition.failed:nay", ()),
        (any_of([STAFF, Told(NAY)]), 0, "condition.failed:nay", ()),
        (not_of(Settled(YES), "not owner"), 0, "condition.failed:not owner", ()),
        (not_of(Settled(MAYBE)), 0, "condition.unknown:maybe", ()),
        (not_of(Told(YES), "not x"), 0, "condition.failed:not x", ()),
    ],
)
def test_a_denial_names_what_was_missing_and_what_would_help(
    node: Node, granted: int, said: str, needed: tuple[str, ...]
) -> None:
    """First the missing permission, then all that the challenge may ask for."""
    denial = end(rule(node).judge(case(granted)))

    assert denial is not None
    assert str(denial) == said
    assert denial.needed == needed


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (all_of([READ, WRITE]), "read and write"),
        (any_of([READ, WRITE]), "read or write"),
        (any_of([READ, READ]), "read"),
        (any_of([READ, any_of([WRITE, STAFF])]), "read or write or st"),
        (all_of([READ, all_of([WRITE, STAFF])]), "read and write and st"),
        (any_of([STAFF, all_of([READ, WRITE])]), "st or (read and write)"),
        (all_of([STAFF, any_of([READ, WRITE])]), "st and (read or write)"),
        (
            all_of([Owner("id", "sub", "corp"), STAFF]),
            "st and @owner ({id} is sub of corp)",
        ),
        (not_of(all_of([Settled(YES), Settled(YES)])), None),
        (
            not_of(Owner("id", "uid", "corp")),
            "not @owner ({id} is uid of corp)",
        ),
    ],
)
def test_a_tree_reads_as_it_is_judged(node: Node, text: str | None) -> None:
    """`explain` shows the whole condition in words."""
    assert text is None or str(node) == text
    assert not str(not_of(Told(YES))).startswith("not (")
    assert str(not_of(any_of([Told(YES), Told(NAY)]))).startswith("not (")


# --- ownership

OWNER = Owner("id", "sub", "corp")


@pytest.mark.parametrize(
    ("segment", "subject", "owns"),
    [
        ("alice", "alice", True),
        ("al\u00efce", "al\u00efce", True),
        ("ALICE", "alice", False),
        ("alice ", "alice", False),
        (" alice", "alice", False),
        ("alice;x", "alice", False),
        ("alic", "alice", False),
        ("alicee", "alice", False),
        ("alice\0", "alice", False),
        ("%61lice", "alice", False),
        ("01", "1", False),
        ("1.0", "1", False),
        ("1e0", "1", False),
        ("+1", "1", False),
        ("\uff11", "1", False),
        ("al\u0069\u0308ce", "al\u00efce", False),  # NFD against NFC
        ("\ufb01x", "fix", False),  # a ligature
        ("\u212aelvin", "Kelvin", False),  # the Kelvin sign
        ("stra\u00dfe", "strasse", False),
        ("me", "alice", False),
        ("*", "alice", False),
        ("alice,bob", "alice", False),
    ],
)
def test_an_owner_is_equal_octet_by_octet(
    segment: str, subject: str, owns: bool
) -> None:
    """No case folding, no numbers, no Unicode normalisation: the strings are equal."""
    found = OWNER.settle(case(who=principal(subject), params={"id": segment}))

    assert (found is YES) is owns


@pytest.mark.parametrize(
    ("who", "verdict"),
    [
        (principal("7"), YES),
        (principal("7", kind="service"), YES),
        (principal("8"), No),
        (principal("7", issuer="partner"), No),
        (ANONYMOUS, Unknown),
        (principal(""), Unknown),
    ],
)
def test_an_owner_is_of_the_named_issuer(who: Principal, verdict: Any) -> None:
    """Another issuer's subject of the same name is somebody else."""
    found = OWNER.settle(case(who=who, params={"id": "7"}))

    assert found is verdict or isinstance(found, verdict)


@pytest.mark.parametrize("issuer", ["", "corp"])
def test_an_anonymous_caller_owns_nothing_nor_is_it_known_not_to(issuer: str) -> None:
    """Not even where segment, subject and issuer agree; nor does `not` let it pass."""
    nobody = Principal("anonymous", issuer, "x")
    here = case(who=nobody, params={"id": "x"})
    owner = Owner("id", "sub", issuer)

    assert isinstance(owner.settle(here), Unknown)
    assert end(rule(not_of(owner)).judge(here)) is not None


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"uid": None},
        {"uid": 7},
        {"uid": 7.0},
        {"uid": True},
        {"uid": ["7"]},
        {"uid": {"7": "7"}},
        {"uid": ""},
        {"UID": "7"},
    ],
    ids=str,
)
def test_a_claim_that_is_absent_or_no_string_never_means_yes(
    claims: dict[str, Any],
) -> None:
    """It fails the condition, and fails its opposite too."""
    who = principal("7", claims=MappingProxyType(claims))
    here = case(who=who, params={"id": "7"})
    owner = Owner("id", "uid", "corp")

    denial = end(rule(owner).judge(here))
    assert denial is not None
    assert str(denial) == "condition.failed:owner"
    assert end(rule(not_of(owner)).judge(here)) is not None


def test_a_claim_other_than_the_subject_may_name_the_owner() -> None:
    """`owner = { param = "id", claim = "uid" }`."""
    owner = Owner("id", "uid", "corp")
    who = principal("alice", claims={"uid": "7"})

    assert owner.settle(case(who=who, params={"id": "7"})) is YES
    assert owner.settle(case(who=who, params={"id": "alice"})) is not YES


def test_four_eyes_is_the_opposite_of_ownership() -> None:
    """`{ not = "@owner" }` lets everyone pass but the owner."""
    four_eyes = rule(not_of(OWNER, "not owner"))
    mine = end(four_eyes.judge(case(who=principal("7"), params={"id": "7"})))

    assert str(mine) == "condition.failed:not owner"
    assert end(four_eyes.judge(case(who=principal("8"), params={"id": "7"}))) is None

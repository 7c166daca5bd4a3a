"""gateway.policy.grants: roles, scope, and what is made of both."""

from __future__ import annotations

import pytest

from gateway.model import ANONYMOUS, Principal
from gateway.policy.grants import MAX_REMEMBERED, Grants, IssuerGrants, ScopeUse
from gateway.policy.permissions import Vocabulary
from tests.policy.making import principal

VOCABULARY = Vocabulary({"read": "f:1", "staff": "f:2", "write": "f:3"})
ROLES = {
    "customer": VOCABULARY.bits(["read", "write"]),
    "support": VOCABULARY.bits(["staff"]),
}


def grants(user: ScopeUse = "ignore", service: ScopeUse = "ignore") -> Grants:
    may_assert = frozenset({"customer", "ghost"})
    corp = IssuerGrants("corp", may_assert, user, service)
    return Grants(VOCABULARY, ROLES, {"corp": corp})


def names(of: Grants, who: Principal) -> str:
    return " ".join(VOCABULARY.names_of(of.granted(who)))


@pytest.mark.parametrize(
    ("use", "roles", "scope", "said"),
    [
        ("limit", ["customer"], ["read"], "read"),
        ("limit", ["customer"], ["read", "staff"], "read"),
        ("limit", ["customer"], [], ""),
        ("limit", [], ["read"], ""),
        ("grant", [], ["read", "staff"], "read staff"),
        ("grant", ["customer"], ["staff"], "staff"),
        ("grant", ["customer"], [], ""),
        ("grant", [], ["openid", "READ", "read "], ""),
        ("ignore", ["customer"], [], "read write"),
        ("ignore", ["customer"], ["staff"], "read write"),
        ("ignore", [], ["read"], ""),
    ],
)
def test_scope_limits_or_grants_or_is_ignored(
    use: ScopeUse, roles: list[str], scope: list[str], said: str
) -> None:
    """Each issuer says for users and for services what scope is worth."""
    user = principal(roles=roles, scope=scope)
    machine = principal(kind="service", roles=roles, scope=scope)

    assert names(grants(user=use), user) == said
    assert names(grants(service=use), machine) == said


@pytest.mark.parametrize(
    "roles",
    [
        ["admin "],
        [" customer"],
        ["CUSTOMER"],
        ["not-customer"],
        ["customer,ghost"],
        ["user,admin"],
        ["custom"],
        ["support"],  # known, but not this issuer's to assert
        ["ghost"],  # its to assert, but nobody says what it grants
        [],
    ],
)
def test_roles_are_exact_and_their_issuers_to_assert(roles: list[str]) -> None:
    """No substring, prefix or case folding makes a role of something else (R85)."""
    assert names(grants(), principal(roles=roles)) == ""


@pytest.mark.parametrize(
    "who",
    [
        ANONYMOUS,
        principal(roles=["customer"], issuer="other"),
        principal(roles=["customer"], kind="anonymous"),
        principal(roles=["customer"], kind="api_key", issuer="api_keys"),
    ],
)
def test_whom_no_rule_names_is_granted_nothing(who: Principal) -> None:
    """An issuer or a kind of principal that is not configured holds no permission."""
    assert grants().granted(who) == 0


def test_an_issuer_that_may_assert_no_role_grants_none() -> None:
    """An empty `allow` is not "all"."""
    corp = IssuerGrants("corp", frozenset(), "ignore", "ignore")
    of = Grants(VOCABULARY, ROLES, {"corp": corp})

    assert of.granted(principal(roles=["customer"])) == 0


def test_an_answer_is_remembered_for_what_it_rests_on() -> None:
    """Whoever has the same issuer, kind, roles and scope gets the same; no one else."""
    of = grants(user="limit")

    for _ in range(2):
        assert names(of, principal(roles=["customer"], scope=["read"])) == "read"
        assert names(of, principal(roles=["customer"], scope=["write"])) == "write"
        assert names(of, principal(roles=["ghost"], scope=["read"])) == ""
        machine = principal(kind="service", roles=["customer"], scope=["read"])
        assert names(of, machine) == "read write"
        stranger = principal(roles=["customer"], scope=["read"], issuer="other")
        assert names(of, stranger) == ""


def test_what_is_remembered_is_bounded() -> None:
    """However many combinations callers bring, the memory ends."""
    of = grants(user="limit")
    for number in range(2 * MAX_REMEMBERED + 5):
        of.granted(principal(roles=["customer"], scope=["read", f"s{number}"]))

    assert len(of._memo) <= MAX_REMEMBERED
    assert names(of, principal(roles=["customer"], scope=["read"])) == "read"


@pytest.mark.parametrize(
    ("use", "found"), [("limit", "write"), ("grant", "write staff"), ("ignore", "both")]
)
def test_a_key_is_granted_what_its_issuer_says(use: ScopeUse, found: str) -> None:
    """Of its own issuer, by the rule for whoever is no person."""
    said = {"both": "read write", "write staff": "staff write"}.get(found, found)
    roles = frozenset({"customer"})
    keys = {"api_keys": IssuerGrants("api_keys", roles, "ignore", use)}
    made = Grants(VOCABULARY, ROLES, keys)
    scope = ["f:2", "f:3", "staff", "write"]
    who = principal(issuer="api_keys", kind="api_key", roles=["customer"], scope=scope)
    nobody = principal(issuer="api_keys", kind="api_key")
    assert names(made, who) == said
    assert names(made, nobody) == ""

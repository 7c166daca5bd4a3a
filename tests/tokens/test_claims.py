"""gateway.tokens.claims: what a trusted issuer can say, and how it has to say it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Binding, Denial, Fingerprints, Principal, Reason
from gateway.tokens.claims import (
    MAX_SHARED,
    IssuerRules,
    principal_from,
    read_again,
)
from gateway.tokens.confirmation import BindingRules
from gateway.tokens.fingerprints import fingerprint
from tests import vectors

NOW = 1_000_000.0
ISS = "https://id.example/"
DIGEST = "sha256:content"
RULES = IssuerRules(
    name="corp",
    issuer=ISS,
    algorithms=frozenset({"ES256"}),
    max_lifetime=3_600.0,
    role_claim=("roles",),
    role_allow=frozenset({"admin", "customer", "user,admin", "ünïcode"}),
)
CLAIMS: dict[str, Any] = {
    "iss": ISS,
    "aud": "shop",
    "sub": "alice",
    "exp": NOW + 600,
    "jti": "t-1",
}
MISSING = object()


def read(changes: dict[str, Any], **rules: Any) -> Principal | Denial:
    claims = {**CLAIMS, **changes}
    claims = {name: value for name, value in claims.items() if value is not MISSING}
    return principal_from(claims, dataclasses.replace(RULES, **rules), NOW, DIGEST)


def principal(changes: dict[str, Any] | None = None, **rules: Any) -> Principal:
    found = read(changes or {}, **rules)
    assert isinstance(found, Principal), found
    return found


def test_a_token_names_its_principal() -> None:
    """All of it comes from the verified payload, and nothing from elsewhere."""
    found = principal(
        {
            "aud": ["shop", "orders"],
            "iat": NOW - 60,
            "nbf": NOW - 60.5,
            "auth_time": NOW - 90,
            "azp": "web",
            "sid": "s-1",
            "acr": "2",
            "amr": ["pwd", "otp"],
            "roles": ["customer", "other"],
            "scope": "orders:read  orders:write",
            "extra": {"deep": [1]},
        }
    )

    assert (found.kind, found.issuer, found.subject) == ("user", "corp", "alice")
    assert (found.client_id, found.token_id, found.session_id) == ("web", "t-1", "s-1")
    assert (found.issued_at, found.not_before) == (NOW - 60, NOW - 60.5)
    assert (found.expires_at, found.leeway) == (NOW + 600, 30.0)
    assert (found.auth_time, found.acr, found.amr) == (NOW - 90, "2", ("pwd", "otp"))
    assert found.audience == {"shop", "orders"}
    assert found.roles == {"customer"}
    assert found.scope == {"orders:read", "orders:write"}
    assert found.claims["extra"] == {"deep": [1]}
    assert found.fingerprints == Fingerprints(
        token=fingerprint("token", ISS, "t-1"),
        session=fingerprint("session", ISS, "s-1"),
        subject=fingerprint("subject", ISS, "alice"),
        client=fingerprint("client", ISS, "web"),
        issuer=fingerprint("issuer", ISS, ""),
    )


def test_what_is_optional_may_be_absent() -> None:
    """exp, iss, aud and sub are enough."""
    found = principal({"jti": MISSING})

    assert found.token_id == DIGEST
    assert found.fingerprints is not None
    assert found.fingerprints.token == fingerprint("token", ISS, DIGEST)
    assert (found.client_id, found.session_id, found.issued_at) == (None, None, None)
    assert (found.roles, found.scope, found.amr) == (frozenset(), frozenset(), ())


def test_verified_claims_can_not_be_changed() -> None:
    """They are shared by all requests with this token."""
    with pytest.raises(TypeError):
        principal().claims["sub"] = "admin"  # type: ignore[index]


def test_claims_are_handed_on_as_they_were() -> None:
    """Sharing equal texts between tokens changes no value."""
    odd = {
        "long": ["x" * (MAX_SHARED + 1)],
        "deep": {"a": [{"b": None}, 1, True, 1.5]},
        "scope": "a " * MAX_SHARED,
    }

    assert principal(odd).claims == {**CLAIMS, **odd}


BAD_DATES = [
    "9999999999",
    "９９９",
    "9_999",
    True,
    None,
    [NOW],
    {},
    10**400,
    10**30,
    -(10**30),
    float("inf"),
    float("-inf"),
    float("nan"),
]
BAD_NAMES = [
    "",
    1,
    True,
    None,
    ["alice"],
    {"a": 1},
    "x" * 256,
    "a\r\nb",
    "a\0",
    "a\ud800",
    "a\u202eb",
    "a\u2028",
    "e\u0301",
]


def values(*each: Any) -> tuple[Any, ...]:
    return each


BAD: list[tuple[str, Any, str]] = [
    ("exp", MISSING, "exp"),
    *(
        (name, value, name)
        for name in ("exp", "iat", "nbf", "auth_time")
        for value in BAD_DATES
    ),
    ("sub", MISSING, "sub"),
    *(
        (name, value, name)
        for name in ("sub", "sid", "client_id", "azp", "appid", "acr", "jti")
        for value in BAD_NAMES
    ),
    ("jti", "x" * 129, "jti"),
    ("aud", MISSING, "aud"),
    *(
        ("aud", value, "aud")
        for value in values("", None, True, 1, {}, [], [1], ["shop", None], ["a\n"])
    ),
    *(("amr", value, "amr") for value in values(None, 1, {}, [1], [""], "")),
    *(
        ("roles", value, "roles")
        for value in values(
            None,
            True,
            1,
            "admin",
            "",
            {"admin": True},
            [["admin"]],
            ["admin", 1],
            [None],
        )
    ),
    # Bound to a key, and there is no URL to compare proofs with (R80).
    *(("cnf", value, "cnf") for value in values(None, {}, {"jkt": "a"}, "x")),
    *(
        ("scope", value, "scope")
        for value in values(
            None,
            True,
            1,
            {},
            ["a b"],
            [""],
            [1],
            'a"b',
            "a\tb",
            "å",
            "a\\b",
            "\n" * (MAX_SHARED + 1),
        )
    ),
]


@pytest.mark.parametrize(("claim", "value", "at"), BAD)
def test_refuses(claim: str, value: Any, at: str) -> None:
    """A claim that is there has to be what it should be; the denial names it only."""
    assert read({claim: value}) == Denial(Reason.CLAIM_INVALID, at)


def test_what_a_token_is_bound_to_is_its_principals() -> None:
    """What the issuer's rules know; the rest of them is gateway.tokens.confirmation."""
    digest = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
    binding = BindingRules(dpop=True, address_claim="ip")

    found = principal({"cnf": {"jkt": digest}}, binding=binding)

    assert found.binding == Binding(key=digest)
    assert principal({"ip": "192.0.2.1"}).binding is None
    wrong = read({"ip": "somewhere"}, binding=binding)
    assert wrong == Denial(Reason.CLAIM_INVALID, "address")


def test_an_issuer_may_have_to_bind_its_tokens() -> None:
    """To one of several things; a token of another kind is none of its."""
    digest = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
    binding = BindingRules(dpop=True, required=frozenset({"mtls", "ip"}))
    missing = Denial(Reason.BINDING_MISSING)

    assert read({}, binding=binding) == missing
    assert read({"cnf": {"jkt": digest}}, binding=binding) == missing
    both = {"cnf": {"jkt": digest, "x5t#S256": digest}}
    assert principal(both, binding=binding).binding == Binding(digest, digest)


def test_claims_are_read_again_by_other_rules() -> None:
    """What the issuer may say; who it is stays, and so does what it is bound to."""
    known = principal({"roles": ["admin", "auditor"], "scope": "a b"})
    again = dataclasses.replace(
        RULES, role_allow=frozenset({"auditor"}), scope_claim="scp"
    )
    found = read_again(known, again)
    assert isinstance(found, Principal)
    assert (known.roles, found.roles) == (frozenset({"admin"}), frozenset({"auditor"}))
    assert (known.scope, found.scope) == (frozenset({"a", "b"}), frozenset())
    assert (found.subject, found.token_id) == (known.subject, known.token_id)

    other = dataclasses.replace(RULES, issuer="https://id.example")
    assert read_again(known, other) == Denial(Reason.ISSUER_UNTRUSTED)
    unnamed = dataclasses.replace(known, claims={"roles": ["admin"]})
    assert isinstance(read_again(unnamed, other), Principal)
    wrong = dataclasses.replace(RULES, role_claim=("iss",))
    assert read_again(known, wrong) == Denial(Reason.CLAIM_INVALID, "roles")


def test_a_token_may_have_to_be_bound_from_now_on() -> None:
    """To one of several things, as when it is read for the first time."""
    rules = dataclasses.replace(
        RULES, binding=BindingRules(required=frozenset({"mtls", "ip"}))
    )
    for binding in (None, Binding(key="k")):
        known = dataclasses.replace(principal(), binding=binding)
        assert read_again(known, rules) == Denial(Reason.BINDING_MISSING)
    bound = dataclasses.replace(principal(), binding=Binding("c"))
    assert isinstance(read_again(bound, rules), Principal)


@pytest.mark.parametrize(
    "issuer", ["https://id.example", ISS + " ", ISS.upper(), [ISS], None, MISSING]
)
def test_the_verified_issuer_is_the_one_whose_key_it_was(issuer: Any) -> None:
    """Octet for octet; a prefix is somebody else."""
    assert read({"iss": issuer}) == Denial(Reason.ISSUER_UNTRUSTED)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"exp": NOW + 3_600}, True),
        ({"exp": NOW + 3_630}, True),
        ({"exp": NOW + 3_631}, False),
        ({"exp": NOW + 3_600, "iat": NOW}, True),
        ({"exp": NOW + 3_600, "iat": NOW - 1}, False),
        ({"exp": NOW + 3_630, "iat": NOW + 30}, True),
        ({"exp": 2**53}, False),
        ({"exp": NOW - 9_000}, True),  # long expired: that is for accept() to say
    ],
)
def test_a_token_lives_no_longer_than_its_issuer_may_say(
    changes: dict[str, Any], fits: bool
) -> None:
    """max_lifetime bounds how long a revocation must be kept; clocks may differ."""
    found = read(changes)

    assert fits == isinstance(found, Principal)
    assert fits or found == Denial(Reason.LIFETIME_TOO_LONG, "exp")


@pytest.mark.parametrize(
    ("claims", "token_id"),
    [
        ({"uti": "u-1"}, "u-1"),
        ({"uti": "u-1", "jti": MISSING}, "u-1"),
        ({}, DIGEST),
    ],
)
def test_the_token_id_is_the_claim_that_was_configured(
    claims: dict[str, Any], token_id: str
) -> None:
    """Or the digest of the verified content, and never some other claim."""
    assert principal(claims, token_id="uti").token_id == token_id


@pytest.mark.parametrize("value", BAD_NAMES)
def test_a_configured_token_id_has_to_be_one(value: Any) -> None:
    """To fall back to the digest would revoke another thing than was meant."""
    assert read({"uti": value}, token_id="uti") == Denial(Reason.CLAIM_INVALID, "uti")


@pytest.mark.parametrize(
    ("claims", "client_id", "kind"),
    [
        ({}, None, "user"),
        ({"client_id": "a", "azp": "b", "appid": "c"}, "a", "user"),
        ({"azp": "b", "appid": "c"}, "b", "user"),
        ({"appid": "c"}, "c", "user"),
        ({"client_id": "alice"}, "alice", "service"),
        ({"client_id": "web", "azp": "alice"}, "web", "user"),
        ({"azp": "m2m", "sub": "m2m@clients"}, "m2m", "service"),
        ({"azp": "m2m", "sub": "other@clients"}, "m2m", "user"),
        ({"sub": "m2m@clients"}, None, "user"),
        ({"azp": "Alice"}, "Alice", "user"),
    ],
)
def test_a_service_is_whoever_is_its_own_client(
    claims: dict[str, Any], client_id: str | None, kind: str
) -> None:
    """RFC 9068 section 2.2; Auth0 writes <client>@clients."""
    found = principal(claims)

    assert (found.client_id, found.kind) == (client_id, kind)


@pytest.mark.parametrize(
    ("roles", "survive"),
    [
        (["admin"], {"admin"}),
        (["admin", "admin", "customer"], {"admin", "customer"}),
        (["admin "], set()),
        ([" admin"], set()),
        (["ADMIN"], set()),
        (["not-admin"], set()),
        (["admi"], set()),
        (["аdmin"], set()),  # a Cyrillic letter
        (["admin,customer"], set()),
        (["user,admin"], {"user,admin"}),
        (["*"], set()),
        ([""], set()),
        ([], set()),
        (MISSING, set()),
        (["u\u0308ni\u0308code"], set()),
    ],
)
def test_roles_are_exact_strings(roles: Any, survive: set[str]) -> None:
    """No part, no folding, no trimming: only those the issuer may assert (R85)."""
    assert principal({"roles": roles}).roles == survive


@pytest.mark.parametrize(
    ("value", "survive"),
    [
        ("admin customer", {"admin", "customer"}),
        ("admin  customer ", {"admin", "customer"}),
        ("admin\tcustomer", set()),
        ("", set()),
        (["admin customer"], set()),
        (["admin"], {"admin"}),
    ],
)
def test_a_string_of_roles_is_split_where_that_is_configured(
    value: Any, survive: set[str]
) -> None:
    """At spaces, and not inside the members of a list."""
    assert principal({"roles": value}, role_split=True).roles == survive


@pytest.mark.parametrize(
    ("path", "claims", "survive"),
    [
        (("realm_access", "roles"), {"realm_access": {"roles": ["admin"]}}, {"admin"}),
        (("realm_access", "roles"), {"realm_access": {}}, set()),
        (("realm_access", "roles"), {}, set()),
        (("realm_access.roles",), {"realm_access": {"roles": ["admin"]}}, set()),
        (("https://x/roles",), {"https://x/roles": ["admin"]}, {"admin"}),
        (("a.b",), {"a.b": ["admin"]}, {"admin"}),
        ((), {"roles": ["admin"]}, set()),
    ],
)
def test_a_path_leads_to_the_roles(
    path: tuple[str, ...], claims: dict[str, Any], survive: set[str]
) -> None:
    """One element is the claim's name as it stands, dots and all."""
    assert principal(claims, role_claim=path).roles == survive


@pytest.mark.parametrize("wrong", [None, [], "roles", 1])
def test_a_path_through_something_else_is_refused(wrong: Any) -> None:
    """A wrong type is an error; only what is missing is no role."""
    assert read(
        {"realm_access": wrong}, role_claim=("realm_access", "roles")
    ) == Denial(Reason.CLAIM_INVALID, "roles")


def test_a_map_says_which_group_is_which_role() -> None:
    """What it does not name is no role, also when it looks like one."""
    found = principal(
        {"roles": ["5b7f-aa", "5b7f-bb", "customer"]},
        role_map={"5b7f-aa": "admin", "5b7f-bb": "root"},
    )

    assert found.roles == {"admin"}


def test_scope_may_be_a_list_under_another_name() -> None:
    """As Okta writes it, and as Auth0's permissions are."""
    found = principal({"scp": ["a:read", "a:write"]}, scope_claim="scp")

    assert found.scope == {"a:read", "a:write"}


def test_a_single_method_may_stand_alone() -> None:
    """Some libraries write a list of one as its element."""
    assert principal({"amr": "pwd"}).amr == ("pwd",)


def test_auth0() -> None:
    """No jti, azp, a role claim named by a URL."""
    found = principal(
        {
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["shop", "https://tenant.eu.auth0.com/userinfo"],
            "iat": NOW,
            "azp": "my_client",
            "scope": "openid profile orders:read",
            "permissions": ["orders:read"],
            "https://shop.example/roles": ["customer"],
            "jti": MISSING,
        },
        role_claim=("https://shop.example/roles",),
    )

    assert found.roles == {"customer"}
    assert found.client_id == "my_client"
    assert (found.kind, found.token_id) == ("user", DIGEST)


def test_keycloak() -> None:
    """Roles in realm_access, the client in azp, a session id."""
    found = principal(
        {
            "sub": "f:1b9f:alice",
            "iat": NOW,
            "auth_time": NOW - 5,
            "typ": "Bearer",
            "azp": "web",
            "sid": "a8f0",
            "acr": "1",
            "realm_access": {"roles": ["customer", "offline_access"]},
            "resource_access": {"account": {"roles": ["manage-account"]}},
            "scope": "openid email",
        },
        role_claim=("realm_access", "roles"),
    )

    assert found.roles == {"customer"}
    assert found.session_id == "a8f0"


def test_entra() -> None:
    """Group ids that are mapped, the scope in scp, the token's id in uti."""
    found = principal(
        {
            "iat": NOW,
            "nbf": NOW,
            "appid": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "appidacr": "0",
            "groups": ["9ee4", "0000"],
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "scp": "access_as_user",
            "uti": "4BZ3ZpyzpUqmVWn4FYnLAA",
            "ver": "1.0",
            "jti": MISSING,
        },
        role_claim=("groups",),
        role_map={"9ee4": "admin"},
        scope_claim="scp",
        token_id="uti",
    )

    assert found.roles == {"admin"}
    assert found.scope == {"access_as_user"}
    assert found.token_id == "4BZ3ZpyzpUqmVWn4FYnLAA"


def test_naughty_strings_are_names_or_refused() -> None:
    """Whatever `sub`, a role or a scope holds: a value or a Denial."""
    naughty = vectors.load("naughty-strings/blns.json")
    allowed = frozenset(naughty)
    for text in naughty:
        found = read({"sub": text})
        assert isinstance(found, Denial) or found.subject == text
        found = read({"roles": [text]}, role_allow=allowed)
        assert isinstance(found, Principal)
        assert found.roles == {text}
        found = read({"scope": text})
        assert isinstance(found, Denial) or found.scope == frozenset(text.split())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["alice", ISS, "shop", NOW]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*sorted({at for _, _, at in BAD}), "iss", "realm_access"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_claims_have_an_answer(changes: dict[str, Any]) -> None:
    """A principal with our issuer, or a Denial that names a claim of ours."""
    found = read(changes)

    if isinstance(found, Denial):
        assert found.at in {*(at for _, _, at in BAD), ""}
    else:
        assert found.roles <= RULES.role_allow

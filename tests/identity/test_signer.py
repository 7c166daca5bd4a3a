"""gateway.identity.signer: what an upstream is told of a principal (R94, R95)."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk
from joserfc import jwt as second_opinion

from gateway.identity.keys import (
    Algorithm,
    KeyRing,
    key_set_document,
    new_key_pem,
    signing_key_from_pem,
)
from gateway.identity.signer import MAX_ASSERTION, BoundRequest, Signer
from gateway.model import ANONYMOUS, Denial, Headers, Principal, Reason
from tests import vectors

NOW = 1_000_000.25  # Unix seconds
RING = KeyRing(
    tuple(signing_key_from_pem(new_key_pem("ES256"), "ES256") for _ in range(2))
)
ALICE = {
    "kind": "user",
    "issuer": "corp",
    "subject": "alice",
    "client_id": "shop-app",
    "token_id": "t-1",
    "auth_time": 999_000.0,
    "acr": "2",
    "amr": ("pwd", "otp"),
    "roles": frozenset({"support", "customer"}),
    "expires_at": NOW + 3_600,
    "claims": {
        "roles": ["root"],
        "scope": "everything",
        "name": "Alice",
        "tenant": MappingProxyType({"id": 7, "tags": ("a",)}),
        "htm": "DELETE",
    },
}


def principal(**changes: Any) -> Principal:
    return Principal(**{**ALICE, **changes})


def signer(ring: KeyRing = RING, **changes: Any) -> Signer:
    settings: dict[str, Any] = {
        "issuer": "https://api.example/identity",
        "issuers": {"corp": "https://login.example"},
        "random": random.Random(1).randbytes,
        "claims": ("client_id", "roles", "scope", "acr", "auth_time"),
    }
    return Signer(ring, **{**settings, **changes})


def fields(
    who: Principal,
    by: Signer | None = None,
    *,
    upstream: str = "orders",
    scope: tuple[str, ...] = ("orders:read", "orders:write"),
    now: float = NOW,
    generation: str = "g1",
    request: BoundRequest | None = None,
) -> Headers | Denial:
    signed = (by or signer()).sign(who, upstream, scope, now, generation, request)
    return signed if isinstance(signed, Denial) else signed.fields


def told(found: Headers | Denial) -> dict[str, Any]:
    """Return the claims of the assertion in *found*, verified."""
    assert isinstance(found, tuple)
    name, assertion = found[0]
    assert name == b"x-gateway-assertion"
    claims: dict[str, Any] = jwt.decode(
        assertion,
        RING.signer.private.public_key(),
        algorithms=["ES256"],
        options={"verify_exp": False, "verify_iat": False, "verify_aud": False},
    )
    return claims


def test_an_assertion_says_who_calls_and_what_was_granted() -> None:
    """Exactly these claims; roles and scope are ours, not those of the token."""
    assert told(fields(principal())) == {
        "iss": "https://api.example/identity",
        "aud": "orders",
        "sub": "alice",
        "iat": 1_000_000,
        "exp": 1_000_060,
        "jti": "9bFlIkpYt5HfavHYMD5hzQ",
        "src": {"iss": "https://login.example", "jti": "t-1"},
        "client_id": "shop-app",
        "roles": ["customer", "support"],
        "scope": "orders:read orders:write",
        "acr": "2",
        "auth_time": 999_000,
    }


def test_its_header_is_the_one_that_stock_validators_expect() -> None:
    """`typ: JWT`, because Spring's validator refuses private types."""
    found = fields(principal())
    assert isinstance(found, tuple)

    assert jwt.get_unverified_header(found[0][1]) == {
        "alg": "ES256",
        "kid": RING.signer.key_id,
        "typ": "JWT",
    }


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # RFC 9864 names it anew
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_stock_libraries_verify_it(algorithm: Algorithm) -> None:
    """PyJWT and joserfc, from nothing but the published key set."""
    ring = KeyRing((signing_key_from_pem(new_key_pem(algorithm), algorithm),))
    found = fields(principal(), signer(ring))
    assert isinstance(found, tuple)
    assertion = found[0][1].decode()
    document = json.loads(key_set_document(ring))

    one = jwt.decode(
        assertion,
        jwt.PyJWK.from_dict(document["keys"][0]),
        algorithms=[algorithm],
        audience="orders",
        issuer="https://api.example/identity",
        options={"verify_exp": False, "verify_iat": False},
    )
    other = second_opinion.decode(
        assertion, jwk.KeySet.import_key_set(document), algorithms=[algorithm]
    )

    assert one == other.claims
    assert one["sub"] == "alice"


@pytest.mark.parametrize(
    ("changes", "claim", "expected"),
    [
        ({"client_id": None}, "client_id", None),
        ({"acr": None}, "acr", None),
        ({"auth_time": None}, "auth_time", None),
        ({"auth_time": 0.0}, "auth_time", 0),
        ({"roles": frozenset()}, "roles", []),
        ({"token_id": ""}, "src", {"iss": "https://login.example"}),
        ({"issuer": "keys"}, "src", {"iss": "keys", "jti": "t-1"}),
        ({"subject": '名 \x00"\\'}, "sub", '名 \x00"\\'),
    ],
)
def test_what_is_not_known_is_not_said(
    changes: dict[str, Any], claim: str, expected: object
) -> None:
    """An absent value has no claim; an empty list of roles is said to be empty."""
    assert told(fields(principal(**changes))).get(claim) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name", "Alice"),
        ("tenant", {"id": 7, "tags": ["a"]}),
        ("amr", ["pwd", "otp"]),
        ("sub", "alice"),
        ("missing", None),
    ],
)
def test_other_verified_claims_are_passed_on_by_name(
    name: str, expected: object
) -> None:
    """`claims` may name any claim of the verified token."""
    assert told(fields(principal(), signer(claims=[name]))).get(name) == expected


def test_nothing_unnamed_is_passed_on() -> None:
    """Without configuration: only the claims that make an assertion."""
    found = told(fields(principal(), signer(claims=())))

    assert set(found) == {"iss", "aud", "sub", "iat", "exp", "jti", "src"}


def test_nobody_has_no_assertion() -> None:
    """On an `optional` route a caller without a credential brings nothing."""
    request = BoundRequest("GET", b"/", "r-1")

    assert fields(ANONYMOUS) == ()
    assert fields(ANONYMOUS, request=request) == ()


# -- time ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expires_at", "exp"),
    [
        (float("inf"), 1_000_060),
        (NOW + 61, 1_000_060),
        (NOW + 30, 1_000_030),
        (NOW + 0.5, 1_000_000),
        (NOW - 20, 999_980),  # within its issuer's leeway: upstreams have their own
    ],
)
def test_an_assertion_never_outlives_the_token(expires_at: float, exp: int) -> None:
    """60 seconds, or less where the caller's token ends before."""
    assert told(fields(principal(expires_at=expires_at, leeway=30)))["exp"] == exp


def test_it_is_signed_once_for_half_its_life() -> None:
    """Then anew: an upstream always receives one that lives 30 seconds more."""
    who, by = principal(), signer()
    first = fields(who, by)

    assert fields(who, by, now=NOW + 29.9) is first
    assert told(fields(who, by, now=NOW + 30))["exp"] == 1_000_090


def test_one_that_ends_with_the_token_is_kept_until_then() -> None:
    """Signing it again could not make it live longer."""
    who, by = principal(expires_at=NOW + 10, leeway=30), signer()
    first = fields(who, by)

    assert fields(who, by, now=NOW + 39) is first
    assert fields(who, by, now=NOW + 41) is not first


def test_a_clock_set_back_does_not_lengthen_a_life() -> None:
    """What was signed in the clock's future is not sent in its past."""
    who, by = principal(), signer()
    fields(who, by)

    assert told(fields(who, by, now=NOW - 3_600))["exp"] == 996_460


@pytest.mark.parametrize(
    "changes",
    [
        {"upstream": "billing"},
        {"generation": "g2"},
        {"scope": ("orders:read",)},
        {"who": principal()},
        {"request": BoundRequest("GET", b"/", "r-1")},
    ],
)
def test_an_assertion_is_only_for_whom_it_was_made(changes: dict[str, Any]) -> None:
    """Principal, upstream, policy generation and grant: another of these, another."""
    who, by = principal(), signer()
    first = fields(who, by)

    assert fields(changes.pop("who", who), by, **changes) != first
    assert fields(who, by) == first or "scope" in changes


def test_what_is_held_is_bounded() -> None:
    """The oldest goes first."""
    by = signer(max_entries=3)
    people = [principal(subject=str(n)) for n in range(4)]
    found = [fields(who, by) for who in people]

    assert len(by._held) == 3
    assert fields(people[3], by) is found[3]
    assert fields(people[1], by) is found[1]
    assert fields(people[0], by) is not found[0]


def test_what_is_signed_again_is_young_again() -> None:
    """The bound takes the assertion that was signed first, not the busiest caller's."""
    by = signer(max_entries=2)
    busy, other, third = principal(), principal(), principal()
    fields(busy, by)
    fields(other, by, now=NOW + 20)
    again = fields(busy, by, now=NOW + 30)

    fields(third, by, now=NOW + 31)

    assert fields(busy, by, now=NOW + 31) is again


def test_what_is_over_is_let_go() -> None:
    """An assertion past its time, and its principal, go as others come."""
    by = signer()
    for _ in range(5):
        fields(principal(), by)
    late = [principal() for _ in range(5)]
    for who in late:
        fields(who, by, now=NOW + 31)

    assert [key[0] for key in by._held] == late


# -- binding -------------------------------------------------------------------


def test_a_bound_assertion_names_its_request() -> None:
    """Method, path and query byte for byte, and the request id."""
    request = BoundRequest("POST", b"/a%20b?x=%2F&y=\xe9", "r-1")

    found = told(fields(principal(), request=request))

    assert (found["htm"], found["htu"], found["txn"]) == (
        "POST",
        "/a%20b?x=%2F&y=\xe9",
        "r-1",
    )


def test_a_bound_assertion_is_made_each_time() -> None:
    """It is never kept, and never sent for another request."""
    who, by = principal(), signer()
    request = BoundRequest("GET", b"/", "r-1")

    assert fields(who, by, request=request) != fields(who, by, request=request)
    assert not by._held


# -- plain copies ----------------------------------------------------------------


def test_a_plain_copy_is_in_the_assertion_as_well() -> None:
    """In the order of the configuration, names in lower case."""
    by = signer(claims=(), headers={"X-User": "sub", "X-Roles": "roles", "X-No": "no"})

    found = fields(principal(), by)

    assert isinstance(found, tuple)
    assert found[1:] == ((b"x-user", b"alice"), (b"x-roles", b"customer,support"))
    assert told(found)["roles"] == ["customer", "support"]


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"claims": {"name": {"first": "Alice"}}}, "name"),
        ({"claims": {"name": "x" * 1_025}}, "name"),
        ({"claims": {"name": "\ud800"}}, "name"),
        ({"claims": {"other": "\ud800"}}, ""),
        ({"claims": {"other": float("nan")}}, ""),
        ({"claims": {"other": "x" * MAX_ASSERTION}}, ""),
        ({"subject": "\ud800"}, ""),
    ],
)
def test_what_cannot_be_said_refuses_the_request(
    changes: dict[str, Any], at: str
) -> None:
    """A denial with the claim's name, never a crash and never a half-told identity."""
    by = signer(claims=["other"], headers={"x-name": "name"})

    assert fields(principal(**changes), by) == Denial(Reason.CLAIM_INVALID, at)


def test_naughty_strings_arrive_as_they_are_or_not_at_all() -> None:
    """As subject, as a claim, as a role: equal at the upstream, on lines of our own."""
    names = {"x-user": "sub", "x-name": "name", "x-roles": "roles"}
    by = signer(claims=(), headers=names)
    arrived = 0
    for text in vectors.load("naughty-strings/blns.json"):
        who = principal(
            subject=text, claims={"name": text}, roles=frozenset({text, "r"})
        )
        found = fields(who, by)
        if isinstance(found, Denial):
            assert found.at in names.values()
            continue
        arrived += 1
        sent = dict(found)
        assert told(found)["sub"] == text
        assert unquote(sent[b"x-user"].decode("ascii")) == text
        assert unquote(sent[b"x-name"].decode("ascii")) == text
        roles = sent[b"x-roles"].decode("ascii").split(",")
        assert {unquote(role) for role in roles} == {text, "r"}
    assert arrived > 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(name=JSON, other=JSON)
def test_whatever_a_token_says_is_an_answer(name: object, other: object) -> None:
    """Any claim gives header lines in printable ASCII, or a denial."""
    by = signer(claims=["other"], headers={"x-name": "name"})

    found = fields(principal(claims={"name": name, "other": other}), by)

    if isinstance(found, tuple):
        assert all(
            value.isascii() and value.decode().isprintable() for _, value in found
        )
        assert told(found).get("other") == other
    else:
        assert found.reason is Reason.CLAIM_INVALID


# -- configuration -----------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"ttl": 61},
        {"ttl": 0},
        {"ttl": float("nan")},
        {"claims": ["htm"]},
        {"claims": ["nbf"]},
        {"headers": {"x-bound": "htu"}},
        {"headers": {"x-source": "src"}},
        {"headers": {"x user": "sub"}},
        {"headers": {"x_user": "sub"}},
        {"headers": {"": "sub"}},
        {"headers": {"X-Gateway-Assertion": "sub"}},
        {"headers": {"X-User": "sub", "x-user": "name"}},
        {"headers": {"x-é": "sub"}},
    ],
)
def test_an_identity_that_could_not_be_sent_is_not_made(
    changes: dict[str, Any],
) -> None:
    """It shows when the gateway starts, not at the first request."""
    with pytest.raises(ValueError, match=r"claim|header|second"):
        signer(**changes)


def test_every_assertion_has_a_name_of_its_own() -> None:
    """`jti` comes from the given source of chance, 16 bytes each time."""
    asked = []
    counter = itertools.count()

    def chance(size: int) -> bytes:
        asked.append(size)
        return next(counter).to_bytes(size, "big")

    source: Callable[[int], bytes] = chance
    by = signer(random=source)

    names = {told(fields(principal(), by))["jti"] for _ in range(3)}

    assert len(names) == 3
    assert asked == [16, 16, 16]

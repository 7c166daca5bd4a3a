"""gateway.backend.verify: what it takes for an identity to be believed (R94)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backend.keys import KeySet, KeysUnavailable
from gateway.backend.verify import (
    MAX_ASSERTION,
    MAX_HELD,
    Fault,
    Identity,
    IdentityError,
    Verifier,
)
from gateway.identity.copies import encode
from gateway.identity.keys import new_key_pem, signing_key_from_pem
from gateway.identity.signer import BoundRequest
from tests.backend.assertions import (
    ALICE,
    BOTH,
    HEADERS,
    ISSUER,
    KEYS,
    NEXT,
    NOW,
    OURS,
    THEIRS,
    assertion,
    fields,
    forged,
    part,
    signed,
)

GOOD = assertion().decode()
DEEP = b"[" * 5_000
REQUEST = BoundRequest("POST", b"/orders?x=%20&y=\xe9", "r-1")
BOUND = assertion(request=REQUEST)
COPIED = fields(headers=HEADERS)


def verifier(**changes: Any) -> Verifier:
    settings: dict[str, Any] = {"keys": KEYS, "issuer": ISSUER, "audience": "orders"}
    return Verifier(**{**settings, **changes})


def fault(by: Verifier, values: Any, **request: Any) -> Fault:
    with pytest.raises(IdentityError) as caught:
        by.verify(values, **{"now": NOW, **request})
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def test_an_identity_is_what_the_gateway_said() -> None:
    """(issuer, subject) names the caller; the issuer is that of the caller's token."""
    found = verifier().verify([assertion()], now=NOW)

    assert dataclasses.replace(found, claims={}) == Identity(
        subject="alice",
        issuer="https://login.example",
        client_id="shop-app",
        roles=frozenset({"customer", "support"}),
        scope=frozenset({"orders:read"}),
        token_id="t-1",
        request_id=None,
        expires_at=NOW + 60,
        claims={},
    )
    assert found.claims["aud"] == "orders"
    assert found.has("orders:read")
    assert not found.has("orders:write")
    with pytest.raises(TypeError):
        found.claims["sub"] = "bob"  # type: ignore[index]


@pytest.mark.parametrize("values", [GOOD, GOOD.encode(), [GOOD], (GOOD.encode(),)])
def test_the_value_may_be_given_as_a_server_has_it(values: Any) -> None:
    """Text or bytes, one or a list of all."""
    assert verifier().verify(values, now=NOW).subject == "alice"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, Fault.MISSING),
        ([], Fault.MISSING),
        ("", Fault.MALFORMED),
        ([GOOD, GOOD], Fault.AMBIGUOUS),
        (f"{GOOD},{GOOD}", Fault.AMBIGUOUS),
        (f"{GOOD}, x", Fault.AMBIGUOUS),
        (GOOD + "=", Fault.MALFORMED),
        (GOOD + "\n", Fault.MALFORMED),
        (" " + GOOD, Fault.MALFORMED),
        ("Bearer " + GOOD, Fault.MALFORMED),
        (GOOD.rpartition(".")[0] + ".", Fault.MALFORMED),
        (GOOD + ".x", Fault.MALFORMED),
        (GOOD + "A" * MAX_ASSERTION, Fault.MALFORMED),
        ("é.é.é", Fault.MALFORMED),
        (b"\xff.\xff.\xff", Fault.MALFORMED),
        ("A.A.A", Fault.MALFORMED),
        (GOOD.rpartition(".")[0] + ".A", Fault.MALFORMED),
        (signed(b"[]", b"{}"), Fault.MALFORMED),
        (signed(b"\xff", b"{}"), Fault.MALFORMED),
        (signed(DEEP, b"{}"), Fault.MALFORMED),
        (forged(b"[]"), Fault.MALFORMED),
        (forged(DEEP), Fault.MALFORMED),
        (forged(b"not json"), Fault.MALFORMED),
        (forged(header={"crit": ["b64"], "b64": False}), Fault.MALFORMED),
        (forged(header={"typ": None}), Fault.TYPE),
        (forged(header={"typ": "at+jwt"}), Fault.TYPE),
        (forged(header={"typ": "dpop+jwt"}), Fault.TYPE),
        (forged(header={"kid": None}), Fault.KEY),
        (forged(header={"kid": ["k"]}), Fault.KEY),
        (forged(header={"kid": "k"}), Fault.KEY),
        (forged(key=THEIRS), Fault.KEY),
        (forged(header={"alg": "none"}), Fault.ALGORITHM),
        (forged(header={"alg": "HS256"}), Fault.ALGORITHM),
        (forged(header={"alg": None}), Fault.ALGORITHM),
        (forged(key=THEIRS, header={"kid": OURS.key_id}), Fault.SIGNATURE),
        (GOOD.rpartition(".")[0] + "." + part(bytes(64)).decode(), Fault.SIGNATURE),
        (forged(iss="https://login.example"), Fault.ISSUER),
        (forged(iss=None), Fault.ISSUER),
        (forged(aud="billing"), Fault.AUDIENCE),
        (forged(aud=["orders"]), Fault.AUDIENCE),
        (forged(aud=None), Fault.AUDIENCE),
        (forged(exp=NOW - 5), Fault.EXPIRED),
        (forged(iat=NOW + 6), Fault.EARLY),
        (forged(exp=None), Fault.CLAIM),
        (forged(exp=str(int(NOW) + 9)), Fault.CLAIM),
        (forged(exp=True), Fault.CLAIM),
        (forged(exp=10**400), Fault.CLAIM),
        (forged(exp=float("inf")), Fault.CLAIM),
        (forged(iat=None), Fault.CLAIM),
        (forged(sub=None), Fault.CLAIM),
        (forged(sub=""), Fault.CLAIM),
        (forged(sub=["alice"]), Fault.CLAIM),
        (forged(src=None), Fault.CLAIM),
        (forged(src={"jti": "t-1"}), Fault.CLAIM),
        (forged(src={"iss": "x", "jti": 1}), Fault.CLAIM),
        (forged(roles="admin"), Fault.CLAIM),
        (forged(roles=[1]), Fault.CLAIM),
        (forged(scope=["orders:read"]), Fault.CLAIM),
        (forged(client_id=1), Fault.CLAIM),
        (forged(txn=1), Fault.CLAIM),
    ],
)
def test_refuses(values: Sequence[str] | str | None, expected: Fault) -> None:
    """Each row breaks one thing; the reason names that thing and no other."""
    assert fault(verifier(), values) is expected


def test_a_token_issuers_token_is_not_an_assertion() -> None:
    """Not even one for the same audience, with everything an assertion has."""
    token = forged(key=THEIRS, iss="https://login.example")
    theirs = signing_key_from_pem(new_key_pem("ES256"), "ES256")

    assert fault(verifier(), token) is Fault.KEY
    assert fault(verifier(), forged(key=theirs, header={"kid": OURS.key_id})) is (
        Fault.SIGNATURE
    )


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("ABab01-_.=,% "))
def test_no_character_can_be_changed(index: int, character: str) -> None:
    """Every mutation is refused, or says the very same (base64url has spare bits)."""
    mutation = GOOD[:index] + character + GOOD[index + 1 :]
    try:
        found = verifier().verify(mutation, now=NOW)
    except IdentityError:
        return
    assert found == verifier().verify(GOOD, now=NOW)


@given(st.one_of(st.text(), st.binary(), st.lists(st.text() | st.binary())))
def test_whatever_arrives_is_an_answer(values: Any) -> None:
    """Any bytes are refused in an orderly way (I5)."""
    with pytest.raises(IdentityError):
        verifier().verify(values, now=NOW)


# -- time ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW - 5, None),
        (NOW - 5.1, Fault.EARLY),
        (NOW + 64.9, None),
        (NOW + 65, Fault.EXPIRED),
    ],
)
def test_leeway_is_five_seconds_and_not_one_more(
    now: float, expected: Fault | None
) -> None:
    """Two clocks differ a little. Said again on a second look at the same text."""
    by = verifier()
    by.verify(GOOD, now=NOW)

    for one in (by, verifier()):
        if expected is None:
            assert one.verify(GOOD, now=now).subject == "alice"
        else:
            assert fault(one, GOOD, now=now) is expected


def test_the_clock_is_asked_where_no_time_is_given() -> None:
    """By default the system's."""
    by = verifier(wall=lambda: NOW + 100)

    with pytest.raises(IdentityError) as caught:
        by.verify(GOOD)
    assert caught.value.reason is Fault.EXPIRED
    assert verifier(wall=lambda: NOW).verify(GOOD).subject == "alice"


# -- binding -------------------------------------------------------------------


def test_a_bound_assertion_is_for_its_request() -> None:
    """Method, path and query; the request id comes with it."""
    found = verifier(bound=True).verify(
        BOUND, method="POST", target=REQUEST.target, now=NOW
    )

    assert found.request_id == "r-1"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", REQUEST.target),
        ("post", REQUEST.target),
        ("POST", b"/orders"),
        ("POST", b"/orders?"),
        ("POST", b"/orders?x=+&y=\xe9"),
        ("POST", b"/orders?x=%20&y=%E9"),
        ("POST", b"/orders/?x=%20&y=\xe9"),
        ("POST", b"/other?x=%20&y=\xe9"),
        ("POST", b""),
        (None, REQUEST.target),
        ("POST", None),
        (None, None),
    ],
)
def test_a_bound_assertion_is_for_no_other(
    method: str | None, target: bytes | None
) -> None:
    """Nor for one that the verifier was not told; also on a second look."""
    by = verifier()
    by.verify(BOUND, method="POST", target=REQUEST.target.decode("latin-1"), now=NOW)

    for one in (by, verifier()):
        assert fault(one, BOUND, method=method, target=target) is Fault.BOUND


def test_half_a_binding_is_none() -> None:
    """Both, method and target, have to be there and right."""
    for token in (forged(htm="GET"), forged(htu="/")):
        for method in ("GET", None):
            for target in ("/", None):
                found = fault(verifier(), token, method=method, target=target)
                assert found is Fault.BOUND


def test_an_unbound_one_can_be_refused() -> None:
    """Where the gateway's route binds, a captured unbound one must not do instead."""
    by = verifier(bound=True)

    assert fault(by, GOOD, method="POST", target="/") is Fault.BOUND


# -- plain copies ------------------------------------------------------------------


def test_plain_copies_agree_with_the_assertion() -> None:
    """What the gateway writes is what the verifier expects; other fields are free."""
    sent = [*COPIED, (b"accept", b"*/*")]

    by = verifier(headers=HEADERS)

    assert by.verify([COPIED[0][1]], headers=sent, now=NOW).subject == "alice"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-roles", "customer,support")],
        [("x-auth-request-user", "bob"), ("x-roles", "customer,support")],
        [("x-auth-request-user", "%61lice"), ("x-roles", "customer,support")],
        [("x-auth-request-user", "alice"), ("x-roles", "admin,customer,support")],
        [("x-auth-request-user", "alice"), ("X-Roles", "customer")],
        [*COPIED, (b"X-Auth-Request-User", b"alice")],
        [*COPIED, ("X-Tenant", "t")],
        [*COPIED, ("x-tenant", "")],
    ],
)
def test_a_tampered_copy_is_refused(headers: list[tuple[str, str]]) -> None:
    """Changed, spelt otherwise, doubled, taken out, put in; also on a second look."""
    by = verifier(headers=HEADERS)
    by.verify(COPIED[0][1], headers=COPIED, now=NOW)

    assert fault(by, COPIED[0][1], headers=headers) is Fault.COPY
    assert fault(verifier(headers=HEADERS), COPIED[0][1], headers=headers) is Fault.COPY


def test_copies_are_not_passed_over_by_mistake() -> None:
    """A verifier that is to compare headers must be given them."""
    with pytest.raises(ValueError, match="headers"):
        verifier(headers=HEADERS).verify(GOOD, now=NOW)


JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
CLAIM = JSON | st.text() | st.lists(st.text())


@given(CLAIM)
def test_both_sides_write_a_value_alike(value: Any) -> None:
    """The rule of R95 stands in two rooms; this holds them together."""
    sent = encode(value)
    if sent is None or value == []:
        return
    by = verifier(headers={"X-Tenant": "tenant"})

    found = by.verify(forged(tenant=value), headers=[(b"x-tenant", sent)], now=NOW)

    assert found.claims["tenant"] == value


# -- keys --------------------------------------------------------------------------


def test_keys_that_cannot_be_had_are_nobodys_fault() -> None:
    """An outage is not a bad assertion."""

    def away() -> bytes:
        raise OSError

    with pytest.raises(KeysUnavailable):
        verifier(keys=away).verify(GOOD, now=NOW)


def test_a_new_key_is_fetched_when_it_is_first_seen() -> None:
    """The gateway rotates, and no backend is restarted."""
    documents = iter([KEYS, BOTH])
    clock = iter(range(0, 100_000, 31))
    keys = KeySet(lambda: next(documents), monotonic=lambda: float(next(clock)))
    by = verifier(keys=keys)

    assert by.verify(GOOD, now=NOW).subject == "alice"
    assert by.verify(assertion(key=NEXT), now=NOW).subject == "alice"


def test_what_was_verified_with_a_key_ends_with_the_key() -> None:
    """A text remembered as good is forgotten when the key set changes."""
    moment = [0.0]
    document = [BOTH]
    keys = KeySet(lambda: document[0], monotonic=lambda: moment[0])
    by = verifier(keys=keys)
    text = assertion(key=NEXT)
    by.verify(text, now=NOW)

    document[0], moment[0] = KEYS, 301.0
    by.verify(GOOD, now=NOW)

    assert fault(by, text) is Fault.KEY


def test_what_a_key_verified_while_it_was_replaced_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may take the key out between the look and the note."""
    by = verifier()
    find = by.keys.find

    def replaced(key_id: str) -> object:
        by.keys.version += 1
        return find(key_id)

    monkeypatch.setattr(by.keys, "find", replaced)

    by.verify(GOOD, now=NOW)

    assert not by._held


def test_what_is_remembered_is_bounded() -> None:
    """And remembering changes no answer."""
    by = verifier()
    for number in range(MAX_HELD + 1):
        assert by.verify(forged(jti=str(number)), now=NOW).subject == "alice"

    assert len(by._held) == 1


def test_it_says_beforehand_that_it_would_wait() -> None:
    """For a key it does not hold, and not for what it would refuse anyway."""
    by = verifier(keys=lambda: KEYS)

    assert by.key_wanted(GOOD) == OURS.key_id
    assert by.key_wanted("x") is None
    assert by.key_wanted(forged(header={"typ": "at+jwt"})) is None
    by.verify(GOOD, now=NOW)
    assert by.key_wanted(GOOD) is None
    assert by.key_wanted(forged(header={"kid": "other"})) is None  # asked just now


def test_an_identity_is_not_the_callers_to_choose() -> None:
    """Two principals of one name at two issuers are two callers."""
    other = dataclasses.replace(ALICE, issuer="partner")

    found = verifier().verify(assertion(who=other), now=NOW)

    assert (found.issuer, found.subject) == ("partner", "alice")

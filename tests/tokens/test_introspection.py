"""gateway.tokens.introspection: what an issuer's answer about a token counts for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Binding, Denial, IntrospectionNeeded, Principal
from gateway.tokens.accept import accept
from gateway.tokens.claims import IssuerRules
from gateway.tokens.confirmation import BindingRules
from gateway.tokens.introspection import (
    AnswerRefused,
    OpaqueAuthenticator,
    OpaqueRules,
    read_answer,
)

NOW = 1_000_000.0
ISS = "https://id.example"
CORP = IssuerRules(
    "corp",
    ISS,
    frozenset(),
    audience=frozenset({"shop"}),
    max_lifetime=3600.0,
    role_claim=("roles",),
    role_allow=frozenset({"admin"}),
)
RULES = OpaqueRules(CORP)
ANSWER: dict[str, Any] = {
    "active": True,
    "iss": ISS,
    "aud": "shop",
    "sub": "alice",
    "client_id": "app",
    "token_type": "Bearer",
    "scope": "orders:read",
    "iat": NOW - 60,
    "exp": NOW + 600,
    "roles": ["admin", "other"],
}


def said(
    answer: dict[str, Any] | None, rules: OpaqueRules = RULES
) -> Principal | Denial:
    """Return what becomes of a token about which the issuer says *answer*."""
    steps = OpaqueAuthenticator([rules]).authenticate("tok", NOW)
    need = next(steps)
    assert need == IntrospectionNeeded("corp", "tok")
    try:
        steps.send(answer)
    except StopIteration as end:
        outcome: Principal | Denial = end.value
        return outcome
    raise AssertionError("one answer is all that it may ask for")


def answer(**changes: Any) -> dict[str, Any]:
    """Return the answer with *changes*; what is ... is left out."""
    return {k: v for k, v in {**ANSWER, **changes}.items() if v is not ...}


def believed(rules: OpaqueRules = RULES, **changes: Any) -> Principal:
    outcome = said(answer(**changes), rules)
    assert isinstance(outcome, Principal), outcome
    return outcome


def test_an_active_token_names_its_principal() -> None:
    """By the same claims as a JWT, and with the same roles allowed."""
    found = believed()

    assert (found.kind, found.issuer, found.subject) == ("user", "corp", "alice")
    assert found.client_id == "app"
    assert found.scope == {"orders:read"}
    assert found.roles == {"admin"}
    assert found.expires_at == NOW + 600
    assert found.known_for == 60
    assert found.key is None


@pytest.mark.parametrize("token_type", ["DPoP", "Bearer", ...])
def test_what_it_is_bound_to_is_the_issuers_to_say(token_type: object) -> None:
    """RFC 9449 section 6.2, RFC 8705 section 3.2: in `cnf` of the answer."""
    digest = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
    rules = OpaqueRules(replace(CORP, binding=BindingRules(dpop=True)))

    found = believed(rules, cnf={"jkt": digest}, token_type=token_type)

    assert found.binding == Binding(key=digest)


def test_one_that_is_not_active_is_refused() -> None:
    """Whatever it is: expired, revoked, unknown, or meant for somebody else."""
    assert str(said(None)) == "token.inactive"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example"}, "token.issuer"),
        ({"iss": 1}, "token.issuer"),
        ({"aud": ...}, "token.claim:aud"),
        ({"aud": None}, "token.claim:aud"),
        ({"aud": []}, "token.claim:aud"),
        ({"sub": ""}, "token.claim:sub"),
        ({"sub": ["alice"]}, "token.claim:sub"),
        ({"sub": ..., "client_id": ...}, "token.claim:sub"),
        ({"sub": ..., "username": "alice"}, "token.claim:sub"),
        ({"sub": ..., "client_id": 7}, "token.claim:sub"),
        ({"exp": "9999999999"}, "token.claim:exp"),
        ({"exp": True}, "token.claim:exp"),
        ({"exp": NOW + 4_000, "iat": ...}, "token.lifetime:exp"),
        ({"exp": NOW + 3_590}, "token.lifetime:exp"),
        ({"exp": ..., "iat": ...}, "token.claim:exp"),
        ({"exp": None, "iat": None}, "token.claim:exp"),
        ({"exp": ..., "iat": "1"}, "token.claim:iat"),
        ({"exp": ..., "iat": True}, "token.claim:iat"),
        ({"exp": ..., "iat": 10**400}, "token.claim:iat"),
        ({"exp": ..., "iat": -(10**400)}, "token.claim:iat"),
        ({"exp": ..., "iat": NOW - 3_600}, "token.lifetime:iat"),
        ({"scope": ["a b"]}, "token.claim:scope"),
        ({"jti": 7}, "token.claim:jti"),
        ({"cnf": {"jkt": "x"}}, "token.claim:cnf"),
        ({"cnf": {"jkt": "x"}, "token_type": "DPoP"}, "token.claim:cnf"),
        ({"token_type": "DPoP"}, "token.type:token_type"),
        ({"token_type": "refresh_token"}, "token.type:token_type"),
        ({"token_type": ["Bearer"]}, "token.type:token_type"),
        ({"token_type": ...}, "token.type:token_type"),
        ({"token_type": ..., "typ": "Refresh"}, "token.type:typ"),
        ({"typ": "Refresh"}, "token.type:typ"),
        ({"token_use": "refresh_token"}, "token.type:token_use"),
        ({"at_hash": "x"}, "token.type:at_hash"),
        ({"nonce": "x"}, "token.type:nonce"),
    ],
)
def test_an_answer_that_says_too_little_or_too_much_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    """Each row breaks one thing; active alone is not enough."""
    assert str(said(answer(**changes))) == reason


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER"])
def test_the_token_type_has_no_case(kind: str) -> None:
    """RFC 6749 section 5.1; Keycloak's older versions said it in `typ`."""
    believed(token_type=kind)
    believed(token_type=..., typ=kind)


def test_a_client_is_the_subject_of_a_token_of_its_own() -> None:
    """Nobody stands behind it, and the answer names nobody else."""
    found = believed(sub=...)

    assert (found.kind, found.subject, found.client_id) == ("service", "app", "app")
    assert "sub" not in found.claims


def test_an_issuer_need_not_name_itself() -> None:
    """It was asked by its own URL."""
    found = believed(iss=...)

    assert found.issuer == "corp"
    assert found.fingerprints == believed().fingerprints


def test_an_answer_without_audience_may_be_taken_for_ours() -> None:
    """Where the configuration says so, and only what is missing."""
    lenient = replace(RULES, needs_audience=False)

    assert believed(lenient, aud=...).audience == {"shop"}
    other = believed(lenient, aud="other")
    refused = accept(other, CORP.audience, frozenset({"corp"}), NOW)
    assert str(refused) == "token.audience"


def test_a_token_without_an_end_counts_for_one_answer() -> None:
    """And no longer than a revocation of it would be kept (R63)."""
    assert believed(exp=...).expires_at == NOW + 60
    assert believed(exp=None).expires_at == NOW + 60
    found = believed(exp=..., iat=NOW - 3_590)
    assert (found.expires_at, found.known_for) == (NOW + 10, 10)
    each_time = replace(RULES, cache=0.0)
    found = believed(each_time, exp=...)
    assert (found.expires_at, found.known_for) == (NOW + 1, 0)
    assert "exp" not in found.claims


def test_an_answer_is_kept_until_the_token_ends() -> None:
    """Then the issuer is asked; its clock may be behind ours by the leeway."""
    assert believed(exp=NOW + 20).known_for == 20
    found = believed(exp=NOW - 20)
    assert found.known_for == 0
    assert accept(found, CORP.audience, frozenset({"corp"}), NOW) is None
    late = believed(exp=NOW - 31)
    refused = accept(late, CORP.audience, frozenset({"corp"}), NOW)
    assert str(refused) == "token.expired"


def test_a_token_is_named_by_its_id_or_by_what_makes_it_this_one() -> None:
    """The name is the same in every answer, whatever else changes in it (R50)."""
    assert believed(jti="t-1").token_id == "t-1"
    name = believed().token_id

    assert name.startswith("sha256:")
    same: list[dict[str, Any]] = [
        {"exp": NOW + 900},
        {"scope": "orders:read orders:write"},
        {"roles": []},
        {"iss": ...},
        {"email": "alice@shop.example"},
    ]
    for changes in same:
        assert believed(**changes).token_id == name
    for changes in ({"sub": "bob"}, {"client_id": "web"}, {"iat": NOW - 61}):
        assert believed(**changes).token_id != name
    without = believed(iat=...).token_id
    assert without != name
    assert believed(iat=..., exp=NOW + 601).token_id != without


def test_the_text_of_a_token_is_not_its_name() -> None:
    """Some servers say it is: it would stand in the log, and in the store."""
    found = believed(jti="tok", access_token="tok")

    assert found.token_id == believed().token_id
    assert "tok" not in found.claims.values()


def test_what_has_the_form_of_another_kind_is_nobodys_to_ask_about() -> None:
    """Three parts are signed, five are sealed: no token is read in two ways."""
    door = OpaqueAuthenticator([RULES])

    assert all(map(door.recognises, ("tok", "", "a.b", "a.b.c.d", "a.b.c.d.e.f")))
    assert not any(map(door.recognises, ("a.b.c", "a.b.c.d.e", "..", "....")))
    assert not OpaqueAuthenticator([]).recognises("tok")


def test_what_it_begins_with_tells_whose_a_token_is() -> None:
    """Exactly one of several issuers is asked; of none, nobody is."""
    other = OpaqueRules(replace(CORP, name="other", issuer="https://o"), prefix="o_")
    door = OpaqueAuthenticator([replace(RULES, prefix="c_"), other])

    for token, name in (("c_1", "corp"), ("o_1", "other")):
        for client in ("", "192.0.2.1"):
            need = IntrospectionNeeded(name, token, client)
            assert next(door.authenticate(token, NOW, client)) == need
    assert not door.recognises("x_1")


@pytest.mark.parametrize(("one", "two"), [("", "o_"), ("o_", ""), ("o", "o_")])
def test_two_issuers_for_one_token_are_a_mistake(one: str, two: str) -> None:
    """Whose word would count?"""
    with pytest.raises(ValueError, match="either issuer"):
        OpaqueAuthenticator([replace(RULES, prefix=one), replace(RULES, prefix=two)])


def test_an_answer_is_read() -> None:
    """Active, or not; what else an inactive one says is not looked at."""
    raw = json.dumps(ANSWER).encode()

    assert read_answer(raw, "application/json") == ANSWER
    assert read_answer(raw, "Application/JSON; charset=utf-8") == ANSWER
    assert read_answer(b'{"active":false,"sub":"alice"}', "application/json") is None


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"{}", "application/json"),
        (b'{"active":"true"}', "application/json"),
        (b'{"active":1}', "application/json"),
        (b'{"active":null}', "application/json"),
        (b'{"active":false,"active":true}', "application/json"),
        (b'[{"active":true}]', "application/json"),
        (b"<html>", "application/json"),
        (b"", "application/json"),
        (b"[" * 9_000, "application/json"),
        (b'{"active":true}', "text/html"),
        (b'{"active":true}', ""),
        (b'{"active":true}', "application/token-introspection+jwt"),
    ],
)
def test_what_is_no_answer_is_none(raw: bytes, kind: str) -> None:
    """Neither yes nor no: nobody is told that his token is bad."""
    with pytest.raises(AnswerRefused):
        read_answer(raw, kind)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*ANSWER, "username", "jti", "cnf"]), JSON))
def test_whatever_an_issuer_says_is_a_principal_or_a_refusal(
    changes: dict[str, Any],
) -> None:
    """Never an error of ours."""
    assert isinstance(said({**ANSWER, **changes}), Principal | Denial)

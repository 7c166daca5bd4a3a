"""gateway.tokens.logout: who says that a session has ended, and is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.model import Denial, KeyNeeded, VerificationKey
from gateway.tokens.claims import IssuerRules
from gateway.tokens.jwt import JwtAuthenticator
from gateway.tokens.logout import EVENT, FRESH, Logout, LogoutTokens
from tests.tokens import make

NOW = 1_000_000.0
KEY = make.key("ES256")
RULES = IssuerRules(
    name="corp",
    issuer="https://id.example",
    algorithms=frozenset({"ES256"}),
    token_types=frozenset({"at+jwt", "jwt", "logout+jwt"}),
    audience=frozenset({"app"}),
)
CLAIMS: dict[str, Any] = {
    "iss": RULES.issuer,
    "aud": "app",
    "iat": NOW,
    "exp": NOW + 120,
    "jti": "l-1",
    "sub": "alice",
    "sid": "s-1",
    "events": {EVENT: {}},
}
TYPE = {"typ": "logout+jwt"}


class Keys:
    """Holds the one key."""

    def find(
        self, issuer: str, key_id: str | None, algorithm: str
    ) -> VerificationKey | None:
        return KEY.verifying if (issuer, key_id) == ("corp", KEY.key_id) else None

    def used(self, issuer: str, key: VerificationKey) -> None:
        """Count nothing."""


DOOR = LogoutTokens([RULES], Keys())


def read(token: str, now: float = NOW, door: LogoutTokens = DOOR) -> Logout | Denial:
    steps = door.read(token, now)
    try:
        assert next(steps) == KeyNeeded("corp", "other", "ES256")
        steps.send(None)
    except StopIteration as end:
        outcome: Logout | Denial = end.value
        return outcome
    raise AssertionError("one key is all that it may ask for")


def token(header: dict[str, Any] = TYPE, **claims: Any) -> str:
    return make.token(KEY, {**CLAIMS, **claims}, header)


def test_what_has_ended_is_read() -> None:
    """A session, a subject, or both; and by which name the token is known again."""
    both = read(token())
    assert isinstance(both, Logout)
    assert both[:4] == ("corp", "s-1", "alice", NOW)
    session, subject = read(token(sub=None)), read(token(sid=None, jti="l-2"))
    assert isinstance(session, Logout)
    assert isinstance(subject, Logout)
    assert (session.session_id, session.subject) == ("s-1", None)
    assert (subject.session_id, subject.subject) == (None, "alice")
    assert both.name == session.name != subject.name


@pytest.mark.parametrize(
    "good",
    [
        token({"typ": "JWT"}),
        token({"typ": None}),
        token({"typ": "application/LOGOUT+jwt"}),
        token(aud=["other", "app"]),
        token(exp=None),
        token(iat=NOW + 30),
        token(iat=NOW - FRESH + 30),
        token(exp=NOW - 29),
        token(events={EVENT: {"more": 1}, "other": 7}),
    ],
)
def test_what_older_providers_write_is_read_too(good: str) -> None:
    """No type, or no `exp`: how old it may be is ours to say."""
    assert isinstance(read(good), Logout)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("a.b.c", "token.malformed:form"),
        (token({"typ": "at+jwt"}), "token.type:typ"),
        (token({"typ": "dpop+jwt"}), "token.type:typ"),
        (token(iss="https://other.example"), "token.issuer"),
        (token({"typ": "logout+jwt", "kid": "other"}), "token.key"),
        (token()[:-8] + "AAAAAAAA", "token.signature"),
        (token(aud="api"), "token.audience"),
        (token(aud=None), "token.claim:aud"),
        (token(iat=None), "token.claim:iat"),
        (token(iat=str(NOW)), "token.claim:iat"),
        (token(iat=NOW + 31), "token.claim:iat"),
        (token(iat=NOW - FRESH + 29), "token.expired"),
        (token(exp=NOW - 30), "token.expired"),
        (token(exp="never"), "token.claim:exp"),
        (token(events=None), "token.claim:events"),
        (token(events=[EVENT]), "token.claim:events"),
        (token(events={EVENT: True}), "token.claim:events"),
        (token(events={"other": {}}), "token.claim:events"),
        (token(nonce="n"), "token.claim:nonce"),
        (token(jti=None), "token.claim:jti"),
        (token(jti="j" * 129), "token.claim:jti"),
        (token(jti=7), "token.claim:jti"),
        (token(sid=None, sub=None), "token.claim:sid"),
        (token(sid=""), "token.claim:sid"),
        (token(sid="a\nb"), "token.claim:sid"),
        (token(sub=["alice"]), "token.claim:sub"),
    ],
)
def test_each_rule_keeps_out_what_breaks_it(bad: str, why: str) -> None:
    """Section 2.6; each of these breaks one thing."""
    outcome = read(bad)
    assert isinstance(outcome, Denial)
    assert str(outcome) == why


def test_no_access_token_logs_out_and_no_logout_token_gives_access() -> None:
    """Of the same issuer and key, whatever types it has (RFC 8725 section 3.11)."""
    access = JwtAuthenticator([RULES], Keys())

    def denied(text: str) -> str:
        try:
            next(access.authenticate(text, NOW))
        except StopIteration as end:
            return str(end.value)
        raise AssertionError("the key is known")

    assert denied(token()) == "token.type:typ"
    assert denied(token({"typ": "JWT"})) == "token.type:events"
    assert str(read(token(events=None))) == "token.claim:events"


def test_a_logout_token_is_for_whom_it_says() -> None:
    """Two gateways of one issuer don't log each other's users out."""
    other = LogoutTokens([replace(RULES, audience=frozenset({"shop"}))], Keys())
    assert str(read(token(), door=other)) == "token.audience"

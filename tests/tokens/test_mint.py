"""gateway.tokens.mint: what is minted is believed, and nothing else is minted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.model import Principal, VerificationKey
from gateway.tokens.claims import IssuerRules
from gateway.tokens.jwks import KeySet, key_from_pem
from gateway.tokens.jwt import JwtAuthenticator
from gateway.tokens.mint import (
    MintingKey,
    MintRefused,
    Order,
    claims_for,
    minting_key,
    signed,
    to_json,
)
from tests.tokens import make

NOW = 1_000_000.75
RULES = IssuerRules(
    "corp",
    "https://corp.example",
    frozenset({"ES256", "RS256", "HS256"}),
    audience=frozenset({"shop"}),
    max_lifetime=900.0,
    role_claim=("realm", "roles"),
    role_map={"g-1": "admin"},
    role_allow=frozenset({"admin", "clerk"}),
    scope_claim="scp",
)
ORDER = Order(
    "alice",
    600.0,
    roles=("admin",),
    scope=("a", "b"),
    session_id="s-1",
    client_id="app",
)


def chance(size: int) -> bytes:
    return bytes(range(size))


def claims(order: Order = ORDER, rules: IssuerRules = RULES) -> dict[str, Any]:
    return claims_for(order, rules, NOW, chance)


def pem(key: make.Key, password: bytes | None = None) -> bytes:
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    raw: bytes = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return raw


def test_what_was_ordered_is_said_as_the_issuer_says_it() -> None:
    """In its claims, in its words; time and chance are arguments."""
    assert claims() == {
        "iss": "https://corp.example",
        "aud": "shop",
        "sub": "alice",
        "iat": 1_000_000,
        "exp": 1_000_600,
        "jti": "AAECAwQFBgcICQoLDA0ODw",
        "sid": "s-1",
        "client_id": "app",
        "scp": "a b",
        "realm": {"roles": ["g-1"]},
    }


def test_what_was_not_ordered_is_not_said() -> None:
    """All of the issuer's audience, unless it is named."""
    rules = replace(RULES, audience=frozenset({"b", "a"}))
    short = claims(Order("alice", 0.5), rules)
    assert short.keys() == {"iss", "aud", "sub", "iat", "exp", "jti"}
    assert short["aud"] == ["a", "b"]
    assert short["exp"] == short["iat"] + 1
    assert claims(Order("alice", 1, audience=("c",)), rules)["aud"] == "c"


@pytest.mark.parametrize(
    ("order", "rules", "said"),
    [
        (replace(ORDER, lifetime=901), RULES, "at most 900 s"),
        (replace(ORDER, lifetime=0), RULES, "longer than none"),
        (replace(ORDER, lifetime=float("nan")), RULES, "at most"),
        (replace(ORDER, roles=("root",)), RULES, "may not assert: root; it may: admin"),
        (ORDER, replace(RULES, role_allow=frozenset()), "it may: no role"),
        (replace(ORDER, subject=""), RULES, "token.claim:sub"),
        (replace(ORDER, subject="a\nb"), RULES, "token.claim:sub"),
        (replace(ORDER, scope=('a"b',)), RULES, "token.claim:scope"),
        (replace(ORDER, scope=("a b",)), RULES, "another scope"),
        # Its map knows the word for another role.
        (replace(ORDER, roles=("clerk",)), RULES, "other roles"),
    ],
)
def test_what_the_gateway_would_refuse_is_not_minted(
    order: Order, rules: IssuerRules, said: str
) -> None:
    """Nor what it would understand otherwise than it was meant."""
    with pytest.raises(MintRefused, match=said):
        claims(order, rules)


def test_a_session_is_named_where_it_has_to_be() -> None:
    """[fernet] sid = "required"."""
    order = replace(ORDER, session_id=None)
    with pytest.raises(MintRefused, match="sid"):
        claims_for(order, RULES, NOW, chance, needs_session=True)
    assert claims_for(ORDER, RULES, NOW, chance, needs_session=True)["sid"] == "s-1"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
@pytest.mark.parametrize("types", [{"at+jwt", "jwt"}, {"jwt"}, {"x+jwt"}])
def test_what_is_signed_is_believed(algorithm: str, types: set[str]) -> None:
    """With the key's algorithm, the issuer's type and the name of the key."""
    rules = replace(
        RULES, algorithms=frozenset({algorithm}), token_types=frozenset(types)
    )
    key, public = minting_key(pem(make.key(algorithm)), rules.algorithms)
    found = key_from_pem(public, rules.algorithms).keys[0]

    token = signed(claims(rules=rules), rules, key)

    who = judged(token, rules, KeySet((found,)))
    assert who.subject == "alice"
    assert who.roles == {"admin"}
    named = signed(claims(rules=rules), rules, replace(key, key_id="k"))
    keys = KeySet((replace(found, key_id="k"), replace(found, key_id="l")))
    assert judged(named, rules, keys).scope == {"a", "b"}


def test_a_secret_signs_too() -> None:
    """HS256, shared with the gateway."""
    secret = make.key("HS256", "home")
    token = signed(claims(), RULES, MintingKey("HS256", None, secret.private))
    keys = KeySet((secret.verifying,))
    assert judged(token, RULES, keys).subject == "alice"


def judged(token: str, rules: IssuerRules, keys: KeySet) -> Principal:
    class Store:
        def find(self, _issuer: str, key_id: str | None, algorithm: str) -> Any:
            return keys.find(key_id, algorithm)

        def used(self, _issuer: str, _key: VerificationKey) -> None:
            """Nobody here asks which key was used when."""

    steps = JwtAuthenticator([rules], Store()).authenticate(token, NOW)
    with pytest.raises(StopIteration) as end:
        next(steps)
    outcome = end.value.value
    assert isinstance(outcome, Principal), outcome
    return outcome


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"secret", "no private key in PEM"),
        (pem(make.key("ES256"), b"password"), "an encrypted PEM"),
        (pem(make.key("ES384")), "none of the issuer's algorithms"),
    ],
)
def test_a_key_that_its_issuer_does_not_sign_with_is_refused(
    raw: bytes, said: str
) -> None:
    """In our words, without a byte of it."""
    with pytest.raises(ValueError, match=said):
        minting_key(raw, RULES.algorithms)
    assert "PRIVATE" not in repr(MintingKey("HS256", None, b"PRIVATE"))


def test_a_token_holds_text_as_it_is() -> None:
    """UTF-8, and no white space between."""
    assert to_json({"sub": "é", "n": 1}) == '{"sub":"é","n":1}'.encode()
    assert json.loads(to_json(claims())) == claims()

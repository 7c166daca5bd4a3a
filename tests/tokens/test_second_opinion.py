"""Two libraries about one token: PyJWT, by which we verify, and joserfc.

Whatever we believe, the other one believes too, with the same content. What it believes
and we don't, we have refused by a rule of our own, and the test names each of them.
"""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import import_key

from gateway.model import Denial, Principal, Reason
from gateway.tokens.claims import IssuerRules
from gateway.tokens.compact import split
from gateway.tokens.jwks import ALGORITHMS, KeySet
from gateway.tokens.jwt import JwtAuthenticator, verify
from tests import vectors
from tests.tokens import make
from tests.tokens.test_jwt import Keys, key_of

KEYS = {name: make.key(name) for name in sorted(ALGORITHMS)}
ISSUER, NOW = "https://login.example", 1_700_000_000
CLAIMS = {"iss": ISSUER, "sub": "alice", "aud": "shop", "exp": NOW + 600}
# Header parameters that nobody understands are ignored (RFC 7515 section 4).
REGISTRY = jws.JWSRegistry(algorithms=sorted(ALGORITHMS), strict_check_header=False)


def ours(token: str, key: make.Key) -> Principal | Denial:
    """Return what the whole authenticator makes of *token*, by this key alone."""
    rules = IssuerRules("corp", ISSUER, frozenset({key.algorithm}))
    store = Keys(corp=KeySet((key.verifying,)))
    steps = JwtAuthenticator([rules], store).authenticate(token, NOW)
    try:
        next(steps)
        steps.send(None)  # there is no other key
    except StopIteration as end:
        outcome: Principal | Denial = end.value
        return outcome
    raise AssertionError("one key is all that it may ask for")


def theirs(token: str, jwk: dict[str, Any]) -> bytes | None:
    """Return the content that joserfc would believe."""
    try:
        with warnings.catch_warnings():
            # It would rather have EdDSA called Ed25519 (RFC 9864).
            warnings.simplefilter("ignore", SecurityWarning)
            key = import_key({k: v for k, v in jwk.items() if k != "key_ops"})
            return jws.deserialize_compact(token, key, registry=REGISTRY).payload
    except Exception:  # noqa: BLE001  (it has many ways of saying no)
        return None


def check(token: str, key: make.Key) -> None:
    """Fail where the two disagree about *token*."""
    one, two = ours(token, key), theirs(token, jwk_of(key))
    if isinstance(one, Principal):
        assert two is not None
        assert json.loads(two) == one.claims
    elif two is not None:
        # It was another rule than the signature's.
        assert one.reason is not Reason.SIGNATURE_INVALID


def jwk_of(key: make.Key) -> dict[str, Any]:
    if isinstance(key.private, bytes):
        return {"kty": "oct", "k": make.b64(key.private)}
    return key.jwk


@pytest.mark.parametrize("name", KEYS)
def test_both_believe_what_is_good(name: str) -> None:
    """Each algorithm; or all that is said below would be said of nothing."""
    key = KEYS[name]
    token = make.token(key, CLAIMS)
    forged = make.token(make.key(name, "mallory"), CLAIMS, {"kid": "k1"})

    assert isinstance(ours(token, key), Principal)
    assert theirs(token, jwk_of(key)) == json.dumps(CLAIMS).encode()
    assert ours(forged, key) == Denial(Reason.SIGNATURE_INVALID)
    assert theirs(forged, jwk_of(key)) is None


def test_both_agree_on_the_wycheproof_vectors() -> None:
    """Valid or not, also those that are waived elsewhere."""
    count = 0
    for group in vectors.load("wycheproof/json_web_signature_given.json")["testGroups"]:
        key = key_of(group)
        secret = group.get("private", {})
        jwk = secret if secret.get("kty") == "oct" else group["public"]
        if key is None:  # refused before any token is seen
            continue
        for case in group["tests"]:
            token, count = case["jws"], count + 1
            parts, other = split(token), theirs(token, jwk)
            if parts is None or parts.header.get("alg") != key.algorithm:
                continue  # R42, R43; and R40, the algorithm is the key's
            believed = parts.payload if verify(parts, key) else None
            assert believed == other, case["tcId"]
    assert count > 100


TEXT = st.text("AQgw-_=.{}\"'\\\0é9", min_size=0, max_size=6)


@st.composite
def changed(draw: st.DrawFn) -> tuple[str, str]:
    """Return an algorithm, and a token of it that was changed somewhere, or not."""
    name = draw(st.sampled_from(sorted(KEYS)))
    header = draw(
        st.fixed_dictionaries(
            {"alg": st.just(name)},
            optional={
                "typ": st.sampled_from(["JWT", "at+jwt", 1, None]),
                "kid": st.sampled_from(["k1", "", None, ["k1"], "\ud800"]),
                "crit": st.sampled_from([["b64"], [], ["exp"], "b64", None]),
                "b64": st.booleans(),
                "zip": st.just("DEF"),
                "jwk": st.just(make.key("ES256", "mallory").jwk),
                "alg ": st.just("none"),
            },
        )
    )
    raw = json.dumps(header).encode()
    if draw(st.booleans()):
        other = draw(st.sampled_from([*KEYS, "none", "nOnE", "", "HS256 "]))
        # A second `alg`, before or behind the first one.
        twice = json.dumps({"alg": other}).encode()
        raw = draw(st.sampled_from([twice[:-1] + b"," + raw[1:], raw, twice]))
    token = make.sign(
        KEYS[name], raw, draw(st.sampled_from([json.dumps(CLAIMS).encode(), b"", b"{"]))
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(token)))
        gone = draw(st.integers(0, 3))
        token = token[:at] + draw(TEXT) + token[at + gone :]
    return name, token


@given(changed())
@example(("ES256", make.token(KEYS["ES256"], CLAIMS) + "="))
def test_both_agree_on_what_somebody_changed(made: tuple[str, str]) -> None:
    """Characters in and out, odd headers and doubled ones, correctly signed."""
    name, token = made
    check(token, KEYS[name])


@given(st.sampled_from(sorted(KEYS)), st.integers(min_value=0), st.binary(max_size=4))
def test_both_agree_on_other_signatures(name: str, at: int, bits: bytes) -> None:
    """Bytes of the signature itself, in its one spelling."""
    key = KEYS[name]
    text, _, signature = make.token(key, CLAIMS).rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    at %= len(raw)
    raw[at : at + len(bits)] = bits
    check(f"{text}.{make.b64(bytes(raw))}", key)

"""gateway.tokens.fernet: what it takes for a Fernet token to be believed."""

from __future__ import annotations

import base64
import hashlib
import json
import string
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Denial, Principal
from gateway.tokens.claims import IssuerRules
from gateway.tokens.fernet import (
    FernetAuthenticator,
    FernetKeys,
    key_from_password,
    read_key,
)
from tests import vectors

NOW = 1_800_000_000.0
TTL = 900.0
OLD, NEW = (base64.urlsafe_b64encode(bytes(range(n, n + 32))).decode() for n in (0, 40))
KEYS = FernetKeys([OLD])
BOTH = FernetKeys([NEW, OLD])
RULES = IssuerRules(
    "fernet",
    "https://api.example/sessions",
    frozenset(),
    audience=frozenset({"shop"}),
    max_lifetime=TTL,
    role_claim=("roles",),
    role_allow=frozenset({"admin"}),
)
DOOR = FernetAuthenticator(RULES, BOTH)
CLAIMS: dict[str, Any] = {"sub": "42", "exp": NOW + 600, "roles": ["admin"]}


def sealed(
    claims: dict[str, Any] | bytes | None = None, at: float = NOW, **more: Any
) -> str:
    """Return a token that the old key sealed; claims that are None are left out."""
    if not isinstance(claims, bytes):
        said = {**(CLAIMS if claims is None else claims), **more}
        claims = json.dumps({k: v for k, v in said.items() if v is not None}).encode()
    return KEYS.seal(claims, at)


def judged(
    token: str, now: float = NOW, door: FernetAuthenticator = DOOR
) -> Principal | Denial:
    steps = door.authenticate(token, now)
    with pytest.raises(StopIteration) as end:
        next(steps)
    outcome: Principal | Denial = end.value.value
    return outcome


def why(token: str, now: float = NOW, door: FernetAuthenticator = DOOR) -> str:
    outcome = judged(token, now, door)
    assert isinstance(outcome, Denial), outcome
    return str(outcome)


def name(token: str, door: FernetAuthenticator = DOOR) -> str:
    outcome = judged(token, door=door)
    assert isinstance(outcome, Principal), outcome
    return outcome.token_id


def test_the_claims_of_a_token_make_its_principal() -> None:
    """S1: the caller's id, sealed; `iss` and `aud` are the key's to say."""
    token = sealed(sid="s-1", scope="a b", client_id="app")

    who = judged(token)

    assert isinstance(who, Principal)
    assert (who.kind, who.issuer, who.subject) == ("user", "fernet", "42")
    assert who.roles == {"admin"}
    assert who.scope == {"a", "b"}
    assert (who.session_id, who.client_id) == ("s-1", "app")
    assert who.audience == {"shop"}
    assert (who.issued_at, who.expires_at) == (NOW, NOW + 600)
    assert who.fingerprints is not None
    assert DOOR.recognises(token)


@pytest.mark.parametrize(
    ("exp", "ends"), [(NOW + 600, NOW + 600), (NOW + 10 * TTL, NOW + TTL)]
)
def test_a_token_ends_with_its_ttl_or_its_exp(exp: float, ends: float) -> None:
    """S2: whichever comes first; accept() asks on every request."""
    who = judged(sealed(exp=exp))
    assert isinstance(who, Principal)
    assert who.expires_at == ends
    assert isinstance(judged(sealed(exp=exp), ends + 29), Principal)
    assert why(sealed(exp=exp), ends + 30) == "token.expired"


@pytest.mark.parametrize(
    ("sealed_at", "reason"),
    [
        (NOW + 31, "token.early:iat"),
        (NOW - TTL - 30, "token.expired"),
        (0, "token.expired"),
        (2**40, "token.early:iat"),
    ],
)
def test_a_tokens_own_time_counts(sealed_at: float, reason: str) -> None:
    """R51: neither from 1970 nor from the future, whatever its claims say."""
    assert why(sealed(exp=2**50, iat=NOW, at=sealed_at)) == reason
    assert isinstance(judged(sealed(at=NOW + 30)), Principal)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": None}, "token.claim:sub"),
        ({"sub": 42}, "token.claim:sub"),
        ({"sub": ""}, "token.claim:sub"),
        ({"exp": None}, "token.claim:exp"),
        ({"exp": "1800000600"}, "token.claim:exp"),
        ({"exp": True}, "token.claim:exp"),
        ({"iat": "x"}, "token.claim:iat"),
        ({"iat": True}, "token.claim:iat"),
        ({"sid": 7}, "token.claim:sid"),
        ({"roles": "admin"}, "token.claim:roles"),
        ({"scope": 1}, "token.claim:scope"),
        ({"aud": []}, "token.claim:aud"),
        ({"iss": "https://other.example"}, "token.issuer"),
        ({"cnf": {}}, "token.claim:cnf"),
        ({"cnf": {"jkt": "x"}}, "token.claim:cnf"),
        ({"jti": "x" * 129}, "token.claim:jti"),
    ],
)
def test_claims_have_the_types_that_they_have_in_a_jwt(
    claims: dict[str, Any], reason: str
) -> None:
    """R44: each present claim has to be right, and two of them present."""
    assert why(sealed(**claims)) == reason


@pytest.mark.parametrize(
    "plaintext",
    [b"", b"42", b"[]", b"hello", b'{"sub":"a","sub":"b"}', b"\xff", b"\xef\xbb\xbf{}"],
)
def test_what_is_no_strict_json_object_says_nothing(plaintext: bytes) -> None:
    """R43: no duplicate names, no BOM; all the same, sealed by our key."""
    assert why(sealed(plaintext)) == "token.malformed:payload"


def test_a_session_may_be_asked_of_every_token() -> None:
    """S2: what is tied to no session could not be ended with one."""
    door = FernetAuthenticator(RULES, BOTH, needs_session=True)
    assert why(sealed(), door=door) == "token.claim:sid"
    assert isinstance(judged(sealed(sid="s-1"), door=door), Principal)


# --- text, content, keys ----------------------------------------------------------


def test_every_mutation_of_one_character_is_refused() -> None:
    """R42, R51: nothing that differs is the token."""
    token = padded()
    for at, was in enumerate(token):
        for to in "AQgw-_=+/!\n \x00é" + string.digits:
            if to != was:
                changed = token[:at] + to + token[at + 1 :]
                assert isinstance(judged(changed), Denial), (at, to)
        assert isinstance(judged(token[:at] + token[at + 1 :]), Denial)


def other_bits(token: str) -> str:
    """Return *token* with one of the bits set that stand behind its last byte."""
    text = token.rstrip("=")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = alphabet[alphabet.index(text[-1]) + 1]
    return text[:-1] + last + token[len(text) :]


SPELLINGS: dict[str, Callable[[str], str]] = {
    "a bang": lambda t: t[:20] + "!" + t[20:],
    "a newline": lambda t: t + "\n",
    "a space": lambda t: " " + t,
    "more padding": lambda t: t + "=",
    "much more padding": lambda t: t + "====",
    "no padding": lambda t: t.rstrip("="),
    "behind the padding": lambda t: t + "AAAA",
    "trailing bits": other_bits,
    "the other alphabet": lambda t: t.replace("-", "+").replace("_", "/"),
    "not ASCII": lambda t: t + "é",
}


def padded(make: Callable[[int], str] = lambda n: sealed(n=n)) -> str:
    """Return a token with padding, and with characters that the alphabets differ in."""
    for n in range(1000):
        token = make(n)
        if token.endswith("=") and {"-", "_"} <= set(token):
            return token
    raise AssertionError("none in a thousand")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_token_has_one_spelling(spelling: str) -> None:
    """R51: `cryptography` takes most of these for the same token."""
    token = padded()
    assert isinstance(judged(token), Principal)
    other = SPELLINGS[spelling](token)
    assert other != token
    assert isinstance(judged(other), Denial)
    assert KEYS.open(other) is None


@given(st.text() | st.binary().map(lambda raw: "gAAAA" + raw.decode("latin-1")))
def test_any_text_gets_an_answer(text: str) -> None:
    """I5: a denial, whatever comes."""
    assert isinstance(judged(text), Denial)


def test_a_token_is_named_by_its_time_and_content() -> None:
    """R50: sealed anew by `rotate` it is the same token; its `jti` goes before."""
    token = sealed()
    content = int(NOW).to_bytes(8, "big") + json.dumps(CLAIMS).encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
    assert name(token) == f"sha256:{digest.rstrip('=')}"

    rotated = BOTH.rotate(token)
    theirs = MultiFernet([Fernet(NEW), Fernet(OLD)]).rotate(token).decode()
    assert rotated is not None
    assert len({token, rotated, theirs}) == 3
    assert name(rotated) == name(theirs) == name(token)
    assert name(sealed(at=NOW - 1)) != name(token)
    assert name(sealed(jti="t-1")) == "t-1"


def test_all_keys_open_and_the_first_seals() -> None:
    """S3: a key that is gone opens nothing any more."""
    token = BOTH.seal(b"{}", NOW)
    assert FernetKeys([NEW]).open(token) is not None
    assert KEYS.open(token) is None
    assert KEYS.rotate(token) is None
    rotated = BOTH.rotate(sealed())
    assert rotated is not None
    assert FernetKeys([NEW]).open(rotated) is not None
    door = FernetAuthenticator(RULES, FernetKeys([NEW]))
    assert why(sealed(), door=door) == "token.signature"


def test_what_was_sealed_is_shown_by_no_repr() -> None:
    """R96."""
    opened = KEYS.open(sealed())
    assert opened is not None
    assert "sub" not in repr(opened)


def at(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


def test_agrees_with_the_specification() -> None:
    """Its tokens open, are sealed alike, and what is invalid is refused."""
    (made,) = vectors.load("fernet-spec/generate.json")
    key = Fernet(made["secret"])
    again = key._encrypt_from_parts(
        made["src"].encode(), int(at(made["now"])), bytes(made["iv"])
    )
    assert again.decode() == made["token"]
    opened = FernetKeys([made["secret"]]).open(made["token"])
    assert opened is not None
    assert (opened.plaintext, opened.sealed_at) == (b"hello", at(made["now"]))

    (good,) = vectors.load("fernet-spec/verify.json")
    opened = FernetKeys([good["secret"]]).open(good["token"])
    assert opened is not None
    assert opened.plaintext.decode() == good["src"]

    for bad in vectors.load("fernet-spec/invalid.json"):
        rules = IssuerRules("f", "f", frozenset(), max_lifetime=bad["ttl_sec"])
        door = FernetAuthenticator(rules, FernetKeys([bad["secret"]]))
        assert why(bad["token"], at(bad["now"]), door) in {
            "token.malformed:form",
            "token.signature",
            "token.early:iat",
            "token.expired",
        }, bad["desc"]


# --- keys -------------------------------------------------------------------------


def test_a_key_is_32_bytes_in_base64url() -> None:
    """As Fernet.generate_key makes it."""
    key = Fernet.generate_key().decode()
    assert read_key(key) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "é" * 44,
        OLD[:-1],
        OLD + "=",
        OLD + "\n",
        OLD.replace("8=", "9="),
        base64.urlsafe_b64encode(bytes(31)).decode(),
        base64.urlsafe_b64encode(bytes(32)).decode(),
        "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
    ],
)
def test_what_anybody_could_guess_is_no_key(text: str) -> None:
    """R46: nor the one of the specification, or a spelling that is not the key's."""
    with pytest.raises(ValueError, match="key") as refused:
        read_key(text)
    assert not text or text not in str(refused.value)


PASSWORD, SALT = "correct horse battery", bytes(range(16))


def test_a_key_may_be_made_of_a_password() -> None:
    """S3: PBKDF2-HMAC-SHA256 with a stored salt, 600,000 iterations."""
    raw = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT, 600_000)
    key = key_from_password(PASSWORD, SALT, 600_000)
    assert key == base64.urlsafe_b64encode(raw).decode()


@pytest.mark.parametrize(
    ("password", "salt", "iterations", "said"),
    [
        (PASSWORD, SALT, 599_999, "iterations"),
        (PASSWORD, SALT, 10_000_001, "iterations"),
        (PASSWORD, SALT[:15], 600_000, "salt"),
        ("short", SALT, 600_000, "password"),
        ("changeme" * 4, SALT, 600_000, "password"),
    ],
)
def test_a_password_that_is_found_by_guessing_makes_no_key(
    password: str, salt: bytes, iterations: int, said: str
) -> None:
    """R46: too short, too little salt, too few iterations."""
    with pytest.raises(ValueError, match=said) as refused:
        key_from_password(password, salt, iterations)
    assert password not in str(refused.value)

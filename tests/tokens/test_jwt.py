"""gateway.tokens.jwt: what it takes for a signed token to be believed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial, KeyNeeded, Principal, Reason, VerificationKey
from gateway.tokens.claims import IssuerRules
from gateway.tokens.compact import split
from gateway.tokens.jwks import (
    ALGORITHMS,
    KeySet,
    key_from_secret,
    parse_key_set,
)
from gateway.tokens.jwt import NEVER_ACCESS, JwtAuthenticator, verify
from tests import vectors
from tests.tokens import make

NOW = 1_000_000.0
ISS = "https://id.example"
KEY = make.key("ES256")
RSA = make.key("RS256", "r1")
ED = make.key("EdDSA", "e1")
ED25519 = make.key("Ed25519", "e2")
CORP = IssuerRules(
    name="corp",
    issuer=ISS,
    algorithms=frozenset({"ES256", "RS256", "EdDSA", "Ed25519"}),
    token_types=frozenset({"at+jwt", "jwt"}),
    role_claim=("roles",),
    role_allow=frozenset({"admin"}),
)
HOME = IssuerRules("home", "https://home.example", frozenset({"HS256"}))
SHARED = make.key("HS256", "home")
CLAIMS: dict[str, Any] = {
    "iss": ISS,
    "aud": "shop",
    "sub": "alice",
    "exp": NOW + 600,
    "iat": NOW,
    "jti": "t-1",
}


class Keys:
    """A key store that holds what it was given."""

    def __init__(self, **sets: KeySet) -> None:
        self.sets = sets
        self.uses: list[VerificationKey] = []

    def find(
        self, issuer: str, key_id: str | None, algorithm: str
    ) -> VerificationKey | None:
        return self.sets[issuer].find(key_id, algorithm)

    def used(self, issuer: str, key: VerificationKey) -> None:
        self.uses.append(key)


STORE = Keys(
    corp=KeySet((KEY.verifying, RSA.verifying, ED.verifying, ED25519.verifying)),
    home=KeySet((VerificationKey("HS256", None, SHARED.private),)),
)
DOOR = JwtAuthenticator([CORP, HOME], STORE)


def authenticate(
    token: str, now: float = NOW, told: VerificationKey | None = None
) -> Principal | Denial:
    """Verify *token*; whoever asks for a key is *told* that it is this one."""
    steps = DOOR.authenticate(token, now)
    try:
        next(steps)
        steps.send(told)
    except StopIteration as end:
        outcome: Principal | Denial = end.value
        return outcome
    raise AssertionError("one key is all that it may ask for")


def token(
    header: dict[str, Any] | None = None, key: make.Key = KEY, **claims: Any
) -> str:
    return make.token(key, {**CLAIMS, **claims}, header)


def denied(text: str) -> Denial:
    outcome = authenticate(text)
    assert isinstance(outcome, Denial)
    return outcome


def believed(text: str) -> Principal:
    outcome = authenticate(text)
    assert isinstance(outcome, Principal), outcome
    return outcome


def test_the_key_that_verified_is_known_and_counts_as_used() -> None:
    """A forgery uses none, whichever it names."""
    STORE.uses.clear()
    forged = make.token(make.key("ES256", "mallory"), CLAIMS, {"kid": KEY.key_id})
    assert str(denied(forged)) == "token.signature"
    assert STORE.uses == []

    assert believed(token(key=RSA)).key == RSA.verifying
    assert STORE.uses == [RSA.verifying]


@pytest.mark.parametrize("key", [KEY, RSA, ED, ED25519], ids=lambda key: key.algorithm)
def test_a_whole_token_names_its_principal(key: make.Key) -> None:
    """Whichever of the issuer's keys and algorithms has signed it."""
    found = believed(token(key=key, roles=["admin", "other"]))

    assert (found.issuer, found.subject, found.token_id) == ("corp", "alice", "t-1")
    assert found.roles == {"admin"}
    assert found.audience == {"shop"}


def test_each_issuer_is_verified_by_its_own_rules() -> None:
    """A shared secret is an issuer of its own, whatever key id its tokens name."""
    found = believed(token(key=SHARED, iss=HOME.issuer))

    assert found.issuer == "home"


def test_another_issuers_key_signs_nothing_for_this_one() -> None:
    """The issuer named chooses the keys; nobody else's are looked at."""
    assert denied(token(key=SHARED)).reason is Reason.ALGORITHM_FORBIDDEN
    assert denied(token(iss=HOME.issuer)).reason is Reason.ALGORITHM_FORBIDDEN


@pytest.mark.parametrize(
    ("header", "claims", "reason", "at"),
    [
        ({"alg": None}, {}, Reason.TOKEN_MALFORMED, "alg"),
        ({"alg": 1}, {}, Reason.TOKEN_MALFORMED, "alg"),
        ({"alg": ["ES256"]}, {}, Reason.TOKEN_MALFORMED, "alg"),
        ({"alg": "none"}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": "None"}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": "nOnE"}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": "NONE"}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": ""}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": "es256"}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": "HS256"}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": "ES384"}, {}, Reason.ALGORITHM_FORBIDDEN, ""),
        ({"alg": "RS256"}, {}, Reason.KEY_UNKNOWN, ""),
        ({"kid": 1}, {}, Reason.TOKEN_MALFORMED, "kid"),
        ({"kid": ["k1"]}, {}, Reason.TOKEN_MALFORMED, "kid"),
        ({"kid": ""}, {}, Reason.TOKEN_MALFORMED, "kid"),
        ({"kid": "k" * 257}, {}, Reason.TOKEN_MALFORMED, "kid"),
        ({"kid": "k" * 256}, {}, Reason.KEY_UNKNOWN, ""),
        ({"kid": "k2"}, {}, Reason.KEY_UNKNOWN, ""),
        ({"kid": "r1"}, {}, Reason.KEY_UNKNOWN, ""),
        ({"kid": "../../etc/passwd"}, {}, Reason.KEY_UNKNOWN, ""),
        ({"kid": "' OR 1=1 --"}, {}, Reason.KEY_UNKNOWN, ""),
        ({"kid": "https://evil.example/k1"}, {}, Reason.KEY_UNKNOWN, ""),
        ({"typ": 1}, {}, Reason.TOKEN_MALFORMED, "typ"),
        ({"typ": ["at+jwt"]}, {}, Reason.TOKEN_MALFORMED, "typ"),
        ({"typ": ""}, {}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "at+jwt "}, {}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "application/application/jwt"}, {}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "dpop+jwt"}, {}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "application/DPoP+JWT"}, {}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "logout+jwt"}, {}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "secevent+jwt"}, {}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"cty": "JWT"}, {}, Reason.TYPE_FORBIDDEN, "cty"),
        ({"cty": "application/at+jwt"}, {}, Reason.TYPE_FORBIDDEN, "cty"),
        ({"cty": 1}, {}, Reason.TOKEN_MALFORMED, "cty"),
        ({"crit": ["exp"], "exp": 1}, {}, Reason.TOKEN_MALFORMED, "crit"),
        ({"crit": []}, {}, Reason.TOKEN_MALFORMED, "crit"),
        ({"crit": ["b64"], "b64": False}, {}, Reason.TOKEN_MALFORMED, "crit"),
        ({"b64": False}, {}, Reason.TOKEN_MALFORMED, "b64"),
        ({"b64": True}, {}, Reason.TOKEN_MALFORMED, "b64"),
        ({}, {"iss": "https://evil.example"}, Reason.ISSUER_UNTRUSTED, ""),
        ({}, {"iss": ISS + "/"}, Reason.ISSUER_UNTRUSTED, ""),
        ({}, {"iss": "corp"}, Reason.ISSUER_UNTRUSTED, ""),
        ({}, {"iss": [ISS]}, Reason.ISSUER_UNTRUSTED, ""),
        ({}, {"iss": None}, Reason.ISSUER_UNTRUSTED, ""),
        ({"typ": "JWT"}, {"nonce": "n"}, Reason.TYPE_FORBIDDEN, "nonce"),
        ({"typ": None}, {"nonce": "n"}, Reason.TYPE_FORBIDDEN, "nonce"),
        ({"typ": "JWT"}, {"nonce": "n", "typ": []}, Reason.TYPE_FORBIDDEN, "nonce"),
        ({"typ": "JWT"}, {"at_hash": "h"}, Reason.TYPE_FORBIDDEN, "at_hash"),
        (
            {"typ": "JWT"},
            {"c_hash": "h", "typ": "Bearer"},
            Reason.TYPE_FORBIDDEN,
            "c_hash",
        ),
        ({"typ": "JWT"}, {"events": {}}, Reason.TYPE_FORBIDDEN, "events"),
        ({"typ": "JWT"}, {"typ": "ID"}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "JWT"}, {"typ": "Refresh"}, Reason.TYPE_FORBIDDEN, "typ"),
        ({"typ": "JWT"}, {"token_use": "id"}, Reason.TYPE_FORBIDDEN, "token_use"),
        ({}, {"sub": None}, Reason.CLAIM_INVALID, "sub"),
        ({}, {"exp": "9999999999"}, Reason.CLAIM_INVALID, "exp"),
        ({}, {"exp": NOW + 1e6}, Reason.LIFETIME_TOO_LONG, "exp"),
        ({}, {"exp": NOW - 30}, Reason.TOKEN_EXPIRED, ""),
    ],
)
def test_refuses(
    header: dict[str, Any], claims: dict[str, Any], reason: Reason, at: str
) -> None:
    """Each row breaks one thing of a token that is correctly signed."""
    found = denied(token(header, **claims))
    assert (found.reason, found.at) == (reason, at)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", "form"),
        ("a.b", "form"),
        (token() + "=", "form"),
        (make.sign(KEY, b"{}", b""), "alg"),
        (make.sign(KEY, b'{"alg":"ES256"}', b""), "payload"),
        (make.sign(KEY, b'{"alg":"ES256"}', b"[]"), "payload"),
        (make.sign(KEY, b'{"alg":"ES256"}', b"[" * 5_000), "payload"),
        (make.sign(KEY, b'{"alg":"ES256"}', b'{"a":' * 1_000), "payload"),
        (make.sign(KEY, b'{"alg":"ES256"}', b'{"sub":"a","sub":"b"}'), "payload"),
        (
            make.sign(KEY, b'{"alg":"ES256"}', b'{"exp":1' + b"0" * 400 + b"}"),
            "payload",
        ),
        (make.sign(KEY, b'{"alg":"ES256"}', token().encode()), "payload"),
        (make.sign(KEY, b'{"alg":"none","alg":"ES256"}', b"{}"), "form"),
    ],
)
def test_what_is_no_token_is_refused_before_any_key_is_asked_for(
    text: str, at: str
) -> None:
    """The form first; a signature makes nothing better."""
    assert denied(text) == Denial(Reason.TOKEN_MALFORMED, at)


@pytest.mark.parametrize(
    "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt", "JWT", None]
)
def test_types_are_compared_as_media_types(typ: str | None) -> None:
    """RFC 7515 section 4.1.9: in any case, with "application/" or without."""
    assert believed(token({"typ": typ}))


@pytest.mark.parametrize("typ", sorted(NEVER_ACCESS))
def test_some_types_are_never_access(typ: str) -> None:
    """Also where the configuration lists them: a proof gives access to nothing."""
    rules = IssuerRules("corp", ISS, frozenset({"ES256"}), frozenset({typ}))
    steps = JwtAuthenticator([rules], STORE).authenticate(token({"typ": typ}), NOW)
    with pytest.raises(StopIteration) as end:
        next(steps)

    assert end.value.value == Denial(Reason.TYPE_FORBIDDEN, "typ")


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"typ": "at+jwt"}, {"nonce": "n", "at_hash": "h"}),
        ({"typ": "JWT", "nonce": "n"}, {}),  # Entra: in the header, and of no use to us
        ({"typ": "JWT"}, {"nonce": "n", "typ": "Bearer"}),  # Keycloak before 25
        ({"typ": "JWT"}, {"token_use": "access"}),  # Amazon Cognito
        ({"typ": "JWT", "cty": "json"}, {}),
        ({"typ": "JWT"}, {"typ": ["ID"]}),
    ],
)
def test_access_tokens_are_not_taken_for_something_else(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """What looks like an ID token is one only where nothing says otherwise."""
    assert believed(token(header, **claims))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": make.key("ES256", "evil").jwk},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["AAAA"]},
        {"x5t": "AAAA"},
    ],
)
def test_a_header_brings_no_key(header: dict[str, Any]) -> None:
    """It is not even read: the issuer's key verifies, and the attacker's doesn't."""
    evil = make.key("ES256", "evil")

    assert believed(token(header))
    forged = token({**header, "kid": "k1"}, key=evil)
    assert denied(forged).reason is Reason.SIGNATURE_INVALID
    assert denied(token(header, key=evil)).reason is Reason.KEY_UNKNOWN


def test_a_key_that_is_not_held_is_asked_for() -> None:
    """By issuer, key id and algorithm; what is told is used once."""
    new = make.key("ES256", "k2")
    steps = DOOR.authenticate(token(key=new), NOW)

    assert next(steps) == KeyNeeded("corp", "k2", "ES256")
    assert isinstance(authenticate(token(key=new), told=new.verifying), Principal)
    assert authenticate(token(key=new)) == Denial(Reason.KEY_UNKNOWN)


def test_a_key_for_another_algorithm_verifies_nothing() -> None:
    """Whatever a key store may answer: the algorithm is the key's (R40)."""
    told = VerificationKey("PS256", "k2", make.key("RS256").public)

    assert authenticate(token(key=make.key("RS256", "k2")), told=told) == Denial(
        Reason.SIGNATURE_INVALID
    )


@pytest.mark.parametrize(
    ("key_id", "key"), [(None, KEY), (None, RSA), (None, ED)], ids=str
)
def test_without_a_key_id_the_only_key_of_that_algorithm_counts(
    key_id: None, key: make.Key
) -> None:
    """Two would be a guess; see the key sets."""
    assert believed(token({"kid": key_id}, key=key))


def test_a_token_recognises_itself_by_its_two_dots() -> None:
    """A JWE has four, an opaque token need have none."""
    assert DOOR.recognises("a.b.c")
    assert DOOR.recognises("..")
    assert not DOOR.recognises("a.b.c.d.e")
    assert not DOOR.recognises("opaque")


def test_two_sections_for_one_issuer_do_not_load() -> None:
    """Which of them is meant must not hang on their order."""
    with pytest.raises(ValueError, match="two issuers"):
        JwtAuthenticator([CORP, IssuerRules("again", ISS, frozenset())], STORE)


def test_an_expired_token_is_not_even_remembered() -> None:
    """A dead token is a denial, and only principals are kept."""
    alive = token(exp=NOW - 29)

    assert isinstance(authenticate(alive), Principal)
    refused = authenticate(alive, NOW + 1)
    assert isinstance(refused, Denial)
    assert refused.reason is Reason.TOKEN_EXPIRED
    # Verified all the same: the log may say whose it was.
    assert refused.principal is not None
    assert refused.principal.subject == "alice"


def test_a_denial_holds_nothing_that_was_received() -> None:
    """Nothing unverified leaves: the log gets our words, not the attacker's."""
    canary = "CANARY"
    for text in (
        token({"kid": canary}),
        token({"typ": canary}),
        token({"alg": canary}),
        token(iss=canary),
        token(exp=canary),
        token(sub=canary + "\n"),
        token({"crit": [canary]}),
        make.sign(KEY, canary.encode(), canary.encode()),
    ):
        assert canary not in repr(denied(text))


# --- the text of a token is not its identity (finding 7, R42, R47, R50) -------------


@pytest.mark.parametrize("key", [KEY, ED], ids=lambda key: key.algorithm)
def test_a_token_with_one_character_changed_is_refused(key: make.Key) -> None:
    """Every place, and every kind of character; also one more and one less."""
    good = token(key=key)
    assert believed(good)
    odd = "AQgwz_-+/= .%"
    for place in range(len(good)):
        # All others in the last places of each segment, where bits could be surplus.
        near_an_end = len(good) - place < 3 or "." in good[place + 1 : place + 3]
        others = (
            odd + "BCDEFGHIJKLMNOPRSTUVWXYZabcdefhijklmnopqrstuvxy0123456789"
            if near_an_end
            else odd
        )
        before, after = good[:place], good[place + 1 :]
        changed = {before + other + after for other in others} - {good}
        for text in (*changed, before + after, before + "=" + good[place:]):
            denied(text)
    for tail in ("=", "A", ".", "\n", "\0", good):
        denied(good + tail)
    denied("\ufeff" + good)


def test_twin_signatures_are_one_token() -> None:
    """(r, n - s) verifies too: id and fingerprints are the same (R47, R50)."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for token_id in ("t-1", None):
        good = token(jti=token_id)
        text, _, signature = good.rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        other = order - int.from_bytes(raw[32:])
        twin = f"{text}.{make.b64(raw[:32] + other.to_bytes(32))}"
        assert twin != good

        one, two = believed(good), believed(twin)
        assert one.token_id == two.token_id
        assert one.fingerprints == two.fingerprints


def test_a_token_without_an_id_is_known_by_what_was_signed() -> None:
    """The digest of header and payload; another payload is another token."""
    one, again, other = (
        believed(token(jti=None, sub=sub)) for sub in ("alice", "alice", "bob")
    )
    signed = token(jti=None).rpartition(".")[0].encode()

    assert one.token_id == again.token_id != other.token_id
    assert one.token_id == "sha256:" + make.b64(hashlib.sha256(signed).digest())


ZERO_AND_ORDER = [
    bytes(64),
    bytes(32) + b"\1" * 32,
    b"\1" * 32 + bytes(32),
    bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
    * 2,
    b"\xff" * 64,
    b"",
    b"\1",
    b"\1" * 63,
    b"\1" * 65,
    b"\1" * 128,
    bytes.fromhex("3006020100020100"),  # DER
]


@pytest.mark.parametrize("key", [KEY, ED, RSA], ids=lambda key: key.algorithm)
@pytest.mark.parametrize("signature", ZERO_AND_ORDER, ids=bytes.hex)
def test_signatures_out_of_range_are_refused(key: make.Key, signature: bytes) -> None:
    """Zeros, the order itself, other lengths, DER (CVE-2022-21449)."""
    text = token(key=key).rpartition(".")[0]
    parts = split(f"{text}.{make.b64(signature or bytes(1))}")

    assert parts is not None
    assert not verify(parts, key.verifying)


def test_an_ed25519_signature_has_one_spelling() -> None:
    """S + L is the same number to a careless verifier."""
    order = 2**252 + 27742317777372353535851937790883648493
    text, _, signature = token(key=ED).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    more = int.from_bytes(raw[32:], "little") + order

    forged = f"{text}.{make.b64(raw[:32] + more.to_bytes(32, 'little'))}"
    assert denied(forged).reason is Reason.SIGNATURE_INVALID


def every_encoding(key: make.Key) -> list[bytes]:
    public = key.public
    pem = key.pem
    jwk = json.dumps(key.jwk).encode()
    forms = [
        pem,
        pem.strip(),
        pem.replace(b"\n", b"\r\n"),
        b"".join(pem.splitlines()[1:-1]),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        jwk,
        make.jwks(key),
        key.jwk.get("n", key.jwk.get("x", "")).encode(),
        b"",
    ]
    return [bom + form for form in forms for bom in (b"", b"\xef\xbb\xbf")]


@pytest.mark.parametrize("key", [KEY, RSA, ED, ED25519], ids=lambda key: key.algorithm)
def test_a_public_key_is_no_hmac_secret(key: make.Key) -> None:
    """HS256 with any encoding of the issuer's key: the key is bound to its use."""
    for secret in every_encoding(key):
        for header in (
            {"alg": "HS256", "typ": "JWT", "kid": key.key_id},
            {"alg": "HS256", "typ": "JWT"},
        ):
            text = (
                f"{make.b64(json.dumps(header).encode())}."
                f"{make.b64(json.dumps(CLAIMS).encode())}"
            )
            mac = hmac.digest(secret, text.encode(), "sha256")
            forged = f"{text}.{make.b64(mac)}"
            assert denied(forged).reason is Reason.ALGORITHM_FORBIDDEN
            parts = split(forged)
            assert parts is not None
            assert not verify(parts, key.verifying)


# --- vectors -------------------------------------------------------------------------


def key_of(group: dict[str, Any]) -> VerificationKey | None:
    """Return the key of a Wycheproof group, as we would have read it."""
    secret = group.get("private", {})
    if secret.get("kty") == "oct":
        raw = base64.urlsafe_b64decode(secret["k"] + "==")
        return key_from_secret(raw, secret["alg"])
    document = json.dumps({"keys": [group["public"]]}).encode()
    keys = parse_key_set(document, ALGORITHMS).keys
    return keys[0] if keys else None


def test_agrees_with_wycheproof() -> None:
    """Every vector but those that are waived by name, and these the other way."""
    waived = vectors.load("wycheproof/WAIVERS.json")["json_web_signature_test"]
    groups = vectors.load("wycheproof/json_web_signature_given.json")["testGroups"]
    differing = set()
    for group in groups:
        key = key_of(group)
        for case in group["tests"]:
            parts = split(case["jws"])
            valid = parts is not None and key is not None and verify(parts, key)
            if valid != (case["result"] == "valid"):
                differing.add(str(case["tcId"]))

    present = {str(case["tcId"]) for group in groups for case in group["tests"]}
    assert differing == waived.keys() & present


@pytest.mark.parametrize(
    "name",
    [
        "jws/4_1.rsa_v15_signature.json",
        "jws/4_2.rsa-pss_signature.json",
        "jws/4_3.ecdsa_signature.json",
        "jws/4_4.hmac-sha2_integrity_protection.json",
        "curve25519/jws.json",
    ],
)
def test_agrees_with_the_cookbook(name: str) -> None:
    """RFC 7520 section 4 and RFC 8037 appendix A: valid, and invalid when touched."""
    example = vectors.load(f"jose-cookbook/{name}")
    private = {"d", "p", "q", "dp", "dq", "qi"}
    jwk = {k: v for k, v in example["input"]["key"].items() if k not in private}
    jwk["alg"] = example["input"]["alg"]
    key = key_of({"public": jwk, "private": jwk})
    assert key is not None
    head, body, signature = example["output"]["compact"].split(".")

    for payload, valid in ((body, True), (make.b64(b"another"), False)):
        parts = split(f"{head}.{payload}.{signature}")
        assert parts is not None
        assert verify(parts, key) is valid


def test_detached_content_is_no_token() -> None:
    """RFC 7520 section 4.5 leaves the payload out; a JWT never does."""
    example = vectors.load("jose-cookbook/jws/4_5.signature_with_detached_content.json")
    parts = split(example["output"]["compact"])

    assert parts is not None
    assert parts.payload == b""
    assert denied(example["output"]["compact"]).at == "payload"


def test_the_json_parsing_suite_as_header_and_payload() -> None:
    """Correctly signed: what is no strict JSON is malformed, never an exception."""
    header = b'{"alg":"ES256","kid":"k1"}'
    for case in vectors.load("json-test-suite/parsing.json"):
        raw = base64.b64decode(case["b64"])
        as_payload = denied(make.sign(KEY, header, raw))
        as_header = denied(make.sign(KEY, raw or b" ", json.dumps(CLAIMS).encode()))
        whole = case["name"].startswith("y_object")
        if whole and "duplicated" not in case["name"]:
            # Past the JSON stage: an object, which says nothing of what it has to.
            assert as_payload.reason is Reason.ISSUER_UNTRUSTED, case["name"]
            assert as_header.at == "alg", case["name"]
        elif not case["name"].startswith("i_"):
            assert str(as_payload) == "token.malformed:payload", case["name"]
            assert str(as_header) == "token.malformed:form", case["name"]


def test_naughty_strings_wherever_a_string_may_stand() -> None:
    """As subject, role, key id, type, algorithm: a value or a Denial."""
    for text in vectors.load("naughty-strings/blns.json"):
        found = authenticate(token(key=ED, sub=text, roles=[text], scope=text))
        assert isinstance(found, Denial) or found.subject == text
        for name in ("kid", "typ", "alg"):
            denied(token({name: text}, key=ED))


@settings(deadline=None)
@given(st.text() | st.text(alphabet="ey.JAe0-_="))
def test_any_text_has_an_answer(text: str) -> None:
    """Never an exception, and never a principal by chance."""
    assert isinstance(authenticate(text), Denial)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "cty", "crit", "b64", "jwk", "x5c"])
CLAIM_NAMES = st.sampled_from(
    ["iss", "sub", "aud", "exp", "typ", "nonce", "token_use", "events"]
)


@settings(deadline=None)
@given(
    st.dictionaries(NAMES, JSON, max_size=2),
    st.dictionaries(CLAIM_NAMES, JSON, max_size=2),
)
def test_any_signed_content_has_an_answer(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """A correct signature over odd things is no reason to fall over."""
    outcome = authenticate(token({"typ": "JWT", **header}, key=ED, **claims))

    assert isinstance(outcome, Principal | Denial)

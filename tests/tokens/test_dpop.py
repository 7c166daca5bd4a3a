"""gateway.tokens.dpop: each check of RFC 9449 section 4.3, broken alone."""

from __future__ import annotations

import base64
import json
import time
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Reason, VerificationKey
from gateway.tokens import dpop, jwks
from gateway.tokens.dpop import (
    AHEAD,
    MAX_ID,
    MAX_PROOF,
    SLOT,
    WINDOW,
    Nonces,
    Proof,
    Proofs,
    canonical_uri,
)
from tests import vectors
from tests.tokens import make
from tests.tokens.proofs import ath_of, jkt_of, jwk_of, proof_of

NOW = 1_562_262_620.0
URL = "https://resource.example.org"
PATH = b"/protected/a%2Db"
TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
KEY = make.key("ES256", "client")
PROOFS = Proofs(URL)
ALGS = ("ES256", "EdDSA", "PS256", "RS256")


def read(
    proof: str | bytes,
    *,
    key: make.Key = KEY,
    jkt: str = "",
    proofs: Proofs = PROOFS,
    method: str = "GET",
    path: bytes = PATH,
    now: float = NOW,
) -> Proof | Denial:
    raw = proof.encode("latin-1") if isinstance(proof, str) else proof
    return proofs.read(
        raw, token=TOKEN, key=jkt or jkt_of(key), method=method, path=path, now=now
    )


def made(key: make.Key = KEY, **changes: Any) -> str:
    uri = changes.pop("htu", URL + PATH.decode())
    method = changes.pop("htm", "GET")
    return proof_of(key, TOKEN, method, uri, NOW, **changes)


def wrong(at: str) -> Denial:
    return Denial(Reason.DPOP_INVALID, at, ALGS)


def test_the_proof_of_the_rfc_holds() -> None:
    """RFC 9449 section 7.1: the request for a protected resource."""
    found = vectors.load("rfc9449-dpop/dpop_examples.json")
    proof = found["proofs"][2]
    path = b"/protectedresource"

    good = PROOFS.read(
        proof["proof"].encode(),
        token=found["access_token"],
        key=found["jkt"],
        method="GET",
        path=path,
        now=proof["payload"]["iat"],
    )

    name = sha256((found["jkt"] + proof["payload"]["jti"]).encode()).digest()
    assert good == Proof(name, proof["payload"]["iat"])
    assert proof["payload"]["ath"] == found["ath"] == ath_of(found["access_token"])


@pytest.mark.parametrize("number", [0, 1])
def test_the_proofs_of_the_rfc_for_a_token_endpoint_are_none_here(number: int) -> None:
    """They name another URL, and no token."""
    found = vectors.load("rfc9449-dpop/dpop_examples.json")
    proof = found["proofs"][number]
    now = proof["payload"]["iat"]
    server = Proofs("https://server.example.com")
    how: dict[str, Any] = {"jkt": found["jkt"], "method": "POST", "now": now}

    assert read(proof["proof"], **how) == wrong("htu")
    here = read(proof["proof"], proofs=server, path=b"/token", **how)
    assert here == wrong("ath")


@pytest.mark.parametrize("algorithm", ALGS)
def test_a_proof_of_each_algorithm_holds(algorithm: str) -> None:
    """Those of the default; others where the configuration names them."""
    key = make.key(algorithm, "client")

    assert isinstance(read(made(key), key=key), Proof)


@pytest.mark.parametrize("algorithm", ["ES384", "ES512", "RS384", "PS512"])
def test_others_hold_where_they_are_named(algorithm: str) -> None:
    """And nowhere else."""
    key = make.key(algorithm, "client")
    more = Proofs(URL, frozenset({algorithm}))

    assert read(made(key), key=key) == wrong("alg")
    assert isinstance(read(made(key), key=key, proofs=more), Proof)


HEADERS: list[tuple[str, dict[str, Any], str]] = [
    ("no type", {"typ": None}, "typ"),
    ("a token's type", {"typ": "at+jwt"}, "typ"),
    ("JWT", {"typ": "JWT"}, "typ"),
    ("in capitals", {"typ": "DPOP+JWT"}, "typ"),
    ("with its tree", {"typ": "application/dpop+jwt"}, "typ"),
    ("a list", {"typ": ["dpop+jwt"]}, "typ"),
    ("no algorithm", {"alg": None}, "alg"),
    ("none", {"alg": "none"}, "alg"),
    ("None", {"alg": "None"}, "alg"),
    ("symmetric", {"alg": "HS256"}, "alg"),
    ("a list of them", {"alg": ["ES256"]}, "alg"),
    ("unknown", {"alg": "ES256K"}, "alg"),
    ("another kind of key", {"alg": "RS256"}, "jwk"),
    ("no key", {"jwk": None}, "jwk"),
    ("a key's text", {"jwk": json.dumps(jwk_of(KEY))}, "jwk"),
    ("an empty key", {"jwk": {}}, "jwk"),
    ("two keys", {"jwk": [jwk_of(KEY), jwk_of(KEY)]}, "jwk"),
    ("a private key", {"jwk": {**jwk_of(KEY), "d": "AA"}}, "jwk"),
    ("a part of one", {"jwk": {**jwk_of(KEY), "p": "AA"}}, "jwk"),
    ("a symmetric key", {"jwk": {"kty": "oct", "k": "A" * 43}}, "jwk"),
    ("a symmetric one beside", {"jwk": {**jwk_of(KEY), "k": "AA"}}, "jwk"),
    ("for encryption", {"jwk": {**jwk_of(KEY), "use": "enc"}}, "jwk"),
    ("another curve", {"jwk": {**jwk_of(KEY), "crv": "P-384"}}, "jwk"),
    ("not on the curve", {"jwk": {**jwk_of(KEY), "x": "A" * 43}}, "jwk"),
    ("of another algorithm", {"jwk": {**jwk_of(KEY), "alg": "ES384"}}, "jwk"),
    ("an extension", {"crit": ["exp"], "exp": 1}, "signature"),
    ("another payload", {"b64": False}, "signature"),
]


@pytest.mark.parametrize(
    ("header", "at"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS]
)
def test_a_header_that_is_not_a_proofs(header: dict[str, Any], at: str) -> None:
    """Each row breaks one thing."""
    assert read(made(header=header)) == wrong(at)


def test_a_short_key_proves_nothing() -> None:
    """As in a JWK Set (R41)."""
    jwk = {"kty": "RSA", "n": make.b64(b"\xff" * 128), "e": "AQAB"}

    assert read(made(header={"alg": "RS256", "jwk": jwk})) == wrong("jwk")


WRONG: dict[str, list[Any]] = {
    "jti": [None, "", 7, ["a"], "x" * (MAX_ID + 1)],
    "htm": [None, "POST", "get", "GET ", ["GET"]],
    "htu": [
        *(None, 7, "", "/protected/a-b", ["a"], {}, URL, URL + "/"),
        *(f"{URL}/protected/a-b/", f"{URL}/Protected/a-b"),
        *(f"{URL}/protected/./a-b", f"{URL}/x/../protected/a-b"),
        f"{URL}/protected%2Fa-b",
        f"http://{URL[8:]}/protected/a-b",
        f"wss://{URL[8:]}/protected/a-b",
        f"{URL}:8443/protected/a-b",
        f"{URL}.evil.example/protected/a-b",
        f"https://user@{URL[8:]}/protected/a-b",
        f"https://{URL[8:]}\\@evil/protected/a-b",
        f" {URL}/protected/a-b",
        f"{URL}/protected/a-b\n",
        f"{URL}/protected/a-\xfc",
        "https:///protected/a-b",
        "ht!tp://[",
    ],
    "ath": [None, "", 7, TOKEN, ath_of(TOKEN + "x")],
    "iat": [
        *(None, "1562262620", True, [NOW], {}, -NOW, 0),
        *(NOW - WINDOW - 1, NOW + AHEAD + 1, 2**53),
    ],
}


@pytest.mark.parametrize(
    ("claim", "value"), [(name, value) for name in WRONG for value in WRONG[name]]
)
def test_a_claim_that_is_not_of_this_request(claim: str, value: Any) -> None:
    """Absent, of another type, or of another request or moment."""
    assert read(made(**{claim: value})) == wrong(claim)


@pytest.mark.parametrize(
    "claims",
    [
        {"jti": "x" * MAX_ID},
        {"jti": "\u00e9\n"},
        {"iat": NOW - WINDOW},
        {"iat": NOW + AHEAD},
        {"iat": NOW + 0.5},
        {"nonce": "of somebody else"},
        {"htu": f"{URL}:443/protected/a-b"},
        {"htu": f"{URL}:/protected/a-b"},
        {"htu": f"HTTPS://Resource.Example.ORG{PATH.decode()}"},
        {"htu": f"{URL}/protected/a%2db?query#fragment"},
        {"htu": f"{URL}/protected/a-b#x?y"},
        {"htu": f"{URL}/%70rotected/a-b?"},
    ],
)
def test_what_means_the_same_holds(claims: dict[str, Any]) -> None:
    """RFC 3986 section 6.2; query and fragment do not count."""
    assert isinstance(read(made(**claims)), Proof)


def test_the_method_and_the_target_are_the_requests() -> None:
    """As received, whatever Host says."""
    assert read(made(), method="POST") == wrong("htm")
    assert read(made(), path=b"/protected/a-c") == wrong("htu")
    assert isinstance(read(made(), path=b"/protected/a-b"), Proof)
    assert isinstance(read(made(htu=URL), path=b"/"), Proof)


def test_the_key_is_the_tokens() -> None:
    """Looked at before any signature: it costs a thief's victim nothing (R100)."""
    thief = make.key("ES256", "thief")

    assert read(made(thief)) == Denial(Reason.DPOP_KEY, "jkt", ALGS)
    assert read(made(thief), key=thief) != read(made(thief))


def test_the_signature_is_by_the_key_in_it() -> None:
    """Of the very bytes."""
    thief = make.key("ES256", "thief")
    header, payload, signature = made().split(".")

    assert read(made(thief, header={"jwk": jwk_of(KEY)})) == wrong("signature")
    other = made().split(".")[1]
    assert read(f"{header}.{other}.{signature}") == wrong("signature")
    zeros = make.b64(bytes(64))
    assert read(f"{header}.{payload}.{zeros}") == wrong("signature")


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda proof: proof + "=",
        lambda proof: proof + ".",
        lambda proof: " " + proof,
        lambda proof: proof + ", " + proof,
        lambda proof: proof.rpartition(".")[0],
        lambda proof: proof.rpartition(".")[0] + ".",
        lambda proof: proof.replace(".", "", 1),
        lambda proof: proof.replace("e", "\xe9", 1),
        lambda _: "x" * (MAX_PROOF + 1),
        lambda _: make.sign(KEY, b'{"typ":"dpop+jwt","typ":"dpop+jwt"}', b"{}"),
        lambda _: make.sign(KEY, b"[]", b"{}"),
    ],
)
def test_a_field_that_is_no_jwt(change: Any) -> None:
    """In strict compact form (R42), with strict JSON in it."""
    assert read(change(made())) == wrong("form")


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"jti":"a","jti":"b"}'])
def test_a_payload_that_is_no_strict_object(payload: bytes) -> None:
    """R43."""
    header = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk_of(KEY)})

    assert read(make.sign(KEY, header.encode(), payload)) == wrong("payload")


def test_one_proof_has_one_name_however_it_is_signed() -> None:
    """Of its key and `jti`: the twin signature (r, n-s) is no second proof (R50)."""
    proof = made(jti="a")
    text, _, signature = proof.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    s = order - int.from_bytes(raw[32:])
    twin = f"{text}.{make.b64(raw[:32] + s.to_bytes(32))}"

    first, second = read(proof), read(twin)
    other = read(made(jti="b"))

    assert isinstance(first, Proof)
    assert first == second
    assert isinstance(other, Proof)
    assert other.name != first.name


def test_no_refusal_costs_five_good_proofs() -> None:
    """R100: whoever has a token and no key, or sends junk, gains nothing by it."""
    thief = make.Key("RS256", "thief", rsa.generate_private_key(65537, 4096))
    junk = b'{"typ":"dpop+jwt","a":' + b"[" * 2900 + b"]" * 2900 + b"}"
    good = made()
    bad = {
        "a bad signature": good[:-8] + ("AAAAAAAA" if good[-8] != "A" else "BBBBBBBB"),
        "a large key of somebody else": made(thief),
        "deep JSON": make.sign(KEY, junk, b"{}")[:MAX_PROOF],
        "as much as there may be": "A" * (MAX_PROOF - 6) + ".AA.AA",
        "dots": "." * MAX_PROOF,
    }

    most = 5 * cost(good)

    for kind, proof in bad.items():
        assert isinstance(read(proof), Denial), kind
        assert cost(proof) < most, kind


def cost(proof: str) -> float:
    """Return the processor's time for one reading, in seconds; the least of some."""
    found = []
    for _ in range(15):
        began = time.process_time()
        for _ in range(10):
            read(proof)
        found.append((time.process_time() - began) / 10)
    return min(found)


# Nonces


def test_a_nonce_is_asked_for_and_is_good_for_a_while() -> None:
    """Without one, or with somebody's, the denial has the one to use."""
    nonces = Nonces(b"k" * 32)
    proofs = Proofs(URL, nonces=nonces)
    now = nonces.at(NOW)
    needed = Denial(Reason.DPOP_NONCE, "nonce", (now,))

    assert isinstance(read(made(nonce=now), proofs=proofs), Proof)
    assert isinstance(read(made(nonce=nonces.at(NOW - SLOT)), proofs=proofs), Proof)
    others = Nonces(b"j" * 32).at(NOW)
    for nonce in (
        *(None, "", 7, [now], others, now + "A", now[:-1], "\u00e9" * 32, "\ud800"),
        *(nonces.at(NOW - 2 * SLOT), nonces.at(NOW + SLOT)),
    ):
        if nonce == "\ud800":
            assert not nonces.is_good(nonce, NOW)
        else:
            assert read(made(nonce=nonce), proofs=proofs) == needed


def test_a_nonce_is_one_for_everybody_and_does_not_show_the_key() -> None:
    """Whoever has the key makes the same; it changes with time."""
    assert Nonces(b"k").at(NOW) == Nonces(b"k").at(NOW // SLOT * SLOT)
    assert Nonces(b"k").at(NOW) != Nonces(b"k").at(NOW + SLOT)
    assert Nonces(b"k").at(NOW) != Nonces(b"j").at(NOW)


# URIs


@pytest.mark.parametrize("url", ["", "x", "https://a/b", "ftp://a", "https://a b"])
def test_the_public_url_is_an_origin(url: str) -> None:
    """The configuration has seen to it."""
    with pytest.raises(ValueError, match="no origin"):
        Proofs(url)


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("http://example.com:80/", "http://example.com/"),
        ("http://example.com:443/", "http://example.com:443/"),
        ("https://example.com:443?x", "https://example.com/"),
        ("https://[2001:DB8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("https://a/%7e%2f%C3%a9", "https://a/~%2F%C3%A9"),
        ("https://a/%25%2e", "https://a/%25."),
    ],
)
def test_a_uri_has_one_spelling(uri: str, canonical: str) -> None:
    """And that one stays as it is."""
    assert canonical_uri(uri) == canonical


@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z%0-9:/?#\[\]@]*"))
def test_to_spell_a_uri_twice_changes_nothing(uri: str) -> None:
    """Whatever it is."""
    once = canonical_uri(uri)

    assert once is None or canonical_uri(once) == once


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_any_bytes_at_all_are_refused(raw: bytes) -> None:
    """As a field, and signed as header or payload."""
    header = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk_of(KEY)})
    for proof in (
        raw,
        make.sign(KEY, raw, b"{}").encode(),
        make.sign(KEY, header.encode(), raw).encode(),
    ):
        assert isinstance(read(proof), Denial)


# --- what is kept of a client -----------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the algorithms of the keys that are read from now on."""
    keys: list[str] = []
    read_key = jwks.key_of_proof

    def counting(jwk: dict[str, Any], algorithm: str) -> VerificationKey:
        keys.append(algorithm)
        return read_key(jwk, algorithm)

    monkeypatch.setattr(dpop, "key_of_proof", counting)
    return keys


def test_the_key_of_a_client_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else its proofs say; and each proof is verified."""
    proofs, keys = Proofs(URL), counted(monkeypatch)
    for number in range(3):
        good = read(made(jti=f"j{number}"), proofs=proofs)
        assert isinstance(good, Proof)
    assert keys == ["ES256"]

    thief = made(make.key("ES256", "thief"), header={"jwk": jwk_of(KEY)})
    assert read(thief, proofs=proofs) == wrong("signature")
    assert read(made(htm="POST"), proofs=proofs) == wrong("htm")
    stranger = jkt_of(make.key("ES256", "thief"))
    assert read(made(), proofs=proofs, jkt=stranger) == Denial(
        Reason.DPOP_KEY, "jkt", ALGS
    )
    assert keys == ["ES256"]
    assert isinstance(read(made(), proofs=Proofs(URL)), Proof)
    assert keys == ["ES256"] * 2


def test_only_who_was_believed_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can displace others' keys with proofs that don't hold."""
    proofs, keys = Proofs(URL), counted(monkeypatch)
    for _ in range(2):
        assert read(made(htm="POST"), proofs=proofs) == wrong("htm")
        assert isinstance(read(made(), proofs=proofs, jkt="other"), Denial)
    assert len(keys) == 4


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, after which it starts afresh; and in bytes."""
    monkeypatch.setattr(dpop, "MAX_KNOWN", 2)
    proofs, keys = Proofs(URL), counted(monkeypatch)
    clients = [make.key("ES256", f"client-{number}") for number in range(3)]
    for client in clients + clients[1:]:
        assert isinstance(read(made(client), key=client, proofs=proofs), Proof)
    assert len(keys) == 4

    monkeypatch.setattr(dpop, "MAX_KNOWN_HEADER", 100)
    proofs = Proofs(URL)
    for _ in range(2):
        assert isinstance(read(made(), proofs=proofs), Proof)
    assert len(keys) == 6

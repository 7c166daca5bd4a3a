"""gateway.tokens.jwks: which keys may verify, and with which algorithm."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import secrets
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import VerificationKey
from gateway.tokens.jwks import (
    ALGORITHMS,
    MAX_KEYS,
    MAX_SET,
    KeyRefused,
    KeySet,
    key_from_pem,
    key_from_secret,
    parse_key_set,
)
from tests import vectors
from tests.tokens import make

EC = make.key("ES256").jwk
RSA = make.key("RS256").jwk
ED = make.key("EdDSA").jwk
PUBLIC = frozenset(ALGORITHMS - {"HS256", "HS384", "HS512"})


def parse(*entries: Any, algorithms: frozenset[str] = ALGORITHMS) -> KeySet:
    return parse_key_set(json.dumps({"keys": entries}).encode(), algorithms)


def changed(jwk: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {k: v for k, v in {**jwk, **changes}.items() if v is not None}


@pytest.mark.parametrize("algorithm", sorted(PUBLIC))
def test_a_published_key_is_found_by_its_name(algorithm: str) -> None:
    """And by the one algorithm that its `alg` says."""
    key = make.key(algorithm)
    keys = parse(key.jwk)

    assert keys == KeySet((key.verifying,))
    assert keys.find("k1", algorithm) == key.verifying
    assert [a for a in ALGORITHMS if keys.find("k1", a)] == [algorithm]
    assert keys.find("k2", algorithm) is None


def test_a_key_without_alg_serves_what_its_issuer_may_sign_with() -> None:
    """Entra publishes such keys; the allow-list and the kind of key decide."""
    keys = parse(changed(RSA, alg=None), algorithms=frozenset({"RS256", "ES256"}))

    assert [key.algorithm for key in keys.keys] == ["RS256"]
    assert keys.find("k1", "PS256") is None


def test_a_token_without_a_key_id_gets_the_only_key() -> None:
    """Two keys with its algorithm would be a guess."""
    other = changed(EC, kid="k2")

    assert parse(EC, RSA | {"kid": "r"}).find(None, "ES256") is not None
    assert parse(EC, other).find(None, "ES256") is None
    assert parse(EC, other).find(None, "RS256") is None


def test_an_edwards_key_has_two_names_for_one_algorithm() -> None:
    """RFC 9864; the issuer's rules say which of them its tokens may carry."""
    whole, one = changed(ED, alg=None), frozenset({"Ed25519", "ES256"})

    assert [key.algorithm for key in parse(whole).keys] == ["Ed25519", "EdDSA"]
    assert [key.algorithm for key in parse(whole, algorithms=one).keys] == ["Ed25519"]


def test_keys_without_names_are_asked_by_algorithm() -> None:
    """A token's key id says nothing about a set that has none."""
    keys = parse(changed(EC, kid=None))

    assert keys.find("whatever", "ES256") is not None
    assert keys.find("whatever", "ES384") is None


def test_key_sets_know_what_has_been_withdrawn() -> None:
    """More keys withdraw nothing; another key under the same name does."""
    one, two = parse(EC), parse(EC, changed(RSA, kid="r"))
    replaced = parse(make.key("ES256", "other").jwk | {"kid": "k1"})

    assert two.lacks_any_of(one) is False
    assert one.lacks_any_of(two) is True
    assert replaced.lacks_any_of(one) is True
    assert replaced.find("k1", "ES256") is not None


WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  (that is the point)
WEAK_MODULUS = WEAK.public_key().public_numbers().n


def numbers(n: int, e: int) -> dict[str, str]:
    def spelt(number: int) -> str:
        return make.b64(number.to_bytes((number.bit_length() + 7) // 8 or 1))

    return {"n": spelt(n), "e": spelt(e)}


def with_point(raw: bytes) -> dict[str, Any]:
    return changed(ED, x=make.b64(raw))


PRIME = 2**255 - 19
MODULUS = int.from_bytes(base64.urlsafe_b64decode(RSA["n"] + "=="))

REFUSED: dict[str, tuple[Any, str]] = {
    "not an object": ("key", "not an object"),
    "a name that is a number": (changed(EC, kid=1), '"kid"'),
    "an empty name": (changed(EC, kid=""), '"kid"'),
    "a long name": (changed(EC, kid="k" * 257), '"kid"'),
    "for encryption": (changed(EC, use="enc"), '"use"'),
    "for nothing said": (EC | {"use": None}, '"use"'),
    "for signing only": (changed(EC, key_ops=["sign"]), '"key_ops"'),
    "for no list": (changed(EC, key_ops="verify"), '"key_ops"'),
    "a secret": ({"kty": "oct", "k": make.b64(b"s" * 32)}, "secret key"),
    "a secret that says it is public": (EC | {"k": "AAAA"}, "secret key"),
    "an oct without k": ({"kty": "oct", "kid": "o"}, "secret key"),
    "a private key": (EC | {"d": "AAAA"}, "private"),
    "of no kind": (changed(EC, kty=None), '"kty"'),
    "of an unknown kind": (changed(EC, kty="AKP"), '"kty"'),
    "of a kind that is a list": (changed(EC, kty=["EC"]), '"kty"'),
    "another curve": (changed(EC, crv="secp256k1"), '"crv"'),
    "a curve of another size": (changed(EC, crv="P-384"), "size"),
    "a curve that is a list": (changed(EC, crv=["P-256"]), '"crv"'),
    "a point beside the curve": (changed(EC, x=EC["y"]), "no public key"),
    "a coordinate too short": (changed(EC, x=make.b64(b"x" * 31)), "size"),
    "a coordinate that is missing": (changed(EC, y=None), '"y"'),
    "a coordinate with padding": (changed(EC, x=EC["x"] + "="), '"x"'),
    "a coordinate that is a number": (changed(EC, x=1), '"x"'),
    "an empty coordinate": (changed(EC, x=""), '"x"'),
    "an alg of another curve": (changed(EC, alg="ES384"), "algorithms"),
    "an alg for encryption": (changed(RSA, alg="RSA-OAEP"), "algorithms"),
    "an alg of secrets": (changed(RSA, alg="HS256"), "algorithms"),
    "an alg that is a list": (changed(EC, alg=["ES256"]), '"alg"'),
    "RSA too short": (RSA | numbers(WEAK_MODULUS, 65537), "bits"),
    "RSA too long": (RSA | numbers(MODULUS << 7_000 | 1, 65537), "bits"),
    "RSA with exponent one": (RSA | numbers(MODULUS, 1), "no public key"),
    "RSA with an even exponent": (RSA | numbers(MODULUS, 65536), "no public key"),
    "RSA with a huge exponent": (RSA | numbers(MODULUS, 2**40 + 1), "exponent"),
    "X25519": (changed(ED, crv="X25519"), '"crv"'),
    "Ed448": (changed(ED, crv="Ed448"), '"crv"'),
    "Ed25519 too short": (with_point(b"x" * 31), "no public key"),
    "Ed25519 of order 1": (with_point((1).to_bytes(32, "little")), "anybody"),
    "Ed25519 of order 2": (with_point((PRIME - 1).to_bytes(32, "little")), "anybody"),
    "Ed25519 of order 4": (with_point(bytes(32)), "anybody"),
    "Ed25519 of order 4, other sign": (with_point(bytes(31) + b"\x80"), "anybody"),
    "Ed25519 of order 8": (
        with_point(
            bytes.fromhex(
                "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
            )
        ),
        "anybody",
    ),
    "Ed25519 of order 8, the other": (
        with_point(
            bytes.fromhex(
                "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"
            )
        ),
        "anybody",
    ),
    "Ed25519 spelt twice": (
        with_point((PRIME + 1).to_bytes(32, "little")),
        "anybody",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_a_key_that_may_not_verify_is_left_out(row: str) -> None:
    """With its place and the reason, while the others of the set serve (R41, R48)."""
    entry, why = REFUSED[row]
    keys = parse(entry, changed(EC, kid="good"))

    assert [key.key_id for key in keys.keys] == ["good"]
    (skipped,) = keys.skipped
    assert skipped.startswith("key 1: ")
    assert why in skipped


def test_a_roca_key_is_left_out() -> None:
    """CVE-2017-15361: such a modulus can be factored."""
    # The mark of the flaw: a power of 65537 modulo each of the small primes.
    product = 1
    for prime in range(3, 168):
        if all(prime % divisor for divisor in range(2, prime)):
            product *= prime
    modulus = pow(65537, 7, product) + product * (2**2047 // product + 1)
    modulus += product * (1 - modulus % 2)
    keys = parse(RSA | numbers(modulus, 65537))

    assert keys.keys == ()
    assert "ROCA" in keys.skipped[0]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys":{}}', id="keys that are no list"),
        pytest.param(b'{"keys":[],"keys":[]}', id="keys twice"),
        pytest.param(make.jwks(*[make.key()] * 2), id="two keys of one name"),
        pytest.param(
            json.dumps({"keys": [EC, {"kty": "oct", "kid": EC["kid"]}]}).encode(),
            id="a key and a secret of one name",
        ),
        pytest.param(
            json.dumps({"keys": [changed(EC, kid=None)] * (MAX_KEYS + 1)}).encode(),
            id="too many keys",
        ),
        pytest.param(b'{"keys":[]' + b" " * MAX_SET + b"}", id="too many bytes"),
    ],
)
def test_an_ambiguous_set_is_refused_as_a_whole(document: bytes) -> None:
    """Which of two keys of one name is meant must not hang on the order of a list."""
    with pytest.raises(KeyRefused):
        parse_key_set(document, ALGORITHMS)


def certificate(private: Any) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id.example")])
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + dt.timedelta(days=1))
        .sign(private, hashes.SHA256())
    )


KEY = make.key("ES256")
CERTIFICATE = certificate(KEY.private)


@pytest.mark.parametrize("pem", [KEY.pem, CERTIFICATE.public_bytes(Encoding.PEM)])
def test_a_pem_file_is_a_set_of_one_key(pem: bytes) -> None:
    """A public key or a certificate; whatever key id a token names."""
    keys = key_from_pem(pem, frozenset({"ES256", "RS256"}))

    assert keys.find("any", "ES256") == VerificationKey("ES256", None, KEY.public)
    assert keys.find("any", "RS256") is None


def pem_of(public: Any) -> bytes:
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "not exactly one"),
        (KEY.pem + KEY.pem, "not exactly one"),
        (KEY.pem.replace(b"M", b"N"), "neither a public key"),
        (
            KEY.private.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            "private key",
        ),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "neither"),
        (pem_of(WEAK.public_key()), "bits"),
        (pem_of(ec.generate_private_key(ec.SECP256K1()).public_key()), "curve"),
        (pem_of(dsa.generate_private_key(2048).public_key()), "neither RSA"),
        (make.key("ES384").pem, "algorithms"),
    ],
)
def test_a_pem_file_that_is_no_usable_key_is_refused(pem: bytes, why: str) -> None:
    """At start, with the reason and without the content."""
    with pytest.raises(KeyRefused, match=why) as refused:
        key_from_pem(pem, frozenset({"ES256", "RS256"}))

    assert "MFk" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)]
)
def test_a_secret_is_as_long_as_its_hash(algorithm: str, size: int) -> None:
    """RFC 7518 section 3.2; a byte less is refused."""
    secret = secrets.token_bytes(size)

    assert key_from_secret(secret, algorithm).material == secret
    assert repr(secret) not in repr(key_from_secret(secret, algorithm))
    with pytest.raises(KeyRefused, match="less than"):
        key_from_secret(secret[1:], algorithm)


@pytest.mark.parametrize(
    "spell", [bytes.hex, lambda raw: base64.b64encode(raw).decode()]
)
def test_a_secret_may_be_text(spell: Any) -> None:
    """Hexadecimal or base64 of random bytes is as good."""
    assert key_from_secret(spell(secrets.token_bytes(32)).encode(), "HS256")


JWK = json.dumps(EC).encode()
PUBLIC_KEYS = {
    "PEM": KEY.pem,
    "PEM with BOM": b"\xef\xbb\xbf" + KEY.pem,
    "PEM with space before": b"\n " + KEY.pem,
    "PEM on one line": KEY.pem.replace(b"\n", b""),
    "a certificate": CERTIFICATE.public_bytes(Encoding.PEM),
    "a certificate in DER": CERTIFICATE.public_bytes(Encoding.DER),
    "DER": KEY.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "DER in base64": b"".join(KEY.pem.splitlines()[1:-1]),
    "DER in base64 lines": b"\n".join(KEY.pem.splitlines()[1:-1]),
    "JWK": JWK,
    "JWK with BOM": b"\xef\xbb\xbf" + JWK,
    "JWKS": make.jwks(KEY),
    "SSH": KEY.public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "SSH2": b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA",
    "RSA in PEM": make.key("RS256").pem,
    "RSA for SSH": make.key("RS256").public.public_bytes(
        Encoding.OpenSSH, PublicFormat.OpenSSH
    ),
}


@pytest.mark.parametrize("form", PUBLIC_KEYS)
def test_a_public_key_is_no_secret(form: str) -> None:
    """Everybody has it, and could sign with it (CVE-2022-29217)."""
    with pytest.raises(KeyRefused, match="not a secret"):
        key_from_secret(PUBLIC_KEYS[form], "HS256")


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"x",
        b"secret",
        b"secret" * 10,
        b"Secret" * 10 + b"\n",
        b"\0" * 32,
        b"ab" * 32,
        b"1234567" * 9 + b"1",
        b"your-256-bit-secret",
        b"A-String-Secret-At-Least-256-Bits-Long",
        b"super-secret-jwt-token-with-at-least-32-characters-long",
    ],
)
def test_a_secret_that_anybody_could_guess_is_refused(secret: bytes) -> None:
    """Those of manuals are tried first; what repeats is shorter than it looks (R46)."""
    with pytest.raises(KeyRefused, match="guess"):
        key_from_secret(secret, "HS256")


def test_a_secret_belongs_to_hmac() -> None:
    """No other algorithm knows what to do with it."""
    with pytest.raises(KeyRefused, match="HS256"):
        key_from_secret(secrets.token_bytes(64), "RS256")


@pytest.mark.parametrize(
    ("file", "algorithm"),
    [("3_1.ec_public_key.json", "ES512"), ("3_3.rsa_public_key.json", "RS256")],
)
def test_reads_the_keys_of_the_cookbook(file: str, algorithm: str) -> None:
    """RFC 7520 sections 3.1 and 3.3."""
    keys = parse(vectors.load(f"jose-cookbook/jwk/{file}"))

    assert keys.skipped == ()
    assert keys.find("bilbo.baggins@hobbiton.example", algorithm) is not None


VALUES = (
    st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.lists(st.text(max_size=3))
)
MEMBERS = st.sampled_from(
    ["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "key_ops", "d"]
)


@settings(deadline=None)
@given(st.sampled_from([EC, RSA, ED]), st.dictionaries(MEMBERS, VALUES, max_size=3))
def test_any_set_has_an_answer(jwk: dict[str, Any], changes: dict[str, Any]) -> None:
    """Each key is there or has a reason; never an exception."""
    keys = parse({**jwk, **changes})

    assert bool(keys.keys) != bool(keys.skipped)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_secret_and_any_pem_has_an_answer(raw: bytes) -> None:
    """A key or KeyRefused; never another exception."""
    for read in (
        lambda: key_from_secret(raw, "HS256"),
        lambda: key_from_pem(raw, ALGORITHMS),
        lambda: key_from_pem(b"-----BEGIN PUBLIC KEY-----" + raw, ALGORITHMS),
        lambda: parse_key_set(raw, ALGORITHMS),
    ):
        with contextlib.suppress(KeyRefused):
            read()

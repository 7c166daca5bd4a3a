"""gateway.identity.keys: the keys that sign identity."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc import jwk, jws

from gateway.identity.keys import (
    Algorithm,
    KeyRing,
    SigningKey,
    key_set_document,
    new_key_pem,
    public_jwk,
    signing_key_from_pem,
)
from gateway.tokens.thumbprints import b64url

ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "EdDSA", "RS256")
PEM = {algorithm: new_key_pem(algorithm) for algorithm in ALGORITHMS}
KEYS = {name: signing_key_from_pem(pem, name) for name, pem in PEM.items()}


def public_key(key: SigningKey) -> jwk.Key:
    """Return the public half of *key* as another library understands it."""
    return jwk.import_key({**public_jwk(key)})


def pem_of(
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed448.Ed448PrivateKey,
) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # RFC 9864 names it anew
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_signs_what_another_library_verifies(algorithm: Algorithm) -> None:
    """What `gateway keys generate` writes is a key that any JOSE library knows."""
    key = KEYS[algorithm]
    header = b64url(json.dumps({"alg": algorithm}).encode())
    signing_input = f"{header}.{b64url(b'hello')}".encode()
    token = signing_input.decode() + "." + b64url(key.sign(signing_input))

    found = jws.deserialize_compact(token, public_key(key), algorithms=[algorithm])

    assert found.payload == b"hello"


def test_a_signature_keeps_its_leading_zeros() -> None:
    """RFC 7518 section 3.4: R and S are 32 bytes each, and one in 128 begins so."""
    key = KEYS["ES256"]
    header = b64url(b'{"alg":"ES256"}')
    found = {}
    for number in range(5_000):
        signing_input = f"{header}.{b64url(b'%d' % number)}".encode()
        signature = key.sign(signing_input)
        assert len(signature) == 64
        for place in (0, 32):
            if signature[place] == 0:
                found[place] = signing_input, signature
        if len(found) == 2:
            break

    for signing_input, signature in found.values():
        token = f"{signing_input.decode()}.{b64url(signature)}"
        assert jws.deserialize_compact(token, public_key(key), algorithms=["ES256"])
    assert len(found) == 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_named_by_its_thumbprint(algorithm: Algorithm) -> None:
    """Two gateways that hold the same key give it the same name."""
    key = KEYS[algorithm]

    assert key.key_id == public_key(key).thumbprint()
    assert signing_key_from_pem(PEM[algorithm], algorithm).key_id == key.key_id


def test_the_key_set_holds_the_public_halves_in_order() -> None:
    """All keys of the ring are published, and not a byte that is private."""
    ring = KeyRing(tuple(KEYS.values()))

    document = json.loads(key_set_document(ring))

    assert [key["alg"] for key in document["keys"]] == list(ALGORITHMS)
    assert [set(key) for key in document["keys"]] == [
        {"kty", "crv", "x", "y", "use", "alg", "kid"},
        {"kty", "crv", "x", "use", "alg", "kid"},
        {"kty", "n", "e", "use", "alg", "kid"},
    ]
    assert ring.signer is KEYS["ES256"]


def test_a_coordinate_keeps_its_leading_zeros() -> None:
    """RFC 7518 section 6.2.1.2: 32 octets each, or other libraries refuse the key."""
    for number in range(1, 600):
        private = ec.derive_private_key(number, ec.SECP256R1())
        key = SigningKey("ES256", "k", private)
        assert [len(public_jwk(key)[name]) for name in ("x", "y")] == [43, 43]


@pytest.mark.parametrize(
    "ring", [(), (KEYS["ES256"], KEYS["ES256"])], ids=["empty", "twice"]
)
def test_a_ring_holds_each_key_once_and_at_least_one(
    ring: tuple[SigningKey, ...],
) -> None:
    """A ring that could not sign, or publish two keys of one name, is not made."""
    with pytest.raises(ValueError, match="key"):
        KeyRing(ring)


P256 = ec.generate_private_key(ec.SECP256R1())
LOCKED = P256.private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")
)
PUBLIC = P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
WEAK = pem_of(rsa.generate_private_key(65_537, 1_024))  # noqa: S505  (the subject here)


@pytest.mark.parametrize(
    ("pem", "algorithm", "words"),
    [
        (b"", "ES256", "no private key"),
        (b"canary-of-the-key", "ES256", "no private key"),
        (PUBLIC, "ES256", "no private key"),
        (LOCKED, "ES256", "encrypted"),
        (PEM["EdDSA"], "ES256", "P-256"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "ES256", "P-256"),
        (PEM["ES256"], "EdDSA", "Ed25519"),
        (pem_of(ed448.Ed448PrivateKey.generate()), "EdDSA", "Ed25519"),
        (PEM["ES256"], "RS256", "RSA"),
        (WEAK, "RS256", "2,048 bits"),
    ],
)
def test_refuses_a_key_in_words_without_a_byte_of_it(
    pem: bytes, algorithm: Algorithm, words: str
) -> None:
    """The message says what is wrong; what was read is in no part of it."""
    with pytest.raises(ValueError, match=words) as caught:
        signing_key_from_pem(pem, algorithm)

    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_private_half_is_not_shown() -> None:
    """A key in a log line or a traceback is its name."""
    key = KEYS["ES256"]

    assert repr(key) == f"SigningKey(algorithm='ES256', key_id='{key.key_id}')"

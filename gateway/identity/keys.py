"""The gateway's own keys: with these it signs what it says about a principal.

RFC 7517 (JWK), RFC 7518 section 6, RFC 8037 (Ed25519), RFC 7638 (thumbprints).
A key knows the one algorithm it may be used with, and is named by its thumbprint,
so that two gateways that hold the same key give it the same name. No message of
this module repeats a byte of what it was given (R46, R96).

Imports: cryptography, PyJWT.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import get_default_algorithms

Algorithm = Literal["ES256", "EdDSA", "RS256"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_SIGNERS = get_default_algorithms()

# RFC 7518 section 3.3. We make none larger: an assertion lives a minute, and one
# signature with 3,072 bits was measured at 2.5 ms.
_RSA_LEAST_BITS = 2_048

# RFC 7638 section 3.2 and RFC 8037 section 2: what of a key its thumbprint covers.
_REQUIRED_MEMBERS = {
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the one algorithm it may be used with."""

    algorithm: Algorithm
    key_id: str  # its thumbprint
    private: PrivateKey = field(repr=False)

    def sign(self, signing_input: bytes) -> bytes:
        """Return the JWS signature (RFC 7515 section 5.1) of *signing_input*."""
        return _SIGNERS[self.algorithm].sign(signing_input, self.private)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one identity: the first signs, all of them are published.

    Rotation is an order: publish a new key behind the current one, wait until every
    upstream has read it, put it in front, and take the old one out when the last
    assertion it signed has expired.
    """

    keys: tuple[SigningKey, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("an identity needs at least one signing key")
        if len({key.key_id for key in self.keys}) < len(self.keys):
            raise ValueError("the same signing key is given twice")

    @property
    def signer(self) -> SigningKey:
        """The key that signs."""
        return self.keys[0]


def signing_key_from_pem(pem: bytes, algorithm: Algorithm) -> SigningKey:
    """Return the private key that *pem* holds, for use with *algorithm*.

    Raises:
        ValueError: It is no such key, or too weak a one; the message may be shown.
    """
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("the key is encrypted: give it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no private key in PEM form here") from None
    return _signing_key(private, algorithm)


def new_key_pem(algorithm: Algorithm) -> bytes:
    """Make a key for *algorithm*, in PEM form (PKCS #8, not encrypted)."""
    private: PrivateKey
    if algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(
            public_exponent=65_537, key_size=_RSA_LEAST_BITS
        )
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_jwk(key: SigningKey) -> dict[str, str]:
    """Return the public half of *key* as a JWK (RFC 7517 section 4)."""
    members = _public_members(key.private)
    return {**members, "use": "sig", "alg": key.algorithm, "kid": key.key_id}


def key_set_document(ring: KeyRing) -> bytes:
    """Return the JWK Set (RFC 7517 section 5) that upstreams verify with."""
    document = {"keys": [public_jwk(key) for key in ring.keys]}
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 thumbprint of the public key *jwk*, with SHA-256."""
    covered = {name: jwk[name] for name in _REQUIRED_MEMBERS[jwk["kty"]]}
    text = json.dumps(covered, separators=(",", ":"), sort_keys=True)
    return b64url(hashlib.sha256(text.encode("ascii")).digest())


def b64url(raw: bytes) -> str:
    """Return *raw* in base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _signing_key(private: object, algorithm: Algorithm) -> SigningKey:
    """Return *private* as a signing key, or raise a ValueError that says why not."""
    if algorithm == "ES256":
        fits = isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(
            private.curve, ec.SECP256R1
        )
        asked = "an ES256 key is an EC key on the curve P-256"
    elif algorithm == "EdDSA":
        fits = isinstance(private, ed25519.Ed25519PrivateKey)
        asked = "an EdDSA key is an Ed25519 key"
    else:
        fits = isinstance(private, rsa.RSAPrivateKey) and (
            private.key_size >= _RSA_LEAST_BITS
        )
        asked = f"an RS256 key is an RSA key of at least {_RSA_LEAST_BITS:,} bits"
    if not fits:
        raise ValueError(f"{asked}; this one is not")
    assert isinstance(private, PrivateKey)
    return SigningKey(algorithm, thumbprint(_public_members(private)), private)


def _public_members(private: PrivateKey) -> dict[str, str]:
    """Return the members of the JWK that make up the public key."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.public_key().public_numbers()
        return {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}
    point = private.public_key().public_numbers()
    # RFC 7518 section 6.2.1.2: as long as the curve's field, leading zeros included.
    x, y = (b64url(n.to_bytes(32, "big")) for n in (point.x, point.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def _integer(number: int) -> str:
    """Return *number* as Base64urlUInt (RFC 7518 section 2): no leading zeros."""
    return b64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))

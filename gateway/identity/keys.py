"""The gateway's own keys: with these it signs what it says about a principal.

RFC 7517 (JWK), RFC 7518 section 6, RFC 8037 (Ed25519), RFC 7638 (thumbprints).
A key knows the one algorithm it may be used with, and is named by its thumbprint,
so that two gateways that hold the same key give it the same name. No message of
this module repeats a byte of what it was given (R46, R96).

Imports: gateway.tokens.thumbprints, cryptography, PyJWT.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import get_default_algorithms

from gateway.tokens.thumbprints import public_members, thumbprint

Algorithm = Literal["ES256", "EdDSA", "RS256"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_SIGNERS = get_default_algorithms()
_ECDSA = ec.ECDSA(hashes.SHA256())
_COORDINATE = 32  # bytes, on P-256

# RFC 7518 section 3.3. We make none larger: an assertion lives a minute, and one
# signature with 3,072 bits was measured at 2.5 ms.
_RSA_LEAST_BITS = 2_048


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the one algorithm it may be used with."""

    algorithm: Algorithm
    key_id: str  # its thumbprint
    private: PrivateKey = field(repr=False)

    def sign(self, signing_input: bytes) -> bytes:
        """Return the JWS signature (RFC 7515 section 5.1) of *signing_input*."""
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            # Each new caller costs one; PyJWT takes half as long again for it.
            return _raw(self.private.sign(signing_input, _ECDSA))
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
    members = public_members(key.private.public_key())
    return {**members, "use": "sig", "alg": key.algorithm, "kid": key.key_id}


def key_set_document(ring: KeyRing) -> bytes:
    """Return the JWK Set (RFC 7517 section 5) that upstreams verify with."""
    document = {"keys": [public_jwk(key) for key in ring.keys]}
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _raw(signature: bytes) -> bytes:
    """Return a DER *signature* by P-256 as R and S (RFC 7518 section 3.4)."""
    return b"".join(
        number.to_bytes(_COORDINATE, "big")
        for number in decode_dss_signature(signature)
    )


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
    return SigningKey(
        algorithm, thumbprint(public_members(private.public_key())), private
    )

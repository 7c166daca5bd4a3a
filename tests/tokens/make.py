"""Keys and signed tokens for tests: what an issuer would do, done here.

    KEY = make.key("ES256")
    make.token(KEY, {"iss": ..., "sub": "alice", ...}, {"typ": "at+jwt"})

Keys are made once for each algorithm and name, since RSA takes its time. `sign` signs
any header and payload, well-formed or not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

from gateway.model import VerificationKey

CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}
SIGNERS = get_default_algorithms()
SIGNERS["Ed25519"] = SIGNERS["EdDSA"]  # RFC 9864


@dataclass(frozen=True)
class Key:
    """A private key, and what is published of it."""

    algorithm: str
    key_id: str
    private: Any = field(repr=False)

    @property
    def public(self) -> Any:
        """The public key; of a secret, the secret."""
        if isinstance(self.private, bytes):
            return self.private
        return self.private.public_key()

    @property
    def verifying(self) -> VerificationKey:
        """The key as gateway.tokens holds it."""
        return VerificationKey(self.algorithm, self.key_id, self.public)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public JWK."""
        jwk = SIGNERS[self.algorithm].to_jwk(self.public, as_dict=True)
        jwk.pop("key_ops", None)
        return {**jwk, "kid": self.key_id, "alg": self.algorithm, "use": "sig"}

    @property
    def pem(self) -> bytes:
        """The public key in PEM."""
        pem: bytes = self.public.public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    @property
    def private_pem(self) -> bytes:
        """The private key in PEM."""
        pem: bytes = self.private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        return pem


@cache
def _private(algorithm: str, name: str) -> Any:
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm == "OKP":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("HS"):
        return (name.encode() + b"-0123456789abcdef" * 4)[: int(algorithm[2:]) // 8]
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key(algorithm: str = "ES256", name: str = "k1") -> Key:
    """Return the key called *name*, always the same one in a test run."""
    # RS* and PS* of one name share their key: only its use differs. So do the two names
    # of one algorithm.
    families = {"RS": "RSA", "PS": "RSA", "Ed": "OKP"}
    family = families.get(algorithm[:2], algorithm)
    return Key(algorithm, name, _private(family, name))


def jwks(*keys: Key) -> bytes:
    """Return the JWK Set of *keys*."""
    return json.dumps({"keys": [each.jwk for each in keys]}).encode()


def b64(raw: bytes) -> str:
    """Return *raw* in base64url."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def sign(key: Key, header: bytes, payload: bytes) -> str:
    """Return a token with exactly these bytes in it, correctly signed."""
    text = f"{b64(header)}.{b64(payload)}"
    signer = SIGNERS[key.algorithm]
    return f"{text}.{b64(signer.sign(text.encode(), key.private))}"


def token(
    key: Key, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None
) -> str:
    """Return a signed token.

    Args:
        key: Signs it; its algorithm and name go into the header.
        claims: Those that are None are left out.
        header: Overrides; those that are None are left out. `typ` is "at+jwt".
    """
    whole = {
        "alg": key.algorithm,
        "typ": "at+jwt",
        "kid": key.key_id,
        **(header or {}),
    }
    return sign(key, _json(whole), _json(claims))


def encrypted(
    octets: bytes, header: bytes, plaintext: bytes, *, iv: bytes = bytes(12)
) -> str:
    """Return a JWE of `dir` and A256GCM with exactly these bytes in it.

    RFC 7516 section 5.1, by nothing but AES-GCM; its IV is always the same.
    """
    head = b64(header)
    raw = AESGCM(octets).encrypt(iv, plaintext, head.encode())
    return ".".join([head, "", *map(b64, (iv, raw[:-16], raw[-16:]))])


def _json(fields: Mapping[str, Any]) -> bytes:
    kept = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(kept).encode()

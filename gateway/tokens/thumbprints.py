"""Public keys as JWKs, and the names that follow from what they are.

RFC 7517 (JWK), RFC 7518 section 6, RFC 8037 (Ed25519), RFC 7638 (thumbprints). Whoever
holds the same key gives it the same name, whatever its owner calls it.

Imports: cryptography.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

# RFC 7638 section 3.2 and RFC 8037 section 2: what of a key its thumbprint covers.
_REQUIRED_MEMBERS = {
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 thumbprint of the public key *jwk*, with SHA-256."""
    covered = {name: jwk[name] for name in _REQUIRED_MEMBERS[jwk["kty"]]}
    text = json.dumps(covered, separators=(",", ":"), sort_keys=True)
    return b64url(hashlib.sha256(text.encode("ascii")).digest())


def public_members(public: PublicKey) -> dict[str, str]:
    """Return the members of the JWK that make up *public*."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}
    if isinstance(public, rsa.RSAPublicKey):
        modulus = public.public_numbers()
        return {"kty": "RSA", "n": _integer(modulus.n), "e": _integer(modulus.e)}
    point = public.public_numbers()
    # RFC 7518 section 6.2.1.2: as long as the curve's field, leading zeros included.
    size = (public.curve.key_size + 7) // 8
    x, y = (b64url(n.to_bytes(size, "big")) for n in (point.x, point.y))
    return {"kty": "EC", "crv": _CURVES[public.curve.name], "x": x, "y": y}


def b64url(raw: bytes) -> str:
    """Return *raw* in base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _integer(number: int) -> str:
    """Return *number* as Base64urlUInt (RFC 7518 section 2): no leading zeros."""
    return b64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))

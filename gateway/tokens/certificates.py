"""X.509 as far as we judge it: a chain, the key that belongs to it, a thumbprint.

OpenSSL does TLS and judges the certificates of others. What stands here says in words
what is wrong with our own, before OpenSSL says it in its own, and when they end. The
thumbprint is that of RFC 8705 section 3.1 (`x5t#S256`).

No message repeats a byte of what was read.

Imports: cryptography.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificates

MAX_PEM = 1024 * 1024
"""The longest file that is read, in bytes: the bundle of every public CA is a fifth."""

# Seconds before the end of a certificate from which on it is told. Those who renew
# automatically do so a month before: two weeks later it has not worked.
SOON = 14 * 86400.0

_LEAST_RSA = 2048  # bits, as for signatures (R41)
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate, with those that lead to its issuer."""

    not_before: float  # of the first, Unix seconds; the others' are their issuers' care
    not_after: float
    public_key: bytes = field(repr=False)  # of the first, SubjectPublicKeyInfo

    def trouble(self, now: float) -> str:
        """Say what is wrong with its time as of *now*; "" when nothing is."""
        if now < self.not_before:
            return "it is not valid yet"
        if now >= self.not_after:
            return "it has expired"
        if now >= self.not_after - SOON:
            days = int((self.not_after - now) // _DAY)
            return f"it expires in {days} day{'' if days == 1 else 's'}"
        return ""


def read_chain(pem: bytes) -> Chain:
    """Read the certificates in *pem*.

    Raises:
        ValueError: There is none, or one that no TLS server should use.
    """
    _bound(pem)
    try:
        first = load_pem_x509_certificates(pem)[0]
        public_key = first.public_key()
        not_before = first.not_valid_before_utc.timestamp()
        not_after = first.not_valid_after_utc.timestamp()
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no PEM certificate in it, or a broken one") from None
    return Chain(not_before, not_after, _known(public_key))


def read_key(pem: bytes) -> bytes:
    """Return the public half of the private key in *pem*, as Chain has it.

    Raises:
        ValueError: There is none that can be used.
    """
    _bound(pem)
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError(
            "the key is encrypted: nobody is there to decrypt it"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no PEM private key in it, or a broken one") from None
    return _known(key.public_key())


def read_pair(certificate: bytes, key: bytes) -> Chain:
    """Read a certificate and see that *key* is its.

    Raises:
        ValueError: They are no pair; says which of them is wrong.
    """
    try:
        chain = read_chain(certificate)
    except ValueError as error:
        raise ValueError(f"certificate: {error}") from None
    try:
        public_key = read_key(key)
    except ValueError as error:
        raise ValueError(f"key: {error}") from None
    if public_key != chain.public_key:
        raise ValueError("the key does not belong to the certificate")
    return chain


def thumbprint(certificate: bytes) -> str:
    """Return `x5t#S256` of a DER *certificate*: base64url of its SHA-256."""
    digest = hashlib.sha256(certificate).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _bound(pem: bytes) -> None:
    if len(pem) > MAX_PEM:
        raise ValueError("the file is longer than 1 MiB")


def _known(key: object) -> bytes:
    if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA:
        raise ValueError(f"its RSA key has fewer than {_LEAST_RSA} bits")
    if isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raise ValueError("its key is neither RSA nor EC nor Ed25519")

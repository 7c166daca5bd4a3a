"""gateway.tokens.certificates: what is wrong with a certificate, in words."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.tokens.certificates import (
    MAX_PEM,
    SOON,
    read_chain,
    read_key,
    read_pair,
    thumbprint,
)
from tests.certificates import Authority

CA = Authority()
OURS = CA.sign()
OTHER = CA.sign()
START = OURS.certificate.not_valid_before_utc.timestamp()
END = OURS.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_pair_is_a_pair(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
) -> None:
    """EC, Ed25519 and RSA keys; the chain may go on, and may share the key's file."""
    signed = CA.sign(key=key)
    chain = read_pair(signed.pem + CA.itself.pem, signed.key_pem)
    assert chain.public_key == read_key(signed.key_pem)
    assert (chain.not_before, chain.not_after) == (START, END)
    both = signed.key_pem + signed.pem
    assert read_pair(both, both) == chain


ENCRYPTED = OURS.key.private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
)
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505  (refused)
STRANGE = [
    key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for key in (dsa.generate_private_key(1024), ed448.Ed448PrivateKey.generate())  # noqa: S505
]


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        (OURS.pem, OTHER.key_pem, "the key does not belong to the certificate"),
        (CA.itself.pem + OURS.pem, OURS.key_pem, "does not belong"),
        (b"", OURS.key_pem, "certificate: there is no PEM certificate in it"),
        (OURS.key_pem, OURS.key_pem, "certificate: there is no PEM certificate"),
        (OURS.pem[:200], OURS.key_pem, "certificate: there is no PEM certificate"),
        (OURS.pem.replace(b"A", b"B"), OURS.key_pem, "or a broken one"),
        (OURS.pem, b"", "key: there is no PEM private key in it"),
        (OURS.pem, OURS.pem, "key: there is no PEM private key in it"),
        (OURS.pem, OURS.key_pem[:100], "key: there is no PEM private key in it"),
        (OURS.pem, ENCRYPTED, "key: the key is encrypted"),
        (OURS.pem, STRANGE[0], "key: its key is neither RSA nor EC nor Ed25519"),
        (OURS.pem, STRANGE[1], "key: its key is neither RSA nor EC nor Ed25519"),
        (CA.sign(key=SHORT).pem, OURS.key_pem, "certificate: its RSA key has fewer"),
        (b"x" * (MAX_PEM + 1), OURS.key_pem, "certificate: the file is longer than"),
        (OURS.pem, b"x" * (MAX_PEM + 1), "key: the file is longer than 1 MiB"),
    ],
)
def test_what_is_no_pair_is_refused_in_words(
    certificate: bytes, key: bytes, words: str
) -> None:
    """The words say which of the two it is, and nothing of what is in them."""
    with pytest.raises(ValueError, match=words) as raised:
        read_pair(certificate, key)
    for line in (certificate + key).decode("latin-1").splitlines():
        assert not line or line not in str(raised.value)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (START - 1, "it is not valid yet"),
        (START, ""),
        (END - SOON - 1, ""),
        (END - SOON, "it expires in 14 days"),
        (END - 86400, "it expires in 1 day"),
        (END - 1, "it expires in 0 days"),
        (END, "it has expired"),
    ],
)
def test_a_certificate_says_when_it_ends(now: float, words: str) -> None:
    """Two weeks ahead: who renews automatically should have done so by then."""
    assert read_chain(OURS.pem).trouble(now) == words


def test_a_thumbprint_is_that_of_rfc_8705() -> None:
    """The digest of the whole DER certificate, base64url without padding."""
    found = thumbprint(OURS.der)
    assert len(found) == 43
    digest = hashlib.sha256(OURS.der).digest()
    assert base64.urlsafe_b64decode(found + "=") == digest

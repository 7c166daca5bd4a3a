"""Certificates made for a test: an authority, and what it signs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

START = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, directory: Path, name: str = "tls") -> tuple[str, str]:
        """Write both; return the paths of certificate and key."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(self.pem)
        key.write_bytes(self.key_pem)
        key.chmod(0o600)
        return str(certificate), str(key)


class Authority:
    """Signs whatever a test wants signed."""

    def __init__(self, name: str = "test authority") -> None:
        self.itself = _signed(name, None, None, START, timedelta(days=365))

    def sign(
        self,
        name: str = "localhost",
        *,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        start: datetime = START,
        days: float = 90,
    ) -> Signed:
        """Return a certificate for *name*, good for servers and clients."""
        return _signed(name, self.itself, key, start, timedelta(days=days))

    def write(self, directory: Path) -> str:
        path = directory / "ca.crt"
        path.write_bytes(self.itself.pem)
        return str(path)

    def client(self, shows: tuple[str, str] | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts us, and shows a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.itself.pem.decode())
        if shows:
            context.load_cert_chain(*shows)
        return context


def _signed(
    name: str,
    issuer: Signed | None,
    key: CertificateIssuerPrivateKeyTypes | None,
    start: datetime,
    lifetime: timedelta,
) -> Signed:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
    )
    signer = issuer.key if issuer else key
    if not issuer:  # since Python 3.13 an authority has to say that it is one
        usage = dict.fromkeys(
            [
                *("digital_signature", "content_commitment", "key_encipherment"),
                *("data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"),
                *("encipher_only", "decipher_only"),
            ],
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(**usage | {"key_cert_sign": True}), critical=True
        )
    if issuer:
        names = [x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(
            x509.SubjectAlternativeName(names), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    return Signed(builder.sign(signer, hashes.SHA256()), key)

"""gateway.tokens.client_certificates: who a certificate names, in one way only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.model import Binding, Denial, Principal, Reason
from gateway.tokens.certificates import thumbprint
from gateway.tokens.client_certificates import CertificateAuthenticator, text_of
from gateway.tokens.fingerprints import fingerprint
from tests.certificates import START

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = START.timestamp() + 60
BILLING = "spiffe://shop.example/billing"
ROLES = {BILLING: frozenset({"biller"}), "CN=billing": frozenset({"support"})}


def der(
    *uris: str, subject: Sequence[x509.NameAttribute[Any]] = (), days: float = 30
) -> bytes:
    """Return a certificate with these names."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=days))
    )
    if uris:
        names = [x509.UniformResourceIdentifier(each) for each in uris]
        builder = builder.add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def named(text: str) -> list[x509.NameAttribute[Any]]:
    return [x509.NameAttribute(NameOID.COMMON_NAME, text)]


def read(
    raw: bytes,
    name: Literal["spiffe", "subject"] = "spiffe",
    *,
    now: float = NOW,
    max_lifetime: float = 90 * 86400.0,
) -> Principal | Denial:
    authenticator = CertificateAuthenticator(name, ROLES, max_lifetime)
    text = text_of(raw)
    assert authenticator.recognises(text)
    steps = authenticator.authenticate(text, now)
    with pytest.raises(StopIteration) as end:
        next(steps)
    found: Principal | Denial = end.value.value
    return found


def test_a_certificate_names_a_service() -> None:
    """With the roles of its name, until it ends; revoked by its thumbprint."""
    raw = der(BILLING)

    found = read(raw)

    assert isinstance(found, Principal)
    assert (found.kind, found.issuer) == ("service", "certificates")
    assert found.subject == found.client_id == BILLING
    assert found.roles == {"biller"}
    assert found.audience == {"certificates"}
    assert found.not_before == START.timestamp()
    assert found.expires_at == START.timestamp() + 30 * 86400
    assert found.token_id == thumbprint(raw)
    assert found.binding == Binding(certificate=thumbprint(raw))
    assert found.fingerprints is not None
    token = fingerprint("token", "certificates", thumbprint(raw))
    assert found.fingerprints.token == token


def test_no_client_can_present_one_as_a_token() -> None:
    """The text begins as no b64token can; tokens are of other kinds."""
    authenticator = CertificateAuthenticator("spiffe", ROLES, 1.0)

    assert ":" in text_of(b"x").partition("x509")[2][:1]
    for token in ("a.b.c", "x509", "MIIB", ""):
        assert not authenticator.recognises(token)


def test_a_subject_is_written_as_rfc_4514_has_it() -> None:
    """All of it; a comma in a value is not the end of it."""
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a,CN=billing")
    found = read(der(subject=named("billing")), "subject")
    longer = read(der(subject=[organisation, *named("billing")]), "subject")

    assert isinstance(found, Principal)
    assert found.subject == "CN=billing"
    assert found.roles == {"support"}
    assert isinstance(longer, Principal)
    assert longer.subject == "CN=billing,O=a\\,CN=billing"
    assert not longer.roles


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (BILLING, BILLING),
        (BILLING, "https://shop.example"),
        ("https://shop.example/billing",),
        ("spiffe://shop.example",),
        ("spiffe://shop.example/",),
        ("spiffe:///billing",),
        ("spiffe://Shop.example/billing",),
        ("SPIFFE://shop.example/billing",),
        ("spiffe://shop.example:1/billing",),
        ("spiffe://u@shop.example/billing",),
        ("spiffe://shop.example/billing/",),
        ("spiffe://shop.example//billing",),
        ("spiffe://shop.example/./billing",),
        ("spiffe://shop.example/x/../billing",),
        ("spiffe://shop.example/..",),
        ("spiffe://shop.example/bill%69ng",),
        ("spiffe://shop.example/billing?a",),
        ("spiffe://shop.example/billing#a",),
        ("spiffe://shop.example/billing\n",),
        ("spiffe://shop.example/billing\x00.evil",),
        ("spiffe://shop.example/billing\r\nx: y",),
        ("spiffe://shop.example/" + "a" * 255,),
    ],
)
def test_who_is_not_named_in_one_way_is_nobody(uris: tuple[str, ...]) -> None:
    """No SPIFFE ID, two, or one with another spelling (CVE-2025-66220)."""
    assert read(der(*uris)) == Denial(Reason.CERTIFICATE_INVALID, "spiffe")


@pytest.mark.parametrize("text", ["a\x00b", "a\r\nb", "a\u202eb", "e\u0301", "\n"])
def test_a_subject_that_could_be_read_otherwise_is_nobodys(text: str) -> None:
    """Nor is an empty one."""
    wrong = Denial(Reason.CERTIFICATE_INVALID, "subject")

    assert read(der(subject=named(text)), "subject") == wrong
    assert read(der(), "subject") == wrong


def test_it_lives_no_longer_than_it_may() -> None:
    """max_lifetime bounds how long a revocation is kept."""
    raw = der(BILLING, days=30)
    end = START.timestamp() + 30 * 86400

    assert read(raw, now=end) == Denial(Reason.TOKEN_EXPIRED)
    short = read(raw, max_lifetime=29 * 86400.0)
    assert short == Denial(Reason.LIFETIME_TOO_LONG)
    assert isinstance(read(raw, now=end - 1), Principal)


@settings(max_examples=200)
@given(st.integers(0, 399), st.binary(min_size=1, max_size=3))
@example(14, b"\0")  # a serial number of zero
def test_broken_bytes_are_a_refusal(at: int, change: bytes) -> None:
    """Wherever they are, whatever the parser makes of them (I5)."""
    raw = bytearray(der(BILLING))
    at %= len(raw)
    raw[at : at + len(change)] = change

    for name in ("spiffe", "subject"):
        assert isinstance(read(bytes(raw), name), Denial | Principal)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_refusal(raw: bytes) -> None:
    """As a proxy may tell them."""
    assert read(raw) == Denial(Reason.CERTIFICATE_INVALID, "form")

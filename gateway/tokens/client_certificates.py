"""A client's certificate as its credential: who it is, by a name in it.

TLS, ours or that of the proxy who tells it, has verified the chain, and that the client
holds the key. What is judged here is whether it names somebody in one way only, and for
how long. It is revoked by its thumbprint (RFC 8705 section 3.1), as its token's id.

SPIFFE-ID sections 2 and 5.1 and X509-SVID section 2: one URI name, `spiffe://...`. A
subject is written as RFC 4514 has it.

Imports: gateway.model, gateway.tokens.certificates, gateway.tokens.claims,
gateway.tokens.fingerprints, cryptography.
"""

from __future__ import annotations

import re
import warnings
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Literal

from cryptography import x509

from gateway.model import (
    CERTIFICATES,
    Binding,
    Denial,
    Principal,
    Reason,
    Steps,
)
from gateway.tokens.certificates import thumbprint
from gateway.tokens.claims import MAX_NAME, is_name
from gateway.tokens.fingerprints import fingerprints

# A colon is in no token that a client could present (RFC 6750 section 2.1): a text
# that begins so was made here.
_PREFIX = "x509:"
# A trust domain and a path, in the characters that both may hold and no other spelling:
# no percent-encoding, no dot segments, no empty ones.
_SEGMENT = r"/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+"
_SPIFFE = re.compile(rf"spiffe://[a-z0-9._-]+(?:{_SEGMENT})+")


# What cryptography says of bytes that are none; a ValueError is most of it.
_BROKEN = (
    Warning,
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def text_of(certificate: bytes) -> str:
    """Return the DER *certificate* as the text of a credential."""
    return _PREFIX + b64encode(certificate).decode("ascii")


class CertificateAuthenticator:
    """Reads certificates whose chain has been verified.

    Args:
        name: What of one names its holder.
        roles: By these names.
        max_lifetime: Seconds from now on that one may be good.
    """

    def __init__(
        self,
        name: Literal["spiffe", "subject"],
        roles: Mapping[str, frozenset[str]],
        max_lifetime: float,
    ) -> None:
        self._name = name
        self._roles = roles
        self._max_lifetime = max_lifetime

    def recognises(self, token: str) -> bool:
        """Tell by how it begins."""
        return token.startswith(_PREFIX)

    def authenticate(
        self,
        token: str,
        now: float,
        client: str = "",  # noqa: ARG002
    ) -> Steps[Principal | Denial]:
        """Say who the holder is, as of *now* (Unix seconds)."""
        yield from ()
        der = b64decode(token[len(_PREFIX) :])
        try:
            # What the parser only bears with for now, such as a serial number of zero
            # (RFC 5280 section 4.1.2.2), is no certificate to begin with.
            with warnings.catch_warnings(action="error"):
                certificate = x509.load_der_x509_certificate(der)
                not_before = certificate.not_valid_before_utc.timestamp()
                expires_at = certificate.not_valid_after_utc.timestamp()
                spiffe = self._name == "spiffe"
                subject = _spiffe_id(certificate) if spiffe else _subject(certificate)
        except _BROKEN:
            return Denial(Reason.CERTIFICATE_INVALID, "form")
        if subject is None:
            return Denial(Reason.CERTIFICATE_INVALID, self._name)
        if now >= expires_at:
            return Denial(Reason.TOKEN_EXPIRED)
        if expires_at > now + self._max_lifetime:
            return Denial(Reason.LIFETIME_TOO_LONG)
        name = thumbprint(der)
        return Principal(
            "service",
            CERTIFICATES,
            subject,
            client_id=subject,
            token_id=name,
            not_before=not_before,
            expires_at=expires_at,
            audience=frozenset({CERTIFICATES}),
            roles=self._roles.get(subject, frozenset()),
            fingerprints=fingerprints(
                CERTIFICATES,
                token_id=name,
                session_id=None,
                subject=subject,
                client_id=subject,
            ),
            binding=Binding(certificate=name),
        )


def _spiffe_id(certificate: x509.Certificate) -> str | None:
    """Return the one SPIFFE ID, or None: there is none, or a second URI."""
    try:
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        return None
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(found) != 1 or len(found[0]) > MAX_NAME or not _SPIFFE.fullmatch(found[0]):
        return None
    return found[0]


def _subject(certificate: x509.Certificate) -> str | None:
    """Return the subject, or None: there is none, or it holds what names nobody."""
    values = [attribute.value for attribute in certificate.subject]
    text = certificate.subject.rfc4514_string()
    # Each value by itself, too: what is not printable is escaped in the whole.
    fits = all(isinstance(each, str) and is_name(each, MAX_NAME) for each in values)
    return text if values and fits and is_name(text, MAX_NAME) else None

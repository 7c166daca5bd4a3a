"""The client's certificate, as the proxy in front of us tells it.

Client-Cert (RFC 9440) holds the certificate itself, as a Byte Sequence of RFC 9651.
X-Forwarded-Client-Cert is Envoy's: elements, one for each hop, of pairs such as
`Hash=<SHA-256 in hex>;Cert="<PEM, URL-encoded>"`. Either comes down to one digest.
Whose word counts is not decided here; what is written in two ways, or in none, is
refused.

Imports: gateway.model.
"""

from __future__ import annotations

import binascii
import re
from hashlib import sha256
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.model import Denial, Headers, Reason

Field = Literal["client-cert", "xfcc", "xfcc-last"]

_BYTES = re.compile(rb":([A-Za-z0-9+/]*={0,2}):")
# A value with `,`, `;` or `=` in it is quoted, and a quote in it is escaped. Text that
# is not ASCII, and controls, are in no value that Envoy writes: it has had to learn
# that names in certificates may hold NUL (CVE-2025-66220) and line ends
# (CVE-2023-27493).
_PAIR = re.compile(
    rb'([A-Za-z]+)=(?:"((?:[ !#-\[\]-~]|\\["\\])*+)"|([!#-+\--:<>-\[\]-~]*+))'
)
_HASH = re.compile(rb"[0-9A-Fa-f]{64}")
_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n"
    rb"-----END CERTIFICATE-----(?:\r?\n)?"
)


class Told(NamedTuple):
    """A certificate that somebody has told us of."""

    digest: bytes  # SHA-256
    certificate: bytes | None  # DER; None: it was told by its digest alone


def told_certificate(headers: Headers, field: Field) -> Told | Denial | None:
    """Return the certificate that *field* tells of; None: the field is not there.

    Args:
        headers: Of a peer whose word counts.
        field: "xfcc" is X-Forwarded-Client-Cert with one element; "xfcc-last" its last
            one, which the peer itself has added.
    """
    name = b"client-cert" if field == "client-cert" else b"x-forwarded-client-cert"
    values = [value for each, value in headers if each == name]
    if not values:
        return None
    told = None
    if len(values) == 1:
        if field == "client-cert":
            certificate = byte_sequence(values[0])
            if certificate:
                told = Told(sha256(certificate).digest(), certificate)
        else:
            told = _of_elements(values[0], only_one=field == "xfcc")
    return told or Denial(Reason.BINDING_WRONG, "certificate field")


def byte_sequence(value: bytes) -> bytes | None:
    """Return what the Byte Sequence *value* holds (RFC 9651 section 4.2.7), or None.

    Padded, and without set bits behind the last byte: it has one spelling.
    """
    match = _BYTES.fullmatch(value.strip(b" "))
    if match is None:
        return None
    return _base64(match.group(1))


def _of_elements(value: bytes, *, only_one: bool) -> Told | None:
    elements = _elements(value)
    if not elements or (only_one and len(elements) > 1):
        return None
    last = elements[-1]
    said = [text for key, text in last if key == b"hash"]
    certificates = [text for key, text in last if key == b"cert"]
    if len(said) > 1 or len(certificates) > 1 or not (said or certificates):
        return None
    digests = set()
    certificate = None
    if said:
        if not _HASH.fullmatch(said[0]):
            return None
        digests.add(bytes.fromhex(said[0].decode("ascii")))
    if certificates:
        certificate = _pem(unquote_to_bytes(certificates[0]))  # once
        if not certificate:
            return None
        digests.add(sha256(certificate).digest())
    return Told(digests.pop(), certificate) if len(digests) == 1 else None


def _elements(value: bytes) -> list[list[tuple[bytes, bytes]]] | None:
    """Return the pairs of each element, their keys in lower case."""
    elements: list[list[tuple[bytes, bytes]]] = [[]]
    at = 0
    while True:
        pair = _PAIR.match(value, at)
        if pair is None:
            return None
        key, quoted, plain = pair.groups()
        elements[-1].append((key.lower(), plain if quoted is None else quoted))
        at = pair.end()
        if at == len(value):
            return elements
        if value[at : at + 1] == b",":
            elements.append([])
        elif value[at : at + 1] != b";":
            return None
        at += 1
        while value[at : at + 1] == b" ":
            at += 1


def _pem(text: bytes) -> bytes | None:
    match = _PEM.fullmatch(text)
    return None if match is None else _base64(b"".join(match.group(1).split()))


def _base64(text: bytes) -> bytes | None:
    try:
        found = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None
    return found if binascii.b2a_base64(found, newline=False) == text else None

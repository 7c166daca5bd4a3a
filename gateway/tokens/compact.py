"""The compact forms of a token, read strictly before any cryptography.

RFC 7515 section 7.1: three segments of base64url for one that is signed; RFC 7516
section 7.1: five for one that is encrypted. A token has exactly one spelling here: no
padding, no white space, no other alphabet, no set bits behind the last byte (R42).
PyJWT has changed its mind about these three times; nothing depends on it.

Imports: gateway.tokens.strict_json.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from gateway.tokens.strict_json import loads

MAX_CHARACTERS = 64 * 1024
"""However high [server].max_token is set: no token in use comes near it."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
# Only the encrypted key may be empty, where the content's key is agreed upon.
_ENCRYPTED = re.compile(
    r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)\."
    r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)"
)
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")

# Four characters are three bytes. A rest of one is no byte at all; a rest of two or
# three ends in a character of which some bits are surplus, and these have to be zero.
# To re-encode would prove the same at twice the price.
_LAST: tuple[frozenset[int] | None, ...] = (
    None,  # no rest, no surplus
    frozenset(),
    frozenset(b"AQgw"),
    frozenset(b"AEIMQUYcgkosw048"),
)


@dataclass(frozen=True, slots=True)
class Compact:
    """A token taken apart. Nothing in it is verified."""

    header: Mapping[str, Any]
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)  # header "." payload, as received


@dataclass(frozen=True, slots=True)
class Encrypted:
    """An encrypted token taken apart: its header, and how long the rest is in bytes."""

    header: Mapping[str, Any]
    encrypted_key: int
    iv: int
    tag: int


def split(token: str) -> Compact | None:
    """Take *token* apart, or return None when it is not in strict compact form.

    The payload may be empty, since RFC 7515 lets one sign nothing; it is then no
    JSON object, and no JWT.
    """
    if len(token) > MAX_CHARACTERS:
        return None
    match = _COMPACT.fullmatch(token)
    if match is None:
        return None
    raw = token.encode()
    end_of_header, end_of_payload = match.end(1), match.end(2)
    head = raw[:end_of_header]
    header = _known_header(head) if len(head) <= _MAX_KNOWN_HEADER else _header(head)
    body = _decode(raw[end_of_header + 1 : end_of_payload])
    tail = _decode(raw[end_of_payload + 1 :])
    if header is None or body is None or tail is None:
        return None
    return Compact(header, body, tail, raw[:end_of_payload])


def split_encrypted(token: str) -> Encrypted | None:
    """Take *token* apart, or return None when it is not in strict compact form."""
    if len(token) > MAX_CHARACTERS:
        return None
    match = _ENCRYPTED.fullmatch(token)
    if match is None:
        return None
    parts = [part.encode() for part in match.groups()]
    header = _header(parts[0])
    decoded = [_decode(part) for part in parts[1:]]
    if header is None or None in decoded:
        return None
    encrypted_key, iv, _, tag = (len(each or b"") for each in decoded)
    return Encrypted(header, encrypted_key, iv, tag)


def _header(characters: bytes) -> Mapping[str, Any] | None:
    text = _decode(characters)
    header = None if text is None else loads(text)
    return None if header is None else MappingProxyType(header)


# An issuer writes one header for as long as it has one key.
_known_header = lru_cache(maxsize=256)(_header)
_MAX_KNOWN_HEADER = 256  # characters


def base64url(text: str) -> bytes | None:
    """Return the bytes that *text* spells in canonical base64url, or None."""
    return _decode(text.encode()) if _BASE64URL.fullmatch(text) else None


def _decode(characters: bytes) -> bytes | None:
    allowed = _LAST[len(characters) & 3]
    if allowed is not None and characters[-1] not in allowed:
        return None
    # Surplus padding is ignored, so that two always do.
    return binascii.a2b_base64(characters.translate(_TO_BASE64) + b"==")

"""The opening handshake of a WebSocket, read from a client and checked of an upstream.

RFC 6455 sections 4.1, 4.2 and 11.3. No extension is ever agreed on, to neither side:
what none of us inflates can't be a bomb (R93).

Browsers can send no Authorization with it, so a token may stand among the subprotocols:
`bearer.<token>`, or, where the token holds what no subprotocol may, as Kubernetes has
it, `base64url.bearer.authorization.k8s.io.<token in base64url without padding>`. It is
found here, and taken out; gateway.wire.credential says what it is worth.

Imports: gateway.model, gateway.wire.framing.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from gateway.model import Denial, Headers, Reason
from gateway.wire.framing import TOKEN_CHARACTERS

VERSION = b"13"
PREFIX = b"sec-websocket-"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = 16  # bytes, random
_PLAIN = b"bearer."
_ENCODED = b"base64url.bearer.authorization.k8s.io."

# An origin as a browser serialises it (RFC 6454 section 6.2), and nearly so.
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?"
)
_PORTS = {"http": 80, "https": 443}
NO_ORIGIN = "none"
"""In a list of origins: a client that names none, so no browser."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client asks for."""

    key: bytes
    protocols: tuple[bytes, ...]  # without those that are credentials
    tokens: tuple[bytes, ...]  # those


def is_wanted(method: bytes, headers: Headers) -> bool:
    """Tell whether a request with these *headers* asks for a WebSocket.

    That it asks for an upgrade at all, and has no body, is known already.
    """
    return method == b"GET" and any(
        name == b"upgrade" and b"websocket" in _items(value.lower())
        for name, value in headers
    )


def read_offer(headers: Headers) -> Offer | Denial:
    """Read what a client asks for, or refuse what is no handshake (section 4.2.1)."""
    versions = _values(headers, b"version")
    if versions != [VERSION]:
        return Denial(Reason.UPGRADE_VERSION)
    keys = _values(headers, b"key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Denial(Reason.UPGRADE_REFUSED, "key")
    offered = protocols_of(headers)
    named = [name for name in offered if name]
    if (
        len(named) != len(offered)
        or len(set(named)) != len(named)
        or any(name.translate(None, TOKEN_CHARACTERS) for name in named)
    ):
        return Denial(Reason.UPGRADE_REFUSED, "protocol")
    tokens = tuple(filter(is_token, named))
    rest = tuple(name for name in named if not is_token(name))
    return Offer(keys[0], rest, tokens)


def protocols_of(headers: Headers) -> list[bytes]:
    """Return the subprotocols that a client offers, as they stand."""
    found: list[bytes] = []
    for value in _values(headers, b"protocol"):
        found += _items(value)
    return found


def is_token(protocol: bytes) -> bool:
    """Tell whether *protocol* is a credential, whatever it is worth."""
    return protocol.startswith((_PLAIN, _ENCODED))


def tokens_in(headers: Headers) -> list[bytes | None]:
    """Return the tokens among the subprotocols; None for one that can't be read."""
    return [_token(name) for name in protocols_of(headers) if is_token(name)]


def new_key(random: bytes) -> bytes:
    """Make a key of 16 *random* bytes."""
    return b64encode(random)


def accept_of(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept that answers *key* (section 4.2.2)."""
    return b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def chosen(headers: Headers, key: bytes, offered: tuple[bytes, ...]) -> bytes | None:
    """Check an upstream's 101 (section 4.1).

    Args:
        headers: Of its answer.
        key: The one that it was sent.
        offered: The subprotocols that it was offered.

    Returns the subprotocol it has chosen, b"" for none; None: it is no WebSocket, or
    one that nobody asked for.
    """
    upgrades = [value.lower() for name, value in headers if name == b"upgrade"]
    options = [
        option
        for name, value in headers
        if name == b"connection"
        for option in _items(value.lower())
    ]
    if upgrades != [b"websocket"] or b"upgrade" not in options:
        return None
    if _values(headers, b"accept") != [accept_of(key)]:
        return None
    if any(_values(headers, b"extensions")):
        return None
    protocols = _values(headers, b"protocol")
    if not protocols:
        return b""
    if len(protocols) > 1 or protocols[0] not in offered:
        return None
    return protocols[0]


def check_origin(headers: Headers, allowed: frozenset[str] | None) -> bool:
    """Tell whether a page of this origin may open a WebSocket (section 10.2)."""
    if allowed is None:
        return True
    named = [value for name, value in headers if name == b"origin"]
    if not named:
        return NO_ORIGIN in allowed
    # Two are refused earlier (R8).
    return canonical_origin(named[0].decode("latin-1")) in allowed


def canonical_origin(text: str) -> str:
    """Return the origin *text* the one way we compare it; "" for what is none."""
    # Some letters beyond ASCII have an ASCII one as their lower case.
    match = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
    if match is None:
        return ""
    scheme, host, port = match.groups()
    if port is None or int(port) == _PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def _values(headers: Headers, name: bytes) -> list[bytes]:
    name = PREFIX + name
    return [value for key, value in headers if key == name]


def _items(value: bytes) -> list[bytes]:
    return [item.strip(b" \t") for item in value.split(b",")]


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == _KEY
    except ValueError:
        return False


def _token(protocol: bytes) -> bytes | None:
    if protocol.startswith(_PLAIN):
        return protocol.removeprefix(_PLAIN)
    said = protocol.removeprefix(_ENCODED)
    try:
        token = urlsafe_b64decode(said + b"=" * (-len(said) % 4))
    except ValueError:
        return None
    # The decoder skips what is no letter of its alphabet, and takes two spellings.
    return token if urlsafe_b64encode(token).rstrip(b"=") == said else None

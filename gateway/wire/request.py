r"""From the bytes of a request head to a RequestHead, or a refusal to read them.

RFC 9112 section 3, RFC 9110 section 7.2, RFC 3986 sections 2 and 3. There is one
reading of the target: split at the slashes, each segment decoded once. A target that
some backend could read in another way is refused, never repaired (R3, R10), and what
was received is what is sent. The escapes of / \ # ? and % are only collected, because
a route may allow them; but what becomes a dot segment at any later decoding never
passes. Host is checked (R4), and the client's address found (R17).

Imports: gateway.model, gateway.wire.framing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Literal
from urllib.parse import unquote, unquote_to_bytes

from gateway.model import Denial, Headers, Peer, Reason, RequestHead
from gateway.wire.framing import REFUSED_METHODS, TOKEN_CHARACTERS

Networks = Sequence[IPv4Network | IPv6Network]
Scheme = Literal["http", "https"]

# A target that needs no second look: no percent sign, no segment that begins with a
# dot or a semicolon. Most requests end here, at the cost of one match.
_FIRST = rb'[!"$&-\-0-:<->@-\[\]-~]'  # printable, but none of # % . / ; ? \
_OTHER = rb'[!"$&-.0->@-\[\]-~]'  # printable, but none of # % / ? \
_QUERY = rb'[!"$-~]*+'  # printable, but no #
_PLAIN = re.compile(
    rb"(/|(?:/" + _FIRST + _OTHER + rb"*+)++/?)(?:\?(" + _QUERY + rb"))?"
)

_QUERY_TEXT = re.compile(_QUERY)
_NOT_IN_PATH = re.compile(rb"[^!-~]|[#\\]")
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
# Controls of ASCII and of Latin-1, whose NEL some readers take for a line end.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SEPARATOR = re.compile(r"[/\\]")
_NO_ESCAPES: frozenset[str] = frozenset()

# Two readers after us may each decode once more; nobody has an honest use for more.
_DECODINGS = 3

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_METHOD = 32  # bytes; the longest registered one has 17

# Fields of which two readers might believe different ones (R8). The credentials are
# counted where they are read, because a public route doesn't look at them.
_ONCE = frozenset({b"host", b"origin", b"content-type"})

# A reg-name as hosts are named (with the underscore of container networks), no final
# dot, no percent-encoding; or what looks like an IPv6 address.
_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(
    rb"(" + _LABEL + rb"(?:\." + _LABEL + rb")*|\[[0-9A-Fa-f:.]{2,45}\])"
    rb"(?::([1-9][0-9]{0,4}))?"
)
_NUMBER = re.compile("[0-9]+|0x[0-9a-f]*")
_MAX_HOST = 255  # bytes, a name's limit in the DNS
_MAX_PORT = 65535

# A trusted proxy appends what it saw; more hops than this is somebody's joke.
_MAX_HOPS = 64
_MAX_ADDRESS = 64  # characters; "[" 45 "]:65535" and blanks


def read_head(
    *,
    kind: Literal["http", "websocket"],
    method: str,
    scheme: Scheme,
    target: bytes,
    headers: Headers,
    peer: Peer,
    request_id: str,
    proxies: Networks = (),
) -> RequestHead | Denial:
    """Read a request head, or refuse one that can be read in two ways.

    Args:
        kind: What the client wants to speak.
        method: As received; compared in its exact case (R9).
        scheme: Of the connection.
        target: The request target as received.
        headers: Names lower-case, values trimmed.
        peer: The other end of the connection.
        request_id: Names this request in logs and answers.
        proxies: [server].trusted_proxies, for the walk through X-Forwarded-For.
    """
    if method not in _METHODS and not _is_method(method):
        return Denial(Reason.METHOD_UNSUPPORTED)

    segments: tuple[str, ...]
    escapes = _NO_ESCAPES
    plain = _PLAIN.fullmatch(target)
    if plain is not None:
        path, query = plain.groups()
        segments = tuple(path.decode("ascii").split("/")[1:])
    else:
        path, mark, rest = target.partition(b"?")
        query = rest if mark else None
        reading = _read_path(path)
        if isinstance(reading, str):
            return Denial(Reason.TARGET_AMBIGUOUS, reading)
        if not _QUERY_TEXT.fullmatch(rest):
            return Denial(Reason.TARGET_AMBIGUOUS, "query")
        segments, escapes = reading

    authority = origin = content_type = None
    for name, value in headers:
        if name in _ONCE:
            if name == b"host":
                if authority is not None:
                    return Denial(Reason.HOST_MALFORMED, "two hosts")
                authority = value
            elif name == b"origin":
                if origin is not None:
                    return Denial(Reason.REQUEST_MALFORMED, "two origins")
                origin = value
            else:
                if content_type is not None:
                    return Denial(Reason.REQUEST_MALFORMED, "two content types")
                content_type = value
    if authority is None:
        return Denial(Reason.HOST_MALFORMED, "no host")
    host = _host(authority) if len(authority) <= _MAX_HOST else ""
    if not host:
        return Denial(Reason.HOST_MALFORMED, "not a host")

    client = peer.address
    if peer.trusted:
        client = _client(headers, client, proxies)
        scheme = _scheme(headers, scheme)
    return RequestHead(
        kind,
        method,
        scheme,
        host,
        authority,
        target,
        path,
        query,
        segments,
        escapes,
        headers,
        peer,
        client,
        request_id,
    )


def normalise_peer(address: str) -> str:
    """Write *address*, as a socket gives it, the one way we compare and log it.

    An IPv4 address that arrives on a dual-stack socket (`::ffff:10.0.0.1`) is that
    IPv4 address (R17); a zone says which interface, not who. What is no address
    (a Unix socket's path) is "".
    """
    found = _address(address.partition("%")[0])
    return "" if found is None else str(found)


def peer_of(address: str, proxies: Networks) -> Peer:
    """Tell who is at the other end, and whether we believe its word (R17)."""
    found = _address(address.partition("%")[0])
    if found is None:
        return Peer("")
    return Peer(str(found), any(found in network for network in proxies))


def is_host(value: bytes) -> bool:
    """Tell whether *value* is a Host field that this house accepts (R4)."""
    return len(value) <= _MAX_HOST and bool(_host(value))


def _is_method(method: str) -> bool:
    name = method.encode("ascii", "replace")  # "?" is no token character
    return (
        0 < len(name) <= _MAX_METHOD
        and not name.translate(None, TOKEN_CHARACTERS)
        and name.upper() not in REFUSED_METHODS
    )


def _read_path(path: bytes) -> tuple[tuple[str, ...], frozenset[str]] | str:
    """Return segments and escapes of *path*, or the word for what is wrong with it."""
    if not path.startswith(b"/"):
        return "not a path"
    odd = _NOT_IN_PATH.search(path)
    if odd is not None:
        return {b"\\": "backslash", b"#": "fragment", b" ": "space"}.get(
            odd.group(), "character"
        )
    if _BAD_PERCENT.search(path):
        return "percent"

    raw = path.split(b"/")[1:]
    last = len(raw) - 1
    segments: list[str] = []
    escapes: set[str] = set()
    for position, piece in enumerate(raw):
        if b"%" in piece:
            try:
                segment = unquote_to_bytes(piece).decode("utf-8")
            except UnicodeDecodeError:
                return "encoding"
            if _CONTROL.search(segment):
                return "control"
            escapes |= _escapes(segment)
        else:
            segment = piece.decode("ascii")
        # A servlet container takes `;params` away before it reads the path: what has
        # nothing else is an empty segment to it.
        if not segment.partition(";")[0] and (segment or position != last):
            return "empty segment"
        if ("." in segment or b"%" in piece) and _hides_dots(segment):
            return "dot segment"
        segments.append(segment)
    return tuple(segments), frozenset(escapes)


def _escapes(segment: str) -> set[str]:
    """Name what a decoded *segment* holds that could only arrive encoded."""
    found = set()
    if "/" in segment:
        found.add("%2F")
    if "\\" in segment:
        found.add("%5C")
    if "#" in segment:
        found.add("%23")
    if "?" in segment:
        found.add("%3F")
    # Not `%25` followed by hex in the raw bytes: `%25%32%65` decodes to `%2e` too.
    if _ESCAPED.search(segment):
        found.add("%25")
    return found


def _hides_dots(segment: str) -> bool:
    """Tell whether *segment* is, holds or decodes to a dot segment, params and all."""
    for _ in range(_DECODINGS):
        text = segment
        if not text.isascii():
            # Full-width dots and slashes, for readers that normalise.
            text = unicodedata.normalize("NFKC", text)
        for part in _SEPARATOR.split(text):
            if part.partition(";")[0].strip() in {".", ".."}:
                return True
        if not _ESCAPED.search(segment):
            return False
        segment = unquote(segment)
    return True


@lru_cache(maxsize=1024)
def _host(value: bytes) -> str:
    """Return the host of a Host field, lower-case and without port; "" for none."""
    match = _HOST.fullmatch(value)
    if match is None or int(match.group(2) or 1) > _MAX_PORT:
        return ""
    host = match.group(1).decode("ascii").lower()
    if host.startswith("["):
        return host if ":" in host and _address(host[1:-1]) else ""
    # A name that ends in a number is an IPv4 address or a trick: `127.1` and
    # `127.0.0.0x1` are loopback to some resolvers.
    if _NUMBER.fullmatch(host.rpartition(".")[2]) and not _address(host):
        return ""
    return host


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _client(headers: Headers, nearest: str, proxies: Networks) -> str:
    """Walk X-Forwarded-For from the right to the first address that is no proxy.

    Only a trusted peer's field is read, and each entry is believed because the one to
    its right was written by somebody we trust. At junk the walk ends.
    """
    chain = b",".join([value for name, value in headers if name == b"x-forwarded-for"])
    client = nearest
    for entry in reversed(chain.decode("latin-1").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
        found = _entry(entry.strip(" \t"))
        if found is None:
            break
        client = str(found)
        if not any(found in network for network in proxies):
            break
    return client


def _entry(text: str) -> IPv4Address | IPv6Address | None:
    """Read one entry of X-Forwarded-For, with or without a port.

    A zone (`fe80::1%eth0`) means nothing here, and could be any text.
    """
    if len(text) > _MAX_ADDRESS or "%" in text:
        return None
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        return _address(inner)
    if text.count(":") == 1:
        text = text.partition(":")[0]
    return _address(text)


def _scheme(headers: Headers, scheme: Scheme) -> Scheme:
    """Return what the trusted proxy says the client spoke, if it says one thing."""
    said = [value for name, value in headers if name == b"x-forwarded-proto"]
    if len(said) == 1:
        word = said[0].lower()
        if word in {b"https", b"wss"}:
            return "https"
        if word in {b"http", b"ws"}:
            return "http"
    return scheme

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
import string
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
from urllib.parse import unquote

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
_IN_PATH = bytes(set(range(0x21, 0x7F)) - set(b"#\\"))
_WORDS = {b"\\": "backslash", b"#": "fragment", b" ": "space"}
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_OCTETS = {
    f"{high}{low}".encode(): bytes.fromhex(high + low)
    for high in string.hexdigits
    for low in string.hexdigits
}
# Decoding is the one thing here that costs more than reading. 340 characters of
# Japanese have as many escapes.
_MAX_ESCAPES = 1024
_MAX_SEGMENTS = 512  # what matches and rules walk through

# Of a decoded path, in which an encoded slash is NUL. Controls of ASCII and of Latin-1,
# whose NEL some readers take for a line end.
_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f]")
# A servlet container takes `;params` away before it reads the path: a segment of
# nothing else is an empty one to it, and `..;x` is `..`.
_EMPTY = re.compile("/[/;]")
_DOTS = re.compile(r"[/\\\x00] *\.\.? *(?:[/\\\x00;]|\Z)")
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
_ESCAPES = {"\0": "%2F", "\\": "%5C", "#": "%23", "?": "%3F"}
_NO_ESCAPES: frozenset[str] = frozenset()
# What normalises to a dot, a slash, a backslash or a semicolon (NFKC), for readers
# that normalise after they have decoded.
_LOOKALIKES = str.maketrans(
    {
        "\N{ONE DOT LEADER}": ".",
        "\N{TWO DOT LEADER}": "..",
        "\N{PRESENTATION FORM FOR VERTICAL TWO DOT LEADER}": "..",
        "\N{SMALL FULL STOP}": ".",
        "\N{FULLWIDTH FULL STOP}": ".",
        "\N{FULLWIDTH SOLIDUS}": "/",
        "\N{SMALL REVERSE SOLIDUS}": "\\",
        "\N{FULLWIDTH REVERSE SOLIDUS}": "\\",
        "\N{GREEK QUESTION MARK}": ";",
        "\N{PRESENTATION FORM FOR VERTICAL SEMICOLON}": ";",
        "\N{SMALL SEMICOLON}": ";",
        "\N{FULLWIDTH SEMICOLON}": ";",
    }
)
# Two readers after us may each decode once more; nobody has an honest use for more.
_DECODINGS = 3

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_METHOD = 32  # bytes; the longest registered one has 17

# Fields of which two readers might believe different ones (R8). The credentials are
# counted where they are read, because a public route doesn't look at them.
_TWICE = {
    b"host": Denial(Reason.HOST_MALFORMED, "two hosts"),
    b"origin": Denial(Reason.REQUEST_MALFORMED, "two origins"),
    b"content-type": Denial(Reason.REQUEST_MALFORMED, "two content types"),
}

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
        if isinstance(reading, Denial):
            return reading
        if not _QUERY_TEXT.fullmatch(rest):
            return Denial(Reason.TARGET_AMBIGUOUS, "query")
        segments, escapes = reading
    if len(segments) > _MAX_SEGMENTS:
        return Denial(Reason.HEAD_TOO_LARGE, "segments")

    single: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _TWICE:
            if name in single:
                return _TWICE[name]
            single[name] = value
    authority = single.get(b"host")
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


def _read_path(path: bytes) -> tuple[tuple[str, ...], frozenset[str]] | Denial:
    """Return segments and escapes of *path*.

    Works on the whole path, because a head of 16 KiB has room for thousands of
    segments. An encoded slash is a NUL meanwhile, which nothing else decodes to, so
    that splitting still happens at the raw slashes alone; and no UTF-8 sequence holds
    one.
    """
    if not path.startswith(b"/"):
        return Denial(Reason.TARGET_AMBIGUOUS, "not a path")
    odd = path.translate(None, _IN_PATH)
    if odd:
        return Denial(Reason.TARGET_AMBIGUOUS, _WORDS.get(odd[:1], "character"))
    if path.count(b"/") > _MAX_SEGMENTS:
        return Denial(Reason.HEAD_TOO_LARGE, "segments")
    if path.count(b"%") > _MAX_ESCAPES:
        return Denial(Reason.HEAD_TOO_LARGE, "escapes")
    if _BAD_PERCENT.search(path):
        return Denial(Reason.TARGET_AMBIGUOUS, "percent")
    if b"%00" in path:
        return Denial(Reason.TARGET_AMBIGUOUS, "control")

    first, *rest = path.replace(b"%2F", b"\0").replace(b"%2f", b"\0").split(b"%")
    octets = first + b"".join([_OCTETS[piece[:2]] + piece[2:] for piece in rest])
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return Denial(Reason.TARGET_AMBIGUOUS, "encoding")
    if _CONTROL.search(text):
        return Denial(Reason.TARGET_AMBIGUOUS, "control")
    if _EMPTY.search(text):
        return Denial(Reason.TARGET_AMBIGUOUS, "empty segment")
    if _hides_dots(text):
        return Denial(Reason.TARGET_AMBIGUOUS, "dot segment")

    escapes = {name for character, name in _ESCAPES.items() if character in text}
    # Not `%25` followed by hex in the raw bytes: `%25%32%65` decodes to `%2e` too.
    if _ESCAPED.search(text):
        escapes.add("%25")
    segments = text.split("/")[1:]
    if "\0" in text:
        segments = [segment.replace("\0", "/") for segment in segments]
    return tuple(segments), frozenset(escapes)


def _hides_dots(text: str) -> bool:
    """Tell whether a decoded path holds a dot segment, or would if decoded again."""
    for _ in range(_DECODINGS):
        if _DOTS.search(text if text.isascii() else text.translate(_LOOKALIKES)):
            return True
        if not _ESCAPED.search(text):
            return False
        text = unquote(text)
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

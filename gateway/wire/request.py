"""From the bytes of a request head to a RequestHead, or a refusal to read them.

RFC 9112 section 3, RFC 9110 section 7.2. What could be read in two ways is refused: the
target (gateway.wire.target), a Host that is none, or two (R4), a method that would
make us a tunnel (R3). And whose request it is: the address of the socket, or what
proxies that we trust say of it (R17).

Imports: gateway.model, gateway.wire.framing, gateway.wire.target.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Literal

from gateway.model import (
    Denial,
    Headers,
    HeaderSection,
    Peer,
    Reason,
    RequestHead,
)
from gateway.wire.framing import REFUSED_METHODS, TOKEN_CHARACTERS
from gateway.wire.target import read_target

Networks = tuple[IPv4Network | IPv6Network, ...]
Scheme = Literal["http", "https"]

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


def read_section(headers: Headers) -> HeaderSection | Denial:
    """Read the fields of a request head, or refuse those that say two things.

    Args:
        headers: Names lower-case, values trimmed.
    """
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
    return HeaderSection(headers, host, authority)


def read_head(
    *,
    kind: Literal["http", "websocket"],
    method: str,
    scheme: Scheme,
    target: bytes,
    headers: Headers | HeaderSection,
    peer: Peer,
    proxies: Networks = (),
) -> RequestHead | Denial:
    """Read a request head, or refuse one that can be read in two ways.

    Args:
        kind: What the client wants to speak.
        method: As received; compared in its exact case (R9).
        scheme: Of the connection.
        target: The request target as received.
        headers: Names lower-case, values trimmed; or what they were read as before.
        peer: The other end of the connection.
        proxies: [server].trusted_proxies, for the walk through X-Forwarded-For.
    """
    if method not in _METHODS and not _is_method(method):
        return Denial(Reason.METHOD_UNSUPPORTED)

    reading = read_target(target)
    if isinstance(reading, Denial):
        return reading
    path, query, segments, escapes = reading

    section = read_section(headers) if isinstance(headers, tuple) else headers
    if isinstance(section, Denial):
        return section

    client = peer.address
    if peer.trusted:
        client = _client(section.headers, client, proxies)
        scheme = _scheme(section.headers, scheme)
    return RequestHead(
        kind,
        method,
        scheme,
        section.host,
        section.authority,
        target,
        path,
        query,
        segments,
        escapes,
        section.headers,
        peer,
        client,
        section,
    )


def normalise_peer(address: str) -> str:
    """Write *address*, as a socket gives it, the one way we compare and log it.

    An IPv4 address that arrives on a dual-stack socket (`::ffff:10.0.0.1`) is that
    IPv4 address (R17); a zone says which interface, not who. What is no address
    (a Unix socket's path) is "".
    """
    found = _address(address.partition("%")[0])
    return "" if found is None else str(found)


def household(address: str) -> str:
    """Return whom what comes from *address* is counted for; "" for nobody.

    Whoever has one IPv6 address has the /64 around it (RFC 6177), and could come by
    another one each time. Where the address says nothing, as of a Unix socket or of
    loopback, it is nobody in particular.

    Args:
        address: An address of a client, normalised.
    """
    found = _address(address)
    if found is None or found.is_loopback:
        return ""
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found) >> 64 << 64, 64)))
    return address


@lru_cache(maxsize=4096)
def peer_of(address: str, proxies: Networks) -> Peer:
    """Tell who is at the other end, and whether we believe its word (R17).

    The connections of one address have one Peer.
    """
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

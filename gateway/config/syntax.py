"""The small things one writes in a config: addresses, hosts, URLs, networks, names.

Each function takes the text and returns what it means, or raises a ValueError whose
words never repeat the text: it may have come from a secret.

Imports: the standard library, gateway.config.settings, gateway.tokens.api_key,
gateway.wire.headers.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from gateway.config.settings import Address
from gateway.tokens.api_key import PREFIX, digest_in, is_key_id
from gateway.wire.headers import CREDENTIALS, HOP_BY_HOP, WRITTEN

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST_HOST = 253  # characters, RFC 1035 section 2.3.4
_LAST_PORT = 65535
_MAPPED = 96  # bits in front of an IPv4 address in ::ffff:0:0/96
_V4 = re.compile(r"[0-9.]+")
_PORT = re.compile(r"[0-9]{1,5}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2
_SEGMENTS = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_ASKED = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")  # RFC 9112 section 3.2.1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?")

# A copy of a claim in one of these would mean something else to whoever reads it.
_MEANINGFUL = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"cookie",
        b"date",
        b"forwarded",
        b"set-cookie",
    }
)


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http(s) URL, taken apart."""

    scheme: str
    host: str  # lower-case; an IPv6 address without its brackets
    port: int
    authority: str  # host[:port] as a Host field says it
    path: str
    query: bool  # whether it has a query or a fragment


def name(text: str) -> str:
    """Return *text* if it can name an issuer, a service or an upstream."""
    if _NAME.fullmatch(text) is None:
        raise ValueError(
            "a name is a letter or digit, then letters, digits, `-` and `_`; at most 63"
        )
    return text


def host(text: str) -> str:
    """Return the host name or address *text*, lower-case."""
    lower = text.lower()
    if lower.startswith("[") and lower.endswith("]"):
        return f"[{_v6(lower[1:-1]).compressed}]"
    if "*" in text:
        raise ValueError("a host stands for itself: there are no wildcards here")
    if ":" in text:
        raise ValueError("expected a host without a port; IPv6 stands in [brackets]")
    if len(lower) > _LONGEST_HOST or _HOST.fullmatch(lower) is None:
        raise ValueError('expected a host, such as "api.shop.example"')
    return lower


def address(text: str) -> Address:
    """Return where to listen: `host:port`, `[v6]:port`, `unix:/path`."""
    if text.startswith("unix:"):
        if len(text) == len("unix:") or "\0" in text:
            raise ValueError('expected a path behind "unix:"')
        return Address(path=text.removeprefix("unix:"))
    front, colon, port = text.rpartition(":")
    if not colon or _PORT.fullmatch(port) is None:
        raise ValueError('expected "host:port", "[v6]:port" or "unix:/path"')
    if not front:
        raise ValueError('say the address too: "0.0.0.0:port" is every IPv4 one')
    return Address(host(front).strip("[]"), _port(port))


def url(text: str) -> Url:
    """Return the absolute http(s) URL *text*, taken apart."""
    found = _URL.fullmatch(text)
    if found is None or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError('expected a URL, such as "https://api.shop.example"')
    scheme, authority, path, query, fragment = found.groups()
    if "@" in authority:
        raise ValueError("a URL here holds no user name and no password")
    front, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        front, port = authority, ""
    elif _PORT.fullmatch(port) is None:
        raise ValueError("its port is not a number from 1 to 65535")
    number = _port(port) if port else {"http": 80, "https": 443}[scheme]
    if number == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    canonical = host(front)
    return Url(
        scheme,
        canonical.strip("[]"),
        number,
        f"{canonical}:{number}" if port else canonical,
        path,
        bool(query or fragment),
    )


def origin(text: str) -> Url:
    """Return the URL *text*, which has neither path nor query."""
    found = url(text)
    if found.path or found.query:
        raise ValueError("expected no path and no query: only scheme, host and port")
    return found


def network(text: str) -> IPv4Network | IPv6Network:
    """Return the network (or single address) *text*; IPv4-mapped is IPv4 (R17)."""
    try:
        found = ip_network(text)
    except ValueError:
        raise ValueError(
            'expected a network without host bits, such as "10.0.0.0/8"'
        ) from None
    if isinstance(found, IPv6Network):
        mapped = found.network_address.ipv4_mapped
        if mapped is not None and found.prefixlen >= _MAPPED:
            return IPv4Network((mapped, found.prefixlen - _MAPPED))
    return found


def moment(said: object) -> float:
    """Return the Unix seconds of *said*: a TOML date-time with an offset, or a text."""
    try:
        found = dt.datetime.fromisoformat(said) if isinstance(said, str) else said
    except ValueError:
        found = None
    if not isinstance(found, dt.datetime) or found.tzinfo is None:
        raise ValueError("expected a moment, such as 2027-01-31T00:00:00Z")
    return found.timestamp()


def key_prefix(text: str) -> str:
    """Return *text* if API keys may begin with it."""
    if re.fullmatch(PREFIX, text) is None:
        raise ValueError("a prefix is a lower-case letter, then 1 to 15 of a-z and 0-9")
    return text


def key_header(text: str) -> str:
    """Return the header name *text* if API keys may stand there."""
    folded = identity_header(text).lower().encode()
    if b"_" in folded or folded in CREDENTIALS - {b"x-api-key"}:
        raise ValueError("API keys have a field of their own, without an underscore")
    return text


def key_id(text: str) -> str:
    """Return *text* if an API key may be called that."""
    if not is_key_id(text):
        raise ValueError(
            "an id is a letter or digit, then letters, digits, `_`, `.` and `-`;"
            " at most 64"
        )
    return text


def key_digest(text: str) -> bytes:
    """Return the SHA-256 whose hexadecimal digits *text* is."""
    found = digest_in(text)
    if found is None:
        raise ValueError("expected a SHA-256: 64 hexadecimal digits")
    return found


_TOKEN_PREFIX = re.compile(r"[A-Za-z0-9._~+/-]{0,64}")


def own_prefix(text: str) -> str:
    """Return the path *text* under which our own endpoints live."""
    bad_segment = any(segment in (".", "..") for segment in text.split("/"))
    if _SEGMENTS.fullmatch(text) is None or bad_segment:
        raise ValueError('expected a path such as "/auth", with no slash at its end')
    if text == "/.well-known" or text.startswith("/.well-known/"):
        raise ValueError("/.well-known is ours already")
    return text


def token_prefix(text: str) -> str:
    """Return *text*, with which a bearer token may begin (RFC 6750 section 2.1)."""
    if _TOKEN_PREFIX.fullmatch(text) is None:
        raise ValueError("expected up to 64 of A-Z a-z 0-9 - . _ ~ + /")
    return text


def health_path(text: str) -> str:
    """Return the path *text*, with a query or without, as a request line has it."""
    if _ASKED.fullmatch(text) is None:
        raise ValueError('expected a path such as "/healthz"')
    return text


def header(text: str) -> str:
    """Return the header name *text* as it stands."""
    if _TOKEN.fullmatch(text) is None:
        raise ValueError("expected the name of a header field")
    return text


def header_pattern(text: str) -> str:
    """Return the header name, or `prefix-*`, that *text* is."""
    prefix = text.removesuffix("-*")
    if not prefix or "*" in prefix:
        raise ValueError('expected the name of a header field, or "prefix-*"')
    return header(prefix) and text


def identity_header(text: str) -> str:
    """Return the header name *text* if a plain copy of a claim may stand there."""
    folded = header(text).lower().replace("_", "-").encode()
    if folded in HOP_BY_HOP or folded.startswith(b"proxy-"):
        raise ValueError("this field is for one connection or frames a message (R16)")
    if folded.startswith(b"x-gateway-"):
        raise ValueError("x-gateway-* is for the gateway's own fields")
    if folded in WRITTEN or folded in _MEANINGFUL:
        raise ValueError("this field means something else")
    return text


def is_loopback(host_: str) -> bool:
    """Tell whether *host_* (a name, or an address without brackets) is this machine."""
    if host_ == "localhost" or host_.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        found = ip_address(host_)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def overlaps(one: Address, other: Address) -> bool:
    """Tell whether two listeners would want the same socket."""
    if one.path or other.path:
        return one.path == other.path
    if one.port != other.port or one.port == 0:  # 0: the system picks a free one
        return False
    if one.host == other.host:
        return True
    # `[::]` takes no IPv4 address (gateway.proxy.sockets); a name may be of both kinds.
    hosts = {one.host, other.host}
    if "0.0.0.0" in hosts and not any(":" in each for each in hosts):  # noqa: S104
        return True
    return "::" in hosts and not any(_V4.fullmatch(each) for each in hosts)


def _v6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        raise ValueError("expected an IPv6 address in [brackets]") from None


def _port(text: str) -> int:
    number = int(text)
    if number > _LAST_PORT:
        raise ValueError("its port is not a number from 1 to 65535")
    return number

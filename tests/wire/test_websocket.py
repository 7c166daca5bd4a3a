"""gateway.wire.websocket: the handshake, from both ends."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.headers import build_subprotocol
from websockets.utils import accept_key

from gateway.model import Denial, Headers
from gateway.wire.websocket import (
    Offer,
    accept_of,
    canonical_origin,
    check_origin,
    chosen,
    is_wanted,
    new_key,
    read_offer,
    tokens_in,
)

# RFC 6455 section 1.3.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
K8S = b"base64url.bearer.authorization.k8s.io."


def asked(*more: tuple[bytes, bytes], key: bytes = KEY) -> Headers:
    """Return the fields of a handshake, and more."""
    return (
        (b"host", b"a"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", key),
        *more,
    )


def offering(*values: bytes) -> Headers:
    return asked(*((b"sec-websocket-protocol", value) for value in values))


@pytest.mark.parametrize(
    ("method", "upgrade", "wanted"),
    [
        (b"GET", b"websocket", True),
        (b"GET", b"WebSocket", True),
        (b"GET", b"h2c, websocket", True),
        (b"GET", b"h2c", False),
        (b"GET", b"websockets", False),
        (b"GET", b"", False),
        (b"POST", b"websocket", False),
        (b"HEAD", b"websocket", False),
    ],
)
def test_a_websocket_is_asked_for_with_a_get(
    method: bytes, upgrade: bytes, wanted: bool
) -> None:
    """Any other upgrade is a plain request (R33)."""
    assert is_wanted(method, ((b"upgrade", upgrade),)) is wanted
    assert not is_wanted(method, ((b"x", upgrade),))


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        (asked(key=b""), "upgrade.refused:key"),
        (asked(key=KEY[:-1]), "upgrade.refused:key"),
        (asked(key=base64.b64encode(b"x" * 15)), "upgrade.refused:key"),
        (asked(key=base64.b64encode(b"x" * 17)), "upgrade.refused:key"),
        (asked(key=b"!!" + KEY), "upgrade.refused:key"),
        (asked(key=b"\xff" + KEY), "upgrade.refused:key"),
        (asked((b"sec-websocket-key", KEY)), "upgrade.refused:key"),
        (asked((b"sec-websocket-version", b"13")), "upgrade.version"),
        (((b"sec-websocket-key", KEY),), "upgrade.version"),
        (
            ((b"sec-websocket-version", b"8"), (b"sec-websocket-key", KEY)),
            "upgrade.version",
        ),
        (offering(b""), "upgrade.refused:protocol"),
        (offering(b"a,,b"), "upgrade.refused:protocol"),
        (offering(b"a b"), "upgrade.refused:protocol"),
        (offering(b'"a"'), "upgrade.refused:protocol"),
        (offering(b"a, a"), "upgrade.refused:protocol"),
        (offering(b"a", b"a"), "upgrade.refused:protocol"),
    ],
)
def test_what_is_no_handshake_is_refused(headers: Headers, refused: str) -> None:
    """RFC 6455 section 4.2.1."""
    denial = read_offer(headers)
    assert isinstance(denial, Denial)
    assert str(denial) == refused


@pytest.mark.parametrize(
    ("headers", "protocols", "tokens"),
    [
        (asked(), (), ()),
        (asked((b"sec-websocket-extensions", b"permessage-deflate")), (), ()),
        (offering(b"chat, v2"), (b"chat", b"v2"), ()),
        (offering(b"chat", b"v2"), (b"chat", b"v2"), ()),
        (offering(b"bearer.a.b.c, chat"), (b"chat",), (b"bearer.a.b.c",)),
        (offering(b"chat", K8S + b"YQ"), (b"chat",), (K8S + b"YQ",)),
        (offering(b"Bearer.x, bearer"), (b"Bearer.x", b"bearer"), ()),
    ],
)
def test_credentials_are_no_subprotocols(
    headers: Headers, protocols: tuple[bytes, ...], tokens: tuple[bytes, ...]
) -> None:
    """They are told apart, and keep their order."""
    assert read_offer(headers) == Offer(KEY, protocols, tokens)


@pytest.mark.parametrize(
    ("offered", "found"),
    [
        (b"chat", []),
        (b"bearer.a.b.c", [b"a.b.c"]),
        (b"bearer.", [b""]),
        (b"chat,bearer.a , bearer.b", [b"a", b"b"]),
        (K8S + b"YS5iLmM", [b"a.b.c"]),
        (K8S, [b""]),
        (K8S + b"YS5iLmM=", [None]),  # padding
        (K8S + b"YS5iLmN", [None]),  # bits behind the end
        (K8S + b"Y", [None]),
        (K8S + b"YS5i!mM", [None]),
    ],
)
def test_a_token_is_found_in_either_form(
    offered: bytes, found: list[bytes | None]
) -> None:
    """And one text of it is one token."""
    assert tokens_in(offering(offered)) == found


@given(st.binary(min_size=1))
def test_any_token_can_be_said_in_base64url(token: bytes) -> None:
    """Also one that holds what no subprotocol may."""
    said = K8S + base64.urlsafe_b64encode(token).rstrip(b"=")
    assert tokens_in(offering(said)) == [token]
    assert build_subprotocol([said.decode()])  # type: ignore[list-item]


def test_a_key_is_answered_as_the_rfc_says() -> None:
    """Section 1.3, and as others do."""
    assert accept_of(KEY) == ACCEPT
    key = new_key(bytes(range(16)))
    assert accept_of(key) == accept_key(key.decode()).encode()
    assert read_offer(asked(key=key)) == Offer(key, (), ())


SWITCH: Headers = (
    (b"upgrade", b"WebSocket"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"sec-websocket-accept", ACCEPT),
)


@pytest.mark.parametrize(
    ("headers", "protocol"),
    [
        (SWITCH, b""),
        ((*SWITCH, (b"sec-websocket-protocol", b"chat")), b"chat"),
        ((*SWITCH, (b"sec-websocket-extensions", b"")), b""),
        (SWITCH[1:], None),
        (SWITCH[:2], None),
        ((SWITCH[0], SWITCH[2]), None),
        ((*SWITCH, SWITCH[0]), None),
        ((*SWITCH, SWITCH[2]), None),
        ((*SWITCH[:2], (b"sec-websocket-accept", ACCEPT.lower())), None),
        (((b"upgrade", b"h2c"), *SWITCH[1:]), None),
        ((SWITCH[0], (b"connection", b"close"), SWITCH[2]), None),
        ((*SWITCH, (b"sec-websocket-protocol", b"other")), None),
        ((*SWITCH, (b"sec-websocket-protocol", b"")), None),
        ((*SWITCH, *[(b"sec-websocket-protocol", b"chat")] * 2), None),
        ((*SWITCH, (b"sec-websocket-extensions", b"permessage-deflate")), None),
    ],
)
def test_an_upstream_switches_as_it_was_asked_or_not_at_all(
    headers: Headers, protocol: bytes | None
) -> None:
    """RFC 6455 section 4.1: each way to answer something else fails."""
    assert chosen(headers, KEY, (b"chat", b"v2")) == protocol


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://shop.example", "https://shop.example"),
        ("HTTPS://Shop.Example", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:80", "http://shop.example"),
        ("http://shop.example:443", "http://shop.example:443"),
        ("https://shop.example:08443", "https://shop.example:8443"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", ""),
        ("none", ""),
        ("", ""),
        ("https://", ""),
        ("https://shop.example/", ""),
        ("https://user@shop.example", ""),
        ("https://shop.example https://evil.example", ""),
        ("https://shop.example\n", ""),
        ("https://\u212ahop.example", ""),
        ("https://shop.example:", ""),
        ("https://*.example", ""),
    ],
)
def test_an_origin_is_compared_in_one_spelling(text: str, canonical: str) -> None:
    """Scheme, host and port; whatever is none of that equals nothing (R90)."""
    assert canonical_origin(text) == canonical


@pytest.mark.parametrize(
    ("origin", "allowed", "passes"),
    [
        (None, None, True),
        (b"https://evil.example", None, True),
        (b"https://a.example", {"https://a.example"}, True),
        (b"https://a.example:443", {"https://a.example"}, True),
        (b"https://b.example", {"https://a.example"}, False),
        (b"null", {"https://a.example"}, False),
        (b"none", {"none"}, False),
        (b"\xff", {"none"}, False),
        (b"", {"none"}, False),
        (None, {"https://a.example"}, False),
        (None, {"none"}, True),
    ],
)
def test_no_origin_is_one_only_where_that_is_said(
    origin: bytes | None, allowed: set[str] | None, passes: bool
) -> None:
    """Nothing absent means yes."""
    headers: Headers = () if origin is None else ((b"origin", origin),)
    known = None if allowed is None else frozenset(allowed)
    assert check_origin(headers, known) is passes

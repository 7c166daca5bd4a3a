"""gateway.wire.request: one reading of a head, or none."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Headers, HeaderSection, Peer, Reason, RequestHead
from gateway.wire.request import (
    household,
    is_host,
    normalise_peer,
    peer_of,
    read_head,
)

HOST: Headers = ((b"host", b"api.shop.example"),)
PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
AWAY = Peer("203.0.113.9")
PROXY = Peer("10.0.0.1", trusted=True)


def read(
    target: bytes = b"/", headers: Headers | HeaderSection = HOST, **more: Any
) -> Any:
    given: dict[str, Any] = {
        "kind": "http",
        "method": "GET",
        "scheme": "http",
        "target": target,
        "headers": headers,
        "peer": AWAY,
    }
    return read_head(**(given | more))


def test_a_head_holds_what_was_received_and_what_it_means() -> None:
    """Target and Host byte for byte, beside the one reading of them."""
    headers = ((b"host", b"API.Shop.example:80"), (b"x", b"y"))

    head = read(b"/a%20b/?c=d", headers)

    assert isinstance(head, RequestHead)
    assert head.section.headers is headers
    assert head == RequestHead(
        kind="http",
        method="GET",
        scheme="http",
        host="api.shop.example",
        authority=b"API.Shop.example:80",
        target=b"/a%20b/?c=d",
        path=b"/a%20b/",
        query=b"c=d",
        segments=("a b", ""),
        escapes=frozenset(),
        headers=headers,
        peer=AWAY,
        client="203.0.113.9",
        section=head.section,
    )


def test_what_a_head_holds_is_not_shown() -> None:
    """In a traceback or a log: there is a credential in it."""
    headers = (*HOST, (b"authorization", b"Bearer hunter2"), (b"cookie", b"hunter2"))

    shown = repr(read(b"/hunter2?token=hunter2", headers))

    assert "api.shop.example" in shown
    assert "hunter2" not in shown


def test_what_was_read_once_is_not_read_again() -> None:
    """The fields of one head may be those of the next; its target never is."""
    first = read(b"/a", ((b"host", b"API.example"), (b"x", b"y")))
    assert isinstance(first, RequestHead)

    second = read(b"/b", first.section)

    assert isinstance(second, RequestHead)
    assert (second.target, second.host) == (b"/b", "api.example")
    assert second.headers is first.headers


def test_a_target_that_is_refused_is_the_end_of_it() -> None:
    """OPTIONS has no target of its own either."""
    assert read(b"*", method="OPTIONS") == Denial(Reason.TARGET_AMBIGUOUS, "not a path")


@pytest.mark.parametrize(
    "method",
    [
        "CONNECT",
        "TRACE",
        "TRACK",
        "PRI",
        "trace",
        "Connect",
        "",
        "G T",
        "GET\n",
        "G\xe9T",
        "A" * 33,
    ],
)
def test_a_method_that_makes_us_a_tunnel_or_a_mirror_is_refused(method: str) -> None:
    """So is one that is no token."""
    assert read(method=method) == Denial(Reason.METHOD_UNSUPPORTED)


@pytest.mark.parametrize("method", ["GET", "get", "GETX", "QUERY", "M-SEARCH"])
def test_any_other_method_is_for_the_route_to_judge(method: str) -> None:
    """It keeps its case, and `get` is another method than GET."""
    assert read(method=method).method == method


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"a", "a"),
        (b"Api.Shop.EXAMPLE:8443", "api.shop.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"my_service:80", "my_service"),
        (b"10.0.0.1", "10.0.0.1"),
        (b"[::1]:65535", "[::1]"),
        (b"[FD00::A]", "[fd00::a]"),
        (b"[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]"),
        (b"1a", "1a"),
    ],
)
def test_host_is_compared_in_lower_case_and_without_its_port(
    value: bytes, host: str
) -> None:
    """The field itself is kept as received."""
    head = read(headers=((b"host", value),))

    assert (head.host, head.authority) == (host, value)
    assert is_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b".",
        b"a.",
        b"a..b",
        b".a",
        b"-a",
        b"a-",
        b"a/b?c",
        b"u@a",
        b"a b",
        b"a,b",
        b"a:",
        b"a:0",
        b"a:080",
        b"a:65536",
        b"a:99999999",
        b"a:b",
        b"a:1:2",
        b"a%41",
        b"caf\xe9",
        b"[::1",
        b"::1",
        b"[]",
        b"[1.2.3.4]",
        b"[::g]",
        b"[fe80::1%25eth0]",
        b"[::1]x",
        b"127.1",
        b"1.2.3.4.5",
        b"999.1.1.1",
        b"127.0.0.0x1",
        b"2130706433",
        b"a" * 64,
        b"a.b" * 86,
        b"a\n",
        b"a\x00",
        b"http://a",
    ],
)
def test_a_host_that_is_none_is_refused(value: bytes) -> None:
    """Names and addresses in their one spelling, with a port or without."""
    assert read(headers=((b"host", value),)) == Denial(
        Reason.HOST_MALFORMED, "not a host"
    )
    assert not is_host(value)


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ((), "host.malformed:no host"),
        ((*HOST, *HOST), "host.malformed:two hosts"),
        ((*HOST, (b"host", b"b")), "host.malformed:two hosts"),
        (
            (*HOST, (b"origin", b"a"), (b"origin", b"a")),
            "request.malformed:two origins",
        ),
        (
            (*HOST, (b"content-type", b"a"), (b"content-type", b"b")),
            "request.malformed:two content types",
        ),
    ],
    ids=["no host", "same host", "other host", "origin", "content-type"],
)
def test_a_field_of_which_readers_believe_one_comes_once(
    headers: Headers, refused: str
) -> None:
    """The first one to us could be the last one to the backend (R4, R8)."""
    assert str(read(headers=headers)) == refused


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        (AWAY, [], "203.0.113.9"),
        (AWAY, [b"198.51.100.1"], "203.0.113.9"),
        (Peer("127.0.0.1"), [b"198.51.100.1"], "127.0.0.1"),
        (PROXY, [], "10.0.0.1"),
        (PROXY, [b""], "10.0.0.1"),
        (PROXY, [b"198.51.100.1"], "198.51.100.1"),
        (PROXY, [b"6.6.6.6, 198.51.100.1, 10.0.0.3, 10.0.0.2"], "198.51.100.1"),
        (PROXY, [b"6.6.6.6, 198.51.100.1", b"10.0.0.2"], "198.51.100.1"),
        (PROXY, [b"6.6.6.6,junk,10.0.0.2"], "10.0.0.2"),
        (PROXY, [b"6.6.6.6,,10.0.0.2"], "10.0.0.2"),
        (PROXY, [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (PROXY, [b"198.51.100.1:4711"], "198.51.100.1"),
        (PROXY, [b"[2001:DB8::1]:80"], "2001:db8::1"),
        (PROXY, [b"[2001:db8::1]"], "2001:db8::1"),
        (PROXY, [b"2001:db8::1"], "2001:db8::1"),
        (PROXY, [b"[2001:db8::1"], "10.0.0.1"),
        (PROXY, [b"[2001:db8::1]80"], "10.0.0.1"),
        (PROXY, [b"6.6.6.6, ::ffff:10.0.0.2"], "6.6.6.6"),
        (PROXY, [b"fe80::1%evil"], "10.0.0.1"),
        (PROXY, [b"198.51.100.01"], "10.0.0.1"),
        (PROXY, [b"\xb2.1.1.1"], "10.0.0.1"),
        (PROXY, [b"1" * 65], "10.0.0.1"),
        (PROXY, [b"6.6.6.6," + b"10.0.0.2," * 9999 + b"10.0.0.4"], "10.0.0.2"),
    ],
)
def test_the_client_is_the_first_address_from_the_right_that_is_no_proxy(
    peer: Peer, fields: list[bytes], client: str
) -> None:
    """Only where the peer itself is trusted; loopback is not, by itself (R17)."""
    forwarded = tuple((b"x-forwarded-for", field) for field in fields)

    head = read(headers=HOST + forwarded, peer=peer, proxies=PROXIES)

    assert head.client == client


@pytest.mark.parametrize(
    ("peer", "fields", "scheme"),
    [
        (AWAY, [b"https"], "http"),
        (PROXY, [], "http"),
        (PROXY, [b"https"], "https"),
        (PROXY, [b"WSS"], "https"),
        (PROXY, [b"http"], "http"),
        (PROXY, [b"ws"], "http"),
        (PROXY, [b"https", b"https"], "http"),
        (PROXY, [b"https, http"], "http"),
        (PROXY, [b"gopher"], "http"),
    ],
)
def test_the_scheme_is_the_connections_unless_a_proxy_says_one_thing(
    peer: Peer, fields: list[bytes], scheme: str
) -> None:
    """Two answers are none."""
    forwarded = tuple((b"x-forwarded-proto", field) for field in fields)

    assert read(headers=HOST + forwarded, peer=peer).scheme == scheme


def test_a_proxy_may_say_that_the_client_spoke_plaintext() -> None:
    """As it does behind a TLS sidecar."""
    headers = (*HOST, (b"x-forwarded-proto", b"http"))

    assert read(headers=headers, peer=PROXY, scheme="https").scheme == "http"


@pytest.mark.parametrize(
    ("address", "written", "trusted"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("FD00:0::1", "fd00::1", True),
        ("fd00::1%eth0", "fd00::1", True),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
        ("", "", False),
        ("/run/gateway.sock", "", False),
    ],
)
def test_a_peer_has_one_spelling(address: str, written: str, trusted: bool) -> None:
    """A dual-stack socket makes `::ffff:10.0.0.1` of 10.0.0.1."""
    assert normalise_peer(address) == written
    assert peer_of(address, PROXIES) == Peer(written, trusted)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::f:0:0:1", "2001:db8::/64"),
        ("2001:db8:0:1::", "2001:db8:0:1::/64"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("", ""),
        ("no address", ""),
    ],
)
def test_who_has_one_address_is_counted_for_its_network(
    address: str, counted: str
) -> None:
    """RFC 6177; where an address says nothing, it is nobody in particular."""
    assert household(address) == counted


@given(
    method=st.text(max_size=10),
    target=st.binary(max_size=30),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [b"host", b"origin", b"x-forwarded-for", b"x-forwarded-proto"]
            )
            | st.binary(max_size=8),
            st.binary(max_size=30)
            | st.sampled_from([b"a", b"https", b"10.0.0.2", b"[::1]:80, 1.1.1.1"]),
        ),
        max_size=5,
    ).map(tuple),
    peer=st.sampled_from([AWAY, PROXY]),
)
@settings(deadline=None, max_examples=400)
def test_any_bytes_are_read_or_refused(
    method: str, target: bytes, headers: Headers, peer: Peer
) -> None:
    """Nothing a client sends is an error of ours (I5), and twice is the same."""
    outcome = read(target, headers, method=method, peer=peer, proxies=PROXIES)

    assert isinstance(outcome, RequestHead | Denial)
    if isinstance(outcome, RequestHead):
        assert outcome.host.isascii()
        assert outcome.host

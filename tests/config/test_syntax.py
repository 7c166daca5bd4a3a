"""gateway.config.syntax: small forms, taken apart or refused."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import syntax
from gateway.config.settings import Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::1]:80", Address("::1", 80)),
        ("[2001:DB8::0:1]:80", Address("2001:db8::1", 80)),
        ("LocalHost:0", Address("localhost", 0)),
        ("unix:/run/gw.sock", Address(path="/run/gw.sock")),
        ("unix:gw.sock", Address(path="gw.sock")),
    ],
)
def test_an_address_is_host_and_port_or_a_socket(text: str, expected: Address) -> None:
    """Port 0 lets the system pick a free one."""
    assert syntax.address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://API.Shop.example", ("https", "api.shop.example", 443, "", False)),
        ("http://a:8080/x/y", ("http", "a", 8080, "/x/y", False)),
        ("http://[::1]/", ("http", "::1", 80, "/", False)),
        ("http://[::1]:81", ("http", "::1", 81, "", False)),
        ("https://a?b", ("https", "a", 443, "", True)),
        ("https://a/#b", ("https", "a", 443, "/", True)),
    ],
)
def test_a_url_is_taken_apart(
    text: str, expected: tuple[str, str, int, str, bool]
) -> None:
    """Scheme, host, port, path, and whether there is a query or a fragment."""
    url = syntax.url(text)
    assert (url.scheme, url.host, url.port, url.path, url.query) == expected


def test_the_authority_of_a_url_is_what_a_host_field_says() -> None:
    """The port stands in it only where the URL says it; IPv6 keeps its brackets."""
    assert syntax.url("http://A:80/").authority == "a:80"
    assert syntax.url("http://A/").authority == "a"
    assert syntax.origin("http://[::1]:80").authority == "[::1]:80"


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (syntax.address, "", "host:port"),
        (syntax.address, "localhost", "host:port"),
        (syntax.address, "localhost:http", "host:port"),
        (syntax.address, "localhost:65536", "1 to 65535"),
        (syntax.address, ":8080", "0.0.0.0"),
        (syntax.address, "::1:8080", "brackets"),
        (syntax.address, "[::x]:8080", "IPv6"),
        (syntax.address, "unix:", "path"),
        (syntax.address, "unix:\0", "path"),
        (syntax.host, "", "a host"),
        (syntax.host, "*.shop.example", "wildcards"),
        (syntax.host, "shop.example:80", "without a port"),
        (syntax.host, "a..b", "a host"),
        (syntax.host, "-a", "a host"),
        (syntax.host, "a b", "a host"),
        (syntax.host, "a/b", "a host"),
        (syntax.host, "u@a", "a host"),
        (syntax.host, "é", "a host"),
        (syntax.host, "a" * 64, "a host"),
        (syntax.host, ".".join(["a" * 60] * 5), "a host"),
        (syntax.url, "", "a URL"),
        (syntax.url, "ftp://a", "a URL"),
        (syntax.url, "HTTPS://a", "a URL"),
        (syntax.url, "https://a/ b", "a URL"),
        (syntax.url, "https://a/\n", "a URL"),
        (syntax.url, "https://a/é", "a URL"),
        (syntax.url, "https://", "a host"),
        (syntax.url, "https://u:p@a", "no user name"),
        (syntax.url, "https://a:b", "port"),
        (syntax.url, "https://a:0", "port"),
        (syntax.url, "https://a:99999", "port"),
        (syntax.origin, "https://a/", "no path"),
        (syntax.origin, "https://a?b", "no path"),
        (syntax.network, "", "network"),
        (syntax.network, "10.0.0.1/8", "host bits"),
        (syntax.network, "example", "network"),
        (syntax.own_prefix, "", "path"),
        (syntax.own_prefix, "auth", "path"),
        (syntax.own_prefix, "/", "path"),
        (syntax.own_prefix, "/auth/", "path"),
        (syntax.own_prefix, "/a/../b", "path"),
        (syntax.own_prefix, "/a//b", "path"),
        (syntax.own_prefix, "/a%20", "path"),
        (syntax.own_prefix, "/.well-known", "ours already"),
        (syntax.own_prefix, "/.well-known/x", "ours already"),
        (syntax.header, "", "header"),
        (syntax.header, "a b", "header"),
        (syntax.header, "a:", "header"),
        (syntax.header_pattern, "", "header"),
        (syntax.header_pattern, "*", "header"),
        (syntax.header_pattern, "-*", "header"),
        (syntax.header_pattern, "x*", "header"),
        (syntax.header_pattern, "x-*-y", "header"),
        (syntax.identity_header, "Connection", "R16"),
        (syntax.identity_header, "Proxy-X", "R16"),
        (syntax.identity_header, "Content-Length", "R16"),
        (syntax.identity_header, "X_Gateway_User", "own fields"),
        (syntax.identity_header, "X-Forwarded-For", "something else"),
        (syntax.identity_header, "Authorization", "something else"),
        (syntax.identity_header, "set_cookie", "something else"),
        (syntax.name, "", "a name"),
        (syntax.name, "-a", "a name"),
        (syntax.name, "a b", "a name"),
        (syntax.name, "a.b", "a name"),
        (syntax.name, "a" * 64, "a name"),
    ],
)
def test_what_has_another_form_is_refused(
    parse: Callable[[str], object], text: str, words: str
) -> None:
    """The refusal says which form is wanted."""
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        parse(text)


@given(st.text(max_size=12))
def test_no_text_is_more_than_refused(text: str) -> None:
    """Whatever is written, it is understood or it is a ValueError."""
    for parse in (syntax.address, syntax.host, syntax.url, syntax.network):
        for prefix in ("", "http://", "[", "unix:"):
            try:
                parse(prefix + text)
            except ValueError:
                continue


def test_a_mapped_network_is_an_ipv4_network() -> None:
    """R17: `::ffff:10.0.0.1` is 10.0.0.1, in the list as on the wire."""
    assert syntax.network("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert syntax.network("10.0.0.1") == ip_network("10.0.0.1/32")
    assert syntax.network("fd00::/8") == ip_network("fd00::/8")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("x.localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, *, expected: bool) -> None:
    """Names count only as RFC 6761 reserves them."""
    assert syntax.is_loopback(host) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "localhost:80", True),
        ("0.0.0.0:80", "[::]:80", False),
        ("127.0.0.1:80", "[::]:80", False),
        ("[::1]:80", "0.0.0.0:80", False),
        ("[::1]:80", "[::]:80", True),
        ("localhost:80", "[::]:80", True),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:80", False),
    ],
)
def test_two_listeners_overlap(one: str, other: str, *, expected: bool) -> None:
    """Every address includes each of its kind; port 0 is never the same port twice."""
    assert syntax.overlaps(syntax.address(one), syntax.address(other)) is expected


def test_header_names_keep_their_spelling() -> None:
    """What is written is what backends are sent."""
    assert syntax.header_pattern("X-Real-IP") == "X-Real-IP"
    assert syntax.header_pattern("x-envoy-*") == "x-envoy-*"
    assert syntax.identity_header("X-Auth-Request-User") == "X-Auth-Request-User"
    assert syntax.name("corp-1_a") == "corp-1_a"
    assert syntax.own_prefix("/a/b") == "/a/b"

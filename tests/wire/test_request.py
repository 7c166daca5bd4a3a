"""gateway.wire.request: one reading of a head, or none."""

from __future__ import annotations

import unicodedata
from ipaddress import ip_network
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Headers, Peer, Reason, RequestHead
from gateway.wire.request import (
    _LOOKALIKES,
    is_host,
    normalise_peer,
    peer_of,
    read_head,
)
from tests import vectors

HOST: Headers = ((b"host", b"api.shop.example"),)
PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
AWAY = Peer("203.0.113.9")
PROXY = Peer("10.0.0.1", trusted=True)


def read(target: bytes = b"/", headers: Headers = HOST, **more: Any) -> Any:
    given: dict[str, Any] = {
        "kind": "http",
        "method": "GET",
        "scheme": "http",
        "target": target,
        "headers": headers,
        "peer": AWAY,
        "request_id": "r-1",
    }
    return read_head(**(given | more))


def refusal(target: bytes) -> str:
    outcome = read(target)
    assert isinstance(outcome, Denial), outcome
    return str(outcome)


@pytest.mark.parametrize(
    ("target", "segments", "query"),
    [
        (b"/", ("",), None),
        (b"/?", ("",), b""),
        (b"/a", ("a",), None),
        (b"/a/", ("a", ""), None),
        (b"/a/b%20c/", ("a", "b c", ""), None),
        (b"/al%69ce", ("alice",), None),
        (b"/caf%C3%A9", ("caf\xe9",), None),
        (
            b"/a%2eb/..a/a../.../.well-known",
            ("a.b", "..a", "a..", "...", ".well-known"),
            None,
        ),
        (b"/a;v=1/b;..", ("a;v=1", "b;.."), None),
        (b"/!\"$&'()*+,-:<=>@[]^_`{|}~", ("!\"$&'()*+,-:<=>@[]^_`{|}~",), None),
        (b"/100%25", ("100%",), None),
        (b"/100%25/x", ("100%", "x"), None),
        (b"/a?b=/../c%zz&\\?d", ("a",), b"b=/../c%zz&\\?d"),
        (b"/%61?/public/", ("a",), b"/public/"),
    ],
)
def test_a_path_is_split_at_its_slashes_and_decoded_once(
    target: bytes, segments: tuple[str, ...], query: bytes | None
) -> None:
    """What was received is kept beside it, byte for byte, and is what is sent."""
    head = read(target)

    assert isinstance(head, RequestHead)
    assert (head.segments, head.query) == (segments, query)
    assert head.target == target
    assert head.path == target.partition(b"?")[0]
    assert not head.escapes


@pytest.mark.parametrize(
    ("target", "word"),
    [
        # Another form of target (R3)
        (b"", "not a path"),
        (b"*", "not a path"),
        (b"admin", "not a path"),
        (b"?@evil", "not a path"),
        (b"@evil/x", "not a path"),
        (b":80@evil/", "not a path"),
        (b"\\evil", "not a path"),
        (b"api.shop.example:443", "not a path"),
        (b"http://api.shop.example/x", "not a path"),
        (b"%2Fadmin", "not a path"),
        # Dot segments, in any spelling (R10)
        (b"/.", "dot segment"),
        (b"/..", "dot segment"),
        (b"/./", "dot segment"),
        (b"/a/../b", "dot segment"),
        (b"/a/..", "dot segment"),
        (b"/a/..?x", "dot segment"),
        (b"/%2e/", "dot segment"),
        (b"/%2e%2E/", "dot segment"),
        (b"/.%2e", "dot segment"),
        (b"/a/..;/b", "dot segment"),
        (b"/a/..;", "dot segment"),
        (b"/a/.;x=1/b", "dot segment"),
        (b"/a/..%3b/b", "dot segment"),
        (b"/a/%2e%2e;x=1;y/b", "dot segment"),
        (b"/a/..%20/b", "dot segment"),
        (b"/a/%20../b", "dot segment"),
        (b"/..%2f", "dot segment"),
        (b"/%2e%2e%5c", "dot segment"),
        (b"/a%2f..%2fb", "dot segment"),
        (b"/a%5C..%2Fb", "dot segment"),
        (b"/a%2F.;x%2Fb", "dot segment"),
        (b"/%252e%252e/", "dot segment"),
        (b"/%25%32%65./", "dot segment"),
        (b"/a%252f..", "dot segment"),
        (b"/a%252f%252e%252e%252fb", "dot segment"),
        (b"/%25252e%25252e/", "dot segment"),
        (b"/%2525252e%2525252e/", "dot segment"),
        (b"/%252525252e", "dot segment"),  # too deep to look, so not looked
        (b"/%ef%bc%8e%ef%bc%8e/", "dot segment"),
        (b"/%e2%80%a5/", "dot segment"),
        (b"/a%ef%bc%8f..", "dot segment"),
        (b"/..%ef%bc%9bx", "dot segment"),
        # Empty inner segments
        (b"//", "empty segment"),
        (b"//evil/x", "empty segment"),
        (b"/a//b", "empty segment"),
        (b"/a//", "empty segment"),
        (b"/a/;/b", "empty segment"),
        (b"/a/;x=1", "empty segment"),
        (b"/a/%3bx/b", "empty segment"),
        # Characters
        (b"/a\\b", "backslash"),
        (b"/a#b", "fragment"),
        (b"/a b", "space"),
        (b"/a\tb", "character"),
        (b"/a\x00b", "character"),
        (b"/a\r\nX: y", "character"),
        (b"/a\x7f", "character"),
        (b"/caf\xc3\xa9", "character"),
        (b"/a%00b", "control"),
        (b"/a%0d%0ab", "control"),
        (b"/a%1fb", "control"),
        (b"/a%7F", "control"),
        (b"/a%c2%85", "control"),
        # Escapes that are none
        (b"/%", "percent"),
        (b"/%4", "percent"),
        (b"/%zz", "percent"),
        (b"/%u002e", "percent"),
        (b"/%%32e", "percent"),
        (b"/%ff", "encoding"),
        (b"/%c0%ae%c0%ae/", "encoding"),
        (b"/%c0%afa", "encoding"),
        (b"/%e0%80%ae", "encoding"),
        (b"/%ed%a0%80", "encoding"),
        (b"/%c3/%a9", "encoding"),
        # The query
        (b"/a?b c", "query"),
        (b"/a?b#c", "query"),
        (b"/a?\x01", "query"),
        (b"/a?\x7f", "query"),
        (b"/a?\xe9", "query"),
        (b"/%61?\n", "query"),
    ],
)
def test_a_target_that_can_be_read_in_two_ways_is_refused(
    target: bytes, word: str
) -> None:
    """It is never repaired: some backend would read what was meant before."""
    assert refusal(target) == f"target.ambiguous:{word}"


@pytest.mark.parametrize(
    ("target", "segments", "escapes"),
    [
        (b"/a%2Fb", ("a/b",), {"%2F"}),
        (b"/a%2fb/%2f", ("a/b", "/"), {"%2F"}),
        (b"/a%5cb", ("a\\b",), {"%5C"}),
        (b"/a%23b", ("a#b",), {"%23"}),
        (b"/a%3fb", ("a?b",), {"%3F"}),
        (b"/a%2541", ("a%41",), {"%25"}),
        (b"/a%25%34%31", ("a%41",), {"%25"}),
        (b"/a%254%31", ("a%41",), {"%25"}),
        (b"/%2F%5C%23%3F%2525", ("/\\#?%25",), {"%2F", "%5C", "%23", "%3F", "%25"}),
        (b"/a%252e%252eb", ("a%2e%2eb",), {"%25"}),
    ],
)
def test_escapes_that_a_route_may_allow_are_only_collected(
    target: bytes, segments: tuple[str, ...], escapes: set[str]
) -> None:
    """Whether they pass is for the decision, which knows the route."""
    head = read(target)

    assert isinstance(head, RequestHead)
    assert (head.segments, set(head.escapes)) == (segments, escapes)


@pytest.mark.parametrize(
    "target",
    [b"/a" * 513, b"/%61" * 513, b"/" + b"%41" * 1025],
    ids=["segments", "encoded segments", "escapes"],
)
def test_a_path_has_a_bounded_number_of_parts(target: bytes) -> None:
    """A head of the largest size must not buy milliseconds of reading it."""
    outcome = read(target)

    assert isinstance(outcome, Denial)
    assert outcome.reason is Reason.HEAD_TOO_LARGE


def test_a_path_at_the_bounds_is_read() -> None:
    """512 segments, and 1,024 escapes."""
    assert len(read(b"/a" * 512).segments) == 512
    assert read(b"/" + b"%41" * 1024).segments == ("A" * 1024,)


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


def test_every_character_that_normalises_to_part_of_a_dot_segment_is_known() -> None:
    """The list is short because NFKC makes dots and slashes of few others."""
    found = {}
    for code in range(0x80, 0x110000):
        text = unicodedata.normalize("NFKC", chr(code))
        if set(text) <= set("./\\;") and not text.startswith("..."):
            found[code] = text
    assert found == _LOOKALIKES


TARGETS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda tail: b"/" + tail),
    st.lists(
        st.sampled_from(
            [
                b"/",
                b".",
                b"..",
                b";",
                b"%2e",
                b"%2F",
                b"%5c",
                b"%25",
                b"2e",
                b"2f",
                b"a",
                b"?",
                b"#",
                b"%00",
                b"\\",
                b"%c0%ae",
                b"%C3%A9",
                b" ",
                b"%20",
                b"%3b",
                b"%",
            ]
        ),
        max_size=12,
    ).map(lambda parts: b"/" + b"".join(parts)),
)


def parts(segment: str) -> list[str]:
    """Return how a reader that knows slashes, backslashes and params sees *segment*."""
    return [part.partition(";")[0] for part in segment.replace("\\", "/").split("/")]


@given(target=TARGETS)
@example(target=b"/a%2f.%2e")
@settings(deadline=None, max_examples=400)
def test_no_target_that_passes_holds_a_dot_segment(target: bytes) -> None:
    """Decoded once, twice or three times, split at whatever is a slash to somebody."""
    head = read(target)
    if isinstance(head, Denial):
        assert head.reason in {Reason.TARGET_AMBIGUOUS, Reason.HEAD_TOO_LARGE}
        return

    assert head.target == target
    assert head.segments == tuple(
        unquote_to_bytes(raw).decode() for raw in head.path.split(b"/")[1:]
    )
    assert "" not in head.segments[:-1]
    text = "/".join(head.segments)
    for _ in range(3):
        assert not {".", ".."} & set(parts(text))
        text = unquote(text)


@given(target=TARGETS)
@settings(deadline=None, max_examples=500)
def test_reading_is_idempotent(target: bytes) -> None:
    """What passed is read the same way by a second gateway behind us."""
    head = read(target)
    if isinstance(head, RequestHead):
        assert read(head.target) == head


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
    """Nothing a client sends is an error of ours (I5)."""
    outcome = read(target, headers, method=method, peer=peer, proxies=PROXIES)

    assert isinstance(outcome, RequestHead | Denial)
    if isinstance(outcome, RequestHead):
        assert outcome.host.isascii()
        assert outcome.host


def test_no_redirect_trick_passes_as_a_path_to_another_place() -> None:
    """The list of oauth2-proxy, each line taken for a request target."""
    for line in vectors.load("oauth2-proxy/openredirects.json"):
        head = read(line.encode("utf-8", "surrogateescape"))
        if isinstance(head, RequestHead):
            assert head.target.startswith(b"/")
            assert not head.target.startswith((b"//", b"/\\"))
            assert not {".", ".."} & set(parts("/".join(head.segments)))


def test_naughty_strings_are_read_or_refused_as_paths() -> None:
    """Raw, and percent-encoded as a client library would."""
    for line in vectors.load("naughty-strings/blns.json"):
        octets = line.encode("utf-8", "surrogatepass")
        read(b"/" + octets)
        head = read(b"/x" + b"".join(b"%%%02x" % octet for octet in octets))
        if isinstance(head, RequestHead):
            assert head.segments == ("x" + line,)

"""gateway.wire.framing: where a message ends, and what the parser leaves to us."""

from __future__ import annotations

from dataclasses import dataclass, field

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Headers, Reason
from gateway.wire.framing import (
    CHUNKED,
    EMPTY,
    UNTIL_CLOSE,
    Body,
    check_request,
    check_response,
    fields_are_clean,
    head_is_clean,
)
from tests import vectors

HOST = (b"host", b"a")


def cl(value: bytes) -> tuple[bytes, bytes]:
    return (b"content-length", value)


def te(value: bytes) -> tuple[bytes, bytes]:
    return (b"transfer-encoding", value)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], EMPTY),
        ([cl(b"0")], EMPTY),
        ([cl(b"5")], Body(5)),
        ([cl(b"0005")], Body(5)),
        ([cl(b"9223372036854775807")], Body(2**63 - 1)),
        ([te(b"chunked")], CHUNKED),
        ([te(b"CHUNKED")], CHUNKED),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"QUERY"])
def test_a_request_has_the_body_its_one_framing_field_says(
    method: bytes, headers: list[tuple[bytes, bytes]], body: Body
) -> None:
    """Whatever its method: a GET may have a body too."""
    assert check_request(method, "1.1", (HOST, *headers), upgrade=False) == body


@pytest.mark.parametrize(
    ("version", "headers", "at"),
    [
        ("0.9", [], "version"),
        ("2.0", [], "version"),
        ("1.2", [], "version"),
        ("", [], "version"),
        ("1.0", [te(b"chunked")], "transfer-encoding"),
        ("1.1", [te(b"gzip, chunked")], "transfer-encoding"),
        ("1.1", [te(b"chunked, chunked")], "transfer-encoding"),
        ("1.1", [te(b"chunked;a=b")], "transfer-encoding"),
        ("1.1", [te(b"identity")], "transfer-encoding"),
        ("1.1", [te(b"xchunked")], "transfer-encoding"),
        ("1.1", [te(b"")], "transfer-encoding"),
        ("1.1", [te(b"chunked ")], "transfer-encoding"),
        ("1.1", [te(b"chunked"), te(b"chunked")], "two framing fields"),
        ("1.1", [te(b"chunked"), cl(b"5")], "two framing fields"),
        ("1.1", [cl(b"5"), te(b"chunked")], "two framing fields"),
        ("1.1", [cl(b"5"), cl(b"5")], "two framing fields"),
        ("1.1", [cl(b"5"), cl(b"6")], "two framing fields"),
        ("1.1", [cl(b"5, 5")], "content-length"),
        ("1.1", [cl(b"+5")], "content-length"),
        ("1.1", [cl(b"-5")], "content-length"),
        ("1.1", [cl(b"0x5")], "content-length"),
        ("1.1", [cl(b"5_0")], "content-length"),
        ("1.1", [cl(b"5.0")], "content-length"),
        ("1.1", [cl(b"")], "content-length"),
        ("1.1", [cl(b" 5")], "content-length"),
        ("1.1", [cl("\u0665".encode())], "content-length"),
        ("1.1", [cl(b"9223372036854775808")], "content-length"),
        ("1.1", [cl(b"9" * 5000)], "content-length"),
        ("1.1", [(b"", b"x")], "field"),
        ("1.1", [(b"x y", b"x")], "field"),
        ("1.1", [(b"x ", b"x")], "field"),
        ("1.1", [(b"transfer-encoding\xa0", b"chunked")], "field"),
        ("1.1", [(b"x(y)", b"x")], "field"),
        ("1.1", [(b"x", b"a\x00")], "field"),
        ("1.1", [(b"x", b"a\rb")], "field"),
        ("1.1", [(b"x", b"a\n b")], "field"),
        ("1.1", [(b"x", b"\x7f")], "field"),
    ],
)
def test_a_request_with_two_possible_ends_is_refused(
    version: str, headers: list[tuple[bytes, bytes]], at: str
) -> None:
    """Each row is one way to smuggle a second request (R2)."""
    assert check_request(b"POST", version, (HOST, *headers), upgrade=False) == Denial(
        Reason.REQUEST_MALFORMED, at
    )


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"TRACK", b"PRI"])
def test_a_method_that_ends_http_is_refused(method: bytes) -> None:
    """Before anybody asks how its body is framed (R3)."""
    assert check_request(method, "1.1", (HOST,), upgrade=True) == Denial(
        Reason.METHOD_UNSUPPORTED
    )


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ([], EMPTY),
        ([cl(b"0")], EMPTY),
        ([cl(b"5")], Denial(Reason.UPGRADE_REFUSED, "body")),
        ([te(b"chunked")], Denial(Reason.UPGRADE_REFUSED, "body")),
    ],
)
def test_an_upgrade_has_no_body(
    headers: list[tuple[bytes, bytes]], outcome: Body | Denial
) -> None:
    """The parser would leave it in the stream, as the next request (R33)."""
    assert check_request(b"POST", "1.1", (HOST, *headers), upgrade=True) == outcome


@pytest.mark.parametrize(
    ("method", "status", "headers", "body"),
    [
        (b"GET", 200, [], UNTIL_CLOSE),
        (b"GET", 200, [cl(b"0")], Body(0)),
        (b"GET", 200, [cl(b"5")], Body(5)),
        (b"GET", 200, [te(b"chunked")], CHUNKED),
        (b"HEAD", 200, [], EMPTY),
        (b"HEAD", 200, [cl(b"5")], Body(0, declared=5)),
        (b"HEAD", 200, [te(b"chunked")], EMPTY),
        (b"GET", 304, [cl(b"5")], Body(0, declared=5)),
        (b"GET", 304, [], EMPTY),
        (b"GET", 204, [], EMPTY),
        (b"GET", 204, [cl(b"0")], EMPTY),
        (b"GET", 103, [], EMPTY),
        (b"GET", 101, [], EMPTY),
    ],
)
def test_an_answer_has_the_body_that_its_head_and_its_request_say(
    method: bytes, status: int, headers: list[tuple[bytes, bytes]], body: Body
) -> None:
    """RFC 9112 section 6.3; what HEAD and 304 declare is kept to be relayed."""
    assert check_response(method, status, "1.1", tuple(headers)) == body


@pytest.mark.parametrize(
    ("status", "version", "headers"),
    [
        (200, "0.9", []),
        (200, "2.0", []),
        (0, "1.1", []),
        (99, "1.1", []),
        (600, "1.1", []),
        (200, "1.0", [te(b"chunked")]),
        (200, "1.1", [te(b"gzip")]),
        (200, "1.1", [te(b"gzip, chunked")]),
        (200, "1.1", [te(b"chunked, gzip")]),
        (200, "1.1", [te(b"chunked"), te(b"chunked")]),
        (200, "1.1", [te(b"chunked"), cl(b"5")]),
        (200, "1.1", [cl(b"5"), te(b"chunked")]),
        (200, "1.1", [cl(b"5"), cl(b"5")]),
        (200, "1.1", [cl(b"5, 5")]),
        (200, "1.1", [cl(b"9223372036854775808")]),
        (200, "1.1", [(b"x", b"a\r\nset-cookie: b")]),
        (304, "1.1", [cl(b"x")]),
        (204, "1.1", [cl(b"5")]),
        (204, "1.1", [te(b"chunked")]),
        (103, "1.1", [cl(b"5")]),
    ],
)
def test_an_answer_with_two_possible_ends_is_ambiguous(
    status: int, version: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """Whoever guessed wrong would give its rest to the next user (R20, R31)."""
    assert check_response(b"GET", status, version, tuple(headers)) is None


@dataclass
class Heard:
    """What a parser reports."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    target: bytes = b""
    complete: bool = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse(raw: bytes) -> tuple[Heard, httptools.HttpRequestParser] | None:
    """Return what httptools makes of a head; None: it refuses."""
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    return (heard, parser) if heard.complete else None


def judge(raw: bytes) -> str:
    """Say who refuses *raw*: "parser", "us", or nobody."""
    parsed = parse(raw)
    if parsed is None:
        return "parser"
    heard, parser = parsed
    outcome = check_request(
        parser.get_method(),
        parser.get_http_version(),
        tuple(heard.fields),
        upgrade=parser.should_upgrade(),
    )
    return "us" if isinstance(outcome, Denial) else "nobody"


def post(*lines: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *lines, b"", b""])


@pytest.mark.parametrize(
    ("raw", "who"),
    [
        (post(), "nobody"),
        (post(b"Content-Length: 0"), "nobody"),
        (post(b"Content-Length:  \t0 \t"), "nobody"),
        (post(b"Transfer-Encoding: CHUNKED"), "nobody"),
        # Line ends
        (b"POST / HTTP/1.1\nHost: a\r\n\r\n", "parser"),
        (b"POST / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "parser"),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\n", "parser"),
        (b"POST / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "parser"),
        (post(b"X: b", b" c"), "parser"),
        (post(b"X: b", b"\tc"), "parser"),
        (post(b"X:", b" c"), "parser"),
        # Names and values
        (post(b"X : b"), "parser"),
        (post(b"X\t: b"), "parser"),
        (post(b": b"), "parser"),
        (post(b"X"), "parser"),
        (post(b"X(y): b"), "parser"),
        (post(b"X\xe9: b"), "parser"),
        (post(b"X: a\x00b"), "parser"),
        (post(b"X: a\x01b"), "parser"),
        (post(b"X: a\x7fb"), "parser"),
        (post(b"X: a\xffb"), "nobody"),
        # Content-Length
        (post(b"Content-Length: 3, 3"), "parser"),
        (post(b"Content-Length: +3"), "parser"),
        (post(b"Content-Length: 0x3"), "parser"),
        (post(b"Content-Length:"), "parser"),
        (post(b"Content-Length: 3", b"Content-Length: 3"), "parser"),
        (post(b"Content-Length: 9223372036854775808"), "us"),
        (post(b"Content-Length: 18446744073709551616"), "parser"),
        # Transfer-Encoding
        (post(b"Content-Length: 3", b"Transfer-Encoding: chunked"), "parser"),
        (post(b"Transfer-Encoding: chunked", b"Content-Length: 3"), "parser"),
        (post(b"Transfer-Encoding: gzip, chunked"), "us"),
        (post(b"Transfer-Encoding: chunked, gzip"), "parser"),
        (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), "parser"),
        (post(b"Transfer-Encoding: chunked;a=b"), "parser"),
        (post(b"Transfer-Encoding: identity"), "parser"),
        (post(b"Transfer-Encoding:"), "parser"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "us"),
        # Versions and methods
        (b"GET /\r\n\r\n", "us"),
        (b"GET / HTTP/0.9\r\n\r\n", "us"),
        (b"GET / HTTP/2.0\r\n\r\n", "us"),
        (b"GET / HTTP/1.2\r\n\r\n", "parser"),
        (b"GET / http/1.1\r\n\r\n", "parser"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "parser"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "us"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "us"),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "parser"),
        (b"GETX / HTTP/1.1\r\nHost: a\r\n\r\n", "parser"),
        # An upgrade with a body
        (post(b"Connection: upgrade", b"Upgrade: h2c"), "nobody"),
        (post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3"), "us"),
    ],
)
def test_what_the_parser_lets_through_is_refused_by_us(raw: bytes, who: str) -> None:
    """A row that changes hands with a new release of the parser is a row to read."""
    assert judge(raw) == who


@pytest.mark.parametrize(
    "head",
    [
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / RTSP/1.1\r\nHost: a\r\n\r\n",
        b"SOURCE / ICE/1.1\r\nHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_leaves_no_trace_in_the_fields_is_seen_in_the_head(head: bytes) -> None:
    """The parser passes these, and what it reports looks like any request."""
    assert judge(head) == "nobody"
    assert not head_is_clean(head)


@pytest.mark.parametrize(
    ("head", "clean"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET /?a=b HTTP/1.0\r\nHost: a\r\nX:\r\nY:\t b \xe9\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nX", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", False),
        (b"GET / HTTP/1.1\nHost: a\n\n", False),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nX: a\x00\r\n\r\n", False),
        (b"GET /\xe9 HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/2.0\r\n\r\n", False),
        (b"GET /\r\n\r\n", False),
    ],
)
def test_a_clean_head_is_spelt_as_the_standard_says(head: bytes, clean: bool) -> None:
    """One pattern for the whole of it."""
    assert head_is_clean(head) is clean


def test_no_known_spelling_of_transfer_encoding_smuggles() -> None:
    """168 mutations, alone and beside a Content-Length: refused by one of us."""
    for name, line in vectors.load("smuggler-te/te_mutations.json").items():
        octets = line.encode("latin-1")
        assert judge(post(octets)) != "nobody", name
        assert judge(post(b"Content-Length: 0", octets)) != "nobody", name


def test_a_mutation_that_a_laxer_parser_passes_is_refused_by_us() -> None:
    """As fields, split at the first colon and trimmed as lax parsers do."""
    for name, line in vectors.load("smuggler-te/te_mutations.json").items():
        octets = line.encode("latin-1").lower()
        for separator in (b":", b"\n"):
            key, _, value = octets.partition(separator)
            fields: Headers = (HOST, cl(b"5"), (key.strip(), value.strip(b" \t")))
            outcome = check_request(b"POST", "1.1", fields, upgrade=False)
            if isinstance(outcome, Body):
                # Then it is a field of another name, which frames nothing.
                assert key.strip() != b"transfer-encoding", name


@given(
    method=st.binary(max_size=8),
    version=st.sampled_from(["1.0", "1.1", "2.0", ""]),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"content-length", b"transfer-encoding"])
            | st.binary(max_size=6),
            st.sampled_from([b"5", b"0", b"chunked"]) | st.binary(max_size=6),
        ),
        max_size=4,
    ).map(tuple),
    upgrade=st.booleans(),
    status=st.integers(0, 700),
)
@settings(deadline=None, max_examples=500)
def test_any_fields_are_framed_or_refused(
    method: bytes, version: str, headers: Headers, upgrade: bool, status: int
) -> None:
    """And what is framed was framed by at most one field, without a control in it."""
    request = check_request(method, version, headers, upgrade)
    response = check_response(b"GET", status, version, headers)

    framing = [n for n, _ in headers if n in {b"content-length", b"transfer-encoding"}]
    if isinstance(request, Body) or response is not None:
        assert len(framing) <= 1
        assert fields_are_clean(headers)
        assert version in {"1.0", "1.1"}


def test_other_fields_of_an_answer_do_not_frame_it() -> None:
    """Only Content-Length and Transfer-Encoding say where it ends."""
    headers = ((b"date", b"now"), (b"content-length", b"2"), (b"x-length", b"3"))

    assert check_response(b"GET", 200, "1.1", headers) == Body(2)

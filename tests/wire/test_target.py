"""gateway.wire.target: one reading of a target, or none."""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Reason
from gateway.wire.target import _LOOKALIKES, Reading, read_target
from tests import vectors


def accept(target: bytes) -> Reading:
    reading = read_target(target)
    assert not isinstance(reading, Denial), reading
    return reading


def refuse(target: bytes) -> str:
    reading = read_target(target)
    assert isinstance(reading, Denial), reading
    return str(reading)


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
    path = target.partition(b"?")[0]

    assert accept(target) == (path, query, segments, frozenset())


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
    assert refuse(target) == f"target.ambiguous:{word}"


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
    assert accept(target) == (target, None, segments, frozenset(escapes))


@pytest.mark.parametrize(
    "target",
    [b"/a" * 513, b"/%61" * 513, b"/" + b"%41" * 1025],
    ids=["segments", "encoded segments", "escapes"],
)
def test_a_path_has_a_bounded_number_of_parts(target: bytes) -> None:
    """A head of the largest size must not buy milliseconds of reading it."""
    assert refuse(target).startswith(Reason.HEAD_TOO_LARGE)


def test_a_path_at_the_bounds_is_read() -> None:
    """512 segments, and 1,024 escapes."""
    assert accept(b"/a" * 512)[2] == ("a",) * 512
    assert accept(b"/" + b"%41" * 1024)[2] == ("A" * 1024,)


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
    reading = read_target(target)
    if isinstance(reading, Denial):
        assert reading.reason in {Reason.TARGET_AMBIGUOUS, Reason.HEAD_TOO_LARGE}
        return

    path, query, segments, _ = reading
    assert target == (path if query is None else path + b"?" + query)
    assert segments == tuple(
        unquote_to_bytes(raw).decode() for raw in path.split(b"/")[1:]
    )
    assert "" not in segments[:-1]
    text = "/".join(segments)
    for _ in range(3):
        assert not {".", ".."} & set(parts(text))
        text = unquote(text)


def test_no_redirect_trick_passes_as_a_path_to_another_place() -> None:
    """The list of oauth2-proxy, each line taken for a request target."""
    for line in vectors.load("oauth2-proxy/openredirects.json"):
        reading = read_target(line.encode("utf-8", "surrogateescape"))
        if not isinstance(reading, Denial):
            path, _, segments, _ = reading
            assert path.startswith(b"/")
            assert not path.startswith((b"//", b"/\\"))
            assert not {".", ".."} & set(parts("/".join(segments)))


def test_naughty_strings_are_read_or_refused_as_paths() -> None:
    """Raw, and percent-encoded as a client library would."""
    for line in vectors.load("naughty-strings/blns.json"):
        octets = line.encode("utf-8", "surrogatepass")
        read_target(b"/" + octets)
        encoded = b"/x" + b"".join(b"%%%02x" % octet for octet in octets)
        reading = read_target(encoded)
        if not isinstance(reading, Denial):
            assert reading[2] == ("x" + line,)

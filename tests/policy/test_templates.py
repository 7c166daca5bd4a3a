"""gateway.policy.templates: what may be written as a path, and what it covers."""

from __future__ import annotations

import pytest

from gateway.policy.templates import (
    MAX_SEGMENTS,
    Fault,
    Segment,
    forms,
    is_int,
    is_uuid,
    parse_path,
    parse_prefix,
    shape,
)


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/", [("literal", "")]),
        ("/a", [("literal", "a")]),
        ("/a/", [("literal", "a"), ("literal", "")]),
        ("/{x}", [("plain", "x")]),
        ("/{x:int}/{y:uuid}", [("int", "x"), ("uuid", "y")]),
        ("/a/{rest...}", [("literal", "a"), ("rest", "rest")]),
        ("/caf\u00e9/a b", [("literal", "caf\u00e9"), ("literal", "a b")]),
        ("/v1.2/a:b@c", [("literal", "v1.2"), ("literal", "a:b@c")]),
    ],
)
def test_a_template_is_literals_parameters_and_a_rest(
    path: str, segments: list[tuple[str, str]]
) -> None:
    """A parameter fills a segment; literals are written decoded."""
    parsed = parse_path(path)

    assert not isinstance(parsed, Fault)
    assert [(segment.kind, segment.text) for segment in parsed] == segments


@pytest.mark.parametrize(
    ("path", "message", "suggestion"),
    [
        ("a", "a path starts with a slash", 'write "/a"'),
        ("", "a path starts with a slash", 'write "/"'),
        ("//a", "an empty segment can never match: such targets are refused", ""),
        ("/a//b", "an empty segment can never match: such targets are refused", ""),
        ("/.", "dot segments can never match: such targets are refused", ""),
        ("/a/../b", "dot segments can never match: such targets are refused", ""),
        ("/a*", '"*" stands for nothing in a path', 'did you mean "{rest...}"?'),
        ("/:id", "a parameter is written in braces", 'did you mean "{id}"?'),
        (
            "/a%20b",
            '"%" cannot stand in a path',
            "write the character itself: paths are compared decoded",
        ),
        ("/a?b=c", '"?" cannot stand in a path', ""),
        ("/a#b", '"#" cannot stand in a path', ""),
        ("/a\\b", '"\\" cannot stand in a path', ""),
        ("/a;b", '";" cannot stand in a path', ""),
        ("/a\nb", '"U+000A" cannot stand in a path', ""),
        ("/a{x}", "a parameter fills a whole segment: {name}", ""),
        ("/{x}.json", "a parameter fills a whole segment: {name}", ""),
        ("/{x", "a parameter fills a whole segment: {name}", ""),
        ("/{x:[a-z]{2}}", "a parameter fills a whole segment: {name}", ""),
        ("/{}", '"" is not a name: letters, digits and _', ""),
        ("/{1x}", '"1x" is not a name: letters, digits and _', ""),
        ("/{x:integer}", 'unknown type "integer"', 'did you mean "int"?'),
        ("/{r...}/a", "{...} takes all that follows, so it comes last", ""),
        ("/{x}/{x}", 'two parameters are named "x"', ""),
        ("/{x}/{x...}", 'two parameters are named "x"', ""),
        ("/a" * (MAX_SEGMENTS + 1), "a path has at most 32 segments", ""),
    ],
)
def test_what_is_no_template_is_said_so(
    path: str, message: str, suggestion: str
) -> None:
    """A path that could never match, or would match by surprise, does not load."""
    fault = parse_path(path)

    assert isinstance(fault, Fault)
    assert (fault.message, fault.suggestion) == (message, suggestion)


@pytest.mark.parametrize(
    ("prefix", "segments"),
    [("/", ()), ("/api", ("api",)), ("/api/orders", ("api", "orders"))],
)
def test_a_prefix_is_literal_segments(prefix: str, segments: tuple[str, ...]) -> None:
    """A prefix names one place."""
    assert parse_prefix(prefix) == segments


@pytest.mark.parametrize(
    ("prefix", "message", "suggestion"),
    [
        ("", "a prefix starts with a slash", 'write "/"'),
        ("api", "a prefix starts with a slash", 'write "/api"'),
        ("/api/", "a prefix has no slash at its end", 'write "/api"'),
        ("//", "a prefix has no slash at its end", 'write "/"'),
        ("/{tenant}", "a prefix has no parameters", ""),
        (
            "/a//b",
            "an empty segment can never match: such targets are refused",
            "",
        ),
    ],
)
def test_what_is_no_prefix_is_said_so(
    prefix: str, message: str, suggestion: str
) -> None:
    """A prefix is compared as it stands, so it has one spelling."""
    fault = parse_prefix(prefix)

    assert isinstance(fault, Fault)
    assert (fault.message, fault.suggestion) == (message, suggestion)


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("0", True),
        ("007", True),
        ("", False),
        ("-1", False),
        ("+1", False),
        ("1.0", False),
        ("1e0", False),
        ("1_0", False),
        (" 1", False),
        ("\uff11", False),  # full-width 1
        ("\u00b2", False),  # superscript 2: str.isdigit() alone says yes
    ],
)
def test_an_int_is_ascii_digits(text: str, yes: bool) -> None:
    """What a backend's number parser may read otherwise is no int."""
    assert is_int(text) is yes


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("2f1c7a34-58f0-4b0e-9d51-0a1b2c3d4e5f", True),
        ("2F1C7A34-58F0-4B0E-9D51-0A1B2C3D4E5F", True),
        ("2f1c7a3458f04b0e9d510a1b2c3d4e5f", False),
        ("{2f1c7a34-58f0-4b0e-9d51-0a1b2c3d4e5f}", False),
        ("2f1c7a34-58f0-4b0e-9d51-0a1b2c3d4e5f\n", False),
        ("2f1c7a34-58f0-4b0e-9d51-0a1b2c3d4e5\uff16", False),
    ],
)
def test_a_uuid_has_one_form(text: str, yes: bool) -> None:
    """RFC 9562 section 4; either case, no braces, no urn:."""
    assert is_uuid(text) is yes


@pytest.mark.parametrize(
    ("prefix", "path", "full"),
    [
        ((), "/", ["/"]),
        (("api",), "/", ["/api/", "/api"]),
        (("api",), "/a/", ["/api/a/"]),
        ((), "/{r...}", ["/{r...}"]),
        (("api",), "/{r...}", ["/api/{r...}", "/api{r...}"]),
        (("api",), "/a/{r...}", ["/api/a/{r...}"]),
        (("api",), "/{x}", ["/api/{x}"]),
    ],
)
def test_the_prefix_itself_is_meant_with_and_without_its_slash(
    prefix: tuple[str, ...], path: str, full: list[str]
) -> None:
    """`path = "/"` covers `/api` and `/api/`; so does a rest right below the prefix."""
    parsed = parse_path(path)
    assert not isinstance(parsed, Fault)

    assert [_written(form) for form in forms(prefix, parsed)] == full


def _written(form: tuple[Segment, ...]) -> str:
    signs = {"literal": "/{}", "plain": "/{{{}}}", "rest": "/{{{}...}}"}
    signs["end"] = "{{{}...}}"
    return "".join(signs[it.kind].format(it.text) for it in form)


def test_the_shape_of_a_template_forgets_names() -> None:
    """`/{a}/b` and `/{c}/b` are for the same paths, `/{a:int}/b` is not."""
    one, two, three = (parse_path(path) for path in ("/{a}/b", "/{c}/b", "/{a:int}/b"))
    assert not isinstance(one, Fault)
    assert not isinstance(two, Fault)
    assert not isinstance(three, Fault)

    assert shape(one) == shape(two)
    assert shape(one) != shape(three)

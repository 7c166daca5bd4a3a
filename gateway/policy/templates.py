"""Path templates: `/orders/{id:int}/files/{rest...}`, and which is more specific.

A template is a list of segments, each a literal, a typed parameter (`int` or `uuid`), a
plain parameter, or the rest. Literals are written decoded, as segments are compared
(R10). There are no regular expressions: an author can't write a slow one.

An `int` is ASCII digits only, a `uuid` has the 8-4-4-4-12 form of RFC 9562 section 4.
No text is both, which is why the two are equally specific. No parameter but the rest
takes an empty segment: `/a/{x}` does not match `/a/`. `/a/{rest...}` matches `/a/`, not
`/a`.

Imports: gateway.policy.suggest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gateway.policy.suggest import did_you_mean

Kind = Literal["literal", "int", "uuid", "plain", "rest", "end"]

RANK: dict[Kind, int] = {
    "literal": 0,
    "int": 1,
    "uuid": 1,
    "plain": 2,
    "rest": 3,
    "end": 4,
}
"""Lower is more specific; templates are compared left to right."""

# Of a prefix, and of a path below it: together the depth of the table, and of its
# recursion. Real APIs stay below 15.
MAX_SEGMENTS = 32

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARAMETER = re.compile(r"\{([^{}:.]*)(?::([^{}]*)|(\.\.\.))?\}")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a template.

    `end` stands for nothing at all: it lets `{rest...}` right below a prefix match the
    prefix without its slash.
    """

    kind: Kind
    text: str  # the literal, decoded; else the parameter's name

    @property
    def shape(self) -> tuple[Kind, str]:
        """What is left when the parameter's name is erased."""
        return self.kind, self.text if self.kind == "literal" else ""

    @property
    def is_named(self) -> bool:
        """Whether it takes exactly one segment of the path."""
        return self.kind in {"int", "uuid", "plain"}


Shape = tuple[tuple[Kind, str], ...]
Segments = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a text is not a template."""

    message: str
    value: str = ""
    suggestion: str = ""


def is_int(segment: str) -> bool:
    """Tell whether *segment* is written in ASCII digits alone."""
    return segment.isdigit() and segment.isascii()


def is_uuid(segment: str) -> bool:
    """Tell whether *segment* has the textual form of a UUID."""
    return _UUID.fullmatch(segment) is not None


def shape(segments: Segments) -> Shape:
    """Return *segments* without the names of the parameters."""
    return tuple(segment.shape for segment in segments)


def literals(texts: tuple[str, ...]) -> Segments:
    """Return *texts* as literal segments."""
    return tuple(Segment("literal", text) for text in texts)


def parse_prefix(prefix: str) -> tuple[str, ...] | Fault:
    """Return the segments of a service's *prefix*: none for "/"."""
    if not prefix.startswith("/"):
        return Fault("a prefix starts with a slash", prefix, f'write "/{prefix}"')
    if prefix == "/":
        return ()
    if prefix.endswith("/"):
        bare = prefix.rstrip("/") or "/"
        return Fault("a prefix has no slash at its end", prefix, f'write "{bare}"')
    parsed = parse_path(prefix)
    if isinstance(parsed, Fault):
        return parsed
    if any(segment.kind != "literal" for segment in parsed):
        return Fault("a prefix has no parameters", prefix)
    return tuple(segment.text for segment in parsed)


def parse_path(path: str) -> Segments | Fault:
    """Return the segments of a template, or what is wrong with it."""
    if not path.startswith("/"):
        return Fault("a path starts with a slash", path, f'write "/{path}"')
    texts = path[1:].split("/")
    if len(texts) > MAX_SEGMENTS:
        return Fault(f"a path has at most {MAX_SEGMENTS} segments", path)
    segments: list[Segment] = []
    for position, text in enumerate(texts):
        is_last = position == len(texts) - 1
        segment = _segment(text, is_last=is_last)
        if isinstance(segment, Fault):
            return segment
        if segment.kind != "literal" and segment.text in {
            other.text for other in segments if other.kind != "literal"
        }:
            return Fault(f'two parameters are named "{segment.text}"', text)
        segments.append(segment)
    return tuple(segments)


def _segment(text: str, *, is_last: bool) -> Segment | Fault:
    if "{" in text or "}" in text:
        return _parameter(text, is_last=is_last)
    if not text and not is_last:
        return Fault("an empty segment can never match: such targets are refused", "//")
    if text in {".", ".."}:
        return Fault("dot segments can never match: such targets are refused", text)
    if "*" in text:
        return Fault(
            '"*" stands for nothing in a path', text, 'did you mean "{rest...}"?'
        )
    if text.startswith(":"):
        return Fault(
            "a parameter is written in braces",
            text,
            f'did you mean "{{{text[1:]}}}"?',
        )
    for sign in text:
        if sign in "%?#\\;" or not sign.isprintable():
            shown = sign if sign.isprintable() else f"U+{ord(sign):04X}"
            hint = "write the character itself: paths are compared decoded"
            return Fault(
                f'"{shown}" cannot stand in a path',
                text,
                hint if sign == "%" else "",
            )
    return Segment("literal", text)


def _parameter(text: str, *, is_last: bool) -> Segment | Fault:
    found = _PARAMETER.fullmatch(text)
    if found is None:
        return Fault("a parameter fills a whole segment: {name}", text)
    name, kind, dots = found.groups()
    if not _NAME.fullmatch(name):
        return Fault(f'"{name}" is not a name: letters, digits and _', text)
    if dots:
        if not is_last:
            return Fault("{...} takes all that follows, so it comes last", text)
        return Segment("rest", name)
    match kind:
        case None:
            return Segment("plain", name)
        case "int":
            return Segment("int", name)
        case "uuid":
            return Segment("uuid", name)
        case _:
            return Fault(
                f'unknown type "{kind}"', text, did_you_mean(kind, ("int", "uuid"))
            )


def forms(prefix: tuple[str, ...], path: Segments) -> tuple[Segments, ...]:
    """Return every full template that *path* below *prefix* stands for.

    "/" is the prefix itself, with and without its slash; so it is for a `{rest...}`
    right below the prefix, whose remainder is then empty.
    """
    above = literals(prefix)
    full = above + path
    if not prefix or len(path) != 1:
        return (full,)
    only = path[0]
    if only == Segment("literal", ""):
        return (full, above)
    if only.kind == "rest":
        return (full, (*above, Segment("end", only.text)))
    return (full,)

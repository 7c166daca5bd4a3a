r"""One reading of a request target, or a refusal (RFC 9112 section 3.2, RFC 3986).

The path is split at its slashes and each segment decoded once. A target that some
backend could read in another way is refused, never repaired (R3, R10), because what was
received is what is sent. The escapes of / \ # ? and % are only collected: a route may
allow them. But what becomes a dot segment at any later decoding never passes.

Imports: gateway.model.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from urllib.parse import unquote

from gateway.model import Denial, Reason

Reading = tuple[bytes, bytes | None, tuple[str, ...], frozenset[str]]
"""Raw path, raw query, decoded segments, escapes: as in RequestHead."""

# A target that needs no second look: no percent sign, no segment that begins with a
# dot or a semicolon. Most requests end here, at the cost of one match.
_FIRST = rb'[!"$&-\-0-:<->@-\[\]-~]'  # printable, but none of # % . / ; ? \
_OTHER = rb'[!"$&-.0->@-\[\]-~]'  # printable, but none of # % / ? \
_QUERY = rb'[!"$-~]*+'  # printable, but no #
_PLAIN = re.compile(
    rb"(/|(?:/" + _FIRST + _OTHER + rb"*+)++/?)(?:\?(" + _QUERY + rb"))?"
)

_QUERY_TEXT = re.compile(_QUERY)
_IN_PATH = bytes(set(range(0x21, 0x7F)) - set(b"#\\"))
_WORDS = {b"\\": "backslash", b"#": "fragment", b" ": "space"}
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_OCTETS = {
    f"{high}{low}".encode(): bytes.fromhex(high + low)
    for high in string.hexdigits
    for low in string.hexdigits
}
# Decoding is the one thing here that costs more than reading. 340 characters of
# Japanese have as many escapes.
_MAX_ESCAPES = 1024
_MAX_SEGMENTS = 512  # what matches and rules walk through

# Of a decoded path, in which an encoded slash is NUL. Controls of ASCII and of Latin-1,
# whose NEL some readers take for a line end.
_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f]")
# A servlet container takes `;params` away before it reads the path: a segment of
# nothing else is an empty one to it, and `..;x` is `..`.
_EMPTY = re.compile("/[/;]")
_DOTS = re.compile(r"[/\\\x00] *\.\.? *(?:[/\\\x00;]|\Z)")
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
_ESCAPES = {"\0": "%2F", "\\": "%5C", "#": "%23", "?": "%3F"}
_NO_ESCAPES: frozenset[str] = frozenset()
# What normalises to a dot, a slash, a backslash or a semicolon (NFKC), for readers
# that normalise after they have decoded.
_LOOKALIKES = str.maketrans(
    {
        "\N{ONE DOT LEADER}": ".",
        "\N{TWO DOT LEADER}": "..",
        "\N{PRESENTATION FORM FOR VERTICAL TWO DOT LEADER}": "..",
        "\N{SMALL FULL STOP}": ".",
        "\N{FULLWIDTH FULL STOP}": ".",
        "\N{FULLWIDTH SOLIDUS}": "/",
        "\N{SMALL REVERSE SOLIDUS}": "\\",
        "\N{FULLWIDTH REVERSE SOLIDUS}": "\\",
        "\N{GREEK QUESTION MARK}": ";",
        "\N{PRESENTATION FORM FOR VERTICAL SEMICOLON}": ";",
        "\N{SMALL SEMICOLON}": ";",
        "\N{FULLWIDTH SEMICOLON}": ";",
    }
)
# Two readers after us may each decode once more; nobody has an honest use for more.
_DECODINGS = 3


def read_target(target: bytes) -> Reading | Denial:
    """Read a request target in origin form."""
    # What is asked for often is asked for again; a long one is somebody's invention.
    return _remembered(target) if len(target) <= _MAX_REMEMBERED else _read(target)


def _read(target: bytes) -> Reading | Denial:
    plain = _PLAIN.fullmatch(target)
    if plain is not None:
        path, query = plain.groups()
        segments = tuple(path.decode("ascii").split("/")[1:])
        if len(segments) > _MAX_SEGMENTS:
            return Denial(Reason.HEAD_TOO_LARGE, "segments")
        return path, query, segments, _NO_ESCAPES

    path, mark, query = target.partition(b"?")
    reading = _read_path(path)
    if isinstance(reading, Denial):
        return reading
    if not _QUERY_TEXT.fullmatch(query):
        return Denial(Reason.TARGET_AMBIGUOUS, "query")
    return path, query if mark else None, *reading


_MAX_REMEMBERED = 256  # bytes; of 4,096 such targets, some 3 MB
_remembered = lru_cache(maxsize=4096)(_read)


def _read_path(path: bytes) -> tuple[tuple[str, ...], frozenset[str]] | Denial:
    """Return segments and escapes of *path*.

    Works on the whole path, because a head of 16 KiB has room for thousands of
    segments. An encoded slash is a NUL meanwhile, which nothing else decodes to, so
    that splitting still happens at the raw slashes alone; and no UTF-8 sequence holds
    one.
    """
    if not path.startswith(b"/"):
        return Denial(Reason.TARGET_AMBIGUOUS, "not a path")
    odd = path.translate(None, _IN_PATH)
    if odd:
        return Denial(Reason.TARGET_AMBIGUOUS, _WORDS.get(odd[:1], "character"))
    if path.count(b"/") > _MAX_SEGMENTS:
        return Denial(Reason.HEAD_TOO_LARGE, "segments")
    if path.count(b"%") > _MAX_ESCAPES:
        return Denial(Reason.HEAD_TOO_LARGE, "escapes")
    if _BAD_PERCENT.search(path):
        return Denial(Reason.TARGET_AMBIGUOUS, "percent")
    if b"%00" in path:
        return Denial(Reason.TARGET_AMBIGUOUS, "control")

    first, *rest = path.replace(b"%2F", b"\0").replace(b"%2f", b"\0").split(b"%")
    octets = first + b"".join([_OCTETS[piece[:2]] + piece[2:] for piece in rest])
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return Denial(Reason.TARGET_AMBIGUOUS, "encoding")
    if _CONTROL.search(text):
        return Denial(Reason.TARGET_AMBIGUOUS, "control")
    if _EMPTY.search(text):
        return Denial(Reason.TARGET_AMBIGUOUS, "empty segment")
    if _hides_dots(text):
        return Denial(Reason.TARGET_AMBIGUOUS, "dot segment")

    escapes = {name for character, name in _ESCAPES.items() if character in text}
    # Not `%25` followed by hex in the raw bytes: `%25%32%65` decodes to `%2e` too.
    if _ESCAPED.search(text):
        escapes.add("%25")
    segments = text.split("/")[1:]
    if "\0" in text:
        segments = [segment.replace("\0", "/") for segment in segments]
    return tuple(segments), frozenset(escapes)


def _hides_dots(text: str) -> bool:
    """Tell whether a decoded path holds a dot segment, or would if decoded again."""
    for _ in range(_DECODINGS):
        if _DOTS.search(text if text.isascii() else text.translate(_LOOKALIKES)):
            return True
        if not _ESCAPED.search(text):
            return False
        text = unquote(text)
    return True

"""Where in a TOML text each key and each value stands.

tomllib alone parses. It keeps no places, so this scanner walks a text that tomllib
has accepted and notes the span of every key path: table headers, arrays of tables,
dotted and quoted keys, inline tables, elements of arrays. It understands as much
TOML as it takes to step over a value, and judges nothing.

Lines and columns count from 1, columns in characters.

Imports: the standard library, gateway.policy.spec.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass, field

from gateway.policy.spec import KeyPath

# Deeper paths are stepped over, not noted: no key of ours is half as deep, and a
# hostile file must cost neither the stack nor the square of its length.
MAX_DEPTH = 32

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# A multi-line string may end in up to two quotes of its own before the closing three.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_FILLER = re.compile(r"[^\"'#\[\]{}]+")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the text, by character offsets: text[start:stop]."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Positions:
    """The spans of one text."""

    text: str
    keys: dict[KeyPath, Span] = field(default_factory=dict)
    values: dict[KeyPath, Span] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)

    def line_column(self, offset: int) -> tuple[int, int]:
        """Return line and column of *offset*."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def offset(self, line: int, column: int) -> int:
        """Return the offset of *line* and *column*, as far as the text goes."""
        start = self._starts[min(line, len(self._starts)) - 1]
        return min(start + column - 1, len(self.text))

    def line_text(self, line: int) -> str:
        """Return line number *line* without its end."""
        start = self._starts[line - 1]
        stop = self.text.find("\n", start)
        return self.text[start:] if stop < 0 else self.text[start:stop]

    def find(self, path: KeyPath, *, key: bool = False) -> Span | None:
        """Return the span of the longest prefix of *path* that exists.

        *key* asks for the key where the whole path exists; of a table, header and
        value are the same place. None: not even its first part exists.
        """
        if key and path in self.keys:
            return self.keys[path]
        while path:
            span = self.values.get(path) or self.keys.get(path)
            if span is not None:
                return span
            path = path[:-1]
        return None


def blank(text: str) -> Positions:
    """Return positions of *text* that know its lines and no key."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    return Positions(text, _starts=starts)


def scan(text: str) -> Positions:
    """Find every key and value of *text*, which tomllib has accepted.

    Lines end in a line feed alone: the caller has replaced CR LF, as tomllib does.
    """
    positions = blank(text)
    _Scanner(positions).run()
    return positions


class _Scanner:
    """One walk over one text."""

    def __init__(self, positions: Positions) -> None:
        self._text = positions.text
        self._keys = positions.keys
        self._values = positions.values
        self._tables: dict[KeyPath, int] = {}  # last index of each array of tables

    def run(self) -> None:
        table: KeyPath = ()
        at = self._blank(0)
        while at < len(self._text):
            if self._text[at] == "[":
                at, table = self._header(at)
            else:
                at = self._pair(at, table)
            at = self._blank(at)

    def _blank(self, at: int) -> int:
        """Step over white space, line ends and comments."""
        return _match(_BLANK, self._text, at).end()

    def _space(self, at: int) -> int:
        return _match(_SPACE, self._text, at).end()

    def _header(self, at: int) -> tuple[int, KeyPath]:
        """Read `[a.b]` or `[[a.b]]`; return what follows, and the table's path."""
        several = self._text.startswith("[[", at)
        at, parts = self._key(at + (2 if several else 1))
        path: KeyPath = ()
        for name, span in parts[:-1]:
            path = self._enter((*path, name), span)
        name, span = parts[-1]
        path = (*path, name)
        if several:
            self._note(self._keys, path, span, again=False)
            self._tables[path] = self._tables.get(path, -1) + 1
            path = (*path, self._tables[path])
        self._note(self._keys, path, span)
        return at + (2 if several else 1), path

    def _enter(self, path: KeyPath, span: Span) -> KeyPath:
        """Go into the table at *path*; of an array of tables, into the last one."""
        self._note(self._keys, path, span, again=False)
        if path in self._tables:
            return (*path, self._tables[path])
        return path

    def _pair(self, at: int, table: KeyPath) -> int:
        """Read `key = value` into *table*."""
        at, parts = self._key(at)
        path = table
        for name, span in parts:
            path = (*path, name)[: MAX_DEPTH + 1]
            self._note(self._keys, path, span, again=False)
        return self._value(self._space(at + 1), path)

    def _key(self, at: int) -> tuple[int, list[tuple[str, Span]]]:
        """Read a dotted key with the white space around it."""
        parts: list[tuple[str, Span]] = []
        while True:
            at = self._space(at)
            quoted = self._text[at] in "\"'"
            stop = _match(_STRING if quoted else _BARE_KEY, self._text, at).end()
            parts.append((_name(self._text[at:stop]), Span(at, stop)))
            at = self._space(stop)
            if self._text[at] != ".":
                return at, parts
            at += 1

    def _value(self, at: int, path: KeyPath) -> int:
        """Read the value that begins at *at*; return what follows it."""
        if len(path) > MAX_DEPTH:
            return self._skip(at)
        match self._text[at]:
            case "[":
                stop = self._array(at, path)
            case "{":
                stop = self._inline(at, path)
            case '"' | "'":
                stop = _match(_STRING, self._text, at).end()
            case _:
                scalar = _match(_SCALAR, self._text, at)[0]
                stop = at + len(scalar.rstrip(" \t"))
        self._values[path] = Span(at, stop)
        return stop

    def _array(self, at: int, path: KeyPath) -> int:
        at = self._blank(at + 1)
        index = 0
        while self._text[at] != "]":
            at = self._blank(self._value(at, (*path, index)))
            if self._text[at] == ",":
                at = self._blank(at + 1)
            index += 1
        return at + 1

    def _inline(self, at: int, path: KeyPath) -> int:
        # TOML 1.1 allows line ends and a last comma here, 1.0 does not: we follow
        # whatever tomllib of this Python has let through.
        at = self._blank(at + 1)
        while self._text[at] != "}":
            at = self._blank(self._pair(at, path))
            if self._text[at] == ",":
                at = self._blank(at + 1)
        return at + 1

    def _skip(self, at: int) -> int:
        """Step over a value without noting what is in it."""
        if self._text[at] in "\"'":
            return _match(_STRING, self._text, at).end()
        if self._text[at] not in "[{":
            return _match(_SCALAR, self._text, at).end()
        depth = 0
        while True:
            match self._text[at]:
                case "[" | "{":
                    depth += 1
                    at += 1
                case "]" | "}":
                    depth -= 1
                    at += 1
                    if depth == 0:
                        return at
                case '"' | "'":
                    at = _match(_STRING, self._text, at).end()
                case "#":
                    at = self._blank(at)
                case _:
                    at = _match(_FILLER, self._text, at).end()

    @staticmethod
    def _note(
        spans: dict[KeyPath, Span], path: KeyPath, span: Span, *, again: bool = True
    ) -> None:
        if len(path) <= MAX_DEPTH and (again or path not in spans):
            spans[path] = span


def _match(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, at)
    assert found is not None, "tomllib accepts no text in which this fails"
    return found


def _name(raw: str) -> str:
    """Return the key that *raw* spells."""
    if raw[0] == "'" or (raw[0] == '"' and "\\" not in raw):
        return raw[1:-1]
    if raw[0] == '"':
        name: str = tomllib.loads(f"k = {raw}")["k"]
        return name
    return raw

"""Files read, parsed and laid over one another.

Later files win key by key: tables merge, everything else replaces. What stands at a
key path in the result stands at the same path in the last file that has it, so the
place of any value can be named.

Imports: the standard library, gateway.config.positions, gateway.policy.spec.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config.positions import MAX_DEPTH, Positions, Span, blank, scan
from gateway.policy.spec import KeyPath, Problem

MAX_FILE = 4 * 1024 * 1024  # bytes; the largest policies known are a tenth of it

_SYNTAX_PLACE = re.compile(
    r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|(?P<end>end of document))\)$"
)


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One file. `data` is empty where it could not be read or parsed."""

    file: str  # as messages name it
    path: Path
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    positions: Positions = field(default_factory=lambda: blank(""), repr=False)
    broken: bool = False

    def has(self, at: KeyPath) -> bool:
        """Tell whether something stands at the key path *at*."""
        return value_at(self.data, at) is not None


@dataclass(frozen=True, slots=True, eq=False)
class SyntaxProblem:
    """A problem in a text that has no key paths, because it does not parse."""

    problem: Problem
    span: Span | None  # None: there is no text either


def read(path: Path, shown: str) -> tuple[Document, SyntaxProblem | None]:
    """Read the file *path*, which messages call *shown*."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or "not a path"
        return _broken(path, shown, f"cannot be read: {why}")
    if len(raw) > MAX_FILE:
        return _broken(path, shown, "is longer than 4 MiB")
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return _broken(path, shown, f"is not UTF-8 (line {line})")
    return parse(text, path, shown)


def parse(text: str, path: Path, shown: str) -> tuple[Document, SyntaxProblem | None]:
    """Parse *text*, the content of the file *path*."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return _syntax(text, path, shown, str(error))
    except RecursionError:
        return _broken(path, shown, "is nested too deeply")
    except ValueError as error:  # a number of thousands of digits
        return _broken(path, shown, f"is not TOML that can be read: {error}")
    if _too_deep(data):
        return _broken(path, shown, "is nested too deeply")
    return Document(shown, path, data, scan(text)), None


def merge(documents: Sequence[Document]) -> dict[str, Any]:
    """Lay the data of *documents* over one another, the last on top."""
    merged: dict[str, Any] = {}
    for document in documents:
        _lay(merged, document.data)
    return merged


def origin(documents: Sequence[Document], at: KeyPath) -> Document:
    """Return the document in which *at*, or what is left of it, stands."""
    while at:
        for document in reversed(documents):
            if document.has(at):
                return document
        at = at[:-1]
    return documents[0]


def value_at(data: object, at: Iterable[str | int]) -> Any:
    """Return what stands at *at*; None where nothing does (TOML has no null)."""
    for part in at:
        if isinstance(part, int):
            if not isinstance(data, list) or not 0 <= part < len(data):
                return None
            data = data[part]
        elif isinstance(data, Mapping) and part in data:
            data = data[part]
        else:
            return None
    return data


def strings(data: object, at: KeyPath = ()) -> Iterable[tuple[KeyPath, str]]:
    """Yield every string value in *data* with its key path."""
    if isinstance(data, str):
        yield at, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from strings(value, (*at, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from strings(value, (*at, index))


def without(data: Mapping[str, Any], broken: Iterable[KeyPath]) -> dict[str, Any]:
    """Return a copy of *data* without the tables and keys at the paths *broken*."""
    whole = dict(data)
    for at in broken:
        table = whole
        for part in at[:-1]:
            inner = table.get(str(part))
            if not isinstance(inner, Mapping):
                break
            table[str(part)] = table = dict(inner)
        else:
            table.pop(str(at[-1]), None)
    return whole


def _lay(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict):
            below = under.get(key)
            under[key] = dict(below) if isinstance(below, dict) else {}
            _lay(under[key], value)
        else:
            under[key] = value


def _too_deep(data: object) -> bool:
    """Tell whether *data* is nested deeper than any config is, without recursion."""
    level: list[object] = [data]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        level = below
    return bool(level)


def _broken(path: Path, shown: str, message: str) -> tuple[Document, SyntaxProblem]:
    document = Document(shown, path, broken=True)
    return document, SyntaxProblem(Problem(shown, (), message), None)


def _syntax(
    text: str, path: Path, shown: str, message: str
) -> tuple[Document, SyntaxProblem]:
    """Turn tomllib's words, which end in the place, into a problem at that place."""
    positions = blank(text)
    place = _SYNTAX_PLACE.search(message)
    offset = len(text)
    if place is not None and place["line"] is not None:
        line, column = int(place["line"]), int(place["column"])
        offset = positions.offset(line, column)
    problem = Problem(shown, (), "not TOML: " + _SYNTAX_PLACE.sub("", message))
    document = Document(shown, path, positions=positions, broken=True)
    return document, SyntaxProblem(problem, Span(offset, offset + 1))

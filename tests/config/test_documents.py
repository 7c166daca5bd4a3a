"""gateway.config.documents: files are read, or said to be unreadable, and merged."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.documents import (
    MAX_FILE,
    Document,
    merge,
    origin,
    parse,
    read,
    strings,
    value_at,
    without,
)


def document(text: str, name: str = "a.toml") -> Document:
    made, problem = parse(text, Path(name), name)
    assert problem is None
    return made


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "is not UTF-8 (line 1)"),
        (b"\na = '\xc3\x28'", "is not UTF-8 (line 2)"),
        (b"#" * (MAX_FILE + 1), "is longer than 4 MiB"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "is nested too deeply"),
        (b"a = " + b"[" * 40 + b"]" * 40, "is nested too deeply"),
        (b".".join([b"a"] * 5000) + b" = 1", "is nested too deeply"),
        (b"a = " + b"9" * 5000, "is not TOML that can be read"),
    ],
)
def test_a_file_that_cannot_be_understood_is_said_to_be_so(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """Never an exception: the other files have problems to tell too."""
    (tmp_path / "a.toml").write_bytes(content)
    made, problem = read(tmp_path / "a.toml", "a.toml")
    assert made.broken
    assert made.data == {}
    assert problem is not None
    assert words in problem.problem.message


@pytest.mark.parametrize("path", ["missing.toml", ".", "nul\0.toml"])
def test_a_file_that_cannot_be_read_is_said_to_be_so(tmp_path: Path, path: str) -> None:
    """A missing file, a directory, an impossible name."""
    made, problem = read(tmp_path / path, path)
    assert made.broken
    assert problem is not None
    assert problem.problem.message.startswith("cannot be read: ")


@pytest.mark.parametrize(
    ("text", "place"),
    [("a = \n", (1, 5)), ("a = 1\nb = [1,", (2, 8)), ("[a]\n[a]\n", (2, 3))],
)
def test_a_syntax_error_has_the_place_that_the_parser_gives(
    text: str, place: tuple[int, int]
) -> None:
    """The parser's place becomes the mark; its words stay without it."""
    made, problem = parse(text, Path("a.toml"), "a.toml")
    assert problem is not None
    assert problem.span is not None
    assert made.positions.line_column(problem.span.start) == place
    assert "(at" not in problem.problem.message


def test_windows_line_ends_are_line_ends() -> None:
    """Places don't shift in a file with CR LF."""
    made, problem = read_text("a = 1\r\nb = 2\r\n")
    assert problem is None
    span = made.positions.find(("b",))
    assert span is not None
    assert made.positions.line_column(span.start) == (2, 5)


def read_text(text: str) -> tuple[Document, object]:
    return parse(text.replace("\r\n", "\n"), Path("a.toml"), "a.toml")


def test_later_files_win_key_by_key_and_lists_replace() -> None:
    """Tables merge; a scalar and a table replace each other."""
    one = document("x = 1\nlist = [1, 2]\n[t]\na = 1\nb = 1\n[u]\nc = 1\n")
    two = document("list = [3]\nu = 7\n[t]\nb = 2\n[x]\ny = 1\n", "b.toml")
    assert merge([one, two]) == {
        "x": {"y": 1},
        "list": [3],
        "t": {"a": 1, "b": 2},
        "u": 7,
    }
    assert one.data["t"] == {"a": 1, "b": 1}  # none of them is changed


def test_a_value_comes_from_the_last_file_that_says_it() -> None:
    """What is nowhere comes from the nearest table that is somewhere."""
    one, two = document("[t]\na = 1\nb = [1, 2]\n"), document("[t]\nb = [3]\n", "b")
    assert origin([one, two], ("t", "a")) is one
    assert origin([one, two], ("t", "b", 0)) is two
    assert origin([one, two], ("t", "c", "d")) is two
    assert origin([one, two], ("z",)) is one


def test_values_are_found_by_path() -> None:
    """Keys and indices; None for what isn't there."""
    data = {"a": [{"b": "x"}, "y"], "c": 1}
    assert value_at(data, ("a", 0, "b")) == "x"
    for nowhere in (("a", 2), ("a", "b"), ("c", 0), ("c", "d"), ("z",)):
        assert value_at(data, nowhere) is None
    assert dict(strings(data)) == {("a", 0, "b"): "x", ("a", 1): "y"}


def test_broken_parts_are_left_out_and_the_whole_stays_as_it_was() -> None:
    """What remains can still be judged."""
    data = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    rest = without(data, [("a", "b", "c"), ("e",), ("x", "y"), ("a", "d", "z")])
    assert rest == {"a": {"b": {}, "d": 2}}
    assert data == {"a": {"b": {"c": 1}, "d": 2}, "e": 3}

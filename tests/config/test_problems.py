"""gateway.config.problems: what is said, where it points, what it never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.documents import parse
from gateway.config.problems import Hidden, error, is_secret, line_of, place_of, quoted
from gateway.policy.spec import KeyPath, Problem


def report(text: str, *problems: Problem, hidden: Hidden | None = None) -> str:
    document, broken = parse(text, Path("a.toml"), "a.toml")
    told = [broken] if broken else []
    return str(error(problems, told, [document], hidden or Hidden()))


def at(*path: str | int, message: str = "wrong", value: str = "") -> Problem:
    return Problem("a.toml", path, message, "better", value)


def key(*path: str | int) -> Problem:
    return Problem("a.toml", path, "wrong", key=True)


def test_a_problem_shows_its_line_a_mark_and_a_suggestion() -> None:
    """The form of every message."""
    assert report("\n[t]\n\tx = ['a', 'bc'] # c\n", at("t", "x", 1)) == (
        "a.toml:3:12: wrong\n"
        "    3 |  x = ['a', 'bc'] # c\n"
        "      |            ^^^^ better\n"
        "\n1 problem"
    )


@pytest.mark.parametrize(
    ("problem", "place", "mark"),
    [
        (at("t"), "1:2", "^"),
        (key("t", "x"), "2:1", "^"),
        (at("t", "x"), "2:5", "^" * 14),
        (at("t", "x", value="bc"), "2:11", "^^^^"),
        (at("t", "x", value="no"), "2:5", "^" * 14),
        (at("t", "y z", value="y z"), "3:1", "^^^^^"),
        (at("t", value="y z"), "3:1", "^^^^^"),
        (at("t", "y z"), "3:9", "^^^"),  # as far as the line goes
        (at("t", "x", 7, "deep"), "2:5", "^" * 14),
    ],
)
def test_the_mark_is_under_what_is_wrong(
    problem: Problem, place: str, mark: str
) -> None:
    """The key, the value, the one string in it, or as much of the path as exists."""
    text = "[t]\nx = ['a', 'bc' ,1]\n'y z' = '''\nlong'''\n"
    lines = report(text, problem).split("\n")
    assert lines[0].startswith(f"a.toml:{place}: ")
    assert lines[2].split("|")[1].replace("better", "").strip() == mark


def test_all_problems_are_told_once_and_in_order() -> None:
    """By file, line and column; what belongs to no place comes first."""
    text = report("a = 1\nb = 2\n", at("b"), at("a"), at("b"), at())
    places = [line.split(": ")[0] for line in text.split("\n") if ": wrong" in line]
    assert places == ["a.toml:1:1", "a.toml:1:5", "a.toml:2:5"]
    assert text.endswith("\n3 problems")


def test_a_suggestion_may_have_several_lines() -> None:
    """They stand below one another, behind the mark."""
    problem = Problem("a.toml", ("a",), "wrong", "one\n\ntwo")
    assert report("a = 1", problem).split("\n")[2:5] == [
        "      |     ^ one",
        "      |",
        "      |     two",
    ]


def test_a_file_that_cannot_be_read_has_no_place(tmp_path: Path) -> None:
    """Its name is all there is to say."""
    text = str(error([Problem("b.toml", (), "is not there")], [], [], Hidden()))
    assert text == "b.toml: is not there\n\n1 problem"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("secret = 'CANARY'\n", at("secret")),
        ("x = { secret = 'CANARY', y = 1 }\n", at("x", "y")),
        ("scret = 'CANARY'\n", key("scret")),
        ("scret = { a = ['CANARY'] }\n", key("scret")),
        ("scret = { secret = 'CANARY' }\n", key("scret")),
        ("a = 1\nscret = '''x\nCANARY'''\n", key("scret")),
        ("url = 'redis://user:CANARY@host'\n", at("url")),
        ("url = 'redis+cluster://user:a/CANARY@host'\n", at("url")),
        ("url = 'redis+sentinel://a/b?sentinel_password=CANARY'\n", at("url")),
        ("x = ['http://CANARY@host', 2]\n", at("x", 1)),
        ("issuer.x.pem = 'CANARY'\n", at("issuer", "x")),
        ("admin.token = 'CANARY' # x\n", at("admin")),
        ("secret = 'CANARY\n", at()),
        ("client_secret = CANARY\n", at()),
        ("'store'.url = CANARY\n", at()),
        ("x = 1, token = CANARY\n", at()),
    ],
)
def test_a_secret_in_the_file_is_not_shown(text: str, problem: Problem) -> None:
    """The line is shown without it, whatever in that line is wrong."""
    assert "CANARY" not in report(text, problem)


def test_a_mark_finds_its_place_behind_a_masked_secret() -> None:
    """What is left out moves the rest of the line."""
    lines = report("x = { secret = 'CANARY', y = 12 }\n", at("x", "y")).split("\n")
    assert lines[1] == "    1 | x = { secret = ***, y = 12 }"
    assert lines[2] == "      |                         ^^ better"
    lines = report("x = { secret = 'CANARY', y = 12 }\n", at("x")).split("\n")
    assert lines[2] == "      |     ^^^^^^^^^^^^^^^^^^^^^^^^ better"


def test_a_reference_is_shown_as_it_stands() -> None:
    """It names where the secret is, and no more."""
    assert not is_secret(("secret",), "env:NAME")
    assert not is_secret(("secret",), "file:/run/secrets/name")
    assert is_secret(("issuer", "x", "secret"), "hunter2")
    assert not is_secret(("store", "url"), "redis://host/0")


def test_what_came_from_outside_is_masked_in_every_message() -> None:
    """Even where another room repeats it."""
    hidden = Hidden(
        {"CANARY-1": "env:X", "no": "env:Y", "": "env:Z", "CANARY-12": "env:W"}
    )
    problem = Problem(
        "a.toml", ("a",), 'CANARY-12 and "no" not', '"CANARY-1"?', "CANARY-1"
    )
    made = error([problem], [], [], hidden)
    assert made.problems[0].message == 'env:W and "env:Y" not'
    assert made.problems[0].suggestion == '"env:X"?'
    assert "CANARY" not in str(made)
    assert "CANARY" not in repr(made)
    assert "CANARY" not in repr(hidden)


def test_a_long_line_is_shown_around_its_mark() -> None:
    """A terminal is not 4 MiB wide."""
    lines = report(f"x = ['{'a' * 300}', 1, '{'b' * 300}']\n", at("x", 1)).split("\n")
    assert len(lines[1]) <= 8 + 120
    assert lines[1][lines[2].index("^")] == "1"


def test_nothing_that_moves_a_cursor_reaches_the_terminal() -> None:
    """Controls and bidirectional marks are replaced, in lines and in messages."""
    problem = Problem("a.toml", ("a",), "wrong \x1b[2J", "\u202ex\ny")
    text = report('a = "\u202e\u2066 \t"\n', problem)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\u2066" not in text


def test_places_for_other_messages() -> None:
    """file:line and file:line:column; a file without the path begins at line 1."""
    document, _ = parse("\n[t]\nx = 1", Path("a.toml"), "a.toml")
    path: KeyPath = ("t", "x")
    assert line_of(document, path) == "a.toml:3"
    assert place_of(document, path) == "a.toml:3:5"
    assert line_of(document, ()) == "a.toml:1"
    assert place_of(document, ()) == "a.toml:1:1"


def test_choices_are_listed_as_one_would_say_them() -> None:
    """Commas, and one word before the last."""
    assert quoted([]) == ""
    assert quoted(["a"]) == '"a"'
    assert quoted(["a", "b", "c"]) == '"a", "b" or "c"'
    assert quoted(["a", "b"], "and") == '"a" and "b"'

"""gateway.config.findings: problems and weakenings know where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.documents import Document, parse
from gateway.config.findings import Findings
from gateway.config.problems import Hidden
from gateway.config.settings import Address


def document(path: Path, text: str) -> Document:
    return parse(text, path, path.name)[0]


@pytest.fixture
def found(tmp_path: Path) -> Findings:
    return Findings(
        [
            document(tmp_path / "one" / "a.toml", "[x]\na = 1\nb = 1\n"),
            document(tmp_path / "two" / "b.toml", "[x]\nb = 2\n"),
        ]
    )


def test_a_relative_path_is_relative_to_the_file_that_says_it(
    found: Findings, tmp_path: Path
) -> None:
    """A default is relative to the first file; *base* overrides all."""
    assert found.base_of(("x", "a")) == tmp_path / "one"
    assert found.base_of(("x", "b")) == tmp_path / "two"
    assert found.base_of(("y", "z")) == tmp_path / "one"
    assert found.absolute(Address(path="s"), ("x", "b")).path == str(
        tmp_path / "two" / "s"
    )
    assert found.absolute(Address("h", 1), ("x", "b")) == Address("h", 1)
    found.base = tmp_path
    assert found.base_of(("x", "a")) == tmp_path


def test_problems_and_weakenings_name_the_file_of_the_value_that_counts(
    found: Findings,
) -> None:
    """A weakening shows nothing that came from outside."""
    found.hidden = Hidden({"CANARY-1": "env:X", "why": "env:Y"})
    found.problem(("x", "b"), "wrong", "better", key=True)
    found.weak(("x", "a"), "leeway of CANARY-1", "why")
    (problem,), (weak,) = found.problems, found.weakenings
    assert (problem.file, problem.at, problem.key) == ("b.toml", ("x", "b"), True)
    assert (weak.what, weak.why) == ("leeway of env:X", "env:Y")
    assert weak.place == "a.toml:2:5"


def test_a_refused_text_is_a_problem(found: Findings) -> None:
    """In the words of whoever refuses it."""
    assert found.parsed(("x", "a"), int, "7") == 7
    assert not found.problems
    assert found.parsed(("x", "a"), int, "x") is None
    assert found.problems[0].at == ("x", "a")


@pytest.mark.parametrize("name", ["", "a\0b", "missing", "missing/deeper"])
def test_a_path_has_to_exist(found: Findings, name: str) -> None:
    """So that it is missed now, and not with the first request."""
    assert found.existing(("x", "a"), name) is None
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    ("name", "mode", "weak"),
    [
        ("key.pem", 0o600, False),
        ("key.pem", 0o640, True),
        (".", 0o600, False),
        (".", 0o604, True),
    ],
)
def test_a_secret_file_that_others_can_read_is_a_weakening(
    found: Findings, tmp_path: Path, name: str, mode: int, *, weak: bool
) -> None:
    """Of a directory, every PEM file in it."""
    found.base = tmp_path
    (tmp_path / "key.pem").write_text("x")
    (tmp_path / "key.pem").chmod(mode)
    (tmp_path / "other.txt").write_text("x")
    (tmp_path / "other.txt").chmod(0o644)
    assert found.existing(("x", "a"), name, secret=True) == tmp_path / name
    assert [it.what for it in found.weakenings] == ["readable secret x.a"] * weak
    assert found.existing(("x", "a"), name) == tmp_path / name

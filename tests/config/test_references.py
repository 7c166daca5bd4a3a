"""gateway.config.references: env: and file:, followed and never repeated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateway.config.references import MAX_SECRET, Resolved, resolve


def follow(data: dict[str, Any], base: Path, **env: str) -> Resolved:
    return resolve(data, env=env, file_of=lambda _: "a.toml", base_of=lambda _: base)


def test_env_works_in_any_string(tmp_path: Path) -> None:
    """In tables, in lists; only where it is the whole value."""
    data = {"a": "env:X", "b": ["env:X", {"c": "env:Y"}], "d": "an env:X", "e": 1}
    out = follow(data, tmp_path, X="one", Y="")
    assert out.data == {"a": "one", "b": ["one", {"c": ""}], "d": "an env:X", "e": 1}
    assert out.outside == {("a",), ("b", 0), ("b", 1, "c")}
    assert out.hidden == {"one": "env:X", "": "env:Y"}
    assert not out.problems


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("env:MISSING", "the environment has no variable MISSING"),
        ("env:", 'expected the name of a variable behind "env:"'),
        ("env:A B", 'expected the name of a variable behind "env:"'),
        ("env:1", 'expected the name of a variable behind "env:"'),
    ],
)
def test_a_variable_that_is_not_set_is_named(
    tmp_path: Path, said: str, words: str
) -> None:
    """By its name; a similar one that is set is suggested, by its name too."""
    out = follow({"a": {"b": said}}, tmp_path, MISSNG="CANARY")
    assert [(it.at, it.message) for it in out.problems] == [(("a", "b"), words)]
    assert "CANARY" not in repr(out)


def test_a_similar_variable_is_suggested(tmp_path: Path) -> None:
    """Names are no secrets."""
    out = follow({"a": "env:REDIS_ULR"}, tmp_path, REDIS_URL="CANARY")
    assert out.problems[0].suggestion == "did you mean REDIS_URL?"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b"secret\n\n", "secret\n"),
        (b" secret ", " secret "),
        (b"", ""),
    ],
)
def test_a_secret_file_loses_its_last_line_end(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    """Editors add one; nothing else is changed."""
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    out = follow({"issuer": {"x": {"secret": "file:key"}}}, tmp_path)
    assert out.data == {"issuer": {"x": {"secret": expected}}}
    assert out.hidden == {expected: "file:key"}
    assert not out.readable


def test_a_secret_may_be_any_bytes(tmp_path: Path) -> None:
    """They come back as they were."""
    raw = bytes(range(256))
    (tmp_path / "key").write_bytes(raw)
    out = follow({"issuer": {"x": {"secret": "file:key"}}}, tmp_path)
    secret = out.data["issuer"]["x"]["secret"]
    assert secret.encode("utf-8", "surrogateescape") == raw


@pytest.mark.parametrize(
    ("mode", "noted"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)]
)
def test_a_secret_that_others_can_read_is_noted(
    tmp_path: Path, mode: int, *, noted: bool
) -> None:
    """The group or everybody; a public key is for everybody."""
    (tmp_path / "key").write_text("CANARY")
    (tmp_path / "key").chmod(mode)
    data = {"admin": {"token": "file:key"}, "issuer": {"x": {"pem": "file:key"}}}
    out = follow(data, tmp_path)
    assert out.readable == ([("admin", "token")] if noted else [])
    assert "CANARY" not in repr(out)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("file:", "expected a path"),
        ("file:a\0b", "expected a path"),
        ("file:missing", "cannot be read: No such file or directory"),
        ("file:.", "cannot be read: Is a directory"),
        ("file:large", "longer than 64 KiB"),
        ("hunter2", "a secret does not stand in this file"),
        ("", "a secret does not stand in this file"),
    ],
)
def test_a_secret_is_a_reference_to_a_file_that_can_be_read(
    tmp_path: Path, said: str, words: str
) -> None:
    """Written into the file itself it would be in every copy and every backup."""
    (tmp_path / "large").write_bytes(b"x" * (MAX_SECRET + 1))
    out = follow({"issuer": {"x": {"secret": said}}}, tmp_path)
    assert [words in problem.message for problem in out.problems] == [True]


def test_file_is_a_plain_string_where_no_secret_is_expected(tmp_path: Path) -> None:
    """`jwks` and `identity.keys` are places that others read."""
    data = {"issuer": {"x": {"jwks": "file:keys.json"}}, "identity": {"keys": "file:k"}}
    out = follow(data, tmp_path)
    assert out.data == data
    assert not out.problems


def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    """As whoever runs the gateway: root reads everything."""
    (tmp_path / "key").write_text("CANARY")
    (tmp_path / "key").chmod(0)
    out = follow({"admin": {"token": "file:key"}}, tmp_path)
    assert bool(out.problems) is (os.geteuid() != 0)


def test_a_store_without_a_password_may_stand_in_the_file(tmp_path: Path) -> None:
    """With one it may not."""
    assert not follow({"store": {"url": "redis://host/0"}}, tmp_path).problems
    assert follow({"store": {"url": "redis://:x@host/0"}}, tmp_path).problems

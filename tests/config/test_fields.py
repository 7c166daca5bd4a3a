"""gateway.config.fields: the types that keys have."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config import fields
from gateway.config.fields import LATER, Or, Table, between_sizes, between_times, key


def accepts(type_: Any, value: object) -> Any:
    return TypeAdapter(type_).validate_python(value, strict=True)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (fields.Duration, "250ms", 0.25),
        (fields.DurationOrNone, "none", None),
        (fields.Size, "1 KiB", 1024),
        (fields.Host, "API.example", "api.example"),
        (fields.Origin, "https://a", "https://a"),
        (fields.HeaderPattern, "X-A-*", "X-A-*"),
        (Annotated[fields.Duration, between_times(1, 2)], "2s", 2.0),
        (Annotated[fields.DurationOrNone, between_times(1, 2)], "none", None),
    ],
)
def test_a_text_becomes_what_it_means(type_: Any, value: str, expected: object) -> None:
    """Sizes are bytes, durations seconds, hosts lower-case."""
    assert accepts(type_, value) == expected


@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        (fields.Duration, 10, "with its unit"),
        (fields.Duration, 10.0, "with its unit"),
        (fields.Size, True, "with its unit"),
        (fields.Size, None, "with its unit"),
        (fields.Listen, ["127.0.0.1:80"], "host:port"),
        (fields.Origin, "https://a/b", "no path"),
        (Annotated[fields.Duration, between_times(1, 2)], "3s", "at most 2s"),
        (Annotated[fields.Duration, between_times(1, 2)], "1ms", "at least 1s"),
        (Annotated[fields.Size, between_sizes(1024, 2048)], "1 B", "at least 1 KiB"),
    ],
)
def test_what_has_no_such_meaning_is_told_the_form(
    type_: Any, value: object, words: str
) -> None:
    """A number where a text is wanted is told what the text would look like."""
    with pytest.raises(ValidationError, match=words):
        accepts(type_, value)


class Long(Table):
    name: str = key("A name.")
    extra: int = key("More.", 3, ge=1)


SHORT = Or(lambda said: {"name": said} if isinstance(said, str) else said)


def test_a_table_may_have_a_short_form() -> None:
    """The long form is what both become."""
    short, long = (accepts(Annotated[Long, SHORT], it) for it in ("x", {"name": "x"}))
    assert short == long == Long(name="x")
    assert short.extra == 3


def test_a_table_shows_none_of_its_values() -> None:
    """Any of them may have come from a secret."""
    table = Long(name="CANARY")
    assert "CANARY" not in repr(table) + str(table) + f"{[table]}"


def test_keys_of_later_versions_are_known_by_words() -> None:
    """So that they aren't called misspelt."""
    assert all(words and "_" not in words for words in LATER.values())

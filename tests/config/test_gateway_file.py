"""gateway.config.gateway_file: every key of gateway.toml."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config import credential_file, gateway_file, upstream_file
from gateway.config.gateway_file import Gateway

LEAST = {"version": 1, "policies": ["p"]}
TABLES = [
    it
    for module in (gateway_file, credential_file, upstream_file)
    for it in vars(module).values()
    if isinstance(it, type)
    and issubclass(it, BaseModel)
    and it.__module__ == module.__name__
]


def test_two_keys_are_enough() -> None:
    """Everything else has a default, and every default is valid."""
    table = Gateway.model_validate(LEAST)
    assert table.server.max_head == 16 * 1024
    assert table.admin.listen is not None
    assert table.store.url == "memory"


@pytest.mark.parametrize("table", TABLES, ids=lambda it: it.__name__)
def test_every_key_says_what_it_means(table: type[BaseModel]) -> None:
    """The description is what editors show."""
    for name, field in table.model_fields.items():
        assert field.description, name
        assert field.description.endswith(".")
    assert table.__doc__


@pytest.mark.parametrize("table", TABLES, ids=lambda it: it.__name__)
def test_every_table_refuses_unknown_keys(table: type[BaseModel]) -> None:
    """A misspelt key must not open anything."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        table.model_validate({"no_such_key": 1})


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("server", {"max_headers": 1.0}),
        ("server", {"hosts": "a"}),
        ("store", {"url": 1}),
        ("check", {"accept": {}}),
        ("log", {"query": [1]}),
    ],
)
def test_types_are_strict(table: str, value: dict[str, Any]) -> None:
    """Nothing is converted: 1.0 is no whole number, a string is no list."""
    with pytest.raises(ValidationError):
        Gateway.model_validate({**LEAST, table: value})

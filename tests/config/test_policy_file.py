"""gateway.config.policy_file: every key of a policy file."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config import policy_file
from gateway.config.policy_file import Owner, Policy, Public, Route

TABLES = [
    it
    for it in vars(policy_file).values()
    if isinstance(it, type)
    and issubclass(it, BaseModel)
    and it.__module__ == policy_file.__name__
]
LEAST = {"methods": ["GET"], "path": "/"}


@pytest.mark.parametrize("table", TABLES, ids=lambda it: it.__name__)
def test_every_key_says_what_it_means(table: type[BaseModel]) -> None:
    """The description is what editors show."""
    for name, field in table.model_fields.items():
        assert field.description, name
        assert field.description.endswith(".")
    assert table.__doc__


@pytest.mark.parametrize("table", TABLES, ids=lambda it: it.__name__)
def test_every_table_refuses_unknown_keys(table: type[BaseModel]) -> None:
    """A misspelt key must not open a route."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        table.model_validate({"no_such_key": 1})


def test_an_owner_is_a_parameter_or_a_table() -> None:
    """The short form means the `sub` claim."""
    short = Route.model_validate({**LEAST, "owner": "id"})
    long = Route.model_validate({**LEAST, "owner": {"param": "id", "claim": "sub"}})
    assert short.owner == long.owner == Owner(param="id")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("optional", "optional"),
        ("authenticated", "authenticated"),
        ({"public": "why"}, Public(public="why")),
    ],
)
def test_access_has_three_forms(said: Any, expected: object) -> None:
    """What is public says why."""
    assert Route.model_validate({**LEAST, "access": said}).access == expected


@pytest.mark.parametrize("said", ["public", True, {}, {"public": ""}, [], 1])
def test_access_has_no_other_form(said: Any) -> None:
    """No route is open by a slip."""
    with pytest.raises(ValidationError):
        Route.model_validate({**LEAST, "access": said})


def test_require_is_left_to_the_policy() -> None:
    """It nests; what it means together is judged there."""
    rule = {"any": ["a", {"all": ["b", {"not": "c"}]}]}
    assert Route.model_validate({**LEAST, "require": rule}).require == rule


def test_an_operators_file_may_be_small() -> None:
    """A version, and what it adds."""
    table = Policy.model_validate({"version": 1})
    assert (table.service, table.route, table.roles) == (None, [], {})

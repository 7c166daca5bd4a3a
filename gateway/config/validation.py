"""What pydantic finds wrong, said in this house's words, with places.

The words name keys, types and choices. They never repeat a value.

Imports: the standard library, gateway.config.documents, gateway.config.fields,
gateway.config.problems, gateway.policy.spec, gateway.policy.suggest, pydantic.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.documents import value_at
from gateway.config.fields import LATER
from gateway.config.problems import quoted
from gateway.policy.spec import KeyPath, Problem
from gateway.policy.suggest import did_you_mean, nearest

M = TypeVar("M", bound=BaseModel)

_TYPES = {
    "string_type": "expected a string",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}

SCOPE_CHOICES = """\
say what the scope of its tokens grants; there is no default:
  "limit"   a permission counts if a role grants it and the scope names it
  "grant"   what the scope names is granted, whatever the roles are
  "ignore"  the roles alone grant; the scope is not looked at
For example:
  [{table}]
  user    = "limit"   # a person's token: no more than the person may
  service = "grant"   # a service's token has no roles: its scope is all it has"""


@dataclass(frozen=True, slots=True)
class Validated(Generic[M]):
    """The model, or the problems and where they are.

    `loose` are unknown keys that stand for no known one: without them the rest can
    still be judged.
    """

    model: M | None
    problems: tuple[Problem, ...] = ()
    broken: tuple[KeyPath, ...] = ()
    loose: tuple[KeyPath, ...] = ()


def validate(
    model: type[M],
    data: Mapping[str, Any],
    *,
    file_of: Callable[[KeyPath], str],
    outside: Collection[KeyPath] = (),
) -> Validated[M]:
    """Validate *data* as *model*.

    Args:
        model: The kind of file.
        data: With references followed.
        file_of: Names the file in which a key path stands.
        outside: Key paths whose values came from outside the file.
    """
    try:
        return Validated(model.model_validate(data))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    problems = tuple(
        _problem(model, data, detail, file_of, outside) for detail in details
    )
    broken: list[KeyPath] = []
    loose: list[KeyPath] = []
    for detail in details:
        at = detail["loc"]
        (loose if _is_loose(model, data, detail) else broken).append(at)
    return Validated(None, problems, tuple(broken), tuple(loose))


def label(at: KeyPath, data: Mapping[str, Any]) -> str:
    """Name the table at *at*: [server], [[check.accept]], route "orders.list"."""
    if at[:1] == ("route",) and len(at) > 1:
        name = value_at(data, (*at[:2], "id"))
        return f'route "{name}"' if isinstance(name, str) else "[[route]]"
    names = ".".join(part for part in at if isinstance(part, str))
    return f"[[{names}]]" if at and isinstance(at[-1], int) else f"[{names}]"


def _problem(
    model: type[BaseModel],
    data: Mapping[str, Any],
    detail: ErrorDetails,
    file_of: Callable[[KeyPath], str],
    outside: Collection[KeyPath],
) -> Problem:
    at: KeyPath = detail["loc"]
    kind = detail["type"]
    is_key = at[-1:] == ("[key]",)  # pydantic's mark: the key is wrong, not the value
    at = at[:-1] if is_key else at
    context = detail.get("ctx", {})
    table, last = at[:-1], at[-1] if at else ""
    route = f"{label(at, data)}: " if at[:1] == ("route",) and len(at) > 1 else ""
    where = "" if route or not table else f" in {label(table, data)}"
    if kind == "extra_forbidden":
        known = _fields(_model_at(model, table))
        message = f'{route}unknown key "{last}"{where}'
        suggestion = did_you_mean(str(last), known)
        if last in LATER:
            suggestion = f"this version does not know {LATER[str(last)]} yet"
        return Problem(file_of(at), at, message, suggestion, key=True)
    if kind == "missing":
        message = f'{route}missing key "{last}"{where}'
        field = _model_at(model, table).model_fields[str(last)]
        suggestion = f"{last}: {field.description}"
        if last == "version":
            suggestion = "version = 1"
        if last == "scope":
            suggestion = SCOPE_CHOICES.format(table=".".join(map(str, at)))
        return Problem(file_of(table), table, message, suggestion)
    suggestion = ""
    if kind == "literal_error":
        choices = context["expected"].replace("' or '", "', '").split("', '")
        choices = [choice.strip("'") for choice in choices]
        message = f"expected {quoted(choices)}"
        value = None if at in outside else value_at(data, at)
        suggestion = did_you_mean(value, choices) if isinstance(value, str) else ""
    elif kind == "value_error":
        message = str(context["error"])
    elif kind == "greater_than_equal":
        message = f"must be at least {context['ge']}"
    elif kind == "less_than_equal":
        message = f"must be at most {context['le']}"
    else:
        message = _TYPES.get(kind, detail["msg"])
    if at == ("version",):
        message, suggestion = "this gateway reads version 1 of the format", ""
    name = next((part for part in reversed(at) if isinstance(part, str)), "")
    prefix = f"{route}{name}: " if name else route
    return Problem(file_of(at), at, prefix + message, suggestion, key=is_key)


def _is_loose(
    model: type[BaseModel], data: Mapping[str, Any], detail: ErrorDetails
) -> bool:
    at: KeyPath = detail["loc"]
    if detail["type"] != "extra_forbidden":
        return False
    meant = nearest(str(at[-1]), _fields(_model_at(model, at[:-1])))
    return meant is None or meant in value_at(data, at[:-1])


def _fields(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _model_at(model: type[BaseModel], at: KeyPath) -> type[BaseModel]:
    """Return the model of the table at *at*."""
    for part in at:
        field = model.model_fields.get(str(part)) if isinstance(part, str) else None
        if field is not None:
            inner = _model_in(field.annotation)
            model = inner or model
        # An index, or the name of an issuer, a role: the model stays.
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model in `list[Model] | None` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None

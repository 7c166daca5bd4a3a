"""The JSON Schema of both kinds of file, for editors.

Imports: the standard library, gateway.config.gateway_file, gateway.config.policy_file,
pydantic.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic.json_schema import GenerateJsonSchema

from gateway.config.gateway_file import Gateway
from gateway.config.policy_file import REQUIRE, Policy

Kind = Literal["gateway", "policy"]

_TITLES = {"gateway": "gateway.toml", "policy": "a policy file of the gateway"}


class _Plain(GenerateJsonSchema):
    """Without titles, which only repeat the keys; names of files stand for models."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def json_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one *kind* of file."""
    model = Gateway if kind == "gateway" else Policy
    made = model.model_json_schema(schema_generator=_Plain)
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        **_tidy(made),
        "title": _TITLES[kind],
    }
    if kind == "policy":  # `require` nests in itself, which pydantic can't be told
        require = schema["$defs"]["Route"]["properties"]["require"]
        require["$ref"] = "#/$defs/Require"
        del require["x-type"]
        schema["$defs"]["Require"] = REQUIRE
    return schema


def _tidy(node: Any) -> Any:
    """Drop titles and nulls, which TOML has not; let env: stand among fixed words."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: _tidy(item) for name, item in node.items()}
    if isinstance(node.get("title"), str):
        del node["title"]
    if node.get("default", ...) is None:
        del node["default"]
    choices = [item for item in node.get("anyOf", ()) if item != {"type": "null"}]
    if len(choices) == 1:
        del node["anyOf"]
        node = {**choices[0], **node}
    elif choices:
        node["anyOf"] = choices
    words = node.get("enum", [node["const"]] if "const" in node else [])
    if words and all(isinstance(word, str) for word in words):
        fixed = {name: node.pop(name) for name in ("enum", "const") if name in node}
        node.pop("type", None)
        node["anyOf"] = [fixed, {"type": "string", "pattern": "^env:"}]
    return node

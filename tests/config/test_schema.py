"""gateway.config.schema: what editors are told, and what the reference says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.config.schema import Kind, json_schema
from tests.config.making import ROOT

KINDS: tuple[Kind, ...] = ("gateway", "policy")


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_schemas_are_current(kind: Kind) -> None:
    """`gateway schema gateway > schemas/gateway.schema.json` makes them anew."""
    file = ROOT / "schemas" / f"{kind}.schema.json"
    committed = file.read_text(encoding="utf-8")
    assert committed == json.dumps(json_schema(kind), indent=2) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_closed_and_described(kind: Kind) -> None:
    """Unknown keys are flagged, every key has its sentence, no type is lost."""
    schema = json_schema(kind)
    for table in [schema, *schema["$defs"].values()]:
        if "properties" not in table:
            continue
        assert table["additionalProperties"] is False
        for name, node in table["properties"].items():
            target = node.get("$ref", "/").rpartition("/")[2]
            described = node.get("description") or schema["$defs"][target]
            assert described, name
            assert {"type", "anyOf", "$ref", "const"} & node.keys(), name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_schema_points_nowhere(kind: Kind) -> None:
    """Every reference has its definition; TOML has no null."""
    schema = json_schema(kind)
    text = json.dumps(schema)
    for name in re.findall(r'"#/\$defs/(\w+)"', text):
        assert name in schema["$defs"]
    assert '"null"' not in text


def test_env_may_stand_where_only_certain_words_may() -> None:
    """An editor must not flag what the gateway accepts."""
    node = json_schema("gateway")["$defs"]["Headers"]["properties"]["underscores"]
    assert node["anyOf"] == [
        {"enum": ["drop", "reject", "pass"]},
        {"type": "string", "pattern": "^env:"},
    ]


def test_a_rule_may_nest() -> None:
    """`require` refers to itself."""
    schema = json_schema("policy")
    assert schema["$defs"]["Route"]["properties"]["require"]["$ref"] == (
        "#/$defs/Require"
    )
    assert "#/$defs/Require" in json.dumps(schema["$defs"]["Require"])


# --- docs/config.md ---------------------------------------------------------------


def keys_of(
    schema: dict[str, Any], node: dict[str, Any], heading: str
) -> Iterator[tuple[str, str, Any]]:
    """Yield (section, key, default) of every key, sections as headings name them."""
    for name, inner in node.get("properties", {}).items():
        table, section = inner, name
        if inner.get("type") == "array" and "$ref" in inner["items"]:
            table = inner["items"]
        elif isinstance(inner.get("additionalProperties"), dict):
            table, section = inner["additionalProperties"], f"{name}.x"
        for choice in inner.get("anyOf", ()):
            table = choice if "$ref" in choice else table
        target = table.get("$ref", "").removeprefix("#/$defs/")
        if target and target not in {"Require", "Public"}:
            path = f"{heading}.{section}".lstrip(".")
            yield from keys_of(schema, schema["$defs"][target], path)
            if heading and "anyOf" not in inner:
                continue
        yield heading, name, inner.get("default", ...)


def documented() -> dict[tuple[str, str], str]:
    """Read the tables of the reference: (section, key) -> default."""
    rows: dict[tuple[str, str], str] = {}
    section = ""
    for line in (ROOT / "docs" / "config.md").read_text(encoding="utf-8").split("\n"):
        heading = re.match(r"#+ .*?`\[+([^\]]+)\]+`", line)
        if heading:
            section = heading[1]
        elif line.startswith("## "):
            section = ""
        row = re.match(r"\| `([^`]+)` \|([^|]*)\|([^|]*)\|", line)
        if row:
            rows[section, row[1]] = row[3].strip()
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_in_the_reference_with_its_default(kind: Kind) -> None:
    """docs/config.md, one row for each key."""
    schema = json_schema(kind)
    rows = documented()
    for section, name, default in keys_of(schema, schema, ""):
        assert (section, name) in rows, f"docs/config.md: [{section}] {name}"
        said = rows[section, name]
        if default is ... or default in ([], {}):
            assert said in {"", "required", "none"}, (section, name)
        else:
            assert said == f"`{json.dumps(default)}`", (section, name)

"""gateway.cli.schema: the JSON Schema on stdout."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.config.schema import json_schema


@pytest.mark.parametrize("kind", ["gateway", "policy"])
def test_the_schema_is_printed_as_json(kind: str) -> None:
    """It is what gateway.config makes, whole."""
    outcome = CliRunner().invoke(main, ["schema", kind])

    assert outcome.exit_code == 0
    assert json.loads(outcome.output) == json_schema(kind)  # type: ignore[arg-type]

"""gateway.config.upstream_file: the tables below [upstream.x]."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config.upstream_file import Ejection, Health, Timeouts, Upstream


@pytest.mark.parametrize(
    ("table", "value", "wrong"),
    [
        (Upstream, {}, {"urls"}),
        (Upstream, {"urls": "http://a"}, {"urls"}),
        (Upstream, {"urls": ["http://a"], "max_idle": 1.5}, {"max_idle"}),
        (Timeouts, {"connect": 2}, {"connect"}),
        (Health, {"path": "/up", "healthy": "2"}, {"healthy"}),
        (Ejection, {"failures": 0}, {"failures"}),
    ],
)
def test_types_are_strict(
    table: type[BaseModel], value: dict[str, Any], wrong: set[str]
) -> None:
    """Nothing is converted, and nothing may be left out that has no default."""
    with pytest.raises(ValidationError) as found:
        table.model_validate(value)
    assert {each["loc"][0] for each in found.value.errors()} == wrong

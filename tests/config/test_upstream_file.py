"""gateway.config.upstream_file: the tables below [upstream.x]."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config.upstream_file import Ejection, Health, Timeouts, Upstream


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (Upstream, {}),
        (Upstream, {"urls": "http://a"}),
        (Upstream, {"urls": ["http://a"], "max_idle": 1.5}),
        (Timeouts, {"connect": 2}),
        (Health, {"path": "/up", "healthy": "2"}),
        (Ejection, {"failures": 0}),
    ],
)
def test_types_are_strict(table: type[BaseModel], value: dict[str, Any]) -> None:
    """Nothing is converted, and nothing may be left out that has no default."""
    with pytest.raises(ValidationError):
        table.model_validate(value)

"""gateway.config.credential_file: the tables about credentials."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config.credential_file import ApiKey, ApiKeys, Fernet, Issuer, JweKey


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (Issuer, {}),
        (Fernet, {"issuer": "a", "audience": "a", "ttl": "1m", "scope": {}}),
        (JweKey, {"alg": "RSA1_5", "enc": "A256GCM", "key": "env:A"}),
        (JweKey, {"alg": "dir", "enc": "A128GCM", "key": "env:A"}),
        (ApiKeys, {"scope": "everything"}),
        (ApiKey, {"id": "a", "sha256": "00", "owner": "b", "expires": "2027-01-01"}),
    ],
)
def test_types_are_strict(table: type[BaseModel], value: dict[str, Any]) -> None:
    """Nothing is converted, and nothing may be left out that has no default."""
    with pytest.raises(ValidationError):
        table.model_validate(value)

"""gateway.config.credential_file: the tables about credentials."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config.credential_file import ApiKey, ApiKeys, Fernet, Issuer, JweKey


@pytest.mark.parametrize(
    ("table", "value", "wrong"),
    [
        (Issuer, {}, {"issuer", "audience", "scope"}),
        (
            Fernet,
            {
                "issuer": "a",
                "audience": "a",
                "ttl": "1m",
                "scope": {"user": "ignore", "service": "grant"},
            },
            {"audience"},
        ),
        (JweKey, {"alg": "RSA1_5", "enc": "A256GCM", "key": "env:A"}, {"alg"}),
        (JweKey, {"alg": "dir", "enc": "A128GCM", "key": "env:A"}, {"enc"}),
        (ApiKeys, {"scope": "everything"}, {"scope"}),
        (
            ApiKey,
            {"id": "a", "sha256": "00", "owner": "b", "expires": "2027-01-01"},
            {"sha256", "expires"},
        ),
    ],
)
def test_types_are_strict(
    table: type[BaseModel], value: dict[str, Any], wrong: set[str]
) -> None:
    """Nothing is converted, and nothing may be left out that has no default."""
    with pytest.raises(ValidationError) as found:
        table.model_validate(value)
    assert {each["loc"][0] for each in found.value.errors()} == wrong

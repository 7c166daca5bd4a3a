"""Tokens for the people of `gateway dev` and `make run`.

Not for production: whoever holds the key file is everybody.

Imports: gateway.identity, cryptography, PyJWT.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jwt import PyJWS

from gateway.identity.keys import (
    SigningKey,
    new_key_pem,
    public_jwk,
    signing_key_from_pem,
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody to be, in a terminal."""

    name: str
    subject: str
    roles: tuple[str, ...]
    scope: str


@dataclass(frozen=True, slots=True)
class TokenMaker:
    """An issuer in a file: signs access tokens (RFC 9068) with ES256."""

    key: SigningKey = field(repr=False)
    issuer: str
    audience: str

    @classmethod
    def kept_in(cls, file: Path, *, issuer: str, audience: str) -> TokenMaker:
        """Return a maker whose key is in *file*; made on first use, mode 0600."""
        if not file.exists():
            write_private(file, new_key_pem("ES256"))
        key = signing_key_from_pem(file.read_bytes(), "ES256")
        return cls(key, issuer, audience)

    def key_set(self) -> dict[str, Any]:
        """Return the JWK Set that verifies its tokens (RFC 7517 section 5)."""
        return {"keys": [public_jwk(self.key)]}

    def token(self, person: Person, *, now: float, lifetime: float) -> str:
        """Return an access token of *person*, valid for *lifetime* seconds."""
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": person.subject,
            "client_id": "demo-app",
            "jti": str(uuid.uuid4()),
            "iat": int(now),
            "exp": int(now + lifetime),
            "roles": list(person.roles),
            "scope": person.scope,
        }
        return PyJWS().encode(
            json.dumps(claims).encode(),
            self.key.private,
            "ES256",
            {"kid": self.key.key_id, "typ": "at+jwt"},
        )


def write_private(file: Path, content: bytes) -> None:
    """Write *content* to a new *file* that only its owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(made, "wb") as stream:
        stream.write(content)

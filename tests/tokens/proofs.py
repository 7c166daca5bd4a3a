"""DPoP proofs for tests: what a client would do, done here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from uuid import uuid4

from gateway.tokens.thumbprints import thumbprint
from tests.tokens import make


def jwk_of(key: make.Key) -> dict[str, Any]:
    """Return the public JWK of *key*, without a name."""
    return {
        name: value
        for name, value in key.jwk.items()
        if name not in {"kid", "use", "alg"}
    }


def jkt_of(key: make.Key) -> str:
    """Return the thumbprint that a token is bound by."""
    return thumbprint(key.jwk)


def ath_of(token: str) -> str:
    """Return the digest of *token* that a proof names."""
    return make.b64(sha256(token.encode()).digest())


def proof_of(
    key: make.Key,
    token: str,
    method: str,
    uri: str,
    now: float,
    *,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> str:
    """Return a proof.

    Args:
        key: Signs it, and is in it.
        token: The access token beside it.
        method: `htm`.
        uri: `htu`.
        now: `iat`, Unix seconds.
        header: Overrides; those that are None are left out.
        claims: Overrides; likewise.
    """
    said = {
        "jti": str(uuid4()),
        "htm": method,
        "htu": uri,
        "iat": int(now),
        "ath": ath_of(token),
        **claims,
    }
    top = {"typ": "dpop+jwt", "alg": key.algorithm, "jwk": jwk_of(key)}
    top |= header or {}
    return make.sign(key, *(_json(each) for each in (top, said)))


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()

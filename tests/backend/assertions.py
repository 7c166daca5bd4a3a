"""Assertions as a gateway makes them, and as somebody else would."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

from gateway.identity.keys import (
    KeyRing,
    SigningKey,
    key_set_document,
    new_key_pem,
    signing_key_from_pem,
)
from gateway.identity.signer import BoundRequest, Signed, Signer
from gateway.model import Principal

NOW = 1_000_000.0  # Unix seconds
ISSUER = "https://api.example/identity"
OURS = signing_key_from_pem(new_key_pem("ES256"), "ES256")
NEXT = signing_key_from_pem(new_key_pem("EdDSA"), "EdDSA")
THEIRS = signing_key_from_pem(new_key_pem("ES256"), "ES256")
KEYS = key_set_document(KeyRing((OURS,)))
BOTH = key_set_document(KeyRing((NEXT, OURS)))

HEADERS = {"X-Auth-Request-User": "sub", "X-Roles": "roles", "X-Tenant": "tenant"}
ALICE = Principal(
    "user",
    "corp",
    "alice",
    client_id="shop-app",
    token_id="t-1",
    roles=frozenset({"customer", "support"}),
    expires_at=NOW + 3_600,
)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "orders",
    "sub": "alice",
    "iat": NOW,
    "exp": NOW + 60,
    "jti": "a-1",
    "src": {"iss": "https://login.example", "jti": "t-1"},
    "scope": "orders:read",
    "roles": ["customer"],
    "client_id": "shop-app",
}


def fields(
    who: Principal = ALICE,
    *,
    key: SigningKey = OURS,
    scope: tuple[str, ...] = ("orders:read",),
    request: BoundRequest | None = None,
    headers: dict[str, str] | None = None,
    now: float = NOW,
    issuer: str = ISSUER,
) -> tuple[tuple[bytes, bytes], ...]:
    """Return what the gateway's own signer sends to `orders`."""
    if now != NOW:
        who = dataclasses.replace(who, expires_at=now + 3_600)
    signer = Signer(
        KeyRing((key,)),
        issuer=issuer,
        issuers={"corp": "https://login.example"},
        random=bytes,
        claims=("client_id", "roles", "scope"),
        headers=headers,
    )
    found = signer.sign(
        who, upstream="orders", scope=scope, now=now, generation="g", request=request
    )
    assert isinstance(found, Signed)
    return found.fields


def assertion(**settings: Any) -> bytes:
    return fields(**settings)[0][1]


def forged(
    payload: bytes | None = None,
    *,
    key: SigningKey = OURS,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Return a JWS with *changes* to a good payload; None takes a claim out."""
    claims = {name: v for name, v in {**CLAIMS, **changes}.items() if v is not None}
    head = {"alg": key.algorithm, "kid": key.key_id, "typ": "JWT", **(header or {})}
    return signed(
        json.dumps({name: v for name, v in head.items() if v is not None}).encode(),
        json.dumps(claims).encode() if payload is None else payload,
        key,
    )


def signed(header: bytes, payload: bytes, key: SigningKey = OURS) -> str:
    """Return the compact JWS of these very bytes."""
    signing_input = part(header) + b"." + part(payload)
    return (signing_input + b"." + part(key.sign(signing_input))).decode("ascii")


def part(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")

"""The names under which a token can be revoked, hashed (R50, R53).

A fingerprint is made of verified content alone, never of the text received: a token
has one signature more than it needs (ECDSA r, n-s), but only one content. It says
nothing about the value to whoever reads the store.

Imports: gateway.model.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from hashlib import sha256
from typing import Literal

from gateway.model import Fingerprints

FingerprintKind = Literal[
    "token", "session", "family", "subject", "client", "issuer", "all"
]

SIZE = 16  # bytes; 2**64 entries before two are likely to share one


def fingerprint(kind: FingerprintKind, issuer_url: str, value: str) -> bytes:
    """Return the 16 bytes under which *value* is revoked.

    The lengths keep ("a:b", "c") and ("a", "b:c") apart.
    """
    parts = f"{kind}:{len(issuer_url)}:{issuer_url}:{len(value)}:{value}"
    return sha256(parts.encode(errors="surrogatepass")).digest()[:SIZE]


def fingerprints(
    issuer_url: str,
    *,
    token_id: str,
    session_id: str | None,
    subject: str,
    client_id: str | None,
    family: str | None = None,
) -> Fingerprints:
    """Return every name under which one token can be revoked."""
    return Fingerprints(
        token=fingerprint("token", issuer_url, token_id),
        session=(
            None
            if session_id is None
            else fingerprint("session", issuer_url, session_id)
        ),
        subject=fingerprint("subject", issuer_url, subject),
        client=(
            None if client_id is None else _of_many("client", issuer_url, client_id)
        ),
        issuer=_of_many("issuer", issuer_url, ""),
        family=None if family is None else fingerprint("family", issuer_url, family),
    )


def name_of_content(content: bytes) -> str:
    """Return the id of a token that has none: the digest of its verified *content*."""
    digest = sha256(content).digest()
    return "sha256:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


# Clients and issuers are few, and their tokens many.
_of_many = lru_cache(maxsize=1024)(fingerprint)

EVERYTHING = fingerprint("all", "", "")
"""The name of all tokens of all issuers."""

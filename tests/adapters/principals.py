"""Principals and entries by short names, for the tests of the revocation lists."""

from __future__ import annotations

import time

from gateway.clock import Clock
from gateway.model import Principal
from gateway.revocation.entries import Kind, Revocation
from gateway.tokens.fingerprints import fingerprint, fingerprints

ISSUER = "https://id.example"
CLOCK = Clock(time.time, time.monotonic)


def principal(
    token: str = "t-1",
    *,
    session: str | None = None,
    subject: str = "alice",
    client: str | None = None,
    family: str | None = None,
    issued_at: float | None = None,
    issuer: str = ISSUER,
) -> Principal:
    return Principal(
        "user",
        "corp",
        subject,
        token_id=token,
        issued_at=issued_at,
        leeway=30.0,
        fingerprints=fingerprints(
            issuer,
            token_id=token,
            session_id=session,
            subject=subject,
            client_id=client,
            family=family,
        ),
    )


def entry(
    kind: Kind,
    value: str,
    *,
    cutoff: float = 0.0,
    life: float = 600.0,
    issuer: str = ISSUER,
) -> Revocation:
    name = fingerprint("subject" if kind == "block" else kind, issuer, value)
    return Revocation(kind, name, cutoff, CLOCK.wall() + life)

"""What can be revoked, for how long it is remembered, and what that does to a token.

A revocation names a token or a login session, which it ends; or a subject or a
client, of which it ends whatever was issued at or before its cut-off (R64). Names
are fingerprints of verified content (R50), so a store holds nothing that a reader
could use (R53). An entry lives as long as what it may block, and no longer (R63).
Entries merge as a union: a later one never lowers a cut-off and never shortens a
life, so the order in which writes arrive does not matter.

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.fingerprints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.model import Principal
from gateway.tokens.claims import MAX_NAME, MAX_TOKEN_ID, is_name
from gateway.tokens.fingerprints import fingerprint

Kind = Literal["token", "session", "subject", "client"]

# Beyond the leeway: for the clocks of the gateways and of the store, which differ,
# and for a token that an issuer's fast clock dated up to one leeway (60 s at most)
# after the cut-off, and that therefore lives that much longer.
MARGIN = 60.0  # seconds

# However late a token claims to expire, its entry must be one a store can hold: an
# `exp` of 10^30 is refused at the door, but may still reach `gateway revoke`.
MAX_LIFE = 10 * 365 * 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the list."""

    kind: Kind
    issuer_url: str  # the `iss`, not the name in gateway.toml
    value: str  # the token id, `sid`, `sub` or client id
    cutoff: float  # Unix seconds; subject, client: what was issued by then is revoked
    until: float  # Unix seconds; nothing it could block is valid from then on

    @property
    def name(self) -> bytes:
        """What a principal's Fingerprints are compared with."""
        return fingerprint(self.kind, self.issuer_url, self.value)


class RevocationList(Protocol):
    """Who knows what is revoked."""

    def check_now(self, principal: Principal) -> bool | None:
        """Tell without waiting whether *principal* is revoked; None: can't tell."""
        ...

    async def check(self, principal: Principal) -> bool:
        """Tell whether *principal* is revoked.

        Raises:
            Unavailable: The list can't be read, which does not mean it is empty.
        """
        ...

    async def revoke(self, entry: Revocation) -> None:
        """Return when *entry* is in the list for everybody who shares it (R62).

        Raises:
            Unavailable: The list did not say so. It may hold the entry or not; to
                ask again is harmless.
        """
        ...

    async def probe(self) -> None:
        """Return if a check would be answered now.

        Raises:
            Unavailable: It would not.
        """
        ...

    def health(self) -> str | None:
        """Say in words what keeps checks from being answered; None: nothing."""
        ...

    async def aclose(self) -> None:
        """Let go of connections. What waits for an answer gets an Unavailable."""
        ...


def entry_for(
    kind: Kind,
    issuer_url: str,
    value: str,
    *,
    now: float,
    max_lifetime: float,
    leeway: float,
    expires_at: float | None = None,
) -> Revocation:
    """Return the entry that revokes *value* as of *now* (Unix seconds).

    Args:
        kind: What *value* names.
        issuer_url: The `iss` of the tokens meant.
        value: The token id, `sid`, `sub` or client id.
        now: Unix seconds; the cut-off.
        max_lifetime: Seconds; no token of this issuer lives longer.
        leeway: Seconds; the issuer's.
        expires_at: Unix seconds; the token's own `exp`, where it is known. The other
            kinds name many tokens, so they have none.

    Raises:
        ValueError: No token can carry such a *value*: nothing would be revoked.
    """
    if not is_name(value, MAX_TOKEN_ID if kind == "token" else MAX_NAME):
        raise ValueError(f"no token can carry this {kind}")
    if kind == "token" and expires_at is not None:
        life = expires_at - now
    else:
        life = max_lifetime
    # In this order `min` turns a NaN into the longest life too.
    life = min(MAX_LIFE, life)
    # A token already past its `exp` may still pass another worker's clock.
    return Revocation(
        kind, issuer_url, value, now, now + max(life, 0.0) + leeway + MARGIN
    )


def names(principal: Principal) -> tuple[tuple[Kind, bytes], ...]:
    """Return what a revocation may call *principal*, at most four names."""
    held = principal.fingerprints
    if held is None:
        return ()
    pairs: tuple[tuple[Kind, bytes | None], ...] = (
        ("token", held.token),
        ("session", held.session),
        ("subject", held.subject),
        ("client", held.client),
    )
    return tuple((kind, name) for kind, name in pairs if name is not None)


def is_revoked(principal: Principal, lookup: Callable[[bytes], float | None]) -> bool:
    """Tell whether *principal* is revoked, given the list.

    Args:
        principal: Who asks to pass.
        lookup: Returns the cut-off (Unix seconds) that the list holds for a name, or
            None where it holds none.
    """
    held = principal.fingerprints
    if held is None:
        # Nobody presented anything, so there is nothing to revoke. Anybody else
        # without names can't be looked up, and is not let through for that.
        return principal.kind != "anonymous"
    if lookup(held.token) is not None:
        return True
    if held.session is not None and lookup(held.session) is not None:
        return True
    return _by_cutoff(principal, lookup(held.subject)) or (
        held.client is not None and _by_cutoff(principal, lookup(held.client))
    )


def _by_cutoff(principal: Principal, cutoff: float | None) -> bool:
    if cutoff is None:
        return False
    # A token that does not say when it was issued may be as old as any. One dated
    # up to a leeway after the cut-off may come from a clock that is fast.
    issued_at = principal.issued_at
    return issued_at is None or not issued_at > cutoff + principal.leeway


# How a store writes an entry down: a version, then the cut-off in Unix seconds.
_VALUE = re.compile(rb"1:([0-9]{1,15}(?:\.[0-9]{1,9})?)")


def value_of(cutoff: float) -> bytes:
    """Return how a store writes *cutoff* (Unix seconds) down."""
    # Up, to the microsecond: what is written never lies before what was meant.
    return b"1:%.6f" % (math.ceil(cutoff * 1e6) / 1e6)


def cutoff_of(value: bytes) -> float:
    """Return the cut-off (Unix seconds) that *value* stands for.

    A value that can't be read, by a later version or by hand, is an entry whose
    cut-off is unknown: it revokes whatever it names, and crashes nothing.
    """
    found = _VALUE.fullmatch(value)
    return float(found[1]) if found else math.inf


def key_of(kind: Kind, name: bytes) -> bytes:
    """Return the key under which a store holds the entry called *name*.

    One hash tag for all: Redis Cluster answers a script over several keys only if
    they share one, and refuses it with CROSSSLOT otherwise (R64).
    """
    return b"{gw:revocation}:%b:%b" % (kind.encode(), name.hex().encode())

"""What can be revoked, for how long it is remembered, and what that does to a token.

A revocation names a token, a login session or a refresh family, which it ends; or a
subject, a client, an issuer or all, of which it ends whatever was issued at or before
its cut-off (R64). A block refuses a subject for a time, whatever is issued. Names are
fingerprints of verified content (R50), so a store holds nothing that a reader could use
(R53). An entry lives as long as what it may block, and no longer (R63).

Entries merge as a union: a later one never lowers a cut-off and never shortens a life,
so the order in which writes arrive does not matter. Of blocks alone, which can be
lifted, the one with the newest number counts.

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.fingerprints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.model import Fingerprints, Principal
from gateway.tokens.claims import MAX_NAME, MAX_TOKEN_ID, is_name
from gateway.tokens.fingerprints import EVERYTHING, fingerprint

ListedKind = Literal["token", "session", "family"]
"""Revoked by being there."""
CutoffKind = Literal["subject", "client", "issuer", "all"]
"""Revoked up to a cut-off."""
Kind = ListedKind | CutoffKind | Literal["block"]
LISTED: frozenset[str] = frozenset(get_args(ListedKind))
CUTOFFS: frozenset[str] = frozenset(get_args(CutoffKind))
KINDS: tuple[Kind, ...] = (*get_args(ListedKind), *get_args(CutoffKind), "block")

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
    name: bytes  # the fingerprint; of a block, that of its subject
    cutoff: float  # Unix seconds; where the kind has one: issued by then is revoked
    until: float  # Unix seconds; nothing it could block is valid from then on
    number: int = 0  # of a block; 0 as long as no list has given it one
    lifts: bool = False  # of a block: it ends those with a lower number


def entry_for(
    kind: Kind,
    issuer_url: str,
    value: str,
    *,
    now: float,
    max_lifetime: float,
    leeway: float,
    expires_at: float | None = None,
    before: float | None = None,
) -> Revocation:
    """Return the entry that revokes *value* as of *now* (Unix seconds).

    Args:
        kind: What *value* names.
        issuer_url: The `iss` of the tokens meant; of "all" it says nothing.
        value: The token id, `sid`, family, `sub` or client id; of "issuer" and "all" it
            says nothing.
        now: Unix seconds.
        max_lifetime: Seconds; no token of this issuer, or of all, lives longer.
        leeway: Seconds; the issuer's, or the longest of all.
        expires_at: Unix seconds; the token's own `exp`, where it is known. The other
            kinds name many tokens, so they have none.
        before: Unix seconds; the cut-off, where it is not *now*.

    Raises:
        ValueError: No token can carry such a *value*: nothing would be revoked. Or the
            cut-off lies in the future, which only a block can do.
    """
    if kind == "all":
        name = EVERYTHING
    elif kind == "issuer":
        name = fingerprint("issuer", issuer_url, "")
    else:
        name = _name(kind, issuer_url, value)
    if before is not None and not before <= now:
        raise ValueError("the cut-off lies in the future")
    if kind == "token" and expires_at is not None:
        life = expires_at - now
    else:
        life = max_lifetime
    # In this order `min` turns a NaN into the longest life too.
    life = min(MAX_LIFE, life)
    # A token already past its `exp` may still pass another worker's clock.
    until = now + max(life, 0.0) + leeway + MARGIN
    return Revocation(kind, name, now if before is None else before, until)


def block_for(
    issuer_url: str, subject: str, *, now: float, seconds: float, lifts: bool = False
) -> Revocation:
    """Return the entry that refuses *subject*, whatever is issued to it, or lifts that.

    Args:
        issuer_url: The `iss` of the tokens meant.
        subject: The `sub`.
        now: Unix seconds.
        seconds: For how long; what lifts a block has to live longer than that.
        lifts: End the block instead.

    Raises:
        ValueError: No token can carry such a *subject*.
    """
    life = min(MAX_LIFE, max(seconds, 0.0))
    name = _name("subject", issuer_url, subject)
    return Revocation("block", name, 0.0, now + life, lifts=lifts)


def _name(kind: Kind, issuer_url: str, value: str) -> bytes:
    most = MAX_TOKEN_ID if kind == "token" else MAX_NAME
    if kind == "block" or not is_name(value, most):
        raise ValueError(f"no token can carry this {kind}")
    return fingerprint(kind, issuer_url, value)


def names(principal: Principal) -> tuple[tuple[Kind, bytes], ...]:
    """Return what an entry may call *principal*, at most eight names."""
    held = principal.fingerprints
    if held is None:
        return ()
    pairs = ((kind, _name_of(held, kind)) for kind in KINDS)
    return tuple((kind, name) for kind, name in pairs if name is not None)


def _name_of(held: Fingerprints, kind: Kind) -> bytes | None:
    if kind == "all":
        return EVERYTHING
    name: bytes | None = getattr(held, "subject" if kind == "block" else kind)
    return name


Lists = Mapping[Kind, Callable[[bytes, float], float | None]]
"""For each kind that has entries: what is held under a name at a time (Unix seconds).
That is a cut-off, or any number where the kind has none; None: there is no entry."""


def is_revoked(principal: Principal, lists: Lists, now: float) -> bool:
    """Tell whether *principal* is revoked by *lists* at *now* (Unix seconds)."""
    held = principal.fingerprints
    if held is None:
        # Nobody presented anything, so there is nothing to revoke. Anybody else
        # without names can't be looked up, and is not let through for that.
        return principal.kind != "anonymous"
    for kind, get in lists.items():
        name = _name_of(held, kind)
        if name is None:
            continue
        found = get(name, now)
        if found is not None and (kind not in CUTOFFS or _is_by(principal, found)):
            return True
    return False


def _is_by(principal: Principal, cutoff: float) -> bool:
    """Tell whether *principal* counts as issued by *cutoff* (Unix seconds)."""
    # A token that does not say when it was issued may be as old as any. One dated
    # up to a leeway after the cut-off may come from a clock that is fast.
    issued_at = principal.issued_at
    return issued_at is None or not issued_at > cutoff + principal.leeway


# How a store writes an entry down: a version, then the cut-off in Unix seconds; of a
# block its number, and whether it is one.
_CUTOFF = re.compile(rb"1:([0-9]{1,15}(?:\.[0-9]{1,9})?)")
_BLOCK = re.compile(rb"1:([0-9]{1,16}):(block|lift)")
NEVER = 1e14  # Unix seconds
UNREADABLE = 10**15
"""The number of a block that can't be read: newer than any that can."""


def value_of(entry: Revocation) -> bytes:
    """Return how a store writes down what *entry* says, but for its end."""
    if entry.kind == "block":
        return b"1:%d:%b" % (entry.number, b"lift" if entry.lifts else b"block")
    # Up, to the microsecond: what is written never lies before what was meant. One that
    # could not be read lies after all that will ever be issued.
    return b"1:%.6f" % (math.ceil(min(entry.cutoff, NEVER) * 1e6) / 1e6)


def entry_of(kind: Kind, name: bytes, value: bytes, until: float) -> Revocation:
    """Return the entry that a store has written down as *value*.

    A value that can't be read, by a later version or by hand, is an entry whose
    cut-off is unknown: it revokes whatever it names, and crashes nothing.
    """
    if kind in LISTED:  # revoked by being there
        return Revocation(kind, name, 0.0, until)
    if kind == "block":
        block = _BLOCK.fullmatch(value)
        if block is None:
            return Revocation(kind, name, 0.0, until, UNREADABLE)
        is_lift = block[2] == b"lift"
        return Revocation(kind, name, 0.0, until, int(block[1]), is_lift)
    found = _CUTOFF.fullmatch(value)
    return Revocation(kind, name, float(found[1]) if found else math.inf, until)


PREFIX = b"{gw:revocation}:"
"""What all keys of the list begin with.

One hash tag for all: Redis Cluster answers a script over several keys only if they
share one, and refuses it with CROSSSLOT otherwise (R64).
"""


def key_of(kind: Kind, name: bytes) -> bytes:
    """Return the key under which a store holds the entry called *name*."""
    return b"%b%b:%b" % (PREFIX, kind.encode(), name.hex().encode())

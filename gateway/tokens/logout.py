"""Logout tokens: an issuer says that a login session, or all of a subject's, has ended.

OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6. Their signatures are
verified like those of access tokens; what they say has rules of its own, so that
neither can be taken for the other. Whether one was seen before is asked by whoever
carries it out.

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.jwks, gateway.tokens.jwt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from gateway.model import Denial, Reason, Steps
from gateway.tokens.claims import (
    MAX_TOKEN_ID,
    Claims,
    IssuerRules,
    Wrong,
    audience_in,
    date_in,
    text_in,
)
from gateway.tokens.jwks import KeyStore
from gateway.tokens.jwt import signed

# Section 2.4 wants the first; older providers write the second, or nothing.
TYPES = frozenset({"logout+jwt", "jwt"})
EVENT = "http://schemas.openid.net/event/backchannel-logout"
# Seconds, of which the issuer's leeway lies before its `iat`. Section 4 says two
# minutes; a list of used proofs remembers for a little longer.
FRESH = 120.0


class Logout(NamedTuple):
    """What a logout token says."""

    issuer: str  # a name in gateway.toml
    session_id: str | None
    subject: str | None  # one of the two is there
    issued_at: float  # Unix seconds
    name: bytes  # of the token, by which it is known when it comes again


class LogoutTokens:
    """Verifies those of the issuers that send some.

    Args:
        rules: Of each; their audience is that of logout tokens.
        keys: Of the same.
    """

    def __init__(self, rules: Sequence[IssuerRules], keys: KeyStore) -> None:
        self._rules: Mapping[str, IssuerRules] = {each.issuer: each for each in rules}
        self._keys = keys

    def read(self, token: str, now: float) -> Steps[Logout | Denial]:
        """Return what *token* says as of *now* (Unix seconds)."""
        found = yield from signed(token, self._rules, self._keys, _is_meant)
        if isinstance(found, Denial):
            return found
        try:
            return _logout(found.claims, found.rules, now)
        except Wrong as wrong:
            return Denial(Reason.CLAIM_INVALID, wrong.at)


def _is_meant(kind: str, rules: IssuerRules) -> bool:  # noqa: ARG001
    return kind in TYPES


def _logout(claims: Claims, rules: IssuerRules, now: float) -> Logout | Denial:
    if rules.audience.isdisjoint(audience_in(claims)):
        return Denial(Reason.AUDIENCE_WRONG)
    issued_at, expires_at = date_in(claims, "iat"), date_in(claims, "exp")
    if issued_at is None or now - issued_at < -rules.leeway:
        raise Wrong("iat")
    # Older providers write no `exp`: how old it may be is ours to say.
    is_over = expires_at is not None and now >= expires_at + rules.leeway
    if is_over or now - issued_at > FRESH - rules.leeway:
        return Denial(Reason.TOKEN_EXPIRED)
    events = claims.get("events")
    if not isinstance(events, Mapping) or not isinstance(events.get(EVENT), Mapping):
        raise Wrong("events")
    # So that no ID token is one (section 2.4).
    if "nonce" in claims:
        raise Wrong("nonce")
    named = text_in(claims, "jti", MAX_TOKEN_ID)
    if named is None:
        raise Wrong("jti")
    session_id, subject = text_in(claims, "sid"), text_in(claims, "sub")
    if session_id is None and subject is None:
        raise Wrong("sid")
    name = sha256(f"logout {len(rules.issuer)} {rules.issuer} {named}".encode())
    return Logout(rules.name, session_id, subject, issued_at, name.digest())

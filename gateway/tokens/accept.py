"""Is a verified principal acceptable here and now?

Asked on every request, also when the token was verified before: what depends on the
route and on the moment is never cached (R65).

Imports: gateway.model.
"""

from __future__ import annotations

from gateway.model import Denial, Principal, Reason


def accept(
    principal: Principal,
    audience: frozenset[str],
    issuers: frozenset[str],
    now: float,
) -> Denial | None:
    """Return None when *principal* may be considered.

    Args:
        principal: Whom an authenticator has vouched for.
        audience: The token must be meant for one of these.
        issuers: The names of the issuers whose tokens count; empty means none.
        now: Unix seconds.
    """
    leeway = principal.leeway
    # Stated so that whatever does not compare, such as a NaN, is refused.
    if not now < principal.expires_at + leeway:
        return Denial(Reason.TOKEN_EXPIRED)
    if principal.not_before is not None and not now + leeway >= principal.not_before:
        return Denial(Reason.TOKEN_NOT_YET_VALID, "nbf")
    if principal.issued_at is not None and not now + leeway >= principal.issued_at:
        return Denial(Reason.TOKEN_NOT_YET_VALID, "iat")
    if principal.audience.isdisjoint(audience):
        return Denial(Reason.AUDIENCE_WRONG)
    if principal.issuer not in issuers:
        return Denial(Reason.ISSUER_NOT_ACCEPTED)
    return None

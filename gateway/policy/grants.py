"""What a principal may do: its roles' permissions, and what scope makes of them.

Per issuer and kind of principal, scope is a `limit` (a permission needs a role *and*
the scope), the `grant` itself (roles count for nothing), or is `ignore`d. A principal
whose issuer, or whose kind, no rule names is granted nothing: no default means yes.

Imports: gateway.model, gateway.policy.permissions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.model import Principal
from gateway.policy.permissions import Vocabulary

ScopeUse = Literal["limit", "grant", "ignore"]

# Callers differ in roles and scope far less than in name: a busy site has some dozens
# of combinations. A token may hold 8 KiB of them, so that full is 8 MiB at the worst.
MAX_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class IssuerGrants:
    """What one issuer's word counts for."""

    name: str
    roles: frozenset[str]  # the only roles it may assert; none, when empty
    scope_user: ScopeUse
    scope_service: ScopeUse


class Grants:
    """Answers what principals may do. Remembers, up to a bound."""

    __slots__ = ("_issuers", "_memo", "_roles", "_vocabulary")

    def __init__(
        self,
        vocabulary: Vocabulary,
        roles: Mapping[str, int],
        issuers: Mapping[str, IssuerGrants],
    ) -> None:
        self._vocabulary = vocabulary
        self._roles = roles
        self._issuers = issuers
        # Keyed by all that `_compute` reads, and by nothing that it doesn't.
        self._memo: dict[tuple[str, str, frozenset[str], frozenset[str]], int] = {}

    def granted(self, principal: Principal) -> int:
        """Return the permissions of *principal*, as bits."""
        key = (principal.issuer, principal.kind, principal.roles, principal.scope)
        bits = self._memo.get(key)
        if bits is None:
            bits = self._compute(principal)
            # Starting afresh costs each live combination one computation, and needs no
            # order of use to be kept.
            if len(self._memo) >= MAX_REMEMBERED:
                self._memo.clear()
            self._memo[key] = bits
        return bits

    def _compute(self, principal: Principal) -> int:
        issuer = self._issuers.get(principal.issuer)
        if issuer is None:
            return 0
        match principal.kind:
            case "user":
                use = issuer.scope_user
            case "service" | "api_key":
                use = issuer.scope_service
            case _:
                return 0
        if use == "grant":
            return self._vocabulary.bits(principal.scope)
        bits = 0
        for role in principal.roles & issuer.roles:
            bits |= self._roles.get(role, 0)
        if use == "ignore":
            return bits
        return bits & self._vocabulary.bits(principal.scope)

"""What routes need of gateway.toml, and what they weaken.

Imports: gateway.config.*, gateway.model, gateway.policy.compile, gateway.policy.spec,
gateway.policy.suggest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.config.credential_file import Fernet, Jwe
from gateway.config.credential_file import Issuer as IssuerTable
from gateway.config.findings import Findings
from gateway.config.gateway_file import Gateway
from gateway.config.policies import Policies
from gateway.config.problems import Hidden
from gateway.config.settings import Weakening
from gateway.model import API_KEYS
from gateway.policy.compile import Policy
from gateway.policy.spec import KeyPath, PolicyFile
from gateway.policy.suggest import did_you_mean

_IDENTITY_LINES = """\
upstreams are told who calls by a signed header; add to gateway.toml
[identity]
issuer = "https://<your host>/identity"
keys   = "dir:.gateway/identity"      # gateway keys generate --dir .gateway/identity"""


def check_reach(
    policies: Policies,
    table: Gateway,
    issuers: Collection[str],
    found: Findings,
    *,
    has_identity: bool,
) -> None:
    """Note what the routes need and gateway.toml doesn't give.

    Args:
        policies: With the routes.
        table: gateway.toml.
        issuers: The names of those that there are, also with problems of their own.
        found: Where problems go.
        has_identity: There is an [identity], with problems or without.
    """
    needy = [file for file in policies.files if _is_protected(file)]
    if needy and not issuers:
        found.problem(
            (),
            "no [issuer.x]: nobody could call a route that is not public",
            "add one: docs/config.md, Issuers",
        )
    if not has_identity:
        for file in needy:
            assert file.service is not None, "a protected file has a service"
            upstream = table.upstream.get(file.service.upstream)
            if upstream is None or upstream.identity is None:
                found.problem(
                    (),
                    f'[identity] is missing: service "{file.service.name}" has routes'
                    " that are not public",
                    _IDENTITY_LINES,
                )
                break
    declared = {role.name for file in policies.files for role in file.roles}
    tables: dict[KeyPath, IssuerTable | Fernet | Jwe] = {
        ("issuer", name): issuer for name, issuer in table.issuer.items()
    }
    for name, section in (("fernet", table.fernet), ("jwe", table.jwe)):
        if section is not None:
            tables[(name,)] = section
    for at, issuer in tables.items():
        if (
            issuer.roles is None
            or issuer.scope is None
            or {issuer.scope.user, issuer.scope.service} == {"grant"}
        ):
            continue  # its roles count for nothing here
        _check_roles((*at, "roles", "allow"), issuer.roles.allow, declared, found)
    keys = table.api_keys
    if keys is not None and keys.scope != "grant":
        _check_roles((API_KEYS, "allow"), keys.allow, declared, found)


def _check_roles(
    at: KeyPath, allow: Sequence[str], declared: Collection[str], found: Findings
) -> None:
    """Note roles that would grant nothing."""
    for index, role in enumerate(allow):
        if role not in declared:
            found.problem(
                (*at, index),
                f'no policy file has [roles."{role}"]: it would grant nothing',
                did_you_mean(role, declared),
            )


def _is_protected(file: PolicyFile) -> bool:
    """Tell whether a token is asked for anywhere in *file*."""
    service = file.service
    if service is None:
        return False
    has_default = service.read is not None or service.write is not None
    return has_default or any(route.access != "public" for route in file.routes)


def weak_routes(policy: Policy, hidden: Hidden) -> list[Weakening]:
    """List what routes weaken, each with the reason that its author gave."""
    weak: list[Weakening] = []
    for listing in policy.listings:
        route = listing.route
        if route.access == "public":
            weak.append(
                Weakening(f"public route {route.id}", listing.reason, route.place)
            )
        elif route.pass_credentials:
            weak.append(
                Weakening(f"credentials passed on by route {route.id}", "", route.place)
            )
        if route.escapes:
            why = f"allows {' '.join(sorted(route.escapes))} in its path"
            weak.append(Weakening(f"escapes in route {route.id}", why, route.place))
        if route.websocket is not None and route.websocket.origins is None:
            what = f"WebSockets from any page on route {route.id}"
            weak.append(Weakening(what, "", route.place))
    return [
        Weakening(hidden.mask(item.what), hidden.mask(item.why), item.place)
        for item in weak
    ]

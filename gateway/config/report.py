"""What `gateway check` prints about a configuration that loads.

Counts, every weakening with its reason, routes with a parameter that nobody owns, and
what a token of each issuer would be granted. No value that came from env: or file:.

Imports: the standard library, gateway.config.load, gateway.config.settings,
gateway.model, gateway.policy.suggest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from gateway.config.load import Acceptance, Loaded
from gateway.config.settings import Issuer, Weakening
from gateway.model import Principal
from gateway.policy.suggest import nearest

_USE = {
    "limit": "has those that a role grants and its scope names too",
    "grant": "has those that its scope names, whatever its roles are",
    "ignore": "has those that a role grants; its scope is not looked at",
}


def render_check(loaded: Loaded) -> str:
    """Return the report on *loaded*, some paragraphs of text."""
    paragraphs = [
        _head(loaded),
        *_weakenings(loaded.settings.weakenings, loaded.accepted),
        *_unowned(loaded),
        *(_issuer(loaded, issuer) for issuer in loaded.settings.issuers.values()),
    ]
    return "\n\n".join(paragraphs)


def _head(loaded: Loaded) -> str:
    settings, policy = loaded.settings, loaded.policy
    services = {route.service for route in policy.routes}
    counts = [
        (len(services), "service"),
        (len(policy.routes), "route"),
        (len(policy.permissions), "permission"),
        (len(policy.roles), "role"),
        (len(settings.issuers), "issuer"),
        (len(settings.upstreams), "upstream"),
    ]
    said = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts)
    return f"{', '.join(loaded.shown)}: no problems\n{said}"


def _weakenings(
    weakenings: Sequence[Weakening], accepted: Sequence[Acceptance]
) -> Iterable[str]:
    reasons = {item.what: item.why for item in accepted}
    shown = {item.what for item in weakenings}
    new = [item for item in weakenings if item.what not in reasons]
    known = [item for item in weakenings if item.what in reasons]
    if new:
        title = "Weaker than it could be (to accept one, add [[check.accept]]):"
        yield table(title, [(item.what, item.why, item.place) for item in new])
    if known:
        rows = [(item.what, reasons[item.what], item.why, item.place) for item in known]
        yield table("Accepted:", rows)
    stale = [item for item in accepted if item.what not in shown]
    if stale:
        unknown = []
        for item in stale:
            close = nearest(item.what, shown)
            hint = f'did you mean "{close}"?' if close else ""
            unknown.append((item.what, hint, item.place))
        yield table("Accepted, but there is no such weakening:", unknown)
    if not weakenings:
        yield "No weakenings."


def _unowned(loaded: Loaded) -> Iterable[str]:
    policy = loaded.policy
    rows = []
    for route in policy.unowned:
        listing = policy.listing(route)
        call = f"{' '.join(listing.methods)} {listing.path}"
        rows.append((route.id, call, route.place))
    if rows:
        title = "Routes with a parameter and no ownership rule (whose is it?):"
        yield table(title, rows)


def _issuer(loaded: Loaded, issuer: Issuer) -> str:
    """Say what the scope choices of *issuer* come to."""
    users, services = issuer.scope.user, issuer.scope.service
    rows = [
        ("a person", f'"{users}"', _USE[users]),
        ("a service", f'"{services}"', _USE[services]),
    ]
    if "grant" in (users, services):
        rows.append(("any scope", "names", _listed(loaded.policy.permissions)))
    if {users, services} != {"grant"}:
        rows.extend(
            (f"role {role}", "grants", _listed(_granted(loaded, issuer, role)))
            for role in sorted(issuer.roles.allow)
        )
    return table(f"Permissions by a token of {issuer.name}:", rows)


def _granted(loaded: Loaded, issuer: Issuer, role: str) -> Sequence[str]:
    """Return the permissions of somebody with *role* and every scope."""
    kind: Literal["user", "service"] = (
        "service" if issuer.scope.user == "grant" else "user"
    )
    everything = frozenset(loaded.policy.permissions)
    somebody = Principal(
        kind, issuer.name, "", roles=frozenset({role}), scope=everything
    )
    return loaded.policy.names(loaded.policy.granted(somebody))


def _listed(permissions: Sequence[str]) -> str:
    return " ".join(permissions) or "nothing"


def table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    """Return *rows* in columns under *title*; columns without text are left out."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [title]
    for row in rows:
        cells = [
            cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)

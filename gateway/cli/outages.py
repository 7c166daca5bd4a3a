"""What a configuration means while something it depends on is away.

Computed from the routes themselves, by the numbers that the adapters keep to, so that
nobody has to find out in an outage.

Imports: gateway.adapters, gateway.config, gateway.model.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.adapters.api_keys import FRESH
from gateway.adapters.key_sources import Timing
from gateway.config.load import Loaded
from gateway.config.report import table
from gateway.config.settings import LEASE, Issuer
from gateway.config.units import spell_duration
from gateway.model import Route

_Row = tuple[str, ...]


def during(route: Route) -> str:
    """Say what *route* answers while the store is away."""
    if route.access == "public":
        return "served: public"
    if route.strict:
        return "503 at once: strict"
    if route.stale:
        return f"by the old mirror for {spell_duration(route.stale)}, then 503"
    return f"503 after {spell_duration(LEASE)}"


def summary(loaded: Loaded) -> str:
    """Say in one line what becomes of the routes while the store is away."""
    if loaded.settings.store.is_memory:
        return "Store away: it never is, it is the memory of this process"
    said = [f"{_routes(count)} {what}" for what, count in _counts(loaded).items()]
    return f"Store away: {', '.join(said)}"


def render_outages(loaded: Loaded, *, verbose: bool = False) -> str:
    """Return the report of `gateway check --outage`.

    Args:
        loaded: The configuration.
        verbose: Name each route.
    """
    found = list[_Row]()
    if not loaded.settings.store.is_memory:
        found += [(_routes(n), what) for what, n in _counts(loaded).items()]
        found += _uses(loaded)
    paragraphs = [
        table("While the store is away:", found) if found else summary(loaded)
    ]
    if found and verbose:
        rows = [
            (listing.route.id, during(listing.route), listing.route.place)
            for listing in loaded.policy.listings
        ]
        paragraphs.append(table("Each route:", rows))
    issuers = [
        (f"issuer {issuer.name}", what)
        for issuer in loaded.settings.issuers.values()
        for what in _without(issuer)
    ]
    if issuers:
        paragraphs.append(table("While an issuer is away:", issuers))
    return "\n\n".join(paragraphs)


def _counts(loaded: Loaded) -> dict[str, int]:
    """Count the routes to which the same happens; what is refused most comes first."""
    counts: dict[str, int] = {}
    for route in sorted(
        loaded.policy.routes,
        key=lambda route: (route.access == "public", route.stale, not route.strict),
    ):
        what = during(route)
        counts[what] = counts.get(what, 0) + 1
    return counts


def _uses(loaded: Loaded) -> Iterator[_Row]:
    """Say what becomes of whatever else the store is used for."""
    settings, routes = loaded.settings, loaded.policy.routes
    optional = sum(route.access == "optional" for route in routes)
    if optional:
        yield "of these", f"{_routes(optional)} served to whoever shows no credential"
    yield "revoked", "401 all the while, as far as it was known before"
    tickets = sum(
        "ticket" in route.credentials for route in routes if route.access != "public"
    )
    if tickets:
        yield "tickets", f"503 at once, for {_routes(tickets)}; none is given"
    if settings.dpop is not None:
        yield "DPoP", "503 at once for whoever presents a proof"
    if settings.api_keys is not None:
        if settings.api_keys.declared:
            yield "API keys", "those of [[api_key]] as tokens"
        known = spell_duration(FRESH)
        yield "API keys", f"those in the store 503, {known} after they were last read"
    yield "orders", "503: to revoke, and to change API keys; nothing is claimed"


def _without(issuer: Issuer) -> Iterator[str]:
    """Say what becomes of the tokens of *issuer* while it can't be asked."""
    if issuer.keys.discover or issuer.keys.jwks_url is not None:
        yield (
            f"its last good keys count for {spell_duration(Timing().stale)}, then 503;"
            " 503 for a key never seen"
        )
    if issuer.introspection is not None:
        cache = spell_duration(issuer.introspection.cache)
        yield f"its last word on a token counts for {cache}, then 503"


def _routes(count: int) -> str:
    return f"{count} route{'' if count == 1 else 's'}"

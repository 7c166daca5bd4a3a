"""A compiled policy: everything the main path asks about who may do what.

It is frozen but for its bounded memories, and replaced whole by a reload.

Imports: gateway.model, gateway.policy.grants, gateway.policy.permissions,
gateway.policy.rules, gateway.policy.table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.model import Case, Denial, Principal, Reason, RequestHead, Route, Steps
from gateway.policy.grants import Grants
from gateway.policy.permissions import Vocabulary
from gateway.policy.rules import missing
from gateway.policy.table import Table

# One name tuple for each set of permissions that callers hold in fact; see
# gateway.policy.grants.MAX_REMEMBERED.
MAX_NAMED = 1024
# Paths matched lately, and the longest that is remembered: some 3 MB in all.
MAX_MATCHED = 4096
MAX_MATCHED_PATH = 256  # bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """What the author wrote about a route, for `routes`, `explain` and `check`."""

    route: Route
    methods: tuple[str, ...]  # as they are served: HEAD beside GET
    path: str  # the full template
    hosts: tuple[str, ...]  # all, when empty
    requires: str
    reason: str = ""  # of a public route
    is_owned: bool = True  # False: it has parameters and no ownership rule


class Policy:
    """All routes, roles and permissions of one generation."""

    __slots__ = (
        "_grants",
        "_listings",
        "_matched",
        "_named",
        "_table",
        "_vocabulary",
        "generation",
        "hosts",
        "listings",
        "permissions",
        "public",
        "roles",
        "routes",
        "unowned",
    )

    def __init__(
        self,
        *,
        table: Table,
        listings: Sequence[Listing],
        vocabulary: Vocabulary,
        roles: Mapping[str, int],
        grants: Grants,
        hosts: frozenset[str],
        generation: str,
    ) -> None:
        self._table = table
        self._vocabulary = vocabulary
        self._grants = grants
        self._named: dict[int, tuple[str, ...]] = {}
        self._matched: dict[
            tuple[str, str, bytes], tuple[Route, Mapping[str, str]]
        ] = {}
        self._listings = {listing.route: listing for listing in listings}
        self.listings = tuple(listings)
        self.routes = tuple(listing.route for listing in listings)
        self.permissions = vocabulary.names
        self.roles = roles
        self.hosts = hosts  # of the services; part of the allow-list of R4
        self.generation = generation
        self.public = tuple(
            (listing.route, listing.reason)
            for listing in listings
            if listing.route.access == "public"
        )
        self.unowned = tuple(
            listing.route for listing in listings if not listing.is_owned
        )

    def match(self, head: RequestHead) -> tuple[Route, Mapping[str, str]] | Denial:
        """Return the route of *head* and the values of its path parameters."""
        # All that the table looks at. What is asked for often is asked for again.
        key = (head.method, head.host, head.path)
        known = self._matched.get(key)
        if known is not None:
            return known
        found = self._table.match(head)
        if isinstance(found, Denial) or len(head.path) > MAX_MATCHED_PATH:
            return found
        if len(self._matched) >= MAX_MATCHED:
            self._matched.clear()
        self._matched[key] = found
        return found

    def granted(self, principal: Principal) -> int:
        """Return the permissions of *principal*, as bits."""
        return self._grants.granted(principal)

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the names of the permissions *bits*, sorted."""
        found = self._named.get(bits)
        if found is None:
            found = self._vocabulary.names_of(bits)
            if len(self._named) >= MAX_NAMED:
                self._named.clear()
            self._named[bits] = found
        return found

    def authorize(self, case: Case) -> Steps[Denial | None]:
        """Return None to let *case* pass its route.

        Raises:
            Unavailable: What the route's rule rests on did not answer.
        """
        route = case.route
        # The main path has stopped such a request before. This is the second lock.
        if case.principal.kind == "anonymous" and route.access not in (
            "public",
            "optional",
        ):
            denial: Denial | None = Denial(Reason.CREDENTIAL_MISSING)
        elif route.needed & ~case.granted:
            needed = self._vocabulary.pairs_of(route.needed)
            denial = missing(needed, case.granted)
        elif route.rule is not None:
            denial = yield from route.rule.judge(case)
        else:
            return None
        if denial is None:
            return None
        return replace(denial, route=route, principal=case.principal)

    def describe(self, route: Route) -> str:
        """Say in words what *route* requires."""
        return self._listings[route].requires

    def listing(self, route: Route) -> Listing:
        """Return what is known of *route* beyond what deciding takes."""
        return self._listings[route]

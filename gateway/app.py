"""The composition root: what the rooms ask for, and who gives it to them.

The only module that names the `time` module, makes background tasks and knows every
room. An Engine decides; gateway.serving puts a data port, probes and an admin
port around it; gateway.door puts it into somebody's ASGI app.

Imports: every room.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from gateway.adapters.introspection import IntrospectionClient
from gateway.adapters.jwks import JwksClient
from gateway.adapters.openings import Openings
from gateway.asgi.api_keys import KeyOrder, KeyRefused, Told
from gateway.asgi.probes import Check
from gateway.asgi.revocations import Orders, RevocationOrder
from gateway.clock import Clock
from gateway.config.load import Loaded
from gateway.config.settings import Address, Upstream, UpstreamUrl
from gateway.credentials import (
    Rereading,
    authenticators,
    bindings_of,
    declared_keys,
    key_rules,
)
from gateway.decision import Decider, Pending, finish
from gateway.identity.signer import NOBODY, BoundRequest, Signed
from gateway.key_desk import KeyDesk
from gateway.logout_desk import LogoutDesk
from gateway.model import (
    SELF,
    ApiKeyNeeded,
    Credential,
    Denial,
    IntrospectionNeeded,
    KeyNeeded,
    Need,
    OpeningNeeded,
    Permit,
    Principal,
    Reason,
    ReplayNeeded,
    RequestHead,
    RevocationNeeded,
    StaleRevocation,
    TicketNeeded,
    Unavailable,
)
from gateway.observe.access import Entry
from gateway.observe.metrics import (
    CONFIG,
    MIRROR_AGE,
    MIRROR_ENTRIES,
    MIRROR_LIVE,
    MIRROR_RESYNCS,
    STALE_DECISIONS,
    STORE_UP,
    Metrics,
    Sample,
)
from gateway.observe.token_hash import TokenHash
from gateway.proxy.gate import Gate
from gateway.proxy.standing import Standing, Verdict
from gateway.revocation_desk import RevocationDesk
from gateway.signers import Signers
from gateway.stores import Stores, stores_of
from gateway.tokens.api_key import ApiKeyAuthenticator
from gateway.tokens.cache import VerifiedTokens
from gateway.tokens.key_status import KeyReport
from gateway.tokens.tickets import (
    LIFE,
    TICKET_BYTES,
    name_of,
    request_of,
    seal,
    ticket_of,
    unseal,
)
from gateway.wire.credential import KeyPlace, extract, without_ticket
from gateway.wire.headers import Hygiene
from gateway.wire.websocket import tokens_in

logger = logging.getLogger("gateway")

CLOCK = Clock(wall=time.time, monotonic=time.monotonic)  # noqa: TID251  (here alone)

MIRROR_LIMIT = 10.0  # seconds; who starts without a mirror asks the store instead
Log = Callable[[Entry], None]
# What of each need is asked for, as the metrics say it.
NEEDS: Mapping[type[Need], str] = {
    KeyNeeded: "key",
    IntrospectionNeeded: "introspection",
    OpeningNeeded: "opening",
    RevocationNeeded: "revocation",
    TicketNeeded: "ticket",
    ApiKeyNeeded: "api_key",
    ReplayNeeded: "replay",
}


class Background:
    """Tasks that nobody awaits: kept from the collector, their failures logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start *work*; a failure of it is logged and harms nothing else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def aclose(self) -> None:
        """Cancel what is left and wait for its end."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work failed", exc_info=task.exception())


class Engine:
    """All that decides, made from one configuration; the doors share it.

    Args:
        loaded: The configuration.
        clock: For claims and for durations.
        before: The stores of an earlier generation, when this one goes on with them.
        token_key: Of the process: the log's names for tokens and ephemeral keys come
            from it; None: one of its own.
        metrics: Of the process, which outlive a generation; None: its own.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        clock: Clock = CLOCK,
        before: Stores | None = None,
        token_key: bytes | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        settings, policy = loaded.settings, loaded.policy
        self.metrics = metrics or Metrics()
        self.settings = settings
        self.policy = policy
        self.clock = clock
        self.background = Background()
        self.verified = VerifiedTokens(now=clock.wall, monotonic=clock.monotonic)
        stale = max((route.stale for route in policy.routes), default=0.0)
        self.stores = stores_of(settings, clock, before, stale=stale)
        self._desk: KeyDesk | None = None
        by_key: tuple[KeyPlace, ApiKeyAuthenticator] | None = None
        said, kept = settings.api_keys, self.stores.api_keys
        if said is not None and kept is not None:
            rules, declared = key_rules(settings), declared_keys(said)
            by_key = (
                KeyPlace.of(said.header, said.prefix),
                ApiKeyAuthenticator(rules, declared, kept),
            )
            self._desk = KeyDesk(
                said,
                rules,
                kept,
                declared,
                self.stores.revocations,
                clock,
                secrets.token_bytes,
            )
        self.revocation_desk = RevocationDesk(
            settings, self.stores.revocations, self._desk, clock
        )
        token_key = token_key or secrets.token_bytes(32)
        signing = tuple(each for each in settings.issuers.values() if each.signs)
        self.keys = JwksClient(
            signing,
            clock,
            on_change=self._forget,
        )
        asked = tuple(i for i in settings.issuers.values() if i.introspection)
        self.introspection = IntrospectionClient(asked, clock)
        self._openings = Openings()
        self._logout_desk = LogoutDesk(
            settings, self.keys, self.stores, clock, self.answer
        )
        self.decider = Decider(
            policy,
            tuple(authenticators(settings, self.keys, token_key)),
            self.verified,
            self.stores.revocations,
            audiences={i.name: i.audience for i in settings.issuers.values()},
            hosts=settings.server.hosts,
            own_prefix=tuple(settings.server.own_prefix.strip("/").split("/")),
            max_token=settings.server.max_token,
            api_keys=by_key,
            bindings=bindings_of(settings, token_key),
        )
        self._reread = Rereading(settings)
        self._signers = Signers(settings)
        self.hygiene = Hygiene(
            strip=settings.headers.strip,
            keep=settings.headers.keep,
            underscores=settings.headers.underscores,
            own=self._signers.headers,
            credential=said.header if said is not None else None,
        )
        self._token_names = TokenHash(token_key)

    @property
    def generation(self) -> str:
        """Name this configuration, for the log and for what is cached by it."""
        return self.policy.generation

    async def start(self) -> None:
        """Load the issuers' keys as far as they can be had, and keep them fresh."""
        self.background.spawn(self.stores.revocations.run())
        await self.keys.start()
        self.background.spawn(self.keys.run())
        await self.stores.revocations.ready(MIRROR_LIMIT)
        if self.stores.api_keys is not None:
            self.background.spawn(self.stores.api_keys.run())
        if self.settings.dpop is not None or self.settings.takes_logouts:
            self.background.spawn(self.stores.replays.begin())

    async def aclose(self) -> None:
        """End background work, then close what it used."""
        await self.background.aclose()
        await self.keys.aclose()
        await self.introspection.aclose()
        await self._openings.aclose()
        await self.stores.aclose()

    async def answer(self, need: Need) -> Any:
        """Answer a Need of the main path.

        Raises:
            Unavailable: Whoever knows did not answer.
        """
        name, began = NEEDS[type(need)], self.clock.monotonic()
        try:
            known = await self._ask(need)
        except Unavailable:
            self.metrics.asked(name, self.clock.monotonic() - began, answered=False)
            known = self._known(need)
            if known is None:
                raise
            self.metrics.decided_stale += 1
            return known
        self.metrics.asked(name, self.clock.monotonic() - began, answered=True)
        return known

    async def _ask(self, need: Need) -> Any:
        if isinstance(need, KeyNeeded):
            return await self.keys.fetch(need)
        if isinstance(need, IntrospectionNeeded):
            return await self.introspection.ask(need)
        if isinstance(need, OpeningNeeded):
            return await self._openings.open(need)
        if isinstance(need, TicketNeeded):
            kept = await self.stores.tickets.take(name_of(need.ticket))
            if kept is None:
                return None
            return unseal(need.ticket, kept, need.request)
        if isinstance(need, ApiKeyNeeded):
            assert self.stores.api_keys is not None, "nobody else asks"
            return await self.stores.api_keys.fetch(need.digest)
        if isinstance(need, ReplayNeeded):
            return await self.stores.replays.use(need.proof, need.issued_at)
        return await self.stores.revocations.check(need.principal)

    def _known(self, need: Need) -> StaleRevocation | None:
        """Return what answers *need* although the store is away, if that may be."""
        if not isinstance(need, RevocationNeeded) or not need.stale:
            return None
        found = self.stores.revocations.check_stale(need.principal, need.stale)
        return None if found is None else StaleRevocation(*found)

    def measure(self) -> Iterator[Sample]:
        """Yield what is known of our own parts, without asking anybody now."""
        yield CONFIG, (self.generation,), 1
        yield STORE_UP, (), self.stores.revocations.health() is None
        mirror = self.stores.revocations.state()
        yield MIRROR_LIVE, (), mirror.is_live
        if math.isfinite(mirror.age):
            yield MIRROR_AGE, (), mirror.age
        yield MIRROR_ENTRIES, (), mirror.entries
        yield MIRROR_RESYNCS, (), mirror.resyncs
        yield STALE_DECISIONS, (), self.metrics.decided_stale
        yield from self.keys.measure()
        yield from self.introspection.measure()
        yield from self.verified.measure()

    async def decide(self, head: RequestHead, now: float) -> Permit | Denial:
        """Decide *head* as of *now*, waiting for what has to be waited for."""
        return await self.decider.decide(head, now, self.answer)

    async def judge(self, standings: Sequence[Standing | Denial]) -> list[Verdict]:
        """Decide again, by what is in force here, what was let in before.

        Args:
            standings: How; a Denial where that can't be read any more, and stays one.
        """
        return [
            each if isinstance(each, Denial) else await self._judge(each)
            for each in standings
        ]

    async def _judge(self, standing: Standing) -> Verdict:
        try:
            who = self._reread(standing.principal, standing.since)
            if isinstance(who, Denial):
                return who
            outcome = await self.decider.decide(
                standing.head, standing.since, self.answer, who
            )
        except Unavailable as outage:
            return outage
        except Exception:
            # The others' verdicts must not depend on this one.
            logger.exception("a stream could not be judged")
            return Unavailable("the decision")
        if isinstance(outcome, Denial):
            return outcome
        if standing.is_socket and outcome.route.websocket is None:
            return Denial(Reason.UPGRADE_REFUSED)
        return None

    async def give_ticket(self, head: RequestHead) -> str | Denial | None:
        """Return a ticket for *head*, which is permitted as it stands; or why none.

        None: its route takes no tickets, or nobody has said who he is.

        Raises:
            Unavailable: What decides, or what keeps tickets, did not answer.
        """
        outcome = await self.decide(head, self.clock.wall())
        if isinstance(outcome, Denial):
            return outcome
        kinds = outcome.route.credentials
        # The same as was just decided by: the head remembers it.
        credential = extract(
            head.section,
            head.query,
            kinds=kinds,
            max_token=self.settings.server.max_token,
            keys=self.decider.key_place,
        )
        if (
            "ticket" not in kinds
            or outcome.principal.kind == "anonymous"
            or not isinstance(credential, Credential)
            or credential.kind == "ticket"
        ):
            return None
        ticket = ticket_of(secrets.token_bytes(TICKET_BYTES))
        kept = seal(ticket, credential, request_of(without_ticket(head)))
        await self.stores.tickets.keep(name_of(ticket), kept, LIFE)
        return ticket

    async def finish(self, pending: Pending) -> Permit | Denial:
        """Drive a pending decision to its end."""
        return await finish(pending, self.answer)

    def identity(
        self, permit: Permit, head: RequestHead, request_id: bytes, now: float
    ) -> Signed | Denial:
        """Return the signed fields that go with *permit*; none where nobody is."""
        principal = permit.principal
        if principal.kind == "anonymous":
            return NOBODY
        bound = None
        if permit.route.bind_request:
            name = request_id.decode("ascii")
            bound = BoundRequest(head.method, permit.target, name)
        upstream, policy = permit.upstream, self.policy
        return self._signers.by_upstream[upstream].sign(
            principal,
            upstream,
            policy.names(permit.granted),
            now,
            policy.generation,
            bound,
        )

    async def revoke(
        self, *orders: RevocationOrder, wait: float = 0.0, dry_run: bool = False
    ) -> Told:
        """Carry *orders* out; return what there is to say about each.

        Args:
            orders: All of which are understood before one is begun.
            wait: Seconds, at most, until they are in force everywhere.
            dry_run: Write nothing, and say what would be done.

        Raises:
            OrderRefused: One of them can't be meant; none was carried out.
            Unavailable: The store has not acknowledged all of them.
        """
        return await self.revocation_desk.carry_out(Orders(orders, wait, dry_run))

    async def log_out(self, token: str) -> bool:
        """Revoke what a logout token says has ended; see gateway.logout_desk."""
        return await self._logout_desk.carry_out(token)

    async def order_keys(self, order: KeyOrder) -> Told:
        """Carry *order* about API keys out.

        Raises:
            KeyRefused: It can't be done.
            Unavailable: The store has not acknowledged it.
        """
        if self._desk is None:
            raise KeyRefused(404, "gateway.toml has no [api_keys]")
        return await self._desk.carry_out(order)

    def checks(self) -> list[Check]:
        """Say how our dependencies are, from what is known without asking now."""
        revocations = self.stores.revocations
        age = revocations.state().age
        note = f"mirror {age:.1f} s old" if math.isfinite(age) else "no mirror"
        if self.settings.store.is_memory:
            note = ""
        found = [Check("revocation store", revocations.health() or "", note=note)]
        troubles = {
            name: self.keys.health(name)
            for name, issuer in self.settings.issuers.items()
            if issuer.signs
        }
        has_public = any(r.access in {"public", "optional"} for r in self.policy.routes)
        signed = len(troubles) == len(self.settings.issuers)
        nobody = not has_public and signed and all(map(self.keys.is_empty, troubles))
        found += [
            Check(
                f"keys of issuer {name}", trouble or "", fatal=nobody and bool(trouble)
            )
            for name, trouble in troubles.items()
        ]
        found += [
            Check(f"introspection by issuer {name}", trouble)
            for name, trouble in self.introspection.troubles().items()
        ]
        return found

    def key_report(self) -> KeyReport:
        """Say how the keys of the issuers are, and our own."""
        return KeyReport(self.keys.status(), self._signers.status)

    def key_set(self) -> bytes:
        """Return the JWK Set document that verifies our assertions."""
        return self._signers.key_set

    def token_hash(self, head: RequestHead) -> str:
        """Return the log's name for the token of *head*; "" where it has none."""
        section = head.section
        name = section.token_name
        if name is None:
            name = ""
            place = self.decider.key_place
            for field, value in section.headers:
                if field == b"authorization":
                    token = value.partition(b" ")[2].strip(b" ")
                    name = self._token_names.of(token.decode("latin-1"))
                    break
                if place is not None and field == place.header:
                    name = self._token_names.of(value.decode("latin-1"))
                    break
            if not name and head.kind == "websocket":
                for offered in filter(None, tokens_in(section.headers)):
                    name = self._token_names.of(offered.decode("latin-1"))
            section.token_name = name
        return name

    def _forget(self, issuer: str) -> None:
        """Drop the tokens of *issuer* that a key has verified which is gone."""
        self.verified.drop_keys(issuer, lambda key: self.keys.holds(issuer, key))

    def gate(self, log: Log, self_address: Address) -> Gate:
        """Return this generation as the data port takes it."""
        own = Upstream(SELF, (UpstreamUrl(self_address, "self"),))
        return Gate(
            server=self.settings.server,
            decide_now=self.decider.decide_now,
            finish=self.finish,
            hygiene=self.hygiene,
            identity=self.identity,
            upstreams={**self.settings.upstreams, SELF: own},
            log=log,
            generation=self.policy.generation,
            log_query=self.settings.log_query,
            is_revoked=self.is_revoked,
            token_hash=self.token_hash,
        )

    def is_revoked(self, principal: Principal) -> bool:
        """Tell whether *principal* has been revoked, as far as it is known here."""
        return self.stores.revocations.check_now(principal) is True

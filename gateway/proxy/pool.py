"""One upstream: its endpoints, which of them is asked next, and what holds for all.

A URL with an IP address or a Unix socket is one endpoint; a URL with a name is as many
as the name has addresses, and is looked up again when their TTL has passed. While that
fails, the addresses stay that were found last. An address that is gone is given nothing
more, and keeps what it has to the end.

Of two endpoints chosen at random the one with fewer requests in flight is asked: nearly
as even as asking the least busy of all, and two workers or gateways don't all run to
the same one (Mitzenmacher, "The Power of Two Choices", 2001). With one endpoint nothing
is chosen: `take` then is that endpoint's own.

At most max_connections requests are in flight (R35): a connection carries one at a
time, and idle ones give way when another endpoint needs one. So a black hole fills up
and answers 503, and nobody else waits for it.

No pool is without an endpoint because of what is merely thought of them: when fewer
than panic_threshold percent of those that can be reached are available, all of them
are used, for what is left would go down next.

Time passes in `tick`, which the port's sweeper calls. It never waits: lookups, checks
and trials are coroutines, each at most once at a time for a name or an endpoint.

Imports: the standard library, gateway.clock, gateway.config.settings,
gateway.observe.metrics, gateway.proxy, gateway.wire.problems.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.config.settings import Address, Upstream, UpstreamUrl
from gateway.observe.metrics import (
    UPSTREAM_CONNECTIONS,
    UPSTREAM_ENDPOINTS,
    UPSTREAM_FULL,
    UPSTREAM_RETRIES,
    Sample,
)
from gateway.proxy.checks import check
from gateway.proxy.health import LAST_TRIAL, STATES, Health, State
from gateway.proxy.names import Resolve, ask_system
from gateway.proxy.trust import LOOK, Trust
from gateway.proxy.upstream import (
    NEVER,
    Endpoint,
    KnownAnswers,
    ProtocolT,
    UpstreamConnection,
    UpstreamFailed,
)
from gateway.wire.problems import UpstreamFailure

logger = logging.getLogger(__name__)

# Endpoints that a request is tried at before it fails. Each may take timeout.connect,
# and its client waits.
TRIES = 3
RETRY_LOOKUP = 1.0  # seconds after a failed lookup
# Seconds between two lookups at least, though a TTL may be 0, and where nobody tells
# one. At most it is the upstream's resolve_every.
LEAST_TTL, UNTOLD_TTL = 1.0, 10.0
_SPREAD = 0.2  # of the time between two checks, so that many don't come at once

Spawn = Callable[[Coroutine[None, None, None]], object]


@dataclass(frozen=True, slots=True)
class EndpointState:
    """How one endpoint is, for whoever looks."""

    address: str
    state: State
    trouble: str  # why the last connection did not open
    ejected_for: float  # seconds from now; 0: it is not ejected
    in_flight: int
    idle: int  # connections
    requests: int  # from here on since it is known
    connections: int
    connect_failures: int
    failures: int
    failed_checks: int
    ejections: int


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How one upstream is, for whoever looks."""

    name: str
    endpoints: tuple[EndpointState, ...]
    in_flight: int
    idle: int  # connections
    max_connections: int
    panic: bool  # all are used, though most should not be
    full: int  # requests that found no room, since it is known
    retries: int  # connections tried at a further endpoint
    failed_lookups: int


class _Name:
    """A URL whose host is a name, and where that led last."""

    def __init__(self, url: UpstreamUrl) -> None:
        self.url = url
        self.addresses: tuple[Address, ...] = ()
        self.look_at = 0.0  # monotonic seconds; NEVER: it is being looked up
        self.has_failed = False


class Pool:
    """The endpoints of one upstream.

    Args:
        upstream: Where, and within which bounds.
        clock: For deadlines.
        spawn: Runs a coroutine in the background.
        resolve: Finds the addresses of a name.

    Raises:
        ValueError: The files of its TLS hold nothing that works.
        OSError: One of them can't be read.
    """

    take: Callable[[float], UpstreamConnection | None]
    """Return an idle connection, if there is one that may be used *now*."""

    def __init__(
        self,
        upstream: Upstream,
        clock: Clock,
        spawn: Spawn,
        resolve: Resolve = ask_system,
    ) -> None:
        self.upstream = upstream
        self.clock = clock
        # What a request to it is given; None: the client's own Host.
        self.host = {
            "client": None,
            "upstream": upstream.urls[0].authority.encode("ascii"),
        }.get(upstream.host, upstream.host.encode("ascii"))
        is_secure = any(url.secure for url in upstream.urls)
        self.tls = Trust(upstream.name, upstream.tls) if is_secure else None
        self.known_answers = KnownAnswers()
        self.connections: set[UpstreamConnection] = set()  # all: lent and idle
        self.connecting = 0
        self.full = self.retries = self.failed_lookups = 0
        self.panic = False
        self._is_retired = False
        self._spawn = spawn
        self._resolve = resolve
        self._names = {
            url: _Name(url) for url in upstream.urls if _is_name(url.address.host)
        }
        self._looked_up = asyncio.Event()  # there is an endpoint, or no name was found
        self._look_at_files = 0.0
        self._endpoints: dict[tuple[Address, str], Endpoint] = {}
        self._ready: list[Endpoint] = []  # may be given requests
        self._told: dict[Endpoint, State] = {}  # the last state that was logged
        self._why_not = UpstreamFailure.REFUSED  # the last connection that failed
        self._renew_endpoints()
        for name in self._names.values():
            self._begin_lookup(name)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that there are at present."""
        return tuple(self._endpoints.values())

    def state(self) -> UpstreamState:
        """Say how it is, at this moment."""
        now = self.clock.monotonic()
        endpoints = self.endpoints
        idle = sum(one.idle for one in endpoints)
        return UpstreamState(
            name=self.upstream.name,
            endpoints=tuple(_state(one, now) for one in endpoints),
            # Those that are gone still have theirs, and no idle connection.
            in_flight=len(self.connections) + self.connecting - idle,
            idle=idle,
            max_connections=self.upstream.max_connections,
            panic=self.panic,
            full=self.full,
            retries=self.retries,
            failed_lookups=self.failed_lookups,
        )

    def measure(self) -> Iterator[Sample]:
        """Yield how many connections and endpoints there are, by what they do."""
        state = self.state()
        name, lent = state.name, len(self.connections) - state.idle
        yield UPSTREAM_CONNECTIONS, (name, "idle"), state.idle
        yield UPSTREAM_CONNECTIONS, (name, "lent"), lent
        yield UPSTREAM_CONNECTIONS, (name, "connecting"), self.connecting
        yield UPSTREAM_RETRIES, (name,), state.retries
        yield UPSTREAM_FULL, (name,), state.full
        for each in STATES:
            count = sum(one.state is each for one in state.endpoints)
            yield UPSTREAM_ENDPOINTS, (name, each), count

    # Connections

    def take_sure(self, now: float) -> UpstreamConnection | None:
        """Return an idle connection for what can't be sent twice, if there is one.

        A request that is under way while its connection ends is lost. So the system is
        asked whether an end has come already, and endpoints that close idle
        connections earlier than we do get a new one each time (R34).
        """
        while (connection := self.take(now)) is not None:
            endpoint = connection.endpoint
            if not endpoint.is_steady(now):
                endpoint.put_back(connection)
                return None
            if connection.is_quiet():
                return connection
            endpoint.ended_early(now)
            connection.drop()
        return None

    async def connect(
        self, *, fresh: bool = False, rather_not: Endpoint | None = None
    ) -> UpstreamConnection:
        """Return a connection.

        Args:
            fresh: Not a kept one (R34).
            rather_not: To this endpoint only where there is no other. One that dies
                ends its connections before it refuses new ones.

        Raises:
            UpstreamFailed: Refused, too slow, or as many as there may be.
        """

        def kept(endpoint: Endpoint) -> UpstreamConnection | None:
            return None if fresh else endpoint.take(self.clock.monotonic())

        none_kept = not fresh and rather_not is None
        return await self._connect(
            UpstreamConnection, kept, rather_not, none_kept=none_kept
        )

    async def connect_as(self, make: Callable[[Endpoint], ProtocolT]) -> ProtocolT:
        """Open a connection that speaks what *make* makes.

        Raises:
            UpstreamFailed: As for `connect`.
        """
        return await self._connect(make, lambda _: None)

    async def _connect(
        self,
        make: Callable[[Endpoint], ProtocolT],
        kept: Callable[[Endpoint], ProtocolT | None],
        rather_not: Endpoint | None = None,
        *,
        none_kept: bool = False,
    ) -> ProtocolT:
        if not self._endpoints:
            await self._wait_for_names()
        left = [one for one in self._ready if one.health.is_reachable]
        # Those of whom we think ill: where all others refuse, they may still answer.
        spare = [
            one
            for one in self._endpoints.values()
            if one.health.is_reachable and one not in self._ready
        ]
        if rather_not in left:
            left.remove(rather_not)
            spare.append(rather_not)
        is_alone = len(left) + len(spare) == 1
        kind = self._why_not
        for attempt in range(TRIES):
            if not left:
                left, spare = spare, []
            if not left:
                break
            # Who asks for a kept one has chosen before, an endpoint that had none. To
            # choose among all again would give it the square of its share.
            among = [one for one in left if not one.idle] if none_kept else []
            endpoint = _choose(among or left)
            idle = kept(endpoint)
            if idle is not None:
                return idle
            self._make_room()
            self.retries += attempt > 0
            try:
                # Nothing was sent, so elsewhere is safe (R34); or once more, where
                # there is no elsewhere.
                connection = await endpoint.open(make, again=is_alone)
            except UpstreamFailed as failed:
                kind = self._why_not = failed.kind
                endpoint.health.not_connected(self.clock.monotonic())
                left.remove(endpoint)
            else:
                endpoint.health.connected()
                return connection
        raise UpstreamFailed(kind)

    def give(self, connection: UpstreamConnection, now: float) -> None:
        """Take back a connection that was never used after all."""
        connection.endpoint.give(connection, now)

    def abort(self) -> None:
        """Close everything at once, and keep nothing any more."""
        self._is_retired = True
        for endpoint in self.endpoints:
            endpoint.retire()
        for connection in tuple(self.connections):
            connection.drop()

    # Time

    def tick(self, now: float) -> None:
        """Begin what is due (monotonic seconds)."""
        for name in self._names.values():
            if name.look_at <= now:
                self._begin_lookup(name)
        if self.tls is not None and self._look_at_files <= now:
            self._look_at_files = now + LOOK
            self.tls.look()
        rules = self.upstream.health
        for endpoint in self.endpoints:
            health = endpoint.health
            if health.ejected_until and health.ejected_until <= now:
                health.end_ejection(now)
            if not health.is_reachable and health.trial_at <= now:
                # Later than its end, which says when the next one is.
                health.trial_at = now + self.upstream.timeout.connect + LAST_TRIAL
                self._spawn(self._try(endpoint))
            if rules is not None and endpoint.check_at <= now:
                endpoint.check_at = now + rules.timeout + rules.interval
                self._spawn(self._check(endpoint))

    async def _try(self, endpoint: Endpoint) -> None:
        """See whether *endpoint* can be reached again."""
        try:
            connection = await endpoint.open(UpstreamConnection)
        except UpstreamFailed as failed:
            self._why_not = failed.kind
            endpoint.health.trial_failed(self.clock.monotonic())
        else:
            endpoint.health.connected()
            endpoint.give(connection, self.clock.monotonic())

    async def _check(self, endpoint: Endpoint) -> None:
        rules = self.upstream.health
        assert rules is not None
        host = endpoint.authority
        if self.upstream.host not in {"client", "upstream"}:
            host = self.upstream.host
        passed = await check(endpoint, rules, host.encode("ascii"))
        endpoint.health.checked(passed=passed)
        pause = rules.interval * (1 + _SPREAD * (random.random() - 0.5))  # noqa: S311
        endpoint.check_at = self.clock.monotonic() + pause

    # Names

    async def _wait_for_names(self) -> None:
        try:
            async with asyncio.timeout(self.upstream.timeout.connect):
                await self._looked_up.wait()
        except TimeoutError:
            raise UpstreamFailed(UpstreamFailure.TIMED_OUT) from None

    def _begin_lookup(self, name: _Name) -> None:
        name.look_at = NEVER
        self._spawn(self._look_up(name))

    async def _look_up(self, name: _Name) -> None:
        # Not bounded in time: to give up would not end the system's own attempt, and
        # the next one would be a second thread that waits for the same.
        address = name.url.address
        pause = self.upstream.resolve_every
        try:
            found = await self._resolve(address.host, address.port)
        except OSError as error:
            self.failed_lookups += 1
            pause = min(pause, RETRY_LOOKUP)
            if not name.has_failed:
                name.has_failed = True
                logger.warning(
                    "upstream %s: the name of %s is not found: %s",
                    self.upstream.name,
                    name.url.authority,
                    error.strerror or type(error).__name__,
                )
        else:
            name.has_failed = False
            ttl = UNTOLD_TTL if found.ttl is None else max(found.ttl, LEAST_TTL)
            pause = min(pause, ttl)
            # The order changes with each answer, and means nothing here.
            addresses = tuple(
                Address(each, address.port) for each in sorted(found.addresses)
            )
            if addresses != name.addresses and not self._is_retired:
                name.addresses = addresses
                self._renew_endpoints()
        finally:
            name.look_at = self.clock.monotonic() + pause
            if self._endpoints or all(each.has_failed for each in self._names.values()):
                self._looked_up.set()

    # Choice

    def _renew_endpoints(self) -> None:
        before, self._endpoints = self._endpoints, {}
        for url in self.upstream.urls:
            name = self._names.get(url)
            server_name = ""
            if url.secure:
                server_name = self.upstream.tls.server_name or url.address.host
            for address in (url.address,) if name is None else name.addresses:
                key = (address, server_name)
                self._endpoints.setdefault(
                    key,
                    before.get(key)
                    or Endpoint(
                        self,
                        address,
                        url.authority,
                        server_name,
                        Health(
                            self.upstream.ejection, self.upstream.health, self._renew
                        ),
                    ),
                )
        for key, endpoint in before.items():
            if key not in self._endpoints:
                endpoint.retire()
        for endpoint in self.endpoints:
            endpoint.health.can_be_ejected = len(self._endpoints) > 1
        self._renew()

    def _renew(self) -> None:
        """Find anew which endpoints may be given requests."""
        everyone = list(self._endpoints.values())
        reachable = [one for one in everyone if one.health.is_reachable]
        available = [one for one in reachable if one.health.is_available]
        threshold = self.upstream.panic_threshold * len(reachable)
        self.panic = bool(reachable) and (
            not available or 100 * len(available) < threshold
        )
        # An endpoint that can't be reached may have connections that still work.
        self._ready = (reachable if self.panic else available) or everyone
        self.take = self._ready[0].take if len(self._ready) == 1 else self._take
        told, self._told = self._told, {}
        for one in everyone:
            state = self._told[one] = one.health.state
            if state != told.get(one, "up"):
                logger.log(
                    logging.INFO if available else logging.WARNING,
                    "upstream %s: %s is %s%s, %d of %d are available",
                    self.upstream.name,
                    one.address,
                    state,
                    f" ({one.trouble})" if one.trouble else "",
                    len(available),
                    len(everyone),
                )

    def _take(self, now: float) -> UpstreamConnection | None:
        ready = self._ready
        return _choose(ready).take(now) if ready else None

    def _make_room(self) -> None:
        """See that there may be one connection more.

        Raises:
            UpstreamFailed: There may not.
        """
        count = len(self.connections) + self.connecting
        if count < self.upstream.max_connections:
            return
        if not any(one.yield_one() for one in self._endpoints.values()):
            self.full += 1
            raise UpstreamFailed(UpstreamFailure.FULL)


def _choose(among: Sequence[Endpoint]) -> Endpoint:
    """Return the less busy one of two, at random; of one, that one."""
    count = len(among)
    if count == 1:
        return among[0]
    # No secret depends on it, and SystemRandom asks the system each time.
    first = int(random.random() * count)  # noqa: S311
    second = (first + 1 + int(random.random() * (count - 1))) % count  # noqa: S311
    one, other = among[first], among[second]
    return other if _load(other) < _load(one) else one


def _load(endpoint: Endpoint) -> float:
    # On trial it has one request at a time, as long as anybody else can be asked.
    in_flight = endpoint.in_flight
    return NEVER if in_flight and endpoint.health.is_on_trial else in_flight


def _state(endpoint: Endpoint, now: float) -> EndpointState:
    health = endpoint.health
    return EndpointState(
        address=str(endpoint.address),
        state=health.state,
        trouble=endpoint.trouble,
        ejected_for=max(0.0, health.ejected_until - now),
        in_flight=endpoint.in_flight,
        idle=endpoint.idle,
        requests=endpoint.requests,
        connections=endpoint.connected,
        connect_failures=health.total_connect_failures,
        failures=health.total_failures,
        failed_checks=health.failed_checks,
        ejections=health.total_ejections,
    )


def _is_name(host: str) -> bool:
    if not host:  # a Unix socket
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False

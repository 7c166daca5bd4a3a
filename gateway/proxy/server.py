"""The data port: listening sockets, who may connect, and the clock's hand.

One sweeper for each worker walks the connections twice a second and ends what has
waited too long (R5): a timer for each request would cost more than most requests do.

Imports: gateway.clock, gateway.config.settings, gateway.model, gateway.observe.metrics,
gateway.proxy, gateway.tokens, gateway.wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from binascii import hexlify
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.config.settings import Address
from gateway.model import Peer
from gateway.observe.metrics import ACTIVE, CONNECTIONS, CONNECTIONS_REFUSED, Sample
from gateway.proxy.asked import KnownHeads
from gateway.proxy.exchange import Exchange
from gateway.proxy.front import Front, PlainFront
from gateway.proxy.gate import Gate
from gateway.proxy.names import Names, Resolve
from gateway.proxy.pool import Pool, UpstreamState
from gateway.proxy.precedence import Precedence
from gateway.proxy.streams import Streams
from gateway.proxy.tls import Certificates, Handshake, Listener
from gateway.tokens.certificates import thumbprint
from gateway.wire.request import household, peer_of

logger = logging.getLogger(__name__)

# Seconds between two looks at the deadlines, which are seconds long themselves.
SWEEP = 0.25
READ = 32 * 1024  # bytes read from a client at once: a head, and some of a body
LISTED_AT_ONCE = 64  # streams entered in one turn of the loop: half a millisecond
BACKLOG = 2048
# Requests whose names are made at once. One by one each would cost a system call.
_NAMES = 100
_DIGITS = 48  # hexadecimal: a request id, which is a trace id too, and a span id
_ZEROS = b"0" * 16


class DataPort:
    """Listens, and holds what all its connections share.

    Args:
        gate: What decides.
        clock: For deadlines, and for the decision's `now`.
        spawn: Runs a coroutine in the background; keeps, logs and isolates it.
        random: Returns that many random bytes, such as os.urandom.
        resolve: Finds the addresses of an upstream's name; None: as name servers say.

    Raises:
        ValueError: An upstream's certificates can't be used.
        OSError: One of them can't be read.
    """

    def __init__(
        self,
        gate: Gate,
        clock: Clock,
        spawn: Callable[[Coroutine[None, None, None]], object],
        random: Callable[[int], bytes],
        resolve: Resolve | None = None,
    ) -> None:
        self.gate = gate
        self.clock = clock
        self.wall = clock.wall
        self.monotonic = clock.monotonic
        self.spawn = spawn
        self.is_draining = False  # each answer is the last of its connection
        self.is_ending = False  # nobody is admitted, and idle connections are closed
        self.fronts: set[Front] = set()
        self.streams = Streams(gate.is_revoked)
        self.known_heads = KnownHeads()
        self.precedence = Precedence(clock.monotonic, _in_the_next_turn)
        self.buffer = bytearray(READ)
        self.view = memoryview(self.buffer)
        self.random = random
        self._resolver = Names()
        self._names: list[bytes] = []
        self.in_flight: Counter[str] = Counter()
        self.pools = {
            name: Pool(upstream, clock, spawn, resolve or self._resolver.find)
            for name, upstream in gate.upstreams.items()
        }
        self._per_peer: Counter[str] = Counter()
        self._counted: dict[Front | Handshake, str] = {}
        self._handshakes: set[Handshake] = set()
        self._refused = 0  # connections
        self._servers: list[asyncio.Server | Listener] = []
        self._sweep_timer: asyncio.Handle | None = None
        self._fewer = asyncio.Event()  # a connection has ended

    # Life

    async def start(
        self, sockets: Sequence[socket.socket], tls: Certificates | None = None
    ) -> None:
        """Listen on *sockets*, which are this port's from now on.

        Args:
            sockets: Bound. Where others have them too, their queues outlive this port.
            tls: Spoken on all of them but Unix sockets.
        """
        loop = asyncio.get_running_loop()
        for each in sockets:
            server: asyncio.Server | Listener
            if each.family == socket.AF_UNIX:
                # From 3.13 on the file would go with the first of its listeners,
                # though a successor listens at it. `sockets.remove` sees to it.
                kept: dict[str, Any] = {}
                if sys.version_info >= (3, 13):
                    kept["cleanup_socket"] = False
                server = await loop.create_unix_server(
                    partial(PlainFront, self), sock=each, backlog=BACKLOG, **kept
                )
            elif tls is not None:
                server = Listener(self, tls, each, BACKLOG)
            else:
                server = await loop.create_server(
                    partial(PlainFront, self), sock=each, backlog=BACKLOG
                )
            self._servers.append(server)
        self._sweep_timer = loop.call_later(SWEEP, self._sweep)

    @property
    def bound(self) -> tuple[Address, ...]:
        """Where it listens in fact: port 0 has become a number."""
        found = []
        for server in self._servers:
            for listening in server.sockets:
                name = listening.getsockname()
                if isinstance(name, tuple):
                    found.append(Address(name[0], name[1]))
                else:
                    found.append(Address(path=name))
        return tuple(found)

    def upstream_states(self) -> tuple[UpstreamState, ...]:
        """Say how the upstreams are, at this moment."""
        return tuple(pool.state() for pool in self.pools.values())

    def drain(self) -> None:
        """Tell each client with its next answer that its connection ends (R101).

        An idle connection is kept until then: closed at once, it would lose the
        request that is on its way here.
        """
        self.is_draining = True

    def stop_accepting(self) -> None:
        """Leave who connects from now on to others that have the sockets."""
        for server in self._servers:
            server.close()

    async def emptied(self, within: float) -> bool:
        """Wait up to *within* seconds until no connection is left; tell whether."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.fronts or self._handshakes:
                    self._fewer.clear()
                    await self._fewer.wait()
        return not self.fronts

    async def close(self, grace: float) -> None:
        """Stop listening; give what is in hand *grace* seconds to end."""
        self.drain()
        self.stop_accepting()
        # One turn of the loop: whoever was accepted in this one is still admitted.
        await asyncio.sleep(0)
        self.is_ending = True
        for handshake in tuple(self._handshakes):
            handshake.end()
        for front in tuple(self.fronts):
            front.drain()
        if not await self.emptied(grace):
            self._cut_off(grace)
        for front in tuple(self.fronts):
            front.transport.abort()
        for pool in self.pools.values():
            pool.abort()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        await self._resolver.aclose()
        # One turn of the loop, in which the transports say goodbye.
        await asyncio.sleep(0)
        for server in self._servers:
            await server.wait_closed()

    # What its connections ask

    def admit(self, front: Front, transport: asyncio.BaseTransport) -> Peer | None:
        """Return who is at the other end, or None where there is no room for it."""
        name = transport.get_extra_info("peername")
        # A Unix socket has no peer's address: whoever may open it is ours.
        peer = self._count(front, name[0] if isinstance(name, tuple) else "")
        if peer is None:
            return None
        self.fronts.add(front)
        secure = transport.get_extra_info("ssl_object")
        shown = secure.getpeercert(binary_form=True) if secure is not None else None
        if shown is None:
            return peer
        return replace(peer, certificate=thumbprint(shown), shown=shown)

    def left(self, front: Front) -> None:
        """Note that *front* is no more."""
        self.fronts.discard(front)
        self._count_off(front)
        self._fewer.set()

    def greet(self, handshake: Handshake, address: str) -> bool:
        """Count *handshake*, of the peer *address*; False: there is no room for it."""
        if self._count(handshake, address) is None:
            return False
        self._handshakes.add(handshake)
        return True

    def greeted(self, handshake: Handshake) -> None:
        """Note that *handshake* has ended."""
        self._handshakes.discard(handshake)
        self._count_off(handshake)
        self._fewer.set()

    def names(self) -> bytes:
        """Return 48 hexadecimal digits at random, no 16 of them all zero."""
        names = self._names
        if not names:
            block = b""
            # All zero is no id (W3C Trace Context, 3.2.2.3 and 3.2.2.4).
            while not block or _ZEROS in block:
                block = hexlify(self.random(_NAMES * _DIGITS // 2))
            names += [block[at : at + _DIGITS] for at in range(0, len(block), _DIGITS)]
        return names.pop()

    def measure(self) -> Iterator[Sample]:
        """Yield what is open, and what is done with it."""
        active = sum(front.current is not None for front in self.fronts)
        yield ACTIVE, (), active
        yield CONNECTIONS, ("active",), active
        waiting = sum(front.is_waiting for front in self.fronts)
        yield CONNECTIONS, ("waiting",), waiting
        yield CONNECTIONS, ("idle",), len(self.fronts) - active - waiting
        yield CONNECTIONS, ("handshake",), len(self._handshakes)
        yield CONNECTIONS_REFUSED, (), self._refused
        for pool in self.pools.values():
            yield from pool.measure()

    # Inside

    def _cut_off(self, grace: float) -> None:
        in_hand = [front.current for front in self.fronts if front.current is not None]
        for each in in_hand:
            each.failure = each.failure or "gateway.stopped"
        if in_hand:
            logger.warning(
                "%d requests were cut off, %g s after the last one was accepted",
                len(in_hand),
                grace,
            )

    def _count(self, one: Front | Handshake, address: str) -> Peer | None:
        server = self.gate.server
        count = len(self.fronts) + len(self._handshakes)
        if count >= server.max_connections or self.is_ending:
            self._refused += 1
            return None
        peer = peer_of(address, server.trusted_proxies)
        whom = "" if peer.trusted else household(peer.address)
        if whom:
            if self._per_peer[whom] >= server.max_connections_per_peer:
                self._refused += 1
                return None
            self._per_peer[whom] += 1
            self._counted[one] = whom
        return peer

    def _count_off(self, one: Front | Handshake) -> None:
        whom = self._counted.pop(one, None)
        if whom is not None:
            self._per_peer[whom] -= 1
            if not self._per_peer[whom]:
                del self._per_peer[whom]

    def _sweep(self) -> None:
        now = self.clock.monotonic()
        for pool in self.pools.values():
            try:
                pool.tick(now)
            except Exception:
                # Nobody's deadline must depend on it.
                logger.exception("upstream %s is not looked after", pool.upstream.name)
        for pool in self.pools.values():
            for one in [each for each in pool.connections if each.deadline <= now]:
                _expire(one, now)
        self.streams.expire(self.clock.wall())
        late, lasting, before = [], [], now - SWEEP
        for front in self.fronts:
            if front.deadline <= now:
                late.append(front)
            current = front.current
            if (
                current is not None
                and current.started <= before
                and not current.is_listed
            ):
                lasting.append(current)
        # Who opens thousands at once lets them be late at once, and everybody else
        # would wait until the last of them has its answer.
        for front in late:
            self._in_turn(partial(self._end, front, now))
        self._in_turn(partial(self._enlist, lasting))

    def _in_turn(self, work: Callable[[], None]) -> None:
        if self.precedence.take(work, self.monotonic()):
            work()

    def _end(self, front: Front, now: float) -> None:
        # It may have gone, or gone on, since it was found late.
        if front in self.fronts and front.deadline <= now:
            _expire(front, now)

    def _enlist(self, lasting: list[Exchange]) -> None:
        """Enter what lasts, some in each turn; then wait for the next sweep."""
        for one in lasting[-LISTED_AT_ONCE:]:
            try:
                one.enlist()
            except Exception:
                logger.exception("request %s is not listed", one.request_id)
        del lasting[-LISTED_AT_ONCE:]
        if self._sweep_timer is None:  # the port was closed meanwhile
            return
        loop = asyncio.get_running_loop()
        if lasting:
            self._sweep_timer = loop.call_soon(self._enlist, lasting)
        else:
            self._sweep_timer = loop.call_later(SWEEP, self._sweep)


def _in_the_next_turn(work: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(work)


class _Expiring(Protocol):
    """What the sweeper ends."""

    def expire(self, now: float) -> None: ...


def _expire(one: _Expiring, now: float) -> None:
    try:
        one.expire(now)
    except Exception:
        # The others' deadlines must not depend on this one.
        logger.exception("a deadline could not be kept")

"""A data port with both its sides in memory, one event after the other.

No loop, no socket, no clock: what happens next is chosen by who drives it, and the same
choices give the same run. Transports keep what was written to them; bytes, coroutines
and farewells wait in one queue until `run` lets them happen.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from gateway.clock import Clock
from gateway.config.settings import Address, Server, Timeouts, Upstream, UpstreamUrl
from gateway.decision import Pending
from gateway.identity.signer import Signed
from gateway.model import (
    ANONYMOUS,
    NOTHING,
    Denial,
    Headers,
    Permit,
    Principal,
    Reason,
    RequestHead,
    RevocationNeeded,
    Route,
    Steps,
)
from gateway.observe.access import Entry
from gateway.proxy.front import Front
from gateway.proxy.gate import Gate
from gateway.proxy.pool import Pool
from gateway.proxy.precedence import Precedence
from gateway.proxy.server import DataPort
from gateway.proxy.upstream import Endpoint, UpstreamConnection
from gateway.wire.headers import Hygiene
from tests.fuzz import strict

NOW = 1_790_000_000.0
MAX_HEAD = 1024  # small, so that a fuzzer reaches it
MAX_HEADERS = 20
MAX_BODY = 300
ALICE = Principal("user", "corp", "alice")
ROUTE = Route("any", "test", "backend", "require", max_body=MAX_BODY)
PUBLIC = Route("public", "test", "backend", "public", pass_credentials=True)
ASSERTION = b"x-gateway-assertion"
PEER = "192.0.2.7"


class _Turn:
    """What a coroutine awaits to let others go first."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Transport(asyncio.Transport):
    """One end of a connection, and all that was written to it."""

    def __init__(
        self,
        world: World,
        protocol: Front | UpstreamConnection,
        hear: Callable[[], None],
    ) -> None:
        super().__init__({"peername": (PEER, 50_000)})
        self.world = world
        self.protocol = protocol
        self.written = bytearray()
        self.is_aborted = False
        self.is_paused = False  # the product reads no more for now
        self.is_full = False  # the product was told to write no more for now
        self._is_closing = False
        self._has_eof = False
        self._is_lost = False
        self._hear = hear
        self._unread: deque[bytes] = deque()

    # The product's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._has_eof, "written behind an end of file"
        assert data, "nothing, written"
        if not self._is_closing:
            self.written += data
            self._hear()

    def write_eof(self) -> None:
        self._has_eof = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 1 if self.is_full else 0

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False
        if self._unread:
            self.world.later(self._catch_up)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.world.later(self.lose)

    def abort(self) -> None:
        self.is_aborted = True
        self.close()

    # The other side

    @property
    def is_open(self) -> bool:
        return not (self._is_closing or self._is_lost)

    def hear(self, data: bytes) -> None:
        """Let *data* arrive."""
        if not data:
            return
        if self.is_paused or self._unread:
            self._unread.append(data)
        elif self.is_open:
            self.protocol.data_received(data)

    def _catch_up(self) -> None:
        while self._unread and not self.is_paused:
            data = self._unread.popleft()
            if self.is_open:
                self.protocol.data_received(data)

    def end(self) -> None:
        """Let the other side close in order, behind all that it has said."""
        if self.is_open and not self._unread:
            self.protocol.eof_received()
            self.close()

    def lose(self, error: Exception | None = None) -> None:
        """Let the connection be gone."""
        self._is_closing = True
        if not self._is_lost:
            self._is_lost = True
            self.protocol.connection_lost(error)

    def fill(self) -> None:
        """Say that nobody takes what is written."""
        if self.is_open and not self.is_full:
            self.is_full = True
            self.protocol.pause_writing()

    def drain(self) -> None:
        """Say that all of it was taken."""
        if self.is_full:
            self.is_full = False
            if not self._is_lost:
                self.protocol.resume_writing()


Behaviour = Callable[["Upstreams", "Line", strict.Message], None]


class Line:
    """One connection to the backend, read strictly."""

    def __init__(self, upstreams: Upstreams, connection: UpstreamConnection) -> None:
        self.transport = Transport(upstreams.world, connection, self._hear)
        self.requests: list[strict.Message] = []  # whole ones
        self._upstreams = upstreams
        self._read = 0

    @property
    def reading(self) -> strict.Reading:
        """All that came by it, read from the first byte on."""
        return strict.requests(bytes(self.transport.written))

    def _hear(self) -> None:
        fresh = strict.requests(bytes(self.transport.written[self._read :]))
        for request in fresh.messages:
            if request.whole:
                self.requests.append(request)
                self._upstreams.behave(self._upstreams, self, request)
        self._read = len(self.transport.written) - len(fresh.rest)

    def say(self, data: bytes) -> None:
        """Answer, when its turn comes."""
        self._upstreams.world.later(lambda: self.transport.hear(data))

    def close(self) -> None:
        """Close, behind what was said."""
        self._upstreams.world.later(self.transport.end)


class Upstreams(Pool):
    """The connections to a backend in memory."""

    def __init__(self, world: World, upstream: Upstream, behave: Behaviour) -> None:
        super().__init__(upstream, world.clock, world._spawn)
        self.world = world
        self.behave = behave
        self.lines: list[Line] = []

    async def connect(
        self, *, fresh: bool = False, rather_not: Endpoint | None = None
    ) -> UpstreamConnection:
        await _Turn()
        connection = UpstreamConnection(self.endpoints[0])
        line = Line(self, connection)
        self.lines.append(line)
        connection.connection_made(line.transport)
        return connection


class _Waiting(Precedence):
    """Lets whatever has to be read wait where the world is busy."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock.monotonic, world.later)
        self._world = world

    def take(self, work: Callable[[], None], now: float) -> bool:
        if self._world.is_busy:
            self._world.later(work)
        return not self._world.is_busy


class World:
    """A data port, one client, one backend.

    Paths that begin with `/denied` are refused, `/wait` is permitted or refused after a
    question, `/public` is a public route; all else is permitted.
    """

    def __init__(self, behave: Behaviour, *, hygiene: Hygiene | None = None) -> None:
        self.now = 1000.0
        self.clock = Clock(lambda: NOW + self.now, lambda: self.now)
        self.entries: list[Entry] = []
        self.permits: list[tuple[Permit, RequestHead]] = []
        self.sent: list[tuple[str, RequestHead]] = []  # by request id, in their order
        self._events: deque[Callable[[], None]] = deque()
        self._random = 0
        url = UpstreamUrl(Address("192.0.2.9", 80), "backend")
        upstream = Upstream("backend", (url,), timeout=Timeouts())
        gate = Gate(
            server=Server(max_head=MAX_HEAD, max_headers=MAX_HEADERS),
            decide_now=self._decide,
            finish=self._finish,
            hygiene=hygiene or Hygiene(),
            identity=self._identity,
            upstreams={"backend": upstream},
            log=self.entries.append,
        )
        self.port = DataPort(gate, self.clock, self._spawn, self._bytes)
        self.is_busy = False  # whatever has to be read waits
        self.port.precedence = _Waiting(self)
        self.upstreams = Upstreams(self, upstream, behave)
        self.port.pools = {"backend": self.upstreams}
        self.enter()

    def enter(self) -> None:
        """Let a client come, in place of the last one."""
        self.front = Front(self.port)
        self.client = Transport(self, self.front, lambda: None)
        self.front.connection_made(self.client)

    def leave_client(self) -> None:
        """Let the client go away, if it is still there."""
        self.client.lose(ConnectionResetError())
        self.run()

    # Events

    def later(self, event: Callable[[], None]) -> None:
        """Let *event* happen when its turn comes."""
        self._events.append(event)

    def run(self, count: int = 100_000) -> None:
        """Let what waits happen, *count* events of it."""
        while self._events and count:
            count -= 1
            self._events.popleft()()
        assert count, "it never comes to rest"

    def step(self, count: int) -> None:
        """Let at most *count* events happen."""
        for _ in range(min(count, len(self._events))):
            self._events.popleft()()

    def wait(self, seconds: float) -> None:
        """Let time pass, and the sweeper look at the deadlines."""
        self.now += seconds
        for front in [one for one in self.port.fronts if one.deadline <= self.now]:
            front.expire(self.now)
        for one in list(self.upstreams.connections):
            if one.deadline <= self.now:
                one.expire(self.now)
        self.run()

    def leave(self) -> None:
        """Let the client go away, and everything end."""
        self.leave_client()
        self.wait(10_000)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> object:
        def step() -> None:
            try:
                work.send(None)
            except StopIteration:
                return
            self.later(step)

        self.later(step)
        return work

    def _bytes(self, size: int) -> bytes:
        self._random += 1
        return hashlib.shake_128(b"%d" % self._random).digest(size)

    # The decision

    def _decide(self, head: RequestHead, now: float) -> Permit | Denial | Pending:
        first = head.segments[0] if head.segments else ""
        if first == "denied":
            return Denial(Reason.CREDENTIAL_MISSING, route=ROUTE)
        if first == "wait":
            steps = self._steps(head)
            return Pending(next(steps), steps)
        return self._permit(head)

    def _steps(self, head: RequestHead) -> Steps[Permit | Denial]:
        is_revoked = yield RevocationNeeded(ALICE)
        if is_revoked:
            return Denial(Reason.TOKEN_REVOKED, route=ROUTE, principal=ALICE)
        return self._permit(head)

    def _finish(self, pending: Pending) -> Awaitable[Permit | Denial]:
        async def finish() -> Permit | Denial:
            await _Turn()
            try:
                pending.steps.send(len(self.permits) % 3 == 2)
            except StopIteration as end:
                outcome: Permit | Denial = end.value
                return outcome
            raise AssertionError

        return finish()

    def _permit(self, head: RequestHead) -> Permit:
        is_public = bool(head.segments) and head.segments[0] == "public"
        route, principal = (PUBLIC, ANONYMOUS) if is_public else (ROUTE, ALICE)
        permit = Permit(route, NOTHING, principal, 0, "backend", head.target)
        self.permits.append((permit, head))
        return permit

    def _identity(
        self, permit: Permit, head: RequestHead, request_id: bytes, now: float
    ) -> Signed | Denial:
        assert any(head is asked for _, asked in self.permits), "sent, not permitted"
        self.sent.append((request_id.decode(), head))
        # Never again: each request has to come by here.
        return Signed(identity(permit), now, -math.inf)


def identity(permit: Permit) -> Headers:
    """Say who it is in a header, unsigned."""
    if permit.principal is ANONYMOUS:
        return ()
    return ((ASSERTION, permit.principal.subject.encode()),)

"""Connections to one endpoint: kept, lent to one request at a time, never shared.

A connection goes back to its endpoint only when it is beyond doubt that the next answer
on it belongs to the next request: the request was sent whole, the answer ended, and not
a byte came after it (R31). Everything else is closed, also whatever was in use when its
client went away or a deadline passed (R32). Retries are the exchange's affair (R34).

RFC 9112 sections 6 and 9. httptools can't be told that a request was a HEAD: such an
answer is ended here when its head ends, and its parser is not used again.

Imports: gateway.clock, gateway.config.settings, gateway.model, gateway.proxy,
gateway.wire; httptools.
"""

from __future__ import annotations

import asyncio
import os
import select
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar, cast

import httptools

from gateway.clock import Clock
from gateway.config.settings import Address, Upstream
from gateway.model import Headers
from gateway.proxy.health import GATEWAY_ERRORS, Health
from gateway.proxy.trust import Trust, said_goodbye
from gateway.wire.framing import Body, check_response
from gateway.wire.problems import UpstreamFailure

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)

NEVER = float("inf")
MAX_HEAD = 64 * 1024  # bytes of a response head, and of trailers nobody reads (R35)
# Seconds for which an endpoint that ended an idle connection is given nothing on a
# kept one that may not be sent twice: it has shown that it does so when it likes.
UNSTEADY = 60.0
MAX_KNOWN = 256  # heads of answers kept for an upstream
MAX_KNOWN_BYTES = 4096  # of one; 1 MiB in all
# Encrypted bytes that may wait for a slow upstream, as many as a plain connection has;
# the default for TLS is 512 KiB.
_WRITE_BUFFER = 64 * 1024
_END = b"\r\n\r\n"
# Answers whose heads are not kept: some have no body whatever they declare, others
# are looked at each time.
_UNKEPT = frozenset({204, 304}) | GATEWAY_ERRORS
_SWITCHING = 101
_FIRST_FINAL = 200


class KnownAnswer:
    """What the head of an answer was read as, for when the same bytes come again.

    Only heads that are followed by exactly the body that they declare, on a connection
    that goes on.
    """

    __slots__ = ("head", "headers", "length", "lines", "size", "status")

    def __init__(self, status: int, headers: Headers, length: int) -> None:
        self.status = status
        self.headers = headers
        self.length = length  # of the body, in bytes
        self.head = b""  # by KnownAnswers: its bytes
        self.size = 0  # thereof with the body
        # By the exchange: the head for a client, without and with Vary.
        self.lines: list[bytes | None] = [None, None]


class KnownAnswers(dict[bytes, KnownAnswer]):
    """The heads of answers that an upstream has given, by their bytes."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        super().__init__()
        self.last: KnownAnswer | None = None  # the one that came last

    def learn(self, data: bytes, known: KnownAnswer) -> None:
        """Keep what the head of *data*, which is one whole answer, was read as."""
        end = data.find(_END) + len(_END)
        if end > MAX_KNOWN_BYTES or len(data) - end != known.length:
            return
        if len(self) >= MAX_KNOWN:
            self.clear()
        known.head, known.size = data[:end], len(data)
        self[known.head] = known


class UpstreamFailed(Exception):  # noqa: N818  (named as its enum is)
    """There is no connection to be had."""

    def __init__(self, kind: UpstreamFailure) -> None:
        super().__init__(kind.name)
        self.kind = kind


class _BrokenAnswer(Exception):  # noqa: N818
    """The upstream sent something that can't be read in one way only."""


class _Surplus(Exception):  # noqa: N818
    """Bytes came after the answer."""


class Sink(Protocol):
    """Where an answer goes: the exchange."""

    def on_interim(self, status: int) -> None: ...
    def on_answer(
        self, status: int, headers: Headers, body: Body, now: float
    ) -> None: ...
    def on_content(self, content: bytes) -> None: ...
    def on_progress(self) -> None:
        """Learn that one read has been delivered."""
        ...

    def on_end(self, now: float) -> None: ...
    def on_known(self, known: KnownAnswer, content: bytes, now: float) -> None:
        """Learn that the answer is *content* under a head that is known."""
        ...

    def on_failure(self, kind: UpstreamFailure, *, unanswered: bool) -> None:
        """Learn that no (further) answer comes.

        Args:
            kind: How it failed.
            unanswered: A connection that had served before ended without one byte.
        """
        ...

    def on_bug(self, error: BaseException | None) -> None: ...
    def on_upstream_full(self) -> None: ...
    def on_upstream_drained(self) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to an upstream."""

    transport: asyncio.Transport
    sink: Sink | None = None
    deadline: float = NEVER  # monotonic seconds; read by the sweeper
    _parser: httptools.HttpResponseParser | None = None
    _method = b""  # of the request in hand
    uses = 0  # requests
    _answered = False  # a byte of the answer came
    _has_parsed = False  # what follows is of an earlier answer
    _in_head = True
    _headers: list[tuple[bytes, bytes]]
    _unread = 0  # bytes since the head began, or since the last byte of content
    _delivered = False  # the read in hand had content
    _until_close = False
    _end_is_said = False  # and not only that the connection is no more
    _complete = False
    _stale = False  # the parser stopped in the middle of something
    _reusable = False
    _now = 0.0  # monotonic seconds, of the read in hand
    _request_sent = False
    _total_at: float = NEVER
    _is_plain = False  # the answer is one that has a body, and came alone
    _known: KnownAnswer | None = None  # what its head was read as
    _is_patient = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._health = endpoint.health
        self._out: list[bytes] = []
        # What each request looks at is looked up faster here than in the class.
        self.sink = None
        self.uses = 0
        self._answered = self._has_parsed = self._request_sent = False
        self._answers = endpoint.known_answers
        self._monotonic = endpoint.clock.monotonic
        self._timeout = endpoint.upstream.timeout
        self._total = endpoint.upstream.timeout.total
        self._first_byte = endpoint.upstream.timeout.first_byte

    # The exchange's side

    def lend(self, sink: Sink, method: bytes, head: bytes, now: float) -> None:
        """Give this connection to *sink* until its answer has ended.

        Args:
            sink: Where the answer goes.
            method: Of the request.
            head: Of the request; written with the next flush.
            now: Monotonic seconds.
        """
        self._lent(sink, method)
        self._request_sent = False
        self._out.append(head)
        total = self._total
        self.deadline = NEVER
        if total is not None:
            self.deadline = self._total_at = now + total

    def ask(self, sink: Sink, method: bytes, head: bytes, now: float) -> None:
        """Lend this connection for a request that is *head* and nothing else."""
        self._lent(sink, method)
        self._request_sent = True
        self.transport.write(head)
        total = self._total
        self.deadline = now + self._first_byte
        if total is not None:
            self._total_at = now + total
            self._wait(self.deadline)

    def _lent(self, sink: Sink, method: bytes) -> None:
        self.sink = sink
        self.uses += 1
        self._method = method
        self._answered = False
        if self._has_parsed:
            self._has_parsed = self._complete = self._until_close = False
            self._known = None
            self._in_head = True
            if self._is_patient:
                self._is_patient = False
                self._timeout = self.endpoint.upstream.timeout
                self._first_byte = self._timeout.first_byte

    def be_patient(self) -> None:
        """Let the answer that is due take its time, from the first byte to the last."""
        self._is_patient = self._has_parsed = True  # looked at when it is lent again
        self._timeout = replace(self._timeout, first_byte=NEVER, idle=NEVER)
        self._first_byte = NEVER
        self._wait(NEVER)

    def count_from(self, began: float) -> None:
        """Let the total time have begun at *began* (monotonic seconds).

        To wait for a connection, or for one that failed, is a part of the exchange.
        """
        total = self._timeout.total
        if total is not None:
            self._total_at = began + total
            self._wait(self.deadline)

    def send(self, data: bytes) -> None:
        """Add *data* to what the next flush writes."""
        self._out.append(data)

    def request_sent(self, now: float) -> None:
        """Write the end of the request: the answer is due."""
        self._request_sent = True
        self.flush()
        if self._in_head:
            self._wait(now + self._first_byte)

    def flush(self) -> None:
        """Write what was added, in one piece."""
        out = self._out
        if out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def pause(self) -> None:
        """Read no more for now; the upstream is not to blame for the silence."""
        self.transport.pause_reading()
        self._wait(NEVER)

    def resume(self) -> None:
        """Read on."""
        self.transport.resume_reading()
        self._wait(self._monotonic() + self._timeout.idle)

    def drop(self) -> None:
        """Close at once, and tell nobody (R32)."""
        self.sink = None
        self.transport.abort()

    def is_quiet(self) -> bool:
        """Tell whether nothing waits to be read: no end, no answer to no question.

        The loop would learn of it in its next turn; this asks the system now.
        """
        sock = self.transport.get_extra_info("socket")
        if sock is None:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    # The sweeper's side

    def expire(self, now: float) -> None:
        """End a wait that was too long."""
        sink = self.sink
        self.endpoint.leave(self)
        self.drop()
        if sink is not None:
            # A client that is slow to send is not the endpoint's failure.
            is_due = self._request_sent or self.deadline < self._total_at
            if self._in_head and is_due:
                self._health.failed(now)
            sink.on_failure(UpstreamFailure.TIMED_OUT, unanswered=False)

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.endpoint.joined(self)

    def data_received(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:
            # Nobody asked: an answer to no request, or to one that is over (R31).
            self.endpoint.leave(self)
            self.transport.abort()
            return
        is_first = not self._answered
        if is_first:
            answers = self._answers
            known = answers.last
            if known is None or not data.startswith(known.head):
                known = answers.get(data[: data.find(_END) + 4])
            if known is not None and self._is_whole(known, data):
                now = self._monotonic()
                answers.last = known
                self.sink = None
                if self._health.failures:
                    self._health.answered()
                self.endpoint.give(self, now)
                try:
                    sink.on_known(known, data[len(known.head) :], now)
                except Exception as error:  # noqa: BLE001  (whoever waits must be told)
                    sink.on_bug(error)
                return
            self._begin()
        now = self._now = self._monotonic()
        try:
            room = MAX_HEAD - self._unread
            if self._in_head and len(data) > room:
                self._feed(data[:room])
                data = data[room:]
            self._feed(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                self._fail(sink, error)
                return
            # Whatever follows a whole answer spoils the connection, not the answer.
            self._reusable = False
            self._stale = True
        except httptools.HttpParserUpgrade:
            self._fail(sink, None)
            return
        except _BrokenAnswer as error:
            self._fail(sink, error)
            return
        if not self._complete:
            # In the head its time runs on: a byte now and then is no answer. And where
            # the request is not whole, it is the client's turn, whose time is limited.
            if not self._in_head:
                self._wait(now + self._timeout.idle)
            try:
                sink.on_progress()
            except Exception as error:  # noqa: BLE001  (whoever waits must be told)
                self.endpoint.leave(self)
                self.drop()
                sink.on_bug(error)
            return
        self.sink = None
        if (
            self._reusable
            and self._request_sent
            and not self.transport.get_write_buffer_size()
        ):
            self.endpoint.give(self, now)
            if is_first and self._known is not None:
                self._answers.learn(data, self._known)
        else:
            self.transport.abort()
        try:
            sink.on_end(now)
        except Exception as error:  # noqa: BLE001  (whoever waits must be told)
            sink.on_bug(error)

    def _begin(self) -> None:
        """Make ready to parse the answer."""
        if self._parser is None or self._stale:
            self._parser = httptools.HttpResponseParser(self)
            self._stale = False
        self._answered = self._has_parsed = True
        self._is_plain = self._method != b"HEAD"
        self._headers = []
        self._unread = 0

    def _is_whole(self, known: KnownAnswer, data: bytes) -> bool:
        """Tell whether *data*, which begins with a *known* head, is all there is."""
        return (
            len(data) == known.size
            and self._request_sent
            and self._method != b"HEAD"
            and not self.transport.get_write_buffer_size()
        )

    def eof_received(self) -> None:
        """Let the transport close itself; connection_lost follows."""
        if self.sink is None:
            self.endpoint.ended_early(self._monotonic())
        elif self._until_close:
            secure = self.transport.get_extra_info("ssl_object")
            self._end_is_said = secure is None or said_goodbye(secure)

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.left(self)
        sink, self.sink = self.sink, None
        self._parser = None  # it holds us as we hold it
        if sink is None:
            if exc is not None:
                self.endpoint.ended_early(self._monotonic())
            return
        if self._until_close and self._end_is_said and exc is None:
            sink.on_end(self._monotonic())
        else:
            unanswered = self.uses > 1 and not self._answered
            if unanswered:
                self.endpoint.ended_early(self._monotonic())
            if self._in_head and not unanswered:
                self._health.failed(self._monotonic())
            sink.on_failure(UpstreamFailure.BROKE, unanswered=unanswered)

    def pause_writing(self) -> None:
        self._wait(self._monotonic() + self._timeout.send_idle)
        if self.sink is not None:
            self.sink.on_upstream_full()

    def resume_writing(self) -> None:
        if self.sink is None:
            return
        if not self._in_head:
            self._wait(self._monotonic() + self._timeout.idle)
        elif self._request_sent:
            self._wait(self._monotonic() + self._first_byte)
        else:
            self._wait(NEVER)
        self.sink.on_upstream_drained()

    # The parser's side

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Surplus

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser, sink = self._parser, self.sink
        if parser is None or sink is None or self._complete:
            raise _Surplus
        status = parser.get_status_code()
        if status < _FIRST_FINAL:
            # The parser takes 020 for a final status and reads a body behind it, which
            # would stand on the client's wire without a head of ours.
            if status == _SWITCHING or (
                check_response(
                    self._method,
                    status,
                    parser.get_http_version(),
                    tuple(self._headers),
                )
                is None
            ):
                raise _BrokenAnswer
            self._headers = []
            self._is_plain = False
            sink.on_interim(status)
            return
        headers = tuple(self._headers)
        body = check_response(self._method, status, parser.get_http_version(), headers)
        if body is None:
            raise _BrokenAnswer
        self._in_head = False
        self._headers = []  # trailers go here, and from here nowhere (R14)
        self._unread = 0
        self._reusable = parser.should_keep_alive()
        self._until_close = body.until_close
        if status in GATEWAY_ERRORS:
            self._health.failed(self._now)
        elif self._health.failures:
            self._health.answered()
        if self._is_plain and body.length is not None and status not in _UNKEPT:
            self._known = KnownAnswer(status, headers, body.length)
        sink.on_answer(status, headers, body, self._now)
        if self._method == b"HEAD":
            self._complete = self._stale = True

    def on_body(self, content: bytes) -> None:
        sink = self.sink
        if sink is None or self._complete:
            raise _Surplus
        if self._in_head:  # of an answer whose head was not passed on
            raise _BrokenAnswer
        self._delivered = True
        sink.on_content(content)

    def on_message_complete(self) -> None:
        if self._in_head:  # an interim answer: the final one is to come
            return
        if self._complete:
            self._stale = False  # a HEAD's answer that ended where we ended it
        self._complete = True

    # Inside

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        self._delivered = False
        parser.feed_data(data)
        if self._complete:
            return
        # Chunk extensions and trailers are as endless as heads, if one lets them.
        self._unread = 0 if self._delivered else self._unread + len(data)
        if self._unread >= MAX_HEAD:
            raise _BrokenAnswer

    def _fail(self, sink: Sink, error: Exception | None) -> None:
        cause = error.__context__ if error is not None else None
        self.endpoint.leave(self)
        self.drop()
        is_bug = isinstance(error, httptools.HttpParserCallbackError)
        if is_bug and not isinstance(cause, _BrokenAnswer | _Surplus):
            sink.on_bug(cause)
        else:
            if self._in_head:
                self._health.failed(self._now)
            sink.on_failure(UpstreamFailure.BROKE, unanswered=False)

    def _wait(self, until: float) -> None:
        total = self._total_at
        # Not min(): this runs three times for each request.
        self.deadline = until if until < total else total  # noqa: FURB136


class Home(Protocol):
    """What an endpoint needs of the pool that it is one of."""

    upstream: Upstream
    clock: Clock
    known_answers: KnownAnswers
    connections: set[UpstreamConnection]  # of all its endpoints: lent and idle
    connecting: int
    tls: Trust | None


class Endpoint:
    """One place to connect to, and the connections to it.

    Last in, first out: the warmest is used, and the surplus ages away.

    Args:
        pool: What it shares with the other endpoints of its upstream.
        address: An IP address and a port, or a Unix socket.
        authority: What it is called in a Host field.
        server_name: Who it has to be, by its certificate; "": there is no TLS.
        health: What is known of it.
    """

    def __init__(
        self,
        pool: Home,
        address: Address,
        authority: str,
        server_name: str,
        health: Health,
    ) -> None:
        self.clock = pool.clock
        self.upstream = pool.upstream
        self.known_answers = pool.known_answers
        self.address = address
        self.authority = authority
        self.health = health
        self.check_at = 0.0  # monotonic seconds, by the pool
        self.trouble = ""  # why the last connection did not open; for the log
        self.is_retired = False
        self.connecting = 0
        self.connected = 0  # connections, since it is known
        self._keep_alive = pool.upstream.keep_alive
        self._max_idle = pool.upstream.max_idle
        self._server_name = server_name
        self._pool = pool
        self._connections: set[UpstreamConnection] = set()  # lent and idle
        self._idle: list[UpstreamConnection] = []
        self._ended_early_at = -NEVER
        self._served = 0  # requests, by connections that are no more

    # What it has

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return len(self._idle)

    @property
    def in_flight(self) -> int:
        """Requests that wait for a connection, or for their answer on one."""
        return len(self._connections) - len(self._idle) + self.connecting

    @property
    def requests(self) -> int:
        """Requests that were sent to it."""
        return self._served + sum(one.uses for one in self._connections)

    # Lending

    def take(self, now: float) -> UpstreamConnection | None:
        """Return an idle connection, if there is one that may still be used."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.deadline > now and not connection.transport.is_closing():
                return connection
            connection.drop()
        return None

    async def open(
        self, make: Callable[[Endpoint], ProtocolT], *, again: bool = False
    ) -> ProtocolT:
        """Open a connection that speaks what *make* makes.

        Args:
            make: Makes its protocol.
            again: A second time at once, where the first one was refused: a listener
                that is being replaced refuses for a moment.

        Raises:
            UpstreamFailed: Refused, or too slow.
        """
        self.connecting += 1
        self._pool.connecting += 1
        try:
            async with asyncio.timeout(self.upstream.timeout.connect):
                try:
                    _, connection = await self.reach(lambda: make(self))
                except OSError:
                    if not again:
                        raise
                    _, connection = await self.reach(lambda: make(self))
        except TimeoutError as error:
            self.trouble = "it took too long to connect"
            raise UpstreamFailed(UpstreamFailure.TIMED_OUT) from error
        except OSError as error:
            self.trouble = _words(error)
            raise UpstreamFailed(UpstreamFailure.REFUSED) from error
        finally:
            self.connecting -= 1
            self._pool.connecting -= 1
        self.connected += 1
        self.trouble = ""
        return connection

    async def reach(
        self, factory: Callable[[], ProtocolT]
    ) -> tuple[asyncio.WriteTransport, ProtocolT]:
        """Open a connection for whatever *factory* makes.

        Raises:
            OSError: It was refused, or the other side is not who it should be.
        """
        loop = asyncio.get_running_loop()
        address = self.address
        if address.path:
            return await loop.create_unix_connection(factory, address.path)
        trust = self._pool.tls
        if not self._server_name or trust is None:
            return await loop.create_connection(factory, address.host, address.port)
        transport, protocol = await loop.create_connection(
            factory,
            address.host,
            address.port,
            ssl=trust.context,
            server_hostname=self._server_name,
        )
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        return transport, protocol

    def is_steady(self, now: float) -> bool:
        """Tell whether it leaves idle connections to us (monotonic seconds)."""
        return now - self._ended_early_at > UNSTEADY

    def ended_early(self, now: float) -> None:
        """Note that it has ended a connection that we would still have used."""
        self._ended_early_at = now

    def put_back(self, connection: UpstreamConnection) -> None:
        """Take back a connection as it was taken."""
        self._idle.append(connection)

    def give(self, connection: UpstreamConnection, now: float) -> None:
        """Take back a connection on which nothing is left to come."""
        idle = self._idle
        if self.is_retired or len(idle) >= self._max_idle:
            connection.drop()
            return
        connection.deadline = now + self._keep_alive
        idle.append(connection)

    def leave(self, connection: UpstreamConnection) -> None:
        """Lend *connection* no more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def joined(self, connection: UpstreamConnection) -> None:
        """Note that *connection* is open."""
        self._connections.add(connection)
        self._pool.connections.add(connection)

    def left(self, connection: UpstreamConnection) -> None:
        """Note that *connection* is no more."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._pool.connections.discard(connection)
            self._served += connection.uses
            self.leave(connection)

    def yield_one(self) -> bool:
        """Close the coldest idle connection, if there is one: another one is wanted."""
        if not self._idle:
            return False
        connection = self._idle[0]
        self.left(connection)
        connection.drop()
        return True

    def retire(self) -> None:
        """Keep nothing any more; what is lent is closed when it comes back."""
        self.is_retired = True
        while self._idle:
            self._idle.pop().drop()


def _words(error: OSError) -> str:
    """Say why a connection did not open, in a library's words and nobody else's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason}"
    return os.strerror(error.errno) if error.errno else type(error).__name__

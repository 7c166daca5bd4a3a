"""Connections to one upstream: kept, lent to one request at a time, never shared.

A connection goes back to the pool only when it is beyond doubt that the next answer on
it belongs to the next request: the request was sent whole, the answer ended, and not a
byte came after it (R31). Everything else is closed, also whatever was in use when its
client went away or a deadline passed (R32). Retries are the exchange's affair (R34).

RFC 9112 sections 6 and 9. httptools can't be told that a request was a HEAD: such an
answer is ended here when its head ends, and its parser is not used again.

Imports: gateway.clock, gateway.config.settings, gateway.observe.metrics,
gateway.wire; httptools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol, cast

import httptools

from gateway.clock import Clock
from gateway.config.settings import Upstream
from gateway.model import Headers
from gateway.observe.metrics import UPSTREAM_CONNECTIONS, Sample
from gateway.wire.framing import Body, check_response
from gateway.wire.problems import UpstreamFailure

NEVER = float("inf")
MAX_HEAD = 64 * 1024  # bytes of a response head, and of trailers nobody reads (R35)
MAX_KNOWN = 256  # heads of answers kept for an upstream
MAX_KNOWN_BYTES = 4096  # of one; 1 MiB in all
_END = b"\r\n\r\n"
_BODILESS = frozenset({204, 304})
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
        self.head = b""  # by the pool: its bytes
        self.size = 0  # thereof with the body
        # By the exchange: the head for a client, without and with Vary.
        self.lines: list[bytes | None] = [None, None]


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
    _uses = 0
    _answered = False  # a byte of the answer came
    _has_parsed = False  # what follows is of an earlier answer
    _in_head = True
    _headers: list[tuple[bytes, bytes]]
    _unread = 0  # bytes since the head began, or since the last byte of content
    _delivered = False  # the read in hand had content
    _until_close = False
    _complete = False
    _stale = False  # the parser stopped in the middle of something
    _reusable = False
    _now = 0.0  # monotonic seconds, of the read in hand
    _request_sent = False
    _total_at: float = NEVER
    _is_plain = False  # the answer is one that has a body, and came alone
    _known: KnownAnswer | None = None  # what its head was read as

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._out: list[bytes] = []
        # What each request looks at is looked up faster here than in the class.
        self.sink = None
        self._uses = 0
        self._answered = self._has_parsed = self._request_sent = False
        self._monotonic = pool.clock.monotonic
        self._timeout = pool.upstream.timeout
        self._total = pool.upstream.timeout.total
        self._first_byte = pool.upstream.timeout.first_byte

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
        self._uses += 1
        self._method = method
        self._answered = False
        if self._has_parsed:
            self._has_parsed = self._complete = self._until_close = False
            self._known = None
            self._in_head = True

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

    # The sweeper's side

    def expire(self, now: float) -> None:  # noqa: ARG002
        """End a wait that was too long."""
        sink = self.sink
        self._pool.leave(self)
        self.drop()
        if sink is not None:
            sink.on_failure(UpstreamFailure.TIMED_OUT, unanswered=False)

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._pool.joined(self)

    def data_received(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:
            # Nobody asked: an answer to no request, or to one that is over (R31).
            self._pool.leave(self)
            self.transport.abort()
            return
        is_first = not self._answered
        if is_first:
            known = self._pool.last_answer
            if known is None or not data.startswith(known.head):
                known = self._pool.known_answers.get(data[: data.find(_END) + 4])
            if known is not None and self._is_whole(known, data):
                now = self._monotonic()
                pool = self._pool
                pool.last_answer = known
                self.sink = None
                pool.give(self, now)
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
            if not self._in_head:
                self._wait(now + self._timeout.idle)
            elif self._request_sent:
                self._wait(now + self._first_byte)
            # Else it is an interim answer, and the client's turn: its time is limited.
            try:
                sink.on_progress()
            except Exception as error:  # noqa: BLE001  (whoever waits must be told)
                self._pool.leave(self)
                self.drop()
                sink.on_bug(error)
            return
        self.sink = None
        if (
            self._reusable
            and self._request_sent
            and not self.transport.get_write_buffer_size()
        ):
            self._pool.give(self, now)
            if is_first and self._known is not None:
                self._pool.learn(data, self._known)
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.left(self)
        sink, self.sink = self.sink, None
        self._parser = None  # it holds us as we hold it
        if sink is None:
            return
        if self._until_close and exc is None:
            sink.on_end(self._monotonic())
        else:
            sink.on_failure(
                UpstreamFailure.BROKE,
                unanswered=self._uses > 1 and not self._answered,
            )

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
        if self._is_plain and body.length is not None and status not in _BODILESS:
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
        self._pool.leave(self)
        self.drop()
        is_bug = isinstance(error, httptools.HttpParserCallbackError)
        if is_bug and not isinstance(cause, _BrokenAnswer | _Surplus):
            sink.on_bug(cause)
        else:
            sink.on_failure(UpstreamFailure.BROKE, unanswered=False)

    def _wait(self, until: float) -> None:
        total = self._total_at
        # Not min(): this runs three times for each request.
        self.deadline = until if until < total else total  # noqa: FURB136


class Pool:
    """The connections to one upstream.

    Last in, first out: the warmest is used, and the surplus ages away.

    Args:
        upstream: Where, and within which bounds.
        clock: For deadlines.
    """

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self.upstream = upstream
        self.clock = clock
        # What a request to it is given; None: the client's own Host.
        self.host = {
            "client": None,
            "upstream": upstream.authority.encode("ascii"),
        }.get(upstream.host, upstream.host.encode("ascii"))
        self._keep_alive = upstream.keep_alive
        self._max_idle = upstream.max_idle
        self.known_answers: dict[bytes, KnownAnswer] = {}
        self.last_answer: KnownAnswer | None = None  # the one that came last
        self.connections: set[UpstreamConnection] = set()  # all: lent and idle
        self._idle: list[UpstreamConnection] = []
        self._connecting = 0
        self._retired = False

    def take(self, now: float) -> UpstreamConnection | None:
        """Return an idle connection, if there is one that may still be used."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.deadline > now and not connection.transport.is_closing():
                return connection
            connection.drop()
        return None

    async def connect(self) -> UpstreamConnection:
        """Open a connection.

        Raises:
            UpstreamFailed: Refused, too slow, or as many as there may be.
        """
        upstream = self.upstream
        if len(self.connections) + self._connecting >= upstream.max_connections:
            raise UpstreamFailed(UpstreamFailure.FULL)
        self._connecting += 1
        try:
            async with asyncio.timeout(upstream.timeout.connect):
                try:
                    return await self._open()
                except OSError:
                    # Nothing was sent, so once more is safe (R34): a listener that
                    # is being replaced refuses for a moment.
                    return await self._open()
        except TimeoutError as error:
            raise UpstreamFailed(UpstreamFailure.TIMED_OUT) from error
        except OSError as error:
            raise UpstreamFailed(UpstreamFailure.REFUSED) from error
        finally:
            self._connecting -= 1

    async def _open(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        address = self.upstream.address
        if address.path:
            _, connection = await loop.create_unix_connection(
                lambda: UpstreamConnection(self), address.path
            )
        else:
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), address.host, address.port
            )
        return connection

    def give(self, connection: UpstreamConnection, now: float) -> None:
        """Take back a connection on which nothing is left to come."""
        idle = self._idle
        if self._retired or len(idle) >= self._max_idle:
            connection.drop()
            return
        connection.deadline = now + self._keep_alive
        idle.append(connection)

    def measure(self) -> Iterator[Sample]:
        """Yield how many connections there are, by what they do."""
        name, idle = self.upstream.name, len(self._idle)
        yield UPSTREAM_CONNECTIONS, (name, "idle"), idle
        yield UPSTREAM_CONNECTIONS, (name, "lent"), len(self.connections) - idle
        yield UPSTREAM_CONNECTIONS, (name, "connecting"), self._connecting

    def learn(self, data: bytes, known: KnownAnswer) -> None:
        """Keep what the head of *data*, which is one whole answer, was read as."""
        end = data.find(_END) + len(_END)
        if end > MAX_KNOWN_BYTES or len(data) - end != known.length:
            return
        if len(self.known_answers) >= MAX_KNOWN:
            self.known_answers.clear()
        known.head, known.size = data[:end], len(data)
        self.known_answers[known.head] = known

    def forget(self) -> None:
        """Forget what answers were read as: other rules apply to them now."""
        self.known_answers.clear()
        self.last_answer = None

    def leave(self, connection: UpstreamConnection) -> None:
        """Lend *connection* no more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def joined(self, connection: UpstreamConnection) -> None:
        """Note that *connection* is open."""
        self.connections.add(connection)

    def left(self, connection: UpstreamConnection) -> None:
        """Note that *connection* is no more."""
        self.connections.discard(connection)
        self.leave(connection)

    def retire(self) -> None:
        """Keep nothing any more: the upstream is configured otherwise now."""
        self._retired = True
        while self._idle:
            self._idle.pop().drop()

    def abort(self) -> None:
        """Close everything at once."""
        self.retire()
        for connection in tuple(self.connections):
            connection.drop()

"""One client connection: bytes in, requests in their order, answers in the same.

The parser's callbacks run inside `data_received`. Requests that arrive behind an
unfinished one (pipelined) are read as far as they came and wait; nothing of them is
decided before their turn, and nothing more is read meanwhile. Every bound holds while
reading: a head is cut off at [server].max_head, whether or not it ever ends (R6).

After anything that can't be read in one way only, nothing more is read: the requests
before it are answered, then it is refused, then the connection ends. httptools stops
at an Upgrade and leaves the rest in the stream. Only a WebSocket is ever upgraded to,
and what follows its handshake is never read as HTTP; behind any other Upgrade, which is
not forwarded (R33), the rest is given to a fresh parser.

Deadlines are one number for each connection, looked at by the port's sweeper (R5).

Imports: gateway.config.settings, gateway.model, gateway.proxy.exchange, gateway.wire;
httptools.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from gateway.clock import Clock
from gateway.config.settings import Server
from gateway.model import Denial, Peer, Reason
from gateway.proxy import exchange
from gateway.proxy.asked import Asked, KnownHeads, plain
from gateway.proxy.exchange import Exchange
from gateway.proxy.precedence import Precedence
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.websocket import SocketExchange
from gateway.wire.framing import check_request
from gateway.wire.request import Scheme
from gateway.wire.websocket import is_wanted

logger = logging.getLogger(__name__)

NEVER = float("inf")
# Requests that wait behind one another. Browsers don't pipeline; libraries that do
# send a handful.
MAX_WAITING = 16
# Of those, as many are read before reading pauses. Not at once: a paused connection
# does not tell that its client went away (R32).
_AHEAD = 8
_AHEAD_BYTES = 64 * 1024
# What an unwanted body may still send so that our answer is not lost in a reset
# (RFC 9112 section 9.6), in bytes and seconds.
LINGER_BYTES = 64 * 1024
LINGER_TIME = 1.0
_SLICE = 64 * 1024  # bytes of a body handed to the parser at once
_HTTP2 = (
    "HTTP/2 is not served here: put Envoy, nginx or HAProxy in front, "
    "with this gateway as its decision service"
)
_PREFACE = b"PRI * HTTP/2"  # RFC 9113 section 3.4
# A request line that any reader takes for the same three things. Others are left to
# the parser, and to gateway.wire.target after it.
_PLAIN = frozenset({b"GET", b"HEAD", b"DELETE"})
_LINE = re.compile(rb"(GET|HEAD|DELETE) (/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*+) HTTP/1\.1")
# How any request line is spelt; an empty line before it is allowed (RFC 9112, 2.2).
_SPELT = re.compile(rb"(?:\r\n)?[^ \r\n]++ [^ \r\n]++ HTTP/[0-9]\.[0-9]")
_END = b"\r\n\r\n"


class Port(exchange.Port, Protocol):
    """What a client connection needs of the port it came in by."""

    clock: Clock
    known_heads: KnownHeads
    precedence: Precedence
    buffer: bytearray
    view: memoryview  # of buffer

    def admit(self, front: Front, transport: asyncio.BaseTransport) -> Peer | None:
        """Return who it is, or None where there is no room for it."""
        ...

    def left(self, front: Front) -> None: ...


class _Stop(Exception):  # noqa: N818
    """Makes the parser read no further."""


class Front(asyncio.BaseProtocol):
    """One client connection."""

    transport: asyncio.Transport
    write: Callable[[bytes], None]
    peer: Peer
    scheme: Scheme = "http"
    deadline: float = NEVER  # monotonic seconds; read by the sweeper
    is_last = False  # the request in hand is the last one of this connection
    _last: Asked | None = None  # what was asked for last, if it was known
    is_full = False  # the client is slow to take what we write
    current: Exchange | None = None  # whose turn it is
    tunnel: Tunnel | None = None  # who takes all that is read, in a WebSocket
    _reading: Exchange | None = None  # whose body is being read
    _in_head = False
    _room = 0  # bytes that the head in hand may still have
    _begun = 0  # heads that began in the read in hand
    _quiet = 0  # bytes since the last one of content, in a chunked body
    _received = 0  # bytes of the body before the read in hand
    _deaf = False  # nothing more is parsed
    _is_closing = False
    _drained = 0  # bytes thrown away since then
    _held = False  # not reading: the body has nowhere to go
    _behind = False  # not reading: later requests wait
    _postponed = b""  # read, and to be taken at its turn
    _is_lost = False  # the client went away before that
    _ahead = 0  # bytes of later requests
    _line: bytes | None = None  # of the request line, while it is not whole
    _url = b""
    _headers: list[tuple[bytes, bytes]]
    _parser: httptools.HttpRequestParser | None

    def __init__(self, port: Port) -> None:
        self._port = port
        self._server: Server = port.gate.server
        self._monotonic = port.monotonic
        self._waiting: deque[Exchange] = deque()
        # What each request looks at is looked up faster here than in the class.
        self.is_full = self.is_last = False
        self.current = self._line = self._last = None
        self._in_head = self._deaf = self._is_closing = False
        self._held = self._behind = False
        self._postponed = b""

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.write = self.transport.write
        self._now = self._monotonic()
        self.deadline = self._now + self._server.header_timeout
        try:
            peer = self._port.admit(self, transport)
        except Exception:
            # Without a place among the others nobody would ever close it.
            logger.exception("a connection could not be admitted")
            peer = None
        if peer is None:
            self._parser = None
            self._deaf = True
            self.transport.abort()
            return
        self.peer = peer
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Take what was read, as far as anybody wants it."""
        if self._deaf:
            if self.tunnel is not None:
                self.tunnel.from_client(data)
                return
            self._drained += len(data)
            if self._drained >= LINGER_BYTES:
                self._stop_draining()
            return
        if self._postponed:
            self._postponed += data
            self._pause()
            return
        now = self._now = self._monotonic()
        if self.current is None and not self._waiting:
            begins = not self._in_head
            if begins and self._line is None and self._take_known(data):
                return
            if not self._port.precedence.take(self.go_on, now):
                self._postponed = data
                if begins:
                    self.deadline = now + self._server.header_timeout
                return
        self._take_unknown(data)

    @property
    def is_waiting(self) -> bool:
        """Whether something was read that has not been seen to."""
        return bool(self._postponed)

    def go_on(self) -> None:
        """Take what had to wait."""
        data, self._postponed = self._postponed, b""
        if self._behind and not self._is_lost and not self._deaf:
            self._behind = False
            self.transport.resume_reading()
        try:
            if not self._deaf:
                self._take_unknown(data)
        except Exception:
            # Whoever else waits must not suffer from it.
            logger.exception("a request could not be read")
            self.transport.abort()
        if self._is_lost:
            self.connection_lost(None)

    def _take_unknown(self, data: bytes) -> None:
        """Take what needs the parser."""
        idle = self.current is None and not self._in_head and not self._waiting
        if idle and self._line is None:
            self._line = b""
        if self._line is not None and not self._is_line_clean(data):
            self._broken(Denial(Reason.REQUEST_MALFORMED, "request line"))
            return
        size = len(data)
        try:
            if (
                self._reading is None
                and not self._in_head
                and size <= self._server.max_head
            ):
                self._feed(data, size)
            else:
                self._parse(data)
        except _Stop:
            pass
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Stop):
                self._bug(error)
        except httptools.HttpParserError:
            if not self._deaf:
                if data.startswith(_PREFACE):
                    logger.info(_HTTP2)
                    self._broken(Denial(Reason.HTTP2_UNSUPPORTED))
                else:
                    self._broken(Denial(Reason.REQUEST_MALFORMED, "syntax"))
        current = self.current
        if current is not None:
            current.flush()
            if (
                idle
                and current.asked.is_plain
                and not self._deaf
                and self._reading is None
                and not self._waiting
                and data.find(_END) == size - len(_END)
            ):
                self._learn(data, current)
            if self._waiting or self._in_head:
                self._ahead += len(data)
                if self._ahead > _AHEAD_BYTES or len(self._waiting) >= _AHEAD:
                    self._pause()

    def _take_known(self, data: bytes) -> bool:
        """Take *data* if it is one whole request whose fields are known.

        A head that differs from an earlier one in its request line alone needs no
        parser: what these fields mean, and that they frame no body and ask for nothing
        but to go on, is known. What is decided by them is not; that is decided each
        time.
        """
        port = self._port
        asked = self._last
        if asked is None or asked.data != data:
            asked = self._known(data)
            if asked is None:
                return False
            self._last = asked
        self.deadline = NEVER
        self.is_last = False
        request = self.current = Exchange(port, self, asked, self._now)
        request.begin()
        if not asked.data and asked.way is not None:
            port.known_heads.keep(data, asked)
        return True

    def _known(self, data: bytes) -> Asked | None:
        known, line = self._port.known_heads.find(data)
        if known is None:
            return None
        asked = known.asked.get(line)
        if asked is not None:
            return asked
        if len(data) > self._server.max_head:
            return None
        section, shape = known.section, known.shape
        if shape is not None:
            asked = shape.again(line, section)
            if asked is not None:
                return asked
        read = _LINE.fullmatch(line)
        if read is None:
            return None
        method, target = read.groups()
        return plain(method, target, section, shape)

    def _is_line_clean(self, data: bytes) -> bool:
        """Look at the request line as it was spelt, once it is whole.

        The parser takes two blanks, other protocols' names and bare line feeds before
        the line, and leaves no trace of them (R2). Pipelined requests have no such
        look; their line, as every line, is written anew.
        """
        line = self._line + data if self._line else data
        end = line.find(b"\r\n", 1)
        if end < 0:
            self._line = line if len(line) <= self._server.max_head else None
            return True
        self._line = None
        return _SPELT.fullmatch(line, 0, end) is not None

    def _learn(self, data: bytes, request: Exchange) -> None:
        """Keep what the fields of *request*, which *data* is, were read as."""
        head, known = request.head, self._port.known_heads
        if head is None or request.permit is None or request.over:
            return
        end = data.find(b"\r\n")
        if _LINE.fullmatch(data, 0, end) is None:
            # Behind an empty line, which the parser skips, the key would hold a
            # request line, and in another request be taken for a field.
            return
        known.learn(data, end, head.section)

    def eof_received(self) -> None:
        """Let the transport close itself: half a connection is none (R32)."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._port.left(self)
        if self._postponed:
            # What had come is read at its turn, for the log alone.
            self._is_lost = True
            return
        self._deaf = self.is_last = self._is_closing = True
        self._parser = None  # it holds us as we hold it
        self._reading = None
        current, self.current = self.current, None
        if current is not None:
            current.gone()
        self._forget_waiting()

    def pause_writing(self) -> None:
        self.is_full = True
        self.deadline = self._monotonic() + self._server.body_timeout

    def resume_writing(self) -> None:
        self.is_full = False
        if self._is_closing:
            return
        self.deadline = NEVER
        if self._reading is not None and not self._held:
            self.deadline = self._monotonic() + self._server.body_timeout
        if self.current is not None:
            self.current.on_client_drained()
        else:
            self._proceed(self._monotonic())

    # The sweeper's side

    def expire(self, now: float) -> None:
        """End a wait that was too long (R5)."""
        self._now = now
        transport = self.transport
        if self._is_closing and self.scheme == "https" and not transport.is_closing():
            # The linger has ended, and TLS wants a goodbye.
            transport.close()
            self.deadline = now + LINGER_TIME
        elif self.tunnel is not None and not self._is_closing:
            self.tunnel.expire(now)
        elif self._is_closing or self.is_full:
            transport.abort()
        elif self.current is not None:
            self._deaf = self.is_last = True
            self._reading = None
            self.current.break_off(Denial(Reason.REQUEST_TIMEOUT, "body"))
        elif self._in_head or self._postponed:
            self._broken(Denial(Reason.REQUEST_TIMEOUT, "head"))
        else:
            self.close()

    # The port's side

    def drain(self) -> None:
        """Close when the request in hand, if there is one, has been answered."""
        if self.current is not None:
            self.current.drain()
        elif not self._in_head and not self._postponed and not self._is_closing:
            self.close()

    def close(self) -> None:
        """Close after what was written has gone out."""
        self._close(self._monotonic(), linger=False)

    # The exchange's side

    def write_eof(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def take_over(self, tunnel: Tunnel) -> bool:
        if self._drained:
            return False
        self.tunnel = tunnel
        if self._behind:  # it came behind others that were read ahead
            self._behind = False
            if not self._held:
                self.transport.resume_reading()
        return True

    def hold(self) -> None:
        if not self._held:
            self._held = True
            self.deadline = NEVER
            if not self._behind:
                self.transport.pause_reading()

    def unhold(self) -> None:
        if self._held:
            self._held = False
            if self._reading is not None:
                self.deadline = self._monotonic() + self._server.body_timeout
            if not self._behind and not self._is_closing:
                self.transport.resume_reading()

    def done(self, exchange: Exchange, *, keep: bool, now: float) -> None:
        if self._is_closing:
            return
        self.current = None
        if keep:
            self._proceed(now)
        else:
            linger = not exchange.is_read or exchange.is_spoilt
            if self.tunnel is not None:
                # A reset for what still comes may overtake the Close (RFC 6455 section
                # 7.1.1). Over TLS the client would wait for the end of the linger.
                linger = self.transport.can_write_eof()
                self.tunnel = None
            self._close(now, linger=linger)

    def abort(self) -> None:
        self._deaf = self._is_closing = True
        self.current = None
        self.transport.abort()

    # The parser's side

    def on_message_begin(self) -> None:
        if self._deaf:
            raise _Stop
        self._in_head = True
        self._begun += 1
        self._room = self._server.max_head
        self._url = b""
        self._headers = []
        if self.current is None:
            self.deadline = self._now + self._server.header_timeout

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        if len(headers) == self._server.max_headers and self._in_head:
            # Now and not at the end: a head has room for thousands of them.
            assert self._parser is not None
            self._in_head = False
            too_many = Denial(Reason.HEAD_TOO_LARGE, "fields")
            self._refuse(too_many, self._parser.get_method())
            raise _Stop
        headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self._in_head = False
        headers = tuple(self._headers)
        self._headers = []  # trailers go here, and from here nowhere (R14)
        method = parser.get_method()
        version = parser.get_http_version()
        body = check_request(method, version, headers, parser.should_upgrade())
        if isinstance(body, Denial):
            if version == "2.0":
                logger.info(_HTTP2)
                body = Denial(Reason.HTTP2_UNSUPPORTED)
            self._refuse(body, method)
            raise _Stop
        modern, keep_alive = version == "1.1", parser.should_keep_alive()
        make = Exchange
        if modern and parser.should_upgrade() and is_wanted(method, headers):
            make, keep_alive = SocketExchange, False
        asked = Asked(
            method,
            self._url,
            headers,
            body,
            modern=modern,
            keep_alive=keep_alive,
            is_plain=(
                body.length == 0
                and method in _PLAIN
                and modern
                and keep_alive
                and not parser.should_upgrade()
            ),
        )
        request = self._reading = make(self._port, self, asked, self._now)
        self._received = self._quiet = 0
        if request.is_read:
            self.deadline = NEVER
        else:
            self.deadline = self._now + self._server.body_timeout
        self._take(request)
        if self._deaf:
            raise _Stop

    def on_body(self, content: bytes) -> None:
        if self._reading is not None:
            self._reading.feed(content)
        if self._deaf:
            raise _Stop

    def on_message_complete(self) -> None:
        request, self._reading = self._reading, None
        if request is None:
            return
        if not request.is_read:
            self.deadline = NEVER
            request.end_body()
        if not request.keep_alive:
            # What follows a request that says it is the last is not a request.
            self._deaf = True
            self.is_last = not self._waiting

    # Inside

    def _parse(self, data: bytes) -> None:
        # The parser keeps an unfinished field to itself, however long it grows. So it
        # is never given more than the head in hand may still have.
        size = len(data)
        view: bytes | memoryview = data
        while size:
            if self._in_head:
                room = self._room
            elif self._reading is None:
                room = self._server.max_head
            else:
                room = _SLICE
                self.deadline = self._now + self._server.body_timeout
            if size <= room:
                self._feed(view, size)
                return
            if view is data:
                view = memoryview(data)
            self._feed(view[:room], room)
            view = view[room:]
            size -= room

    def _feed(self, data: bytes | memoryview, size: int) -> None:
        parser = self._parser
        assert parser is not None
        between = self._reading is None and not self._in_head
        self._begun = 0
        rest = None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            rest = bytes(data[stopped.args[0] :])
        if rest is not None:
            # Not in the handler: an exception raised there would be told apart by the
            # wrong context, and a refusal be taken for a bug.
            if self._deaf:
                # Behind the handshake of a WebSocket: not HTTP, whatever comes of it.
                self._drained += len(rest)
                return
            self._parser = httptools.HttpRequestParser(self)
            self._parse(rest)
            return
        if self._in_head:
            # Where a head began behind another message its first bytes are not known
            # apart, and count for nothing; they are one slice at most.
            if not self._begun or (between and self._begun == 1):
                self._room -= size
            if self._room <= 0:
                self._broken(Denial(Reason.HEAD_TOO_LARGE))
                raise _Stop
        elif self._reading is not None:
            received = self._reading.received
            self._quiet = 0 if received != self._received else self._quiet + size
            self._received = received
            if self._quiet > self._server.max_head:
                # Trailers or chunk extensions without end.
                self._broken(Denial(Reason.HEAD_TOO_LARGE, "trailer"))
                raise _Stop

    def _take(self, request: Exchange) -> None:
        if self._is_lost:
            request.gone()
        elif self.current is None:
            self.current = request
            self.is_last = self._deaf
            request.begin()
        else:
            self._waiting.append(request)
            if len(self._waiting) >= MAX_WAITING:
                self._deaf = True

    def _refuse(self, denial: Denial, method: bytes) -> None:
        self._deaf = True
        self._take(
            Exchange(
                self._port,
                self,
                Asked(method, self._url, (), None, keep_alive=False),
                self._now,
                denial,
            )
        )

    def _broken(self, denial: Denial) -> None:
        """Refuse what can't be read on, after all that came before it."""
        self._deaf = True
        reading, self._reading = self._reading, None
        if reading is None:
            parser, known = self._parser, self._in_head and self._url
            self._in_head = False
            method = parser.get_method() if parser is not None and known else b""
            self._refuse(denial, method)
        elif reading is self.current:
            self.is_last = True
            reading.break_off(denial)
        else:
            reading.spoilt = denial
            reading.keep_alive = False

    def _bug(self, error: Exception) -> None:
        cause = error.__context__
        self._deaf = self.is_last = True
        self._reading = None
        if self.current is not None:
            self.current.break_down(cause)
        else:
            logger.error("a request could not be read", exc_info=cause)
            self.transport.abort()

    def _proceed(self, now: float) -> None:
        """Go on after an answer."""
        if self.is_full:
            # Nothing for a client that does not take what it has asked for.
            self._pause()
            return
        if self._waiting:
            request = self.current = self._waiting.popleft()
            self.is_last = self._deaf and not self._waiting
            request.begin()
            request.flush()
            return
        if self._deaf or self._port.is_ending:
            self._close(now, linger=False)
            return
        server = self._server
        self.deadline = now + (
            server.header_timeout if self._in_head else server.idle_timeout
        )
        self._ahead = 0
        if self._behind or self._held:
            self._behind = self._held = False
            self.transport.resume_reading()

    def _pause(self) -> None:
        if not self._behind:
            self._behind = True
            self.transport.pause_reading()

    def _stop_draining(self) -> None:
        if self._is_closing:
            self.transport.abort()
        else:
            self._pause()  # an answer is still on its way

    def _close(self, now: float, *, linger: bool) -> None:
        self._deaf = self.is_last = self._is_closing = True
        self._reading = None
        self._forget_waiting()
        transport = self.transport
        if linger:
            # TLS can't be closed by half. There the answer's length says where it ends.
            if transport.can_write_eof():
                transport.write_eof()
            if self._behind or self._held:
                transport.resume_reading()
            self.deadline = now + LINGER_TIME
            if not transport.get_write_buffer_size():
                return
        else:
            transport.close()
        self.deadline = now + self._server.body_timeout

    def _forget_waiting(self) -> None:
        waiting = self._waiting
        while waiting:
            waiting.popleft().gone()


class PlainFront(Front, asyncio.BufferedProtocol):
    """A client connection without TLS, read piece by piece."""

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        # One for all connections of a port: what is in it is taken before the next
        # read. Its size is what one connection can make us read at once (R6); left to
        # itself uvloop reads 256,000 bytes.
        return self._port.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._port.view[:nbytes]))

"""A request for a WebSocket: decided as any other, then the handshakes on both sides.

The client's handshake ends here and the upstream's begins here: key, version and
subprotocols are written anew, no extension is offered, and what the upstream answers is
checked before the client is told (RFC 6455 section 4). Whoever is refused is refused
with a status, before a byte went to the upstream. If the upstream does not switch, its
answer is the client's, and that connection is used for nothing else (R33).

What follows the handshake in the client's stream is never read as HTTP, whatever
becomes of it. Bytes that came before the 101 spoil it.

Imports: gateway.model, gateway.proxy, gateway.wire; httptools.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Literal, Protocol, cast

import httptools

from gateway.model import Denial, Headers, Permit, Reason, Route
from gateway.proxy import message
from gateway.proxy.exchange import Client, Exchange
from gateway.proxy.streams import Seat
from gateway.proxy.tunnel import ClientEnd, Tunnel
from gateway.proxy.upstream import (
    MAX_HEAD,
    Endpoint,
    UpstreamConnection,
    UpstreamFailed,
)
from gateway.wire import problems
from gateway.wire.frames import GOING_AWAY
from gateway.wire.framing import check_response
from gateway.wire.problems import UpstreamFailure
from gateway.wire.websocket import (
    VERSION,
    Offer,
    accept_of,
    chosen,
    new_key,
    read_offer,
)

TOKEN_ENDED = 4401
"""The code of a Close where a request would have been answered with 401."""
FORBIDDEN = 4403
"""And of one where it would have been refused for any other reason."""
END_WAIT = 0.5
"""Seconds for a frame to end, and for the answer to such a Close.

Until then no more comes through than the rest of that frame; a second is all that a
revocation may take (R93).
"""

_SWITCHING = 101
_KEY = 16  # random bytes
_END = b"\r\n\r\n"
# An answer that can be handed on: no interim one, behind which nobody would wait.
_FINAL = re.compile(rb"HTTP/1\.[01] [2-5][0-9]{2}[ \r]")
_UPGRADE: tuple[message.Field, ...] = (
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
)


class SocketClient(Client, ClientEnd, Protocol):
    """What a WebSocket needs of the connection it came in by."""

    def take_over(self, tunnel: Tunnel) -> bool:
        """Give all that is read to *tunnel*; False: something came too early."""
        ...


class SocketToUpstream(asyncio.Protocol):
    """A connection to an upstream, used for one WebSocket and nothing else."""

    transport: asyncio.Transport
    is_full = False
    tunnel: Tunnel | None = None
    _held = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        # All that was read up to the end of a head, and behind it; b"": there is none.
        self.answered: asyncio.Future[bytes] = (
            asyncio.get_running_loop().create_future()
        )
        self._read = bytearray()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.from_upstream(data)
            return
        read = self._read
        before = max(0, len(read) - len(_END))
        read += data
        if read.find(_END, before) >= 0:
            self.transport.pause_reading()
            self._answer(bytes(read))
        elif len(read) > MAX_HEAD:
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._answer(b"")
        if self.tunnel is not None:
            self.tunnel.upstream_lost()

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        if self.tunnel is not None:
            self.tunnel.upstream_drained()

    # The tunnel's side

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def write_eof(self) -> None:
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def hold(self) -> None:
        if not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()

    def unhold(self) -> None:
        if self._held and not self.transport.is_closing():
            self._held = False
            self.transport.resume_reading()

    def close(self) -> None:
        self.tunnel = None
        if self.transport.get_write_buffer_size():
            # Who took nothing until now may never do so, and nobody would look again.
            self.transport.abort()
        else:
            self.transport.close()

    def drop(self) -> None:
        self.tunnel = None
        self.transport.abort()
        self._answer(b"")

    def _answer(self, read: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(read)


class SocketExchange(Exchange):
    """A request that asks for a WebSocket, from its head to its log entry."""

    kind: Literal["http", "websocket"] = "websocket"
    client: SocketClient
    _upstream: SocketToUpstream | None = None
    _tunnel: Tunnel | None = None
    _seat: Seat | None = None
    _offer: Offer
    _key = b""

    # Its turn

    def _measure(self, permit: Permit) -> bytes | None:
        rules, head = permit.route.websocket, self.head
        if rules is None:
            return super()._measure(permit)  # as a plain request (R33)
        assert head is not None
        route, who = permit.route, permit.principal
        offer = read_offer(head.headers)
        if isinstance(offer, Denial):
            self._refuse(replace(offer, route=route, principal=who))
            return None
        seat = (route.id, who.issuer, who.subject or head.client)
        if not self.port.streams.take_seat(seat, rules.per_subject):
            self._refuse(Denial(Reason.SOCKETS_TOO_MANY, route=route, principal=who))
            return None
        self._seat = seat
        self._offer = offer
        self._key = new_key(self.port.random(_KEY))
        named = offer.protocols + (offer.tokens if route.pass_credentials else ())
        fields = [
            *_UPGRADE,
            (b"sec-websocket-version", VERSION),
            (b"sec-websocket-key", self._key),
            *([(b"sec-websocket-protocol", b", ".join(named))] if named else ()),
        ]
        return message.lines(fields)

    def _attach(self, connection: UpstreamConnection, now: float) -> None:
        if self._seat is None:
            super()._attach(connection, now)
            return
        # Of those that are kept none is taken: it may have grown too old, and what is
        # spoken on it would be no HTTP any more. It has not been used for this.
        connection.endpoint.put_back(connection)
        self.port.spawn(self._connect())

    async def _connect(self) -> None:
        if self._seat is None:
            await super()._connect()
            return
        try:
            upstream = await self._pool.connect_as(SocketToUpstream)
            if self.over:
                upstream.drop()
                return
            self._upstream = upstream
            upstream.write(self._head_sent)
            async with asyncio.timeout(self._pool.upstream.timeout.first_byte):
                read = await upstream.answered
            if not self.over:
                self._answered(upstream, read)
        except TimeoutError:
            if not self.over:
                self._drop()
                self._fail(UpstreamFailure.TIMED_OUT)
        except UpstreamFailed as failed:
            if not self.over:
                self._fail(failed.kind)
        except Exception as error:  # noqa: BLE001  (it ends this request only)
            self.break_down(error)

    # The upstream's answer

    def _answered(self, upstream: SocketToUpstream, read: bytes) -> None:
        now = self.port.monotonic()
        end = read.find(_END) + len(_END)
        if _FINAL.match(read) and not upstream.transport.is_closing():
            self._hand_on(upstream, read, now)
            return
        headers = _read_switching(read[:end])
        protocol = None
        if headers is not None and not upstream.transport.is_closing():
            protocol = chosen(headers, self._key, self._offer.protocols)
        if headers is None or protocol is None:
            self._drop()
            self._fail(UpstreamFailure.BROKE)
            return
        self._open(upstream, headers, protocol, now)
        if read[end:] and self._tunnel is not None:
            self._tunnel.from_upstream(read[end:])

    def _hand_on(self, upstream: SocketToUpstream, read: bytes, now: float) -> None:
        """Let the client have an answer that is no WebSocket."""
        self._leave_seat()
        if self.is_listed:  # as one, and would end with its token
            self.port.streams.remove(self)
            self.is_listed = False
        transport = upstream.transport
        connection = UpstreamConnection(upstream.endpoint)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        self._upstream, self.connection = None, connection
        # It is not told that the request has been sent whole, so it won't be kept.
        connection.lend(self, b"GET", b"", now)
        transport.resume_reading()
        connection.data_received(read)

    def _open(
        self, upstream: SocketToUpstream, headers: Headers, protocol: bytes, now: float
    ) -> None:
        permit, port, client = self.permit, self.port, self.client
        assert permit is not None
        assert permit.route.websocket is not None
        tunnel = Tunnel(
            client,
            upstream,
            max_message=permit.route.websocket.max_message,
            patience=(
                self.port.gate.server.body_timeout,
                self._pool.upstream.timeout.send_idle,
            ),
            random=port.random,
            monotonic=port.monotonic,
            on_end=self._on_tunnel_end,
        )
        if not client.take_over(tunnel):
            self._drop()
            self._refuse(
                Denial(
                    Reason.UPGRADE_REFUSED,
                    "early",
                    route=permit.route,
                    principal=permit.principal,
                )
            )
            return
        self._tunnel = upstream.tunnel = tunnel
        self.status = _SWITCHING
        self._has_begun = True
        self._upstream_time = now - self._sending_since
        fields = [
            *self.port.gate.hygiene.to_client(headers),
            *_UPGRADE,
            (b"sec-websocket-accept", accept_of(self._offer.key)),
            (b"x-request-id", self._id),
        ]
        if protocol:
            fields.append((b"sec-websocket-protocol", protocol))
        client.write(message.answer_head(_SWITCHING, fields))
        upstream.transport.resume_reading()
        if port.is_ending:
            self.drain()

    # The ends

    def _ends_with_token(self, route: Route) -> bool:
        return self._is_socket or super()._ends_with_token(route)

    @property
    def _is_socket(self) -> bool:
        return self._seat is not None

    def end(self, denial: Denial) -> None:
        tunnel, permit = self._tunnel, self.permit
        if tunnel is None or permit is None:
            super().end(denial)
            return
        if not tunnel.reason:  # else it is about to end anyhow
            who = permit.principal
            self.denial = replace(denial, route=permit.route, principal=who)
        is_token = problems.status_of(denial.reason) == HTTPStatus.UNAUTHORIZED
        tunnel.close(TOKEN_ENDED if is_token else FORBIDDEN, within=END_WAIT)

    def drain(self) -> None:
        if self._tunnel is not None:
            self._tunnel.close(GOING_AWAY)

    def on_client_drained(self) -> None:
        if self._tunnel is None:
            super().on_client_drained()
        else:
            self._tunnel.client_drained()

    def gone(self) -> None:
        if self._tunnel is not None:
            self._tunnel.client_lost()
        super().gone()

    def _on_tunnel_end(self, is_torn: bool) -> None:
        assert self._tunnel is not None
        self.failure = self._tunnel.reason
        if is_torn:
            self._abort()
        else:
            self._end(self.port.monotonic(), keep=False)

    def _drop(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()
        super()._drop()

    def _log(self, now: float) -> None:
        self._leave_seat()
        if self._tunnel is not None:
            self.received, self.sent = self._tunnel.received, self._tunnel.sent
        super()._log(now)

    def _leave_seat(self) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            self.port.streams.leave_seat(seat)


class _Head:
    """Reads the head of a 101."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


def _read_switching(head: bytes) -> Headers | None:
    """Return the fields of an answer that switches protocols; None: it doesn't."""
    reading = _Head()
    parser = httptools.HttpResponseParser(reading)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        headers = tuple(reading.headers)
        status, version = parser.get_status_code(), parser.get_http_version()
        clean = check_response(b"GET", status, version, headers) is not None
        return headers if clean and (status, version) == (101, "1.1") else None
    except httptools.HttpParserError:
        pass
    return None

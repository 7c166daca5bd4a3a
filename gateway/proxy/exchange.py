"""One request and its answer: decided, forwarded, answered, logged, in this order.

With everything known none of it waits: `begin` runs inside the parser's callback, down
to the write on a kept connection. Only an open question or a new connection costs a
task. Every way to the end leads through `_end`, which writes the one log entry, so
nothing can skip the log.

Before the answer has begun, a failure is answered with a status of its own. After that
there is nothing left to say it with: the client's connection is aborted (RFC 9112
section 8), and no error is appended to somebody's JSON.

Imports: gateway.decision, gateway.model, gateway.observe,
gateway.proxy, gateway.wire.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Literal, Protocol

from gateway.decision import Pending
from gateway.model import (
    Denial,
    Headers,
    Peer,
    Permit,
    Reason,
    RequestHead,
    Route,
    Unavailable,
)
from gateway.observe.access import Entry, form_of, shown
from gateway.proxy import message
from gateway.proxy.asked import Asked, Begun, Way
from gateway.proxy.gate import Gate
from gateway.proxy.pool import Pool
from gateway.proxy.standing import Standing
from gateway.proxy.streams import Streams
from gateway.proxy.upstream import (
    Endpoint,
    KnownAnswer,
    UpstreamConnection,
    UpstreamFailed,
)
from gateway.wire import problems
from gateway.wire.forwarded import origin_fields, request_id_from, traceparent_of
from gateway.wire.framing import Body
from gateway.wire.problems import Answer, UpstreamFailure
from gateway.wire.request import Scheme, read_head

logger = logging.getLogger(__name__)

# Methods that may be sent twice (RFC 9110 section 9.2.2).
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
# Methods that say so when they have no content (RFC 9110 section 8.6).
_WITH_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})
_METHODS = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_EXPECT: message.Field = (b"expect", b"100-continue")
# Bytes of a body held while nobody can take them. One read may go beyond it.
_QUEUE = 64 * 1024
_CONTINUE = 100
_NEVER = float("inf")
_ID = 32  # of the hexadecimal digits that a request is given; the rest is its span
_DECIDED = (Permit, Denial)
_BODILESS = frozenset({204, 304})


class Port(Protocol):
    """What an exchange needs of the port it came in by."""

    gate: Gate
    wall: Callable[[], float]  # Unix seconds
    monotonic: Callable[[], float]  # seconds
    spawn: Callable[[Coroutine[None, None, None]], object]
    is_draining: bool
    in_flight: Counter[str]  # by ids of routes that have a bound
    is_ending: bool  # connections without a request in hand are closed
    pools: dict[str, Pool]  # by the names of their upstreams
    streams: Streams

    def random(self, size: int) -> bytes: ...
    def names(self) -> bytes:
        """Return 48 hexadecimal digits at random, no 16 of them all zero."""
        ...


class Client(Protocol):
    """What an exchange needs of the connection it came in by."""

    peer: Peer
    scheme: Scheme  # of the connection
    is_last: bool  # no further request will be read from it
    is_full: bool  # it is slow to take what was written

    @property
    def write(self) -> Callable[[bytes], None]: ...
    def hold(self) -> None:
        """Read no more of the body for now."""
        ...

    def unhold(self) -> None: ...
    def done(self, exchange: Exchange, *, keep: bool, now: float) -> None: ...
    def abort(self) -> None: ...


class Exchange:
    """One request of a client, from its head to its log entry.

    Args:
        port: Where it came in.
        client: Its connection.
        asked: What it asks for.
        started: Monotonic seconds.
        spoilt: Why it is to be refused without a look at it.
    """

    kind: Literal["http", "websocket"] = "http"
    head: RequestHead | None = None
    permit: Permit | None = None
    denial: Denial | None = None
    failure = ""  # what went wrong that was nobody's decision
    status = 0  # of the final answer; 0: none was sent
    received = 0  # bytes of the request's body
    sent = 0  # bytes of the answer's body
    over = False
    outage: Unavailable | None = None
    connection: UpstreamConnection | None = None
    _pool: Pool
    _way: Way | None = None
    _time = 0.0  # Unix seconds, when its turn came
    _id = b""  # the request's
    _names = b""
    _limit = 0
    _queue: list[bytes] | None = None  # body read before there was a connection
    _queued = 0
    _head_sent = b""
    _out: list[bytes]  # of the answer, until the next write
    _has_begun = False  # a byte of the answer was written
    _broke: Endpoint | None = None  # ended a kept connection when it was asked
    _keep = False
    _to_client_chunked = False
    _expects = False  # the client waits for a 100
    _is_paused = False  # the answer is not being read
    _entered = ""  # the route that it is counted for
    is_listed = False  # among the port's streams
    _sending_since = 0.0
    _upstream_time = 0.0

    def __init__(
        self,
        port: Port,
        client: Client,
        asked: Asked,
        started: float,
        spoilt: Denial | None = None,
    ) -> None:
        self.port = port
        self.client = client
        self.asked = asked
        self.started = started
        self.spoilt = spoilt
        self.is_spoilt = spoilt is not None
        self.keep_alive = asked.keep_alive
        # The request, whole.
        self.is_read = asked.is_plain or (
            asked.body is not None and asked.body.length == 0
        )

    @property
    def request_id(self) -> str:
        """Name the request in logs and answers."""
        return self._id.decode("ascii")

    # Its turn

    def begin(self) -> None:
        """Decide, then forward or refuse."""
        try:
            port, asked = self.port, self.asked
            gate = port.gate
            now = self._time = port.wall()
            names = self._names = port.names()
            head = asked.head
            client = self.client
            if (
                head is not None
                and head.peer is client.peer
                and head.scheme == client.scheme
            ):
                # A trace that begins here has the request's own id.
                self._id = names[:_ID]
                self.head = head
            else:
                head = self._read(asked, names)
                if head is None:
                    return
            outcome = gate.decide_now(head, now)
            if isinstance(outcome, _DECIDED):
                self._decided(outcome, head, now)
            else:
                port.spawn(self._decide(outcome, head, now))
        except Unavailable as outage:
            self._outage(outage)
        except Exception as error:  # noqa: BLE001  (it ends this request only)
            self.break_down(error)

    def _read(self, asked: Asked, names: bytes) -> RequestHead | None:
        """Read the head; None: it is refused."""
        peer = self.client.peer
        headers = asked.headers
        fields = headers if isinstance(headers, tuple) else headers.headers
        self._id = request_id_from(fields, peer, names[:_ID])
        if self.spoilt is not None:
            self._refuse(self.spoilt)
            return None
        trace = traceparent_of(fields)
        asked.traceparent = trace
        asked.trace_id = None if trace is None else trace[3:35].decode("ascii")
        asked.way = None
        head = read_head(
            kind=self.kind,
            method=_METHODS.get(asked.method) or asked.method.decode("latin-1"),
            scheme=self.client.scheme,
            target=asked.target,
            headers=headers,
            peer=peer,
            proxies=self.port.gate.server.trusted_proxies,
        )
        if isinstance(head, Denial):
            self._refuse(head)
            return None
        self.head = head
        if asked.is_plain and not peer.trusted:
            asked.head = head
        return head

    async def _decide(self, pending: Pending, head: RequestHead, now: float) -> None:
        # Not cancelled when the client goes away: it is bounded by what it asks, and
        # a store's connection is never left in the middle of an answer (R32).
        try:
            outcome = await self.port.gate.finish(pending)
            if not self.over:
                self._decided(outcome, head, now)
                self.flush()
        except Unavailable as outage:
            if not self.over:
                self._outage(outage)
        except Exception as error:  # noqa: BLE001  (it ends this request only)
            self.break_down(error)

    def _decided(self, outcome: Permit | Denial, head: RequestHead, now: float) -> None:
        if isinstance(outcome, Denial):
            self._refuse(outcome)
            return
        permit = self.permit = outcome
        if permit.route.max_in_flight is not None and not self._enter(permit.route):
            return
        gate, asked = self.port.gate, self.asked
        framing = b""
        if not asked.is_plain:
            measured = self._measure(permit)
            if measured is None:
                return
            framing = measured

        # Strip, then sign: nothing that the client sent can name or replace what is
        # added after it (golang/go#50580, R16).
        way = asked.way
        if way is None or not way.fits(permit, head):
            made = self._way_of(permit, head)
            if made is None:
                return
            way = asked.way = made
        self._way = way
        if not way.since <= now < way.until:
            signed = gate.identity(permit, head, self._id, now)
            if isinstance(signed, Denial):  # a claim that no header can say (R95)
                principal = permit.principal
                self._refuse(replace(signed, route=permit.route, principal=principal))
                return
            way.say(signed)
        trace = b"\r\n"
        if asked.traceparent is None:
            names = self._names
            trace = b"\r\ntraceparent: 00-%b-%b-01\r\n" % (names[:_ID], names[_ID:])
        self._head_sent = b"".join((way.lines, self._id, trace, framing, b"\r\n"))
        pool = self._pool = way.pool
        monotonic = self._sending_since = self.port.monotonic()
        if asked.is_plain or self._may_repeat():
            connection = pool.take(monotonic)
        else:
            connection = pool.take_sure(monotonic)
        if connection is None:
            self.port.spawn(self._connect())
        else:
            self._attach(connection, monotonic)

    def _enter(self, route: Route) -> bool:
        """Count the request for its route; False: it is refused (R35)."""
        counts = self.port.in_flight
        assert route.max_in_flight is not None
        if counts[route.id] >= route.max_in_flight:
            self.failure = "route.full"
            full = UpstreamFailure.FULL
            answer = problems.upstream_failure(full, self.request_id, route.upstream)
            self._answer(answer)
            return False
        counts[route.id] += 1
        self._entered = route.id
        return True

    def _leave(self) -> None:
        counts, route, self._entered = self.port.in_flight, self._entered, ""
        counts[route] -= 1
        if not counts[route]:
            del counts[route]

    def _measure(self, permit: Permit) -> bytes | None:
        """Return the lines that frame the body; None: it is refused."""
        body, route, asked = self.asked.body, permit.route, self.asked
        assert body is not None
        limit = route.max_body
        if limit is None:
            limit = self.port.gate.server.max_body
        self._limit = limit
        length = body.length
        if (length or 0) > limit or self.received > limit:
            self._too_large(permit)
            return None
        fields = []
        if length is None:
            fields.append(message.CHUNKED)
        elif length or asked.method in _WITH_CONTENT:
            fields.append(message.content_length(length))
        assert self.head is not None
        if length != 0 and asked.modern and _expects(self.head.headers):
            self._expects = True
            fields.append(_EXPECT)
        return message.lines(fields)

    def _way_of(self, permit: Permit, head: RequestHead) -> Way | None:
        """Return the way of *head*; None: it is refused."""
        gate, asked = self.port.gate, self.asked
        pool = self.port.pools[permit.upstream]
        keep = permit.route.pass_credentials  # its upstream's word is in it
        begun = asked.begun
        if (
            begun is not None
            and begun.route is permit.route
            and begun.peer is head.peer
            and begun.scheme == head.scheme
        ):
            return Way(permit, head, pool, begun.lines)
        passed = head.section.lines[keep]
        if passed is None:
            fields = gate.hygiene.to_upstream(head.headers, keep_credentials=keep)
            if isinstance(fields, Denial):
                self._refuse(fields)
                return None
            passed = head.section.lines[keep] = message.lines(fields)
        trace = asked.traceparent
        origin = origin_fields(head, traced=trace is not None)
        if trace is not None:
            origin.append((b"traceparent", trace))
        lines = message.request_lines(
            asked.method,
            permit.target,
            pool.host or head.authority,
            passed,
            origin,
        )
        if not keep:
            asked.begun = Begun(permit.route, head.peer, head.scheme, lines)
        return Way(permit, head, pool, lines)

    async def _connect(self) -> None:
        # What was tried on a kept connection, or may not be tried twice, has a new one.
        fresh = self._broke is not None or not self._may_repeat()
        try:
            connection = await self._pool.connect(fresh=fresh, rather_not=self._broke)
            if self.over:
                # Its client went away meanwhile; the next one may have it unused.
                self._pool.give(connection, self.port.monotonic())
                return
            self._attach(connection, self.port.monotonic())
            connection.count_from(self._sending_since)
            self.flush()
        except UpstreamFailed as failed:
            if not self.over:
                self._fail(failed.kind)
        except Exception as error:  # noqa: BLE001  (it ends this request only)
            self.break_down(error)

    def _attach(self, connection: UpstreamConnection, now: float) -> None:
        self.connection = connection
        asked, way = self.asked, self._way
        assert way is not None
        if asked.is_plain:
            connection.ask(self, asked.method, self._head_sent, now)
            if way.is_stream:
                connection.be_patient()
            return
        connection.lend(self, asked.method, self._head_sent, now)
        if way.is_stream:
            connection.be_patient()
        if self._queue is not None:
            for piece in self._queue:
                connection.send(piece)
            self._queue = None
        if self.is_read:
            connection.request_sent(now)
        else:
            self.client.unhold()

    # The client's side

    def feed(self, content: bytes) -> None:
        """Pass on a piece of the request's body."""
        self.received += len(content)
        permit = self.permit
        if permit is not None and self.received > self._limit:
            self.break_off(
                Denial(
                    Reason.BODY_TOO_LARGE,
                    route=permit.route,
                    principal=permit.principal,
                )
            )
            return
        body = self.asked.body
        chunked = body is not None and body.length is None
        self._pass(message.chunk(content) if chunked else content)

    def end_body(self) -> None:
        """Note that the request is whole."""
        self.is_read = True
        body = self.asked.body
        if body is not None and body.length is None:
            self._pass(message.LAST_CHUNK)
        if self.connection is not None:
            self.connection.request_sent(self.port.monotonic())

    def _pass(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.send(data)
            return
        if self._queue is None:
            self._queue = []
        self._queue.append(data)
        self._queued += len(data)

    def flush(self) -> None:
        """Write what was read of the request, in one piece."""
        if self.connection is not None:
            self.connection.flush()
        elif self._queued > _QUEUE and not self.over:
            self.client.hold()

    def on_client_drained(self) -> None:
        """Go on reading the answer."""
        if self._is_paused and self.connection is not None:
            self._is_paused = False
            self.connection.resume()

    def break_off(self, denial: Denial) -> None:
        """End a request that can't be read to its end, for a reason on its side."""
        self._drop()
        if self._has_begun:
            self.denial = denial
            self._abort()
        else:
            self.keep_alive = False
            self._refuse(denial)

    def gone(self) -> None:
        """Note that the client is no more (R32)."""
        if self.over:
            return
        self._drop()
        if not self._id:  # its turn never came
            self._time = self.port.wall()
            headers = self.asked.headers
            fields = headers if isinstance(headers, tuple) else headers.headers
            names = self.port.names()
            self._id = request_id_from(fields, self.client.peer, names[:_ID])
        self.failure = self.failure or "client.gone"
        self._log(self.port.monotonic())

    # The upstream's side

    def on_interim(self, status: int) -> None:
        # Others are dropped: 103 has been an attack on clients before it was a help.
        if status == _CONTINUE and self._expects:
            self._expects = False
            self.client.write(message.CONTINUE)

    def on_answer(self, status: int, headers: Headers, body: Body, now: float) -> None:
        self.status = status
        permit = self.permit
        assert permit is not None
        self._upstream_time = now - self._sending_since
        fields = self.port.gate.hygiene.to_client(
            headers, vary=permit.route.access != "public"
        )
        fields.append((b"x-request-id", self._id))
        keep = self._may_keep()
        length = body.length
        asked = self.asked
        if length is None:
            if asked.modern:
                fields.append(message.CHUNKED)
                self._to_client_chunked = True
            else:
                keep = False  # its end is the end of the connection
        elif length:
            fields.append(message.content_length(length))
        elif body.declared is not None:
            fields.append(message.content_length(body.declared))
        elif asked.method != b"HEAD" and status not in _BODILESS:
            fields.append(message.content_length(0))
        if not keep:
            fields.append(message.CLOSE)
        elif not asked.modern:
            fields.append(message.KEEP_ALIVE)
        self._keep = keep
        self._out = [message.answer_head(status, fields)]

    def on_content(self, content: bytes) -> None:
        self.sent += len(content)
        self._out.append(message.chunk(content) if self._to_client_chunked else content)

    def on_progress(self) -> None:
        if not self.status:  # an interim answer only
            return
        out = self._out
        if out:
            self._has_begun = True
            self.client.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            if self.client.is_full and self.connection is not None:
                self._is_paused = True
                self.connection.pause()

    def on_end(self, now: float) -> None:
        self.connection = None
        if self._to_client_chunked:
            self._out.append(message.LAST_CHUNK)
        out = self._out
        if out:
            self.client.write(out[0] if len(out) == 1 else b"".join(out))
        self._end(now, keep=self._keep)

    def on_known(self, known: KnownAnswer, content: bytes, now: float) -> None:
        client, way = self.client, self._way
        assert way is not None
        if not self._may_keep() or not self.asked.modern:
            self.on_answer(known.status, known.headers, Body(known.length), now)
            if content:
                self.on_content(content)
            self.on_end(now)
            return
        self.status = known.status
        self.sent = known.length
        self._upstream_time = now - self._sending_since
        self.connection = None
        lines = known.lines[way.vary]
        if lines is None:
            fields = self.port.gate.hygiene.to_client(known.headers, vary=way.vary)
            fields.append(message.content_length(known.length))
            lines = message.answer_lines(known.status, fields)
            known.lines[way.vary] = lines
        client.write(
            b"".join((lines, b"x-request-id: ", self._id, b"\r\n\r\n", content))
        )
        self._log(now)
        client.done(self, keep=True, now=now)

    def on_failure(self, kind: UpstreamFailure, *, unanswered: bool) -> None:
        connection, self.connection = self.connection, None
        if self.over:
            return
        if unanswered and self._broke is None and self._may_repeat():
            # It closed while we wrote: an idle connection that had just grown too old
            # for it. Once more, and on a new one, which can't be too old (R34).
            assert connection is not None, "it has failed"
            self._broke = connection.endpoint
            self.port.spawn(self._connect())
            return
        self._fail(kind)

    def on_bug(self, error: BaseException | None) -> None:
        self.connection = None
        self.break_down(error)

    def on_upstream_full(self) -> None:
        self.client.hold()

    def on_upstream_drained(self) -> None:
        self.client.unhold()

    # The ends

    def enlist(self) -> None:
        """Let it be found by whoever learns that it is not to go on.

        It has lasted for a while: the port's sweeper says so.
        """
        permit, head = self.permit, self.head
        if self.over or permit is None or permit.reserved:
            return
        assert head is not None, "it was decided"
        self.is_listed = True
        ends, principal = _NEVER, permit.principal
        if self._ends_with_token(permit.route):
            ends = principal.expires_at + principal.leeway
        standing = Standing(principal, head, self._time, self._is_socket)
        self.port.streams.add(self, standing, ends)

    def _ends_with_token(self, route: Route) -> bool:
        return route.ends_with_token

    @property
    def _is_socket(self) -> bool:
        return False

    def end(self, denial: Denial) -> None:
        """End what is under way, though it was permitted."""
        permit = self.permit
        if self.over or permit is None:
            return
        is_expired = denial.reason is Reason.TOKEN_EXPIRED
        if is_expired and not self._has_begun and not self._is_bodyless():
            return  # it is the answer that does not outlive its token, not an upload
        self.break_off(replace(denial, route=permit.route, principal=permit.principal))

    def drain(self) -> None:
        """Learn that the port is closing: an answer may still be finished."""

    def _too_large(self, permit: Permit) -> None:
        self._refuse(
            Denial(
                Reason.BODY_TOO_LARGE, route=permit.route, principal=permit.principal
            )
        )

    def _refuse(self, denial: Denial) -> None:
        self.denial = denial
        self._answer(problems.problem(denial, request_id=self.request_id))

    def _outage(self, outage: Unavailable) -> None:
        self.outage = outage
        self._answer(problems.outage(outage, self.request_id))

    def _fail(self, kind: UpstreamFailure) -> None:
        self.failure = f"upstream.{kind}"
        if self._has_begun:
            self._abort()
            return
        upstream = self._pool.upstream.name
        self._answer(problems.upstream_failure(kind, self.request_id, upstream))

    def break_down(self, error: BaseException | None) -> None:
        """End it after a mistake of ours, which is logged and ends nothing else."""
        logger.error("request %s could not be served", self.request_id, exc_info=error)
        if self.over:
            return
        self._drop()
        self.failure = "bug"
        self.keep_alive = False
        if self._has_begun:
            self._abort()
        else:
            self._answer(problems.bug(self.request_id))

    def _answer(self, answer: Answer) -> None:
        self.status = answer.status
        self.sent = 0
        client = self.client
        keep = self._may_keep() and not answer.close
        fields = [*answer.headers]
        if not keep:
            fields.append(message.CLOSE)
        elif not self.asked.modern:
            fields.append(message.KEEP_ALIVE)
        head = message.answer_head(answer.status, fields)
        if self.asked.method == b"HEAD":
            client.write(head)
        else:
            self.sent = len(answer.body)
            client.write(head + answer.body)
        self._end(self.port.monotonic(), keep=keep)

    def _abort(self) -> None:
        self._log(self.port.monotonic())
        self.client.abort()

    def _end(self, now: float, *, keep: bool) -> None:
        self._log(now)
        self.client.done(self, keep=keep, now=now)

    def _may_repeat(self) -> bool:
        return self._is_bodyless() and self.asked.method in _IDEMPOTENT

    def _is_bodyless(self) -> bool:
        body = self.asked.body
        return body is not None and body.length == 0

    def _may_keep(self) -> bool:
        # An answer that did not wait for the end of the request ends the connection:
        # what else the client sends has nowhere to go.
        return (
            self.keep_alive
            and self.is_read
            and not self.client.is_last
            and not self.port.is_draining
        )

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.drop()

    def _log(self, now: float) -> None:
        self.over = True
        if self._entered:
            self._leave()
        if self.is_listed:
            self.port.streams.remove(self)
        try:
            self.port.gate.log(self._entry(now))
        except Exception:
            # The client's answer must not wait for what somebody wants to read of it.
            logger.exception("request %s could not be logged", self.request_id)

    def _entry(self, now: float) -> Entry:
        upstream_time = self._upstream_time
        request_id = self._id.decode("ascii")
        differs = (
            self._time,
            request_id,
            None if self.head is None else self._trace_id(request_id),
            self.received,
            self.sent,
            (now - self.started) * 1000,
            upstream_time * 1000 if upstream_time else None,
        )
        way, permit = self._way, self.permit
        if (
            way is None
            or self.failure
            or self.denial is not None
            # An outage, in which each has an age of its own.
            or (permit is not None and permit.revocation_age is not None)
        ):
            return Entry._make(differs + self._shared())
        shared = way.alike(self.status)
        if shared is None:
            shared = self._shared()
            # The last of it is the form, which is made when all else is known.
            shared = (*shared[:-1], form_of(Entry._make(differs + shared)))
            way.keep_alike(self.status, shared)
        return Entry._make(differs + shared)

    def _trace_id(self, request_id: str) -> str:
        trace_id = self.asked.trace_id
        if trace_id is not None:
            return trace_id
        # Only what a trusted peer named is called otherwise than we would call it.
        made = self._names[:_ID]
        return request_id if self._id == made else made.decode("ascii")

    def _shared(self) -> tuple[Any, ...]:
        """Return what the entries of requests like this one have in common."""
        gate, head, permit, denial = self.port.gate, self.head, self.permit, self.denial
        asked = self.asked
        known: Permit | Denial | Unavailable | None = permit
        decision, reason = "error" if permit is None else "permit", self.failure or None
        if denial is not None:
            known = denial
            decision, reason = "deny", str(denial)
        elif self.outage is not None:
            known = self.outage
            decision, reason = "outage", self.outage.dependency
        route = known.route if known is not None else None
        judged = permit or denial
        if head is None:
            method, path = asked.method.decode("latin-1"), asked.target
            host, client, token_hash = "", self.client.peer.address, None
        else:
            method, path = head.method, head.target
            host, client = head.host, head.client
            token_hash = gate.token_hash(head) or None
        return (
            decision,
            reason,
            self.status or None,
            method,
            host,
            shown(path, gate.log_query),
            route.id if route is not None else None,
            known.principal if known is not None else None,
            gate.generation,
            permit.upstream if permit is not None else None,
            client,
            token_hash,
            None if judged is None else judged.revocation_age,
            None,
        )


def _expects(headers: Headers) -> bool:
    return any(
        name == b"expect" and value.lower() == b"100-continue"
        for name, value in headers
    )

"""One request on its way through somebody's ASGI application: read, refused, forwarded.

Imports: gateway.clock, gateway.config.settings, gateway.identity.signer,
gateway.model, gateway.observe.access, gateway.wire, starlette.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.identity.signer import Signed
from gateway.model import (
    Denial,
    Headers,
    Peer,
    Permit,
    Reason,
    RequestHead,
    Unavailable,
)
from gateway.observe.access import Decision, Entry, shown
from gateway.wire import problems
from gateway.wire.forwarded import (
    TRACE_BYTES,
    new_traceparent,
    request_id_from,
    traceparent_of,
)
from gateway.wire.framing import EMPTY, Body, check_request, fields_are_clean
from gateway.wire.headers import Hygiene
from gateway.wire.problems import Answer
from gateway.wire.request import Networks, peer_of, read_head
from gateway.wire.websocket import is_token

# Framing is the server's: it has parsed the message, and the application reads these.
FRAMING = frozenset({b"content-length", b"transfer-encoding"})

# What an application may say to a client; all of `websocket.` besides. Trailers, pushes
# and early hints would carry fields that nobody has cleaned (R14).
_ANSWERS = frozenset({"http.response.start", "http.response.body"})

# Of HTTP/2 and 3: their frames say where a message ends.
_FRAMED = frozenset({"2", "3"})


class Engine(Protocol):
    """What the middleware needs of whoever composed it."""

    settings: Settings
    clock: Clock
    hygiene: Hygiene

    @property
    def generation(self) -> str: ...
    async def start(self) -> None: ...
    async def aclose(self) -> None: ...
    async def decide(self, head: RequestHead, now: float) -> Permit | Denial: ...
    def identity(
        self, permit: Permit, head: RequestHead, request_id: bytes, now: float
    ) -> Signed | Denial: ...
    def token_hash(self, head: RequestHead) -> str: ...


class Passage:
    """One request on its way through the middleware."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        # Once, before anything else: a server may append trailers to the same list
        # later (R14).
        self.headers: Headers = tuple(
            (name.lower(), value) for name, value in scope["headers"]
        )
        self.receive = receive
        self.send = send
        self.method: str = scope.get("method", "GET")  # a WebSocket's has none
        query = scope.get("query_string", b"")
        self.target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
        self.peer = Peer("")
        self.request_id = ""
        self.traceparent = b""  # as received, else as made; none where none is read
        self.body = EMPTY  # as its head declares it
        self.head: RequestHead | None = None
        self.permit: Permit | None = None
        self.denial: Denial | None = None
        self.outage: Unavailable | None = None
        self.status = 0
        self.received = 0  # bytes of the body
        self.sent = 0  # bytes of the body

    def read(
        self, random: Callable[[int], bytes], proxies: Networks
    ) -> RequestHead | Denial:
        """Read the head; keep it for the log."""
        scope = self.scope
        client = scope.get("client")
        self.peer = peer_of(client[0] if client else "", proxies)
        made = random(TRACE_BYTES)
        # A trace that begins here has the request's own id.
        found = request_id_from(self.headers, self.peer, hexlify(made[:16]))
        self.request_id = found.decode("ascii")
        body = self._framing()
        if isinstance(body, Denial):
            return body
        self.body = body
        secure = scope.get("scheme") in {"https", "wss"}
        head = read_head(
            kind="websocket" if scope["type"] == "websocket" else "http",
            method=self.method,
            scheme="https" if secure else "http",
            target=self.target,
            headers=self.headers,
            peer=self.peer,
            proxies=proxies,
        )
        if isinstance(head, RequestHead):
            self.head = head
            self.traceparent = traceparent_of(head.headers) or new_traceparent(made)
        return head

    async def refuse(self, denial: Denial) -> None:
        """Answer with what *denial* means to a client."""
        self.denial = denial
        await self._answer(problems.problem(denial, request_id=self.request_id))

    async def break_off(self, outage: Unavailable) -> None:
        """Answer that something we depend on is away."""
        self.outage = outage
        await self._answer(problems.outage(outage, self.request_id))

    async def forward(
        self,
        app: ASGIApp,
        fields: Sequence[tuple[bytes, bytes]],
        limit: int,
        hygiene: Hygiene,
    ) -> None:
        """Let *app* answer, as the upstream that it is.

        Args:
            app: The application, or our own endpoints.
            fields: What it may see, without the framing.
            limit: The longest body, in bytes.
            hygiene: Applied to its answer.
        """
        assert self.permit is not None
        if (self.body.length or 0) > limit:
            await self.refuse(self._body_too_large())
            return
        framing = [
            (name, value)
            for name, value in self.headers
            if name in FRAMING or name == b"host"
        ]
        inner = dict(self.scope)
        inner["headers"] = [*framing, *fields]
        extensions = self.scope.get("extensions") or {}
        inner["extensions"] = {
            name: said
            for name, said in extensions.items()
            if not name.startswith("http.response.")
        }
        if "subprotocols" in inner and not self.permit.route.pass_credentials:
            inner["subprotocols"] = [
                name
                for name in inner["subprotocols"]
                if not is_token(name.encode("latin-1", "replace"))
            ]
        # All three from what was decided: the server's reading of the path may differ.
        path, _, query = self.permit.target.partition(b"?")
        inner["raw_path"], inner["query_string"] = path, query
        inner["path"] = unquote(path.decode("ascii"))
        too_large = False

        async def receive() -> Message:
            nonlocal too_large
            message = await self.receive()
            if message["type"] == "http.request":
                self.received += len(message.get("body", b""))
                if self.received > limit:
                    # The application sees a client that went away; the client is
                    # told why, unless the answer has already begun.
                    too_large = True
                    self.denial = self._body_too_large()
                    return {"type": "http.disconnect"}
            return message

        async def send(message: Message) -> None:
            kind = message["type"]
            if too_large or not (kind in _ANSWERS or kind.startswith("websocket.")):
                return
            if kind in {
                "http.response.start",
                "websocket.accept",
                "websocket.http.response.start",
            }:
                message = self._to_client(message, hygiene)
            elif kind == "http.response.body":
                self.sent += len(message.get("body", b""))
            await self.send(message)

        try:
            await app(inner, receive, send)
        except Exception:
            # What an application makes of the disconnect is no failure of its own.
            if not too_large:
                raise
        if too_large and not self.status:
            await self.refuse(self._body_too_large())

    def entry(self, now: float, seconds: float, engine: Engine) -> Entry:
        """Return the line of the access log.

        Args:
            now: When it came, Unix seconds.
            seconds: How long it took.
            engine: What decided.
        """
        head, permit = self.head, self.permit
        decided = self.denial or self.outage or permit
        judged = permit or self.denial
        route = decided.route if decided else None
        reason: str | None = None
        decision: Decision = "error"
        if self.denial is not None:
            decision, reason = "deny", str(self.denial)
        elif self.outage is not None:
            decision, reason = "outage", self.outage.dependency
        elif permit is not None:
            decision = "permit"
        return Entry(
            now,
            self.request_id,
            trace_id=self.traceparent[3:35].decode("ascii") if head else None,
            decision=decision,
            reason=reason,
            status=self.status or None,
            method=self.method,
            host=head.host if head else "",
            path=shown(self.target, engine.settings.log_query),
            client=head.client if head else self.peer.address,
            token_hash=(engine.token_hash(head) or None) if head else None,
            route=route.id if route else None,
            principal=decided.principal if decided else None,
            generation=engine.generation,
            upstream=permit.upstream if permit else None,
            revocation_age=judged.revocation_age if judged else None,
            bytes_in=self.received,
            bytes_out=self.sent,
            ms=seconds * 1000,
        )

    def _framing(self) -> Body | Denial:
        """Check what servers let through: two lengths, and controls in fields."""
        if self.scope["type"] == "websocket":
            if fields_are_clean(self.headers):
                return EMPTY
            return Denial(Reason.REQUEST_MALFORMED, "field")
        version = self.scope.get("http_version", "1.1")
        if version in _FRAMED:
            if any(name == b"transfer-encoding" for name, _ in self.headers):
                return Denial(Reason.REQUEST_MALFORMED, "transfer-encoding")
            version = "1.1"
        method = self.method.encode("utf-8", "replace")
        return check_request(method, version, self.headers, upgrade=False)

    def _to_client(self, message: Message, hygiene: Hygiene) -> Message:
        assert self.permit is not None
        received = tuple(
            (name.lower(), value) for name, value in message.get("headers", ())
        )
        fields = hygiene.to_client(received, vary=self.permit.route.access != "public")
        fields += [field for field in received if field[0] in FRAMING]
        fields.append((b"x-request-id", self.request_id.encode("ascii")))
        self.status = message.get("status", 101)
        message = {**message, "headers": fields}
        message.pop("trailers", None)  # the server would wait for them
        return message

    def _body_too_large(self) -> Denial:
        assert self.permit is not None
        permit = self.permit
        return Denial(
            Reason.BODY_TOO_LARGE, route=permit.route, principal=permit.principal
        )

    async def _answer(self, answer: Answer) -> None:
        self.status = answer.status
        kind = "http.response"
        if self.scope["type"] == "websocket":
            if "websocket.http.response" not in self.scope.get("extensions", {}):
                # Without the extension a server answers a close before the accept
                # with 403: less exact, as closed.
                await self.receive()
                await self.send({"type": "websocket.close", "code": 1008})
                return
            kind = "websocket.http.response"
            await self.receive()
        start = {"status": answer.status, "headers": list(answer.headers)}
        await self.send({"type": f"{kind}.start", **start})
        await self.send({"type": f"{kind}.body", "body": answer.body})

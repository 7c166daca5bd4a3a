"""The third door: the gateway inside somebody's own ASGI application.

It decides by the same main path as the data port, and the application then receives
what an upstream would: the client's own credential and every reserved name taken out,
the signed identity written in. It only wraps: nothing runs before the first request,
and the application's lifespan is its own.

The target is judged on `raw_path`, the bytes that came over the wire. A server that
does not hand them on leaves nothing to judge, so it is refused (R1).

Imports: gateway.asgi.passage, gateway.model, gateway.observe.access, gateway.wire,
starlette.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.asgi.passage import FRAMING, Engine, Passage
from gateway.model import Denial, Permit, Reason, Unavailable
from gateway.observe.access import Entry
from gateway.wire.forwarded import forwarding_fields

# An application dispatches by the decoded path, in which these are separators.
_SEPARATORS = frozenset({"%2F", "%5C"})

E = TypeVar("E", bound=Engine)


class Guard(Generic[E]):
    """Wraps *app*; only what the policy permits reaches it.

    Args:
        app: The application.
        make_engine: Makes what decides; once for each lifespan.
        own: Our own endpoints, served in place.
        service: The name of the service whose routes lead to *app*.
        log: Takes one entry for each request; never waits.
        random: Unpredictable bytes, as many as asked for.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        make_engine: Callable[[], E],
        own: ASGIApp,
        service: str,
        log: Callable[[Entry], None],
        random: Callable[[int], bytes],
    ) -> None:
        self.app = app
        self.engine = make_engine()
        self._make_engine = make_engine
        self._own = own
        self._service = service
        self._log = log
        self._random = random
        self._is_started = False
        self._is_closed = False
        self._starting = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide what *scope* describes, then pass it on or refuse it."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope.get("raw_path") is None:
            raise RuntimeError("this server gives no raw_path: nothing can be judged")
        if not self._is_started:
            await self._start()
        engine = self.engine
        passage = Passage(scope, receive, send)
        now = engine.clock.wall()
        began = engine.clock.monotonic()
        try:
            await self._pass(passage, engine, now)
        finally:
            took = engine.clock.monotonic() - began
            self._log(passage.entry(now, took, engine))

    async def _start(self) -> None:
        """Start the engine once; whoever waits here tries again if it did not start."""
        async with self._starting:
            if self._is_started:
                return
            if self._is_closed:
                # What it held is closed for good.
                self.engine = self._make_engine()
                self._is_closed = False
            await self.engine.start()
            self._is_started = True

    async def _close(self) -> None:
        # The next lifespan may run in another loop, to which this lock does not belong.
        self._starting = asyncio.Lock()
        self._is_started, self._is_closed = False, True
        await self.engine.aclose()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self._close()
            await send(message)

        await self.app(scope, receive, sent)

    async def _pass(self, passage: Passage, engine: E, now: float) -> None:
        head = passage.read(self._random, engine.settings.server.trusted_proxies)
        if isinstance(head, Denial):
            await passage.refuse(head)
            return
        try:
            outcome = await engine.decide(head, now)
        except Unavailable as outage:
            await passage.break_off(outage)
            return
        if isinstance(outcome, Permit) and not self._leads_here(outcome):
            outcome = Denial(Reason.ROUTE_UNKNOWN, route=outcome.route)
        if isinstance(outcome, Permit) and head.escapes & _SEPARATORS:
            # Even if the route allows it: what was decided for one segment would be
            # dispatched as two, to another handler.
            outcome = Denial(
                Reason.TARGET_AMBIGUOUS,
                "escape",
                route=outcome.route,
                principal=outcome.principal,
            )
        if isinstance(outcome, Denial):
            await passage.refuse(outcome)
            return
        passage.permit = outcome
        signed = engine.identity(outcome, head, passage.request_id.encode("ascii"), now)
        keep = outcome.route.pass_credentials
        fields = engine.hygiene.to_upstream(
            head.headers, drop=FRAMING, keep_credentials=keep
        )
        for refused in (signed, fields):
            if isinstance(refused, Denial):
                await passage.refuse(refused)
                return
        assert not isinstance(signed, Denial)
        assert not isinstance(fields, Denial)
        fields += forwarding_fields(head, passage.request_id, passage.traceparent)
        limit = outcome.route.max_body
        if limit is None:
            limit = engine.settings.server.max_body
        app = self._own if outcome.reserved else self.app
        await passage.forward(app, [*fields, *signed.fields], limit, engine.hygiene)

    def _leads_here(self, permit: Permit) -> bool:
        return permit.reserved or permit.route.service == self._service

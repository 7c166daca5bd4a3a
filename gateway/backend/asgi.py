"""Verify the gateway's assertion before an ASGI app sees the request.

Pure ASGI, http and websocket. The identity is then in `scope["gateway.identity"]` and
`request.state.identity`. Where keys have to be fetched, a thread does it; requests
signed with a key that is known are served meanwhile.

Imports: gateway.backend.answers, gateway.backend.guard, gateway.backend.keys,
gateway.backend.verify.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http import HTTPStatus
from typing import Any

from gateway.backend.answers import NO_KEYS, UNSIGNED, problem
from gateway.backend.guard import KEY, Refused
from gateway.backend.keys import KeysUnavailable
from gateway.backend.verify import HEADER, Fault, Identity, IdentityError, Verifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_NAME = HEADER.encode("ascii")
# What a WebSocket is closed with before it is accepted, where the server can't send a
# real status; the server makes it 403.
_CLOSED = {HTTPStatus.SERVICE_UNAVAILABLE: 1013, HTTPStatus.FORBIDDEN: 4403}

log = logging.getLogger("gateway.backend")


class IdentityMiddleware:
    """Lets pass what the gateway signed. Belongs outside of everything else."""

    def __init__(
        self,
        app: App,
        verifier: Verifier,
        *,
        optional: bool = False,
        exempt: Collection[str] = (),
    ) -> None:
        """Wrap *app*.

        Args:
            app: Any ASGI app.
            verifier: Of this service.
            optional: Let pass what carries no assertion, without an identity. One that
                can't be believed is refused nevertheless.
            exempt: Paths that are served without looking, such as a health check;
                whole and decoded, as in `scope["path"]`.
        """
        self._app = app
        self._verifier = verifier
        self._optional = optional
        self._exempt = frozenset(exempt)
        self._fetching = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        who = None
        if scope["path"] not in self._exempt:
            try:
                who = await self._verify(scope)
            except IdentityError as error:
                if error.reason is not Fault.MISSING or not self._optional:
                    log.warning("identity refused: %s", error.reason)
                    await _refuse(scope, send, HTTPStatus.UNAUTHORIZED, UNSIGNED)
                    return
            except KeysUnavailable:
                log.warning("the gateway's keys can't be had")
                await _refuse(scope, send, HTTPStatus.SERVICE_UNAVAILABLE, NO_KEYS)
                return
        await self._serve(scope, receive, send, who)

    async def _verify(self, scope: Scope) -> Identity:
        values = [value for name, value in scope["headers"] if name == _NAME]
        # One fetches in a thread, the others wait here without one: a burst at the
        # start must not take every thread that the app has.
        if self._verifier.key_wanted(values) is not None:
            async with self._fetching:
                key_id = self._verifier.key_wanted(values)
                if key_id is not None:
                    await asyncio.to_thread(self._verifier.keys.refresh, key_id)
        return self._verifier.verify(
            values,
            method=scope.get("method", "GET"),  # a WebSocket's handshake is a GET
            target=_target(scope),
            headers=scope["headers"],
        )

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, who: Identity | None
    ) -> None:
        """Let the app answer, and answer for what its guards refuse."""
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        state = {**scope.get("state", {}), "identity": who}
        try:
            await self._app({**scope, KEY: who, "state": state}, receive, noting)
        except Refused as refused:
            if started:
                raise
            await _refuse(scope, send, refused.status, refused.detail)


def _target(scope: Scope) -> bytes | None:
    """Return path and query as received; None: the server does not say."""
    path: bytes | None = scope.get("raw_path")
    if path is None:
        return None
    query: bytes = scope.get("query_string", b"")
    return path + b"?" + query if query else path


async def _refuse(scope: Scope, send: Send, status: HTTPStatus, detail: str) -> None:
    """Answer with *status*; a WebSocket before it is accepted."""
    fields, body = problem(status, detail)
    headers = [(name.encode(), value.encode()) for name, value in fields]
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            code = _CLOSED.get(status, 4401)
            await send({"type": "websocket.close", "code": code, "reason": detail})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": int(status), "headers": headers})
    await send({"type": f"{kind}.body", "body": body})

"""The admin port: what an operator may tell a running gateway, and ask it.

Nothing here is without authentication: the Unix socket has mode 0600, and on loopback
a bearer token is asked for.

Imports: gateway.asgi, gateway.model, gateway.tokens.key_status, starlette.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.asgi.answers import away, problem, read_body
from gateway.asgi.api_keys import CarryOut, key_routes
from gateway.model import Unavailable
from gateway.tokens.key_status import KeyReport, dump

RevocationKind = Literal["token", "session", "subject", "client"]
NAMES: dict[str, RevocationKind] = {
    "jti": "token",
    "sid": "session",
    "sub": "subject",
    "client": "client",
}
MAX_VALUE = 255  # characters: as long as a subject may be (R44)
MAX_BODY = 16 * 1024  # bytes; an order is a few hundred


@dataclass(frozen=True, slots=True)
class RevocationOrder:
    """What `POST /-/revocations` asks for."""

    issuer: str  # a name in gateway.toml
    kind: RevocationKind
    value: str
    reason: str = ""


def admin(
    revoke: Callable[[RevocationOrder], Awaitable[float]],
    issuers: Callable[[], frozenset[str]],
    order_keys: CarryOut,
    keys: Callable[[], Awaitable[KeyReport]],
    token: str | None = None,
) -> Starlette:
    """Return the app of the admin port.

    Args:
        revoke: Carries an order out; returns until when the entry is kept (Unix
            seconds). Raises Unavailable when the store did not acknowledge it, and
            ValueError when no token can be meant.
        issuers: The names an order may give.
        order_keys: Carries out orders about API keys; see gateway.asgi.api_keys.
        keys: Says how all keys are.
        token: Asked for as a bearer token, unless None.
    """

    def is_refused(request: Request) -> Response | None:
        if token is None:
            return None
        given = request.headers.getlist("authorization")
        wanted = f"Bearer {token}".encode()
        if len(given) == 1 and hmac.compare_digest(given[0].encode(), wanted):
            return None
        answer = problem(401, "The admin token is asked for.", "admin_token")
        answer.headers["www-authenticate"] = 'Bearer realm="gateway admin"'
        return answer

    async def revocations(request: Request) -> Response:
        refused = is_refused(request)
        if refused is not None:
            return refused
        body = await read_body(request, MAX_BODY)
        order = "the body is too large" if body is None else _order(body, issuers())
        if isinstance(order, str):
            return problem(400, order, "invalid_order")
        try:
            until = await revoke(order)
        except ValueError as error:
            return problem(400, str(error), "invalid_order")
        except Unavailable as outage:
            # R62: nothing is said to be revoked that the store has not acknowledged.
            return away(outage, "nothing was revoked")
        return JSONResponse(
            {"issuer": order.issuer, "kind": order.kind, "until": until},
            headers={"cache-control": "no-store"},
        )

    async def key_report(request: Request) -> Response:
        refused = is_refused(request)
        if refused is not None:
            return refused
        return Response(
            dump(await keys()),
            media_type="application/json",
            headers={"cache-control": "no-store"},
        )

    return Starlette(
        routes=[
            Route("/-/revocations", revocations, methods=["POST"]),
            Route("/-/keys", key_report, methods=["GET"]),
            *key_routes(order_keys, is_refused),
        ]
    )


def _order(body: bytes, issuers: frozenset[str]) -> RevocationOrder | str:
    """Return the order in *body*, or what is wrong with it."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    if not isinstance(said, dict):
        return "the body is not an object"
    unknown = said.keys() - {"issuer", "reason", *NAMES}
    if unknown:
        return f"known keys are: issuer, reason, {', '.join(NAMES)}"
    given = [name for name in NAMES if name in said]
    if len(given) != 1:
        return f"exactly one of {', '.join(NAMES)} is needed"
    value, issuer, reason = said[given[0]], said.get("issuer"), said.get("reason", "")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_VALUE:
        return f"{given[0]} is not a string of 1 to {MAX_VALUE} characters"
    if not value.isprintable():  # lone surrogates have no UTF-8 either
        return f"{given[0]} holds characters that no token can"
    if not isinstance(reason, str):
        return "reason is not a string"
    if issuer is None and len(issuers) == 1:
        (issuer,) = issuers
    if not isinstance(issuer, str) or issuer not in issuers:
        return f"issuer must be one of: {', '.join(sorted(issuers))}"
    return RevocationOrder(issuer, NAMES[given[0]], value, reason)

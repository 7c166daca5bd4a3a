"""The admin port: what an operator may tell a running gateway, and ask it.

Nothing here is without authentication: the Unix socket has mode 0600, and on loopback
a bearer token is asked for.

Imports: gateway.asgi, gateway.tokens.key_status, starlette.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.asgi import api_keys, revocation_list, revocations
from gateway.asgi.answers import problem
from gateway.tokens.key_status import KeyReport, dump


def admin(
    revoke: revocations.CarryOut,
    inquire: revocation_list.Inquire,
    order_keys: api_keys.CarryOut,
    keys: Callable[[], Awaitable[KeyReport]],
    token: str | None = None,
) -> Starlette:
    """Return the app of the admin port.

    Args:
        revoke: Carries out orders to revoke; see gateway.asgi.revocations.
        inquire: Says what the revocation list holds; see
            gateway.asgi.revocation_list.
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
            Route("/-/keys", key_report, methods=["GET"]),
            *revocations.revocation_routes(revoke, is_refused),
            *revocation_list.list_routes(inquire, is_refused),
            *api_keys.key_routes(order_keys, is_refused),
        ]
    )

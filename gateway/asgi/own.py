"""The endpoints of our own that clients and backends may reach through the data port.

Imports: gateway.asgi, starlette.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.asgi.answers import problem
from gateway.asgi.logout import LogoutEndpoint
from gateway.asgi.tickets import TicketEndpoint

KEY_SET_PATH = "/.well-known/gateway-identity/jwks.json"


def own_endpoints(
    prefix: str,
    key_set: Callable[[], bytes],
    tickets: TicketEndpoint,
    logout: LogoutEndpoint | None = None,
) -> Starlette:
    """Return the app behind the upstream `self`.

    Args:
        prefix: [server].own_prefix.
        key_set: The JWK Set that verifies our assertions (RFC 7517 section 5).
        tickets: Gives them.
        logout: Takes logout tokens; None: no issuer sends any.
    """

    async def identity_keys(_request: Request) -> Response:
        return Response(
            key_set(),
            media_type="application/jwk-set+json",
            # Short: a backend should see the next key before it signs.
            headers={"cache-control": "public, max-age=300"},
        )

    async def refused(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        answer = problem(status, "Not one of the gateway's endpoints.", "own_endpoint")
        if isinstance(error, HTTPException) and error.headers:
            answer.headers.update(error.headers)  # Allow, on 405
        return answer

    routes = [
        Route(KEY_SET_PATH, identity_keys, methods=["GET"]),
        Route(f"{prefix}/ticket", tickets.answer, methods=["POST"]),
    ]
    if logout is not None:
        path = f"{prefix}/backchannel-logout"
        routes.append(Route(path, logout.answer, methods=["POST"]))
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: refused},
    )

"""`POST <own_prefix>/backchannel-logout`: an issuer says that a session has ended.

OpenID Connect Back-Channel Logout 1.0, sections 2.5 and 2.8. Whoever calls learns
whether it was done, and nothing else.

Imports: gateway.asgi.answers, gateway.model, gateway.wire.problems, starlette.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from gateway.asgi.answers import read_body, response
from gateway.model import Unavailable
from gateway.wire import problems

MAX_BODY = 16 * 1024  # bytes
MAX_FIELDS = 16
FORM = "application/x-www-form-urlencoded"
_NO_STORE = {"cache-control": "no-store"}


class LogoutEndpoint:
    """Answers whether a logout token has ended what it names.

    Args:
        carry_out: Tells whether it has; False: it is a bad one. Raises Unavailable
            where the store did not acknowledge it.
    """

    def __init__(self, carry_out: Callable[[str], Awaitable[bool]]) -> None:
        self._carry_out = carry_out

    async def answer(self, request: Request) -> Response:
        """Answer *request*, which a door of this gateway has let through."""
        token = await _token(request)
        try:
            is_done = token is not None and await self._carry_out(token)
        except Unavailable as outage:
            request_id = request.headers.get("x-request-id", "")
            return response(problems.outage(outage, request_id))
        if is_done:
            return Response(status_code=200, headers=_NO_STORE)
        # RFC 6749 section 5.2 has the words. Which check has failed is in the log.
        return Response(
            json.dumps({"error": "invalid_request"}),
            status_code=400,
            media_type="application/json",
            headers=_NO_STORE,
        )


async def _token(request: Request) -> str | None:
    """Return the one logout token in the form; None: there is none, or no form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, MAX_BODY)
    if kind != FORM or body is None:
        return None
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    # Others may stand beside it (section 2.5).
    found = fields.get("logout_token", [])
    return found[0] if len(found) == 1 else None

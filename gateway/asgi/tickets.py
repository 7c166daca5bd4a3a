"""`POST <own_prefix>/ticket`: one's own credential, for one request, in a URL.

What is asked for is decided as if it came itself, with the credential of the one who
asks; only what is permitted gets a ticket. Redemption is gateway.decision's affair.

Imports: gateway.asgi.answers, gateway.model, gateway.tokens.strict_json,
gateway.tokens.tickets, gateway.wire, starlette.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.asgi.answers import problem, response
from gateway.model import Denial, Peer, RequestHead, Unavailable
from gateway.tokens.strict_json import loads
from gateway.tokens.tickets import LIFE
from gateway.wire import problems
from gateway.wire.request import Networks, read_head

MAX_BODY = 16 * 1024  # bytes; as long as a head may be

Give = Callable[[RequestHead], Awaitable[str | Denial | None]]


class TicketEndpoint:
    """Answers with a ticket, or why there is none.

    Args:
        give: Returns a ticket for a request; None where its route takes none. Raises
            Unavailable.
        proxies: [server].trusted_proxies.
    """

    def __init__(self, give: Give, proxies: Networks) -> None:
        self._give = give
        self._proxies = proxies

    async def answer(self, request: Request) -> Response:
        """Answer *request*, which a door of this gateway has let through."""
        if request.headers.get("content-type") != "application/json":
            # Exactly: a page elsewhere can send other types without being asked (R92).
            return problem(415, "The body is application/json.", "invalid_ticket_order")
        order = await self._order(request)
        if isinstance(order, str):
            return problem(400, order, "invalid_ticket_order")
        request_id = request.headers.get("x-request-id", "")
        head = self._head(request, *order)
        try:
            given = head if isinstance(head, Denial) else await self._give(head)
        except Unavailable as outage:
            return response(problems.outage(outage, request_id))
        if isinstance(given, Denial):
            return response(problems.problem(given, request_id=request_id))
        if given is None:
            return problem(400, "Nothing at this path takes tickets.", "no_tickets")
        return JSONResponse(
            {"ticket": given, "expires_in": int(LIFE)},
            headers={"cache-control": "no-store"},
        )

    async def _order(self, request: Request) -> tuple[str, bytes] | str:
        """Return method and target that are asked for, or what is wrong with them."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return "The body is too large."
        said = loads(body)
        if said is None or said.keys() != {"method", "path"}:
            return 'The body is a JSON object with "method" and "path".'
        method, path = said["method"], said["path"]
        if not isinstance(method, str) or not isinstance(path, str):
            return '"method" and "path" are strings.'
        # What is not ASCII is no target; it is refused as one.
        return method, path.encode("utf-8")

    def _head(
        self, request: Request, method: str, target: bytes
    ) -> RequestHead | Denial:
        """Return the head of the request that the ticket is for."""
        return read_head(
            kind="http",
            method=method,
            scheme="https" if request.url.scheme == "https" else "http",
            target=target,
            headers=tuple((name.lower(), value) for name, value in request.headers.raw),
            # Ourselves: the forwarding fields were written by the door.
            peer=Peer("", trusted=True),
            proxies=self._proxies,
        )

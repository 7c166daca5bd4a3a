"""gateway.asgi.tickets: who asks for a ticket, and is answered why not."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from gateway.asgi.tickets import MAX_BODY, TicketEndpoint
from gateway.model import Denial, Reason, RequestHead, Unavailable

GOOD = {"method": "GET", "path": "/api/orders/files/a?b=%20"}
JSON = {"content-type": "application/json"}


class Counter:
    """Gives what it is told to, and remembers for what."""

    def __init__(self, given: str | Denial | Unavailable | None = "t-1") -> None:
        self.given = given
        self.heads: list[RequestHead] = []

    async def give(self, head: RequestHead) -> str | Denial | None:
        self.heads.append(head)
        if isinstance(self.given, Unavailable):
            raise self.given
        return self.given

    async def ask(
        self, body: Any = GOOD, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        endpoint = TicketEndpoint(self.give, (ip_network("10.0.0.0/8"),))
        app = Starlette(routes=[Route("/t", endpoint.answer, methods=["POST"])])
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://api.example"
        ) as client:
            return await client.post(
                "/t", content=content, headers={**JSON, **(headers or {})}
            )


async def test_a_ticket_is_given_for_what_would_be_permitted() -> None:
    """Asked as the request itself: its target, the caller's own fields and address."""
    counter = Counter()
    answer = await counter.ask(
        headers={
            "authorization": "Bearer abc",
            "x-forwarded-for": "192.0.2.9, 10.1.1.1",
            "x-forwarded-proto": "https",
        }
    )

    assert answer.status_code == 200
    assert answer.json() == {"ticket": "t-1", "expires_in": 30}
    assert answer.headers["cache-control"] == "no-store"
    (head,) = counter.heads
    assert (head.method, head.target) == ("GET", b"/api/orders/files/a?b=%20")
    assert (head.host, head.scheme) == ("api.example", "https")
    assert head.client == "192.0.2.9"
    assert (b"authorization", b"Bearer abc") in head.headers


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (Denial(Reason.CREDENTIAL_MISSING), 401, "credential_required"),
        (Denial(Reason.TOKEN_REVOKED), 401, "invalid_token"),
        (Denial(Reason.PERMISSION_MISSING, needed=("a:b",)), 403, "forbidden"),
        (Denial(Reason.ROUTE_UNKNOWN), 404, "not_found"),
        (Unavailable("ticket store"), 503, "unavailable"),
        (None, 400, "no_tickets"),
    ],
)
async def test_a_refusal_is_what_the_request_would_meet(
    given: Denial | Unavailable | None, status: int, code: str
) -> None:
    """Challenge and Retry-After included."""
    answer = await Counter(given).ask(headers={"x-request-id": "r-7"})

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) is (status in {401, 403})
    assert ("retry-after" in answer.headers) is (status == 503)
    assert code == "no_tickets" or answer.json()["instance"] == "urn:request:r-7"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        {},
        {"method": "GET"},
        {**GOOD, "ttl": 3600},
        {**GOOD, "path": 1},
        {**GOOD, "method": None},
        b'{"method": "GET", "path": "/a", "path": "/b"}',
        b'{"method": "GET", "path": "/a"}' + b" " * MAX_BODY,
    ],
)
async def test_an_order_is_strict_json_and_nothing_else(body: Any) -> None:
    """What nobody can read in two ways (R43), of a bounded size."""
    counter = Counter()
    answer = await counter.ask(body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_ticket_order")
    assert not counter.heads


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({**GOOD, "path": "/a/../b"}, 400),
        ({**GOOD, "path": "https://other.example/a"}, 400),
        ({**GOOD, "path": "/é"}, 400),
        ({**GOOD, "path": "/a\r\nx: y"}, 400),
        ({**GOOD, "path": "/a#b"}, 400),
        ({**GOOD, "method": "CONNECT"}, 405),
        ({**GOOD, "method": "GET\0"}, 405),
    ],
)
async def test_a_target_is_read_like_any_other(
    order: dict[str, str], status: int
) -> None:
    """Ambiguous ones are refused (R10)."""
    counter = Counter()

    assert (await counter.ask(order)).status_code == status
    assert not counter.heads


async def test_only_json_is_read() -> None:
    """A form of a page elsewhere can send text without being asked (R92)."""
    counter = Counter()
    answer = await counter.ask(headers={"content-type": "text/plain"})

    assert answer.status_code == 415
    assert not counter.heads

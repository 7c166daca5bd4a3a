"""gateway.asgi.own: our endpoints behind the data port."""

from __future__ import annotations

import httpx2

from gateway.asgi.own import KEY_SET_PATH, own_endpoints
from gateway.asgi.tickets import TicketEndpoint
from gateway.model import RequestHead


async def no_ticket(_: RequestHead) -> None:
    """Give none."""


async def ask(method: str, path: str) -> httpx2.Response:
    tickets = TicketEndpoint(no_ticket, ())
    app = own_endpoints("/gw/auth", lambda: b'{"keys":[]}', tickets)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://self"
    ) as client:
        return await client.request(method, path)


async def test_backends_find_the_keys_that_verify_our_assertions() -> None:
    """A JWK Set at a well-known place, cacheable for minutes."""
    answer = await ask("GET", KEY_SET_PATH)

    assert answer.status_code == 200
    assert answer.json() == {"keys": []}
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert "max-age=300" in answer.headers["cache-control"]


async def test_tickets_are_given_below_our_own_prefix() -> None:
    """By POST alone."""
    assert (await ask("POST", "/gw/auth/ticket")).status_code == 415
    assert (await ask("GET", "/gw/auth/ticket")).status_code == 405
    assert (await ask("POST", "/auth/ticket")).status_code == 404


async def test_what_is_not_there_is_a_problem_document() -> None:
    """404, and 405 with Allow, both as application/problem+json."""
    missing = await ask("GET", "/auth/nothing")
    wrong = await ask("POST", KEY_SET_PATH)

    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert "GET" in wrong.headers["allow"]
    for answer in (missing, wrong):
        assert answer.headers["content-type"] == "application/problem+json"

"""gateway.asgi.api_keys: orders about keys, as they come over the admin port."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from gateway.asgi.admin import admin
from gateway.asgi.api_keys import (
    MAX_BODY,
    OVERLAP,
    KeyOrder,
    KeyRefused,
    Told,
    Verb,
    order_from,
)
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import Orders
from gateway.model import Unavailable
from gateway.tokens.key_status import KeyReport


class Desk:
    """Remembers its orders, and answers as it is told."""

    def __init__(self, outcome: Exception | None = None) -> None:
        self.orders: list[KeyOrder] = []
        self.outcome = outcome

    async def carry_out(self, order: KeyOrder) -> Told:
        self.orders.append(order)
        if self.outcome is not None:
            raise self.outcome
        return {"id": order.id, "key": "the key"}


async def revoke(orders: Orders) -> Told:
    raise AssertionError(orders)


async def inquire(inquiry: Inquiry) -> Told:
    raise AssertionError(inquiry)


async def no_keys() -> KeyReport:
    return KeyReport((), ())


async def ask(
    desk: Desk, method: str, path: str, body: Any = None, token: str | None = None
) -> httpx2.Response:
    app = admin(revoke, inquire, desk.carry_out, no_keys, token)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://admin"
    ) as client:
        return await client.request(method, "/-/api-keys" + path, content=content)


WHO = {
    "owner": "billing",
    "roles": ["customer"],
    "scopes": ["orders:read"],
    "networks": ["10.0.0.0/8"],
    "lifetime": 3600,
    "not_before": 1.5,
    "note": "nightly",
    "id": "k1",
    "sha256": "ab" * 32,
}


@pytest.mark.parametrize(
    ("method", "path", "body", "order", "status"),
    [
        ("GET", "", None, KeyOrder("list"), 200),
        ("GET", "/k1", None, KeyOrder("show", id="k1"), 200),
        (
            "POST",
            "",
            WHO,
            KeyOrder(
                "create",
                id="k1",
                owner="billing",
                roles=("customer",),
                scopes=("orders:read",),
                networks=("10.0.0.0/8",),
                lifetime=3600,
                not_before=1.5,
                sha256="ab" * 32,
                note="nightly",
            ),
            201,
        ),
        ("POST", "/k1/rotate", None, KeyOrder("rotate", id="k1"), 200),
        (
            "POST",
            "/k1/rotate",
            {"overlap": 0, "lifetime": 60},
            KeyOrder("rotate", id="k1", overlap=0, lifetime=60),
            200,
        ),
        ("POST", "/k1/revoke", {}, KeyOrder("revoke", id="k1"), 200),
        (
            "POST",
            "/k1/revoke",
            {"reason": "INC-7"},
            KeyOrder("revoke", id="k1", reason="INC-7"),
            200,
        ),
    ],
)
async def test_each_order_is_understood(
    method: str, path: str, body: Any, order: KeyOrder, status: int
) -> None:
    """And its answer is kept by nobody on the way."""
    desk = Desk()
    answer = await ask(desk, method, path, body)

    assert desk.orders == [order]
    assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
    assert answer.json()["key"] == "the key"
    assert KeyOrder("rotate").overlap == OVERLAP == 24 * 3600


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", b"no json"),
        ("", b"[" * 9_000),
        ("", b"[]"),
        ("", {"owner": 7}),
        ("", {"owner": "a\u0007"}),
        ("", b'{"owner": "\\ud800"}'),
        ("", {"roles": "customer"}),
        ("", {"roles": [1]}),
        ("", {"networks": {}}),
        ("", {"lifetime": "90d"}),
        ("", {"lifetime": True}),
        ("", {"overlap": 1}),
        ("", {"onwer": "x"}),
        ("", b" " * (MAX_BODY + 1)),
        ("/k1/rotate", {"owner": "x"}),
        ("/k1/revoke", {"reason": None}),
    ],
)
async def test_an_order_that_is_not_understood_changes_nothing(
    path: str, body: Any
) -> None:
    """It is 400, with what is wrong, and no value that was sent."""
    desk = Desk()
    answer = await ask(desk, "POST", path, body)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert not desk.orders


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (KeyRefused(400, "words"), 400, "invalid_order"),
        (KeyRefused(404, "words"), 404, "unknown_key"),
        (KeyRefused(409, "words"), 409, "conflict"),
        (Unavailable("words", retry_after=2), 503, "unavailable"),
    ],
)
async def test_what_could_not_be_done_is_said(
    outcome: Exception, status: int, code: str
) -> None:
    """As a problem document, for each verb (R62)."""
    for method, path in (
        ("GET", ""),
        ("GET", "/k1"),
        ("POST", "/k1/rotate"),
        ("POST", "/k1/revoke"),
    ):
        answer = await ask(Desk(outcome), method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "words" in answer.json()["detail"]
        assert answer.headers.get("retry-after") == ("2" if status == 503 else None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("GET", "/k1"),
        ("POST", "/k1/rotate"),
        ("POST", "/k1/revoke"),
    ],
)
async def test_the_admin_token_is_asked_for(method: str, path: str) -> None:
    """At every path."""
    desk = Desk()
    answer = await ask(desk, method, path, token="s3cret")
    assert answer.status_code == 401
    assert not desk.orders


@pytest.mark.parametrize("verb", ["list", "show"])
def test_who_only_asks_says_nothing(verb: Verb) -> None:
    """No body belongs to these."""
    assert order_from(verb, {}) == KeyOrder(verb)
    assert order_from(verb, {"owner": "x"}) == "known keys are: "

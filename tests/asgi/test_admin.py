"""gateway.asgi.admin: orders to a running gateway, and who may give them."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from gateway.asgi.admin import admin
from gateway.asgi.api_keys import KeyOrder, Told
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import Orders
from gateway.tokens.key_status import KeyReport, KeySetStatus, KeyStatus, load


class Store:
    """Remembers what it was told to revoke."""

    def __init__(self) -> None:
        self.orders: list[Orders] = []

    async def revoke(self, orders: Orders) -> Told:
        self.orders.append(orders)
        return {"orders": [{"until": 2_000.0}], "effect": None}

    async def inquire(self, inquiry: Inquiry) -> Told:
        raise AssertionError(inquiry)


async def no_orders(order: KeyOrder) -> Told:
    raise AssertionError(order)


async def no_keys() -> KeyReport:
    return KeyReport((), ())


async def post(
    store: Store,
    body: Any,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> httpx2.Response:
    app = admin(store.revoke, store.inquire, no_orders, no_keys, token)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://admin"
    ) as client:
        return await client.post("/-/revocations", content=content, headers=headers)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic s3cret"},
        {"authorization": "bearer s3cret"},
    ],
)
async def test_the_admin_token_is_asked_for(given: dict[str, str]) -> None:
    """On loopback every local process could reach the port."""
    store = Store()

    answer = await post(
        store, {"issuer": "corp", "jti": "a"}, token="s3cret", headers=given
    )

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not store.orders


async def test_the_admin_token_opens() -> None:
    """It is compared in constant time, as a whole."""
    store = Store()

    answer = await post(
        store,
        {"issuer": "corp", "jti": "a"},
        token="s3cret",
        headers={"authorization": "Bearer s3cret"},
    )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("given", "status"), [({}, 401), ({"authorization": "Bearer s3cret"}, 200)]
)
async def test_how_the_keys_are_can_be_asked(
    given: dict[str, str], status: int
) -> None:
    """With the admin token, where one is asked for; nothing is to be changed there."""
    key = KeyStatus("current", "k1", ("ES256",), "thumb", 1.0)
    report = KeyReport((KeySetStatus("corp", "url", (key,)),), ())

    async def keys() -> KeyReport:
        return report

    app = admin(Store().revoke, Store().inquire, no_orders, keys, "s3cret")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://admin"
    ) as client:
        answer = await client.get("/-/keys", headers=given)
        posted = await client.post("/-/keys", headers=given)

    assert (answer.status_code, posted.status_code) == (status, 405)
    if status == 200:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert load(answer.content) == report

"""gateway.asgi.admin: orders to a running gateway, and who may give them."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from gateway.asgi.admin import MAX_BODY, RevocationOrder, admin
from gateway.asgi.api_keys import KeyOrder, Told
from gateway.model import Unavailable
from gateway.tokens.key_status import KeyReport, KeySetStatus, KeyStatus, load

ISSUERS = frozenset({"corp", "partner"})


class Store:
    """Remembers what it was told to revoke."""

    def __init__(self, *, away: bool = False) -> None:
        self.orders: list[RevocationOrder] = []
        self.away = away

    async def revoke(self, order: RevocationOrder) -> float:
        if self.away:
            raise Unavailable("revocation store", retry_after=2)
        if order.value == "e\u0301":
            raise ValueError("no token can carry this subject")
        self.orders.append(order)
        return 2_000.0


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
    issuers: frozenset[str] = ISSUERS,
) -> httpx2.Response:
    app = admin(store.revoke, lambda: issuers, no_orders, no_keys, token)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://admin"
    ) as client:
        return await client.post("/-/revocations", content=content, headers=headers)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("jti", "token"), ("sid", "session"), ("sub", "subject"), ("client", "client")],
)
async def test_each_kind_of_revocation_is_carried_out(name: str, kind: str) -> None:
    """The answer comes after the store has acknowledged, and says until when."""
    store = Store()

    answer = await post(store, {"issuer": "corp", name: "x-1", "reason": "INC-7"})

    assert answer.status_code == 200
    assert answer.json() == {"issuer": "corp", "kind": kind, "until": 2_000.0}
    assert [(o.issuer, o.kind, o.value, o.reason) for o in store.orders] == [
        ("corp", kind, "x-1", "INC-7")
    ]


async def test_the_only_issuer_need_not_be_named() -> None:
    """With two, an order must say which one's subject it means."""
    store = Store()

    one = await post(store, {"sub": "c-1"}, issuers=frozenset({"corp"}))
    two = await post(store, {"sub": "c-1"})

    assert (one.status_code, two.status_code) == (200, 400)
    assert [order.issuer for order in store.orders] == ["corp"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[" * 9_000,
        b"[]",
        {"issuer": "corp"},
        {"issuer": "corp", "jti": "a", "sid": "b"},
        {"issuer": "corp", "jti": ""},
        {"issuer": "corp", "jti": 7},
        {"issuer": "corp", "jti": "a" * 256},
        b'{"issuer": "corp", "jti": "\\ud800"}',
        {"issuer": "corp", "jti": "a", "reason": 1},
        {"issuer": "corp", "jti": "a", "scopse": 1},
        {"issuer": "other", "jti": "a"},
        {"issuer": ["corp"], "jti": "a"},
        {"issuer": "corp", "sub": "e\u0301"},
        b" " * (MAX_BODY + 1),
    ],
)
async def test_an_order_that_is_not_understood_changes_nothing(body: Any) -> None:
    """It is answered 400 with what is wrong; the store is not asked."""
    store = Store()

    answer = await post(store, body)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert not store.orders


async def test_nothing_is_said_to_be_revoked_that_is_not() -> None:
    """While the store is away an order is answered 503 (R62)."""
    answer = await post(Store(away=True), {"issuer": "corp", "jti": "a"})

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"


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

    app = admin(Store().revoke, lambda: ISSUERS, no_orders, keys, "s3cret")
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

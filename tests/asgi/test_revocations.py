"""gateway.asgi.revocations: orders to revoke, as they come over the admin port."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import Response

from gateway.asgi.revocations import (
    MAX_BODY,
    MAX_ORDERS,
    NAMES,
    WAIT,
    OrderKind,
    OrderRefused,
    Orders,
    RevocationOrder,
    Told,
    order_from,
    revocation_routes,
    said_of,
)
from gateway.model import Unavailable

EFFECT = {"effective": True, "workers": 2, "applied": 2}


class Desk:
    """Remembers its orders, and answers as it is told."""

    def __init__(self, outcome: Exception | None = None) -> None:
        self.orders: list[Orders] = []
        self.outcome = outcome

    async def revoke(self, orders: Orders) -> Told:
        self.orders.append(orders)
        if self.outcome is not None:
            raise self.outcome
        told = [{"kind": each.kind, "until": 2_000.0} for each in orders.each]
        return {"orders": told, "effect": EFFECT}

    async def post(self, body: Any, *, refused: bool = False) -> httpx2.Response:
        routes = revocation_routes(
            self.revoke, lambda _: Response(status_code=401) if refused else None
        )
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(Starlette(routes=routes)),
            base_url="http://admin",
        ) as client:
            return await client.post("/-/revocations", content=content)


@pytest.mark.parametrize(
    ("said", "order"),
    [
        ({"jti": "x-1"}, RevocationOrder("", "token", "x-1")),
        ({"sid": "x-1", "issuer": "corp"}, RevocationOrder("corp", "session", "x-1")),
        ({"family": "x-1"}, RevocationOrder("", "family", "x-1")),
        ({"sub": "é"}, RevocationOrder("", "subject", "é")),
        (
            {"sub": "x-1", "before": "2026-11-23T10:00:00Z", "reason": "INC-7"},
            RevocationOrder("", "subject", "x-1", "INC-7", 1_795_428_000.0),
        ),
        (
            {"client": "x-1", "before": 7.5},
            RevocationOrder("", "client", "x-1", "", 7.5),
        ),
        ({"api_key": "x-1"}, RevocationOrder("", "api_key", "x-1")),
        (
            {"all_of_issuer": True, "issuer": "corp", "before": 0},
            RevocationOrder("corp", "issuer", before=0.0),
        ),
        ({"everything": True}, RevocationOrder("", "all")),
        (
            {"block": "x-1", "for": "24h"},
            RevocationOrder("", "block", "x-1", seconds=86_400.0),
        ),
        ({"block": "x-1", "for": 60}, RevocationOrder("", "block", "x-1", seconds=60)),
        ({"unblock": "x-1"}, RevocationOrder("", "unblock", "x-1")),
    ],
)
async def test_each_kind_of_order_is_read(said: Told, order: RevocationOrder) -> None:
    """Alone or among others; and written down again it is the same."""
    desk = Desk()

    alone = await desk.post(said)
    listed = await desk.post({"orders": [said, said], "wait": 0})

    assert desk.orders == [Orders((order,), WAIT), Orders((order, order), 0)]
    told = {"kind": order.kind, "until": 2_000.0}
    assert alone.json() == {**told, "effect": EFFECT}
    assert listed.json() == {"orders": [told, told], "effect": EFFECT}
    assert alone.headers["cache-control"] == "no-store"
    assert order_from(said_of(order)) == order
    assert Orders.load(desk.orders[1].dump()) == desk.orders[1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"no json", None),
        (b"[" * 9_000, None),
        (b"[]", None),
        (b" " * (MAX_BODY + 1), None),
        (b'{"sub": "a", "sub": "b"}', None),
        (b'{"issuer": "corp", "jti": "\\ud800"}', None),
        ({"issuer": "corp"}, None),
        ({"issuer": "corp", "jti": "a", "sid": "b"}, None),
        ({"jti": ""}, "jti"),
        ({"jti": 7}, "jti"),
        ({"jti": "a" * 256}, "jti"),
        ({"sub": "a\nb"}, "sub"),
        ({"jti": "a", "reason": 1}, "reason"),
        ({"jti": "a", "reason": "a\r\nb"}, "reason"),
        ({"jti": "a", "reason": "r" * 201}, "reason"),
        ({"jti": "a", "scopse": 1}, "scopse"),
        ({"jti": "a", "a\nb": 1}, None),
        ({"issuer": ["corp"], "jti": "a"}, "issuer"),
        ({"everything": False}, "everything"),
        ({"everything": True, "issuer": "corp"}, "issuer"),
        ({"all_of_issuer": "corp"}, "all_of_issuer"),
        ({"jti": "a", "before": 7}, "before"),
        ({"block": "a", "before": 7, "for": 1}, "before"),
        ({"sub": "a", "before": "2h ago"}, "before"),
        ({"sub": "a", "before": "2026-11-23T10:00:00"}, "before"),
        ({"sub": "a", "before": True}, "before"),
        ({"sub": "a", "before": -1}, "before"),
        ({"block": "a"}, "for"),
        ({"block": "a", "for": "24"}, "for"),
        ({"block": "a", "for": 0}, "for"),
        ({"block": "a", "for": "3651d"}, "for"),
        ({"sub": "a", "for": "24h"}, "for"),
        ({"unblock": "a", "for": "24h"}, "for"),
        ({"sub": "a", "wait": 31}, "wait"),
        ({"sub": "a", "wait": True}, "wait"),
        ({"sub": "a", "dry_run": 1}, "dry_run"),
        ({"orders": []}, "orders"),
        ({"orders": {}}, "orders"),
        ({"orders": [{"sub": "a"}] * (MAX_ORDERS + 1)}, "orders"),
        ({"orders": [{"sub": "a"}], "issuer": "corp"}, "orders"),
        ({"orders": [{"sub": "a"}, 7]}, "orders[1]"),
        ({"orders": [{"sub": "a"}, {"sub": 7}]}, "orders[1].sub"),
    ],
)
async def test_an_order_that_is_not_understood_changes_nothing(
    body: Any, field: str | None
) -> None:
    """It is answered 400 with what is wrong and where; nobody is asked."""
    desk = Desk()

    answer = await desk.post(body)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("field") == field
    assert not desk.orders


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"sub": "a"}, "sub"),
        ({"orders": [{"sub": "b"}, {"sub": "a"}]}, "orders[1].sub"),
    ],
)
async def test_what_can_t_be_meant_is_said_with_its_place(
    body: Any, field: str
) -> None:
    """As the desk says it."""
    place = len(body.get("orders", [0])) - 1
    desk = Desk(OrderRefused("no token can carry this subject", "sub", place))

    answer = await desk.post(body)

    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert answer.json()["detail"] == "no token can carry this subject"


async def test_nothing_is_said_to_be_revoked_that_is_not() -> None:
    """While the store is away an order is answered 503 (R62)."""
    answer = await Desk(Unavailable("revocation store", retry_after=2)).post(
        {"jti": "a"}
    )

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"


async def test_who_may_not_give_orders_gives_none() -> None:
    """Whatever the body says."""
    desk = Desk()

    assert (await desk.post({"jti": "a"}, refused=True)).status_code == 401
    assert not desk.orders


def test_every_kind_has_its_name() -> None:
    """In the body, in a file, and on the command line."""
    kinds = OrderKind.__args__  # type: ignore[attr-defined]
    assert {*NAMES.values()} == {*kinds}


async def test_what_stands_beside_the_list_is_not_named_as_in_it() -> None:
    """`wait` is no field of the first order."""

    async def never(_orders: object) -> dict[str, object]:
        raise AssertionError("it is refused")

    app = Starlette(routes=revocation_routes(never, lambda _: None))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://a"
    ) as client:
        said = {"orders": [{"sub": "a"}], "wait": -1}
        answer = await client.post("/-/revocations", json=said)
    assert answer.json()["field"] == "wait"

"""A backend without a database of users: it trusts what the gateway signed.

    python -m examples.orders_backend --port 8000

Every answer shows the identity that the gateway vouched for. Nothing else that a
client sends can change who it is: the assertion is verified with the gateway's
published keys.
"""

from __future__ import annotations

import argparse

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.backend import IdentityMiddleware, Verifier, identity, require

KEYS = "http://127.0.0.1:8080/.well-known/gateway-identity/jwks.json"
ISSUER = "https://gateway.demo.example/identity"
ORDERS: dict[str, list[dict[str, str]]] = {
    "c-1": [{"id": "17", "item": "a blue kettle"}],
    "c-2": [{"id": "18", "item": "two red cups"}],
}


def _seen(request: Request) -> dict[str, object]:
    who = identity(request)
    if who is None:
        return {"caller": None}
    return {
        "caller": who.subject,
        "issuer": who.issuer,
        "roles": list(who.roles),
        "may": sorted(who.scope),
    }


async def list_orders(request: Request) -> Response:
    # Whose orders these are, the gateway has compared with the caller already.
    orders = ORDERS.get(request.path_params["customer_id"], [])
    return JSONResponse({"identity": _seen(request), "orders": orders})


async def one_order(request: Request) -> Response:
    orders = ORDERS.get(request.path_params["customer_id"], [])
    for order in orders:
        if order["id"] == request.path_params["order_id"]:
            return JSONResponse({"identity": _seen(request), "order": order})
    return JSONResponse({"identity": _seen(request), "order": None}, 404)


@require("orders:write")
async def cancel_order(request: Request) -> Response:
    return JSONResponse(
        {"identity": _seen(request), "cancelled": request.path_params["order_id"]}
    )


@require("orders:write")
async def place_order(request: Request) -> Response:
    placed = await request.json()
    return JSONResponse({"identity": _seen(request), "placed": placed}, 201)


@require("orders:reports")
async def reports(request: Request) -> Response:
    total = sum(len(orders) for orders in ORDERS.values())
    return JSONResponse({"identity": _seen(request), "orders": total})


async def catalogue(request: Request) -> Response:
    items = ["a blue kettle", "two red cups"]
    return JSONResponse({"identity": _seen(request), "items": items})


async def status(_request: Request) -> Response:
    return JSONResponse({"status": "open"})


def app(keys: str = KEYS) -> Starlette:
    """Return the backend, which fetches the gateway's keys from *keys*."""
    base = "/api/orders"
    orders = base + "/customers/{customer_id}/orders"
    return Starlette(
        routes=[
            Route(orders, list_orders),
            Route(orders, place_order, methods=["POST"]),
            Route(orders + "/{order_id}", one_order),
            Route(orders + "/{order_id}", cancel_order, methods=["DELETE"]),
            Route(base + "/reports", reports),
            Route(base + "/catalogue", catalogue),
            Route(base + "/status", status),
        ],
        middleware=[
            Middleware(
                IdentityMiddleware,
                verifier=Verifier(keys=keys, issuer=ISSUER, audience="orders"),
                optional=True,
            )
        ],
    )


def main() -> None:
    """Serve on loopback until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--keys", default=KEYS)
    said = parser.parse_args()
    uvicorn.run(app(said.keys), host="127.0.0.1", port=said.port, log_level="warning")


if __name__ == "__main__":
    main()

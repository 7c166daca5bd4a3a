"""`/-/api-keys` on the admin port: keys made, listed, rotated, revoked.

    GET  /-/api-keys               all of them; never a secret, nor a whole digest
    POST /-/api-keys               makes one, or takes one over by its SHA-256
    GET  /-/api-keys/{id}          one
    POST /-/api-keys/{id}/rotate   gives it another secret
    POST /-/api-keys/{id}/revoke   ends it

A key stands in the answer to the order that made it, and nowhere else. What an order
means, and whether it may be, is gateway.key_desk's affair.

Imports: gateway.asgi.answers, gateway.model, starlette.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.asgi.answers import away, problem, read_body
from gateway.model import Unavailable

Verb = Literal["create", "list", "show", "rotate", "revoke"]
Told = dict[str, Any]

OVERLAP = 86_400.0  # seconds
MAX_BODY = 64 * 1024  # bytes; the longest lists there may be are half of it
_CODES: Mapping[int, str] = {
    400: "invalid_order",
    404: "unknown_key",
    409: "conflict",
}


class KeyRefused(Exception):  # noqa: N818  (an outcome)
    """An order that can't be carried out, in words for whoever gave it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status  # 400, 404 or 409


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """What is to be done with API keys. What a verb doesn't need is left out."""

    verb: Verb
    id: str = ""
    owner: str = ""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    lifetime: float | None = None  # seconds; None: [api_keys].lifetime
    not_before: float | None = None  # Unix seconds
    sha256: str = ""  # of a key that was made elsewhere
    note: str = ""
    overlap: float = OVERLAP  # seconds
    reason: str = ""  # for the log


CarryOut = Callable[[KeyOrder], Awaitable[Told]]

_LISTS = frozenset({"roles", "scopes", "networks"})
_NUMBERS = frozenset({"lifetime", "not_before", "overlap"})
MAY_SAY: Mapping[Verb, frozenset[str]] = {
    "list": frozenset(),
    "show": frozenset(),
    "create": frozenset(
        {"id", "owner", "sha256", "note", "lifetime", "not_before", *_LISTS}
    ),
    "rotate": frozenset({"overlap", "lifetime"}),
    "revoke": frozenset({"reason"}),
}


def key_routes(
    carry_out: CarryOut, is_refused: Callable[[Request], Response | None]
) -> list[Route]:
    """Return the routes.

    Args:
        carry_out: Raises KeyRefused, and Unavailable when the store was away.
        is_refused: Answers whoever may not give orders.
    """

    async def do(order: KeyOrder, status: int = 200) -> Response:
        try:
            told = await carry_out(order)
        except KeyRefused as refusal:
            code = _CODES[refusal.status]
            return problem(refusal.status, str(refusal), code)
        except Unavailable as outage:
            return away(outage, "nothing is said to be done")
        return JSONResponse(told, status, headers={"cache-control": "no-store"})

    async def keys(request: Request) -> Response:
        refused = is_refused(request)
        if refused is not None:
            return refused
        if request.method != "POST":
            return await do(KeyOrder("list"))
        return await _ordered(request, "create", do)

    async def key(request: Request) -> Response:
        refused = is_refused(request)
        if refused is not None:
            return refused
        return await do(KeyOrder("show", id=request.path_params["id"]))

    def changing(verb: Verb) -> Callable[[Request], Awaitable[Response]]:
        async def change(request: Request) -> Response:
            refused = is_refused(request)
            if refused is not None:
                return refused
            return await _ordered(request, verb, do)

        return change

    return [
        Route("/-/api-keys", keys, methods=["GET", "POST"]),
        Route("/-/api-keys/{id}", key, methods=["GET"]),
        Route("/-/api-keys/{id}/rotate", changing("rotate"), methods=["POST"]),
        Route("/-/api-keys/{id}/revoke", changing("revoke"), methods=["POST"]),
    ]


async def _ordered(
    request: Request, verb: Verb, do: Callable[[KeyOrder, int], Awaitable[Response]]
) -> Response:
    body = await read_body(request, MAX_BODY)
    order = "the body is too large" if body is None else _read(verb, body)
    if isinstance(order, str):
        return problem(400, order, "invalid_order")
    if verb == "create":
        return await do(order, 201)
    return await do(order_with(order, id=request.path_params["id"]), 200)


def _read(verb: Verb, body: bytes) -> KeyOrder | str:
    """Return the order in *body*, or what is wrong with it."""
    try:
        said = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return "the body is not JSON"
    return order_from(verb, said)


def order_from(verb: Verb, said: object) -> KeyOrder | str:
    """Return the order that *said* gives, or what is wrong with it."""
    if not isinstance(said, dict):
        return "the body is not an object"
    unknown = said.keys() - MAY_SAY[verb]
    if unknown:
        return f"known keys are: {', '.join(sorted(MAY_SAY[verb]))}"
    for name, value in said.items():
        if name in _LISTS:
            if not isinstance(value, list) or not all(map(_is_text, value)):
                return f"{name} is not a list of strings"
        elif name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{name} is not a number of seconds"
        elif not _is_text(value):
            return f"{name} is not a string that can be printed"
    return order_with(KeyOrder(verb), **said)


def order_with(order: KeyOrder, **said: Any) -> KeyOrder:
    """Return *order* with what else is *said*; lists are what JSON has for tuples."""
    whole: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in said.items()
    }
    return replace(order, **whole)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and (value.isprintable() or not value)

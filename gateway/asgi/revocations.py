"""`/-/revocations` on the admin port: what an order may say, and the answer to it.

    POST /-/revocations   ends tokens, blocks a subject or lifts that: one order, or a
                          list of them, all or none of which is begun

What an order means, and whether it may be, is gateway.revocation_desk's affair. A file
for `gateway revoke --from` holds the same orders, one a line.

Imports: gateway.asgi.answers, gateway.config, gateway.model, gateway.revocation,
gateway.tokens.strict_json, starlette.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.asgi.answers import away, problem, read_body
from gateway.config import syntax, units
from gateway.model import Unavailable
from gateway.revocation.entries import CUTOFFS, MAX_LIFE
from gateway.tokens.strict_json import loads

Told = dict[str, Any]
OrderKind = Literal[
    "token",
    "session",
    "family",
    "subject",
    "client",
    "issuer",
    "all",
    "api_key",
    "block",
    "unblock",
]
NAMES: Mapping[str, OrderKind] = {
    "jti": "token",
    "sid": "session",
    "family": "family",
    "sub": "subject",
    "client": "client",
    "api_key": "api_key",
    "all_of_issuer": "issuer",
    "everything": "all",
    "block": "block",
    "unblock": "unblock",
}
NAME_OF: Mapping[OrderKind, str] = {kind: name for name, kind in NAMES.items()}
BARE = frozenset({"issuer", "all"})  # kinds that name nobody: `true` stands there
MAX_VALUE = 255  # characters: as long as a subject may be (R44)
MAX_REASON = 200  # characters
MAX_ORDERS = 1000  # in one body
MAX_BODY = 1024 * 1024  # bytes; an order is a few hundred
WAIT, MAX_WAIT = 2.0, 30.0  # seconds; a lease is one


class OrderRefused(Exception):  # noqa: N818  (an outcome)
    """An order that can't be carried out, in words for whoever gave it.

    Args:
        words: Why.
        name: Of the field that is wrong; "" where it is the whole.
        place: Of the order among several, from 0 on.
    """

    def __init__(self, words: str, name: str = "", place: int = 0) -> None:
        super().__init__(words)
        self.name = name
        self.place = place


@dataclass(frozen=True, slots=True)
class RevocationOrder:
    """What is to end."""

    issuer: str  # a name in gateway.toml; "": the only one there is
    kind: OrderKind
    value: str = ""
    reason: str = ""  # for the log
    before: float | None = None  # Unix seconds; the cut-off, if it is not now
    seconds: float = 0.0  # of a block


@dataclass(frozen=True, slots=True)
class Orders:
    """Several, as they go from one process to another."""

    each: tuple[RevocationOrder, ...]
    wait: float = WAIT  # seconds, until they are in force everywhere
    dry_run: bool = False  # nothing is written
    until: float = math.inf  # Unix seconds; nobody begins with them later

    def dump(self) -> bytes:
        """Return them in bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, said: bytes) -> Orders:
        """Return those that *said* holds."""
        whole = json.loads(said)
        each = tuple(RevocationOrder(**order) for order in whole.pop("each"))
        return cls(each, **whole)


CarryOut = Callable[[Orders], Awaitable[Told]]
"""Raises OrderRefused, and Unavailable where the store did not acknowledge it."""


def revocation_routes(
    revoke: CarryOut, is_refused: Callable[[Request], Response | None]
) -> list[Route]:
    """Return the routes.

    Args:
        revoke: Carries orders out; returns what there is to say of each, and where
            they are in force.
        is_refused: Answers whoever may not give orders.
    """

    async def revocations(request: Request) -> Response:
        refused = is_refused(request)
        if refused is not None:
            return refused
        is_list = False
        try:
            said = body_of(await read_body(request, MAX_BODY))
            is_list = "orders" in said
            told = await revoke(_orders(said))
        except OrderRefused as refusal:
            is_one = is_list and refusal.name not in {"orders", "wait", "dry_run"}
            return refused_order(refusal, "orders" if is_one else "")
        except Unavailable as outage:
            # R62: nothing is said to be revoked that the store has not acknowledged.
            return away(outage, "nothing is said to be revoked: give the order again")
        if not is_list:
            (told["orders"],) = told["orders"]
            told = {**told.pop("orders"), **told}
        return JSONResponse(told, headers={"cache-control": "no-store"})

    return [Route("/-/revocations", revocations, methods=["POST"])]


def refused_order(refusal: OrderRefused, listed: str = "") -> Response:
    """Return the answer to what can't be carried out.

    Args:
        refusal: Why.
        listed: The field in which it stands among others, if it does.
    """
    field = refusal.name
    if listed:
        field = f"{listed}[{refusal.place}].{field}".rstrip(".")
    return problem(400, str(refusal), "invalid_order", field=field)


def body_of(body: bytes | None) -> Told:
    """Return the object in *body*; None: it was too large.

    Raises:
        OrderRefused: It holds something else.
    """
    if body is None:
        raise OrderRefused("the body is too large")
    said = loads(body)
    if said is None:
        raise OrderRefused("the body is not a JSON object, or is ambiguous")
    return said


def _orders(said: Told) -> Orders:
    """Return the orders in *said*.

    Raises:
        OrderRefused: It holds something else.
    """
    wait, dry_run = said.pop("wait", WAIT), said.pop("dry_run", False)
    if not is_number(wait) or not 0 <= wait <= MAX_WAIT:
        raise OrderRefused(
            f"wait is not a number of seconds up to {MAX_WAIT:g}", "wait"
        )
    if not isinstance(dry_run, bool):
        raise OrderRefused("dry_run is true or false", "dry_run")
    if "orders" not in said:
        return Orders((order_from(said),), wait, dry_run)
    if said.keys() != {"orders"}:
        raise OrderRefused("beside orders stand only wait and dry_run", "orders")
    listed = said["orders"]
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_ORDERS:
        raise OrderRefused(f"orders is not a list of 1 to {MAX_ORDERS}", "orders")
    each = []
    for place, order in enumerate(listed):
        try:
            each.append(order_from(order))
        except OrderRefused as refusal:
            refusal.place = place
            raise
    return Orders(tuple(each), wait, dry_run)


def order_from(said: object) -> RevocationOrder:
    """Return the order that *said* gives.

    Raises:
        OrderRefused: It is none.
    """
    if not isinstance(said, dict):
        raise OrderRefused("an order is an object")
    known = {"issuer", "reason", "before", "for", *NAMES}
    if unknown := sorted(said.keys() - known):
        words = f"known keys are: issuer, reason, before, for, {', '.join(NAMES)}"
        raise OrderRefused(words, unknown[0] if unknown[0].isprintable() else "")
    given = [name for name in NAMES if name in said]
    if len(given) != 1:
        raise OrderRefused(f"exactly one of {', '.join(NAMES)} is needed")
    (name,) = given
    kind, value = NAMES[name], said[name]
    if kind in BARE:
        if value is not True:
            raise OrderRefused(f"{name} is true, or is not there", name)
        value = ""
    elif not isinstance(value, str) or not 0 < len(value) <= MAX_VALUE:
        words = f"{name} is not a string of 1 to {MAX_VALUE} characters"
        raise OrderRefused(words, name)
    elif not value.isprintable():
        raise OrderRefused(f"{name} holds characters that no token can", name)
    for other, most in (("issuer", MAX_VALUE), ("reason", MAX_REASON)):
        text = said.get(other, "")
        if not isinstance(text, str) or len(text) > most or not text.isprintable():
            words = f"{other} is not a string of at most {most} characters to be read"
            raise OrderRefused(words, other)
    if kind == "all" and said.get("issuer"):
        # Whoever names one may well mean that one's alone.
        raise OrderRefused(f"{name} is of every issuer; all_of_issuer is not", "issuer")
    return RevocationOrder(
        said.get("issuer", ""),
        kind,
        value,
        said.get("reason", ""),
        _before(kind, said),
        _seconds(kind, said),
    )


def _before(kind: OrderKind, said: Told) -> float | None:
    if "before" not in said:
        return None
    if kind not in CUTOFFS:
        raise OrderRefused(f"{NAME_OF[kind]} has no cut-off", "before")
    value = said["before"]
    try:
        found: float = value if is_number(value) else syntax.moment(value)
    except ValueError as error:
        raise OrderRefused(f"before: {error}, or Unix seconds", "before") from None
    if found < 0:
        raise OrderRefused("before lies before 1970", "before")
    return float(found)


def _seconds(kind: OrderKind, said: Told) -> float:
    if kind != "block":
        if "for" in said:
            raise OrderRefused("only a block is for a time", "for")
        return 0.0
    value: Any = said.get("for")
    try:
        if is_number(value):
            found = float(value)
        else:
            found = units.duration(value if isinstance(value, str) else "")
    except ValueError as error:
        raise OrderRefused(f"for: {error}, or a number of seconds", "for") from None
    if not 0 < found <= MAX_LIFE:
        raise OrderRefused("for: at most ten years, and not none", "for")
    return found


def is_number(value: Any) -> bool:
    """Tell whether JSON has written a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def said_of(order: RevocationOrder) -> Told:
    """Return what `order_from` reads as *order*."""
    said: Told = {NAME_OF[order.kind]: order.kind in BARE or order.value}
    if order.issuer:
        said["issuer"] = order.issuer
    if order.reason:
        said["reason"] = order.reason
    if order.before is not None:
        said["before"] = order.before
    if order.kind == "block":
        said["for"] = order.seconds
    return said

"""What the revocation list holds, as it is asked for on the admin port.

    GET  /-/revocations          entries; ?kind=subject&name=<fingerprint>&limit=1000
    GET  /-/revocations/stats    how many there are, and how far the workers are
    POST /-/revocations/import   takes entries over, as the first writes them

Names are fingerprints: whoever reads this learns nobody's name from it.

Imports: gateway.asgi, gateway.model, gateway.revocation, gateway.tokens.fingerprints,
starlette.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.asgi.answers import away, read_body
from gateway.asgi.revocations import (
    OrderRefused,
    Told,
    body_of,
    is_number,
    refused_order,
)
from gateway.model import Unavailable
from gateway.revocation.entries import CUTOFFS, KINDS, MAX_LIFE, UNREADABLE, Revocation
from gateway.tokens.fingerprints import SIZE

Verb = Literal["list", "stats", "import"]
LIMIT, MAX_LIMIT = 1000, 10_000  # entries in one answer
MAX_ENTRIES = 1000  # in one body
MAX_BODY = 1024 * 1024  # bytes
_NAME = re.compile(rf"[0-9a-f]{{{2 * SIZE}}}")


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is asked of the list, or brought to it."""

    verb: Verb
    kind: str = ""  # "": all
    name: str = ""  # a fingerprint, hexadecimal; "": all
    limit: int = LIMIT
    entries: tuple[Told, ...] = ()  # to be imported

    def dump(self) -> bytes:
        """Return it in bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, said: bytes) -> Inquiry:
        """Return what *said* holds."""
        whole = json.loads(said)
        return cls(entries=tuple(whole.pop("entries")), **whole)


Inquire = Callable[[Inquiry], Awaitable[Told]]
"""Raises OrderRefused, and Unavailable where the store does not answer."""


def list_routes(
    inquire: Inquire, is_refused: Callable[[Request], Response | None]
) -> list[Route]:
    """Return the routes.

    Args:
        inquire: Answers.
        is_refused: Answers whoever may not ask.
    """

    async def answer(
        request: Request, inquiry: Callable[[Request], Awaitable[Inquiry]]
    ) -> Response:
        refused = is_refused(request)
        if refused is not None:
            return refused
        try:
            told = await inquire(await inquiry(request))
        except OrderRefused as refusal:
            is_entry = request.method == "POST" and refusal.name not in {"", "entries"}
            return refused_order(refusal, "entries" if is_entry else "")
        except Unavailable as outage:
            return away(outage, "ask again")
        return JSONResponse(told, headers={"cache-control": "no-store"})

    async def entries(request: Request) -> Response:
        return await answer(request, _listing)

    async def stats(request: Request) -> Response:
        return await answer(request, _stats)

    async def taken_over(request: Request) -> Response:
        return await answer(request, _import)

    return [
        Route("/-/revocations", entries, methods=["GET"]),
        Route("/-/revocations/stats", stats, methods=["GET"]),
        Route("/-/revocations/import", taken_over, methods=["POST"]),
    ]


async def _listing(request: Request) -> Inquiry:
    said = request.query_params
    for name in said:
        if name not in {"kind", "name", "limit"}:
            raise OrderRefused("known parameters are: kind, name, limit")
    kind, name, limit = (said.get(each, "") for each in ("kind", "name", "limit"))
    if kind and kind not in KINDS:
        raise OrderRefused(f"kind is one of: {', '.join(KINDS)}", "kind")
    if name and _NAME.fullmatch(name) is None:
        raise OrderRefused(f"name is not {2 * SIZE} hexadecimal digits", "name")
    limit = limit or str(LIMIT)
    if re.fullmatch(r"[0-9]{1,6}", limit) is None or not 0 < int(limit) <= MAX_LIMIT:
        raise OrderRefused(f"limit is a number from 1 to {MAX_LIMIT}", "limit")
    return Inquiry("list", kind, name, int(limit))


async def _stats(_request: Request) -> Inquiry:
    return Inquiry("stats")


async def _import(request: Request) -> Inquiry:
    said = body_of(await read_body(request, MAX_BODY))
    listed = said.get("entries")
    is_list = isinstance(listed, list) and 0 < len(listed) <= MAX_ENTRIES
    if said.keys() != {"entries"} or not is_list:
        words = f"the body holds nothing but entries, a list of 1 to {MAX_ENTRIES}"
        raise OrderRefused(words, "entries")
    return Inquiry("import", entries=tuple(said["entries"]))


def told_of(entry: Revocation) -> Told:
    """Return *entry* as it is listed; null: it can't be read, or has no end."""
    told: Told = {"kind": entry.kind, "name": entry.name.hex()}
    if entry.kind in CUTOFFS:
        told["before"] = _or_none(entry.cutoff)
    if entry.kind == "block":
        told["number"] = entry.number
        told["lifts"] = entry.lifts
    told["until"] = _or_none(entry.until)
    return told


def entry_in(said: Any, place: int, now: float) -> Revocation:
    """Return the entry that *said*, as `told_of` writes it, is.

    Args:
        said: One element of a list.
        place: In it.
        now: Unix seconds; what has no end is given one.

    Raises:
        OrderRefused: It is none.
    """
    if not isinstance(said, dict):
        raise OrderRefused("an entry is an object", "kind", place)
    kind, name = said.get("kind"), said.get("name")
    if kind not in KINDS:
        raise OrderRefused(f"kind is one of: {', '.join(KINDS)}", "kind", place)
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise OrderRefused(f"name is not {2 * SIZE} hexadecimal digits", "name", place)
    wanted = {"kind", "name", "until"}
    wanted |= {"before"} if kind in CUTOFFS else set()
    wanted |= {"number", "lifts"} if kind == "block" else set()
    if said.keys() != wanted:
        words = f"an entry of this kind has: {', '.join(sorted(wanted))}"
        raise OrderRefused(words, "kind", place)
    cutoff = said.get("before", 0.0)
    for key, value in (("until", said["until"]), ("before", cutoff)):
        if value is not None and (not is_number(value) or value < 0):
            raise OrderRefused(f"{key} is not Unix seconds", key, place)
    number, lifts = said.get("number", 0), said.get("lifts", False)
    if type(number) is not int or not 0 <= number <= UNREADABLE:
        raise OrderRefused("number is not that of a block", "number", place)
    if not isinstance(lifts, bool):
        raise OrderRefused("lifts is true or false", "lifts", place)
    most = now + MAX_LIFE
    until = most if said["until"] is None else min(float(said["until"]), most)
    # What could not be read there revokes whatever it names, and does so here.
    cutoff = now if cutoff is None else float(cutoff)
    return Revocation(kind, bytes.fromhex(name), cutoff, until, number, lifts)


def _or_none(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None

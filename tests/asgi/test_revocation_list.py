"""gateway.asgi.revocation_list: the list, as it is asked for on the admin port."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import Response

from gateway.asgi.revocation_list import (
    LIMIT,
    MAX_BODY,
    MAX_ENTRIES,
    MAX_LIMIT,
    Inquiry,
    entry_in,
    list_routes,
    told_of,
)
from gateway.asgi.revocations import OrderRefused, Told
from gateway.model import Unavailable
from gateway.revocation.entries import MAX_LIFE, UNREADABLE, Revocation

NOW = 1_000.0
NAME = bytes(range(16))
TOKEN = {"kind": "token", "name": NAME.hex(), "until": 2_000.0}
BLOCK = {**TOKEN, "kind": "block", "number": 7, "lifts": False}


class Desk:
    """Remembers what it was asked, and answers as it is told."""

    def __init__(self, outcome: Exception | None = None) -> None:
        self.asked: list[Inquiry] = []
        self.outcome = outcome

    async def inquire(self, inquiry: Inquiry) -> Told:
        self.asked.append(inquiry)
        if self.outcome is not None:
            raise self.outcome
        return {"verb": inquiry.verb}

    async def ask(
        self, path: str, body: Any = None, *, refused: bool = False
    ) -> httpx2.Response:
        routes = list_routes(
            self.inquire, lambda _: Response(status_code=401) if refused else None
        )
        app = Starlette(routes=routes)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://admin"
        ) as client:
            at = f"/-/revocations{path}"
            if body is None:
                return await client.get(at)
            return await client.post(at, content=content)


@pytest.mark.parametrize(
    ("path", "body", "inquiry"),
    [
        ("", None, Inquiry("list")),
        (
            f"?kind=subject&name={NAME.hex()}&limit=7",
            None,
            Inquiry("list", "subject", NAME.hex(), 7),
        ),
        ("?kind=&limit=", None, Inquiry("list", limit=LIMIT)),
        ("/stats", None, Inquiry("stats")),
        ("/import", {"entries": [TOKEN]}, Inquiry("import", entries=(TOKEN,))),
    ],
)
async def test_each_question_is_read(path: str, body: Any, inquiry: Inquiry) -> None:
    """And is the same in another process."""
    desk = Desk()

    answer = await desk.ask(path, body)

    assert answer.json() == {"verb": inquiry.verb}
    assert answer.headers["cache-control"] == "no-store"
    assert desk.asked == [inquiry]
    assert Inquiry.load(inquiry.dump()) == inquiry


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("?kind=subjects", None, "kind"),
        ("?name=abc", None, "name"),
        (f"?name={NAME.hex().upper()}F", None, "name"),
        ("?limit=0", None, "limit"),
        (f"?limit={MAX_LIMIT + 1}", None, "limit"),
        ("?limit=many", None, "limit"),
        ("?sub=alice", None, None),
        ("/import", b"", None),
        ("/import", b" " * (MAX_BODY + 1), None),
        ("/import", {}, "entries"),
        ("/import", {"entries": []}, "entries"),
        ("/import", {"entries": [TOKEN] * (MAX_ENTRIES + 1)}, "entries"),
        ("/import", {"entries": [TOKEN], "more": 1}, "entries"),
    ],
)
async def test_a_question_that_is_not_understood_is_not_asked(
    path: str, body: Any, field: str | None
) -> None:
    """It is answered 400 with what is wrong."""
    desk = Desk()

    answer = await desk.ask(path, body)

    assert (answer.status_code, answer.json().get("field")) == (400, field)
    assert not desk.asked


async def test_an_entry_that_is_none_is_said_with_its_place() -> None:
    """As the desk says it."""
    desk = Desk(OrderRefused("until is not Unix seconds", "until", 1))

    answer = await desk.ask("/import", {"entries": [TOKEN, TOKEN]})

    assert answer.json()["field"] == "entries[1].until"


async def test_an_outage_is_503_and_who_may_not_ask_learns_nothing() -> None:
    """As for orders."""
    away = await Desk(Unavailable("revocation store")).ask("/stats")
    refused = await Desk().ask("/stats", refused=True)

    assert (away.status_code, refused.status_code) == (503, 401)


@pytest.mark.parametrize(
    "entry",
    [
        Revocation("token", NAME, 0.0, 2_000.0),
        Revocation("subject", NAME, 900.25, 2_000.5),
        Revocation("all", NAME, 1_100.0, 2_000.0),
        Revocation("block", NAME, 0.0, 2_000.0, 7),
        Revocation("block", NAME, 0.0, 2_000.0, 7, lifts=True),
        Revocation("block", NAME, 0.0, 2_000.0, UNREADABLE),
    ],
)
def test_what_is_listed_is_what_is_imported(entry: Revocation) -> None:
    """Kind, name, cut-off, number and end."""
    said = json.loads(json.dumps(told_of(entry)))

    assert entry_in(said, 0, NOW) == entry


def test_what_could_not_be_read_revokes_where_it_is_taken_to() -> None:
    """And what had no end has one: it is ten years away, as for any entry."""
    entry = Revocation("subject", NAME, math.inf, math.inf)
    said = told_of(entry)

    assert said == {
        "kind": "subject",
        "name": NAME.hex(),
        "before": None,
        "until": None,
    }
    assert entry_in(said, 0, NOW) == Revocation("subject", NAME, NOW, NOW + MAX_LIFE)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (7, "kind"),
        ({}, "kind"),
        ({**TOKEN, "kind": "tokens"}, "kind"),
        ({**TOKEN, "kind": ["token"]}, "kind"),
        ({**TOKEN, "name": "abc"}, "name"),
        ({**TOKEN, "name": 7}, "name"),
        ({**TOKEN, "until": "2000"}, "until"),
        ({**TOKEN, "until": True}, "until"),
        ({**TOKEN, "until": -1}, "until"),
        ({"kind": "token", "name": NAME.hex()}, "kind"),
        ({**TOKEN, "before": 1}, "kind"),
        ({**TOKEN, "kind": "subject"}, "kind"),
        ({**TOKEN, "kind": "subject", "before": "x"}, "before"),
        ({**BLOCK, "number": 1.5}, "number"),
        ({**BLOCK, "number": True}, "number"),
        ({**BLOCK, "number": -1}, "number"),
        ({**BLOCK, "lifts": 1}, "lifts"),
    ],
)
def test_what_is_no_entry_is_refused(said: Any, field: str) -> None:
    """With the field and the place."""
    with pytest.raises(OrderRefused) as refused:
        entry_in(said, 3, NOW)

    assert (refused.value.name, refused.value.place) == (field, 3)

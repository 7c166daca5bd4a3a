"""gateway.asgi.logout: the form in which a logout token comes, and the answers."""

from __future__ import annotations

from urllib.parse import urlencode

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from gateway.asgi.logout import FORM, MAX_BODY, LogoutEndpoint
from gateway.model import Unavailable


class Desk:
    """Remembers the tokens, and answers as it is told."""

    def __init__(self, outcome: bool | Unavailable = True) -> None:
        self.tokens: list[str] = []
        self.outcome = outcome

    async def carry_out(self, token: str) -> bool:
        self.tokens.append(token)
        if isinstance(self.outcome, Unavailable):
            raise self.outcome
        return self.outcome

    async def post(self, body: bytes, kind: str = FORM) -> httpx2.Response:
        endpoint = LogoutEndpoint(self.carry_out)
        app = Starlette(routes=[Route("/l", endpoint.answer, methods=["POST"])])
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://api.example"
        ) as client:
            headers = {"content-type": kind} if kind else {}
            return await client.post("/l", content=body, headers=headers)


@pytest.mark.parametrize("kind", [FORM, FORM.upper(), f"{FORM}; charset=utf-8"])
async def test_what_was_carried_out_is_200_and_kept_by_no_cache(kind: str) -> None:
    """Other fields may stand beside the token (section 2.5)."""
    desk = Desk()

    answer = await desk.post(
        urlencode({"a": "1", "logout_token": "x.y.z"}).encode(), kind
    )

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert desk.tokens == ["x.y.z"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FORM),
        (b"logout_token=", FORM),
        (b"token=x.y.z", FORM),
        (b"logout_token=x.y.z&logout_token=x.y.z", FORM),
        (b"logout_token=x.y.z", "text/plain"),
        (b"logout_token=x.y.z", ""),
        (b"logout_token=\xff", FORM),
        (b"logout_token=x.y.z&" + b"a=1&" * 20, FORM),
        (b"logout_token=" + b"x" * MAX_BODY, FORM),
    ],
)
async def test_what_is_no_form_with_one_token_is_400(body: bytes, kind: str) -> None:
    """Nobody is asked about it."""
    desk = Desk()

    answer = await desk.post(body, kind)

    assert answer.status_code == 400
    assert not desk.tokens


async def test_a_bad_token_is_400_without_a_word_of_why() -> None:
    """The JSON of RFC 6749 section 5.2, not cached (section 2.8)."""
    answer = await Desk(outcome=False).post(b"logout_token=x.y.z")

    assert answer.status_code == 400
    assert answer.json() == {"error": "invalid_request"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


async def test_an_outage_is_503_and_to_be_tried_again() -> None:
    """Nothing has ended that the store has not acknowledged (R62)."""
    away = Unavailable("revocation store", retry_after=2)

    answer = await Desk(away).post(b"logout_token=x.y.z")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["cache-control"] == "no-store"

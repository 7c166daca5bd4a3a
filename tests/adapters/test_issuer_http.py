"""gateway.adapters.issuer_http: one question, one answer, and nothing else.

What makes an answer unfit, and where discovery may lead, is in test_jwks.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import pytest

from gateway.adapters.issuer_http import IssuerHttp, Place
from gateway.adapters.sources import SourceAway, SourceFailed
from tests.adapters.provider import Provider, answer

FORM = b"token=a%26b"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """Serve one on loopback."""
    found = Provider()
    async with found.serving():
        yield found


@contextlib.asynccontextmanager
async def asking(
    provider: Provider, **more: Any
) -> AsyncIterator[tuple[IssuerHttp, Place]]:
    options = {"ca_file": None, "proxy": None, "answer": 5.0, "most": 100, **more}
    http = IssuerHttp(provider.url, url=f"{provider.url}/ask", **options)
    try:
        yield http, await http.place("introspection_endpoint")
    finally:
        await http.aclose()


async def test_a_form_is_posted_as_it_stands(provider: Provider) -> None:
    """With the fields of whoever asks, and none that tell of us or of others."""
    provider.answers["/ask"] = answer(b"yes")
    async with asking(provider) as (http, place):
        said = await http.post(place, FORM, {"Authorization": "Basic eDp5"})

    assert said.body == b"yes"
    assert provider.bodies == [FORM]
    head = provider.heads[0].lower()
    assert head.startswith("post /ask http/1.1\r\n")
    assert "\r\ncontent-type: application/x-www-form-urlencoded\r\n" in head
    assert "\r\nauthorization: basic edp5\r\n" in head
    assert "\r\ncookie:" not in head


async def test_a_redirect_takes_no_form_elsewhere(provider: Provider) -> None:
    """307 would repeat it, with the credential of whoever asks."""
    provider.answers["/ask"] = answer(b"", "307 Go", "location: /elsewhere")
    provider.answers["/elsewhere"] = answer(b"yes")
    async with asking(provider) as (http, place):
        with pytest.raises(SourceFailed, match="status 307") as failed:
            await http.post(place, FORM, {})

    assert not isinstance(failed.value, SourceAway)
    assert provider.asked == 1


async def test_what_one_answer_sets_no_other_question_carries(
    provider: Provider,
) -> None:
    """No cookie is kept, and no connection: what is left on it is nobody's answer."""
    provider.answers["/ask"] = answer(b"1", "200 OK", "set-cookie: a=b") + answer(b"2")
    async with asking(provider) as (http, place):
        for _ in range(2):
            assert (await http.post(place, FORM, {})).body == b"1"

    assert provider.asked == 2
    assert "cookie" not in provider.heads[1].lower()


async def test_who_asks_at_once_shares_what_it_takes(provider: Provider) -> None:
    """The certificates of the system are read once, and there is one client."""
    provider.answers["/ask"] = answer(b"yes")
    async with asking(provider) as (http, place):
        with patch.object(http, "_http", wraps=http._http) as made:
            asked = (http.post(place, FORM, {}) for _ in range(10))
            said = await asyncio.gather(*asked)

    assert {each.body for each in said} == {b"yes"}
    assert made.call_count == 1


async def test_an_answer_is_bounded(provider: Provider) -> None:
    """By what the one who asks can use."""
    provider.answers["/ask"] = answer(b"x" * 101)
    async with asking(provider) as (http, place):
        with pytest.raises(SourceFailed, match="more than 100 bytes"):
            await http.post(place, FORM, {})


async def test_nobody_there_is_away(provider: Provider) -> None:
    """Told apart from an answer that can't be used: the next one need not wait."""
    async with asking(provider) as (http, _):
        closed = Place((http._url.copy_with(port=1),))
        with pytest.raises(SourceAway, match="ConnectError"):
            await http.post(closed, FORM, {})

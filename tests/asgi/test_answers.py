"""gateway.asgi.answers: our answers as Starlette responses."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from gateway.asgi.answers import problem, read_body, response
from gateway.model import Denial, Reason
from gateway.wire.problems import problem as denied


def test_an_answer_keeps_its_headers_and_gains_none() -> None:
    """What wire.problems made is what is sent."""
    answer = denied(Denial(Reason.TOKEN_EXPIRED), request_id="r-1")

    made = response(answer)

    assert made.status_code == 401
    assert tuple(made.raw_headers) == answer.headers
    assert made.body == answer.body


def test_an_operators_mistake_is_answered_in_words() -> None:
    """The admin port speaks RFC 9457 too."""
    made = problem(400, "exactly one is needed", "invalid_order")

    assert made.media_type == "application/problem+json"
    said = json.loads(bytes(made.body))
    assert said["detail"] == "exactly one is needed"
    assert "field" not in said
    there = problem(400, "it is none", "invalid_order", field="orders[3].sub")
    assert json.loads(bytes(there.body))["field"] == "orders[3].sub"


CHUNK: Message = {"type": "http.request", "body": b"12345", "more_body": True}
LAST: Message = {"type": "http.request", "body": b"678"}
GONE: Message = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("messages", "body"),
    [([CHUNK, LAST], b"12345678"), ([CHUNK, CHUNK], None), ([CHUNK, GONE], None)],
    ids=["whole", "too long", "its client has gone"],
)
async def test_a_body_is_read_whole_or_not_at_all(
    messages: Sequence[Message], body: bytes | None
) -> None:
    """Anybody can send half a body: that is no mistake of ours."""
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming)

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    assert await read_body(request, 8) == body

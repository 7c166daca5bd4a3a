"""gateway.backend.answers: what a service answers when it will not serve."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from gateway.backend.answers import problem


@pytest.mark.parametrize(
    ("status", "more"),
    [
        (HTTPStatus.UNAUTHORIZED, ("www-authenticate", "Bearer")),
        (HTTPStatus.FORBIDDEN, None),
        (HTTPStatus.SERVICE_UNAVAILABLE, ("retry-after", "1")),
    ],
)
def test_a_refusal_is_a_problem_document(
    status: HTTPStatus, more: tuple[str, str] | None
) -> None:
    """RFC 9457; never stored; with the field that its status asks for."""
    fields, body = problem(status, "Why.")

    assert json.loads(body) == {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": "Why.",
    }
    assert fields == [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        *([more] if more else []),
    ]

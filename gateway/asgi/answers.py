"""Our own answers as Starlette responses.

Imports: gateway.wire, starlette.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.responses import Response

from gateway.wire.problems import Answer


def response(answer: Answer) -> Response:
    """Return *answer* as it stands, no header more."""
    made = Response(answer.body, status_code=answer.status)
    made.raw_headers = list(answer.headers)
    return made


def problem(status: int, detail: str, code: str) -> Response:
    """Return a problem document (RFC 9457) for an operator's own mistake."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(
        json.dumps(body),
        status_code=status,
        media_type="application/problem+json",
        headers={"cache-control": "no-store"},
    )

"""Our own answers as Starlette responses.

Imports: gateway.model, gateway.wire, starlette.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.model import Unavailable
from gateway.wire.problems import Answer


def response(answer: Answer) -> Response:
    """Return *answer* as it stands, no header more."""
    made = Response(answer.body, status_code=answer.status)
    made.raw_headers = list(answer.headers)
    return made


def problem(status: int, detail: str, code: str, *, field: str = "") -> Response:
    """Return a problem document (RFC 9457) for an operator's own mistake.

    Args:
        status: Of the answer.
        detail: What is wrong, in words.
        code: The same for programs.
        field: Where it is wrong, if that is one place.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **({"field": field} if field else {}),
    }
    return Response(
        json.dumps(body),
        status_code=status,
        media_type="application/problem+json",
        headers={"cache-control": "no-store"},
    )


def away(outage: Unavailable, words: str) -> Response:
    """Return the problem document of an outage, for an operator; *words* end it."""
    answer = problem(503, f"{outage}: {words}", "unavailable")
    answer.headers["retry-after"] = str(outage.retry_after)
    return answer


async def read_body(request: Request, most: int) -> bytes | None:
    """Return the body of *request*, or None where it is longer than *most* bytes.

    None, too, where its client has gone: nobody hears the answer.
    """
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                return None
    except ClientDisconnect:
        return None
    return body

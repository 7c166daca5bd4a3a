"""What a service answers when it can't believe, or won't serve, a request.

RFC 9457, as the gateway's own answers. The client is told nothing that would help to
make a better forgery; the reason is in the log.

Imports: the standard library only.
"""

from __future__ import annotations

import json
from http import HTTPStatus

Fields = list[tuple[str, str]]

UNSIGNED = "This service answers only to its gateway."
NO_KEYS = "This service can't verify its gateway at the moment."


def problem(status: HTTPStatus, detail: str) -> tuple[Fields, bytes]:
    """Return the header fields and the body of a refusal."""
    body = json.dumps(
        {"type": "about:blank", "title": status.phrase, "status": status}
        | {"detail": detail}
    ).encode("ascii")
    fields = [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        fields.append(("www-authenticate", "Bearer"))  # RFC 9110 section 15.5.2
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append(("retry-after", "1"))
    return fields, body

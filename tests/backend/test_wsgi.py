"""gateway.backend.wsgi: the assertion is verified before a WSGI app sees a request."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from gateway.backend.guard import KEY, identity, require
from gateway.backend.verify import Verifier
from gateway.backend.wsgi import Environ, StartResponse, WsgiIdentityMiddleware
from gateway.identity.signer import BoundRequest
from tests.backend.assertions import HEADERS, ISSUER, KEYS, NOW, assertion, fields

NAME = "HTTP_X_GATEWAY_ASSERTION"
GOOD = assertion().decode()
BOUND = assertion(request=BoundRequest("GET", b"/who?a=%20b", "r-1")).decode()
COPIES = {
    "HTTP_" + name.decode().upper().replace("-", "_"): value.decode()
    for name, value in fields(headers=HEADERS)
}


def verifier(keys: Any = KEYS, **changes: Any) -> Verifier:
    settings: dict[str, Any] = {"wall": lambda: NOW, **changes}
    return Verifier(keys, issuer=ISSUER, audience="orders", **settings)


WHO = verifier().verify(GOOD)


def service(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    who = identity(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [who.subject.encode() if who else b"nobody"]


def call(app: Any, **environ: Any) -> tuple[int, dict[str, str], bytes]:
    """Call *app* as PEP 3333 says, with its own validator in between."""
    given: Environ = {"SCRIPT_NAME": "", "QUERY_STRING": "", **environ}
    given.setdefault("PATH_INFO", "/")
    setup_testing_defaults(given)
    started: list[Any] = []

    def start_response(*args: Any) -> Any:
        started.extend(args)
        return lambda _body: None

    result = validator(app)(given, start_response)
    try:
        body = b"".join(result)
    finally:
        result.close()  # type: ignore[attr-defined]
    return int(started[0].split()[0]), dict(started[1]), body


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({NAME: GOOD}, 200),
        ({}, 401),
        ({NAME: ""}, 401),
        ({NAME: f"{GOOD},{GOOD}"}, 401),
        ({NAME: f"{GOOD}, forged"}, 401),
        ({NAME: GOOD[:-4]}, 401),
        ({"HTTP_AUTHORIZATION": f"Bearer {GOOD}"}, 401),
        ({KEY: "forged"}, 401),
    ],
)
def test_only_what_the_gateway_signed_is_served(
    environ: dict[str, str], status: int
) -> None:
    """Two fields, which a server joins by a comma, are refused too."""
    found, headers, body = call(WsgiIdentityMiddleware(service, verifier()), **environ)

    assert found == status
    if status == 401:
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["detail"] == "This service answers only to its gateway."
    else:
        assert body == b"alice"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (200, b"nobody")),
        ({KEY: WHO}, (200, b"nobody")),  # left over from another request
        ({NAME: GOOD}, (200, b"alice")),
        ({NAME: "x"}, (401, None)),
    ],
)
def test_optional_lets_nobody_in_but_no_forgery(
    environ: dict[str, Any], expected: tuple[int, bytes | None]
) -> None:
    """For services with public routes."""
    app = WsgiIdentityMiddleware(service, verifier(), optional=True)

    status, _, body = call(app, **environ)

    assert (status, body if status == 200 else None) == expected


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"PATH_INFO": "/healthz"}, 200),
        ({"SCRIPT_NAME": "/healthz", "PATH_INFO": ""}, 200),
        ({"SCRIPT_NAME": "/other", "PATH_INFO": "/healthz"}, 401),
        ({"PATH_INFO": "/healthz/"}, 401),
    ],
)
def test_an_exempt_path_is_exempt_as_a_whole(
    environ: dict[str, str], status: int
) -> None:
    """With what the app is mounted under."""
    app = WsgiIdentityMiddleware(service, verifier(), exempt=["/healthz"])

    assert call(app, **environ)[0] == status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"HTTP_X_AUTH_REQUEST_USER": "bob"}, 401),
        ({"HTTP_X_ROLES": "admin"}, 401),
        ({"HTTP_X_TENANT": "t"}, 401),
    ],
)
def test_plain_copies_are_compared(changes: dict[str, str], status: int) -> None:
    """Whichever names the environ folds them to."""
    app = WsgiIdentityMiddleware(service, verifier(headers=HEADERS))

    assert call(app, **{**COPIES, **changes})[0] == status


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"REQUEST_URI": "/who?a=%20b"}, 200),
        ({"RAW_URI": "/who?a=%20b"}, 200),
        ({"REQUEST_URI": "/who"}, 401),
        ({"RAW_URI": "/who?a= b"}, 401),
        ({"RAW_URI": "/who?a=%20b", "REQUEST_METHOD": "POST"}, 401),
        ({"PATH_INFO": "/who", "QUERY_STRING": "a=%20b"}, 401),
    ],
)
def test_a_bound_assertion_is_for_the_bytes_received(
    environ: dict[str, str], status: int
) -> None:
    """A server that does not say what it received can't have it compared."""
    app = WsgiIdentityMiddleware(service, verifier())

    assert call(app, **{NAME: BOUND}, **environ)[0] == status


def test_require_refuses_before_the_app_answers() -> None:
    """403 without the permission, 401 for nobody."""
    guarded = require("orders:write")(service)
    app = WsgiIdentityMiddleware(guarded, verifier(), optional=True)

    assert call(app, **{NAME: GOOD})[0] == 403
    assert call(app)[0] == 401
    granted = WsgiIdentityMiddleware(require("orders:read")(service), verifier())
    assert call(granted, **{NAME: GOOD})[0] == 200


def test_keys_that_cannot_be_had_are_503() -> None:
    """An outage is never the caller's fault."""

    def away() -> bytes:
        raise OSError

    status, headers, _ = call(
        WsgiIdentityMiddleware(service, verifier(away)), **{NAME: GOOD}
    )

    assert (status, headers["retry-after"]) == (503, "1")

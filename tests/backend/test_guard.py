"""gateway.backend.guard: inside a service (S20)."""

from __future__ import annotations

import inspect
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from gateway.backend.guard import KEY, Guard, Refused, identity, require
from gateway.backend.verify import Identity, Verifier
from tests.backend.assertions import ISSUER, KEYS, NOW, assertion

WHO = Verifier(KEYS, issuer=ISSUER, audience="orders").verify(assertion(), now=NOW)
SCOPE: dict[str, Any] = {"type": "http", KEY: WHO}
NOBODY: dict[str, Any] = {"type": "http", KEY: None}
ENVIRON: dict[str, Any] = {"REQUEST_METHOD": "GET", KEY: WHO}

read = require("orders:read")
both = require("orders:read", "orders:write")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (SCOPE, WHO),
        (ENVIRON, WHO),
        (Request(SCOPE), WHO),
        (SimpleNamespace(environ=ENVIRON), WHO),
        (NOBODY, None),
        ({}, None),
        ({KEY: "alice"}, None),
    ],
)
def test_identity_is_found_in_what_holds_a_request(
    request_: object, expected: Identity | None
) -> None:
    """A scope, an environ, or a framework's request."""
    assert identity(request_) is expected


def test_identity_of_something_else_is_a_mistake() -> None:
    """Not nobody: the caller passed the wrong thing."""
    with pytest.raises(TypeError, match="scope"):
        identity("alice")


def test_a_granted_permission_lets_pass() -> None:
    """The guard answers with who it is."""
    assert read(SCOPE) is WHO
    assert read.check(SimpleNamespace(environ=ENVIRON)) is WHO


@pytest.mark.parametrize(
    ("guard", "request_", "status"),
    [
        (require("orders:write"), SCOPE, HTTPStatus.FORBIDDEN),
        (both, ENVIRON, HTTPStatus.FORBIDDEN),
        (require("orders"), SCOPE, HTTPStatus.FORBIDDEN),
        (read, NOBODY, HTTPStatus.UNAUTHORIZED),
        (read, {}, HTTPStatus.UNAUTHORIZED),
    ],
)
def test_a_missing_one_does_not(
    guard: Guard, request_: object, status: HTTPStatus
) -> None:
    """403 for somebody, 401 for nobody; all permissions are asked for."""
    with pytest.raises(Refused) as caught:
        guard.check(request_)

    assert caught.value.status is status


@pytest.mark.parametrize(
    ("inside", "status", "challenge"),
    [(SCOPE, 403, None), (NOBODY, 401, {"WWW-Authenticate": "Bearer"})],
)
def test_starlette_is_refused_in_its_own_words(
    inside: dict[str, Any], status: int, challenge: dict[str, str] | None
) -> None:
    """Where its handlers are in place; another exception would be a 500 there."""
    scope = {**inside, "starlette.exception_handlers": ({}, {})}

    with pytest.raises(HTTPException) as caught:
        both.check(Request(scope))

    assert (caught.value.status_code, caught.value.headers) == (status, challenge)


def test_a_guard_names_its_permission() -> None:
    """`@require` without one would ask for nothing."""
    with pytest.raises(TypeError, match="orders:read"):
        require()
    with pytest.raises(TypeError, match="orders:read"):
        require(lambda _request: None)  # type: ignore[arg-type]


def test_a_dependency_asks_for_the_connection() -> None:
    """FastAPI hands over what the signature names."""
    (parameter,) = inspect.signature(read).parameters.values()

    assert parameter.annotation is HTTPConnection


def test_a_plain_handler_is_guarded() -> None:
    """Function or method, by position or by name; the handler keeps its signature."""

    @read
    def handler(request: object, order: object = "o-1") -> object:
        return order

    class View:
        @both
        def get(self, request: object) -> str:
            raise AssertionError

    assert handler(SCOPE) == "o-1"
    assert handler({"order": 1}, order=SCOPE) is SCOPE
    assert handler(request=Request(SCOPE), order="o-2") == "o-2"
    assert list(inspect.signature(handler).parameters) == ["request", "order"]
    with pytest.raises(Refused):
        handler(NOBODY)
    with pytest.raises(Refused):
        View().get(ENVIRON)


async def test_a_coroutine_handler_is_guarded() -> None:
    """It stays one, so that a framework awaits it."""

    @read
    async def handler(request: object) -> str:
        return "served"

    assert inspect.iscoroutinefunction(handler)
    assert await handler(SCOPE) == "served"
    with pytest.raises(Refused):
        await handler(NOBODY)


def test_a_handler_without_a_request_is_not_let_pass() -> None:
    """There is nothing to judge: a mistake that shows, not an open door."""

    @read
    def handler(order: str) -> str:
        raise AssertionError

    with pytest.raises(TypeError, match="no request"):
        handler("o-1")

"""gateway.backend.asgi: the assertion is verified before an ASGI app sees a request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.backend.asgi import App, IdentityMiddleware, Message, Receive, Scope, Send
from gateway.backend.guard import KEY, identity, require
from gateway.backend.verify import Verifier
from gateway.identity.signer import BoundRequest
from tests.backend.assertions import (
    BOTH,
    HEADERS,
    ISSUER,
    KEYS,
    NEXT,
    NOW,
    assertion,
    fields,
    forged,
)

GOOD = assertion().decode()
NAME = "X-Gateway-Assertion"


def verifier(keys: Any = KEYS, **changes: Any) -> Verifier:
    settings: dict[str, Any] = {"wall": lambda: NOW, **changes}
    return Verifier(keys, issuer=ISSUER, audience="orders", **settings)


async def who(request: Request) -> JSONResponse:
    found = identity(request)
    assert found is request.state.identity
    assert found is identity(request.scope)
    return JSONResponse({"subject": found and found.subject})


@require("orders:read")
async def orders(request: Request) -> JSONResponse:
    return JSONResponse([])


@require("orders:write")
def place(request: Request) -> JSONResponse:
    raise AssertionError


@require("orders:read")
async def live(socket: WebSocket) -> None:
    await socket.accept()
    found = identity(socket)
    await socket.send_text(found.subject if found else "")
    await socket.close()


SERVICE = Starlette(
    routes=[
        Route("/who", who),
        Route("/healthz", who),
        Route("/orders", orders, methods=["GET"]),
        Route("/place", place, methods=["POST"]),
        WebSocketRoute("/live", live),
    ]
)


async def call(
    app: App,
    headers: Sequence[tuple[str, str]] | dict[str, str],
    path: str = "/who",
    method: str = "GET",
) -> Response:
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://orders") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(NAME, GOOD)], 200),
        ([], 401),
        ([(NAME, "")], 401),
        ([(NAME, GOOD), (NAME, GOOD)], 401),
        ([(NAME, forged(aud="billing"))], 401),
        ([("X_Gateway_Assertion", GOOD)], 401),
        ([("Authorization", f"Bearer {GOOD}")], 401),
    ],
)
async def test_only_what_the_gateway_signed_is_served(
    headers: list[tuple[str, str]], status: int
) -> None:
    """Everything else is one answer, whatever was wrong with it."""
    response = await call(IdentityMiddleware(SERVICE, verifier()), headers)

    assert response.status_code == status
    if status == 401:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["cache-control"] == "no-store"
        assert response.json()["detail"] == "This service answers only to its gateway."
    else:
        assert response.json() == {"subject": "alice"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], (200, None)),
        ([(NAME, GOOD)], (200, "alice")),
        ([(NAME, "x")], (401, None)),
        ([(NAME, "")], (401, None)),
    ],
)
async def test_optional_lets_nobody_in_but_no_forgery(
    headers: list[tuple[str, str]], expected: tuple[int, str | None]
) -> None:
    """For services with public routes."""
    app = IdentityMiddleware(SERVICE, verifier(), optional=True)

    response = await call(app, headers)

    assert (response.status_code, response.json().get("subject")) == expected


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/healthz/", 401), ("/healthz/../who", 401), ("/who", 401)],
)
async def test_an_exempt_path_is_exempt_as_a_whole(path: str, status: int) -> None:
    """And whoever calls it is nobody, also with an assertion."""
    app = IdentityMiddleware(SERVICE, verifier(), exempt=["/healthz"])

    assert (await call(app, {}, path)).status_code == status
    if status == 200:
        response = await call(app, {NAME: GOOD}, path)
        assert response.json() == {"subject": None}


async def test_plain_copies_are_compared() -> None:
    """With those of the request; another user's name is refused."""
    sent = [(name.decode(), value.decode()) for name, value in fields(headers=HEADERS)]
    app = IdentityMiddleware(SERVICE, verifier(headers=HEADERS))

    assert (await call(app, sent)).status_code == 200
    assert (await call(app, [*sent, ("x-tenant", "t")])).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/who?a=%20b", 200),
        ("GET", "/who?a=+b", 401),
        ("GET", "/who", 401),
        ("GET", "/%77ho?a=%20b", 401),
        ("POST", "/who?a=%20b", 401),
    ],
)
async def test_a_bound_assertion_is_for_the_bytes_received(
    method: str, path: str, status: int
) -> None:
    """Method, raw path and query."""
    bound = assertion(request=BoundRequest("GET", b"/who?a=%20b", "r-1")).decode()
    app = IdentityMiddleware(SERVICE, verifier())

    assert (await call(app, {NAME: bound}, path, method)).status_code == status


async def test_a_bound_assertion_needs_the_raw_path() -> None:
    """A server that does not say what it received can't have it compared."""
    bound = assertion(request=BoundRequest("GET", b"/who", "r-1"))
    for raw_path, status in ((b"/who", 200), (None, 401)):
        sent = await drive(
            IdentityMiddleware(SERVICE, verifier()),
            {"headers": [(NAME.lower().encode(), bound)], "raw_path": raw_path},
        )
        assert sent[0]["status"] == status


@pytest.mark.parametrize("wrapped", ["outside", "inside"])
async def test_require_refuses_inside_the_app(wrapped: str) -> None:
    """403 without the permission, 401 for nobody, wherever the middleware stands."""
    app: App = IdentityMiddleware(SERVICE, verifier(), optional=True)
    if wrapped == "inside":
        inner = Starlette(routes=SERVICE.routes)
        inner.add_middleware(IdentityMiddleware, verifier=verifier(), optional=True)
        app = inner

    assert (await call(app, {NAME: GOOD}, "/orders")).status_code == 200
    assert (await call(app, {NAME: GOOD}, "/place", "POST")).status_code == 403
    nobody = await call(app, {}, "/orders")
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"] == "Bearer"


async def drive(app: App, changes: dict[str, Any]) -> list[Message]:
    """Call *app* with a bare scope; return what it sent."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/who",
        "raw_path": b"/who",
        "query_string": b"",
        "headers": [(NAME.lower().encode(), GOOD.encode())],
        **changes,
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_require_needs_no_framework() -> None:
    """A bare ASGI app is answered for, until it has begun to answer itself."""

    @require("orders:write")
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        require("orders:write").check(scope)

    sent = await drive(IdentityMiddleware(guarded, verifier()), {})
    assert sent[0]["status"] == 403
    with pytest.raises(Exception, match="orders:write"):
        await drive(IdentityMiddleware(late, verifier()), {})


async def test_the_scope_of_others_is_left_alone() -> None:
    """The app gets a scope of its own; nobody can bring an identity along."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    state = {"pool": 1, "identity": "forged"}
    given = {"headers": [], KEY: "forged", "state": state}
    await drive(IdentityMiddleware(app, verifier(), optional=True), given)
    await drive(IdentityMiddleware(app, verifier()), {"type": "lifespan"})

    assert seen[0]["state"] == {"pool": 1, "identity": None}
    assert seen[0][KEY] is None
    assert state["identity"] == "forged"
    assert seen[1]["type"] == "lifespan"
    assert KEY not in seen[1]


# -- WebSocket -----------------------------------------------------------------


def test_a_websocket_is_verified_before_it_is_accepted() -> None:
    """With a real status where the server can send one."""
    app = IdentityMiddleware(SERVICE, verifier())
    with TestClient(app) as client:
        with client.websocket_connect("/live", headers={NAME: GOOD}) as socket:
            assert socket.receive_text() == "alice"
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("/live"),
        ):
            raise AssertionError
        assert denied.value.status_code == 401
        weak = assertion(scope=()).decode()
        with (
            pytest.raises((WebSocketDisconnect, HTTPException)),
            client.websocket_connect("/live", headers={NAME: weak}),
        ):
            raise AssertionError


@pytest.mark.parametrize(
    ("app", "keys", "headers", "code"),
    [
        (SERVICE, KEYS, [], 4401),
        (SERVICE, lambda: b"", [(NAME.lower().encode(), GOOD.encode())], 1013),
    ],
)
async def test_a_websocket_is_closed_where_it_cannot(
    app: App, keys: Any, headers: list[tuple[bytes, bytes]], code: int
) -> None:
    """The close comes before the accept: the server makes it a 403."""
    scope = {"type": "websocket", "headers": headers}

    (sent,) = await drive(IdentityMiddleware(app, verifier(keys)), scope)

    assert (sent["type"], sent["code"]) == ("websocket.close", code)


# -- keys ----------------------------------------------------------------------


async def test_keys_that_cannot_be_had_are_503() -> None:
    """An outage is never the caller's fault."""

    def away() -> bytes:
        raise OSError

    response = await call(IdentityMiddleware(SERVICE, verifier(away)), {NAME: GOOD})

    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_others_are_served_while_keys_are_fetched() -> None:
    """One fetch, in a thread; the loop and every known key go on."""
    answers = iter([KEYS, BOTH])
    started, go = threading.Event(), threading.Event()
    threads = []

    def fetch() -> bytes:
        document = next(answers)
        threads.append(threading.current_thread())
        if document == BOTH:
            started.set()
            assert go.wait(10)
        return document

    now = [0.0]
    by = verifier(fetch)
    by.keys._monotonic = lambda: now[0]
    app = IdentityMiddleware(SERVICE, by)
    assert (await call(app, {NAME: GOOD})).status_code == 200
    now[0] = 31.0

    # Fewer threads than callers, as in a process with few cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    new = {NAME: assertion(key=NEXT).decode()}
    waiting = [asyncio.ensure_future(call(app, new)) for _ in range(20)]
    assert await asyncio.to_thread(started.wait, 10)
    fresh = {NAME: forged()}  # a text not seen before, by a key that is known
    assert (await call(app, fresh)).status_code == 200
    await asyncio.wait_for(asyncio.to_thread(int), 10)  # a thread is free for the app
    assert not any(one.done() for one in waiting)
    go.set()

    assert {(await one).status_code for one in waiting} == {200}
    assert len(threads) == 2
    assert threading.main_thread() not in threads

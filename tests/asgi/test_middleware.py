"""gateway.asgi.middleware: the gateway inside an application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import jwt
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.asgi.own import KEY_SET_PATH
from gateway.backend import IdentityMiddleware, Verifier
from gateway.backend import identity as identity_of
from gateway.door import GatewayMiddleware
from gateway.model import Principal, Unavailable
from gateway.observe.access import Entry
from tests.site import IDENTITY, POLICY, Site

ORDERS = "/api/orders/customers/c-1/orders"


class App:
    """Remembers what it was asked; answers with what it is told to."""

    def __init__(self, **headers: str) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client went away")
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        fields = [(k.encode(), v.encode()) for k, v in self.headers.items()]
        start = {"type": "http.response.start", "status": 200, "headers": fields}
        await send(start)
        await send({"type": "http.response.body", "body": b"ok"})

    def header(self, name: bytes) -> list[bytes]:
        (scope,) = self.scopes
        return [value for key, value in scope["headers"] if key == name]


def guard(site: Site, app: ASGIApp, log: list[Entry] | None = None) -> Any:
    kept: list[Entry] = [] if log is None else log
    return GatewayMiddleware(
        app, config=site.write(), service="orders", log=kept.append
    )


@asynccontextmanager
async def client(app: ASGIApp) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://api.example"
    ) as made:
        yield made
    await getattr(app, "engine", _Nothing).aclose()


class _Nothing:
    @staticmethod
    async def aclose() -> None:
        pass


async def test_the_application_receives_what_an_upstream_would(tmp_path: Path) -> None:
    """The credential and every reserved name taken out, the identity written in."""
    site, app, log = Site(tmp_path), App(), list[Entry]()
    spoofed = {"X-Gateway-Assertion": "x", "x_auth_request_user": "admin", "x-a": "1"}
    async with client(guard(site, app, log)) as http:
        answer = await http.get(
            ORDERS + "?page=2", headers={**site.bearer("c-1"), **spoofed}
        )

    assert (answer.status_code, answer.text) == (200, "ok")
    assert app.header(b"authorization") == []
    assert app.header(b"x-a") == [b"1"]
    assert app.header(b"x-auth-request-user") == [b"c-1"]
    assert app.header(b"x_auth_request_user") == []
    (assertion,) = app.header(b"x-gateway-assertion")
    claims = jwt.decode(assertion.decode(), options={"verify_signature": False})
    assert (claims["sub"], claims["aud"]) == ("c-1", "orders")
    assert answer.headers["vary"] == "Authorization"
    (entry,) = log
    assert (entry.decision, entry.route, entry.status) == ("permit", "orders.list", 200)
    assert entry.path == ORDERS
    assert entry.token_hash
    assert answer.headers["x-request-id"] == entry.request_id


async def test_an_old_mirror_that_decided_is_in_the_log(tmp_path: Path) -> None:
    """Of whoever was let in, and of whoever was not."""
    more = '[outage]\nrevocation = "allow-stale"\n'
    site, log = Site(tmp_path, more=more), list[Entry]()
    guarded = guard(site, App(), log)
    revocations = guarded.engine.stores.revocations

    async def away(_principal: Principal) -> bool:
        raise Unavailable("revocation store")

    def known(_principal: Principal, _most: float) -> tuple[bool, float]:
        return False, 2.5

    async with client(guarded) as http:
        with patch.multiple(
            revocations, check_now=lambda _: None, check=away, check_stale=known
        ):
            for subject in ("c-1", "c-2"):
                await http.get(ORDERS, headers=site.bearer(subject))
        await http.get(ORDERS, headers=site.bearer("c-1"))

    assert [(entry.status, entry.revocation_age) for entry in log] == [
        (200, 2.5),
        (403, 2.5),
        (200, None),
    ]


async def test_the_application_can_verify_the_identity_in_place(tmp_path: Path) -> None:
    """With the keys of the middleware itself: no request to anybody."""
    site = Site(tmp_path)
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        who = identity_of(scope)
        assert who is not None
        seen.append(who.subject)
        await App()(scope, receive, send)

    wrapped: Any = None
    verifier = Verifier(
        keys=lambda: wrapped.engine.key_set(),  # noqa: PLW0108  (made below)
        issuer=IDENTITY,
        audience="orders",
    )
    wrapped = guard(site, IdentityMiddleware(app, verifier))
    async with client(wrapped) as http:
        answer = await http.get(ORDERS, headers=site.bearer("c-1"))

    assert answer.status_code == 200, answer.text
    assert seen == ["c-1"]


@pytest.mark.parametrize(
    ("method", "path", "subject", "status", "reason"),
    [
        ("GET", ORDERS, None, 401, "credential.missing"),
        ("GET", ORDERS, "c-2", 403, "condition.failed:owner"),
        ("DELETE", ORDERS, "c-1", 405, "method.not_allowed"),
        ("GET", "/api/nothing", "c-1", 404, "route.unknown"),
        ("GET", "/api/orders/%2e%2e/x", "c-1", 400, "target.ambiguous:dot segment"),
    ],
)
async def test_what_is_refused_never_reaches_the_application(
    tmp_path: Path,
    method: str,
    path: str,
    subject: str | None,
    status: int,
    reason: str,
) -> None:
    """It is answered with a problem document, and logged with its reason."""
    site, app, log = Site(tmp_path), App(), list[Entry]()
    headers = site.bearer(subject) if subject else {}
    async with client(guard(site, app, log)) as http:
        answer = await http.request(method, path, headers=headers)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert not app.scopes
    assert (log[0].decision, log[0].reason) == ("deny", reason)


@pytest.mark.parametrize("escape", ["%2F", "%2f", "%5C"])
async def test_an_encoded_separator_is_refused_even_where_the_route_allows_it(
    tmp_path: Path, escape: str
) -> None:
    """The application would dispatch by the decoded path, which nobody judged."""
    site, app, log = Site(tmp_path), App(), list[Entry]()
    site.policy = site.policy.replace(
        'path    = "/files/{rest...}"',
        'path    = "/files/{rest}"\nallow_encoded = ["%2F", "%5C"]',
    )
    async with client(guard(site, app, log)) as http:
        answer = await http.get(
            f"/api/orders/files/a{escape}secrets", headers=site.bearer("c-1")
        )

    assert answer.status_code == 400
    assert not app.scopes
    assert (log[0].reason, log[0].route) == ("target.ambiguous:escape", "orders.file")


async def test_a_route_of_another_service_does_not_lead_here(tmp_path: Path) -> None:
    """One configuration may hold many; this application is one of them."""
    site, app = Site(tmp_path), App()
    site.write()
    (tmp_path / "policies" / "shop.toml").write_text(
        'version = 1\n[service]\nname = "shop"\nprefix = "/shop"\nupstream = "orders"\n'
        '[[route]]\nmethods = ["GET"]\npath = "/x"\naccess = { public = "test" }\n'
    )
    async with client(guard(site, app)) as http:
        answer = await http.get("/shop/x")

    assert answer.status_code == 404
    assert not app.scopes


async def test_a_stripped_prefix_is_stripped_for_the_application_too(
    tmp_path: Path,
) -> None:
    """It sees the target that an upstream would have been sent."""
    site, app = Site(tmp_path), App()
    site.policy = site.policy.replace(
        'upstream = "orders"', 'upstream = "orders"\nstrip_prefix = true'
    )
    async with client(guard(site, app)) as http:
        answer = await http.get(
            "/api/orders/files/a%20b?c=%20", headers=site.bearer("c-1")
        )

    assert answer.status_code == 200
    (scope,) = app.scopes
    assert scope["raw_path"] == b"/files/a%20b"
    assert scope["path"] == "/files/a b"
    assert scope["query_string"] == b"c=%20"


async def ask(app: ASGIApp, **said: Any) -> list[Message]:
    """Send a request as a server would that read it as *said*; return the answer."""
    answered: list[Message] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "raw_path": b"/api/orders/status",
        "path": "/api/orders/status",
        "query_string": b"",
        "client": ("192.0.2.1", 1),
        **said,
    }
    scope["headers"] = [(b"host", b"api.example"), *said.get("headers", ())]

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        answered.append(message)

    await app(scope, receive, send)
    return answered


async def test_the_application_gets_the_path_that_was_judged(tmp_path: Path) -> None:
    """What a server made of the raw path is no matter."""
    app = App()
    wrapped = guard(Site(tmp_path), app)
    await ask(wrapped, path="/api/orders/admin")
    await wrapped.engine.aclose()

    (scope,) = app.scopes
    assert scope["path"] == "/api/orders/status"


async def test_a_failure_of_the_application_stays_its_own(tmp_path: Path) -> None:
    """The server hears of it, and so does the log."""
    site, log = Site(tmp_path), list[Entry]()

    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ZeroDivisionError

    async with client(guard(site, failing, log)) as http:
        with pytest.raises(ZeroDivisionError):
            await http.get("/api/orders/status")

    assert log[0].status is None


@pytest.mark.parametrize(("on_route", "passed"), [(None, True), ("strip", False)])
async def test_an_upstream_that_takes_credentials_gets_them(
    tmp_path: Path, on_route: str | None, passed: bool
) -> None:
    """`credentials_to_upstream` counts on the upstream; a route may say otherwise."""
    site, app = Site(tmp_path), App()
    # What stands first in `more` belongs to [upstream.orders].
    site.more = 'credentials_to_upstream = "pass"'
    if on_route:
        last = 'access  = "authenticated"\n'
        said = f'{last}credentials_to_upstream = "{on_route}"\n'
        site.policy = site.policy.replace(last, said)
    bearer = site.bearer("c-1")
    async with client(guard(site, app)) as http:
        await http.get("/api/orders/me", headers=bearer)

    received = app.header(b"authorization")
    assert received == ([bearer["authorization"].encode()] if passed else [])


async def test_an_outage_is_503(tmp_path: Path) -> None:
    """It is logged as one, with the name of who is away."""
    site, app, log = Site(tmp_path), App(), list[Entry]()
    wrapped = guard(site, app, log)

    async def away(*_: object) -> None:
        raise Unavailable("revocation store")

    wrapped.engine.decider.decide = away
    async with client(wrapped) as http:
        answer = await http.get(ORDERS, headers=site.bearer("c-1"))

    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert (log[0].decision, log[0].reason) == ("outage", "revocation store")


async def test_a_server_without_raw_path_is_refused(tmp_path: Path) -> None:
    """There would be nothing to judge but a reading of somebody else's (R1)."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def nothing(*_: object) -> Any:
        raise AssertionError("nothing is read or sent")

    with pytest.raises(RuntimeError, match="raw_path"):
        await guard(Site(tmp_path), App())(scope, nothing, nothing)


async def test_the_lifespan_is_the_applications_own(tmp_path: Path) -> None:
    """Ours ends with it, and begins with the first request."""
    wrapped = guard(Site(tmp_path), App())
    closed = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        for phase in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{phase}"
            await send({"type": f"lifespan.{phase}.complete"})

    async def aclose() -> None:
        closed.set()

    wrapped.app = app
    await wrapped.engine.aclose()
    wrapped.engine.aclose = aclose
    said: list[Message] = []
    told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return told.pop(0)

    async def send(message: Message) -> None:
        said.append(message)

    await wrapped({"type": "lifespan"}, receive, send)

    assert [message["type"] for message in said] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert closed.is_set()


async def test_an_engine_that_did_not_start_is_started_by_the_next_request(
    tmp_path: Path,
) -> None:
    """A first request that was cancelled, or failed, leaves nothing half done."""
    wrapped = guard(Site(tmp_path), App())
    start, starts, hanging = wrapped.engine.start, list[str](), asyncio.Event()

    async def faulty() -> None:
        starts.append("")
        if len(starts) == 1:
            hanging.set()
            await asyncio.Event().wait()
        if len(starts) == 2:
            raise ZeroDivisionError
        await start()

    wrapped.engine.start = faulty
    first = asyncio.create_task(ask(wrapped))
    await hanging.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(ZeroDivisionError):
        await ask(wrapped)
    answered = [await ask(wrapped), await ask(wrapped)]
    await wrapped.engine.aclose()

    assert [messages[0]["status"] for messages in answered] == [200, 200]
    assert len(starts) == 3


async def test_first_requests_at_once_start_one_engine(tmp_path: Path) -> None:
    """And none of them is decided before it has started."""
    app = App()
    wrapped = guard(Site(tmp_path), app)
    start, starts, asked = wrapped.engine.start, list[str](), asyncio.Event()

    async def slow() -> None:
        starts.append("")
        await asked.wait()
        assert not app.scopes
        await start()

    wrapped.engine.start = slow
    requests = [asyncio.create_task(ask(wrapped)) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    asked.set()
    answered = await asyncio.gather(*requests)
    await wrapped.engine.aclose()

    assert [messages[0]["status"] for messages in answered] == [200] * 3
    assert len(starts) == 1


async def test_a_second_lifespan_gets_an_engine_of_its_own(tmp_path: Path) -> None:
    """What the first one held is closed for good; our endpoints follow."""
    site = Site(tmp_path)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await App()(scope, receive, send)

    async def nothing(*_: object) -> None:
        return

    wrapped = guard(site, app)
    engines = []
    for _ in range(2):
        answered = await ask(
            wrapped,
            raw_path=ORDERS.encode(),
            headers=[(b"authorization", site.bearer("c-1")["authorization"].encode())],
        )
        keys = await ask(wrapped, raw_path=KEY_SET_PATH.encode())
        assert [answered[0]["status"], keys[0]["status"]] == [200, 200]
        engines.append(wrapped.engine)
        await wrapped({"type": "lifespan"}, nothing, nothing)

    first, second = engines
    assert first is not second


async def websocket(
    app: ASGIApp,
    path: str,
    headers: dict[str, str],
    *,
    extension: bool,
    **more: Any,
) -> list[Message]:
    """Ask for a WebSocket; return what the server is told."""
    said: list[Message] = []
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "raw_path": path.encode(),
        "path": path,
        "query_string": b"",
        "client": ("192.0.2.1", 1),
        "headers": [
            (b"host", b"api.example"),
            *((k.encode(), v.encode()) for k, v in headers.items()),
        ],
        "extensions": {"websocket.http.response": {}} if extension else {},
        **more,
    }

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        said.append(message)

    await app(scope, receive, send)
    return said


async def test_a_websocket_is_decided_before_it_is_accepted(tmp_path: Path) -> None:
    """Refused with a real status where the server can send one (R93)."""
    site = Site(tmp_path)

    async def accepting(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "headers": []})
        await send({"type": "websocket.close"})

    wrapped = guard(site, accepting)
    good = await websocket(wrapped, ORDERS, site.bearer("c-1"), extension=True)
    bad = await websocket(wrapped, ORDERS, {}, extension=True)
    odd = {**site.bearer("c-1"), "x-a": "1\n2"}
    unclean = await websocket(wrapped, ORDERS, odd, extension=True)
    plain = await websocket(wrapped, ORDERS, {}, extension=False)
    await wrapped.engine.aclose()

    assert good[0]["type"] == "websocket.accept"
    assert [message["type"] for message in bad] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert bad[0]["status"] == 401
    assert unclean[0]["status"] == 400
    assert [message["type"] for message in plain] == ["websocket.close"]


async def test_a_token_among_the_subprotocols_stays_here(tmp_path: Path) -> None:
    """Where the route has WebSockets it counts; the application never sees it."""
    site = Site(
        tmp_path,
        policy=POLICY.replace(
            'id      = "orders.list"', 'id = "orders.list"\nwebsocket = {}'
        ),
    )
    seen: list[Scope] = []

    async def accepting(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "websocket.accept", "subprotocol": "chat"})

    offered = f"bearer.{site.token('c-1')}"
    wrapped = guard(site, accepting)
    headers = {"sec-websocket-protocol": f"{offered}, chat"}
    sent = await websocket(
        wrapped, ORDERS, headers, extension=True, subprotocols=[offered, "chat"]
    )
    assert sent[0]["type"] == "websocket.accept"
    assert seen[0]["subprotocols"] == ["chat"]
    assert offered not in str(seen[0])

"""gateway.asgi.passage: a request is read, refused or forwarded, and logged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from gateway.observe.access import Entry
from tests.asgi.test_middleware import ORDERS, App, ask, client, guard
from tests.site import Site

CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("version", "headers", "reason"),
    [
        ("1.1", [(b"content-length", b"0"), CHUNKED], "two framing fields"),
        ("1.1", [(b"content-length", b"0")] * 2, "two framing fields"),
        ("1.1", [(b"content-length", b"+0")], "content-length"),
        ("1.1", [(b"transfer-encoding", b"gzip, chunked")], "transfer-encoding"),
        ("1.0", [CHUNKED], "transfer-encoding"),
        ("2", [CHUNKED], "transfer-encoding"),
        ("0.9", [], "version"),
        ("1.1", [(b"x-a", b"1\n2")], "field"),
        ("1.1", [(b"x a", b"1")], "field"),
    ],
)
async def test_a_message_that_could_be_cut_in_two_places_is_refused(
    tmp_path: Path, version: str, headers: list[tuple[bytes, bytes]], reason: str
) -> None:
    """What the server let through is checked again (R2)."""
    app, log = App(), list[Entry]()
    wrapped = guard(Site(tmp_path), app, log)
    answered = await ask(wrapped, http_version=version, headers=headers)
    await wrapped.engine.aclose()

    assert answered[0]["status"] == 400
    assert not app.scopes
    assert log[0].reason == f"request.malformed:{reason}"


@pytest.mark.parametrize("version", ["1.0", "1.1", "2", "3"])
async def test_every_version_of_http_is_served(tmp_path: Path, version: str) -> None:
    """HTTP/2 and 3 frame a body themselves, and may declare its length."""
    wrapped = guard(Site(tmp_path), App())
    answered = await ask(
        wrapped, http_version=version, headers=[(b"content-length", b"0")]
    )
    await wrapped.engine.aclose()

    assert answered[0]["status"] == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_routes_limit_is_413(
    tmp_path: Path, declared: bool
) -> None:
    """At once when its length is declared, else as soon as it is known."""
    site, app, log = Site(tmp_path), App(), list[Entry]()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 400

    async with client(guard(site, app, log)) as http:
        answer = await http.post(
            ORDERS,
            content=b"x" * 1600 if declared else pieces(),
            headers=site.bearer("c-1"),
        )

    assert answer.status_code == 413
    assert not app.bodies
    assert log[0].reason == "body.too_large"


async def test_a_body_cut_after_the_answer_began_is_logged_as_that(
    tmp_path: Path,
) -> None:
    """The status has been said; the reason has not."""
    site, log = Site(tmp_path), list[Entry]()

    async def eager(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 400

    wrapped = guard(site, eager, log)
    transport = httpx2.ASGITransport(wrapped)
    async with httpx2.AsyncClient(transport=transport, base_url="http://a.b") as http:
        with pytest.raises(AssertionError):  # the server sees an answer without end
            await http.post(ORDERS, content=pieces(), headers=site.bearer("c-1"))
    await wrapped.engine.aclose()

    (entry,) = log
    assert (entry.status, entry.decision) == (200, "deny")
    assert (entry.reason, entry.route) == ("body.too_large", "orders.place")


async def test_a_head_that_is_refused_is_logged_as_it_was_read(tmp_path: Path) -> None:
    """Who sent what, even where no head could be made of it; never the query."""
    log = list[Entry]()
    wrapped = guard(Site(tmp_path), App(), log)
    await ask(wrapped, method="PUT", raw_path=b"/a/%2e%2e/b", query_string=b"key=1")
    await ask(wrapped, method="PUT", raw_path=b"/a", headers=[(b"x a", b"1")])
    await wrapped.engine.aclose()

    logged = [(entry.method, entry.path, entry.client) for entry in log]
    assert logged == [("PUT", "/a/%2e%2e/b", "192.0.2.1"), ("PUT", "/a", "192.0.2.1")]


async def test_a_trace_that_began_here_is_logged(tmp_path: Path) -> None:
    """The application's spans are found by the line of the log."""
    app, log = App(), list[Entry]()
    wrapped = guard(Site(tmp_path), app, log)
    await ask(wrapped)
    await wrapped.engine.aclose()

    (traceparent,) = app.header(b"traceparent")
    assert log[0].trace_id == traceparent[3:35].decode() == log[0].request_id


async def test_an_answer_leaves_as_it_would_from_the_data_port(tmp_path: Path) -> None:
    """Our names and hop-by-hop fields out, the framing as it was."""
    site = Site(tmp_path)
    app = App(**{"x-gateway-assertion": "x", "content-length": "2", "x-b": "1"})
    async with client(guard(site, app)) as http:
        answer = await http.get("/api/orders/status")

    assert "x-gateway-assertion" not in answer.headers
    assert (answer.headers["content-length"], answer.headers["x-b"]) == ("2", "1")
    assert "vary" not in answer.headers


async def test_an_answer_is_head_and_body_alone(tmp_path: Path) -> None:
    """Fields that come by another way would be nobody's to clean (R14)."""
    offered: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        offered.append(scope["extensions"])
        fields = [(b"x-gateway-assertion", b"x")]
        await send({"type": "http.response.early_hint", "links": [b"</x>"]})
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [],
                "trailers": True,
            }
        )
        await send({"type": "http.response.push", "path": "/x", "headers": fields})
        await send({"type": "http.response.body", "body": b"ok"})
        await send({"type": "http.response.trailers", "headers": fields})

    wrapped = guard(Site(tmp_path), app)
    named = ("trailers", "push", "early_hint", "pathsend")
    extensions: Scope = {f"http.response.{name}": {} for name in named}
    answered = await ask(wrapped, extensions={**extensions, "tls": {}})
    await wrapped.engine.aclose()

    assert offered == [{"tls": {}}]
    assert [message["type"] for message in answered] == [
        "http.response.start",
        "http.response.body",
    ]
    assert "trailers" not in answered[0]


async def test_a_name_that_could_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    """With `underscores = "reject"`."""
    site, app = Site(tmp_path), App()
    site.more = '[headers]\nunderscores = "reject"'
    async with client(guard(site, app)) as http:
        answer = await http.get("/api/orders/status", headers={"x_a": "1"})

    assert answer.status_code == 400
    assert not app.scopes

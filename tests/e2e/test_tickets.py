"""Tickets through a whole gateway: given, used once, and nowhere to be read."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.asgi.revocations import RevocationOrder
from gateway.door import GatewayMiddleware
from gateway.observe.access import to_json
from gateway.serving import Gateway
from tests.backends import Backend, echoing, running
from tests.redis_server import RedisServer
from tests.site import POLICY, Site, url

FILE = "/api/orders/files/report.pdf?year=2026"
# Of a file, and of the public status, where they are of no use.
BY_TICKET = re.sub(
    r'(path    = "/(?:files/{rest...}|status)")\n',
    r'\1\ncredentials = ["bearer", "ticket"]\n',
    POLICY,
)


@dataclass
class Run:
    """A gateway, the backend behind it, and somebody who asks."""

    site: Site
    gateway: Gateway
    backend: Backend
    http: httpx2.AsyncClient

    async def ticket(
        self, path: str = FILE, method: str = "GET", **who: Any
    ) -> httpx2.Response:
        """Ask for a ticket as c-1."""
        return await self.http.post(
            "/auth/ticket",
            json={"method": method, "path": path},
            headers=who or self.site.bearer("c-1"),
        )

    async def url(self, path: str = FILE, **who: Any) -> str:
        """Return *path* with a ticket in it."""
        given = await self.ticket(path, **who)
        assert given.status_code == 200, given.text
        mark = "&" if "?" in path else "?"
        return f"{path}{mark}ticket={given.json()['ticket']}"

    def reasons(self) -> list[str | None]:
        """Return why requests to the backend were refused."""
        return [
            entry.reason for entry in self.site.log if entry.path.startswith("/api/")
        ]


@pytest.fixture(params=["memory", "redis"])
async def run(
    tmp_path: Path, request: pytest.FixtureRequest, redis_server: RedisServer
) -> AsyncIterator[Run]:
    store = redis_server.url if request.param == "redis" else "memory"
    async with _running(tmp_path, store) as it:
        yield it


@asynccontextmanager
async def _running(directory: Path, store: str) -> AsyncIterator[Run]:
    assert BY_TICKET.count("credentials") == 2
    async with running(echoing) as backend:
        site = Site(
            directory,
            upstream=f"http://127.0.0.1:{backend.port}",
            store=store,
            policy=BY_TICKET,
        )
        async with (
            site.running() as gateway,
            httpx2.AsyncClient(base_url=url(gateway), trust_env=False) as http,
        ):
            yield Run(site, gateway, backend, http)


async def test_a_url_with_a_ticket_is_good_once(
    run: Run, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The backend sees who it is, and neither ticket nor token; nor does any log."""
    caplog.set_level(logging.DEBUG)
    token = run.site.token("c-1")
    asked = await run.url(authorization=f"Bearer {token}")
    ticket = asked.rpartition("=")[2]
    names = redis_server.command("KEYS", "{gw:ticket}:*")
    assert len(names) == (run.site.store != "memory")
    for name in names:
        kept = redis_server.command("GET", name)
        assert token.encode() not in kept
        assert ticket.encode() not in name + kept

    answers = [await run.http.get(asked) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[1].headers["www-authenticate"].startswith("Bearer ")
    (request,) = run.backend.requests
    assert request.target == FILE.encode()
    assert request.value(b"x-auth-request-user") == b"c-1"
    assert ticket.encode() not in run.backend.raw
    assert run.reasons() == [None, "ticket.invalid"]
    who = run.site.log[-2].principal
    assert who is not None
    assert who.subject == "c-1"
    said = [
        record.getMessage().encode()
        for record in caplog.records
        if not record.name.startswith("http")  # the caller's own
    ]
    written = b"".join([*map(to_json, run.site.log), *said])
    assert ticket.encode() not in written
    assert token.encode() not in written
    assert redis_server.command("KEYS", "{gw:ticket}:*") == []


async def test_of_fifty_at_once_one_is_answered(run: Run) -> None:
    """Whatever the order in which they arrive."""
    asked = await run.url()

    answers = await asyncio.gather(*(run.http.get(asked) for _ in range(50)))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [401] * 49
    assert len(run.backend.requests) == 1


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("PUT", "", ""),
        ("HEAD", "", ""),
        ("GET", "report", "secret"),
        ("GET", "2026", "2025"),
        ("GET", "?", "?a&"),
    ],
)
async def test_a_ticket_for_another_request_is_none_and_gone(
    run: Run, method: str, old: str, new: str
) -> None:
    """Bound to method, path and query; a wrong guess uses it up."""
    asked = await run.url()

    wrong = await run.http.request(method, asked.replace(old, new))
    right = await run.http.get(asked)

    assert (wrong.status_code, right.status_code) == (401, 401)
    assert run.reasons() == ["ticket.invalid"] * 2
    assert not run.backend.requests


async def test_whoever_was_revoked_meanwhile_is_refused(run: Run) -> None:
    """The principal's revocation is looked up when the ticket is used."""
    asked = await run.url()
    await run.gateway.engine.revoke(RevocationOrder("corp", "subject", "c-1"))

    answer = await run.http.get(asked)

    assert answer.status_code == 401
    assert run.reasons() == ["token.revoked"]


async def test_there_is_no_ticket_for_what_is_not_permitted(run: Run) -> None:
    """Nor for somebody unknown, nor where tickets do not count, nor by a ticket."""
    nobody = await run.ticket(authorization="Basic eDp5")
    no_role = await run.ticket(**run.site.bearer("c-1", "auditor"))
    not_there = await run.ticket("/api/orders/me")
    public = await run.ticket("/api/orders/status")
    ours = await run.ticket("/auth/ticket", "POST")
    asked = await run.url()
    by_ticket = await run.ticket(asked, authorization="Basic eDp5")

    answers = [nobody, no_role, not_there, public, ours, by_ticket]
    assert [answer.status_code for answer in answers] == [401, 403, 400, 400, 400, 400]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert "ticket" not in answer.json()


async def test_where_tickets_do_not_count_it_is_the_backends_parameter(
    run: Run,
) -> None:
    """It authenticates nobody, and stays where it is."""
    ticket = (await run.url()).rpartition("=")[2]
    path = f"/api/orders/me?ticket={ticket}"

    alone = await run.http.get(path)
    beside = await run.http.get(path, headers=run.site.bearer("c-1"))

    assert (alone.status_code, beside.status_code) == (401, 200)
    assert run.backend.requests[0].target == path.encode()


async def test_while_the_store_is_away_no_ticket_is_given_or_used(
    tmp_path: Path,
) -> None:
    """503, never 401; what needs no ticket and no store is served."""
    async with _running(tmp_path, "redis://127.0.0.1:9/0") as run:
        given = await run.ticket()
        used = await run.http.get(f"{FILE}&ticket={'t' * 43}")
        public = await run.http.get("/api/orders/status")

    assert (given.status_code, used.status_code) == (503, 503)
    assert given.headers["retry-after"] == used.headers["retry-after"] == "1"
    assert public.status_code == 200
    assert run.reasons()[0] == "ticket store"


async def test_an_application_of_ones_own_takes_tickets_too(tmp_path: Path) -> None:
    """By the middleware; it sees neither ticket nor token."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    site = Site(tmp_path, policy=BY_TICKET)
    guarded = GatewayMiddleware(
        app, config=site.write(), service="orders", log=site.log.append
    )
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(guarded), base_url="http://api.example"
    ) as http:
        given = await http.post(
            "/auth/ticket",
            json={"method": "GET", "path": FILE},
            headers=site.bearer("c-1"),
        )
        asked = f"{FILE}&ticket={given.json()['ticket']}"
        answers = [await http.get(asked) for _ in range(2)]
    await guarded.engine.aclose()

    assert [answer.status_code for answer in answers] == [200, 401]
    (scope,) = seen
    assert scope["query_string"] == b"year=2026"
    assert (b"x-auth-request-user", b"c-1") in scope["headers"]

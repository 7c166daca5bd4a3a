"""gateway.asgi.probes: alive, ready, started."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx2
import pytest

from gateway.asgi.probes import Check, probes
from gateway.observe.metrics import (
    CONNECTIONS,
    OPENMETRICS,
    TEXT,
    Metrics,
    Snapshot,
    render,
)


async def counted() -> list[Snapshot]:
    """Return what two processes have counted."""
    return [
        Metrics().snapshot([(CONNECTIONS, (f"s{at}",), at) for at in range(100)])
    ] * 2


async def get(
    path: str, *checks: Check, started: bool = True, accept: str = "*/*"
) -> httpx2.Response:
    app = probes(lambda: started, lambda: checks, counted)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://probes"
    ) as client:
        return await client.get(path, headers={"accept": accept})


STORE_AWAY = Check("revocation store", "did not answer")
NO_KEYS = Check("issuer keys", "none were ever loaded", fatal=True)


@pytest.mark.parametrize(
    ("path", "checks", "started", "status"),
    [
        ("/livez", (), True, 200),
        ("/livez", (NO_KEYS,), False, 200),
        ("/startupz", (), True, 200),
        ("/startupz", (), False, 503),
        ("/readyz", (), True, 200),
        ("/readyz", (), False, 503),
        ("/readyz", (STORE_AWAY,), True, 200),
        ("/readyz", (STORE_AWAY, NO_KEYS), True, 503),
        ("/metrics", (NO_KEYS,), False, 200),
        ("/metrics/", (), True, 404),
        ("/livez/", (), True, 404),
        ("/-/revocations", (), True, 404),
        ("/", (), True, 404),
    ],
)
async def test_each_probe_answers_its_own_question(
    path: str, checks: tuple[Check, ...], started: bool, status: int
) -> None:
    """Alive: the loop turns. Ready: not every request would fail (R102)."""
    answer = await get(path, *checks, started=started)

    assert answer.status_code == status


async def test_readyz_says_on_demand_what_is_in_trouble() -> None:
    """`/readyz?verbose` lists every check with what is wrong with it."""
    noted = replace(STORE_AWAY, note="mirror 3.0 s old")
    other = Check("keys", note="as of now")
    answer = await get("/readyz?verbose", STORE_AWAY, noted, other)

    assert answer.status_code == 200
    assert answer.text.splitlines() == [
        "[+] started: ok",
        "[-] revocation store: did not answer",
        "[-] revocation store: did not answer; mirror 3.0 s old",
        "[+] keys: ok; as of now",
        "ready",
    ]


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("*/*", TEXT), ("text/plain", TEXT), (PROMETHEUS, OPENMETRICS)],
)
async def test_what_all_processes_counted_is_added_up(accept: str, kind: str) -> None:
    """In the form that Prometheus asks for."""
    answer = await get("/metrics", accept=accept)

    assert answer.headers["content-type"] == kind
    expected = render(await counted(), openmetrics=kind == OPENMETRICS)
    assert answer.text == "".join(expected)
    assert 'gateway_connections{state="s7"} 14.0\n' in answer.text


async def test_while_a_scrape_is_answered_requests_have_their_turn() -> None:
    """The loop turns between two pieces of a long answer."""
    app = probes(lambda: True, lambda: (), counted)
    turns, seen = 0, list[int]()

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: object) -> None:
        seen.append(turns)

    other = asyncio.get_running_loop().create_task(turn())
    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
    await app(scope, receive, send)
    other.cancel()

    pieces = len(list(render(await counted())))
    assert len(seen) == pieces + 2
    assert sorted(set(seen[1:])) == seen[1:]

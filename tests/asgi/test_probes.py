"""gateway.asgi.probes: alive, ready, started."""

from __future__ import annotations

import httpx2
import pytest

from gateway.asgi.probes import Check, probes


async def get(path: str, *checks: Check, started: bool = True) -> httpx2.Response:
    app = probes(lambda: started, lambda: checks)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://probes"
    ) as client:
        return await client.get(path)


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
        ("/metrics/", (), True, 404),
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
    answer = await get("/readyz?verbose", STORE_AWAY)

    assert answer.status_code == 200
    assert answer.text.splitlines() == [
        "[+] started: ok",
        "[-] revocation store: did not answer",
        "ready",
    ]

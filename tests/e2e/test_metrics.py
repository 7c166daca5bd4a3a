"""`gateway serve` and a client who invents things, as Prometheus sees it (R98)."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import httpx2

from bench.ports import free_port
from tests.e2e.processes import Command, backend
from tests.site import Site
from tests.tokens import make

ORDERS = "/api/orders/customers/c-1/orders"
ROUNDS = 300  # the rest of R98's 10^5 is in tests/observe


def scrape(url: str) -> tuple[str, list[str]]:
    """Return the answer, and the names of all series in it."""
    text = httpx2.get(url, trust_env=False).text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return text, [line.rpartition(" ")[0] for line in lines]


def test_a_client_that_invents_things_makes_no_series(tmp_path: Path) -> None:
    """Paths, methods, hosts, queries, subjects and key ids of its own choice."""
    port, probes = free_port(), free_port()
    metrics = f"http://127.0.0.1:{probes}/metrics"
    random_ = random.Random(98)
    with backend() as upstream:
        site = Site(
            tmp_path,
            upstream=upstream,
            listen=f"127.0.0.1:{port}",
            more=f'[probes]\nlisten = "127.0.0.1:{probes}"',
        )
        config = str(site.write())
        with (
            Command(["-m", "gateway", "serve", "-c", config], cwd=tmp_path) as command,
            httpx2.Client(
                base_url=f"http://127.0.0.1:{port}", trust_env=False
            ) as client,
        ):
            command.wait_for(f"http://127.0.0.1:{probes}/readyz")
            said: list[str] = []
            statuses: Counter[int] = Counter()

            def invent() -> None:
                word = f"canary{random_.getrandbits(64):x}"
                said.append(word)
                known = site.token(word, jti=word)
                stranger = make.token(site.key, {"sub": word}, {"kid": word})
                for method, path, token in (
                    ("GET", f"/{word}", known),
                    ("GET", f"/api/orders/files/{word}?q={word}", known),
                    (word.upper(), ORDERS, known),
                    ("GET", ORDERS, stranger),
                    ("GET", ORDERS, word),
                ):
                    answer = client.request(
                        method,
                        path,
                        headers={"authorization": f"Bearer {token}", "host": word},
                    )
                    statuses[answer.status_code] += 1

            invent()
            _, before = scrape(metrics)
            for _ in range(ROUNDS):
                invent()
            text, after = scrape(metrics)

    assert statuses == {
        404: ROUNDS + 1,
        200: ROUNDS + 1,
        400: ROUNDS + 1,
        401: 2 * (ROUNDS + 1),
    }
    assert after == before
    assert not any(word in text for word in said)
    # What the command alone adds: its two logs.
    assert 'gateway_log_lines_lost_total{log="access"} 0.0\n' in text
    assert 'gateway_log_lines_lost_total{log="other"} 0.0\n' in text

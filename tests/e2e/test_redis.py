"""`gateway serve` with a real Redis: revocation, and what an outage means."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from bench.ports import free_port
from gateway.adapters.redis_mirror import LEASE
from gateway.cli import main
from tests.e2e.processes import Command, backend
from tests.redis_server import RedisServer
from tests.site import Site

ORDERS = "/api/orders/customers/c-1/orders"
STATUS = "/api/orders/status"


class Run:
    """A running gateway, its Redis and somebody to ask."""

    def __init__(self, site: Site, port: int, redis: RedisServer) -> None:
        self.site = site
        self.redis = redis
        self.client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5
        )
        self.alice = site.bearer("c-1", sid="s-1")

    def get(self, path: str = ORDERS, headers: dict[str, str] | None = None) -> int:
        return self.client.get(path, headers=headers or self.alice).status_code

    def revoke(self, *words: str) -> str:
        outcome = CliRunner().invoke(
            main, ["revoke", "-c", str(self.site.config), *words]
        )
        assert outcome.exit_code == 0, outcome.output
        return outcome.output


@pytest.fixture
def run(tmp_path: Path, redis_server: RedisServer) -> Iterator[Run]:
    port, probes = free_port(), free_port()
    with backend() as upstream:
        site = Site(
            tmp_path,
            upstream=upstream,
            store=redis_server.url,
            listen=f"127.0.0.1:{port}",
            more=f'[probes]\nlisten = "127.0.0.1:{probes}"',
        )
        config = str(site.write())
        with Command(["-m", "gateway", "serve", "-c", config], cwd=tmp_path) as command:
            command.wait_for(f"http://127.0.0.1:{probes}/readyz")
            it = Run(site, port, redis_server)
            with it.client:
                yield it


@pytest.mark.parametrize("name", ["jti", "sid", "sub", "client"])
def test_after_a_revocation_the_next_request_is_401(run: Run, name: str) -> None:
    """`gateway revoke` returns when the store has acknowledged; no wait is needed."""
    bob = run.site.bearer("c-2", client_id="other-app", sid="s-2")
    alice = run.site.bearer("c-1", jti="t-1", sid="s-1", client_id="app")
    value = {"jti": "t-1", "sid": "s-1", "sub": "c-1", "client": "app"}[name]
    assert run.get(headers=alice) == 200

    said = run.revoke(f"--{name}", value)

    assert said.startswith("revoked: ")
    assert run.get(headers=alice) == 401
    assert run.get("/api/orders/me", headers=bob) == 200


@pytest.mark.parametrize("away", ["stopped", "killed"])
def test_an_outage_is_503_within_a_quarter_second_and_never_401(
    run: Run, away: str
) -> None:
    """Public routes go on; it ends within a second of the store's return (R60).

    It begins with the end of the mirror's lease: until then nobody can have been told
    that a token is revoked.
    """
    assert run.get() == 200
    run.redis.pause() if away == "stopped" else run.redis.kill()
    ends = time.monotonic() + LEASE + 0.25
    while (status := run.get()) == 200:
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert status == 503

    for _ in range(8):
        began = time.monotonic()
        answer = run.client.get(ORDERS, headers=run.alice)
        took = time.monotonic() - began
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert took < 0.25
    assert run.get(STATUS) == 200
    assert run.client.get(ORDERS).status_code == 401  # no token: known without it

    if away == "stopped":
        run.redis.resume()
    else:
        run.redis.start()
    back = time.monotonic()
    while (status := run.get()) != 200:
        assert status == 503
        assert time.monotonic() - back < 1.0
        time.sleep(0.02)


def test_a_revocation_that_was_not_stored_is_not_claimed(run: Run) -> None:
    """The command fails in words, and the token goes on as it was (R62)."""
    run.redis.kill()

    outcome = CliRunner().invoke(
        main, ["revoke", "-c", str(run.site.config), "--sub", "c-1"]
    )

    assert outcome.exit_code == 1
    assert "nothing was revoked" in outcome.output

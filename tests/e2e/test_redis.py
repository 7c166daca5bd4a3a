"""`gateway serve` with a real Redis: revocation, and what an outage means."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from bench.ports import free_port
from gateway.cli import main
from gateway.config.settings import LEASE
from tests.e2e.processes import Command, backend
from tests.redis_server import RedisServer
from tests.site import POLICY, Site

ORDERS = "/api/orders/customers/c-1/orders"
STATUS = "/api/orders/status"


class Run:
    """A running gateway, its Redis and somebody to ask."""

    def __init__(
        self, site: Site, ports: tuple[int, int], redis: RedisServer, command: Command
    ) -> None:
        port, probes = ports
        self.site = site
        self.redis = redis
        self.command = command
        self.probes = f"http://127.0.0.1:{probes}"
        self.client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5
        )
        self.alice = site.bearer("c-1", sid="s-1")

    def get(self, path: str = ORDERS, headers: dict[str, str] | None = None) -> int:
        return self.client.get(path, headers=headers or self.alice).status_code

    def lines(self) -> list[dict[str, Any]]:
        """Return the access log."""
        return [json.loads(line) for line in self.command.out.splitlines()]

    def revoke(self, *words: str) -> str:
        outcome = CliRunner().invoke(
            main, ["revoke", "-c", str(self.site.config), *words]
        )
        assert outcome.exit_code == 0, outcome.output
        return outcome.output


@contextmanager
def serving(
    directory: Path, redis: RedisServer, *, more: str = "", policy: str = POLICY
) -> Iterator[Run]:
    port, probes = free_port(), free_port()
    with backend() as upstream:
        site = Site(
            directory,
            upstream=upstream,
            store=redis.url,
            listen=f"127.0.0.1:{port}",
            more=f'[probes]\nlisten = "127.0.0.1:{probes}"\n{more}',
            policy=policy,
        )
        words = ["-m", "gateway", "serve", "-c", str(site.write())]
        with Command(words, cwd=directory) as command:
            command.wait_for(f"http://127.0.0.1:{probes}/readyz")
            it = Run(site, (port, probes), redis, command)
            with it.client:
                yield it


@pytest.fixture
def run(tmp_path: Path, redis_server: RedisServer) -> Iterator[Run]:
    with serving(tmp_path, redis_server) as it:
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


@pytest.mark.alone
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
    assert "not known to be revoked: give it again" in outcome.output


# What [outage] and routes say of it

STALENESS = 3.0  # seconds; well beyond the lease, and what a busy machine is late by
WAYS = {"strict": 'mode = "strict"', "deny": 'outage = "deny"'}
ROUTE = """
[[route]]
id         = "orders.{name}"
methods    = ["GET"]
path       = "/{name}"
access     = "authenticated"
revocation = {{ {said} }}
"""


class Watch:
    """Asks for several things over and over, and notes what it was told, and when."""

    def __init__(self, run: Run, headers: dict[str, dict[str, str] | None]) -> None:
        self.run = run
        self.headers = headers
        self.said: dict[str, list[tuple[float, int]]] = {each: [] for each in headers}

    def look(self, since: float) -> dict[str, int]:
        """Ask once for each; the time is that before the question."""
        found = {}
        for path, headers in self.headers.items():
            at = time.monotonic() - since
            found[path] = self.run.get(path, headers or {})
            self.said[path].append((at, found[path]))
        return found

    def statuses(self, path: str) -> list[int]:
        """Return what was said, in order, without repetitions."""
        told = [status for _, status in self.said[path]]
        return [told[0], *(b for a, b in itertools.pairwise(told) if a != b)]


def test_with_allow_stale_it_goes_on_for_so_long_and_no_longer(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Each route as it says; who was revoked before stays so all the while (R61)."""
    outage = f'[outage]\nrevocation = "allow-stale"\nmax_staleness = "{STALENESS:g}s"'
    policy = POLICY + "".join(
        ROUTE.format(name=name, said=said) for name, said in WAYS.items()
    )
    with serving(tmp_path, redis_server, more=outage, policy=policy) as run:
        gone = run.site.bearer("c-1", jti="gone")
        run.revoke("--jti", "gone")
        assert run.get("/api/orders/me", gone) == 401
        strict, deny = "/api/orders/strict", "/api/orders/deny"
        me, old = "/api/orders/me", "/api/orders/files/a"
        support = run.site.bearer("c-1", "support")
        watch = Watch(
            run,
            {
                ORDERS: run.alice,
                strict: run.alice,
                deny: run.alice,
                me: gone,
                old: support,
                STATUS: None,
            },
        )
        assert watch.look(time.monotonic()) == {
            **dict.fromkeys((ORDERS, strict, deny, old, STATUS), 200),
            me: 401,
        }
        for path in watch.said:
            watch.said[path].clear()

        run.redis.pause()
        frozen_at = time.monotonic()
        while watch.look(frozen_at)[ORDERS] != 503:
            assert time.monotonic() - frozen_at < STALENESS + 2
            time.sleep(0.02)

        assert watch.statuses(strict) == [503]
        assert watch.statuses(deny) == [200, 503]
        assert watch.statuses(ORDERS) == [200, 503]
        assert watch.statuses(me) == [401]
        assert watch.statuses(STATUS) == [200]
        last = max(at for at, status in watch.said[ORDERS] if status == 200)
        assert last < STALENESS
        live = max(at for at, status in watch.said[deny] if status == 200)
        assert live < LEASE + 0.25
        # It has gone on beyond what the mirror counts anyway.
        assert any(status == 200 and at > LEASE for at, status in watch.said[ORDERS])
        stale = [each for each in run.lines() if "revocation_age" in each]
        assert stale
        assert all(0 < each["revocation_age"] <= STALENESS for each in stale)
        assert {each["route"] for each in stale} <= {"orders.list", "orders.file"}
        told = httpx2.get(f"{run.probes}/readyz?verbose", trust_env=False).text
        (line,) = [each for each in told.splitlines() if "revocation store" in each]
        assert re.search(
            r"^\[-\] revocation store: .* is away: .*; mirror \d\.\d", line
        )

        run.redis.resume()
        back = time.monotonic()
        while set(watch.look(back).values()) != {200, 401}:
            assert time.monotonic() - back < 2.0
        assert watch.said[me][-1][1] == 401
        assert {status for _, status in watch.said[me]} == {401}


def test_the_start_says_what_an_outage_would_come_to(run: Run) -> None:
    """Before there is one, where operators look."""
    assert (
        "Store away: 5 routes 503 after 1s, 1 route served: public" in run.command.err
    )

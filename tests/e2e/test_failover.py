"""`gateway serve` while the Redis behind it fails over: an outage, and no wrong answer.

Sentinels promote a replica, or a cluster does. The short form has one sentinel;
GATEWAY_E2E=full has three, takes Redis and Valkey, and a master that comes back, killed
or frozen.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from bench.ports import free_port
from gateway.adapters.redis_store import RedisRevocations
from gateway.cli import main
from gateway.model import Unavailable
from tests.adapters.principals import CLOCK, principal
from tests.e2e.processes import Command, backend
from tests.redis_groups import PATIENCE, cluster, in_step, replicated, until, watched
from tests.redis_server import RedisServer, binaries
from tests.site import Site

FULL = os.environ.get("GATEWAY_E2E") == "full"
BINARIES = binaries() if FULL else binaries()[:1]
SENTINELS = 3 if FULL else 1
ENDS: dict[str, Callable[[RedisServer], None]] = {"killed": RedisServer.kill}
if FULL:
    ENDS["frozen"] = RedisServer.pause
ORDERS = "/api/orders/customers/c-1/orders"
LIST = "{gw:revocation}"


class Run:
    """A running gateway, and two who ask: one of them was revoked."""

    def __init__(self, site: Site, client: httpx2.Client) -> None:
        self._site = site
        self._client = client
        self.good = site.bearer("c-1", sid="s-1")
        self.bad = site.bearer("c-1", sid="s-2")

    def get(self, headers: dict[str, str]) -> int:
        return self._client.get(ORDERS, headers=headers).status_code

    def revoke(self, session: str) -> str:
        """Revoke *session*; return what is said if it could not be."""
        words = ["revoke", "-c", str(self._site.config), "--sid", session]
        done = CliRunner().invoke(main, words)
        return done.output if done.exit_code else ""

    def is_right(self) -> bool:
        """Tell whether all is answered; what is answered has to be right."""
        good, bad = self.get(self.good), self.get(self.bad)
        assert good in {200, 503}
        assert bad in {401, 503}
        return (good, bad) == (200, 401)


@contextmanager
def serving(directory: Path, store: str) -> Iterator[Run]:
    port, probes = free_port(), free_port()
    with backend() as upstream:
        site = Site(
            directory,
            upstream=upstream,
            store=store,
            listen=f"127.0.0.1:{port}",
            more=f'[probes]\nlisten = "127.0.0.1:{probes}"',
        )
        config = str(site.write())
        client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5
        )
        command = Command(["-m", "gateway", "serve", "-c", config], cwd=directory)
        with command, client:
            command.wait_for(f"http://127.0.0.1:{probes}/readyz")
            yield Run(site, client)


def has_entry(server: RedisServer) -> bool:
    return bool(server.command("KEYS", f"{LIST}:session:*"))


def goes_on(run: Run, lose: Callable[[], None], is_over: Callable[[], bool]) -> None:
    """Check what is answered from before *lose* until after *is_over*."""
    until(run.is_right, "a revocation")
    lose()
    outages = 0
    until_ = time.monotonic() + PATIENCE
    while not is_over():
        outages += not run.is_right()
        assert time.monotonic() < until_
    back = time.monotonic()
    while not run.is_right():
        outages += 1
        # The new master takes nothing until its replica has a copy.
        assert time.monotonic() - back < PATIENCE
    assert outages > 0
    # The new one takes writes, and feeds them.
    assert run.revoke("s-1") == ""
    until(lambda: run.get(run.good) == 401, "a revocation")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("binary", BINARIES)
def test_a_master_is_lost_and_sentinels_promote_a_replica(
    tmp_path: Path, binary: str, end: str
) -> None:
    """503 until then; nobody is let in who was revoked, and nobody is turned away."""
    with (
        watched(sentinels=SENTINELS, binary=binary) as group,
        serving(tmp_path, group.url) as run,
    ):
        old, *replicas = group.servers
        assert run.revoke("s-2") == ""
        # What was acknowledged and not copied is lost with the master.
        until(lambda: all(has_entry(each) for each in replicas), "a copy")

        goes_on(run, lambda: ENDS[end](old), lambda: group.master() is not old)

        if FULL:
            # The old master comes back, and does not know for a while that it is none.
            old.start() if end == "killed" else old.resume()
            asked: list[int] = []

            def is_back() -> bool:
                asked.append(run.get(run.good))
                return in_step(old) and asked[-1] == 401

            until(is_back, "its return")
            assert set(asked) <= {401, 503}


@pytest.mark.parametrize("binary", BINARIES)
def test_the_owner_of_the_slot_is_lost_and_its_cluster_promotes_a_replica(
    tmp_path: Path, binary: str
) -> None:
    """As with sentinels."""
    with cluster(spare=1, binary=binary) as group:
        old = group.owner(LIST)
        group.add_replica(old)
        replica = group.nodes[-1]
        with serving(tmp_path, group.url) as run:
            assert run.revoke("s-2") == ""
            until(lambda: has_entry(replica), "a copy")

            slot = group.slot(LIST)
            goes_on(run, old.kill, lambda: replica.owns(slot))


async def test_a_master_that_is_cut_off_stops_answering() -> None:
    """`min-replicas-max-lag 2`: in less than the five seconds until a promotion."""
    options = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"]
    with replicated(1, *options) as (master, replica):
        store = RedisRevocations(master.url, CLOCK, deadline=1.0)
        until(lambda: master.command("SET", "x", "x") == b"OK", "a good replica")
        assert await store.check(principal()) is False
        replica.pause()
        refused = False
        async with asyncio.timeout(5.0):
            while not refused:
                try:
                    assert await store.check(principal()) is False
                except Unavailable:
                    refused = True
        await store.aclose()

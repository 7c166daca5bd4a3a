"""Orders to revoke, with a real Redis and several workers: where they are in force."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.config.settings import LEASE
from tests.e2e.fleet import Node, ask, serving, until
from tests.redis_server import RedisServer

ME = "/api/orders/me"
WORKERS = 3


@pytest.fixture
async def three(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Node]:
    """Three workers, each with a mirror that counts."""
    async with serving(
        tmp_path, store=redis_server.url, server=f"workers = {WORKERS}"
    ) as node:

        def is_known() -> bool:
            """Tell whether the store knows all mirrors, and that these are all."""
            found = redis_server.command("HLEN", "{gw:revocation}:workers")
            since = redis_server.command("HGET", "{gw:revocation}:state", "since")
            age = time.time() - int(since or b"0") / 1000
            return bool(found == WORKERS and age > LEASE)

        await until(is_known, node.command)
        yield node


async def run(three: Node, *words: str) -> Result:
    def work() -> Result:
        config = str(three.site.config)
        return CliRunner().invoke(main, [words[0], "-c", config, *words[1:]])

    return await asyncio.to_thread(work)


async def statuses(three: Node, bearer: dict[str, str]) -> set[int]:
    # The kernel spreads them over all workers.
    calls = [ask(three.port, ME, bearer) for _ in range(30)]
    return {*await asyncio.gather(*calls)}


def post(three: Node, body: dict[str, Any]) -> httpx2.Response:
    path = str(three.site.directory / "admin.sock")
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=path), timeout=20) as admin:
        return admin.post("http://a/-/revocations", json=body)


async def test_when_the_command_returns_every_worker_refuses(three: Node) -> None:
    """And it says so: `effective on 3 of 3 workers`."""
    bearer = three.site.bearer("c-1")
    assert await statuses(three, bearer) == {200}

    outcome = await run(three, "revoke", "--sub", "c-1", "--reason", "INC-7")

    assert await statuses(three, bearer) == {401}
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.startswith("revoked: subject of corp; kept until ")
    assert f"; effective on {WORKERS} of {WORKERS} workers after " in outcome.output
    assert await statuses(three, three.site.bearer("c-2")) == {200}


async def test_a_worker_that_does_not_answer_is_waited_for_until_its_lease_is_over(
    three: Node,
) -> None:
    """After that it asks the store, so what is revoked is in force there as well."""
    hanging = three.workers()[0]
    os.kill(hanging, signal.SIGSTOP)

    outcome = await run(three, "revoke", "--sub", "c-2", "--wait", "10s")
    os.kill(hanging, signal.SIGCONT)

    assert outcome.exit_code == 0, outcome.output
    assert f"effective on {WORKERS - 1} of {WORKERS} workers after " in outcome.output
    assert outcome.output.endswith(
        "; 1 worker does not answer, its lease is over and it asks the store\n"
    )


async def test_what_is_not_in_force_everywhere_in_time_is_not_said_to_be(
    three: Node, redis_server: RedisServer
) -> None:
    """By another exit status, and with how many workers it is about."""
    ends = int(time.time() * 1000) + 60_000
    key = "{gw:revocation}:workers"
    redis_server.command("HSET", key, "of another gateway", f"{ends} epoch 1 0")

    outcome = await run(three, "revoke", "--sub", "c-1", "--wait", "5s")

    assert outcome.exit_code == 4, outcome.output
    words = f"; not yet effective on 1 of {WORKERS + 1} workers after 5"
    assert words in outcome.output


async def test_a_block_holds_on_every_worker_until_it_is_lifted(three: Node) -> None:
    """Whatever is issued meanwhile."""
    blocked = await run(three, "block", "--sub", "c-1", "--for", "1h")
    assert blocked.exit_code == 0, blocked.output
    later = three.site.bearer("c-1", iat=int(time.time()) + 20)
    assert await statuses(three, later) == {401}

    lifted = await run(three, "unblock", "--sub", "c-1")

    assert lifted.exit_code == 0, lifted.output
    assert await statuses(three, later) == {200}


async def test_the_admin_port_carries_out_lists_and_says_their_effect(
    three: Node,
) -> None:
    """By one of the workers, for all of them; one bad order keeps all from it."""
    bearers = [three.site.bearer(f"c-{n}", jti=f"t-{n}") for n in range(2)]
    good = [{"jti": f"t-{n}"} for n in range(2)]

    bad = await asyncio.to_thread(post, three, {"orders": [*good, {"jti": "t" * 200}]})
    for bearer in bearers:
        assert await statuses(three, bearer) == {200}
    done = await asyncio.to_thread(post, three, {"orders": good, "wait": 5})
    for bearer in bearers:
        assert await statuses(three, bearer) == {401}

    assert (bad.status_code, bad.json()["field"]) == (400, "orders[2].jti")
    assert done.status_code == 200
    assert [order["kind"] for order in done.json()["orders"]] == ["token", "token"]
    effect = done.json()["effect"]
    assert (effect["effective"], effect["workers"]) == (True, WORKERS)

    path = str(three.site.directory / "admin.sock")
    transport = httpx2.AsyncHTTPTransport(uds=path)
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as admin:
        listed = (await admin.get("/-/revocations", params={"kind": "token"})).json()
        stats = (await admin.get("/-/revocations/stats")).json()
        bad = await admin.post("/-/revocations/import", json={"entries": [{}]})
    assert len(listed["entries"]) == 2
    assert [each["behind"] for each in stats["workers"]] == [0] * WORKERS
    assert (bad.status_code, bad.json()["field"]) == (400, "entries[0].kind")

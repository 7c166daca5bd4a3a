"""gateway.supervisor: several workers, and whatever happens to one of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from gateway.asgi.probes import Check
from gateway.cli import main
from gateway.supervisor import merged, worker_count
from tests.backends import echoing, running
from tests.e2e.fleet import STATUS, Node, ask, calling, lives, serving, until
from tests.e2e.processes import Command
from tests.redis_server import RedisServer
from tests.site import Site

REQUEST = f"GET {STATUS} HTTP/1.1\r\nHost: shop.example\r\n\r\n".encode()


def pair(directory: Path, redis: RedisServer) -> AbstractAsyncContextManager[Node]:
    """Run a gateway of two workers."""
    return serving(directory, store=redis.url, server="workers = 2")


def measuring(
    directory: Path, redis: RedisServer, *, silence: float
) -> AbstractAsyncContextManager[Node]:
    """Run two workers that have measured their process ids."""
    return serving(
        directory,
        store=redis.url,
        words=("-m", "tests.e2e.supervised"),
        more=("2", str(silence)),
    )


@pytest.mark.parametrize(
    ("quota", "most"),
    [("max 100000", 64), ("150000 100000", 2), ("20000 100000", 1), (None, 64)],
)
def test_auto_is_as_many_as_there_are_cores_to_use(
    tmp_path: Path, quota: str | None, most: int
) -> None:
    """A container's share of the machine counts; a number is taken as it is."""
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    cores = len(os.sched_getaffinity(0))
    assert worker_count(None, file) == min(cores, most)
    assert worker_count(7, file) == 7


def test_a_trouble_of_one_is_shown_and_fatal_only_if_all_have_it() -> None:
    """R102: readiness fails for what would make every request fail."""
    good, bad = Check("keys", "", fatal=False), Check("keys", "away", fatal=True)
    other = Check("keys", "expired", fatal=True)
    assert merged([]) == []
    assert merged([[good], [good]]) == [good]
    assert merged([[good], [bad]]) == [Check("keys", "away", fatal=False)]
    assert merged([[bad], [bad]]) == [bad]
    assert merged([[bad], [other]]) == [Check("keys", "away; expired", fatal=True)]
    old, older = Check("keys", note="1 s old"), Check("keys", note="2 s old")
    assert merged([[old], [older], [old], [good]]) == [
        Check("keys", note="1 s old; 2 s old")
    ]


async def test_who_waits_for_a_killed_worker_is_served_by_its_successor(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Its socket and its queue are the supervisor's: nobody there is reset."""
    async with pair(tmp_path, redis_server) as two, AsyncExitStack() as stack:
        old = two.workers()
        for pid in old:
            os.kill(pid, signal.SIGSTOP)  # clients come, and nobody takes them
        waiting = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", two.port)
            stack.callback(writer.close)
            writer.write(REQUEST)
            waiting.append(reader)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            heads = [await reader.readuntil(b"\r\n\r\n") for reader in waiting]
        assert {head[:12] for head in heads} == {b"HTTP/1.1 200"}
        await until(lambda: len(two.workers()) == 2)
        assert not {*two.workers()} & {*old}
        await until(lambda: "[+] workers: ok" in two.ready()[1])
        assert len(list(tmp_path.glob("own.*.sock"))) == 2  # none of the dead


async def back_after(two: Node) -> float:
    """Kill the youngest; return after how many seconds there are two again."""
    victim, begun = two.workers()[-1], time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: not lives(victim))
    await until(lambda: len(two.workers()) == 2)
    return time.monotonic() - begun


async def test_others_serve_while_one_is_dead_and_it_is_not_started_in_a_hurry(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """What kills each of them at once must not fill the machine with successors."""
    async with pair(tmp_path, redis_server) as two:
        for least in (0.25, 0.5):
            assert await back_after(two) >= least
            # Whoever put it there is done with it, and must not come again.
            await until(lambda: "[+] workers: ok" in two.ready()[1])
        coming_back = asyncio.ensure_future(back_after(two))
        await until(lambda: "[-] workers: 1 of 2 serve" in two.ready()[1])
        assert two.ready()[0] == 200
        assert await coming_back >= 1
        await until(lambda: "[+] workers: ok" in two.ready()[1])


async def test_a_worker_that_hangs_is_killed_and_replaced(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """It is alive, so nobody else would notice."""
    async with measuring(tmp_path, redis_server, silence=3) as two:
        hanging, other = two.workers()
        os.kill(hanging, signal.SIGSTOP)
        await two.told(f"process {hanging} hangs, and is killed")
        await until(lambda: not lives(hanging))
        await until(lambda: "[+] workers: ok" in two.ready()[1])
        assert hanging not in two.workers()
        assert other in two.workers()
        assert await ask(two.port, STATUS) == 200


async def test_nothing_is_left_of_a_supervisor_that_was_killed(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Workers notice the end of their line, finish what they have, and end."""
    async with pair(tmp_path, redis_server) as two:
        workers = two.workers()
        assert len(workers) == 2
        two.command.process.kill()
        two.command.process.wait()
        await until(lambda: not any(map(lives, workers)))
        assert list(tmp_path.glob("own.*.sock")) == []


async def test_signals_to_everybody_are_the_supervisors_to_hear(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """A terminal sends Ctrl-C to all processes, systemd SIGTERM: the drain is one."""
    async with pair(tmp_path, redis_server) as two:
        async with calling(two.port) as callers:
            await callers.more(50)
            for pid in two.workers():
                for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    os.kill(pid, each)
            await callers.more(50)
        assert callers.failures == []
        assert len(two.workers()) == 2


async def test_what_workers_measured_is_asked_of_those_that_live(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Over their lines, with a bound: who hangs or is dead is left out."""
    async with measuring(tmp_path, redis_server, silence=15) as two:

        def last() -> list[int]:
            lines = [line for line in two.command.out.splitlines() if line[:1] == "["]
            found: list[int] = json.loads(lines[-1]) if lines else []
            return found

        first, second = sorted(two.workers())
        await until(lambda: last() == [first, second], two.command)
        os.kill(first, signal.SIGSTOP)
        await until(lambda: last() == [second], two.command)
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(last()) == 2 and last() != [first, second], two.command)


async def test_an_order_reaches_what_every_worker_decides_by(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """The store is theirs together: no worker accepts the token any more."""
    async with pair(tmp_path, redis_server) as two:
        bearer = two.site.bearer("c-1", jti="t-1")

        async def statuses() -> set[int]:
            # The kernel spreads them over both workers.
            calls = [ask(two.port, "/api/orders/me", bearer) for _ in range(24)]
            return {*await asyncio.gather(*calls)}

        assert await statuses() == {200}
        path = str(tmp_path / "admin.sock")
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=path)) as admin:
            done = admin.post("http://a/-/revocations", json={"jti": "t-1"})
            wrong = admin.post("http://a/-/revocations", json={"jti": "t" * 200})
        assert (done.status_code, done.json()["kind"]) == (200, "token")
        assert wrong.status_code == 400
        assert await statuses() == {401}
        redis_server.kill()
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=path)) as admin:
            away = admin.post("http://a/-/revocations", json={"jti": "t-2"})
        assert away.status_code == 503


async def test_tokens_have_one_name_in_the_log_of_all_workers(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """The key of these names is made once."""
    async with pair(tmp_path, redis_server) as two:
        bearer = two.site.bearer("c-1")
        for _ in range(12):
            assert await ask(two.port, "/api/orders/me", bearer) == 200
        await until(lambda: len(two.command.out.splitlines()) == 12)
        lines = map(json.loads, two.command.out.splitlines())
        assert len({line["token_hash"] for line in lines}) == 1


async def test_a_start_that_can_t_be_ends_with_the_reason(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """As it does for one worker: code 3 for what the configuration names, else 1."""
    site = Site(tmp_path, store=redis_server.url, server="workers = 2")
    config = site.write()
    words = ["-m", "gateway", "serve", "-c", str(config)]
    (tmp_path / "identity" / "1.pem").write_text("not a key, but secret")
    with Command(words, cwd=tmp_path) as command:
        assert await asyncio.to_thread(command.process.wait, 20) == 3
        assert "1.pem" in command.err
        assert "but secret" not in command.err
        assert "Traceback" not in command.err
    (tmp_path / "identity" / "1.pem").unlink()

    async with running(echoing) as backend:
        site = Site(
            tmp_path,
            store=redis_server.url,
            server="workers = 2",
            listen=f"127.0.0.1:{backend.port}",
        )
        site.write()
        with Command(words, cwd=tmp_path) as command:
            assert await asyncio.to_thread(command.process.wait, 20) == 1
            assert f"127.0.0.1:{backend.port}" in command.err


def test_several_workers_and_a_store_of_one_are_a_mistake(tmp_path: Path) -> None:
    """`gateway check` says where."""
    config = Site(tmp_path, server="workers = 2").write()
    outcome = CliRunner().invoke(main, ["check", "-c", str(config)])
    line = config.read_text().splitlines().index("workers = 2") + 1
    assert outcome.exit_code == 3
    assert f"gateway.toml:{line}:11: the memory store is for one" in outcome.output


async def test_keys_are_what_all_workers_know_of_them(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """A key that one worker has used is in use; who hangs is left out."""
    async with pair(tmp_path, redis_server) as two:
        path = str(tmp_path / "admin.sock")

        def asked() -> dict[str, Any]:
            with httpx2.Client(transport=httpx2.HTTPTransport(uds=path)) as admin:
                found: dict[str, Any] = admin.get("http://a/-/keys").json()
                return found

        (before,) = asked()["issuers"]
        assert [key["state"] for key in before["keys"]] == ["next"]
        assert await ask(two.port, "/api/orders/me", two.site.bearer()) == 200
        hanging = two.workers()[0]
        (corp,) = asked()["issuers"]
        (own,) = asked()["identities"]
        assert (corp["name"], corp["source"]) == ("corp", "file")
        assert [(k["key_id"], k["state"]) for k in corp["keys"]] == [("k1", "current")]
        assert [key["algorithms"] for key in own["keys"]] == [["ES256"]]

        os.kill(hanging, signal.SIGSTOP)
        left = await asyncio.to_thread(asked)
        os.kill(hanging, signal.SIGCONT)
        assert [each["name"] for each in left["issuers"]] == ["corp"]

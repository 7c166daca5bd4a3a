"""R101, R102, R103: how a gateway goes, is replaced, and takes a new configuration.

The real command, real signals; the times of a drain are scaled down.
GATEWAY_E2E=full replaces workers and instances with the times as they are shipped: an
answer of 20 s survives, one of 60 s is cut, all under 500 requests a second, which is
asserted there. The short form asks for 200 a second, and takes what it gets: it runs on
machines that have something else to do.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from bench.ports import free_port
from gateway.cli import main
from tests.backends import answer, dribbling, running
from tests.e2e.fleet import (
    STATUS,
    Callers,
    Node,
    ask,
    at_leisure,
    calling,
    comes_whole,
    node,
    serving,
    until,
)
from tests.redis_server import RedisServer

LATE = dribbling(answer(b"late"), pause=1.0)

FULL = os.environ.get("GATEWAY_E2E") == "full"
RATE = 500 if FULL else 200  # requests a second; a little more is asked for
SURVIVES, IS_CUT = (20.0, 60.0) if FULL else (1.0, 9.0)  # seconds
ROLLING = "" if FULL else 'drain_delay = "500ms"\ndrain_timeout = "1500ms"'
# Seconds for two workers, one after the other, or for one instance.
REPLACED = 90.0 if FULL else 15.0
NGINX = """\
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream gateways {{
    {servers}
    keepalive 32;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host shop.example;
    }}
  }}
}}
"""


async def get(url: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        return await http.get(url, headers=headers)


async def ended(given: Node, within: float = 15.0) -> int:
    return await asyncio.to_thread(given.command.process.wait, within)


def no_request_failed(callers: Callers) -> None:
    """Not one, at the rate that was asked for."""
    assert callers.failures == []
    assert set(callers.statuses) == {200}
    assert not FULL or callers.rate >= RATE, callers.rate


def cut_off(given: Node) -> int:
    """Return how many requests *given* has cut off, by its own words."""
    assert given.command.out.count('"gateway.stopped"') == sum(
        map(int, re.findall(r"(\d+) requests were cut off", given.command.err))
    )
    return given.command.out.count('"gateway.stopped"')


async def test_a_stop_is_told_first_and_refuses_nobody(tmp_path: Path) -> None:
    """Readiness fails at once; for `drain_delay` everybody is served, and told to go.

    Then nobody new is, and the exit code is 0. What was in flight is answered.
    """
    async with running(LATE) as backend:
        one = node(tmp_path, backend.port, drain='drain_delay = "700ms"')
        with one.command:
            slow = asyncio.ensure_future(get(one.url(STATUS)))
            await asyncio.sleep(0.4)
            one.command.process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            await one.told("draining")
            ready, said = one.ready()
            assert ready == 503
            assert "[-] not draining: draining" in said
            for path, status in (("/livez", 200), ("/startupz", 200)):
                url = f"http://127.0.0.1:{one.probes}{path}"
                assert (await get(url)).status_code == status
            new = await get(one.url("/nowhere"))
            assert (new.status_code, new.headers["connection"]) == (404, "close")
            assert (await slow).text == "late"
            assert await ended(one) == 0
            assert 0.7 <= time.monotonic() - begun < 5
        with pytest.raises(httpx2.ConnectError):
            await get(one.url("/nowhere"))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_long_answer_survives_a_stop_and_a_longer_one_is_cut(
    tmp_path: Path, redis_server: RedisServer, workers: int
) -> None:
    """Within `drain_delay` and `drain_timeout`; a log line tells of the cut."""
    drain = 'drain_delay = "200ms"\ndrain_timeout = "1500ms"'
    for pause, is_whole in ((1.2, True), (30.0, False)):
        async with running(dribbling(answer(b"late"), pause=pause)) as backend:
            store = redis_server.url
            server = f"workers = {workers}"
            here = tmp_path / f"{pause}"
            one = node(here, backend.port, server=server, store=store, drain=drain)
            with one.command:
                asking = asyncio.ensure_future(get(one.url(STATUS)))
                await until(lambda: len(backend.requests) == 1)
                one.command.process.send_signal(signal.SIGTERM)
                begun = time.monotonic()
                if is_whole:
                    assert (await asking).text == "late"
                else:
                    with pytest.raises(httpx2.RemoteProtocolError):
                        await asking
                assert await ended(one) == 0
                assert time.monotonic() - begun < 6
                assert ("1 requests were cut off" in one.command.err) is not is_whole
                assert ('"gateway.stopped"' in one.command.out) is not is_whole


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_forces(
    tmp_path: Path, redis_server: RedisServer, workers: int
) -> None:
    """Whatever is in flight, and however long the delay."""
    async with running(dribbling(answer(b"late"), pause=30)) as backend:
        server = f"workers = {workers}"
        drain = 'drain_delay = "1m"'
        one = node(
            tmp_path, backend.port, server=server, store=redis_server.url, drain=drain
        )
        with one.command:
            asking = asyncio.ensure_future(get(one.url(STATUS)))
            await until(lambda: len(backend.requests) == 1)
            one.command.process.send_signal(signal.SIGTERM)
            await one.told("draining")
            workers_were = one.workers()
            one.command.process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            assert await ended(one) == 0
            assert time.monotonic() - begun < 5
            with pytest.raises(httpx2.HTTPError):
                await asking
            assert len(workers_were) == (workers if workers > 1 else 0)


async def test_workers_are_replaced_under_load_and_no_request_fails(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """SIGHUP, with keep-alive; one worker after another.

    A long answer of an old worker survives, a longer one is cut with a log line.
    """
    async with serving(
        tmp_path,
        at_leisure,
        store=redis_server.url,
        server="workers = 2",
        drain=ROLLING,
    ) as two:
        before = set(two.workers())
        async with calling(two.port, rate=1.04 * RATE) as callers:
            await callers.more(100)
            loop = asyncio.get_running_loop()
            # As many as it takes for both workers to have some of each.
            asked = [
                [loop.create_task(comes_whole(two.port, wait)) for _ in range(6)]
                for wait in (SURVIVES, IS_CUT)
            ]
            await callers.more(50)
            two.command.process.send_signal(signal.SIGHUP)
            await two.told("the new configuration is in force", within=REPLACED)
            after = set(two.workers()) - before
            survived, cut = [await asyncio.gather(*each) for each in asked]
            await until(lambda: not before & set(two.workers()), within=REPLACED)
            await callers.more(100)
            no_request_failed(callers)
        assert survived == [True] * 6
        assert cut == [False] * 6
        assert cut_off(two) == 6
        assert callers.connections >= 2 * 25  # each was told to come back
        assert len(before) == len(after) == 2
        assert await asyncio.to_thread(two.command.end) == 0


async def test_three_instances_behind_nginx_are_restarted_and_no_request_fails(
    tmp_path: Path,
) -> None:
    """As a rollout does it: each gets SIGTERM, and comes back before the next one.

    A long answer of each survives, a longer one is cut with a log line.
    """
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is not on PATH")
    async with running(at_leisure) as backend:
        places = [tmp_path / f"{number}" for number in range(3)]
        starting = [
            asyncio.to_thread(node, place, backend.port, drain=ROLLING)
            for place in places
        ]
        nodes = await asyncio.gather(*starting)
        port = free_port()
        # Whoever refused is tried again at once, and not in ten seconds: here all three
        # are replaced within that, and nginx would hold none of them for alive.
        servers = "\n".join(
            f"server 127.0.0.1:{each.port} max_fails=0;" for each in nodes
        )
        config = tmp_path / "nginx.conf"
        text = NGINX.format(directory=tmp_path, servers=servers, port=port)
        config.write_text(text, encoding="ascii")
        proxy = subprocess.Popen(
            [nginx, "-p", tmp_path, "-e", tmp_path / "error.log", "-c", config]
        )
        loop = asyncio.get_running_loop()
        try:
            await until((tmp_path / "nginx.pid").exists)
            async with calling(port, rate=1.04 * RATE) as callers:
                await callers.more(100)
                for number, each in enumerate(nodes):
                    with each.command:
                        survives, is_cut = (
                            loop.create_task(comes_whole(each.port, wait))
                            for wait in (SURVIVES, IS_CUT)
                        )
                        await callers.more(50)
                        each.command.process.send_signal(signal.SIGTERM)
                        assert await survives
                        assert not await is_cut
                        assert await ended(each, REPLACED) == 0
                        assert cut_off(each) == 1
                    nodes[number] = await asyncio.to_thread(_again, each)
                    await callers.more(50)
                no_request_failed(callers)
        finally:
            for each in nodes:
                each.command.process.kill()
                with each.command:
                    each.command.process.wait()
            proxy.terminate()
            proxy.wait()


def _again(old: Node) -> Node:
    from tests.e2e.processes import Command

    words = ["-m", "gateway", "serve", "-c", str(old.site.config)]
    command = Command(words, cwd=old.site.directory)
    command.wait_for(f"http://127.0.0.1:{old.probes}/readyz")
    return Node(old.site, old.port, old.probes, command)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_reload_takes_a_good_file_and_refuses_a_bad_one(
    tmp_path: Path, redis_server: RedisServer, workers: int
) -> None:
    """R103: nothing of a bad one is in force; it shows, and is no reason to go."""
    server = f"workers = {workers}"
    async with serving(tmp_path, store=redis_server.url, server=server) as given:
        async with calling(given.port) as callers:
            given.site.policy += '[[route]]\npath = "/new"\n'
            given.site.write()
            given.command.process.send_signal(signal.SIGHUP)
            await given.told("the old configuration stays: ")
            ready, said = given.ready()
            assert ready == 200
            assert "[-] configuration: the old one stays: " in said
            assert "orders.toml:" in said
            new = given.url("/api/orders/new")
            assert (await get(new)).status_code == 404

            given.site.policy += 'methods = ["GET"]\naccess = { public = "new" }\n'
            given.site.write()
            given.command.process.send_signal(signal.SIGHUP)
            await given.told("the new configuration is in force")
            assert "[+] configuration: ok" in given.ready()[1]
            assert (await get(new)).status_code == 200
            await callers.more(50)
        assert callers.failures == []
        assert set(callers.statuses) == {200}


async def test_one_worker_is_replaced_under_load_and_no_request_fails(
    tmp_path: Path,
) -> None:
    """R103, again and again; nothing is left of those that went."""
    async with serving(tmp_path) as given:
        async with calling(given.port) as callers:
            for number in range(1, 6):
                await callers.more(50)
                given.command.process.send_signal(signal.SIGHUP)
                await given.told("the new configuration is in force", number)
            await callers.more(50)
        assert callers.failures == []
        assert set(callers.statuses) == {200}
        await until(lambda: len(list(tmp_path.glob("own.*.sock"))) == 1)
        assert given.command.end() == 0
    assert list(tmp_path.glob("*.sock")) == []


async def test_whoever_dies_in_a_reload_comes_back_by_the_new_configuration(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Also while the worker before it has still to drain."""
    async with serving(
        tmp_path,
        store=redis_server.url,
        server="workers = 2",
        drain='drain_delay = "2s"',
    ) as given:
        old = given.workers()
        held = [await asyncio.open_connection("127.0.0.1", given.port) for _ in "abcd"]
        given.site.policy = given.site.policy.replace('"/status"', '"/state"')
        assert '"/state"' in given.site.policy
        given.site.write()
        given.command.process.send_signal(signal.SIGHUP)
        await until(lambda: len(given.workers()) > len(old), given.command)
        (new,) = set(given.workers()) - set(old)
        # It serves once the old one drains, which takes two seconds.
        await asyncio.sleep(1)
        os.kill(new, signal.SIGKILL)
        await given.told("the new configuration is in force")
        for _, writer in held:
            writer.close()

        statuses = {await ask(given.port, STATUS) for _ in range(30)}
        assert statuses == {404}


async def test_what_was_revoked_in_memory_stays_so_over_a_reload(
    tmp_path: Path,
) -> None:
    """I4: the list goes on, whichever generation decides by it."""
    from click.testing import CliRunner

    async with serving(tmp_path) as given:
        bearer = given.site.bearer("c-1", jti="t-1")
        url = given.url("/api/orders/me")

        assert (await get(url, bearer)).status_code == 200
        config = str(given.site.config)
        told = CliRunner().invoke(main, ["revoke", "-c", config, "--jti", "t-1"])
        assert told.exit_code == 0, told.output
        given.command.process.send_signal(signal.SIGHUP)
        await given.told("the new configuration is in force")
        assert (await get(url, bearer)).status_code == 401


async def test_a_reload_that_could_do_less_is_refused(tmp_path: Path) -> None:
    """Keys that can't be had now would be an outage that nobody has yet."""
    async with serving(tmp_path) as given:
        given.site.write()
        text = given.site.config.read_text(encoding="utf-8")
        away = f'"http://127.0.0.1:{free_port()}/jwks"'
        given.site.config.write_text(text.replace('"file:jwks.json"', away))
        given.command.process.send_signal(signal.SIGHUP)
        await given.told("the old configuration stays: keys of issuer corp")
        me = given.url("/api/orders/me")
        assert (await get(me, given.site.bearer())).status_code == 200

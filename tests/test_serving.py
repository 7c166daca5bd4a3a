"""gateway.serving: what listens, until somebody says stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import httpx2
import pytest

from gateway.app import Engine
from gateway.asgi.revocations import Orders, RevocationOrder
from gateway.config.settings import Address
from gateway.model import Denial, Reason
from gateway.proxy.sockets import bind, bind_all
from gateway.proxy.standing import Judge, Standing, Verdict
from gateway.serving import Gateway, Worker, serve
from tests.backends import Backend, Connection, running
from tests.redis_server import RedisServer
from tests.site import Site

FILE = "/api/orders/files/a"


async def test_a_signal_ends_it(tmp_path: Path) -> None:
    """SIGTERM, as Kubernetes sends it; every socket is gone afterwards."""
    site = Site(tmp_path)
    ports: list[int] = []

    def ready(gateway: Gateway) -> None:
        ports.append(gateway.bound[0].port)
        os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(10):
        await serve(site.load(), site.log.append, on_ready=ready)

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]))
    assert [path.name for path in tmp_path.glob("*.sock")] == []


async def test_a_signal_ends_a_start_too(tmp_path: Path) -> None:
    """While it waits for somebody's keys, say."""
    site = Site(tmp_path)
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)

    class Waiting(Engine):
        async def start(self) -> None:
            await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.serving.Engine", Waiting)
        async with asyncio.timeout(10):
            await serve(site.load(), site.log.append)

    assert [path.name for path in tmp_path.glob("*.sock")] == []


async def test_a_reload_leaves_one_worker_and_the_sockets_where_they_were(
    tmp_path: Path,
) -> None:
    """Also a Unix socket, whose name nobody could bind a second time."""
    site = Site(tmp_path, listen=f"unix:{tmp_path}/data.sock")
    data = tmp_path / "data.sock"
    gateway = Gateway(site.load(), site.log.append, reread=site.load)
    await gateway.start()
    transport = httpx2.AsyncHTTPTransport(uds=str(data))
    try:
        before, inode = gateway.worker, data.stat().st_ino

        def open_now() -> tuple[int, int]:
            own = len(list(tmp_path.glob("own.*.sock")))
            return own, len([*Path("/proc/self/fd").iterdir()])

        gc.collect()  # what earlier tests left; it takes long, when they were many
        at_first = open_now()
        for _ in range(3):
            await gateway.reload()
        assert open_now() > at_first  # the old ones are still at their goodbyes
        async with asyncio.timeout(5):
            while open_now() != at_first:
                await asyncio.sleep(0.01)
        assert gateway.worker is not before
        assert data.stat().st_ino == inode
        async with httpx2.AsyncClient(transport=transport) as http:
            assert (await http.get("http://gateway/nowhere")).status_code == 404
    finally:
        await gateway.aclose()
    assert list(tmp_path.glob("*.sock")) == []


async def test_a_reload_that_fails_late_leaves_nothing_of_it(tmp_path: Path) -> None:
    """The old worker decides on, and its successor's sockets are gone."""
    site = Site(tmp_path)
    gateway = Gateway(site.load(), site.log.append, reread=site.load)
    await gateway.start()
    try:
        before = gateway.worker
        (tmp_path / "identity" / "1.pem").write_text("not a key, but secret")
        await gateway.reload()
        (trouble,) = [c.trouble for c in gateway.checks() if c.name == "configuration"]
        assert gateway.worker is before
        assert "1.pem" in trouble
        assert "but secret" not in trouble
        assert len(list(tmp_path.glob("own.*.sock"))) == 1
    finally:
        await gateway.aclose()


async def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """A taken port ends it with that port's name, and everything is closed again."""
    with bind(Address("127.0.0.1", 0)) as taken:
        taken.listen()
        site = Site(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(OSError, match="in use"):
            await serve(site.load(), site.log.append)

    assert [path.name for path in tmp_path.glob("*.sock")] == []


async def silent(connection: Connection) -> None:
    """Never answer."""
    await connection.rest()


async def test_the_memory_list_ends_what_is_open_over_a_reload(tmp_path: Path) -> None:
    """In the port that retires, and in the one that serves; nobody else's."""
    async with running(silent) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.drain = 'drain_delay = "60s"'
        gateway = Gateway(site.load(), site.log.append, reread=site.load)
        await gateway.start()
        asking, ports = [], []
        try:
            for _ in range(3):
                asking += [
                    asyncio.ensure_future(asked(gateway, site.bearer(subject)))
                    for subject in ("c-1", "c-2")
                ]
                await arrived(backend, len(asking))
                assert gateway.port is not None
                ports.append(gateway.port)
                await gateway.reload()
            async with asyncio.timeout(5):
                while [len(port.streams) for port in ports] != [2, 2, 2]:
                    await asyncio.sleep(0.005)
            order = RevocationOrder("corp", "subject", "c-1")
            await gateway.revoke(Orders((order,)))
            async with asyncio.timeout(5):
                answers = await asyncio.gather(*asking[::2])
            assert answers == [b"401"] * 3
            assert not any(each.done() for each in asking[1::2])
            assert {entry.reason for entry in site.log} == {"token.revoked"}
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await gateway.aclose()


async def test_what_was_revoked_unheard_ends_when_it_is_heard_of(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """The store was away, and the mirror learns of it by a snapshot."""
    async with running(silent) as backend:
        upstream = f"http://127.0.0.1:{backend.port}"
        site = Site(tmp_path, upstream, store=redis_server.url)
        async with site.running() as gateway:
            asking = [
                asyncio.ensure_future(asked(gateway, site.bearer(subject)))
                for subject in ("c-1", "c-2")
            ]
            await arrived(backend, 2)
            redis_server.kill()
            redis_server.start()
            elsewhere = Engine(site.load())
            await elsewhere.revoke(RevocationOrder("corp", "subject", "c-1"))
            await elsewhere.aclose()
            async with asyncio.timeout(5):
                assert await asking[0] == b"401"
            assert not asking[1].done()
            asking[1].cancel()


async def asked(gateway: Gateway, fields: dict[str, str]) -> bytes:
    """Return the status of an answer, however long it takes."""
    bound = gateway.bound[0]
    reader, writer = await asyncio.open_connection(bound.host, bound.port)
    lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
    head = f"GET {FILE} HTTP/1.1\r\nHost: shop.example\r\n{''.join(lines)}\r\n"
    writer.write(head.encode())
    try:
        return (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
    finally:
        writer.close()


async def arrived(backend: Backend, requests: int) -> None:
    async with asyncio.timeout(5):
        while backend.raw.count(b"GET ") < requests:
            await asyncio.sleep(0.005)


async def test_a_worker_may_be_superseded_before_it_serves(tmp_path: Path) -> None:
    """Then it has others judge from the moment on that it does; the last one counts."""
    async with running(silent) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        loaded = site.load()
        worker = Worker(Engine(loaded), site.log.append)
        sockets = bind_all(loaded.settings.server.listen)
        judged: list[str] = []

        def judge_called(name: str) -> Judge:
            async def judge(standings: Sequence[Standing]) -> Sequence[Verdict]:
                judged.extend(name for _ in standings)
                return [Denial(Reason.ROUTE_UNKNOWN) for _ in standings]

            return judge

        try:
            worker.superseded(judge_called("first"))
            await worker.start(sockets, tmp_path)
            worker.superseded(judge_called("second"))
            gateway = cast("Gateway", worker.port)
            assert await asked(gateway, site.bearer("c-1")) == b"404"
            assert judged == ["second"]
        finally:
            await worker.aclose()

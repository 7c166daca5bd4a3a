"""gateway.proxy.checks: endpoints that are asked whether they are well."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from gateway.config.settings import (
    Address,
    HealthCheck,
    Upstream,
    UpstreamTls,
    UpstreamUrl,
)
from gateway.proxy.names import Found
from tests import backends
from tests.backends import Behaviour, Connection, answer, echoing, running
from tests.certificates import Authority
from tests.proxy.harness import gate_to
from tests.proxy.test_pool import ask, named, pool_of, states, until
from tests.proxy.test_trust import Server

OFTEN = HealthCheck("/healthz?deep=1", interval=0.1, timeout=1.0)


def answering(status: bytes) -> Behaviour:
    return backends.saying(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)


async def refusing(connection: Connection) -> None:
    connection.reset()


@pytest.mark.parametrize(
    ("behaviour", "state"),
    [
        (answering(b"200 OK"), "up"),
        (answering(b"204 No Content"), "up"),
        (backends.saying(b"HTTP/1.0 200 OK\r\n\r\n"), "up"),
        (backends.dribbling(b"HTTP/1", b".1 20", b"0 OK\r\n\r\n", pause=0.01), "up"),
        (answering(b"302 Found"), "unhealthy"),
        (answering(b"404 Not Found"), "unhealthy"),
        (answering(b"500 Internal Server Error"), "unhealthy"),
        (answering(b"503 Service Unavailable"), "unhealthy"),
        (backends.saying(b"+OK 200 200 200\r\n"), "unhealthy"),
        (backends.saying(b"HTTP/1.1 2000 OK\r\n\r\n"), "unhealthy"),
        (backends.silent, "unhealthy"),
        (refusing, "unhealthy"),
    ],
)
async def test_what_is_well_answers_with_2xx_in_time(
    behaviour: Behaviour, state: str
) -> None:
    """All else is not: the first check counts at once."""
    async with (
        running(behaviour) as one,
        running(named(b"two")) as two,
        gate_to(one, two, health=OFTEN) as bench,
    ):
        health = pool_of(bench).endpoints[0].health
        await until(lambda: health._checks > 0)
        assert states(bench) == [state, "up"]


async def test_a_check_is_a_plain_get() -> None:
    """No credential and no identity; its connection is closed behind it."""
    async with running(echoing) as backend, gate_to(backend, health=OFTEN) as bench:
        await until(lambda: len(backend.requests) >= 2)
        asked = backend.requests[0]
        assert (asked.method, asked.target) == (b"GET", b"/healthz?deep=1")
        assert asked.headers == [
            (b"host", b"127.0.0.1:%d" % backend.port),
            (b"connection", b"close"),
        ]
        await until(lambda: backend.connections[0].ended)
        assert not bench.entries
        assert pool_of(bench).state().endpoints[0].requests == 0


async def test_a_check_goes_to_the_host_that_requests_go_to() -> None:
    """Where that is always the same one."""
    async with (
        running(echoing) as backend,
        gate_to(backend, health=OFTEN, host="orders.internal"),
    ):
        await until(lambda: len(backend.requests) >= 1)
        assert backend.requests[0].value(b"host") == b"orders.internal"


async def test_who_answers_500_is_left_alone_until_it_is_well() -> None:
    """Requests go to the others, and come back by themselves."""
    status = b"500 Internal Server Error"

    async def sick(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(answer(b"one", status=status))

    async with (
        running(sick) as one,
        running(named(b"two")) as two,
        gate_to(one, two, health=OFTEN) as bench,
    ):
        await until(lambda: states(bench) == ["unhealthy", "up"])
        found = await ask(bench, 40)
        assert Counter((one.status, one.body) for one in found) == {(200, b"two"): 40}
        status = b"200 OK"
        await until(lambda: states(bench) == ["up", "up"])
        found = await ask(bench, 40)
        assert {one.body for one in found} == {b"one", b"two"}


async def test_of_a_few_all_may_be_unhealthy() -> None:
    """Then all are asked, for somebody's word against nobody's answer."""
    async with (
        running(answering(b"404 Not Found")) as one,
        running(answering(b"404 Not Found")) as two,
        gate_to(one, two, health=OFTEN) as bench,
    ):
        await until(lambda: states(bench) == ["unhealthy", "unhealthy"])
        assert pool_of(bench).state().panic
        assert {each.status for each in await ask(bench, 10)} == {404}


async def test_a_socket_and_a_server_behind_tls_are_asked_too(tmp_path: Path) -> None:
    """In the way in which requests go there."""
    ca = Authority()
    server = Server.showing(ca.sign("orders.internal"), tmp_path)
    path = str(tmp_path / "b.sock")
    async with (
        running(echoing, path) as one,
        running(echoing, secure=server.context) as two,
    ):
        secure = UpstreamUrl(Address("127.0.0.1", two.port), "two", secure=True)
        urls = (UpstreamUrl(Address(path=path), "localhost"), secure)
        tls = UpstreamTls(ca.write(tmp_path))
        async with gate_to(one, urls=urls, tls_to=tls, health=OFTEN) as bench:
            await until(lambda: bool(one.requests and two.requests))
            await until(lambda: all(e.health._checks for e in pool_of(bench).endpoints))
            assert states(bench) == ["up", "up"]


async def test_checks_do_not_pile_up() -> None:
    """One at a time for an endpoint, however long it takes."""
    slow = HealthCheck("/", interval=0.1, timeout=1.0)
    async with (
        running(backends.silent) as backend,
        gate_to(backend, health=slow) as bench,
    ):
        await asyncio.sleep(0.8)
        assert len(backend.connections) == 1
        assert len(bench.tasks) == 1


async def test_a_gone_endpoint_is_asked_no_more() -> None:
    """Its name is that of another address now."""
    found = ["127.0.0.1"]

    async def resolve(_host: str, _port: int) -> Found:
        return Found(found)

    async with running(echoing) as backend:
        urls = (UpstreamUrl(Address("moving.internal", backend.port), "moving"),)
        async with gate_to(
            None,
            resolve=resolve,
            more={"moving": Upstream("moving", urls, health=OFTEN, resolve_every=0.05)},
        ) as bench:
            await until(lambda: len(backend.requests) >= 2)
            found[:] = ["127.0.0.2"]
            pool = bench.port.pools["moving"]
            await until(lambda: [one.address.host for one in pool.endpoints] == found)
            asked = len(backend.requests)
            await asyncio.sleep(0.6)
            assert len(backend.requests) - asked <= 1  # one was on its way

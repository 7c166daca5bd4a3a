"""gateway.adapters.tickets: one suite for memory, Redis and Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.adapters import tickets as module
from gateway.adapters.tickets import STORE, MemoryTickets, RedisTickets, Tickets
from gateway.clock import Clock
from gateway.model import Unavailable
from tests.adapters.principals import CLOCK
from tests.redis_server import RedisServer, start_redis


@pytest.fixture
async def tickets(server: RedisServer | None) -> AsyncIterator[Tickets]:
    made: Tickets
    if server is None:
        made = MemoryTickets(CLOCK)
    else:
        server.command("FLUSHALL")
        # Patient: this suite is about answers, and its machine may be busy.
        made = RedisTickets(server.url, deadline=5.0)
    yield made
    await made.aclose()


async def test_what_is_kept_is_taken_once(tickets: Tickets) -> None:
    """Byte for byte; nothing else is."""
    value = bytes(range(256)) * 40
    await tickets.keep(b"a", value, 30.0)
    await tickets.keep(b"b", b"", 30.0)

    assert await tickets.take(b"c") is None
    assert await tickets.take(b"a") == value
    assert await tickets.take(b"a") is None
    assert await tickets.take(b"b") == b""


async def test_of_many_at_once_one_gets_it(tickets: Tickets) -> None:
    """To look and to remove is one step."""
    for _ in range(20):
        await tickets.keep(b"a", b"value", 30.0)
        found = await asyncio.gather(*(tickets.take(b"a") for _ in range(50)))
        assert sorted(map(str, found)) == ["None"] * 49 + ["b'value'"]


async def test_it_lives_as_long_as_it_was_said(tickets: Tickets) -> None:
    """A moment later it is gone by itself."""
    await tickets.keep(b"a", b"value", 0.05)
    await tickets.keep(b"b", b"value", 30.0)
    await asyncio.sleep(0.1)

    assert await tickets.take(b"a") is None
    assert await tickets.take(b"b") == b"value"


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for too many waits until some have run out."""
    now = 0.0
    monkeypatch.setattr(module, "MAX_TICKETS", 3)
    tickets = MemoryTickets(Clock(wall=lambda: 0.0, monotonic=lambda: now))
    for name in (b"a", b"b", b"c"):
        await tickets.keep(name, name, 30.0)
        now += 1
    with pytest.raises(Unavailable) as full:
        await tickets.keep(b"d", b"d", 30.0)
    assert full.value.dependency == STORE

    now = 30.0  # the first one has run out just now
    await tickets.keep(b"d", b"d", 30.0)

    assert await tickets.take(b"a") is None
    assert await tickets.take(b"b") == b"b"
    assert await tickets.take(b"d") == b"d"


async def test_a_store_that_is_away_is_an_outage_within_its_deadline() -> None:
    """Refused, or silent: never "there is no such ticket" (R60)."""
    nobody = RedisTickets("redis://127.0.0.1:9/0")
    for work in (nobody.take(b"a"), nobody.keep(b"a", b"value", 30.0)):
        with pytest.raises(Unavailable):
            await work
    await nobody.aclose()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with start_redis() as started:
        yield started


async def test_a_caller_who_leaves_takes_nobody_elses_answer(
    redis: RedisServer,
) -> None:
    """Cancelled at any moment (CVE-2023-28858)."""
    tickets = RedisTickets(redis.url, deadline=5.0)
    for turns in range(12):
        for name in (b"a", b"b"):
            await tickets.keep(name, name, 30.0)
        task = asyncio.get_running_loop().create_task(tickets.take(b"a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        assert await tickets.take(b"b") == b"b"
        await asyncio.gather(task, return_exceptions=True)
    await tickets.aclose()


async def test_who_gives_up_in_time_loses_no_ticket(redis: RedisServer) -> None:
    """What has not been sent yet is not sent for nobody."""
    tickets = RedisTickets(redis.url, deadline=5.0)
    await tickets.keep(b"a", b"value", 30.0)
    loop = asyncio.get_running_loop()
    redis.pause()
    try:
        first = loop.create_task(tickets.take(b"x"))
        await asyncio.sleep(0.02)
        second = loop.create_task(tickets.take(b"a"))
        await asyncio.sleep(0.02)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    finally:
        redis.resume()

    assert await first is None
    assert await tickets.take(b"a") == b"value"
    await tickets.aclose()


async def test_an_error_of_the_store_is_an_outage(redis: RedisServer) -> None:
    """Such as another type under our name, or a store that takes no writes."""
    name = "{gw:ticket}:" + b"a".hex()
    redis.command("RPUSH", name, "x")
    tickets = RedisTickets(redis.url, deadline=5.0)

    with pytest.raises(Unavailable):
        await tickets.take(b"a")

    redis.command("DEL", name)
    assert await tickets.take(b"a") is None
    await tickets.aclose()

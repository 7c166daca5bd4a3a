"""gateway.adapters.redis_queue: many questions, one exchange, each its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.adapters import redis_queue as module
from gateway.adapters.circuit import OPEN_AFTER
from gateway.adapters.redis_queue import MAX_CALLS, Queue
from gateway.adapters.script import Script
from gateway.model import Unavailable
from tests.adapters.resp import Command, peer
from tests.redis_server import RedisServer, start_redis

ECHO = Script(b"#!lua\nreturn {ARGV[1], KEYS[1] .. ARGV[2]}\n")
FAIL = Script(b"#!lua\nreturn redis.call('LPOP', KEYS[1], 'x')\n")
NAME = "test store"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with start_redis() as started:
        yield started


@pytest.fixture
async def queue(redis: RedisServer) -> AsyncIterator[Queue]:
    # Patient: these are about answers, and the machine may be busy.
    made = Queue(redis.url, NAME, deadline=5.0)
    yield made
    await made.aclose()


async def test_everybody_gets_his_own_answer(queue: Queue) -> None:
    """Of hundreds at once, in a few exchanges."""
    asked = [queue.ask(ECHO, (b"k%d" % each,), b"-a") for each in range(300)]

    found = await asyncio.gather(*asked)

    assert found == [[b"k%d-a" % each] for each in range(300)]


async def test_a_store_that_is_silent_is_an_outage_and_then_forgotten(
    redis: RedisServer,
) -> None:
    """Whoever waits fails together, and later answers meet nobody (I7)."""
    queue = Queue(redis.url, NAME, deadline=0.3)
    await queue.ask(ECHO, (b"a",), b"1")
    redis.pause()
    try:
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await asyncio.gather(
            *(queue.ask(ECHO, (b"a",), b"2") for _ in range(20)),
            return_exceptions=True,
        )
        assert all(isinstance(each, Unavailable) for each in found)
        assert loop.time() - began < 2
        with pytest.raises(Unavailable) as outage:
            await queue.ask(ECHO, (b"a",), b"3")
        assert outage.value.dependency == NAME
    finally:
        redis.resume()

    assert await queue.ask(ECHO, (b"a",), b"4") == [b"a4"]
    await queue.aclose()


async def test_a_store_that_hangs_is_soon_waited_for_by_nobody(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """R60: a thousand questions cost no time, and within a second it is asked again."""
    queue = Queue(redis.url, NAME, deadline=0.1)
    loop = asyncio.get_running_loop()
    redis.pause()
    try:
        while not caplog.messages:
            with pytest.raises(Unavailable):
                await queue.ask(ECHO, (b"a",), b"1")
        began = loop.time()
        for _ in range(1000):
            with pytest.raises(Unavailable) as outage:
                await queue.ask(ECHO, (b"a",), b"2")
        assert loop.time() - began < 2  # 100 s, had each of them waited
        assert outage.value.dependency == NAME
    finally:
        redis.resume()

    while len(caplog.messages) == 1:
        await asyncio.sleep(0.001)
    assert await queue.ask(ECHO, (b"a",), b"3") == [b"a3"]
    told = ["test store is away: TimeoutError", "test store is back"]
    assert caplog.messages == told
    await queue.aclose()


async def test_an_outage_once_known_is_everybodys() -> None:
    """Whoever waits behind the failure that opens the circuit is told with it."""

    async def hang_up(_command: Command, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with peer(hang_up) as store:
        queue = Queue(store.url, NAME, deadline=60.0)
        count = MAX_CALLS * OPEN_AFTER * 2
        asked = [queue.ask(ECHO, (b"a",), b"1") for _ in range(count)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in found)
        assert store.connections <= OPEN_AFTER
        await queue.aclose()


async def test_only_so_many_wait(
    redis: RedisServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes after them is told at once, and closing tells the rest."""
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    loop = asyncio.get_running_loop()
    redis.pause()
    try:
        waiting = [loop.create_task(queue.ask(ECHO, (b"a",), b"1"))]
        while queue._waiting or queue._sender is None:
            await asyncio.sleep(0.001)  # until it is under way
        waiting += [loop.create_task(queue.ask(ECHO, (b"a",), b"2")) for _ in "ab"]
        await asyncio.sleep(0)
        began = loop.time()
        with pytest.raises(Unavailable):
            await queue.ask(ECHO, (b"a",), b"3")
        await queue.aclose()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in found)
        assert loop.time() - began < 2
    finally:
        redis.resume()


async def test_an_error_reply_is_an_outage_of_that_question_alone(
    redis: RedisServer, queue: Queue
) -> None:
    """What was asked together with it is answered."""
    redis.command("SET", "text", "x")

    good = asyncio.get_running_loop().create_task(queue.ask(ECHO, (b"a",), b"1"))
    with pytest.raises(Unavailable):
        await queue.ask(FAIL, (b"text",))

    assert await good == [b"a1"]

"""gateway.adapters.replays: one suite for memory, Redis and Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from gateway.adapters import replays as module
from gateway.adapters.replays import (
    LIFE,
    STORE,
    MemoryReplays,
    RedisReplays,
    Replays,
)
from gateway.clock import Clock
from gateway.model import Unavailable
from gateway.tokens.dpop import AHEAD, WINDOW
from tests.redis_server import RedisServer, start_redis

NOW = time.time()
LONG_AGO = NOW - 1_000
BEFORE = Clock(wall=lambda: LONG_AGO, monotonic=time.monotonic)
PRESENT = Clock(wall=lambda: NOW, monotonic=time.monotonic)
SINCE = "{gw:dpop}:since"


@pytest.fixture
async def replays(server: RedisServer | None) -> AsyncIterator[Replays]:
    """A list that began long ago."""
    made: Replays
    if server is None:
        made = MemoryReplays(BEFORE)
    else:
        server.command("FLUSHALL")
        # Patient: this suite is about answers, and its machine may be busy.
        made = RedisReplays(server.url, BEFORE, deadline=5.0)
    await made.begin()
    yield made
    await made.aclose()


async def test_a_proof_is_new_once(replays: Replays) -> None:
    """By its name, whatever time it says later."""
    assert await replays.use(b"a", NOW)
    assert not await replays.use(b"a", NOW)
    assert not await replays.use(b"a", NOW + 1)
    assert await replays.use(b"b", NOW)
    assert await replays.use(b"", NOW)


async def test_of_many_at_once_one_is_new(replays: Replays) -> None:
    """To look and to note is one step."""
    for round_ in range(20):
        found = await asyncio.gather(
            *(replays.use(b"%d" % round_, NOW) for _ in range(50))
        )
        assert sum(found) == 1


def test_a_proof_is_kept_for_longer_than_it_is_good() -> None:
    """From the future to the past, and a minute for clocks that differ."""
    assert AHEAD + WINDOW + 60 <= LIFE


async def test_memory_forgets_what_is_too_old_and_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Full, it is an outage: to forget what is still good would let it in again."""
    now = 0.0
    monkeypatch.setattr(module, "MAX_PROOFS", 3)
    replays = MemoryReplays(Clock(wall=lambda: NOW, monotonic=lambda: now))
    for name in (b"a", b"b", b"c"):
        assert await replays.use(name, NOW)
        now += 1
    with pytest.raises(Unavailable) as full:
        await replays.use(b"d", NOW)
    assert full.value.dependency == STORE
    assert not await replays.use(b"a", NOW)

    now = LIFE  # the first one has run out just now

    assert await replays.use(b"d", NOW)
    assert not await replays.use(b"b", NOW)


async def test_memory_knows_nothing_of_proofs_from_before_its_start() -> None:
    """A restart is no second chance."""
    replays = MemoryReplays(PRESENT)

    assert await replays.use(b"a", int(NOW))
    with pytest.raises(Unavailable):
        await replays.use(b"b", int(NOW) - 1)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with start_redis() as started:
        yield started


async def test_redis_forgets_by_itself_and_holds_no_proof(redis: RedisServer) -> None:
    """A digest with a TTL, and since when."""
    replays = RedisReplays(redis.url, BEFORE, deadline=5.0)
    await replays.begin()
    assert await replays.use(b"\x01" * 32, NOW)

    names = sorted(redis.command("KEYS", "*"))
    assert names == [SINCE.encode(), b"{gw:dpop}:used:" + b"01" * 32]
    assert 0 < redis.command("PTTL", names[1]) <= LIFE * 1000
    assert redis.command("GET", names[1]) == b""
    assert redis.command("GET", SINCE).endswith(b" %d" % LONG_AGO)
    await replays.aclose()


LOSSES: dict[str, Callable[[RedisServer], Any]] = {
    "restarted": lambda redis: redis.restart(),
    "emptied": lambda redis: redis.command("FLUSHALL"),
    "another one, with a copy of the data": lambda redis: redis.command(
        "SET", SINCE, b"%b %d" % (b"0" * 40, LONG_AGO)
    ),
    "spoilt": lambda redis: redis.command("SET", SINCE, "nonsense"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
async def test_a_list_that_lost_something_begins_anew(
    redis: RedisServer, loss: Callable[[RedisServer], Any]
) -> None:
    """What may have been on it is an outage, until the last such proof is too old."""
    replays = RedisReplays(redis.url, BEFORE, deadline=5.0)
    await replays.begin()
    assert await replays.use(b"a", NOW)
    loss(redis)
    await replays.aclose()
    replays = RedisReplays(redis.url, PRESENT, deadline=5.0)

    for ahead, retry_after in ((0.0, AHEAD + 1), (AHEAD, 1)):
        with pytest.raises(Unavailable) as outage:
            await replays.use(b"a", int(NOW) + ahead)
        assert outage.value.retry_after == retry_after
    assert await replays.use(b"b", int(NOW) + AHEAD + 1)

    await replays.aclose()


async def test_a_store_that_is_away_is_an_outage_within_its_deadline() -> None:
    """Never "it is new" (R61), and never "it was used"."""
    nobody = RedisReplays("redis://127.0.0.1:9/0", PRESENT)
    await nobody.begin()
    with pytest.raises(Unavailable) as outage:
        await nobody.use(b"a", NOW)
    assert outage.value.dependency == STORE
    await nobody.aclose()


async def test_an_error_of_the_store_is_an_outage(redis: RedisServer) -> None:
    """Such as another type under our name."""
    redis.command("RPUSH", SINCE, "x")
    replays = RedisReplays(redis.url, PRESENT, deadline=5.0)
    with pytest.raises(Unavailable):
        await replays.use(b"a", NOW)
    await replays.aclose()

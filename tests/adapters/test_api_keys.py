"""gateway.adapters.api_keys: one suite for memory, Redis and Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from gateway.adapters import api_keys as module
from gateway.adapters.api_keys import (
    FRESH,
    STORE,
    ApiKeys,
    Conflict,
    MemoryApiKeys,
    RedisApiKeys,
)
from gateway.clock import Clock
from gateway.model import Unavailable
from gateway.tokens.api_key import ApiKey, Secret
from tests.redis_server import RedisServer, start_redis

NOW = 1_800_000_000.0  # Unix seconds
ONE = ApiKey("one", "billing", (Secret(b"1" * 32, NOW),), NOW, NOW + 1e6)
TWO = ApiKey("two", "reports", (Secret(b"2" * 32, NOW),), NOW, NOW + 1e6)
RECORDS, IDS, USED = (f"{{gw:api_keys}}:{name}" for name in ("records", "ids", "used"))


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = Clock(wall=lambda: NOW + self.now, monotonic=lambda: self.now)


@pytest.fixture
async def keys(server: RedisServer | None) -> AsyncIterator[ApiKeys]:
    made: ApiKeys
    if server is None:
        made = MemoryApiKeys(Time().clock)
    else:
        server.command("FLUSHALL")
        # Patient: this suite is about answers, and its machine may be busy.
        made = RedisApiKeys(server.url, Time().clock, None, deadline=5.0)
    yield made
    await made.aclose()


async def test_a_record_is_found_by_each_of_its_digests(keys: ApiKeys) -> None:
    """And by its id; nothing else is."""
    both = replace(ONE, secrets=(Secret(b"1" * 32, NOW), Secret(b"3" * 32, NOW)))
    await keys.put(both, None)
    await keys.put(TWO, None)

    for digest in (b"1" * 32, b"3" * 32):
        assert await keys.fetch(digest) == both
        assert keys.find(digest) == both
    assert await keys.fetch(b"4" * 32) is None
    assert keys.find(b"4" * 32) is None
    assert await keys.get("two") == TWO
    assert await keys.get("three") is None
    assert sorted(await keys.all(), key=lambda key: key.id) == [both, TWO]


async def test_a_record_is_the_same_object_as_long_as_it_is_the_same(
    keys: ApiKeys,
) -> None:
    """What others keep of it stays good."""
    await keys.put(ONE, None)
    assert await keys.fetch(b"1" * 32) is await keys.fetch(b"1" * 32)


async def test_who_changes_a_record_says_what_it_was(keys: ApiKeys) -> None:
    """Of two at once one is told that it came too late."""
    await keys.put(ONE, None)
    with pytest.raises(Conflict):
        await keys.put(replace(ONE, note="another"), None)
    held = await keys.get("one")
    changed = replace(ONE, secrets=(Secret(b"3" * 32, NOW),))
    outcomes = await asyncio.gather(
        *(keys.put(replace(changed, note=note), held) for note in "abcde"),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes if each is not None] == [Conflict] * 4

    new = await keys.get("one")
    assert new is not None
    assert await keys.fetch(b"3" * 32) == new
    assert await keys.fetch(b"1" * 32) is None  # its secret is gone
    await keys.drop(ONE)  # has changed: it stays
    assert await keys.get("one") == new
    await keys.drop((await keys.get("one")) or ONE)
    assert await keys.get("one") is None
    assert await keys.fetch(b"3" * 32) is None


async def test_no_digest_becomes_another_keys(keys: ApiKeys) -> None:
    """Whoever imports a digest that there is takes nothing over."""
    await keys.put(ONE, None)
    with pytest.raises(Conflict):
        await keys.put(replace(TWO, secrets=ONE.secrets), None)
    assert await keys.fetch(b"1" * 32) == ONE
    assert await keys.get("two") is None


async def test_a_store_takes_so_many(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes go on when it is full."""
    monkeypatch.setattr(module, "MAX_KEYS", 1)
    await keys.put(ONE, None)
    with pytest.raises(Unavailable):
        await keys.put(TWO, None)
    await keys.put(replace(ONE, note="x"), await keys.get("one"))


async def test_a_list_is_whole_however_long(keys: ApiKeys) -> None:
    """It is read in pieces."""
    many = [
        replace(ONE, id=f"k{number}", secrets=(Secret(b"%032d" % number, NOW),))
        for number in range(700)
    ]
    await asyncio.gather(*(keys.put(each, None) for each in many))
    assert {each.id for each in await keys.all()} == {each.id for each in many}


async def test_when_a_key_was_used_is_known_sooner_or_later(
    server: RedisServer | None, keys: ApiKeys
) -> None:
    """The later of two processes' words counts; it is written beside the requests."""
    keys.mark("one")
    if isinstance(keys, RedisApiKeys):
        assert server is not None
        assert await keys.used() == {}
        await keys.flush()
        server.command("HSET", USED, "two", f"{NOW + 99:.0f}")
        server.command("HSET", USED, "odd", "x")
        keys.mark("two")
        await keys.flush()
        assert await keys.used() == {"one": NOW, "two": NOW + 99}
        assert keys._used == {}
    else:
        assert await keys.used() == {"one": NOW}


# Redis alone


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with start_redis() as started:
        yield started


async def test_what_changes_counts_within_a_second(redis: RedisServer) -> None:
    """Counted from before it was asked, and not prolonged by being used."""
    redis.command("FLUSHALL")
    time = Time()
    here = RedisApiKeys(redis.url, time.clock, None, deadline=5.0)
    there = RedisApiKeys(redis.url, time.clock, None, deadline=5.0)
    await here.put(ONE, None)
    assert await there.fetch(b"1" * 32) == ONE
    await here.put(replace(ONE, revoked=NOW), ONE)
    time.now = FRESH - 0.001
    assert there.find(b"1" * 32) == ONE
    time.now = FRESH
    assert there.find(b"1" * 32) is None
    assert await there.fetch(b"1" * 32) == replace(ONE, revoked=NOW)
    assert FRESH <= 1.0

    await here.drop(replace(ONE, revoked=NOW))
    assert await there.fetch(b"1" * 32) is None
    assert there.find(b"1" * 32) is None
    await here.aclose()
    await there.aclose()


async def test_a_change_that_is_asked_for_twice_is_made_once(
    redis: RedisServer,
) -> None:
    """A connection that breaks takes the answer along, and the call is sent again."""
    redis.command("FLUSHALL")
    keys = RedisApiKeys(redis.url, Time().clock, None, deadline=5.0)
    for _ in range(2):
        await keys._put("one", ONE, None)
    new = replace(ONE, note="new")
    for _ in range(2):
        await keys._put("one", new, ONE)
    assert await keys.get("one") == new
    for _ in range(2):
        await keys._put("one", None, new)
    assert await keys.get("one") is None
    await keys.aclose()


async def test_that_there_is_no_key_is_not_remembered(redis: RedisServer) -> None:
    """A flood of texts leaves nothing behind, and a new key counts at once."""
    redis.command("FLUSHALL")
    keys = RedisApiKeys(redis.url, Time().clock, None, deadline=5.0)
    asked = [keys.fetch(b"%032d" % number) for number in range(1_000)]
    assert set(await asyncio.gather(*asked)) == {None}
    assert not keys._known
    await keys.put(ONE, None)
    assert await keys.fetch(b"1" * 32) == ONE
    await keys.aclose()


async def test_what_is_known_is_bounded(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was read longest ago goes; so does it for who was used."""
    redis.command("FLUSHALL")
    monkeypatch.setattr(module, "MAX_KNOWN", 1)
    keys = RedisApiKeys(redis.url, Time().clock, None, deadline=5.0)
    for each in (ONE, TWO):
        await keys.put(each, None)
        assert await keys.fetch(each.secrets[0].digest) == each
        keys.mark(each.id)
    assert list(keys._known) == [b"2" * 32]
    assert list(keys._used) == ["one"]
    await keys.aclose()


async def test_a_value_that_was_altered_is_no_key(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left as it is, and told; of another type it is an outage (R53)."""
    redis.command("FLUSHALL")
    keys = RedisApiKeys(redis.url, Time().clock, None, deadline=5.0)
    await keys.put(ONE, None)
    redis.command("HSET", RECORDS, "one", "1 - {}")
    assert await keys.fetch(b"1" * 32) is None
    assert await keys.get("one") is None
    assert await keys.all() == []
    assert "was altered" in caplog.text
    redis.command("DEL", IDS)
    redis.command("SET", IDS, "x")
    with pytest.raises(Unavailable):
        await keys.fetch(b"1" * 32)
    await keys.aclose()


async def test_a_store_that_is_away_is_an_outage() -> None:
    """Never "there is no such key"; what was marked waits, and is lost at the end."""
    nobody = RedisApiKeys("redis://127.0.0.1:9/0", Time().clock, None)
    nobody.mark("one")
    for work in (
        nobody.fetch(b"1" * 32),
        nobody.get("one"),
        nobody.all(),
        nobody.put(ONE, None),
        nobody.drop(ONE),
        nobody.used(),
        nobody.flush(),
    ):
        with pytest.raises(Unavailable) as away:
            await work
        assert away.value.dependency == STORE
    assert nobody._used == {"one": NOW}
    await nobody.aclose()


async def test_marks_are_written_every_minute_come_what_may(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage ends nothing; in memory there is nothing to do."""
    redis.command("FLUSHALL")
    monkeypatch.setattr(module, "FLUSH_EVERY", 0.01)
    keys = RedisApiKeys(redis.url, Time().clock, None, deadline=5.0)
    flush, failures = keys.flush, [Unavailable(STORE)]

    async def fails_once() -> None:
        if failures:
            raise failures.pop()
        await flush()

    monkeypatch.setattr(keys, "flush", fails_once)
    keys.mark("one")
    running = asyncio.get_running_loop().create_task(keys.run())
    async with asyncio.timeout(5):
        while not await keys.used():
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not failures
    await keys.aclose()
    await MemoryApiKeys(Time().clock).run()

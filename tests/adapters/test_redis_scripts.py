"""gateway.adapters.redis_scripts: what a real server makes of them, and of nonsense."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.adapters.redis_line import Call, Garbled, Line
from gateway.adapters.redis_scripts import (
    FEED,
    LATEST,
    STATE,
    leaving,
    page,
    page_of,
    position_of,
    renewal,
    status,
    where,
    write_of,
)
from gateway.revocation.entries import Revocation, value_of
from gateway.revocation.feed import Position, entry_at, read_entry
from tests.adapters.principals import CLOCK, entry
from tests.redis_server import RedisServer, binaries, start_redis

LIFE = 600_000  # milliseconds


class Desk:
    """One connection, and the server it leads to."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.line = Line(server.url, connect_timeout=5.0)

    async def ask(self, call: Call) -> list[Any]:
        (reply,) = await self.line.run([call])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def write(self, made: Revocation) -> Position:
        return position_of(await self.ask(write_of(made, life=LIFE)))

    async def snapshot(self, count: int = 10) -> set[Revocation]:
        cursor, found = b"", set[Revocation | None]()
        while cursor != b"0":
            cursor, keys = page_of(await self.ask(page(cursor or b"0", count)))
            found |= {entry_at(*each) for each in keys}
        return {each for each in found if each is not None}

    def feed(self) -> list[tuple[Position, Revocation | None]]:
        return [
            read_entry(*each) for each in self.server.command("XRANGE", FEED, *"-+")
        ]


@pytest.fixture(scope="module", params=binaries())
def store(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with start_redis(binary=request.param) as started:
        yield started


@pytest.fixture
async def desk(store: RedisServer) -> AsyncIterator[Desk]:
    server = store
    server.command("FLUSHALL")
    made = Desk(server)
    yield made
    await made.line.aclose()


async def test_what_is_written_is_fed_under_the_next_number(desk: Desk) -> None:
    """Entry and feed in one step: the snapshot and the feed say the same."""
    began = position_of(await desk.ask(where()))
    positions = [await desk.write(entry("token", f"t-{n}")) for n in range(3)]

    numbers = [began.number + n for n in (1, 2, 3)]
    assert positions == [Position(began.epoch, number) for number in numbers]
    fed = desk.feed()
    assert [position for position, _ in fed] == positions
    assert {each for _, each in fed} == await desk.snapshot()


async def test_what_is_no_news_gets_no_number(desk: Desk) -> None:
    """To revoke again is harmless, and wakes nobody."""
    first = replace(entry("subject", "alice"), until=CLOCK.wall() + 600)
    assert position_of(await desk.ask(write_of(first))) == position_of(
        await desk.ask(write_of(first))
    )
    longer = replace(first, until=first.until + 1)
    higher = replace(longer, cutoff=7.0)
    for news in (longer, higher):
        await desk.ask(write_of(news))
        await desk.ask(write_of(news))
    await desk.ask(write_of(first))
    assert len(desk.feed()) == 3
    (_, last), held = desk.feed()[-1], await desk.snapshot()
    assert held == {last}
    assert last is not None
    assert (last.cutoff, round(last.until, 3)) == (7.0, round(longer.until, 3))


async def test_what_has_ended_is_not_written(desk: Desk) -> None:
    """A mirror gives back only what still lives."""
    await desk.ask(write_of(replace(entry("token", "t-1"), until=CLOCK.wall() - 1)))
    assert (desk.feed(), await desk.snapshot()) == ([], set())


async def test_the_newest_block_wins(desk: Desk) -> None:
    """The list numbers them; one that is given back keeps its number, and loses."""
    block = entry("block", "alice")
    lift = replace(block, lifts=True)
    for made in (block, lift, block, lift):
        await desk.write(made)
    blocks = [each for _, each in desk.feed() if each is not None]
    numbers = [each.number for each in blocks]
    assert numbers == sorted(set(numbers))
    assert [each.lifts for each in blocks] == [False, True, False, True]

    for old in blocks[:3]:
        await desk.ask(write_of(old))
    assert len(desk.feed()) == 4
    assert await desk.snapshot() == {blocks[-1]}
    # What lifts a block lives as long as the block would have.
    assert min(blocks[-1].until, blocks[-2].until) == blocks[-2].until


async def test_a_server_that_began_anew_begins_an_epoch(
    redis_server: RedisServer,
) -> None:
    """With its data or without, its numbers go on rising."""
    desk = Desk(redis_server)
    try:
        first = await desk.write(entry("token", "t-1"))
        redis_server.restart()
        second = position_of(await desk.ask(where()))
        assert second.epoch != first.epoch
        assert second.number > first.number
        # As if a snapshot of another server had been loaded.
        redis_server.command("HSET", STATE, "run", "another", "number", str(2**50))
        third = await desk.write(entry("token", "t-2"))
        assert third.epoch != second.epoch
        assert third.number == 2**50 + 2
        assert [position for position, _ in desk.feed()] == [third]
    finally:
        await desk.line.aclose()


async def test_a_snapshot_holds_every_entry_and_nothing_else(desk: Desk) -> None:
    """Whatever else lies in the database; also what lasts for ever."""
    made = [entry("session", f"s-{n}") for n in range(200)]
    for each in made:
        await desk.write(each)
    server = desk.server
    for number in range(100):
        server.command("SET", f"other:{number}", "x")
    server.command("SET", "{gw:revocation}:planet:00", "x")
    server.command("HSET", "{gw:revocation}:token:zz", "x", "y")
    name = "{gw:revocation}:client:" + "0" * 32
    server.command("RPUSH", name, "x")

    found = await desk.snapshot()
    (odd,) = (each for each in found if each.kind == "client")
    assert {each.name for each in found - {odd}} == {each.name for each in made}
    assert odd.until == odd.cutoff == float("inf")
    # What has no end can be given back all the same.
    server.command("DEL", name)
    await desk.ask(write_of(replace(odd, cutoff=1.0)))
    (again,) = (each for each in await desk.snapshot() if each.kind == "client")
    assert again.until == LATEST


async def test_a_workers_place_is_known_until_it_leaves(desk: Desk) -> None:
    """How far it is, how long it counts; those long gone are forgotten."""
    at = await desk.write(entry("token", "t-1"))
    for worker, lease in ((b"a", 1.0), (b"old", -61.0), (b"b", 2.0)):
        call = renewal(worker, at, lease=lease, stale=5.0, joins=True)
        assert position_of(await desk.ask(call)) == at
    now, since, *said = await desk.ask(status())
    assert 0 <= int(now) - int(since) < 60_000
    places = sorted(each.split(b" ") for each in said)
    assert [place[1:] for place in places] == [
        [at.epoch, b"%d" % at.number, b"5000"]
    ] * 2
    assert [round((int(place[0]) - int(now)) / 1000) for place in places] == [1, 2]
    await desk.ask(leaving(b"a"))
    assert len(await desk.ask(status())) == 3


@pytest.mark.parametrize(
    "reply", [[], [b"e"], [b"e", b"x"], [b"e", b"1", b"2"], [1, b"1.5"], [None, None]]
)
def test_what_is_no_position_is_garbled(reply: list[Any]) -> None:
    """And counts as no acknowledgement (R62)."""
    with pytest.raises(Garbled):
        position_of(reply)


@pytest.mark.parametrize("reply", [[], [b"0", b"k"], [b"0", b"k", b"v", b"x"]])
def test_what_is_no_page_is_garbled(reply: list[Any]) -> None:
    """A snapshot is whole, or none."""
    with pytest.raises(Garbled):
        page_of(reply)


def test_a_block_without_a_number_asks_for_one() -> None:
    """Zero is what the script replaces."""
    assert value_of(entry("block", "alice")) == b"1:0:block"

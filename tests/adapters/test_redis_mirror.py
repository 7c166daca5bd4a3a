"""gateway.adapters.redis_mirror: exact, in milliseconds, and honest when it can't be.

What it does when the store can't be asked at all is tests/adapters/test_redis_store.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.ports import free_port
from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.adapters.redis_scripts import FEED, SLACK, STATE, WORKERS
from gateway.clock import Clock
from gateway.config.settings import LEASE
from gateway.model import Unavailable
from gateway.revocation.entries import KINDS, Revocation
from gateway.revocation.feed import Position
from tests.adapters.principals import CLOCK, entry, principal
from tests.adapters.resp import Answer, Command, peer, says
from tests.redis_server import RedisServer, binaries, start_redis

PATIENT = 5.0  # seconds; where the subject is an answer, and the machine may be busy
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "revocation.md"


@asynccontextmanager
async def mirrored(
    url: str, *, stale: float = 0.0, clock: Clock = CLOCK
) -> AsyncIterator[MirroredRevocations]:
    """Run a mirror, as a worker does."""
    made = MirroredRevocations(url, clock, deadline=PATIENT, stale=stale)
    task = asyncio.ensure_future(made.run())
    try:
        await made.ready(PATIENT)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.aclose()


async def until(is_so: Callable[[], bool], within: float = PATIENT) -> None:
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


async def in_force(mirror: MirroredRevocations, *entries: Revocation) -> None:
    """Write *entries*, and wait until every mirror has them."""
    for each in entries:
        position = await mirror.revoke(each)
    assert (await mirror.effect(position, PATIENT)).is_whole


@pytest.mark.parametrize("binary", binaries())
async def test_a_live_mirror_answers_at_once_and_exactly(binary: str) -> None:
    """Two workers, every kind of entry; no check waits for the store."""
    with start_redis(binary=binary) as server:
        async with mirrored(server.url) as here, mirrored(server.url) as there:
            for kind in KINDS:
                who = principal(f"t-{kind}", subject=kind, client=kind, issued_at=0.0)
                assert here.check_now(who) is there.check_now(who) is False
                value = f"t-{kind}" if kind == "token" else kind
                if kind in {"session", "family"}:
                    who = principal(f"t-{kind}", session=kind, family=kind)
                await in_force(here, entry(kind, "" if kind == "issuer" else value))
                assert here.check_now(who) is there.check_now(who) is True
                assert await here.check(who) is True
                # Those two revoke whatever was issued before.
                if kind not in {"issuer", "all"}:
                    other = principal(session="s", client="c", issued_at=0.0)
                    assert here.check_now(other) is False
                else:
                    server.command("FLUSHALL")
                    break


async def test_who_watches_is_told_of_what_was_written_elsewhere(
    redis_server: RedisServer,
) -> None:
    """Once, though it was written twice; and of what was there before."""
    told = list[Revocation]()
    async with mirrored(redis_server.url) as there:
        first, second = entry("token", "t-1"), entry("subject", "alice", cutoff=5.0)
        await in_force(there, first)
        here = MirroredRevocations(redis_server.url, CLOCK, deadline=PATIENT)
        here.watch(told.append)
        task = asyncio.ensure_future(here.run())
        await here.ready(PATIENT)
        await in_force(there, second, replace(second, until=second.until - 9))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await here.aclose()
    assert [each.name for each in told] == [first.name, second.name]


# Where it is in force


async def test_a_worker_that_does_not_answer_is_waited_for_until_its_lease_ends(
    redis_server: RedisServer,
) -> None:
    """Then it asks the store; one that may decide by what it knew is said to be."""
    async with mirrored(redis_server.url) as here:
        frozen = MirroredRevocations(
            redis_server.url, CLOCK, deadline=PATIENT, stale=9.0
        )
        task = asyncio.ensure_future(frozen.run())
        await frozen.ready(PATIENT)
        await asyncio.sleep(LEASE)  # the epoch is no longer new
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        position = await here.revoke(entry("token", "t-1"))
        effect = await here.effect(position, PATIENT)

        assert (effect.workers, effect.applied) == (2, 1)
        assert (effect.lapsed, effect.stale) == (1, 1)
        assert effect.is_whole
        assert 0 < effect.seconds < PATIENT
        assert not frozen.is_live
        await frozen.aclose()


async def test_in_a_new_epoch_a_lease_is_waited_for(redis_server: RedisServer) -> None:
    """Somebody may count on one that the store has forgotten."""
    writer = MirroredRevocations(redis_server.url, CLOCK, deadline=PATIENT)
    position = await writer.revoke(entry("token", "t-1"))

    soon = await writer.effect(position, 0.0)
    assert (soon.workers, soon.applied, soon.is_whole) == (1, 0, False)
    later = await writer.effect(position, PATIENT)
    assert (later.workers, later.applied, later.is_whole) == (0, 0, True)
    await writer.aclose()


async def test_how_far_each_worker_is_can_be_seen(redis_server: RedisServer) -> None:
    """Its lease, and how many entries it lacks; who is long gone is forgotten."""
    async with mirrored(redis_server.url) as made:
        position = await made.revoke(entry("token", "t-1"))
        await made.effect(position, PATIENT)
        now = int(time.time() * 1000)
        other = b"%d %b %d 0"
        for name, ends, epoch, number in (
            ("late", now - 5_000, position.epoch, position.number - 3),
            ("lost", now + 5_000, b"other", position.number),
            ("gone", now - 90_000, position.epoch, position.number),
        ):
            redis_server.command("HSET", WORKERS, name, other % (ends, epoch, number))

        found = await made.standing()

    assert found.position == position
    assert found.memory is not None
    assert found.memory > 100_000
    late, ours, lost = sorted(found.workers, key=lambda each: each.lease)
    assert -6 < late.lease < -4
    assert late.behind == 3
    assert 0 < ours.lease <= LEASE + SLACK / 1000
    assert ours.behind == 0
    assert 4 < lost.lease < 6
    assert lost.behind is None


async def test_who_may_decide_by_an_old_mirror_is_said_for_how_long(
    redis_server: RedisServer,
) -> None:
    """From the end of its lease."""
    async with mirrored(redis_server.url) as made:
        position = await made.revoke(entry("token", "t-1"))
        ends = int(time.time() * 1000) - 1_000
        said = b"%d %b %d 5000" % (ends, position.epoch, position.number - 1)
        redis_server.command("HSET", WORKERS, "stale", said)

        found = await made.effect(position, PATIENT)

    assert (found.lapsed, found.stale) == (1, 1)
    assert 0 < found.late <= 4


@pytest.mark.parametrize(
    "ask",
    [
        lambda made: made.standing(),
        lambda made: made.find("token", entry("token", "t-1").name),
    ],
)
async def test_what_makes_no_sense_is_an_outage(
    ask: Callable[[MirroredRevocations], Awaitable[object]],
) -> None:
    """Never an empty list."""
    async with peer(of_a_list(b"")) as store:
        made = MirroredRevocations(store.url, CLOCK, deadline=PATIENT)
        with pytest.raises(Unavailable):
            await ask(made)
        await made.aclose()


async def test_who_goes_says_so(redis_server: RedisServer) -> None:
    """Nobody waits for a worker that has ended as it should."""
    async with mirrored(redis_server.url):
        assert len(redis_server.command("HKEYS", WORKERS)) == 1
    assert redis_server.command("HKEYS", WORKERS) == []


# The mirror counts no more, or has missed something


async def test_a_frozen_store_ends_a_mirror_with_its_lease(
    redis_server: RedisServer,
) -> None:
    """Then it says what it knows for certain, and is back with the store."""
    async with mirrored(redis_server.url, stale=9.0) as here:
        await in_force(here, entry("token", "t-1"))
        gone, other = principal("t-1"), principal("t-2")
        before = here.state()
        assert (before.is_live, before.entries, before.resyncs) == (True, 1, 1)
        assert before.age < LEASE
        redis_server.pause()
        frozen_at = looked_at = time.monotonic()
        while here.is_live:
            assert looked_at - frozen_at < LEASE + 0.5
            await asyncio.sleep(0.01)
            looked_at = time.monotonic()
        assert not here.state().is_live
        assert here.state().age > LEASE / 2

        assert here.check_now(gone) is True
        assert here.check_now(other) is None
        with pytest.raises(Unavailable):
            async with asyncio.timeout(PATIENT):
                await MirroredRevocations(redis_server.url, CLOCK).check(other)
        for who, known in ((gone, True), (other, False)):
            stale = here.check_stale(who, 9.0)
            assert stale is not None
            assert stale[0] is known
            assert LEASE / 2 < stale[1] < 9.0
            assert here.check_stale(who, 0.1) is None
        await until(lambda: here.health() is not None, 2 * PATIENT)
        assert "revocation store is away: " in (here.health() or "")

        redis_server.resume()
        await until(lambda: here.is_live)
        assert here.health() is None
        assert here.check_now(other) is False
        assert here.resyncs == 1


async def test_a_process_that_was_frozen_does_not_trust_its_mirror() -> None:
    """Its own clock tells: the first check after that asks."""
    ahead = 0.0
    clock = Clock(time.time, lambda: time.monotonic() + ahead)
    with start_redis() as server:
        async with mirrored(server.url, clock=clock) as here:
            assert here.check_now(principal()) is False
            ahead = LEASE
            assert here.check_now(principal()) is None
            assert here.check_stale(principal(), LEASE / 2) is None
            await until(lambda: here.is_live)


async def test_a_cut_connection_costs_no_snapshot(redis_server: RedisServer) -> None:
    """The feed goes on where it was, also if something was written meanwhile."""
    async with mirrored(redis_server.url) as here:
        for turn in range(5):
            redis_server.command("CLIENT", "KILL", "TYPE", "normal")
            await in_force(here, entry("token", f"t-{turn}"))
            assert here.check_now(principal(f"t-{turn}")) is True
        assert here.resyncs == 1


def written_behind(server: RedisServer, made: Revocation) -> None:
    """Write *made* and lose its place in the feed, as a trimmed stream does."""
    server.command("SET", b"{gw:revocation}:token:" + made.name.hex().encode(), "1:5")
    server.command("HINCRBY", STATE, "number", "1")


async def test_what_the_feed_has_lost_is_found(redis_server: RedisServer) -> None:
    """Trimmed, or deleted: a number is missing, and a snapshot is taken."""
    async with mirrored(redis_server.url) as here:
        await in_force(here, entry("token", "t-0"))
        written_behind(redis_server, entry("token", "t-1"))
        await until(lambda: here.check_now(principal("t-1")) is True)
        # Before the next one, too, whose number does not follow.
        redis_server.command("DEL", FEED)
        written_behind(redis_server, entry("token", "t-2"))
        await in_force(here, entry("token", "t-3"))
        for name in ("t-0", "t-1", "t-2", "t-3"):
            assert here.check_now(principal(name)) is True
        assert here.resyncs == 3


async def test_an_entry_that_is_not_understood_costs_a_snapshot(
    redis_server: RedisServer,
) -> None:
    """Somebody has put something into the stream: it ends nothing."""
    async with mirrored(redis_server.url) as here:
        number = int(redis_server.command("HINCRBY", STATE, "number", "1"))
        redis_server.command("XADD", FEED, f"{number}-0", "what", "ever")
        await until(lambda: here.resyncs == 2)
        await in_force(here, entry("token", "t-1"))
        assert here.check_now(principal("t-1")) is True


@pytest.mark.parametrize("kept", ["nothing", "all of it", "an older state"])
async def test_what_a_restarted_store_has_lost_it_gets_back(
    redis_server: RedisServer, kept: str
) -> None:
    """From whoever had applied it; it is refused all the while."""
    gone = [principal("t-1"), principal("t-2"), principal("x", subject="bob")]
    entries = [entry("token", "t-1"), entry("token", "t-2"), entry("block", "bob")]
    async with mirrored(redis_server.url) as here:
        await in_force(here, *entries[:2])
        if kept == "an older state":
            redis_server.command("SAVE")
        await in_force(here, entries[2])
        if kept == "all of it":
            redis_server.command("SAVE")
        redis_server.restart()
        while not here.is_live or here.resyncs < 2:
            assert [here.check_now(who) for who in gone] == [True] * 3
            await asyncio.sleep(0.01)

        assert [here.check_now(who) for who in gone] == [True] * 3
        # Whoever starts now knows it too.
        async with mirrored(redis_server.url) as new:
            assert [new.check_now(who) for who in gone] == [True] * 3
            assert len(new) == len(here) == 3


async def test_a_lifted_block_does_not_come_back(redis_server: RedisServer) -> None:
    """What gives the block back keeps its number, and what lifted it was newer."""
    bob = principal("x", subject="bob")
    async with mirrored(redis_server.url) as here:
        await in_force(here, entry("block", "bob"))
        redis_server.command("SAVE")  # with the block, without what lifts it
        await in_force(here, replace(entry("block", "bob"), lifts=True))
        assert here.check_now(bob) is False
        redis_server.restart()
        await until(lambda: here.is_live and here.resyncs == 2)
        assert here.check_now(bob) is False
        assert await here.check(bob) is False


async def test_a_store_that_never_was_there_is_said_to_be_away() -> None:
    """To start is not put off for it, and a check is an outage."""
    async with mirrored(f"redis://127.0.0.1:{free_port()}") as here:
        assert not here.is_live
        assert here.check_now(principal()) is None
        assert here.check_stale(principal(), 1e9) is None
        assert "revocation store is away: " in (here.health() or "")
        with pytest.raises(Unavailable):
            await here.effect(Position(b"e", 1), 0.0)


async def test_a_replica_gives_no_lease(redis_server: RedisServer) -> None:
    """It may not have heard of a revocation yet (-READONLY)."""
    async with mirrored(redis_server.url) as here:
        redis_server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        await until(lambda: not here.is_live)
        redis_server.command("REPLICAOF", "NO", "ONE")
        await until(lambda: here.is_live)


async def test_a_write_is_acknowledged_when_replicas_have_it(
    redis_server: RedisServer,
) -> None:
    """If they don't say so in time it is not, though it is in force (R62)."""
    host = ("--replicaof", "127.0.0.1", str(redis_server.port))
    with start_redis(*host, "--repl-diskless-sync-delay", "0") as replica:
        writer = MirroredRevocations(
            redis_server.url, CLOCK, deadline=PATIENT, replicas=1
        )

        def is_linked() -> bool:
            return b"master_link_status:up" in replica.command("INFO", "replication")

        await until(is_linked, 20.0)
        await writer.revoke(entry("token", "t-1"))
        assert len(replica.command("KEYS", "*:token:*")) == 1
        replica.pause()
        with pytest.raises(Unavailable, match="replicas of the revocation store"):
            await writer.revoke(entry("token", "t-2"))
        assert writer.health() is None
        assert await writer.check(principal("t-2")) is True
        assert await writer.check(principal("t-3")) is False
        replica.resume()
        await writer.aclose()


async def test_a_full_store_gives_no_lease(redis_server: RedisServer) -> None:
    """Who can't be told of a revocation is not asked about one (-OOM)."""
    async with mirrored(redis_server.url) as here:
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
        await until(lambda: not here.is_live)
        assert here.check_now(principal()) is None
        with pytest.raises(Unavailable):
            await here.check(principal())
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: here.is_live)


@pytest.mark.parametrize(
    "reply",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
        b"",
        b"+OK\r\n",
        b"*0\r\n",
        b"*3\r\n$1\r\n0\r\n$1\r\ne\r\n$1\r\n5\r\n",  # to another question
        b"*1000000\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\x00\xff" * 100,
    ],
)
async def test_no_reply_but_the_right_one_gives_a_lease(reply: bytes) -> None:
    """Errors, silence, what is not RESP: nobody is let through by this mirror."""
    async with peer(says(reply)) as store:
        here = MirroredRevocations(store.url, CLOCK, deadline=0.05)
        task = asyncio.ensure_future(here.run())
        await until(lambda: here.health() is not None)
        assert here.check_now(principal()) is None
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await here.aclose()


def of_a_list(feed: bytes) -> Answer:
    """Answer like an empty list at number 5, and with *feed* when that is read."""

    async def answer(command: Command, writer: asyncio.StreamWriter) -> None:
        if command[0] == b"XREAD":
            writer.write(feed)
            return
        keys = int(command[2])
        number = command[3 + keys]
        said = [number, b"0"] if keys == 1 else [number, b"e", b"5"]
        parts = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in said)
        writer.write(b"*%d\r\n%b" % (len(said), parts))

    return answer


def fed(entry_id: str, *fields: str) -> bytes:
    """Return the reply to XREAD with one entry."""

    def text(*words: str) -> bytes:
        parts = b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
        return b"*%d\r\n%b" % (len(words), parts)

    name = FEED.decode()
    entry_ = b"*2\r\n$%d\r\n%b\r\n" % (len(entry_id), entry_id.encode())
    head = b"*1\r\n*2\r\n$%d\r\n%b\r\n*1\r\n" % (len(name), name.encode())
    return head + entry_ + text(*fields)


@pytest.mark.parametrize(
    "feed",
    [
        b"-NOPERM no\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*1\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n*2\r\n$1\r\nx\r\n*1\r\n$-1\r\n",
        fed("6-0", "epoch", "e"),
        fed("6-0"),
        fed("7-0", "epoch", "e", "key", "k", "value", "v", "ends", "1"),
        fed("6-0", "epoch", "other", "key", "k", "value", "v", "ends", "1"),
        fed("5-0", "epoch", "e", "key", "k", "value", "v", "ends", "1"),
    ],
)
async def test_a_feed_that_makes_no_sense_is_not_followed(feed: bytes) -> None:
    """Another snapshot, or another connection; the mirror goes on looking."""
    async with peer(of_a_list(feed)) as store:
        here = MirroredRevocations(store.url, CLOCK, deadline=PATIENT)
        task = asyncio.ensure_future(here.run())
        await here.ready(PATIENT)
        await until(lambda: here.resyncs > 2 or store.connections > 2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await here.aclose()


@pytest.mark.parametrize("binary", binaries())
async def test_a_user_with_the_documented_commands_is_enough(binary: str) -> None:
    """The ACL line of docs/revocation.md, and nothing beyond it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("ACL SETUSER")]
    _, _, user, *rules = line.replace("<password>", "pw").split()
    with start_redis(binary=binary) as server:
        server.command("ACL", "SETUSER", user, *rules)
        async with mirrored(f"redis://{user}:pw@127.0.0.1:{server.port}/0") as here:
            await in_force(here, *(entry(kind, "x") for kind in KINDS))
            await in_force(here, replace(entry("block", "x"), lifts=True))
            await in_force(here, entry("client", "x", cutoff=5.0, life=900.0))
            assert await here.check(principal("x"))
            server.command("DEL", FEED)
            written_behind(server, entry("token", "t-2"))
            await until(lambda: here.check_now(principal("t-2")) is True)
            assert await here.find("token", entry("token", "t-2").name)
            assert len([each async for each in here.entries()]) == len(KINDS) + 1
            assert len((await here.standing()).workers) == 1
        assert server.command("HKEYS", WORKERS) == []
        denied = server.command("ACL", "LOG")
        assert denied == []

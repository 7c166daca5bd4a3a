"""Mirrors of one list, at moments at which something else happens too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.adapters.redis_scripts import effect_of, position_of, where
from gateway.clock import Clock
from gateway.config.settings import LEASE
from gateway.model import Unavailable
from gateway.revocation.feed import Position
from tests.adapters.principals import CLOCK, entry, principal
from tests.adapters.test_redis_mirror import PATIENT, mirrored, until
from tests.redis_groups import cluster
from tests.redis_server import RedisServer, binaries, start_redis

AT_ONCE = ("--repl-diskless-sync-delay", "0")
ALICE = principal(subject="alice", issued_at=0.0)


def is_linked(replica: RedisServer) -> bool:
    said: bytes = replica.command("INFO", "replication")
    return b"master_link_status:up" in said


@asynccontextmanager
async def running(mirror: MirroredRevocations) -> AsyncIterator[None]:
    """Let *mirror* follow, and stop following."""
    task = asyncio.ensure_future(mirror.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_mirror_that_lapsed_does_not_count_before_it_has_caught_up(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever revoked meanwhile was told that it asks the store."""
    async with mirrored(redis_server.url) as here:
        late = MirroredRevocations(redis_server.url, CLOCK, deadline=PATIENT)
        async with running(late):
            await late.ready(PATIENT)
            await asyncio.sleep(LEASE)
        position = await here.revoke(entry("token", "t-1"))
        effect = await here.effect(position, PATIENT)
        assert effect.is_whole
        assert effect.lapsed == 1
        assert late.check_now(principal("t-1")) is None

        renewed = asyncio.Event()

        async def read() -> bool:
            renewed.set()
            await asyncio.Event().wait()  # the entry is on its way
            return True

        with monkeypatch.context() as patch:
            patch.setattr(late, "_read", read)
            async with running(late):
                await renewed.wait()
                assert late.check_now(principal("t-1")) is None
        async with running(late):
            await until(lambda: late.is_live)
            assert late.check_now(principal("t-1")) is True
        await late.aclose()


def test_who_may_decide_stale_for_long_is_not_forgotten() -> None:
    """A lease that ended a minute ago, and five minutes that it may go on."""
    reply = [b"1000000", b"1", b"%d e 1 240000" % (1_000_000 - 61_000)]

    found = effect_of(Position(b"e", 2), reply)

    assert (found.workers, found.lapsed, found.stale) == (1, 1, 1)
    assert found.late == 179


async def test_a_block_from_elsewhere_can_be_lifted(redis_server: RedisServer) -> None:
    """Its number may be higher than any that this list has given."""
    async with mirrored(redis_server.url) as here:
        number = int(time.time() * 1000) + 10_000_000
        block = replace(entry("block", "alice"), number=number)
        await here.restore(block)
        await until(lambda: here.check_now(ALICE) is True)

        position = await here.revoke(replace(block, number=0, lifts=True))

        assert (await here.effect(position, PATIENT)).is_whole
        assert here.check_now(ALICE) is False


async def test_a_clock_that_was_ahead_for_a_while_loses_nothing(
    redis_server: RedisServer,
) -> None:
    """What was forgotten by it comes back with a snapshot."""
    ahead = 0.0
    clock = Clock(lambda: CLOCK.wall() + ahead, CLOCK.monotonic)
    async with (
        mirrored(redis_server.url) as writer,
        mirrored(redis_server.url, clock=clock) as here,
    ):
        position = await writer.revoke(entry("subject", "alice"))
        assert (await writer.effect(position, PATIENT)).is_whole
        ahead = 400 * 86_400.0
        await until(lambda: len(here) == 0)
        ahead = 0.0
        await until(lambda: here.resyncs == 2 and here.is_live)
        assert here.check_now(ALICE) is True


async def test_a_master_that_was_a_replica_for_a_while_begins_an_epoch() -> None:
    """It has lost what another master had missed, and is the same process."""
    with start_redis(*AT_ONCE) as one, start_redis(*AT_ONCE) as two:
        two.command("REPLICAOF", "127.0.0.1", str(one.port))
        await until(lambda: is_linked(two), 20.0)
        here = MirroredRevocations(one.url, CLOCK, deadline=PATIENT)
        writer = MirroredRevocations(one.url, CLOCK, deadline=PATIENT)
        async with running(here):
            await here.ready(PATIENT)
            await writer.revoke(entry("token", "t-0"))
            await until(lambda: len(two.command("KEYS", "*:token:*")) == 1)
            two.command("REPLICAOF", "NO", "ONE")  # it misses what follows
            await writer.revoke(entry("token", "t-1"))
            await until(lambda: here.check_now(principal("t-1")) is True)
        one.command("REPLICAOF", "127.0.0.1", str(two.port))
        await until(lambda: is_linked(one), 20.0)
        one.command("REPLICAOF", "NO", "ONE")
        await writer.revoke(entry("token", "t-2"))  # under the number that t-1 had
        before = here.resyncs
        async with running(here):
            await until(lambda: here.check_now(principal("t-2")) is True)
            # Its last lease may not be over: that it counts says nothing yet.
            await until(lambda: here.resyncs > before)
        assert await writer.check(principal("t-1")) is True
        await here.aclose()
        await writer.aclose()


async def test_a_snapshot_while_the_slot_moves_is_none() -> None:
    """A part of the entries is elsewhere already, and no node can tell."""
    with cluster() as group:
        slot = str(group.slot("{gw:revocation}"))
        source = group.owner("{gw:revocation}")
        target = next(node for node in group.nodes if node is not source)
        async with mirrored(group.url) as here:
            position = await here.revoke(entry("token", "t-1"))
            assert (await here.effect(position, PATIENT)).is_whole
            (key,) = source.command("KEYS", "*:token:*")
            target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
            source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
            to = ("127.0.0.1", str(target.port))
            assert source.command("MIGRATE", *to, key, "0", "5000") == b"OK"
            fresh = MirroredRevocations(group.url, CLOCK, deadline=PATIENT)
            async with running(fresh):
                await until(lambda: fresh.health() is not None)
                assert fresh.check_now(principal("t-1")) is None
            await fresh.aclose()


async def test_a_reconnect_makes_no_mirror_older(redis_server: RedisServer) -> None:
    """It is as old as before, until it has caught up."""
    here = MirroredRevocations(redis_server.url, CLOCK, deadline=PATIENT, stale=60.0)
    async with running(here):
        await here.ready(PATIENT)
        await until(lambda: here._follower.owed > 0)
    here._lost("ConnectionError")
    await here.revoke(entry("token", "t-1"))
    await here._renew(heard=True)
    assert here.age < PATIENT
    await here.aclose()


@pytest.mark.parametrize("binary", binaries())
async def test_what_is_no_news_is_waited_for_too(binary: str) -> None:
    """To revoke again is no way round the replicas."""
    with start_redis(binary=binary) as master:
        words = ("--replicaof", "127.0.0.1", str(master.port), *AT_ONCE)
        with start_redis(*words, binary=binary) as replica:
            await until(lambda: is_linked(replica), 20.0)
            made = entry("token", "t-1")
            replica.pause()
            for _ in range(2):
                writer = MirroredRevocations(
                    master.url, CLOCK, deadline=1.0, replicas=1
                )
                with pytest.raises(Unavailable, match="replicas"):
                    await writer.restore(made)
                await writer.aclose()
            replica.resume()


async def test_nobody_is_said_to_have_lapsed_whose_mirror_counts(
    redis_server: RedisServer,
) -> None:
    """The store's clock counts whole milliseconds, ours does not."""
    at = Position(b"another", 1)
    for _ in range(4):
        here = MirroredRevocations(redis_server.url, CLOCK, deadline=PATIENT)
        here._follower.begin(position_of(await here._ask(where())))
        await here._renew(heard=True)
        await asyncio.sleep(here._live_until - time.monotonic() - 0.003)
        while not (await here.effect(at, 0.0)).lapsed:
            pass
        assert not here.is_live
        await here.aclose()


async def test_what_cannot_be_read_is_given_back_too(redis_server: RedisServer) -> None:
    """An entry of a later version: it revokes whatever it names, and goes on to."""
    async with mirrored(redis_server.url) as here:
        redis_server.command("FLUSHALL")
        key = "{gw:revocation}:subject:" + entry("subject", "alice").name.hex()
        redis_server.command("SET", key, "2:new", "EX", "600")
        who = principal(subject="alice", issued_at=time.time() + 3600)
        await until(lambda: here.check_now(who) is True)
        resyncs = here.resyncs
        redis_server.command("FLUSHALL")
        await until(lambda: here.resyncs > resyncs and here.is_live)
        assert here.check_now(who) is True
        assert await here.check(who) is True

"""gateway.adapters.redis_store: what happens when the store does not do as it should.

What it answers when it does is the suite in test_revocation_lists.py.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.ports import free_port
from gateway.adapters.circuit import OPEN_AFTER
from gateway.adapters.redis_store import (
    MAX_CHECKS,
    MAX_WAITING,
    RedisRevocations,
)
from gateway.model import Principal, Unavailable
from gateway.revocation.entries import KINDS
from tests.adapters.principals import CLOCK, entry, principal
from tests.adapters.resp import Answer, Command, nothing_revoked, peer, says
from tests.redis_server import RedisServer, binaries, start_redis

T = TypeVar("T")

ANSWERED_WITHIN = 0.250  # seconds (R60)
BACK_WITHIN = 1.0  # seconds (R60)
WRITTEN_KEYS = 3  # of a write: the state, the feed, the entry
PATIENT = 5.0  # seconds; where the subject is an answer, and the machine may be busy
ALICE = principal("t-1", session="s-1", client="web", issued_at=0.0)


@asynccontextmanager
async def connected(
    url: str, *, deadline: float = 0.150
) -> AsyncIterator[RedisRevocations]:
    revocations = RedisRevocations(url, CLOCK, deadline=deadline)
    try:
        yield revocations
    finally:
        await revocations.aclose()


class Stalls:
    """Notices for how long this machine ran nothing at all, which is not our doing."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worst = 0.0
        self._beat()

    def _beat(self) -> None:
        self._due = self._loop.time() + 0.005
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._worst = max(self._worst, self._loop.time() - self._due)
        self._beat()

    def stop(self) -> float:
        """Return the longest of them, in seconds."""
        self._timer.cancel()
        return max(self._worst, self._loop.time() - self._due)


async def in_time(asked: Awaitable[T]) -> T:
    """Await *asked*, and hold it to the time that R60 gives an answer."""
    stalls, start = Stalls(), time.monotonic()
    try:
        return await asked
    finally:
        assert time.monotonic() - start < ANSWERED_WITHIN + stalls.stop()


async def assert_away(revocations: RedisRevocations, *, times: int = 8) -> None:
    """Every check and every write is an outage, in time; then it is known as one."""
    for _ in range(times):
        asked: Awaitable[Any]
        for asked in (
            revocations.check(ALICE),
            revocations.revoke(entry("token", "x")),
        ):
            with pytest.raises(Unavailable) as caught:
                await in_time(asked)
            assert caught.value.dependency == "revocation store"
            assert caught.value.retry_after == 1
    assert "revocation store is away: " in (revocations.health() or "")


async def assert_back(revocations: RedisRevocations, who: Principal = ALICE) -> bool:
    """Within a second checks are answered again; returns the first answer."""
    end = time.monotonic() + BACK_WITHIN
    while True:
        try:
            answer = await revocations.check(who)
        except Unavailable:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        else:
            assert revocations.health() is None
            return answer


# The store is away


async def test_a_frozen_store_is_an_outage_until_it_goes_on(
    redis_server: RedisServer,
) -> None:
    """SIGSTOP: its kernel accepts and acknowledges, and nothing comes back."""
    async with connected(redis_server.url) as revocations:
        await revocations.revoke(entry("token", "t-1"))
        redis_server.pause()
        await assert_away(revocations)
        redis_server.resume()
        assert await assert_back(revocations) is True


async def test_a_killed_store_is_an_outage_until_it_is_back(
    redis_server: RedisServer,
) -> None:
    """Killed while connected, and started again where it was."""
    async with connected(redis_server.url) as revocations:
        assert not await revocations.check(ALICE)
        redis_server.kill()
        await assert_away(revocations)
        redis_server.start()
        assert await assert_back(revocations) is False


async def test_a_store_that_never_was_there_is_an_outage() -> None:
    """A refused connection."""
    async with connected(f"redis://127.0.0.1:{free_port()}") as revocations:
        await assert_away(revocations)


async def test_a_black_hole_is_an_outage() -> None:
    """A listener with a full queue drops what would open a connection."""
    with socket.socket() as hole, socket.socket() as one, socket.socket() as two:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        port = hole.getsockname()[1]
        async with connected(f"redis://127.0.0.1:{port}") as revocations:
            await assert_away(revocations, times=4)


async def test_a_replica_is_an_outage(redis_server: RedisServer) -> None:
    """It answers reads, but may not have heard of a revocation yet (-READONLY)."""
    async with connected(redis_server.url) as revocations:
        assert not await revocations.check(ALICE)
        redis_server.command("REPLICAOF", "127.0.0.1", str(free_port()))
        await assert_away(revocations)
        redis_server.command("REPLICAOF", "NO", "ONE")
        assert await assert_back(revocations) is False


async def test_a_full_store_is_an_outage(redis_server: RedisServer) -> None:
    """Who can't be told of a revocation is not asked about one (-OOM)."""
    async with connected(redis_server.url) as revocations:
        assert not await revocations.check(ALICE)
        redis_server.command("CONFIG", "SET", "maxmemory", "1")
        await assert_away(revocations)
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
        assert await assert_back(revocations) is False


@pytest.mark.parametrize("user", ["", ":wrong@", "gateway:wrong@"])
async def test_a_store_that_does_not_know_us_is_an_outage(user: str) -> None:
    """No password, a wrong one, a wrong user; none of it shows in the words for it."""
    with start_redis("--requirepass", "right") as server:
        async with connected(f"redis://{user}127.0.0.1:{server.port}") as revocations:
            await assert_away(revocations, times=4)
            assert "wrong" not in (revocations.health() or "")
        async with connected(f"redis://:right@127.0.0.1:{server.port}") as revocations:
            assert not await revocations.check(ALICE)


@pytest.mark.parametrize(
    "reply",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n",
        b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
        b"-MOVED 3999 127.0.0.1:6381\r\n",
        b"-CROSSSLOT Keys in request don't hash to the same slot\r\n",
        b"-BUSY Redis is busy running a script.\r\n",
        b"-MISCONF Errors writing to the AOF file\r\n",
        b"-\r\n",
        b"",
        b"+OK\r\n",
        b":1\r\n",
        b":0\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*5\r\n$1\r\n0\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n",  # to another question
        b"*5\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n",
        b"*1000000\r\n",
        b"$1000000000\r\n",
        b"$99999999999999999999\r\n",
        b"*1\r\n" * 5_000,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\x00\xff" * 100,
        b"\x15\x03\x01\x00\x02\x02\x50",  # a TLS alert
    ],
)
async def test_no_answer_but_the_right_one_is_an_answer(reply: bytes) -> None:
    """Errors, silence, and what is not RESP or not a reply to this: all an outage."""
    async with peer(says(reply)) as store, connected(store.url) as revocations:
        await assert_away(revocations, times=3)


@given(st.binary(max_size=200))
@example(b"*2\r\n$1\r\n1\r\n$-1\r\n")
@settings(deadline=None, max_examples=60)
def test_no_bytes_make_an_answer(reply: bytes) -> None:
    """Whatever bytes come, nobody is let through and nobody is called revoked."""

    async def ask() -> None:
        async def answer(_command: Command, writer: asyncio.StreamWriter) -> None:
            writer.write(reply)
            writer.close()

        async with (
            peer(answer) as store,
            connected(store.url, deadline=0.05) as revocations,
        ):
            with pytest.raises(Unavailable):
                await revocations.check(ALICE)

    asyncio.run(ask())


def dripping(seconds: float) -> Answer:
    """Answer rightly, one byte at a time, *seconds* apart."""

    async def answer(command: Command, writer: asyncio.StreamWriter) -> None:
        for byte in nothing_revoked(command):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(seconds)

    return answer


async def test_an_answer_byte_by_byte_counts_only_in_time() -> None:
    """The deadline is for the whole answer, not for each read of it."""
    async with (
        peer(dripping(0.0)) as quick,
        connected(quick.url, deadline=PATIENT) as revocations,
    ):
        assert await revocations.check(ALICE) is False
    async with peer(dripping(0.02)) as slow, connected(slow.url) as revocations:
        await assert_away(revocations, times=3)


async def test_connections_that_are_cut_again_and_again_give_no_wrong_answer(
    redis_server: RedisServer,
) -> None:
    """CLIENT KILL in a loop: the right answer in time, or an outage."""
    async with connected(redis_server.url) as revocations:
        await revocations.revoke(entry("token", "t-1"))
        answers = outages = 0
        for turn in range(300):
            if turn % 3 == 0:
                redis_server.command("CLIENT", "KILL", "TYPE", "normal")
            name = random.choice(["t-1", "t-2"])
            try:
                answer = await in_time(revocations.check(principal(name)))
                assert answer is (name == "t-1")
                answers += 1
            except Unavailable:
                outages += 1
        # A connection that was cut while idle is no outage: the store is there.
        assert answers > outages


async def test_a_store_that_was_restarted_in_between_is_no_outage(
    redis_server: RedisServer,
) -> None:
    """It knows neither connection nor scripts; the next check has its answer."""
    async with connected(redis_server.url, deadline=PATIENT) as revocations:
        assert not await revocations.check(ALICE)
        redis_server.restart()
        assert not await revocations.check(ALICE)
        redis_server.command("SCRIPT", "FLUSH")
        await revocations.revoke(entry("token", "t-1"))
        assert await revocations.check(ALICE)


async def test_a_known_outage_costs_no_time_and_no_connection() -> None:
    """After some failures in a row checks fail at once; one probe looks for its end."""
    async with peer(says(b"")) as store, connected(store.url) as revocations:
        for _ in range(OPEN_AFTER):
            with pytest.raises(Unavailable):
                await revocations.check(ALICE)
        before, start = store.connections, time.monotonic()
        for _ in range(1_000):
            with pytest.raises(Unavailable):
                await revocations.check(ALICE)
        # Of the thousand that each of them would have waited.
        assert time.monotonic() - start < 20 * ANSWERED_WITHIN
        assert store.connections <= before + 1


async def test_a_probe_asks_also_while_checks_fail_at_once(
    redis_server: RedisServer,
) -> None:
    """Readiness can ask whether a check would be answered now."""
    async with connected(redis_server.url) as revocations:
        await revocations.probe()
        redis_server.kill()
        await assert_away(revocations)
        with pytest.raises(Unavailable):
            await revocations.probe()


async def test_who_waits_when_the_list_is_closed_is_told() -> None:
    """Nobody waits for an answer that will not come."""
    async with peer(says(b"")) as store:
        revocations = RedisRevocations(store.url, CLOCK, deadline=PATIENT)
        waiting = asyncio.gather(
            *(revocations.check(principal(f"t-{n}")) for n in range(600)),
            return_exceptions=True,
        )
        while not store.commands:
            await asyncio.sleep(0)
        await revocations.aclose()

        assert all(isinstance(found, Unavailable) for found in await waiting)
        with pytest.raises(Unavailable):
            await revocations.check(ALICE)


async def test_the_crowd_that_waits_is_bounded() -> None:
    """Whoever comes after it fails at once: memory is not a queue for a dead store."""
    async with peer(says(b"")) as store, connected(store.url) as revocations:
        crowd = asyncio.gather(
            *(revocations.check(ALICE) for _ in range(MAX_WAITING + 500)),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        assert len(revocations._checks) <= MAX_WAITING
        assert all(isinstance(found, Unavailable) for found in await crowd)


async def test_who_comes_while_others_wait_has_no_longer_to_wait() -> None:
    """The deadline is each caller's own, not that of the exchange before."""
    async with peer(says(b"")) as store, connected(store.url) as revocations:
        first = asyncio.ensure_future(revocations.check(ALICE))
        while not store.commands:
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable):
            await in_time(revocations.check(ALICE))
        with pytest.raises(Unavailable):
            await first


async def test_an_outage_once_known_is_everybodys() -> None:
    """A crowd that waits when it becomes known is not tried one part after another."""

    async def hang_up(_command: Command, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with peer(hang_up) as store, connected(store.url) as revocations:
        crowd = await asyncio.gather(
            *(revocations.check(ALICE) for _ in range(MAX_CHECKS * OPEN_AFTER * 2)),
            return_exceptions=True,
        )
        assert all(isinstance(found, Unavailable) for found in crowd)
        assert store.connections <= OPEN_AFTER


# Whose answer it is


async def test_who_has_left_before_is_not_asked_for() -> None:
    """A caller who is gone costs the store nothing."""
    async with peer(says(b"")) as store, connected(store.url) as revocations:
        task = asyncio.ensure_future(revocations.check(ALICE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Unavailable):
            await revocations.revoke(entry("token", "t-1"))
        (_write, check) = store.commands
        assert check[2:4] == [b"1", b"{gw:revocation}:probe"]


async def test_a_caller_who_leaves_takes_nobody_elses_answer_along(
    redis_server: RedisServer,
) -> None:
    """Cancelled at random moments: the others still get theirs (CVE-2023-28858)."""
    dice, loop = random.Random(7), asyncio.get_running_loop()
    async with connected(redis_server.url, deadline=PATIENT) as revocations:
        await asyncio.gather(
            *(revocations.revoke(entry("token", f"t-{n}")) for n in range(0, 50, 2))
        )
        asked = left = 0
        for _ in range(60):
            numbers = [dice.randrange(50) for _ in range(40)]
            tasks = [
                asyncio.ensure_future(revocations.check(principal(f"t-{number}")))
                for number in numbers
            ]
            for task in dice.sample(tasks, 25):
                loop.call_later(dice.random() * 0.003, task.cancel)
            found = await asyncio.gather(*tasks, return_exceptions=True)
            for number, answer in zip(numbers, found, strict=True):
                if isinstance(answer, asyncio.CancelledError):
                    left += 1
                else:
                    asked += 1
                    assert answer is (number % 2 == 0)
        assert min(asked, left) > 100


async def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    """Late replies arrive on the connection, not at the next caller (I7)."""

    async def answer(command: Command, writer: asyncio.StreamWriter) -> None:
        late = len(peers.commands) % 2 == 1
        number = command[-1]
        keys = int(command[2])
        # What is late says "revoked", what is in time says "not revoked".
        reply = b"*%d\r\n$%d\r\n%b\r\n" % (keys + 1, len(number), number)
        reply += (b"$3\r\n1:0\r\n" if late else b"$-1\r\n") * keys
        if late:
            await asyncio.sleep(0.3)
        writer.write(reply)

    async with (
        peer(answer) as peers,
        connected(peers.url, deadline=0.2) as revocations,
    ):
        for turn in range(8):
            if turn % 2 == 0:
                with pytest.raises(Unavailable):
                    await revocations.check(ALICE)
            else:
                assert await revocations.check(ALICE) is False


async def test_checks_of_one_moment_are_one_question(
    redis_server: RedisServer,
) -> None:
    """A hundred checks in one turn of the loop cost the store one command."""
    async with connected(redis_server.url, deadline=PATIENT) as revocations:
        assert not await revocations.check(ALICE)
        redis_server.command("CONFIG", "RESETSTAT")
        await asyncio.gather(
            *(revocations.check(principal(f"t{n}")) for n in range(99))
        )

        statistics = redis_server.command("INFO", "commandstats").decode()
        assert "cmdstat_evalsha:calls=1," in statistics


async def test_one_write_that_is_refused_spoils_no_check() -> None:
    """A store that forbids writes to this user still answers its questions."""

    async def answer(command: Command, writer: asyncio.StreamWriter) -> None:
        check = int(command[2]) != WRITTEN_KEYS
        writer.write(nothing_revoked(command) if check else b"-NOPERM no\r\n")

    async with (
        peer(answer) as store,
        connected(store.url, deadline=PATIENT) as revocations,
    ):
        checked, revoked = await asyncio.gather(
            revocations.check(ALICE),
            revocations.revoke(entry("token", "t-1")),
            return_exceptions=True,
        )
        assert checked is False
        assert isinstance(revoked, Unavailable)


@pytest.mark.parametrize("said", [b"$2\r\nno\r\n", b"$-1\r\n", b":1\r\n"])
async def test_a_write_counts_when_it_is_acknowledged(said: bytes) -> None:
    """Never a false "revoked" (R62)."""

    async def answer(command: Command, writer: asyncio.StreamWriter) -> None:
        if int(command[2]) == WRITTEN_KEYS:
            number = command[3 + WRITTEN_KEYS]
            writer.write(b"*2\r\n$%d\r\n%b\r\n%b" % (len(number), number, said))
        else:
            writer.write(nothing_revoked(command))

    async with (
        peer(answer) as store,
        connected(store.url, deadline=PATIENT) as revocations,
    ):
        with pytest.raises(Unavailable):
            await revocations.revoke(entry("token", "t-1"))


# What lies in the store


async def test_the_store_holds_nothing_that_a_reader_could_use(
    redis_server: RedisServer,
) -> None:
    """Fingerprints and cut-offs, under one hash tag, each with an end (R53, R63)."""
    kinds = [kind for kind in KINDS if kind != "all"]
    async with connected(redis_server.url, deadline=PATIENT) as revocations:
        for kind in kinds:
            await revocations.revoke(entry(kind, f"{kind}-canary", cutoff=1_000.5))

    keys: set[bytes] = set(redis_server.command("KEYS", "*"))
    entries = {key for key in keys if key.count(b":") == 3}
    assert {key.rpartition(b":")[0] for key in entries} == {
        b"{gw:revocation}:%b" % kind.encode() for kind in kinds
    }
    assert keys - entries == {b"{gw:revocation}:state", b"{gw:revocation}:feed"}
    for key in entries:
        assert b"canary" not in key
        is_block = b":block:" in key
        held = redis_server.command("GET", key)
        assert (held == b"1:1000.500000") is not is_block
        assert 590_000 < redis_server.command("PTTL", key) <= 600_000
    for place in (b"feed", b"state"):
        assert b"canary" not in redis_server.command(
            "DUMP", b"{gw:revocation}:" + place
        )


async def only_key(server: RedisServer, revocations: RedisRevocations) -> bytes:
    await revocations.revoke(entry("subject", "alice"))
    (key,) = server.command("KEYS", "*:subject:*")
    assert isinstance(key, bytes)
    return key


@pytest.mark.parametrize("binary", binaries())
async def test_an_entry_that_cannot_be_read_revokes(binary: str) -> None:
    """A later version's value, a broken one, another type: closed, and no crash."""
    with start_redis(binary=binary) as server:
        async with connected(server.url, deadline=PATIENT) as revocations:
            key = await only_key(server, revocations)
            who = principal(issued_at=2e9)
            assert not await revocations.check(who)
            for value in ("2:0", "", "1:", "revoked"):
                server.command("SET", key, value, "KEEPTTL")
                assert await revocations.check(who)
                # Nor does a write undo what it can't read.
                await revocations.revoke(entry("subject", "alice", cutoff=5.0))
                assert server.command("GET", key) == value.encode()
            server.command("DEL", key)
            server.command("RPUSH", key, "x")
            assert await revocations.check(who)
            await revocations.revoke(entry("subject", "alice", life=900.0))
            assert server.command("TYPE", key) == b"list"
            assert await revocations.check(who)


async def test_an_entry_without_end_keeps_none(redis_server: RedisServer) -> None:
    """Somebody made it last for ever; a later write does not shorten that."""
    async with connected(redis_server.url, deadline=PATIENT) as revocations:
        key = await only_key(redis_server, revocations)
        redis_server.command("PERSIST", key)
        await revocations.revoke(entry("subject", "alice", cutoff=9.0))

        assert redis_server.command("PTTL", key) == -1
        assert redis_server.command("GET", key) == b"1:9.000000"

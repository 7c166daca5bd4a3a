"""gateway.proxy.pool: which endpoint is asked, and what holds when some fail."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.config.settings import (
    Address,
    Ejection,
    Timeouts,
    Upstream,
    UpstreamUrl,
)
from gateway.proxy.health import LIMIT
from gateway.proxy.names import Found
from gateway.proxy.pool import Pool
from tests import backends
from tests.backends import (
    Backend,
    Behaviour,
    Connection,
    answer,
    black_hole,
    echoing,
    running,
)
from tests.proxy.harness import CLOCK, Answer, Bench, at, gate_to, post, request, url_of

QUICK = Ejection(failures=3, time=0.4, max_time=1.0)
LONG = Ejection(failures=3, time=30.0, max_time=100.0)  # ended by hand
BUSY = answer(b"busy", status=b"503 Service Unavailable")
SHORT = Timeouts(connect=0.3, first_byte=0.3)


def named(name: bytes, *, pause: float = 0.0) -> Behaviour:
    """Answer every request with *name*, after a *pause*."""

    async def behave(connection: Connection) -> None:
        while True:
            await connection.request()
            await asyncio.sleep(pause)
            await connection.send(answer(name))

    return behave


def pool_of(bench: Bench, name: str = "backend") -> Pool:
    return bench.port.pools[name]


def states(bench: Bench) -> list[str]:
    return [one.state for one in pool_of(bench).state().endpoints]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.01)


async def ask(bench: Bench, times: int, target: bytes = b"/") -> list[Answer]:
    """Ask one after the other, by one connection."""
    caller = await bench.caller()
    return [await caller.call(request(target)) for _ in range(times)]


def bodies(answers: Sequence[Answer]) -> set[bytes]:
    assert {one.status for one in answers} == {200}
    return {one.body for one in answers}


# Choice


async def test_with_one_endpoint_nothing_is_chosen() -> None:
    """`take` is the endpoint's own: it costs what it did without a choice."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        pool = pool_of(bench)
        assert pool.take == pool.endpoints[0].take


async def test_all_endpoints_are_used() -> None:
    """One after the other, and all at once."""
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(running(named(b"%d" % number, pause=0.01)))
            for number in range(4)
        ]
        bench = await stack.enter_async_context(gate_to(*found))
        await ask(bench, 60)
        states = [(one.health.state, one.trouble) for one in pool_of(bench).endpoints]
        assert min(len(one.requests) for one in found) >= 3, states
        await asyncio.gather(*[ask(bench, 10) for _ in range(20)])
        counts = [len(one.requests) for one in found]
        assert sum(counts) == 260
        assert max(counts) - min(counts) < 60


async def test_an_endpoint_without_a_connection_has_its_whole_share() -> None:
    """One that has just come is not asked once where others are asked four times."""
    first = 0
    for _ in range(30):
        async with AsyncExitStack() as stack:
            found = [
                await stack.enter_async_context(running(named(b"%d" % number)))
                for number in range(4)
            ]
            bench = await stack.enter_async_context(gate_to(*found))
            await ask(bench, 12)
            first += sum(bool(one.requests) for one in found)
    # Of 120: by chance some 116 are asked within 12 requests, and with a second choice
    # among all, 97. Fewer than 106 are chance once in a hundred thousand runs.
    assert first >= 106


async def test_the_less_busy_one_is_asked() -> None:
    """One that answers slowly has a queue, and is given little."""
    async with (
        running(named(b"slow", pause=0.25)) as slow,
        running(named(b"fast")) as fast,
        gate_to(slow, fast) as bench,
    ):
        await asyncio.gather(*[ask(bench, 25) for _ in range(8)])
        assert len(slow.requests) + len(fast.requests) == 200
        assert len(slow.requests) < 30


# Endpoints that can't be reached


async def test_a_dead_endpoint_costs_nobody_an_answer() -> None:
    """R34: what was not sent is sent to another one; then it is left alone."""
    async with (
        running(named(b"one")) as one,
        running(named(b"two")) as two,
        gate_to(one, two) as bench,
    ):
        assert bodies(await ask(bench, 20)) == {b"one", b"two"}
        await one.stop()
        assert bodies(await ask(bench, 100)) <= {b"two", b"one"}
        await until(lambda: states(bench) == ["unreachable", "up"])
        before = pool_of(bench).retries
        assert bodies(await ask(bench, 50)) == {b"two"}
        assert pool_of(bench).retries == before
        # It is tried by a connection of our own, and comes back by itself.
        await one.start()
        await until(lambda: states(bench) == ["up", "up"])
        assert bodies(await ask(bench, 40)) == {b"one", b"two"}
        posts = [await bench.call(post(b"/", b"x")) for _ in range(40)]
        assert bodies(posts) == {b"one", b"two"}


async def test_a_post_that_was_not_sent_goes_to_another_endpoint() -> None:
    """R34: a refused connection carried nothing, whatever the method."""
    async with (
        running(named(b"one")) as one,
        running(named(b"two")) as two,
        gate_to(one, two) as bench,
    ):
        await one.stop()
        sent = [await bench.call(post(b"/act", b"%d" % n)) for n in range(30)]
        assert bodies(sent) == {b"two"}
        got = [one.body for one in two.requests]
        assert got == [b"%d" % number for number in range(30)]


async def test_who_is_left_alone_is_asked_when_all_others_refuse() -> None:
    """What is merely thought of an endpoint is no reason for a 502."""
    async with (
        running(named(b"one")) as one,
        running(named(b"two")) as two,
        gate_to(one, two) as bench,
    ):
        assert bodies(await ask(bench, 20)) == {b"one", b"two"}
        health = pool_of(bench).endpoints[0].health
        for _ in range(Ejection().failures):
            health.failed(CLOCK.monotonic())
        assert states(bench) == ["ejected", "up"]
        await two.stop()
        # The first of them finds out; the others know.
        assert bodies([await bench.call(post(b"/", b"x"))]) == {b"one"}
        assert bodies(await ask(bench, 20)) == {b"one"}


@pytest.mark.parametrize("is_black", [False, True], ids=["refused", "black hole"])
async def test_a_dead_upstream_is_answered_at_once(*, is_black: bool) -> None:
    """R35: after some that waited, nobody waits; by name, never by address."""
    async with AsyncExitStack() as stack:
        port = stack.enter_context(black_hole()) if is_black else 0
        upstream = at("127.0.0.1", port, name="other", timeout=SHORT)
        name = "other" if is_black else "nowhere"
        bench = await stack.enter_async_context(gate_to(None, more={"other": upstream}))
        found = await asyncio.gather(
            *[bench.call(request(b"/" + name.encode())) for _ in range(LIMIT)]
        )
        loop = asyncio.get_running_loop()
        before = loop.time()
        found += [await bench.call(request(b"/" + name.encode())) for _ in range(20)]
        took = loop.time() - before
    assert {one.status for one in found} == {504 if is_black else 502}
    for one in found:
        assert name.encode() in one.body
        assert b"127.0.0.1" not in one.body
    assert took < 10 * SHORT.connect  # of 20 that each would have waited


@pytest.mark.alone
async def test_a_black_hole_does_no_harm_to_others() -> None:
    """R35, bulkhead: it fills up and says so; others are as fast as before."""
    with black_hole() as port:
        hole = at("127.0.0.1", port, name="other", max_connections=5)
        async with (
            running(echoing) as backend,
            gate_to(backend, more={"other": hole}) as bench,
        ):
            waiting = [await bench.caller() for _ in range(5)]
            for caller in waiting:
                await caller.send(request(b"/other"))
            await until(lambda: pool_of(bench, "other").connecting == 5)
            loop = asyncio.get_running_loop()
            before = loop.time()
            full = [await bench.call(request(b"/other")) for _ in range(20)]
            found = await asyncio.gather(*[ask(bench, 20) for _ in range(10)])
            took = loop.time() - before
            state = pool_of(bench, "other").state()
    assert {one.status for one in full} == {503}
    assert all(one.values(b"retry-after") == [b"1"] for one in full)
    assert all(len(bodies(one)) == 1 for one in found)
    assert took < 1.0
    assert (state.full, state.in_flight, state.max_connections) == (20, 5, 5)


async def test_an_endpoint_that_refuses_may_still_answer_on_what_is_open() -> None:
    """A full accept queue is no reason to leave its warm connections alone."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        assert (await caller.call(request())).status == 200
        for _ in range(LIMIT):
            pool_of(bench).endpoints[0].health.not_connected(CLOCK.monotonic() + 60)
        assert states(bench) == ["unreachable"]
        assert (await caller.call(request())).status == 200
        await caller.send(request(b"/wait/x"))
        assert (await caller.answer()).status == 200
        assert len(backend.connections) == 1


# Endpoints that fail


async def test_an_endpoint_that_is_busy_is_left_alone() -> None:
    """It is ejected, tried with one request, and ejected for longer."""
    is_well = False

    async def sick(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(answer(b"well") if is_well else BUSY)

    async with (
        running(sick) as one,
        running(named(b"two")) as two,
        gate_to(one, two, ejection=LONG, panic_threshold=0) as bench,
    ):
        health = pool_of(bench).endpoints[0].health
        found = await ask(bench, 60)
        assert Counter(each.status for each in found) == {503: 3, 200: 57}
        assert states(bench) == ["ejected", "up"]
        first = pool_of(bench).state().endpoints[0].ejected_for
        assert 0 < first <= LONG.time
        health.end_ejection(CLOCK.monotonic())
        assert states(bench) == ["trial", "up"]
        found = await ask(bench, 60)
        assert Counter(each.status for each in found) == {503: 1, 200: 59}
        again = pool_of(bench).state().endpoints[0].ejected_for
        assert LONG.time < again <= 2 * LONG.time
        is_well = True
        health.end_ejection(CLOCK.monotonic())
        assert {each.status for each in await ask(bench, 60)} == {200}
        assert states(bench) == ["up", "up"]


async def test_an_ejection_ends_by_itself() -> None:
    """After its time, and not before."""
    async with (
        running(backends.saying(BUSY)) as one,
        running(named(b"two")) as two,
        gate_to(one, two, ejection=QUICK, panic_threshold=0) as bench,
    ):
        health, begun = pool_of(bench).endpoints[0].health, CLOCK.monotonic()
        for _ in range(QUICK.failures):
            health.failed(CLOCK.monotonic())
        assert states(bench) == ["ejected", "up"]
        await until(lambda: states(bench)[0] == "trial")
        assert CLOCK.monotonic() - begun >= QUICK.time


async def test_on_trial_it_has_one_request_at_a_time() -> None:
    """So that one that still hangs takes few along."""
    async with (
        running(backends.silent) as one,
        running(named(b"two")) as two,
        gate_to(one, two) as bench,
    ):
        health = pool_of(bench).endpoints[0].health
        health.end_ejection(CLOCK.monotonic())
        callers = [await bench.caller() for _ in range(20)]
        for caller in callers:
            await caller.send(request())
        await until(lambda: len(bench.entries) >= 19)
        assert len(one.connections) <= 1


async def test_an_endpoint_that_hangs_is_left_alone() -> None:
    """Late answers count; the ones that could be had are had."""
    async with (
        running(backends.silent) as one,
        running(named(b"two")) as two,
        gate_to(one, two, timeouts=SHORT, ejection=QUICK) as bench,
    ):
        found = await asyncio.gather(*[ask(bench, 4) for _ in range(10)])
        counts = Counter(each.status for each in itertools.chain(*found))
        assert set(counts) == {200, 504}
        assert counts[504] <= 10
        assert states(bench) == ["ejected", "up"]
        assert bodies(await ask(bench, 20)) == {b"two"}


async def test_an_endpoint_that_breaks_off_is_left_alone() -> None:
    """It accepts, reads and resets: a crash for each request."""

    async def crashing(connection: Connection) -> None:
        await connection.head()
        connection.reset()

    async with (
        running(crashing) as one,
        running(named(b"two")) as two,
        gate_to(one, two, ejection=QUICK) as bench,
    ):
        found = await ask(bench, 60)
        assert Counter(each.status for each in found)[502] == 3
        assert states(bench) == ["ejected", "up"]


async def test_a_page_that_is_broken_ejects_nobody() -> None:
    """500 is about one request, and whoever asks for it often must not do harm."""
    broken = answer(b"oops", status=b"500 Internal Server Error")
    async with (
        running(backends.saying(broken)) as one,
        running(backends.saying(broken)) as two,
        gate_to(one, two, ejection=QUICK) as bench,
    ):
        assert {each.status for each in await ask(bench, 30)} == {500}
        assert states(bench) == ["up", "up"]


async def test_an_answer_whose_head_is_known_ends_a_row_of_failures() -> None:
    """It is not read again, and counts all the same."""
    async with (
        running(named(b"one")) as one,
        running(named(b"one")) as two,
        gate_to(one, two) as bench,
    ):
        await ask(bench, 20)
        pool = pool_of(bench)
        assert pool.known_answers
        for endpoint in pool.endpoints:
            for _ in range(4):
                endpoint.health.failed(CLOCK.monotonic())
        await ask(bench, 20)
        assert [each.health.failures for each in pool.endpoints] == [0, 0]


async def test_a_slow_client_is_not_the_endpoints_failure() -> None:
    """Its body does not come, and nothing is counted."""
    times = Timeouts(total=0.3)
    async with (
        running(backends.silent) as one,
        running(backends.silent) as two,
        gate_to(one, two, timeouts=times, ejection=QUICK) as bench,
    ):
        for _ in range(4):
            caller = await bench.caller()
            await caller.send(post(b"/", b"a")[:-1])
            assert (await caller.answer()).status == 504
        assert [each.failures for each in pool_of(bench).state().endpoints] == [0, 0]


async def test_never_all_are_ejected() -> None:
    """All of them fail: all of them are asked, as before."""
    async with (
        running(backends.saying(BUSY)) as one,
        running(backends.saying(BUSY)) as two,
        gate_to(one, two, ejection=QUICK, panic_threshold=0) as bench,
    ):
        found = await ask(bench, 60)
        assert {each.body for each in found} == {b"busy"}
        assert pool_of(bench).state().panic
        before = len(one.requests), len(two.requests)
        await ask(bench, 40)
        assert len(one.requests) > before[0]
        assert len(two.requests) > before[1]


@pytest.mark.parametrize(("threshold", "panic"), [(0, False), (50, True), (30, False)])
async def test_panic_has_a_threshold(threshold: int, *, panic: bool) -> None:
    """Where one of three is left, it would be the next to go."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(running(echoing)) for _ in range(3)]
        bench = await stack.enter_async_context(
            gate_to(*found, panic_threshold=threshold)
        )
        pool = pool_of(bench)
        for endpoint in pool.endpoints[:2]:
            for _ in range(5):
                endpoint.health.failed(CLOCK.monotonic())
        assert pool.state().panic is panic
        await ask(bench, 60)
        used = [bool(one.requests) for one in found]
        assert used == [panic, panic, True]


async def test_what_cannot_be_reached_is_asked_by_nobody_in_panic() -> None:
    """One is dead, one is ejected: the threshold is one of those that there are."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(running(echoing)) for _ in range(3)]
        bench = await stack.enter_async_context(gate_to(*found, panic_threshold=60))
        dead, sick, _ = pool_of(bench).endpoints
        for _ in range(5):
            dead.health.not_connected(CLOCK.monotonic() + 60)
            sick.health.failed(CLOCK.monotonic())
        assert pool_of(bench).state().panic
        await ask(bench, 40)
        assert [bool(one.requests) for one in found] == [False, True, True]


# Once more, and no more than that (R34)


async def test_what_ended_on_a_reused_connection_goes_to_whoever_is_there() -> None:
    """The one that was killed is not needed for it."""

    async def dying(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer(b"one"))
        await connection.head()
        await connection.backend.close()  # nobody listens any more
        connection.reset()

    async with (
        running(dying) as one,
        running(named(b"two")) as two,
        gate_to(one, two) as bench,
    ):
        assert bodies(await ask(bench, 30)) <= {b"one", b"two"}
        assert len(two.requests) >= 1


async def test_what_ended_on_a_reused_connection_goes_to_another_endpoint() -> None:
    """One that dies still takes connections for a moment, and answers nobody."""
    is_dying = False

    async def dying(connection: Connection) -> None:
        while True:
            await connection.head()
            if is_dying:
                connection.reset()
                return
            await connection.send(answer(b"one"))

    async with (
        running(dying) as one,
        running(named(b"two")) as two,
        gate_to(one, two, ejection=LONG) as bench,
    ):
        for _ in range(8):
            is_dying = False
            while bodies(await ask(bench, 10)) != {b"one", b"two"}:
                pass
            is_dying = True
            assert bodies(await ask(bench, 1)) == {b"two"}


class Ledger:
    """Backends that close connections when they like, and count what they did."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.done: Counter[bytes] = Counter()

    async def moody(self, connection: Connection) -> None:
        closing = asyncio.get_running_loop().create_task(self._close(connection))
        try:
            while True:
                got = await connection.request()
                self.done[got.method + got.target] += 1
                await connection.send(answer(got.target))
                if self.random.random() < 0.2:
                    return
        finally:
            closing.cancel()

    async def _close(self, connection: Connection) -> None:
        """Close it between two requests, at a moment of its own."""
        while True:
            await asyncio.sleep(self.random.random() * 0.02)
            if not connection.is_busy:
                connection.writer.close()
                return


@pytest.mark.parametrize("count", [1, 3])
async def test_random_closes_lose_nothing_and_repeat_nothing(count: int) -> None:
    """R34: no 502 on GET, and exactly one execution of each POST."""
    ledger = Ledger(count)

    async def reads(bench: Bench, who: int) -> None:
        caller = await bench.caller()
        for number in range(40):
            got = await caller.call(request(b"/get/%d/%d" % (who, number)))
            assert got.status == 200
            await asyncio.sleep(ledger.random.random() * 0.005)

    async def acts(bench: Bench, who: int) -> None:
        caller = await bench.caller()
        for number in range(40):
            target = b"/act/%d/%d" % (who, number)
            got = await caller.call(post(target, b"x" * (number % 3)))
            assert (got.status, got.body) == (200, target)
            await asyncio.sleep(ledger.random.random() * 0.005)

    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(running(ledger.moody)) for _ in range(count)
        ]
        bench = await stack.enter_async_context(gate_to(*found))
        await asyncio.gather(*[reads(bench, 10 + who) for who in range(6)])
        work = [each(bench, who) for who in range(6) for each in (reads, acts)]
        await asyncio.gather(*work)

    assert sum(what.startswith(b"GET/get/1") for what in ledger.done) >= 240
    posts = {what: n for what, n in ledger.done.items() if what.startswith(b"POST")}
    assert len(posts) == 240
    assert set(posts.values()) == {1}
    assert sum(len(one.connections) for one in found) > 50


async def test_an_end_that_has_come_is_seen_in_time() -> None:
    """What can't be sent twice is not sent where the system knows of an end."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        await asyncio.gather(*[ask(bench, 1, b"/wait/x") for _ in range(2)])
        pool, now = pool_of(bench), CLOCK.monotonic()
        count = len(pool.connections)
        for one in backend.connections:
            own = one.writer.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(own)) as sock:
                sock.shutdown(socket.SHUT_WR)
        # The loop has not turned since: to whom it may be said twice, it is good.
        last = pool.take(now)
        assert last is not None
        pool.give(last, now)
        assert pool.take_sure(now) is None
        assert not pool.endpoints[0].is_steady(now)
        assert pool.endpoints[0].is_steady(now + 61)
        assert count >= 1


async def test_an_endpoint_that_ends_idle_connections_gets_new_ones() -> None:
    """For what can't be sent twice, and for a minute; the rest goes on as before."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        await ask(bench, 3)
        backend.connections[0].writer.close()
        await until(lambda: not pool_of(bench).connections)
        caller = await bench.caller()
        for _ in range(3):
            assert (await caller.call(post(b"/", b"x"))).status == 200
            assert (await caller.call(request())).status == 200
        assert len(backend.connections) == 4


async def test_three_endpoints_are_tried_and_no_more() -> None:
    """Each may take timeout.connect, and a client waits."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(running(echoing)) for _ in range(5)]
        bench = await stack.enter_async_context(gate_to(*found))
        for one in found:
            await one.stop()
        assert (await bench.call(request())).status == 502
        state = pool_of(bench).state()
        assert sum(one.connect_failures for one in state.endpoints) == 3
        assert max(one.connect_failures for one in state.endpoints) == 1
        assert state.retries == 2


# Room


async def test_an_idle_connection_gives_way() -> None:
    """The bound is on requests in flight: what nobody uses is in nobody's way."""
    async with (
        running(named(b"one", pause=0.05)) as one,
        running(named(b"two", pause=0.05)) as two,
        gate_to(one, two, max_connections=2) as bench,
    ):
        pool = pool_of(bench)
        for asked, other in ((0, 1), (1, 0)):
            health = pool.endpoints[other].health
            for _ in range(5):
                health.failed(CLOCK.monotonic())
            pool.endpoints[asked].health.end_ejection(CLOCK.monotonic())
            pool.endpoints[asked].health.answered()
            await asyncio.gather(ask(bench, 2), ask(bench, 2))
            assert [e.idle for e in pool.endpoints] == [2 - 2 * asked, 2 * asked]
        assert pool.state().full == 0
        assert len(pool.connections) == 2
        assert (len(one.requests), len(two.requests)) == (4, 4)


async def test_of_several_endpoints_too_one_more_is_503() -> None:
    """R35: as many as there may be in all."""
    async with (
        running(backends.silent) as one,
        running(backends.silent) as two,
        gate_to(one, two, max_connections=3) as bench,
    ):
        callers = [await bench.caller() for _ in range(3)]
        for caller in callers:
            await caller.send(request())
        await until(lambda: len(pool_of(bench).connections) == 3)
        got = await bench.call(request())
        assert got.status == 503
        callers[0].close()
        await until(lambda: len(pool_of(bench).connections) == 2)
        caller = await bench.caller()
        await caller.send(request())
        await until(lambda: len(pool_of(bench).connections) == 3)


# Names


class Names:
    """A name service that says what it is told to."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0
        self.ttl: float | None = None
        self.wait: Awaitable[object] | None = None

    async def __call__(self, host: str, port: int) -> Found:
        self.asked += 1
        if self.wait is not None:
            await self.wait
        if not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "the name service is away")
        return Found(self.addresses, self.ttl)


async def test_a_name_is_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an endpoint; one that refuses is found out."""
    names = Names("127.0.0.2", "127.0.0.1")
    async with (
        running(echoing) as backend,
        gate_to(
            backend, urls=_by_name(backend), resolve=names, resolve_every=60
        ) as bench,
    ):
        assert (await bench.call(request())).status == 200
        found = [one.address for one in pool_of(bench).state().endpoints]
        assert found == [f"127.0.0.1:{backend.port}", f"127.0.0.2:{backend.port}"]
        assert {one.status for one in await ask(bench, 30)} == {200}
        assert names.asked == 1


async def test_a_name_that_moves_is_followed() -> None:
    """New addresses are used, and what is in flight at the old ones ends there."""
    names = Names("127.0.0.1")
    slow = named(b"slow", pause=0.3)
    async with (
        running(slow) as old,
        gate_to(
            old, urls=_by_name(old), resolve=names, resolve_every=0.05, keep_alive=60.0
        ) as bench,
    ):
        new = Backend(named(b"new"))
        new.host, new.port = "127.0.0.2", old.port
        await new.start()
        caller, other = await bench.caller(), await bench.caller()
        assert (await caller.call(request())).body == b"slow"
        await caller.send(request())
        await until(lambda: len(old.requests) == 2 or bool(old.connections[0].raw))
        names.addresses = ("127.0.0.2",)
        await until(lambda: len(states(bench)) == 1 and names.asked > 2)
        await until(
            lambda: pool_of(bench).state().endpoints[0].address.startswith("127.0.0.2")
        )
        assert (await other.call(request())).body == b"new"
        assert (await caller.answer()).body == b"slow"
        await until(lambda: all(one.ended for one in old.connections))
        assert (await caller.call(request())).body == b"new"
        await new.stop()


async def test_while_names_are_not_found_the_old_addresses_stay() -> None:
    """A name service that is away takes nobody along."""
    names = Names("127.0.0.1")
    async with (
        running(echoing) as backend,
        gate_to(
            backend, urls=_by_name(backend), resolve=names, resolve_every=0.05
        ) as bench,
    ):
        assert (await bench.call(request())).status == 200
        names.addresses = ()
        await until(lambda: pool_of(bench).state().failed_lookups > 1)
        assert {one.status for one in await ask(bench, 10)} == {200}
        names.addresses = ("127.0.0.1",)
        asked = names.asked
        await until(lambda: names.asked > asked)
        assert len(backend.connections) == 1


async def test_a_name_that_was_never_found_is_502_at_once() -> None:
    """By name; and it is looked up again all the same."""
    names = Names()
    async with (
        running(echoing) as backend,
        gate_to(
            backend, urls=_by_name(backend), resolve=names, resolve_every=0.05
        ) as bench,
    ):
        got = await bench.call(request())
        assert got.status == 502
        assert b"backend" in got.body
        assert b"orders.internal" not in got.body
        names.addresses = ("127.0.0.1",)
        await until(lambda: len(states(bench)) == 1)
        assert (await bench.call(request())).status == 200


async def test_a_name_service_that_hangs_is_asked_once() -> None:
    """Requests wait for timeout.connect, and pile nothing up."""
    names = Names("127.0.0.1")
    names.wait = asyncio.Event().wait()
    async with (
        running(echoing) as backend,
        gate_to(
            backend, urls=_by_name(backend), resolve=names, timeouts=SHORT
        ) as bench,
    ):
        found = await asyncio.gather(*[bench.call(request()) for _ in range(5)])
        assert {one.status for one in found} == {504}
        assert names.asked == 1
        assert len(bench.tasks) == 1


@pytest.mark.parametrize(
    ("ttl", "pause"), [(0, 1), (20, 20), (3600, 300), (None, 10)], ids=str
)
async def test_a_name_is_looked_up_when_its_ttl_has_passed(
    ttl: float | None, pause: float
) -> None:
    """Not before a second, not after `resolve_every`; 10 s where nobody tells."""
    names = Names("127.0.0.1")
    names.ttl = ttl
    async with (
        running(echoing) as backend,
        gate_to(backend, urls=_by_name(backend), resolve=names) as bench,
    ):
        assert (await bench.call(request())).status == 200
        (name,) = pool_of(bench)._names.values()
        wait = name.look_at - CLOCK.monotonic()
        assert pause - 1 < wait <= pause


async def test_two_urls_of_the_same_place_are_one_endpoint() -> None:
    """It would have two health states otherwise."""
    names = Names("127.0.0.1")
    async with running(echoing) as backend:
        urls = (url_of(backend), *_by_name(backend))
        async with gate_to(backend, urls=urls, resolve=names) as bench:
            await until(lambda: names.asked == 1)
            assert (await bench.call(request())).status == 200
            assert len(states(bench)) == 1


def _by_name(backend: Backend) -> tuple[UpstreamUrl, ...]:
    address = Address("orders.internal", backend.port)
    return (UpstreamUrl(address, "orders.internal"),)


# What holds for all


async def test_the_host_is_what_the_upstream_says() -> None:
    """The client's, the URL's, or a name."""
    async with running(echoing) as backend:
        port = b"%d" % backend.port
        for said, received in (
            ("client", b"shop.example"),
            ("upstream", b"127.0.0.1:" + port),
            ("orders.internal:81", b"orders.internal:81"),
        ):
            async with gate_to(backend, host=said) as bench:
                assert (await bench.call(request())).status == 200
                assert backend.requests[-1].value(b"host") == received


@pytest.mark.alone
async def test_the_time_to_connect_has_a_bound() -> None:
    """timeout.connect, for each endpoint that is tried; 504."""
    with black_hole() as port:
        async with gate_to(
            None, more={"other": at("127.0.0.1", port, name="other", timeout=SHORT)}
        ) as bench:
            loop = asyncio.get_running_loop()
            before = loop.time()
            got = await bench.call(request(b"/other"))
            took = loop.time() - before
    assert got.status == 504
    assert 0.25 < took < 1.0
    assert bench.entries[0].reason == "upstream.timed_out"


@pytest.mark.alone
async def test_to_connect_is_a_part_of_the_total_time() -> None:
    """A second attempt does not begin it anew (R35)."""
    with black_hole() as port:
        hole = UpstreamUrl(Address("127.0.0.1", port), "hole")
        times = Timeouts(connect=0.6, total=0.8)
        async with running(backends.silent) as backend:
            urls = (hole, url_of(backend))
            async with gate_to(backend, urls=urls, timeouts=times) as bench:
                # By the hole, whichever one chance would have asked.
                bench.port.pools["backend"].endpoints[1].connecting += 1
                loop = asyncio.get_running_loop()
                before = loop.time()
                got = await bench.call(request())
                took = loop.time() - before
    assert got.status == 504
    assert 0.7 < took < 1.3


async def test_how_an_upstream_is_can_be_seen() -> None:
    """All of it, without asking anybody."""
    async with (
        running(echoing) as one,
        running(backends.silent) as two,
        gate_to(one, two) as bench,
    ):
        pool = pool_of(bench)
        two_is_busy = await bench.caller()
        pool.endpoints[0].connecting += 1  # so that the other one is asked
        await two_is_busy.send(request())
        await until(lambda: len(two.connections) == 1)
        pool.endpoints[0].connecting -= 1
        await ask(bench, 3)
        (_, state) = bench.port.upstream_states()
        assert state.name == "backend"
        assert (state.in_flight, state.idle, state.full) == (1, 1, 0)
        first, second = state.endpoints
        assert (first.address, first.state) == (f"127.0.0.1:{one.port}", "up")
        assert (first.requests, first.connections, first.in_flight) == (3, 1, 0)
        assert (second.requests, second.in_flight, second.idle) == (1, 1, 0)
        assert (first.ejected_for, first.ejections, first.failures) == (0, 0, 0)
        assert (first.connect_failures, first.failed_checks) == (0, 0)


async def test_requests_are_counted_beyond_their_connections() -> None:
    """What connections that are no more have served, was served."""
    closing = answer(b"ok", fields=b"connection: close\r\n")
    async with (
        running(backends.saying(closing, close=True)) as backend,
        gate_to(backend) as bench,
    ):
        await ask(bench, 5)
        await until(lambda: not pool_of(bench).connections)
        assert pool_of(bench).state().endpoints[0].requests == 5


async def test_an_aborted_pool_keeps_nothing() -> None:
    """Nor does who was still connecting bring it anything."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        await ask(bench, 1)
        pool = pool_of(bench)
        assert pool.connections
        pool.abort()
        connection = await pool.connect()
        pool.give(connection, CLOCK.monotonic())
        assert connection.transport.is_closing()
        await until(lambda: not (pool.connections or pool.connecting))


async def _fail_in_every_way() -> None:
    """Ask an upstream of which each endpoint fails otherwise, until all is over."""

    async def crashing(connection: Connection) -> None:
        await connection.head()
        connection.reset()

    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(running(each))
            for each in (echoing, backends.silent, crashing, backends.saying(BUSY))
        ]
        port = stack.enter_context(black_hole())
        urls = (
            *map(url_of, found),
            UpstreamUrl(Address("127.0.0.1", port), "hole"),
            UpstreamUrl(Address("moving.internal", found[0].port), "moving"),
        )
        other = Upstream(
            "other", urls, timeout=SHORT, ejection=QUICK, resolve_every=0.05
        )
        names = Names("127.0.0.1", "127.0.0.3")
        bench = await stack.enter_async_context(
            gate_to(None, resolve=names, more={"other": other})
        )
        for turn in range(4):
            names.addresses = (f"127.0.0.{3 + turn % 2}", "127.0.0.1")[: turn % 3]
            await asyncio.gather(*[ask(bench, 3, b"/other") for _ in range(10)])
        await bench.settled(120)
        pool = pool_of(bench, "other")
        assert pool.state().in_flight <= 2  # of trials
        await bench.port.close(0)
        await until(lambda: not (pool.connections or pool.connecting))
        await until(lambda: not bench.tasks)


async def test_nothing_is_left_behind() -> None:
    """Connections, tasks, descriptors: after twice as many as after once."""
    counts = []
    for _ in range(2):
        await _fail_in_every_way()
        await asyncio.sleep(0.05)
        gc.collect()  # also what earlier tests left
        descriptors = list(Path("/proc/self/fd").iterdir())
        counts.append((len(descriptors), len(asyncio.all_tasks())))
    assert counts[0] == counts[1]

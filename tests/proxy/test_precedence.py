"""Who goes first; and whoever had to wait is taken as if he had not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.config.settings import Server
from gateway.observe.metrics import CONNECTIONS
from gateway.proxy import precedence
from gateway.proxy.front import LINGER_BYTES, Front
from gateway.proxy.precedence import PATIENCE, SHARE, Precedence
from tests.backends import echoing, running
from tests.proxy import test_front, test_wire_invariants
from tests.proxy.harness import Bench, Caller, gate_to, once_more, post, request

DEAR = 2 * SHARE  # seconds that one of them takes


class Loop:
    """Tells the time, and who was seen to in which turn of the loop."""

    def __init__(self) -> None:
        self.now = 100.0
        self.turn = 0
        self.seen: list[tuple[int, str]] = []
        later = asyncio.get_running_loop().call_soon
        self.precedence = Precedence(lambda: self.now, later)

    def come(self, name: str, cost: float = DEAR) -> None:
        """Ask for a request's turn, and take it if it has come."""

        def work() -> None:
            self.seen.append((self.turn, name))
            self.now += cost

        if self.precedence.take(work, self.now):
            work()

    async def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn += 1
            await asyncio.sleep(0)


async def test_the_first_is_seen_to_at_once_and_the_others_one_by_one() -> None:
    """In their order; and between two of them the loop looks who has come."""
    loop = Loop()
    for name in "abc":
        loop.come(name)
    assert loop.seen == [(0, "a")]
    await loop.turns(4)

    assert [name for _, name in loop.seen] == ["a", "b", "c"]
    turns = [turn for turn, _ in loop.seen]
    assert len(set(turns)) == 3

    loop.come("d")
    assert loop.seen[-1] == (loop.turn, "d")


async def test_what_takes_little_shares_a_turn() -> None:
    """A byte of a head that drips costs hardly more than to look for the next."""
    loop = Loop()
    for number in range(8):
        loop.come(str(number), SHARE / 4)
    assert len(loop.seen) == 4
    await loop.turns(2)
    assert len(loop.seen) == 8


async def test_nobody_overtakes_who_waits() -> None:
    """Though there were time left for one that comes later."""
    loop = Loop()
    for name in "abc":
        loop.come(name)
    await loop.turns(2)
    assert [name for _, name in loop.seen] == ["a", "b"]
    loop.come("d", 0)
    await loop.turns(4)
    assert [name for _, name in loop.seen] == ["a", "b", "c", "d"]


async def test_who_has_waited_gets_as_much_as_the_others_took() -> None:
    """A loop that is busy with who is known does not starve who is not."""
    loop = Loop()
    for number in range(1000):
        loop.come(str(number))
    await loop.turns(1)
    begun = len(loop.seen)
    for _ in range(4):
        loop.now += 2 * PATIENCE  # what is known takes
        await loop.turns(1)
    assert len(loop.seen) - begun == pytest.approx(4 * 2 * PATIENCE / DEAR, abs=4)


class Door:
    """Lets nobody go on until it opens."""

    def __init__(self) -> None:
        self.waiting: list[Front] = []

    def take(self, work: Callable[[], None], _now: float) -> bool:
        front = getattr(work, "__self__", None)
        if not isinstance(front, Front):
            return True  # what the port does by itself
        self.waiting.append(front)
        return False

    def open(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.go_on()

    async def has(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.waiting) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    """Stands in the way of whatever has to be read."""
    made = Door()
    monkeypatch.setattr(Precedence, "take", made.take)
    return made


async def told(bench: Bench, door: Door, data: bytes) -> Caller:
    """Return a caller whose request waits."""
    caller = await bench.caller()
    await caller.send(data)
    await door.has(len(door.waiting) + 1)
    return caller


async def test_who_is_known_passes_who_waits(door: Door) -> None:
    """On a connection of its own, and on the same again."""
    known = request(b"/known", b"X-Known: 1\r\n")
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await told(bench, door, known)
        door.open()
        assert (await caller.answer()).status == 200
        late = await told(bench, door, request(b"/late"))
        waiting = [(CONNECTIONS, ("waiting",), 1), (CONNECTIONS, ("idle",), 1)]
        assert [each for each in bench.port.measure() if each in waiting] == waiting

        assert (await caller.call(known)).status == 200
        assert (await bench.call(known)).status == 200
        assert [head.path for head in bench.decision.heads] == [b"/known"] * 3

        await asyncio.sleep(0.1)
        door.open()
        assert (await late.answer()).status == 200
        assert bench.decision.heads[-1].path == b"/late"
        # Its time counts from when it had come, not from when it was seen to.
        assert bench.entries[-1].ms >= 100


async def test_what_comes_meanwhile_comes_behind(door: Door) -> None:
    """And no more of it than one read: then the client is not read from."""
    body = b"x" * 2 * LINGER_BYTES
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await told(bench, door, post(b"/", body[:10])[:-1])
        (front,) = door.waiting
        await caller.send(body[9:10])
        async with asyncio.timeout(5):
            while front.transport.is_reading():
                await asyncio.sleep(0.005)
        assert len(door.waiting) == 1
        door.open()
        assert (await caller.answer()).body.endswith(b" " + body[:10])

        caller = await bench.caller()
        caller.writer.write(post(b"/", body))
        await door.has(1)
        (front,) = door.waiting
        async with asyncio.timeout(5):
            while front.transport.is_reading():
                await asyncio.sleep(0.005)
        assert len(front._postponed) <= LINGER_BYTES
        door.open()
        assert (await caller.answer()).body.endswith(b" " + body)


async def test_who_went_away_is_not_taken(door: Door) -> None:
    """Nothing is decided for nobody (R32); and what had come is in the log."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        for data in (request(b"/a") + request(b"/b"), b"GET /c HTTP/9.9\r\n\r\n"):
            caller = await told(bench, door, data)
            caller.close()
            async with asyncio.timeout(5):
                while bench.port.fronts:
                    await asyncio.sleep(0.005)
            door.open()
        assert bench.decision.heads == []
        logged = [(each.path, each.reason, each.status) for each in bench.entries]
        assert logged == [(path, "client.gone", None) for path in ("/a", "/b", "/c")]


async def test_who_waits_is_answered_though_the_port_closes(door: Door) -> None:
    """Its request was on its way before (R101)."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await told(bench, door, request())
        closing = asyncio.ensure_future(bench.port.close(5))
        await asyncio.sleep(0.05)
        door.open()
        answer = await caller.answer()
        assert (answer.status, answer.values(b"connection")) == (200, [b"close"])
        await closing


async def test_who_waits_too_long_is_let_go(door: Door) -> None:
    """R5: also from a loop that never comes to it."""
    server = Server(header_timeout=0.3, idle_timeout=60)
    async with running(echoing) as backend, gate_to(backend, server=server) as bench:
        caller = await told(bench, door, request())
        (front,) = door.waiting
        async with asyncio.timeout(5):
            assert (await caller.answer()).status == 408
            assert await caller.rest() == b""
            caller.close()
            while bench.port.fronts:
                await asyncio.sleep(0.005)
        door.open()
        assert front._parser is None, "it would be garbage for Python to find"
        assert bench.decision.heads == []
        assert [each.reason for each in bench.entries] == ["request.timeout:head"]


async def test_a_mistake_ends_one_connection(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits behind it goes on."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        first = await told(bench, door, request())
        second = await told(bench, door, request())
        read = Front._take_unknown

        def failing(_front: Front, _data: bytes) -> None:
            monkeypatch.setattr(Front, "_take_unknown", read)
            raise RuntimeError("a mistake")

        monkeypatch.setattr(Front, "_take_unknown", failing)
        door.open()
        assert (await second.answer()).status == 200
        assert await first.rest() == b""
        (record,) = caplog.records
        assert record.getMessage() == "a request could not be read"


# --- whatever waits is read as it is without ------------------------------------------


@pytest.fixture(autouse=True)
def always_later(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let whatever has to be read wait for two turns of the loop, in others' tests."""
    if request.function.__module__ == __name__:
        return

    def later(_self: Precedence, work: Callable[[], None], _now: float) -> bool:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, work)
        return False

    monkeypatch.setattr(precedence.Precedence, "take", later)


for _module in (test_front, test_wire_invariants):
    globals().update(once_more(_module))

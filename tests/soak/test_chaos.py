"""R31, R34, R101 among troubles: what could be answered is, and nothing leaks.

A seeded script of troubles runs under a steady load; every call and every trouble is
noted, and at the end each call is judged. One is as it should be when

- a GET or a POST has 200 and the very content that belongs to it, from an endpoint of
  its service; a stream all its pieces; a WebSocket an echo of each message;
- a POST that has 200 was executed exactly once; any other at most once.

Any other end has to be excused by one trouble, which it overlaps in time:

    killed      the endpoint got it as the first of a new connection, or it is a POST:
                502, at the moment of the kill only. Of a GET on a kept connection
                nothing is excused: it is sent again (R34). What had begun may be cut.
    stalled     504, and no other endpoint has got it; at most as many as eject it, as
                were on their way by then, and one for each trial
    failing     500, from that endpoint
    overloaded  503, from that endpoint, and no more than eject it and were on their way
    moody       a POST whose connection was closed while it went out: 502
    worker      its connection was one of the killed worker's: it is cut

Nothing excuses a call to `calm` or `moved` but a killed worker: the old place of a name
serves until no call goes there, which is soon after its TTL has passed. Nobody waits
for longer than PATIENCE, and once an endpoint is well again it gets calls again.

One thing is no trouble of ours: the store has 150 ms to answer (R60), and on a machine
that has no time it can be late. Such a call is refused with 503 before any endpoint
hears of it; in the long form STORE_LATE of a thousand calls may be.

Then the callers go, and each worker is back to what it held after the first calls:
descriptors of each kind, tasks, threads; its memory within GROWTH.

GATEWAY_SOAK=full troubles it for ten minutes; GATEWAY_SOAK_TIME changes how long
(seconds), GATEWAY_SOAK_SEED the script.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.fleet import children, until
from tests.name_server import NO_ERROR, NO_SUCH_NAME, SERVER_FAILURE
from tests.redis_server import RedisServer
from tests.soak.chaos import (
    EJECTION,
    LIVES,
    LOOKUP,
    NAME,
    PATIENCE,
    TTL,
    Callers,
    Held,
    Outcome,
    Process,
    World,
    at_rest,
    clients_of,
    is_stopped,
    world,
)
from tests.soak.running import FULL, needs_proc, report

pytestmark = [needs_proc, pytest.mark.alone]

MIB = 1 << 20
SEED = int(os.environ.get("GATEWAY_SOAK_SEED", "1"))
SECONDS = float(os.environ.get("GATEWAY_SOAK_TIME") or (600 if FULL else 0))
WARM = 10.0 if FULL else 1.5  # seconds
GROWTH = (24 if FULL else 12) * MIB  # of a worker that has met everything
STORE_LATE = 20.0
NOTICED = 2.0  # seconds until a client that sleeps has seen that it was cut
UP = "gateway_upstream_endpoints:up"
# Calls to `pair` that may be on their way to one endpoint when it is ejected.
ON_THEIR_WAY = 11


@dataclass
class Trouble:
    """Something that was done to the world."""

    kind: str
    who: str = ""  # endpoint, or worker
    begun: float = 0.0
    ended: float = 0.0
    ports: frozenset[int] = frozenset()  # of the clients of a worker

    def overlaps(self, one: Outcome) -> bool:
        return one.begun <= self.ended and one.ended >= self.begun


@dataclass
class Script:
    """Makes the troubles, one after another."""

    world: World
    chance: random.Random
    up: float  # endpoints, when all are
    done: list[Trouble] = field(default_factory=list)

    def _note(self, kind: str, who: str = "") -> Trouble:
        trouble = Trouble(kind, who, time.monotonic(), time.monotonic())
        self.done.append(trouble)
        return trouble

    async def _while(self, trouble: Trouble, longest: float) -> None:
        await asyncio.sleep((0.6 + 0.4 * self.chance.random()) * longest)
        trouble.ended = time.monotonic()

    def _some(self) -> Process:
        return self.chance.choice(self.world.pair)

    async def killed(self) -> None:
        some = self._some()
        trouble = self._note("killed", some.name)
        await some.kill()
        trouble.ended = time.monotonic()
        await asyncio.sleep(self.chance.random() * 1.5)
        await some.start()

    async def _all_up(self) -> None:
        """Wait until no endpoint is thought ill of: of two, nobody is to spare."""
        async with asyncio.timeout(PATIENCE):
            while (await self.world.metrics())[UP] != self.up:
                await asyncio.sleep(0.1)

    async def stalled(self) -> None:
        await self._all_up()
        some = self._some()
        trouble = self._note("stalled", some.name)
        some.send(signal.SIGSTOP)
        await self._while(trouble, 2.0)
        some.send(signal.SIGCONT)

    async def _behaving(self, mode: str, longest: float) -> None:
        some = self._some()
        trouble = self._note(mode, some.name)
        some.be(mode)
        await self._while(trouble, longest)
        some.be("well")
        # What it has begun to answer by then, and when it hears of it.
        trouble.ended += 0.5

    async def failing(self) -> None:
        await self._behaving("failing", 1.0)

    async def overloaded(self) -> None:
        await self._all_up()
        await self._behaving("overloaded", 1.5)

    async def moody(self) -> None:
        await self._behaving("moody", 1.5)

    async def worker(self) -> None:
        node = self.world.node
        before = set(children(node.pid))
        one = self.chance.choice(sorted(before))
        trouble = self._note("worker", str(one))
        os.kill(one, signal.SIGSTOP)  # so that it takes no more of them meanwhile
        await until(lambda: is_stopped(one))
        trouble.ports = clients_of(one, node.port)
        os.kill(one, signal.SIGKILL)

        def is_replaced() -> bool:
            now = set(children(node.pid))
            return one not in now and len(now) == len(before)

        await until(is_replaced)
        trouble.ended = time.monotonic() + NOTICED

    async def moved(self) -> None:
        """The name leads elsewhere; then the old place is gone."""
        old, new = self.world.moved
        await new.start()
        trouble = self._note("moved", new.name)
        self.world.names.zone[NAME] = [new.host]
        # Until nothing goes to the old place any more, and what was in flight there has
        # ended: a worker that never asked again would not get that far.
        size = 0
        while time.monotonic() - trouble.ended < TTL + LIVES + 0.5:
            if old.ledger.stat().st_size != size:
                size = old.ledger.stat().st_size
                trouble.ended = time.monotonic()
                assert trouble.ended - trouble.begun < PATIENCE, "it is not followed"
            await asyncio.sleep(0.05)
        await old.kill()
        self.world.moved.reverse()

    async def unnamed(self) -> None:
        """The name is not found for a while."""
        trouble = self._note("unnamed")
        self.world.names.code = self.chance.choice([SERVER_FAILURE, NO_SUCH_NAME])
        await self._while(trouble, 2.5)
        self.world.names.code = NO_ERROR

    async def run(self) -> None:
        """Do each once, in some order; then again, until the time is over."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.killed,
            self.stalled,
            self.failing,
            self.overloaded,
            self.moody,
            self.worker,
            self.unnamed,
        ]
        until_ = time.monotonic() + SECONDS
        while True:
            self.chance.shuffle(kinds)
            # Of the one that takes the longest the others are not the end.
            moving = asyncio.get_running_loop().create_task(self.moved())
            for kind in kinds:
                if kind == self.unnamed:
                    await moving
                await kind()
                await asyncio.sleep(0.3)
            await moving
            if time.monotonic() >= until_:
                return


@dataclass
class Verdict:
    """What is to be said of each call."""

    troubles: list[Trouble]
    ledger: dict[str, list[tuple[str, int]]]
    excused: Counter[str] = field(default_factory=Counter)  # by trouble and outcome
    store_late: int = 0
    wrong: list[str] = field(default_factory=list)

    def judge(self, one: Outcome) -> None:
        got = self.ledger.get(one.name, [])
        if one.kind == "POST" and len(got) != 1 and (got or one.status == 200):
            self.wrong.append(f"executed {len(got)} times: {one}")
        elif one.code == "unavailable" and one.status == 503 and not got:
            self.store_late += 1
        elif not _is_well(one):
            excuse = self._excuse(one, got)
            if excuse is None:
                self.wrong.append(f"{one}, which {got} got")
            else:
                end = "cut" if one.trouble or one.kind == "idle" else str(one.status)
                self.excused[f"{excuse.kind}: {one.kind} {end}"] += 1

    def _excuse(self, one: Outcome, got: list[tuple[str, int]]) -> Trouble | None:
        for each in self.troubles:
            if each.overlaps(one) and _excuses(each, one, got):
                return each
        return None


def _is_well(one: Outcome) -> bool:
    wanted = 101 if one.kind == "websocket" else 200
    return one.status == wanted and one.is_whole and not one.trouble


def _excuses(trouble: Trouble, one: Outcome, got: list[tuple[str, int]]) -> bool:
    if trouble.kind == "worker":
        is_cut = one.kind == "idle" or (one.trouble and one.trouble != "no answer")
        return bool(is_cut) and one.port in trouble.ports
    if one.service != "pair" or one.kind == "idle" or one.trouble == "no answer":
        return False
    # Nobody else had it, so nobody else could have answered it.
    was_its = {by for by, _ in got} <= {trouble.who}
    answered = was_its and one.endpoint == trouble.who
    has_begun = one.status in {200, 101}
    match trouble.kind:
        case "killed" if has_begun:
            return answered and bool(one.trouble)
        case "killed":
            was_new = all(count == 1 for _, count in got)
            return one.status == 502 and was_its and (was_new or one.kind == "POST")
        case "stalled":
            return one.status == 504 and was_its
        case "failing":
            return one.status == 500 and answered
        case "overloaded":
            return one.status == 503 and answered
        case "moody":
            return one.status == 502 and was_its and one.kind == "POST"
    return False


async def test_whatever_could_be_answered_is_and_nothing_leaks(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """See above."""
    async with world(tmp_path, redis_server.url, SEED) as here:
        callers = Callers(here)
        async with callers.calling():
            await asyncio.sleep(WARM)
        before = await at_rest(here)
        begun = time.monotonic()
        script = Script(here, random.Random(SEED), (await here.metrics())[UP])
        async with callers.calling():
            await script.run()
            await _all_serve(here)
        took = time.monotonic() - begun
        after = await at_rest(here)
        counts = await here.metrics()
        verdict = Verdict(script.done, here.ledger())
        for one in callers.outcomes:
            verdict.judge(one)

    calls = [one for one in callers.outcomes if one.kind != "idle"]
    kinds = Counter(trouble.kind for trouble in script.done)
    report(
        "chaos",
        {
            "seed": SEED,
            "seconds": took,
            "calls": len(calls),
            "calls a second": len(calls) / (took + WARM),
            "well": sum(map(_is_well, calls)),
            "troubles": dict(kinds),
            "excused": dict(sorted(verdict.excused.items())),
            "not excused": len(verdict.wrong),
            "refused because the store was late": verdict.store_late,
            "connections retried": counts["gateway_upstream_retries_total"],
            "longest wait of a GET, s": max(
                one.ended - one.begun for one in calls if one.kind == "GET"
            ),
            "longest until a name was followed, s": max(
                each.ended - each.begun for each in script.done if each.kind == "moved"
            ),
            "held before": list(map(_shown, before)),
            "held after": list(map(_shown, after)),
        },
    )
    assert verdict.wrong == []
    assert not FULL or verdict.store_late <= STORE_LATE * len(calls) / 1000
    _bound(verdict.excused, kinds)
    _has_met(callers.outcomes, script.done)
    _is_back(before, after)


async def _all_serve(here: World) -> None:
    """Every endpoint that is well gets calls again."""
    before = {one.name: one.ledger.stat().st_size for one in here.pair}

    await until(
        lambda: all(one.ledger.stat().st_size > before[one.name] for one in here.pair)
    )


def _bound(excused: Counter[str], kinds: Counter[str]) -> None:
    """Nobody is asked for long who does not answer."""

    def count(kind: str, status: int) -> int:
        ends = [name for name in excused if name.startswith(f"{kind}: ")]
        return sum(excused[name] for name in ends if name.endswith(str(status)))

    # Each of two workers has to learn it by itself, and tries it a few times more.
    most = 2 * (EJECTION + ON_THEIR_WAY)
    assert count("stalled", 504) <= most * kinds["stalled"]
    assert count("overloaded", 503) <= most * kinds["overloaded"]
    # Those that no rule could save: on a connection that had just been opened.
    assert excused["killed: GET 502"] <= kinds["killed"]
    # Two packets that cross each other.
    assert excused["moody: POST 502"] <= kinds["moody"]


def _has_met(outcomes: list[Outcome], troubles: list[Trouble]) -> None:
    """Each kind of call was made, each endpoint asked, and each trouble met."""
    assert {one.kind for one in outcomes} >= {"GET", "POST", "stream", "websocket"}
    by = Counter(one.endpoint for one in outcomes)
    assert set("ABCDE") <= set(by), by
    for trouble in troubles:
        until_ = trouble.ended + 1.0  # a kill is a moment; what follows is it too
        assert any(trouble.begun < one.begun < until_ for one in outcomes), trouble


def _is_back(before: list[Held], after: list[Held]) -> None:
    assert len(before) == len(after) == 2
    for kind in {kind for one in (*before, *after) for kind in one.files} - {LOOKUP}:
        most = max(one.files[kind] for one in before)
        assert max(one.files[kind] for one in after) <= most, kind
    # Each second there is one for a moment, or two: for both IP versions.
    assert max(one.files[LOOKUP] for one in after) <= 2
    assert max(one.tasks for one in after) <= max(one.tasks for one in before)
    assert max(one.threads for one in after) <= max(one.threads for one in before)
    assert max(one.rss for one in after) - max(one.rss for one in before) < GROWTH


def _shown(one: Held) -> dict[str, object]:
    return {
        "descriptors": dict(sorted(one.files.items())),
        "tasks": one.tasks,
        "threads": one.threads,
        "RSS MiB": one.rss / MIB,
    }


def test_the_verdict_excuses_nothing_else() -> None:
    """Each row is one thing away from what is excused."""
    kill = Trouble("killed", "A", 10.0, 10.1)
    rows = [
        # kind, status, begun, ended, endpoint, trouble, who got it, is it excused
        ("GET", 502, 9.9, 10.05, "", "", [("A", 1)], True),
        ("GET", 502, 9.9, 10.05, "", "", [("A", 2)], False),
        ("GET", 502, 9.9, 10.05, "", "", [("B", 1)], False),
        ("GET", 502, 10.2, 10.3, "", "", [("A", 1)], False),
        ("POST", 502, 9.9, 10.05, "", "", [("A", 2)], True),
        ("POST", 502, 9.9, 10.05, "", "", [("A", 1), ("B", 1)], False),
        ("POST", 200, 1.0, 1.1, "B", "", [], False),
        ("POST", 200, 1.0, 1.1, "B", "", [("B", 7)], True),
        ("stream", 200, 9.0, 10.05, "A", "IncompleteReadError", [("A", 4)], True),
        ("stream", 200, 9.0, 10.05, "B", "IncompleteReadError", [("B", 4)], False),
        ("GET", 504, 9.9, 10.05, "", "", [("A", 1)], False),
        ("GET", 0, 9.9, 25.0, "", "no answer", [("A", 1)], False),
    ]
    for kind, status, begun, ended, endpoint, trouble, got, is_excused in rows:
        one = Outcome(kind, "pair", "x", 1, begun, ended, status, endpoint)
        one.trouble, one.is_whole = trouble, not trouble
        verdict = Verdict([kill], {"x": got})
        verdict.judge(one)
        assert (verdict.wrong == []) is is_excused, one
    for port, is_excused in ((7, True), (8, False)):
        cut = Outcome("idle", "calm", "", port, 10.0, 10.0)
        verdict = Verdict([Trouble("worker", "1", 9.9, 10.5, frozenset({7}))], {})
        verdict.judge(cut)
        assert (verdict.wrong == []) is is_excused

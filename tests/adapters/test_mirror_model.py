"""Mirrors of one list, whatever becomes of the store: nothing applied is ever lost.

A real server is cut off, frozen, restarted with its data, with an older state of it (as
after a failover to a replica that had missed the last writes) or with none, and its
feed is trimmed, while workers come and go. At any moment:

- whoever was revoked is refused by each worker that has applied it;
- nobody is refused who was never revoked;

and whenever all workers are live again, each refuses whatever any of them had applied,
and so does the store.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.adapters.redis_scripts import FEED
from gateway.model import Principal, Unavailable
from gateway.revocation.entries import Kind, Revocation
from tests.adapters.principals import CLOCK, entry, principal
from tests.redis_server import start_redis

T = TypeVar("T")
PATIENCE = 10.0  # seconds until all are live again
SHORT, LONG = 0.6, 600.0  # seconds that an entry lives
MOST = 3  # workers
NUMBERS = st.integers(0, 4)  # whom entries are about
KINDS: list[Kind] = ["token", "session", "subject"]


def bearer(number: int) -> Principal:
    """Return who is revoked by whatever is about *number*, and by nothing else."""
    name = f"n-{number}"
    return principal(name, session=name, subject=name, issued_at=0.0)


@dataclass(eq=False)
class Worker:
    """One mirror, and what it has ever applied."""

    list_: MirroredRevocations
    task: asyncio.Task[None] | None = None
    applied: dict[bytes, Revocation] = field(default_factory=dict)

    def told(self, made: Revocation) -> None:
        held = self.applied.get(made.name)
        if held is None or made.until > held.until:
            self.applied[made.name] = made


class Mirrors(RuleBasedStateMachine):
    """What can happen, and what must hold all the while."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server = start_redis()
        self.workers: list[Worker] = []
        self.asked: dict[int, list[Revocation]] = {}  # by whom they are about
        self.lifted: set[int] = set()
        self.has_state = False
        self.turns = itertools.count()

    def run(self, work: Awaitable[T]) -> T:
        async def to_the_end() -> T:
            return await work

        return self.loop.run_until_complete(to_the_end())

    def teardown(self) -> None:
        async def end() -> None:
            for worker in self.workers:
                await self.freeze(worker)
                await worker.list_.aclose()

        self.server.resume()
        self.run(end())
        self.loop.close()
        self.server.close()

    # Workers

    @initialize()
    def begin(self) -> None:
        self.start()
        self.start()

    @precondition(lambda self: len(self.workers) < MOST)
    @rule()
    def start(self) -> None:
        worker = Worker(MirroredRevocations(self.server.url, CLOCK))
        worker.list_.watch(worker.told)
        self.workers.append(worker)
        self.go_on(worker)

    def go_on(self, worker: Worker) -> None:
        if worker.task is None:
            worker.task = self.loop.create_task(worker.list_.run())

    async def freeze(self, worker: Worker) -> None:
        task, worker.task = worker.task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(number=st.integers(0, MOST - 1))
    def stop(self, number: int) -> None:
        worker = self.workers[number % len(self.workers)]
        # What only it knew goes with it.
        self.settle()
        self.workers.remove(worker)
        self.run(self.freeze(worker))
        self.run(worker.list_.aclose())

    @rule(number=st.integers(0, MOST - 1))
    def stall(self, number: int) -> None:
        self.run(self.freeze(self.workers[number % len(self.workers)]))

    # What is written

    @rule(
        number=NUMBERS,
        kind=st.sampled_from(KINDS),
        life=st.sampled_from([SHORT, LONG]),
        by=st.integers(0, MOST - 1),
        waits=st.booleans(),
    )
    def revoke(
        self, number: int, kind: Kind, life: float, by: int, waits: bool
    ) -> None:
        made = entry(kind, f"n-{number}", cutoff=9.0, life=life)
        self.asked.setdefault(number, []).append(made)
        worker = self.workers[by % len(self.workers)]

        async def write() -> None:
            try:
                position = await worker.list_.revoke(made)
                if waits:
                    await worker.list_.effect(position, 0.5)
            except Unavailable:
                pass

        self.run(write())

    # What becomes of the store

    @rule()
    def cut(self) -> None:
        self.server.command("CLIENT", "KILL", "TYPE", "normal")

    @rule()
    def trim(self) -> None:
        self.server.command("XTRIM", FEED, "MAXLEN", "0")

    @rule()
    def lose_the_feed(self) -> None:
        self.server.command("DEL", FEED)

    @rule()
    def keep_its_state(self) -> None:
        self.server.command("SAVE")

    @rule()
    def restart(self) -> None:
        self.server.restart()

    @rule()
    def empty(self) -> None:
        self.server.command("FLUSHALL")

    @rule(seconds=st.sampled_from([0.05, 1.2]))
    def freeze_the_store(self, seconds: float) -> None:
        self.server.pause()
        self.run(asyncio.sleep(seconds))
        self.server.resume()

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.3]))
    def let_time_pass(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    # What holds

    @invariant()
    def each_refuses_what_it_has_applied(self) -> None:
        now = CLOCK.wall() + 0.1
        for worker in self.workers:
            alive = {e.name for e in worker.applied.values() if e.until > now}
            for number in range(5):
                whole = {e.name for e in self.asked.get(number, ())}
                if whole & alive:
                    assert worker.list_.check_now(bearer(number)) is True

    @invariant()
    def nobody_is_refused_without_cause(self) -> None:
        for worker in self.workers:
            for number in range(6):
                if worker.list_.check_now(bearer(number)) is True:
                    assert self.asked.get(number)

    @rule()
    def settle(self) -> None:
        """All are live again, and agree; and so does the store."""
        for worker in self.workers:
            self.go_on(worker)
        end = time.monotonic() + PATIENCE
        while not self.run(self.agree()):
            assert time.monotonic() < end, [
                (worker.list_.is_live, worker.list_.health()) for worker in self.workers
            ]
            self.run(asyncio.sleep(0.02))

    async def agree(self) -> bool:
        await asyncio.sleep(0)
        if not all(worker.list_.is_live for worker in self.workers):
            return False
        now = CLOCK.wall() + 0.5
        applied = {
            each.name
            for worker in self.workers
            for each in worker.applied.values()
            if each.until > now
        }
        for number in range(5):
            if not any(each.name in applied for each in self.asked.get(number, ())):
                continue
            for worker in self.workers:
                if worker.list_.check_now(bearer(number)) is not True:
                    return False
                try:
                    if not await worker.list_._store.check(bearer(number)):
                        return False
                except Unavailable:
                    return False
        return True


TestMirrors = Mirrors.TestCase
TestMirrors.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)

"""gateway.proxy.streams: what is open is found, whatever is to end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.model import (
    ANONYMOUS,
    Denial,
    Principal,
    Reason,
    Unavailable,
)
from gateway.proxy import streams as module
from gateway.proxy.standing import Standing, Verdict
from gateway.proxy.streams import AT_ONCE, BATCH, Streams
from gateway.revocation.entries import KINDS, Kind, Revocation, block_for, entry_for
from gateway.revocation.mirror import Mirror
from gateway.tokens.fingerprints import fingerprints
from tests.fakes import head_of

URL = "https://login.example"
NEVER = float("inf")
NOW = 200.0  # Unix seconds
FORBIDDEN = Denial(Reason.PERMISSION_MISSING, "orders:read")


def holder(
    token_id: str, subject: str, session: str | None = "s", client: str | None = "app"
) -> Principal:
    return Principal(
        "user",
        "corp",
        subject,
        issued_at=100.0,
        fingerprints=replace(
            fingerprints(
                URL,
                token_id=token_id,
                session_id=session,
                subject=subject,
                client_id=client,
            ),
            family=b"f" * 16 if session else None,
        ),
    )


ALICE, BOB, OTHER = (
    holder("t-1", "alice"),
    holder("t-2", "bob"),
    holder("t-3", "alice", None, None),
)
YOUNG = replace(holder("t-4", "alice"), issued_at=NOW + 100)


class Open:
    """A stream that leaves the list when it is ended, as all of them do."""

    def __init__(self, streams: Streams, *, broken: bool = False) -> None:
        self.streams = streams
        self.broken = broken
        self.ended: list[str] = []

    def end(self, denial: Denial) -> None:
        if self.broken:
            raise RuntimeError("a mistake")
        self.ended.append(str(denial))
        self.streams.remove(self)


class World:
    """Streams and the list of revocations that they are told of."""

    def __init__(self) -> None:
        self.list = Mirror()
        self.streams = Streams(lambda who: self.list.revokes(who, NOW))

    def opened(self, principal: Principal, ends: float = NEVER) -> Open:
        stream = Open(self.streams)
        self.streams.add(stream, Standing(principal, head_of(), NOW), ends)
        return stream

    def revoke(self, entry: Revocation) -> None:
        """Do what a mirror does with what is news to it."""
        if self.list.put(entry, NOW):
            self.streams.revoke(entry)


def entry(kind: Kind, value: str, url: str = URL) -> Revocation:
    if kind == "block":
        return block_for(url, value, now=NOW, seconds=900.0)
    if kind == "family":
        return Revocation(kind, b"f" * 16, NOW, NOW + 900)
    return entry_for(kind, url, value, now=NOW, leeway=0.0, max_lifetime=900.0)


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


# Who of Alice, Bob, Alice without session and client, and Alice's young token.
@pytest.mark.parametrize(
    ("kind", "value", "ends"),
    [
        ("token", "t-1", [1, 0, 0, 0]),
        ("session", "s", [1, 1, 0, 1]),
        ("family", "", [1, 1, 0, 1]),
        ("subject", "alice", [1, 0, 1, 0]),
        ("client", "app", [1, 1, 0, 0]),
        ("issuer", "", [1, 1, 1, 0]),
        ("all", "", [1, 1, 1, 0]),
        ("block", "alice", [1, 0, 1, 1]),
        ("subject", "t-1", [0, 0, 0, 0]),
    ],
)
async def test_an_entry_ends_what_it_means(
    kind: Kind, value: str, ends: list[int]
) -> None:
    """Every kind; what was issued after a cut-off stays, and so does nobody's."""
    world = World()
    open_ = [world.opened(who) for who in (ALICE, BOB, OTHER, YOUNG)]
    nobodys = world.opened(ANONYMOUS)
    world.revoke(entry(kind, value))
    await turns()
    assert [len(each.ended) for each in open_] == ends
    assert all({*each.ended} <= {"token.revoked"} for each in open_)
    assert nobodys.ended == []
    assert len(world.streams) == 5 - sum(ends)


def test_no_kind_is_left_out() -> None:
    """Of those that there are."""
    (marks,) = [
        mark.args[1]
        for mark in test_an_entry_ends_what_it_means.pytestmark  # type: ignore[attr-defined]
    ]
    assert {row[0] for row in marks} == {*KINDS}


async def test_another_issuers_names_are_others() -> None:
    """`alice` of partners is not `alice` of corp."""
    world = World()
    alice = world.opened(ALICE)
    for kind in KINDS:
        if kind not in {"family", "all"}:
            world.revoke(entry(kind, "alice", "https://other.example"))
    await turns()
    assert alice.ended == []


async def test_a_block_that_was_lifted_before_it_was_heard_of_ends_nothing() -> None:
    """The list is asked who is meant, and not the entry alone."""
    world = World()
    alice = world.opened(ALICE)
    block = replace(entry("block", "alice"), number=7)
    world.revoke(replace(block, number=8, lifts=True, until=NOW + 1))
    world.revoke(block)
    await turns()
    assert alice.ended == []


async def test_what_was_revoked_before_it_was_entered_ends_at_once() -> None:
    """It had been decided before, and nobody could find it then."""
    world = World()
    world.revoke(entry("subject", "alice"))
    assert world.opened(ALICE).ended == ["token.revoked"]
    assert world.opened(BOB).ended == []
    assert len(world.streams) == 1


async def test_many_end_some_at_a_time() -> None:
    """Between two turns of the loop others have theirs, and may leave by themselves."""
    world = World()
    open_ = [world.opened(holder(f"t-{n}", "alice")) for n in range(3 * AT_ONCE)]
    world.revoke(entry("all", ""))
    world.revoke(entry("subject", "alice"))
    counts = []
    while len(world.streams):
        await asyncio.sleep(0)
        counts.append(sum(bool(each.ended) for each in open_))
        world.streams.remove(open_[-1])
    assert counts == [AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE - 1]
    await turns(9)
    assert all(each.ended == ["token.revoked"] for each in open_[:-1])
    assert open_[-1].ended == []
    assert not world.streams._due


async def test_one_that_can_t_be_ended_harms_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor whoever brings the news: a mirror must not lose its feed over it."""
    world = World()
    broken = Open(world.streams, broken=True)
    world.streams.add(broken, Standing(ALICE, head_of(), NOW), NEVER)
    alice = world.opened(ALICE)
    with caplog.at_level(logging.ERROR):
        world.revoke(entry("subject", "alice"))
        await turns()
    assert alice.ended == ["token.revoked"]
    assert "could not be ended" in caplog.text


async def test_what_outlives_its_token_ends() -> None:
    """To the second; what never ends is never among it."""
    world = World()
    open_ = [
        world.opened(who, ends)
        for who, ends in ((ALICE, 100.0), (BOB, 100.5), (OTHER, NEVER))
    ]
    world.streams.expire(99.9)
    await turns()
    assert [each.ended for each in open_] == [[], [], []]
    world.streams.expire(100.0)
    await turns()
    assert [each.ended for each in open_] == [["token.expired"], [], []]


def test_nothing_is_left_behind() -> None:
    """As many leave as came, in any order, and to leave twice is harmless."""
    world = World()
    open_ = [world.opened(holder(f"t-{n}", f"s-{n % 3}")) for n in range(9)]
    nobodys = world.opened(ANONYMOUS)
    assert len(world.streams) == 10
    for each in [nobodys, *open_[::2], *open_[1::2], *open_]:
        world.streams.remove(each)
    assert len(world.streams) == 0
    assert world.streams._by_name == {}


def test_seats_are_counted_and_given_back() -> None:
    """By route and caller."""
    streams = Streams()
    seat = ("live", "corp", "alice")
    assert streams.take_seat(seat, 2)
    assert streams.take_seat(seat, 2)
    assert not streams.take_seat(seat, 2)
    assert streams.take_seat(("live", "other", "alice"), 2)
    assert streams.take_seat(("more", "corp", "alice"), 2)
    streams.leave_seat(seat)
    assert streams.take_seat(seat, 2)
    for _ in range(2):
        streams.leave_seat(seat)
    assert seat not in streams._seats


class Judge:
    """Refuses Bob, and is away when it is told to be."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.away: Exception | None = None
        self.unknown: set[Principal] = set()  # whom nobody can judge now
        self.leaving: list[Open] = []  # what ends by itself while it is judged

    async def __call__(self, standings: Sequence[Standing]) -> list[Verdict]:
        self.asked.append(len(standings))
        await asyncio.sleep(0)
        for each in self.leaving:
            each.streams.remove(each)
        if self.away is not None:
            raise self.away
        return [self._verdict(each.principal) for each in standings]

    def _verdict(self, who: Principal) -> Verdict:
        if who in self.unknown:
            return Unavailable("policy engine")
        return FORBIDDEN if who is BOB else None


async def test_what_is_open_is_judged_once_and_so_is_what_comes() -> None:
    """In batches; who is refused ends, with the reason that the judge gives."""
    world, judge = World(), Judge()
    alices = [world.opened(ALICE) for _ in range(BATCH)]
    bob = world.opened(BOB)
    gone = world.opened(BOB)
    task = asyncio.ensure_future(world.streams.keep_judged(judge))
    await turns(2)
    judge.leaving = [gone]
    await turns(20)
    assert bob.ended == [str(FORBIDDEN)]
    assert not any(each.ended for each in (gone, *alices))
    assert sum(judge.asked) in {BATCH + 1, BATCH + 2}
    assert max(judge.asked) == BATCH

    late, other = world.opened(BOB), world.opened(ALICE)
    await turns(20)
    assert (late.ended, other.ended) == ([str(FORBIDDEN)], [])
    assert len(world.streams) == BATCH + 1
    task.cancel()


async def test_whom_nobody_can_judge_goes_on_and_is_judged_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One, behind the others; or all, when there is no judge at all."""
    monkeypatch.setattr(module, "AGAIN", 0.0)
    world, judge = World(), Judge()
    judge.away = Unavailable("every worker")
    bob = world.opened(BOB)
    task = asyncio.ensure_future(world.streams.keep_judged(judge))
    while len(judge.asked) < 3:
        await turns()
    assert bob.ended == []
    judge.away, judge.unknown = None, {BOB}
    other = world.opened(replace(BOB))
    asked = len(judge.asked)
    while len(judge.asked) < asked + 3:
        await turns()
    assert (bob.ended, other.ended) == ([], [])
    judge.unknown = set()
    while not bob.ended:
        await turns()
    task.cancel()


def test_how_many_an_entry_would_end_is_known_before() -> None:
    """Those that it means, by its cut-off, and no others; none of them is ended."""
    house = World()
    open_ = [house.opened(who) for who in (ALICE, BOB, OTHER, YOUNG)]

    def would(kind: Kind, value: str) -> int:
        entry = entry_for(kind, URL, value, now=NOW, max_lifetime=600.0, leeway=0.0)
        return house.streams.count(entry, NOW)

    ended = [would("subject", "alice"), would("token", "t-2"), would("all", "")]
    assert ended == [2, 1, 3]
    assert would("subject", "nobody") == 0
    assert house.streams.count(block_for(URL, "alice", now=NOW, seconds=9.0), NOW) == 3
    assert not any(each.ended for each in open_)

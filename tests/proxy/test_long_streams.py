"""Answers that take their time, and what becomes of them when their token ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.config.settings import Timeouts
from gateway.model import Denial, Principal, Reason
from gateway.proxy.server import SWEEP
from gateway.proxy.standing import Standing, Verdict
from gateway.revocation.entries import Revocation
from gateway.tokens.fingerprints import fingerprint, fingerprints
from tests.backends import Backend, Behaviour, Connection, answer, echoing, running
from tests.proxy.harness import ROUTE, Bench, Decision, chunked, gate_to, request

STREAM = replace(
    ROUTE, id="stream", stream=True, ends_with_token=True, max_body=1 << 40
)
FINISHING = replace(STREAM, id="finishing", ends_with_token=False)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
QUICK = Timeouts(connect=1.0, first_byte=0.3, idle=0.3)
URL = "https://login.example"
SUBJECT = fingerprint("subject", URL, "bob")
ENTRY = Revocation("subject", SUBJECT, time.time(), time.time() + 3600)


def bob(*, lives: float = 3600.0, leeway: float = 0.0) -> Principal:
    """Return somebody whose token ends in so many seconds."""
    return Principal(
        "user",
        "corp",
        "bob",
        expires_at=time.time() + lives,
        leeway=leeway,
        fingerprints=fingerprints(
            URL, token_id="t", session_id=None, subject="bob", client_id=None
        ),
    )


def routed(bench: Bench, who: Principal | None = None) -> Bench:
    bench.decision.routes |= {"stream": STREAM, "finishing": FINISHING}
    bench.decision.principal = who or bob()
    return bench


def telling(*events: bytes, first: float, pause: float, end: bool = True) -> Behaviour:
    """Answer after *first* seconds, with a pause before each event."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await asyncio.sleep(first)
        await connection.send(HEAD)
        for event in events:
            await asyncio.sleep(pause)
            await connection.send(event)
        if not end:
            await connection.rest()
            connection.ended = True

    return behave


@pytest.mark.parametrize(
    ("target", "first", "pause", "status", "whole"),
    [
        (b"/stream", 0.9, 0.0, 200, True),  # a long poll
        (b"/stream", 0.0, 0.9, 200, True),  # events, now and then
        (b"/plain", 0.9, 0.0, 504, True),
        (b"/plain", 0.0, 0.9, 200, False),
    ],
)
async def test_a_stream_may_be_silent(
    target: bytes, first: float, pause: float, status: int, whole: bool
) -> None:
    """The upstream's `first_byte` and `idle` cut other answers, not this one."""
    backend_ = telling(b"data: 1\n\n", first=first, pause=pause)
    async with (
        running(backend_) as backend,
        gate_to(backend, timeouts=QUICK) as bench,
    ):
        got = await routed(bench).call(request(target))
        assert (got.status, got.whole) == (status, whole)
        if target == b"/stream":
            assert got.body == b"data: 1\n\n"


async def test_its_total_holds_for_a_stream_too() -> None:
    """Where somebody has said one."""
    backend_ = telling(b"x", first=0.0, pause=5.0)
    async with (
        running(backend_) as backend,
        gate_to(backend, timeouts=replace(QUICK, total=0.5)) as bench,
    ):
        got = await routed(bench).call(request(b"/stream"))
        assert not got.whole
        assert bench.entries[0].reason == "upstream.timed_out"


async def test_a_connection_is_patient_once() -> None:
    """What comes next by the same connection has the usual time."""
    calls = 0

    async def slow(connection: Connection) -> None:
        nonlocal calls
        while True:
            await connection.request()
            calls += 1
            await asyncio.sleep(0.9)
            await connection.send(answer())

    async with running(slow) as backend, gate_to(backend, timeouts=QUICK) as bench:
        routed(bench)
        assert (await bench.call(request(b"/stream"))).status == 200
        assert (await bench.call(request(b"/plain"))).status == 504
        assert (calls, len(backend.connections)) == (2, 1)


async def test_an_upload_takes_what_it_takes() -> None:
    """Piece by piece, with more than `idle` in all, and no end in memory."""
    async with (
        running(echoing) as backend,
        gate_to(backend, timeouts=QUICK) as bench,
    ):
        caller = await routed(bench).caller()
        await caller.send(chunked(b"/stream", b"a"))
        for _ in range(5):
            await asyncio.sleep(0.15)
            await caller.send(b"1\r\nb\r\n")
        await caller.send(b"0\r\n\r\n")
        got = await caller.answer()
        assert got.body == b"/stream  abbbbb"


async def test_a_stream_ends_with_its_token() -> None:
    """It is cut, so that nobody takes it for whole; the log says why."""
    backend_ = telling(b"data: 1\n\n", first=0.0, pause=0.0, end=False)
    who = bob(lives=-0.5, leeway=1.0)
    async with running(backend_) as backend, gate_to(backend) as bench:
        began = time.monotonic()
        got = await routed(bench, who).call(request(b"/stream"))
        assert 0.3 < time.monotonic() - began < 1.5
        assert (got.status, got.whole) == (200, False)
        assert got.body == b"data: 1\n\n"
        entry = bench.entries[0]
        assert (entry.decision, entry.reason) == ("deny", "token.expired")
        assert (entry.status, entry.route) == (200, "stream")
        assert entry.principal is who
        async with asyncio.timeout(5):
            while not backend.connections[0].ended:
                await asyncio.sleep(0.005)
        assert len(bench.port.streams) == 0


@pytest.mark.parametrize("target", [b"/finishing", b"/plain"])
async def test_other_answers_are_finished(target: bytes) -> None:
    """As `at_expiry = "finish"` says, and as any answer that is no stream."""
    backend_ = telling(b"data: 1\n\n", b"data: 2\n\n", first=0.0, pause=0.4)
    async with running(backend_) as backend, gate_to(backend) as bench:
        got = await routed(bench, bob(lives=0.2)).call(request(target))
        assert (got.status, got.whole) == (200, True)
        assert got.body.endswith(b"data: 2\n\n")
        assert bench.entries[0].reason is None


async def listed(bench: Bench, number: int = 1) -> None:
    """Wait until so many have lasted long enough to be entered."""
    async with asyncio.timeout(5):
        while len(bench.port.streams) != number:
            await asyncio.sleep(0.005)


async def revoked(bench: Bench) -> float:
    """Revoke Bob's tokens; return how many seconds it took until one entry more."""
    began, entries = time.monotonic(), len(bench.entries)
    bench.revoked.add(SUBJECT)
    bench.port.streams.revoke(ENTRY)
    await bench.settled(entries + 1)
    return time.monotonic() - began


async def waiting(connection: Connection) -> None:
    """Read on, whatever it is, and say nothing."""
    await connection.rest()
    connection.ended = True


@pytest.mark.parametrize("target", [b"/stream", b"/finishing", b"/plain"])
async def test_whatever_is_under_way_can_be_revoked(target: bytes) -> None:
    """Whether or not its token's own time ends it: it is cut, not finished."""
    backend_ = telling(b"data: 1\n\n", first=0.0, pause=0.0, end=False)
    async with running(backend_) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(request(target))
        await caller.reader.readuntil(b"data: 1\n\n")
        await listed(bench)
        bench.port.streams.revoke(replace(ENTRY, name=b"x" * 16))
        assert await revoked(bench) < 1
        assert not (await caller.rest()).endswith(b"0\r\n\r\n")
        entry = bench.entries[0]
        assert (entry.decision, entry.reason) == ("deny", "token.revoked")
        assert entry.status == 200
        await backend_gone(backend)
        assert len(bench.port.streams) == 0


async def backend_gone(backend: Backend) -> None:
    async with asyncio.timeout(5):
        while not backend.connections[0].ended:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "sent",
    [request(b"/stream"), request(b"/plain"), chunked(b"/large", b"some of it")],
    ids=["long poll", "slow", "upload"],
)
async def test_what_has_no_answer_yet_can_be_revoked(sent: bytes) -> None:
    """It gets the one that it would have got by now, and the upstream hears no more."""
    async with running(waiting) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(sent)
        await listed(bench)
        assert await revoked(bench) < 1
        got = await caller.answer()
        assert got.status == 401
        assert b'error="invalid_token"' in got.values(b"www-authenticate")[0]
        assert got.values(b"connection") == [b"close"]
        assert bench.entries[0].reason == "token.revoked"
        await backend_gone(backend)


async def test_a_client_that_takes_nothing_can_be_revoked() -> None:
    """Though its answer waits for it."""
    backend_ = telling(*[b"x" * 1_000_000] * 16, first=0.0, pause=0.0)
    async with running(backend_) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller(receive_buffer=4096)
        await caller.send(request(b"/finishing"))
        await listed(bench)
        assert await revoked(bench) < 1
        assert len(await caller.rest()) < 16_000_000


async def test_what_was_revoked_before_it_had_lasted_is_found() -> None:
    """Nobody could find it then: it is asked when it is entered."""
    backend_ = telling(b"data: 1\n\n", first=0.0, pause=0.0, end=False)
    async with running(backend_) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(request(b"/plain"))
        await caller.reader.readuntil(b"data: 1\n\n")
        assert len(bench.port.streams) == 0
        assert await revoked(bench) < 1
        assert bench.entries[0].reason == "token.revoked"


async def test_an_upload_may_outlive_its_token() -> None:
    """It is the answer that is not to: a long poll ends, before it has begun."""
    async with running(at_end) as backend, gate_to(backend) as bench:
        routed(bench, bob(lives=0.1))
        upload, poll = await bench.caller(), await bench.caller()
        await upload.send(chunked(b"/stream", b"a"))
        await poll.send(request(b"/stream"))
        assert (await poll.answer()).status == 401
        assert [entry.reason for entry in bench.entries] == ["token.expired"]
        await upload.send(b"0\r\n\r\n")
        assert (await upload.answer()).body == b"thanks"


async def at_end(connection: Connection) -> None:
    """Answer an upload, a while after it is whole; nothing else."""
    received = await connection.request()
    if received.method == b"POST":
        await asyncio.sleep(2 * SWEEP)
        await connection.send(answer(b"thanks"))
    await waiting(connection)


async def test_a_short_request_is_not_listed() -> None:
    """To enter and to leave would cost it more than many a stage of its way."""
    seen = []
    async with running(echoing) as backend, gate_to(backend) as bench:
        add = bench.port.streams.add
        bench.port.streams.add = lambda *all_: seen.append(all_) or add(*all_)  # type: ignore[func-returns-value,method-assign]
        for target in (b"/stream", b"/plain", b"/denied", b"/public/x"):
            await routed(bench).call(request(target))
    assert seen == []


async def test_our_own_answers_are_not_listed() -> None:
    """No policy and no token is behind them."""
    async with running(waiting) as backend, gate_to(backend) as bench:
        reserved = Decision._permit
        bench.decision._permit = lambda head: reserved(bench.decision, head)._replace(  # type: ignore[method-assign]
            reserved=True
        )
        caller = await routed(bench).caller()
        await caller.send(request(b"/plain"))
        await asyncio.sleep(4 * SWEEP)
        assert len(bench.port.streams) == 0


async def test_a_stream_whose_client_left_is_listed_no_more() -> None:
    """Nothing is left behind by any way out."""
    backend_ = telling(b"data: 1\n\n", first=0.0, pause=0.0, end=False)
    async with running(backend_) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(request(b"/stream"))
        await listed(bench)
        caller.close()
        await bench.settled(1)
        assert len(bench.port.streams) == 0
        assert bench.entries[0].reason == "client.gone"


@pytest.mark.parametrize(
    ("denial", "status"),
    [
        (Denial(Reason.PERMISSION_MISSING, "a:b", ("a:b",)), 403),
        (Denial(Reason.ISSUER_UNTRUSTED), 401),
        (Denial(Reason.ROUTE_UNKNOWN), 404),
    ],
)
async def test_what_is_judged_again_has_the_answer_of_the_new_rules(
    denial: Denial, status: int
) -> None:
    """Where none has begun. Of nobody, too, who has opened something public."""
    async with running(waiting) as backend, gate_to(backend) as bench:
        routed(bench)
        judged: list[Standing] = []

        async def judge(standings: Sequence[Standing]) -> list[Verdict]:
            judged.extend(standings)
            return [denial for _ in standings]

        callers = [await bench.caller() for _ in range(2)]
        for caller, target in zip(callers, (b"/plain", b"/public/x"), strict=True):
            await caller.send(request(target))
        await listed(bench, 2)
        judging = asyncio.ensure_future(bench.port.streams.keep_judged(judge))
        for caller in callers:
            assert (await caller.answer()).status == status
        judging.cancel()
        assert {str(entry.reason) for entry in bench.entries} == {str(denial)}
        assert {entry.route for entry in bench.entries} == {"any", "public"}
        assert sorted(each.principal.kind for each in judged) == ["anonymous", "user"]
        assert {each.head for each in judged} == set(bench.decision.heads)
        assert all(abs(each.since - time.time()) < 5 for each in judged)

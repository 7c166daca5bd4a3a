"""Answers that take their time, and what becomes of them when their token ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.config.settings import Timeouts
from gateway.model import Principal
from gateway.tokens.fingerprints import fingerprint, fingerprints
from tests.backends import Behaviour, Connection, answer, echoing, running
from tests.proxy.harness import ROUTE, Bench, chunked, gate_to, request

STREAM = replace(
    ROUTE, id="stream", stream=True, ends_with_token=True, max_body=1 << 40
)
FINISHING = replace(STREAM, id="finishing", ends_with_token=False)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
QUICK = Timeouts(connect=1.0, first_byte=0.3, idle=0.3)
URL = "https://login.example"
SUBJECT = fingerprint("subject", URL, "bob")


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


@pytest.mark.parametrize("target", [b"/stream", b"/finishing", b"/plain"])
async def test_whatever_is_under_way_can_be_revoked(target: bytes) -> None:
    """By any name of its token, whether or not its own time ends it."""
    backend_ = telling(b"data: 1\n\n", first=0.0, pause=0.0, end=False)
    async with running(backend_) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(request(target))
        await caller.reader.readuntil(b"data: 1\n\n")
        streams = bench.port.streams
        assert len(streams) == 1
        other = fingerprint("subject", URL, "alice")
        assert streams.close_where(other) == 0
        assert streams.close_where(SUBJECT) == 1
        await caller.rest()
        assert bench.entries[0].reason == "token.revoked"
        assert len(streams) == 0


async def test_a_short_answer_is_not_listed() -> None:
    """Nor one of nobody, which no revocation could name."""
    backend_ = telling(b"data: 1\n\n", first=0.0, pause=0.0, end=False)
    seen = []
    async with running(echoing) as backend, gate_to(backend) as bench:
        add = bench.port.streams.add
        bench.port.streams.add = lambda *all_: seen.append(all_) or add(*all_)  # type: ignore[func-returns-value,method-assign]
        for target in (b"/stream", b"/plain", b"/denied"):
            await routed(bench).call(request(target))
    async with running(backend_) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(request(b"/public/x"))
        await caller.reader.readuntil(b"data: 1\n\n")
        assert len(bench.port.streams) == 0
    assert seen == []


async def test_a_stream_whose_client_left_is_listed_no_more() -> None:
    """Nothing is left behind by any way out."""
    backend_ = telling(b"data: 1\n\n", first=0.0, pause=0.0, end=False)
    async with running(backend_) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(request(b"/stream"))
        await caller.reader.readuntil(b"data: 1\n\n")
        assert len(bench.port.streams) == 1
        caller.close()
        await bench.settled(1)
        assert len(bench.port.streams) == 0
        assert bench.entries[0].reason == "client.gone"

"""What holds for any bytes at all: I2, I5, I7, and the smuggling vectors of R2."""

from __future__ import annotations

import asyncio
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config.settings import Server
from tests import vectors
from tests.backends import Connection, answer, echoing, running
from tests.proxy.harness import Bench, gate_to, request

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n"


def _statuses(said: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


async def test_no_spelling_of_transfer_encoding_smuggles() -> None:
    """R2: 4xx and close, or one request and nothing more."""
    cases = vectors.load("smuggler-te/te_mutations.json").values()
    assert len(cases) > 150
    async with running(echoing) as backend, gate_to(backend) as bench:
        for line in cases:
            te = line.encode("latin-1")
            # CL.TE and TE.CL: each reader would find the next request elsewhere.
            for body in (b"0\r\n\r\n" + SMUGGLED, b"5\r\nhello\r\n0\r\n\r\n"):
                backend.requests.clear()
                for one in backend.connections:
                    one.raw.clear()
                logged = len(bench.entries)
                raw = (
                    b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n"
                    b"\r\n%b"
                ) % (len(body), te, body)
                caller = await bench.caller()
                await caller.send(raw)
                got = await caller.answer()
                caller.close()
                arrived = [one.target for one in backend.requests]
                if got.status == 200:
                    # Read as a length: then it is the body, and went as one.
                    assert arrived == [b"/first"]
                    assert backend.requests[0].body == body
                else:
                    assert 400 <= got.status < 500, line
                    assert got.values(b"connection") == [b"close"]
                    assert b"/smuggled" not in backend.raw
                assert len(arrived) <= len(bench.entries) - logged


PIECES = st.sampled_from(
    [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"/",
        b"/a",
        b"/denied",
        b"/wait/x",
        b"/%2e%2e/",
        b"/../",
        b"?q",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"Expect: 100-continue\r\n",
        b"X-Gateway-Assertion: mallory\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b": ",
        b"\x00",
        b"\xff",
        request(b"/whole"),
        b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
)
STREAMS = st.one_of(
    st.lists(PIECES, max_size=14).map(b"".join), st.binary(max_size=200)
)


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(stream=STREAMS, cuts=st.lists(st.integers(1, 60), max_size=6))
async def test_any_bytes_cut_anywhere(stream: bytes, cuts: list[int]) -> None:
    """I2, I5: never a 5xx; the backend gets what was permitted and nothing else."""
    server = Server(header_timeout=0.2, body_timeout=0.2, idle_timeout=0.2)
    async with running(echoing) as backend, gate_to(backend, server=server) as bench:
        caller = await bench.caller()
        reading = asyncio.get_running_loop().create_task(caller.rest())
        at = 0
        try:
            for cut in [*cuts, len(stream)]:
                await caller.send(stream[at : at + cut])
                at += cut
                await asyncio.sleep(0)
            # A whole request behind it, so that the port need not wait for more.
            await caller.send(b"\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\n")
            await caller.send(b"Connection: close\r\n\r\n")
        except ConnectionError:
            pass
        async with asyncio.timeout(4):
            said = await reading
        statuses = _statuses(said)
        assert all(status < 500 for status in statuses), said
        _only_what_was_permitted(backend.requests, bench)
        assert b"mallory" not in backend.raw
        answered = [entry for entry in bench.entries if entry.status is not None]
        final = [status for status in statuses if status >= 200]
        assert len(final) <= len(answered)


def _only_what_was_permitted(requests: list, bench: Bench) -> None:  # type: ignore[type-arg]
    permitted = [permit.target for permit in bench.decision.permits]
    received = [one.target for one in requests]
    at = iter(permitted)
    assert all(target in at for target in received), (received, permitted)


TARGETS = st.one_of(
    st.binary(min_size=0, max_size=40).map(lambda tail: b"/" + tail),
    st.text(alphabet="/.%2eEfF5cC;ab?#\\ ", max_size=30).map(
        lambda tail: b"/" + tail.encode()
    ),
)


@settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(targets=st.lists(TARGETS, min_size=1, max_size=12))
async def test_any_target_is_refused_or_sent_as_it_is(targets: list[bytes]) -> None:
    """I2: 4xx, or the backend's request line holds the very bytes."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        for target in targets:
            if any(byte in target for byte in b"\r\n ") or len(target) < 2:
                continue
            seen = len(backend.requests)
            got = await bench.call(request(target))
            arrived = [one.target for one in backend.requests[seen:]]
            if got.status == 200:
                assert arrived == [target]
            else:
                assert arrived == []
                first = bench.decision.heads[-1:]
                known = first and first[0].segments[0] in {"bug", "away", "nowhere"}
                assert 400 <= got.status < 500 or known


@pytest.mark.parametrize("seed", [1, 2])
async def test_nobody_gets_the_answer_of_somebody_else(seed: int) -> None:
    """I7: nonces under load, with clients that go away at random moments."""
    chance = random.Random(seed)

    async def moody(connection: Connection) -> None:
        while True:
            received = await connection.request()
            nonce = received.value(b"nonce")
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.01)
            style = chance.randrange(4)
            if style == 0:
                await connection.send(answer(nonce))
            elif style == 1:
                raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                half = len(nonce) // 2
                await connection.send(raw + b"%x\r\n" % half + nonce[:half] + b"\r\n")
                await asyncio.sleep(0)
                rest = nonce[half:]
                await connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
            elif style == 2:
                await connection.send(answer(nonce)[:40])
                await asyncio.sleep(chance.random() * 0.004)
                await connection.send(answer(nonce)[40:])
            else:
                await connection.send(answer(nonce, fields=b"connection: close\r\n"))
                return

    async with running(moody) as backend, gate_to(backend) as bench:
        served = 0

        async def client(number: int) -> None:
            nonlocal served
            caller = await bench.caller()
            for turn in range(20):
                nonce = b"nonce-%d-%d-" % (number, turn) + b"x" * chance.randrange(50)
                target = chance.choice([b"/a", b"/wait/b"])
                await caller.send(request(target, b"nonce: " + nonce + b"\r\n"))
                if chance.random() < 0.15:
                    await asyncio.sleep(chance.random() * 0.006)
                    caller.close()
                    caller = await bench.caller()
                    continue
                got = await caller.answer()
                assert got.status == 200
                assert got.body == nonce
                served += 1
            caller.close()

        await asyncio.gather(*[client(number) for number in range(25)])
        assert served > 300
        await bench.settled(500)
        assert len(bench.entries) == 500
        gone = [entry for entry in bench.entries if entry.status is None]
        assert len(bench.entries) - len(gone) >= served

"""The upstream's side of the data port: whose answer is whose, and when to give up."""

from __future__ import annotations

import asyncio

import pytest

from gateway.config.settings import Timeouts
from tests import backends
from tests.backends import Connection, answer, echoing, running, saying
from tests.proxy.harness import chunked, gate_to, post, request

EVIL = answer(b"EVIL")


@pytest.mark.parametrize(
    "surplus",
    [EVIL, EVIL[:20], b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\x00"],
    ids=["answer", "half", "byte", "endless", "garbage"],
)
async def test_what_follows_an_answer_reaches_nobody(surplus: bytes) -> None:
    """R31: two answers in one packet; the second is not the next user's."""
    async with (
        running(saying(answer(b"good") + surplus)) as backend,
        gate_to(backend) as bench,
    ):
        first, second = await bench.caller(), await bench.caller()
        for _ in range(3):
            assert (await first.call(request(b"/1"))).body == b"good"
            assert (await second.call(request(b"/2"))).body == b"good"
        assert len(backend.connections) == 6


async def test_a_late_answer_reaches_nobody() -> None:
    """R31: 0.1 s after the answer another one; its connection is gone."""
    behaviour = backends.saying_late(answer(b"good"), EVIL, 0.1)
    async with running(behaviour) as backend, gate_to(backend) as bench:
        assert (await bench.call(request(b"/1"))).body == b"good"
        await asyncio.sleep(0.2)
        assert (await bench.call(request(b"/2"))).body == b"good"
        assert len(backend.connections) == 2


async def test_a_body_after_the_answer_to_head_reaches_nobody() -> None:
    """Llhttp can't be told of HEAD: what it would read as a body is surplus."""
    async with (
        running(saying(answer(b"body"))) as backend,
        gate_to(backend) as bench,
    ):
        head = b"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n"
        caller = await bench.caller()
        for _ in range(2):
            got = await caller.call(head)
            assert got.status == 200
            assert got.values(b"content-length") == [b"4"]
        assert (await caller.call(request(b"/2"))).body == b"body"
        assert len(backend.connections) == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
    ],
)
async def test_the_answer_to_head_ends_with_its_head(raw: bytes) -> None:
    """RFC 9110 section 9.3.2; the connection serves the next request."""
    async with running(saying(raw)) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        for _ in range(3):
            got = await caller.call(b"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert got.status in {200, 204, 304}
        keeps = raw[15:] != b"\r\n\r\n" and b"OK\r\n\r\n" not in raw
        if keeps:
            assert len(backend.connections) == 1


@pytest.mark.parametrize(
    "raw",
    [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"],
)
async def test_some_answers_have_no_body(raw: bytes) -> None:
    """And no Content-Length of ours (RFC 9110 section 8.6)."""
    async with running(saying(raw)) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        for _ in range(3):
            got = await caller.call(request(b"/1"))
            assert got.values(b"content-length") == []
            assert got.values(b"transfer-encoding") == []
        assert len(backend.connections) == 1


HOSTILE = {
    "length and chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
    b"content-length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n"
    b"content-length: 2\r\n\r\na",
    "the same length twice": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n"
    b"content-length: 1\r\n\r\na",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 1\r\n\r\na",
    "a NUL": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 1\r\n\r\na",
    "a bare LF": b"HTTP/1.1 200 OK\nx: a\n\nabc",
    "a split field": b"HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 99 OK\r\n\r\n",
    "a status of 0": b"HTTP/1.1 000 OK\r\n\r\n",
    "a status below 100, and an answer of its own": b"HTTP/1.1 020 OK\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nhi",
    "a body on 100": b"HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\nhello",
    "a body on 204": b"HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\nhello",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n"
    b"connection: upgrade\r\n\r\nraw bytes",
    "garbage": b"\x16\x03\x01 nonsense\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nx: ",
    "only interim answers": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 20_000 + b"\r\n",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
async def test_an_ambiguous_answer_is_502(raw: bytes) -> None:
    """R20, R31, R35: nothing of it reaches the client, nothing is reused."""
    async with (
        running(saying(raw, close=True)) as backend,
        gate_to(backend) as bench,
    ):
        caller = await bench.caller()
        for _ in range(2):
            got = await caller.call(request(b"/1"))
            assert got.status == 502
            assert got.values(b"content-type") == [b"application/problem+json"]
            assert b'"backend"' in got.body or b"backend" in got.body
            assert str(backend.port).encode() not in got.body
        assert len(backend.connections) == 2
        reasons = [entry.reason for entry in bench.entries]
        assert reasons == ["upstream.broke"] * 2


async def test_an_endless_head_is_cut_off() -> None:
    """R35: 64 KiB, whether or not it ends."""
    async with (
        running(backends.endless_head) as backend,
        gate_to(backend) as bench,
    ):
        async with asyncio.timeout(3):
            assert (await bench.call(request())).status == 502


IN_CHUNKS = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: evil\r\n\r\n"
)
WITH_HINTS = (
    b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b""),
        (IN_CHUNKS, b"abcde"),
        (WITH_HINTS, b"ok"),
    ],
    ids=["until close", "HTTP/1.0", "nothing", "chunks and trailers", "103"],
)
@pytest.mark.parametrize("modern", [True, False])
async def test_an_answer_is_framed_anew(raw: bytes, body: bytes, modern: bool) -> None:
    """Chunked for HTTP/1.1, closed for 1.0; no trailers, no 103 (R14)."""
    async with (
        running(saying(raw, close=True)) as backend,
        gate_to(backend) as bench,
    ):
        version = b"1.1" if modern else b"1.0"
        caller = await bench.caller()
        got = await caller.call(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
        assert (got.status, got.body, got.whole) == (200, body, True)
        assert got.interim == []
        if modern:
            assert (await caller.call(request())).body == body
        else:
            assert got.values(b"transfer-encoding") == []
            assert await caller.rest() == b""
        assert bench.entries[0].bytes_out == len(body)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_an_answer_that_breaks_off_breaks_off(raw: bytes) -> None:
    """Nothing is appended to it, and the client can tell."""
    async with (
        running(saying(raw, close=True)) as backend,
        gate_to(backend) as bench,
    ):
        got = await bench.call(request())
        assert got.status == 200
        assert not got.whole
        await bench.settled(1)
        assert bench.entries[0].reason == "upstream.broke"
        assert bench.entries[0].decision == "permit"


async def test_an_answer_of_which_nothing_was_sent_yet_is_502() -> None:
    """Head and garbage in one packet: the client never learns of the head."""
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"
    async with (
        running(saying(raw, close=True)) as backend,
        gate_to(backend) as bench,
    ):
        got = await bench.call(request())
        assert (got.status, got.whole) == (502, True)
        assert bench.entries[0].bytes_out == len(got.body)


async def test_a_connection_is_kept_and_used_again() -> None:
    """The warmest first; an HTTP/1.0 answer or `close` ends it."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        first, second = await bench.caller(), await bench.caller()
        for _ in range(5):
            assert (await first.call(request())).status == 200
            assert (await second.call(post(b"/", b"abc"))).status == 200
        assert len(backend.connections) == 1
    for raw in (
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        answer(b"ok", fields=b"connection: close\r\n"),
    ):
        async with running(saying(raw)) as backend, gate_to(backend) as bench:
            caller = await bench.caller()
            for _ in range(2):
                got = await caller.call(request())
                assert got.body == b"ok"
                assert got.values(b"connection") == []
            assert len(backend.connections) == 2


async def test_an_idle_connection_is_closed_before_the_backend_does_it() -> None:
    """Below the five seconds that backends like."""
    async with (
        running(echoing) as backend,
        gate_to(backend, keep_alive=0.2) as bench,
    ):
        caller = await bench.caller()
        assert (await caller.call(request())).status == 200
        async with asyncio.timeout(2):
            while not backend.connections[0].ended:
                await asyncio.sleep(0.02)
        assert (await caller.call(request())).status == 200
        assert len(backend.connections) == 2


async def test_a_reused_connection_that_ends_is_no_502() -> None:
    """R34: a bodyless idempotent request goes out once more, on a fresh one."""
    async with running(backends.dropping(3)) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        for number in range(8):
            target = b"/%d" % number
            got = await caller.call(request(target))
            assert got.status == 200
            assert got.body.startswith(target)


async def test_nothing_that_acts_is_sent_twice() -> None:
    """R34: a POST on a connection that ends is a 502, and was sent once."""
    for raw in (
        post(b"/act", b"x"),
        post(b"/act", b""),
        chunked(b"/act", b"x", b""),
        b"PUT /act HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        b"PATCH /act HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        async with running(backends.dropping(1)) as backend, gate_to(backend) as bench:
            caller = await bench.caller()
            assert (await caller.call(request(b"/1"))).status == 200
            assert (await caller.call(raw)).status == 502
            assert backend.raw.count(b" /act ") == 1


async def test_a_fresh_connection_that_ends_is_not_tried_again() -> None:
    """R34: once, and only where reuse was to blame."""

    async def dead(connection: Connection) -> None:
        await connection.head()
        connection.reset()

    async with running(dead) as backend, gate_to(backend) as bench:
        assert (await bench.call(request())).status == 502
        assert len(backend.connections) == 1


async def test_random_closes_are_not_seen_by_who_only_reads() -> None:
    """R34: backends that close idle connections whenever they like."""
    served = 0

    async def moody(connection: Connection) -> None:
        nonlocal served
        for _ in range(1 + len(connection.backend.connections) % 3):
            await connection.request()
            served += 1
            await connection.send(answer(b"ok"))

    async with running(moody) as backend, gate_to(backend) as bench:

        async def many() -> None:
            caller = await bench.caller()
            for _ in range(40):
                assert (await caller.call(request())).status == 200

        await asyncio.gather(*[many() for _ in range(5)])
        assert served == 200


async def test_a_client_that_goes_takes_its_upstream_connection_along() -> None:
    """R32: what it asked for is nobody's answer."""
    async with running(backends.silent) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(request(b"/1"))
        async with asyncio.timeout(2):
            while not backend.raw:
                await asyncio.sleep(0.005)
        caller.close()
        async with asyncio.timeout(2):
            while not backend.connections[0].ended:
                await asyncio.sleep(0.005)
        await bench.settled(1)
        assert bench.entries[0].status is None
        assert bench.entries[0].reason == "client.gone"


SLOW = {
    "no answer": (backends.silent, 504),
    "half a head": (
        backends.dribbling(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", pause=0.25),
        504,
    ),
    "a stalled body": (
        saying(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
        200,
    ),
}
SLOW["a head that drips"] = (
    backends.dribbling(*[b"HTTP/1.1 200 OK\r\n", *[b"x: y\r\n"] * 99], pause=0.1),
    504,
)
SHORT = Timeouts(connect=1.0, send_idle=0.3, first_byte=0.3, idle=0.3)


@pytest.mark.parametrize("name", SLOW)
async def test_a_slow_upstream_is_given_up(name: str) -> None:
    """R35: 504, or the end of what had begun."""
    behaviour, status = SLOW[name]
    async with (
        running(behaviour) as backend,
        gate_to(backend, timeouts=SHORT) as bench,
    ):
        async with asyncio.timeout(3):
            got = await bench.call(request())
        assert got.status == status
        assert got.whole == (status != 200)
        await bench.settled(1)
        assert bench.entries[0].reason == "upstream.timed_out"


async def test_the_total_time_is_the_last_word() -> None:
    """R35: an upstream that drips for ever ends all the same."""
    behaviour = backends.dribbling(
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", *[b"a"] * 99, pause=0.1
    )
    limits = Timeouts(total=0.6)
    async with (
        running(behaviour) as backend,
        gate_to(backend, timeouts=limits) as bench,
    ):
        async with asyncio.timeout(3):
            got = await bench.call(request())
        assert got.status == 200
        assert not got.whole


async def test_an_upstream_that_does_not_read_is_given_up() -> None:
    """R35: send_idle, for a body that nobody takes."""

    async def deaf(connection: Connection) -> None:
        await connection.head()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    async with (
        running(deaf) as backend,
        gate_to(backend, timeouts=SHORT) as bench,
    ):
        caller = await bench.caller()
        loop = asyncio.get_running_loop()
        sending = loop.create_task(caller.send(post(b"/large", b"a" * (64 << 20))))
        async with asyncio.timeout(5):
            got = await caller.answer()
        assert got.status == 504
        caller.close()
        await asyncio.gather(sending, return_exceptions=True)


async def test_nobody_there_is_502() -> None:
    """By name, never by address."""
    async with gate_to(None) as bench:
        got = await bench.call(request(b"/nowhere"))
        assert got.status == 502
        assert b"nowhere" in got.body
        assert b"127.0.0.1" not in got.body
        assert bench.entries[0].reason == "upstream.refused"


async def test_one_upstream_has_so_many_connections_and_no_more() -> None:
    """R35: the next one is told to come back, others are not affected."""
    async with (
        running(backends.silent) as backend,
        gate_to(backend, max_connections=2) as bench,
    ):
        callers = [await bench.caller() for _ in range(2)]
        for caller in callers:
            await caller.send(request())
        await bench.seen(2)
        async with asyncio.timeout(2):
            while len(backend.connections) < 2:
                await asyncio.sleep(0.005)
        got = await bench.call(request())
        assert got.status == 503
        assert got.values(b"retry-after")
        assert bench.entries[0].reason == "upstream.full"
        callers[0].close()
        await bench.settled(2)
        await asyncio.sleep(0.02)
        more = await bench.caller()
        await more.send(request())
        await bench.seen(4)
        await asyncio.sleep(0.05)
        assert len(bench.entries) == 2


async def test_idle_connections_have_a_bound() -> None:
    """max_idle are kept, the rest is closed."""
    async with (
        running(echoing) as backend,
        gate_to(backend, max_idle=1) as bench,
    ):
        callers = [await bench.caller() for _ in range(4)]
        await asyncio.gather(*[one.call(request(b"/wait/x")) for one in callers])
        async with asyncio.timeout(2):
            while sum(not one.ended for one in backend.connections) > 1:
                await asyncio.sleep(0.005)
        measured = {
            (family.name, *labels): value
            for family, labels, value in bench.port.pools["backend"].measure()
            if value
        }
        assert measured == {
            ("gateway_upstream_connections", "backend", "idle"): 1,
            ("gateway_upstream_endpoints", "backend", "up"): 1,
        }


async def _slow_uploads(connection: Connection, *, silent: bool) -> None:
    """Say 100 at once, read all, and answer, or not."""
    head = await connection.head()
    await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await connection.body(head)
    if not silent:
        await connection.send(answer(b"ok"))
    await connection.rest()


@pytest.mark.parametrize(("silent", "status"), [(False, 200), (True, 504)])
async def test_after_a_100_the_time_of_the_answer_begins_with_the_end_of_the_request(
    silent: bool, status: int
) -> None:
    """A long upload is no silence of the upstream; a silence after it is."""

    async def behave(connection: Connection) -> None:
        await _slow_uploads(connection, silent=silent)

    times = Timeouts(first_byte=0.5, idle=0.3)
    async with (
        running(behave) as backend,
        gate_to(backend, timeouts=times) as bench,
    ):
        caller = await bench.caller()
        await caller.send(
            b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            b"Content-Length: 12\r\n\r\n"
        )
        for _ in range(12):
            await asyncio.sleep(0.08)  # longer than idle in all, on the clock
            await caller.send(b"x")
        async with asyncio.timeout(5):
            found = await caller.answer()

    assert found.interim == [100]
    assert found.status == status


async def test_a_body_too_large_does_not_end_up_in_an_answer() -> None:
    """After the answer has begun there is nothing left to say it with."""

    async def behave(connection: Connection) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\nbegun")
        await connection.rest()

    async with running(behave) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(
            b"POST /small/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n"
        )
        begun = await caller.reader.readuntil(b"begun")
        await caller.send(b"%x\r\n%b\r\n" % (2000, b"a" * 2000))
        rest = await caller.rest()
        await bench.settled(1)

    assert begun.startswith(b"HTTP/1.1 200 ")
    assert b"413" not in rest

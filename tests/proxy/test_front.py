"""The client's side of the data port: framing, caps, deadlines, turns."""

from __future__ import annotations

import asyncio
import gc
import re
from dataclasses import replace

import pytest

from gateway.config.settings import Server
from gateway.proxy.exchange import Exchange
from gateway.proxy.front import NEVER
from gateway.proxy.server import DataPort
from tests import backends
from tests.backends import Connection, answer, echoing, running, saying, silent
from tests.proxy.harness import chunked, gate_to, post, request

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n"

AMBIGUOUS = {
    "length and chunked": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
    b"Content-Length: 44\r\n\r\n",
    "the same length twice": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
    b"Content-Length: 0\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 0x2\r\n\r\n",
    "an empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "an endless length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "
    + b"9" * 40
    + b"\r\n\r\n",
    "a length of 2^63": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 9223372036854775808\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a bare CR": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "a bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare LF in a field": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "another control": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    "an empty name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a name that is no token": b"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b?c\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a bad chunk size": chunked(b"/", b"abc") + b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk without its end": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
    "a chunk that ends in LF": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "a huge chunk size": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an answer": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "authority form": b"GET @evil/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a port and a user": b"GET :80@evil/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a backslash": b"GET \\evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "a query with a user": b"GET ?@evil HTTP/1.1\r\nHost: a\r\n\r\n",
    "no slash": b"GET admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form": b"GET http://evil/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a dot segment": b"GET /public/../admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT evil:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method nobody knows": b"GETX / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an upgrade with a body": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n"
    b"Upgrade: foo\r\nContent-Length: 3\r\n\r\nabc",
    "an upgrade in chunks": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n"
    b"Upgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
async def test_what_can_be_read_in_two_ways_is_refused(raw: bytes, pieces: str) -> None:
    """R2, R3, R4, R33: 4xx, and what follows never reaches the backend."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        sent = raw + SMUGGLED
        async with asyncio.timeout(5):
            if pieces == "whole":
                await caller.send(sent)
            else:
                for at in range(0, len(sent), 7):
                    try:
                        await caller.send(sent[at : at + 7])
                    except ConnectionError:
                        break
                    await asyncio.sleep(0)
            got = await caller.answer()
            assert 400 <= got.status < 500
            # Only what is whole in itself may leave the connection open, and then
            # what follows is a request of its own.
            follows = got.values(b"connection") == []
            if follows:
                assert (await caller.answer()).body == b"/smuggled  "
            else:
                assert got.values(b"connection") == [b"close"]
                caller.writer.write_eof()
                assert not await caller.rest()
        assert len(bench.entries) == 1 + follows
        assert len(backend.requests) == follows


CLOSES = {
    name
    for name in AMBIGUOUS
    if not name.startswith(
        (
            "no host",
            "two hosts",
            "a host",
            "authority",
            "a port",
            "a backslash",
            "a query",
            "no slash",
            "absolute",
            "a dot",
        )
    )
}


@pytest.mark.parametrize("name", sorted(CLOSES))
async def test_doubtful_framing_ends_the_connection(name: str) -> None:
    """R2: where a message may end elsewhere, nothing after it is a request."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        said = await bench.say(AMBIGUOUS[name] + SMUGGLED)
        assert re.match(rb"HTTP/1\.1 4\d\d ", said)
        assert said.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in said
        assert b"/smuggled" not in backend.raw
        assert len(bench.entries) == 1


async def test_a_plain_upgrade_is_a_plain_request() -> None:
    """R33: without a body it is served, not upgraded, and the rest is read on."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        fields = b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
        await caller.send(request(b"/up", fields) + request(b"/next"))
        assert (await caller.answer()).body == b"/up  "
        assert (await caller.answer()).body == b"/next  "
        assert b"upgrade" not in backend.raw.lower()
        assert b"http2-settings" not in backend.raw.lower()


async def test_what_is_wrong_behind_an_upgrade_is_the_clients_fault() -> None:
    """R33, I5: the rest is refused as it would be in a read of its own."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        fields = b"Connection: upgrade\r\nUpgrade: x\r\n"
        wrong = b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n"
        said = await bench.say(request(b"/up", fields) + wrong)
        assert re.findall(rb"HTTP/1\.1 (\d+)", said) == [b"200", b"400"]
        assert b"/x" not in backend.raw


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_a_request_may_come_in_pieces(step: int) -> None:
    """However it is cut, the same request arrives."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        raw = post(b"/a/b?c=d", b"hello", b"X-Long: " + b"v" * 300 + b"  \r\n")
        for at in range(0, len(raw), step):
            await caller.send(raw[at : at + step])
            await asyncio.sleep(0)
        assert (await caller.answer()).body == b"/a/b?c=d  hello"
        assert backend.requests[0].value(b"x-long") == b"v" * 300


async def test_a_head_is_cut_off_while_it_is_read() -> None:
    """R6: 64 MiB of one unfinished field end before 128 KiB were read."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        sent = 0
        try:
            await caller.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
            while sent < 64 << 20:
                await caller.send(b"a" * 4096)
                sent += 4096
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        # The sockets' own buffers hold some more than the port has read.
        assert sent < 8 << 20
        await bench.settled(1)
        assert bench.entries[0].status == 431
        assert not backend.requests


async def test_the_cap_is_exact() -> None:
    """A head of max_head bytes passes, one more byte does not."""
    async with (
        running(echoing) as backend,
        gate_to(backend, server=Server(max_head=1024)) as bench,
    ):
        base = len(request(b"/", b"X: \r\n"))
        fits = request(b"/", b"X: " + b"a" * (1024 - base) + b"\r\n")
        assert len(fits) == 1024
        assert (await bench.call(fits)).status == 200
        assert (await bench.call(fits.replace(b"X: ", b"X: a"))).status == 431
        long = await bench.call(request(b"/" + b"a" * 2000))
        assert long.status == 431
        assert long.values(b"connection") == [b"close"]


async def test_fields_are_counted() -> None:
    """R6: 100 fields pass, 101 don't."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        assert (await bench.call(request(b"/", b"a: b\r\n" * 99))).status == 200
        assert (await bench.call(request(b"/", b"a: b\r\n" * 100))).status == 431
        # Counted as they come: this head has no end yet, and few bytes.
        said = await bench.say(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 102)
        assert said.startswith(b"HTTP/1.1 431 ")
        assert len(backend.requests) == 1


async def test_trailers_are_dropped() -> None:
    """R14: what comes after the decision is no header."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        raw = chunked(b"/t", b"abc") + (
            b"0\r\nX-Gateway-Assertion: admin\r\nAuthorization: Bearer x\r\n"
            b"X-Forwarded-For: 1.2.3.4\r\n\r\n"
        )
        caller = await bench.caller()
        assert (await caller.call(raw)).body == b"/t  abc"
        assert (await caller.call(request(b"/n"))).body == b"/n  "
        assert backend.requests[0].trailers == b""
        for word in (b"admin", b"Bearer", b"1.2.3.4"):
            assert word not in backend.raw


@pytest.mark.parametrize(
    "tail",
    [b"0\r\n" + b"X-T: a\r\n" * 100_000, b"1;" + b"e" * 800_000],
    ids=["trailers", "extension"],
)
async def test_trailers_and_extensions_have_an_end(tail: bytes) -> None:
    """R6: what nobody reads can't be endless either."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        said = await bench.say(chunked(b"/t", b"abc") + tail)
        assert not said or said.startswith(b"HTTP/1.1 431 ")
        await bench.settled(1)
        assert bench.entries[0].status == 431


QUICK = Server(header_timeout=0.3, body_timeout=0.3, idle_timeout=0.3)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 0),
        (b"\r\n", 0),
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX", 408),
        (post(b"/", b"abc")[:-1], 408),
        (chunked(b"/", b"abc"), 408),
        (chunked(b"/", b"abc") + b"5\r\nab", 408),
        (request(b"/"), 200),
    ],
    ids=["nothing", "blank", "line", "field", "body", "chunks", "chunk", "idle"],
)
async def test_nobody_waits_for_ever(sent: bytes, status: int) -> None:
    """R5: no bytes, half a head, a stalled body, a stalled chunk, an idle one."""
    async with running(echoing) as backend, gate_to(backend, server=QUICK) as bench:
        loop = asyncio.get_running_loop()
        began = loop.time()
        said = await bench.say(sent, within=3)
        assert 0.2 < loop.time() - began < 1.5
        if not status:
            assert said == b""
            assert bench.entries == []
        else:
            assert said.startswith(b"HTTP/1.1 %d " % status)
            assert [entry.status for entry in bench.entries] == [status]


async def test_a_head_that_drips_ends() -> None:
    """R5: the deadline is for the whole head, not between two bytes."""
    async with running(echoing) as backend, gate_to(backend, server=QUICK) as bench:
        caller = await bench.caller()
        loop = asyncio.get_running_loop()
        began = loop.time()
        answered = loop.create_task(caller.answer())
        for byte in request(b"/drip" * 100):
            await caller.send(bytes([byte]))
            await asyncio.wait([answered], timeout=0.05)
            if answered.done():
                break
        assert loop.time() - began < 1.5
        assert (await answered).status == 408


async def test_a_slow_body_that_moves_is_awaited() -> None:
    """The deadline of a body is between two reads."""
    async with running(echoing) as backend, gate_to(backend, server=QUICK) as bench:
        caller = await bench.caller()
        await caller.send(chunked(b"/"))
        for _ in range(6):
            await asyncio.sleep(0.15)
            await caller.send(b"1\r\na\r\n")
        await caller.send(b"0\r\n\r\n")
        assert (await caller.answer()).body == b"/  aaaaaa"


async def test_who_was_slow_to_read_still_owes_its_body() -> None:
    """R5: an answer that began early ends no deadline of the request."""

    async def early(connection: Connection) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(80):
            await connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await connection.rest()

    async with running(early) as backend, gate_to(backend, server=QUICK) as bench:
        caller = await bench.caller(receive_buffer=4096)
        await caller.send(chunked(b"/large/x", b"part"))
        await bench.seen(1)
        (front,) = bench.port.fronts
        async with asyncio.timeout(30):
            while not front.is_full:
                await asyncio.sleep(0.001)
            while front.is_full:
                await caller.reader.read(65536)
            assert front.deadline < NEVER
            await caller.rest()


async def test_a_client_that_does_not_read_is_let_go() -> None:
    """R5: an answer nobody takes holds neither memory nor the upstream for long."""
    body = b"a" * (32 << 20)
    async with (
        running(saying(answer(body))) as backend,
        gate_to(backend, server=QUICK) as bench,
    ):
        caller = await bench.caller(receive_buffer=4096)
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await caller.send(request(b"/"))
        await bench.settled(1)
        assert bench.entries[0].status == 200
        assert bench.entries[0].reason == "client.gone"
        assert bench.entries[0].bytes_out < len(body)
        caller.close()


async def test_answers_come_in_the_order_of_the_requests() -> None:
    """Pipelined: each is decided in its turn, and answered in its turn."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(
            request(b"/wait/1")
            + request(b"/denied")
            + post(b"/2", b"two")
            + chunked(b"/wait/3", b"th", b"ree", b"")
            + b"HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n"
            + request(b"/5")[:20]
        )
        assert (await caller.answer()).body == b"/wait/1  "
        assert (await caller.answer()).status == 401
        assert (await caller.answer()).body == b"/2  two"
        assert (await caller.answer()).body == b"/wait/3  three"
        assert (await caller.answer(head_only=True)).status == 200
        await caller.send(request(b"/5")[20:])
        assert (await caller.answer()).body == b"/5  "
        targets = [one.target for one in backend.requests]
        assert targets == [b"/wait/1", b"/2", b"/wait/3", b"/4", b"/5"]


async def test_what_waits_is_not_decided_yet() -> None:
    """A later request is not even looked at while an earlier one is open."""
    async with running(silent) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(request(b"/1") + request(b"/2") + b"GARBAGE")
        async with asyncio.timeout(2):
            while not backend.raw:
                await asyncio.sleep(0.005)
        assert [head.target for head in bench.decision.heads] == [b"/1"]
        caller.close()
        await bench.settled(3)
        assert [entry.status for entry in bench.entries] == [None] * 3


async def test_garbage_behind_a_request_does_not_spoil_its_answer() -> None:
    """The request before is answered, then the garbage is refused."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        said = await bench.say(request(b"/wait/1") + b"\x00garbage\r\n\r\n" + SMUGGLED)
        assert said.count(b"HTTP/1.1 ") == 2
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 400 " in said
        assert b"/smuggled" not in backend.raw
        assert len(bench.entries) == 2


async def test_a_broken_body_of_one_that_waits_is_its_own_affair() -> None:
    """The one before it is answered; it is refused in its turn."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        said = await bench.say(request(b"/wait/1") + chunked(b"/2", b"ab") + b"xyz\r\n")
        assert said.count(b"HTTP/1.1 ") == 2
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 400 " in said
        assert [one.target for one in backend.requests] == [b"/wait/1"]


async def test_pipelining_has_a_bound() -> None:
    """More than sixteen that wait: those are answered, then it closes."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        raw = b"".join(request(b"/wait/%d" % number) for number in range(100))
        said = await bench.say(raw)
        assert said.count(b"HTTP/1.1 200 ") == 17
        assert len(bench.entries) == 17
        assert len(backend.requests) == 17


async def test_nothing_follows_a_request_that_is_the_last() -> None:
    """`Connection: close`: what comes after it is not a request."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        said = await bench.say(request(b"/1", b"Connection: close\r\n") + SMUGGLED)
        assert said.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in said
        assert b"smuggled" not in backend.raw
        assert len(bench.entries) == 1


@pytest.mark.parametrize(
    ("raw", "stays"),
    [
        (b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", False),
    ],
)
async def test_the_client_says_whether_it_goes_on(raw: bytes, stays: bool) -> None:
    """RFC 9112 section 9.3, for both versions, after an answer and a refusal."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        for target in (b"/a", b"/denied"):
            caller = await bench.caller()
            got = await caller.call(raw.replace(b"/a", target))
            if stays:
                assert got.values(b"connection") != [b"close"]
                assert (await caller.call(raw)).status == 200
            else:
                assert got.values(b"connection") == [b"close"]
                assert await caller.rest() == b""
            caller.close()


async def test_connections_have_a_cap() -> None:
    """R5: one more than the cap is closed; room is given back."""
    async with (
        running(echoing) as backend,
        gate_to(backend, server=Server(max_connections=2)) as bench,
    ):
        first, second = await bench.caller(), await bench.caller()
        assert (await first.call(request())).status == 200
        assert (await second.call(request())).status == 200
        third = await bench.caller()
        assert await third.rest() == b""
        first.close()
        async with asyncio.timeout(2):
            while len(bench.port.fronts) > 1:
                await asyncio.sleep(0.005)
        fourth = await bench.caller()
        assert (await fourth.call(request())).status == 200
        for one in (second, third, fourth):
            one.close()


async def test_the_http2_preface_is_answered_in_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever tries HTTP/2 finds the reason in the answer and in the log."""
    caplog.set_level("INFO", logger="gateway.proxy")
    async with running(echoing) as backend, gate_to(backend) as bench:
        said = await bench.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00")
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"HTTP/2 is not served here" in said
        assert "HTTP/2 is not served here" in caplog.text
        assert [entry.reason for entry in bench.entries] == ["request.http2"]
        assert [entry.status for entry in bench.entries] == [400]


async def test_a_bug_ends_its_own_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """500 and close for it, nothing for the neighbours; the log has the place."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        neighbour = await bench.caller()
        assert (await neighbour.call(request())).status == 200
        for target in (b"/bug", b"/wait/bug"):
            got = await bench.call(request(target))
            assert got.status == 500
            assert got.values(b"connection") == [b"close"]
            assert b"mistake" not in got.body
        assert (await neighbour.call(request())).status == 200
        assert caplog.text.count("RuntimeError: a mistake") == 2
        neighbour.close()


async def test_an_unread_body_does_not_drown_the_refusal() -> None:
    """R7: refused at the head; at most 64 KiB of what follows is read."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(
            b"POST /denied HTTP/1.1\r\nHost: a\r\nContent-Length: 10737418240\r\n\r\n"
        )
        got = await caller.answer()
        assert got.status == 401
        assert got.values(b"connection") == [b"close"]
        sent = 0
        try:
            async with asyncio.timeout(3):
                while True:
                    await caller.send(b"a" * 16384)
                    sent += 16384
                    await asyncio.sleep(0.001)
        except ConnectionError:
            pass
        assert sent < 16 << 20
        assert bench.entries[0].bytes_in == 0
        assert backend.raw == b""


async def test_no_100_for_a_refused_request() -> None:
    """R7: `Expect: 100-continue` is answered by the decision."""
    async with running(backends.patient) as backend, gate_to(backend) as bench:
        said = await bench.say(
            b"POST /denied HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert said.startswith(b"HTTP/1.1 401 ")
        assert b" 100 " not in said
        assert backend.raw == b""


ODD_LINES = [
    b"GET  / HTTP/1.1",
    b"GET /  HTTP/1.1",
    b" GET / HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b"GET\t/ HTTP/1.1",
    b"\nGET / HTTP/1.1",
    b"\r\n\r\nGET / HTTP/1.1",
    b"GET / RTSP/1.0",
    b"GET / ICE/1.0",
    b"GET / HTTP/1.10",
    b"GET /",
    b"GET / HTTP/1.1\nX: y",
]


@pytest.mark.parametrize("cut", [None, 1, 5])
@pytest.mark.parametrize("line", ODD_LINES)
async def test_a_request_line_is_spelt_in_one_way(line: bytes, cut: int | None) -> None:
    """The parser would take some of these for a plain GET (R2)."""
    data = line + b"\r\nHost: shop.example\r\n\r\n"
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        if cut is not None:
            await caller.send(data[:cut])
            await asyncio.sleep(0.02)  # so that it comes in two reads
        await caller.send(data[cut or 0 :])
        found = await caller.rest()
        caller.close()

        assert found.startswith(b"HTTP/1.1 400 ")
        assert not backend.raw
        assert len(bench.entries) == 1


async def test_an_empty_line_before_a_request_is_no_harm() -> None:
    """RFC 9112 section 2.2: old clients send one after a POST."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        first = await caller.call(request(b"/a"))
        second = await caller.call(b"\r\n" + request(b"/b"))
        await caller.send(b"\r\n")
        await asyncio.sleep(0.02)
        third = await caller.call(request(b"/c"))

    assert [first.status, second.status, third.status] == [200, 200, 200]


@pytest.mark.parametrize("step", ["on_end", "on_progress", "on_known", "on_answer"])
async def test_a_mistake_of_ours_keeps_nobody_waiting(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered, or the connection ends; never silence."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    slow = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no"
    behaviour = (
        backends.dribbling(slow, b"k", pause=0.01)
        if step == "on_progress"
        else saying(answer(b"ok"))
    )
    async with running(behaviour) as backend, gate_to(backend) as bench:
        if step == "on_known":
            assert (await bench.call(request(b"/a"))).status == 200
        monkeypatch.setattr(Exchange, step, fail)
        found = await bench.say(request(b"/a"))

        assert found.startswith(b"HTTP/1.1 500 ")
        assert bench.entries[-1].reason == "bug"


async def test_a_log_that_fails_keeps_nobody_waiting() -> None:
    """The request is answered; the failure is in our own log."""

    def fail(_entry: object) -> None:
        raise ZeroDivisionError

    async with running(echoing) as backend, gate_to(backend) as bench:
        bench.port.gate = replace(bench.gate, log=fail)
        found = await bench.call(request(b"/a"))

    assert found.status == 200


async def test_a_connection_that_can_not_be_admitted_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the reason: nobody else would ever look at it."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with running(echoing) as backend, gate_to(backend) as bench:
        monkeypatch.setattr(DataPort, "admit", fail)

        assert await bench.say(request(b"/a")) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request(b"/a"),
        request(b"/wait/a"),
        post(b"/a", b"abc"),
        chunked(b"/a", b"abc", b""),
        request(b"/denied"),
        request(b"/nowhere/a"),
        request(b"/a", b"Host: another\r\n"),
        request(b"/a", b"Connection: close\r\n"),
        b"GET /a HTTP/1.1\r\nHost: sh",
    ],
)
async def test_a_connection_leaves_no_garbage(data: bytes) -> None:
    """What is over goes by itself: serving lets Python look for garbage only seldom."""
    async with running(echoing) as backend, gate_to(backend) as bench:

        async def come_and_go() -> None:
            caller = await bench.caller()
            if data.endswith(b"\r\n\r\n") or data.startswith(b"POST"):
                await caller.call(data)
            else:
                await caller.send(data)
            caller.close()
            async with asyncio.timeout(5):
                while bench.port.fronts:
                    await asyncio.sleep(0.005)

        await come_and_go()
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await come_and_go()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = [f"{type(each).__module__}" for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert [kind for kind in kinds if kind.startswith("gateway")] == []

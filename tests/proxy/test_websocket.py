"""gateway.proxy.websocket: the handshake on the wire, to the byte, and how it fails."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.config.settings import Server, Timeouts
from gateway.model import Denial, Reason, Sockets
from gateway.wire.frames import CLOSE
from gateway.wire.websocket import accept_of
from tests.backends import Behaviour, Connection, answer, echoing, running, saying
from tests.proxy.harness import ALICE, ROUTE, Bench, Caller, gate_to, request
from tests.wire.test_frames import made
from tests.wire.test_websocket import ACCEPT, KEY

SOCKET = replace(ROUTE, id="socket", websocket=Sockets(per_subject=1))
FIELDS = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
)
HELLO = made(1, b"hello")
REPLY = made(1, b"hello", mask=b"")


def shake(target: bytes = b"/socket", fields: bytes = b"") -> bytes:
    return request(target, FIELDS + fields)


def switch(key: bytes, fields: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 101 Whatever\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept_of(key), fields)
    )


def opening(
    fields: bytes = b"",
    behind: bytes = b"",
    make: Callable[[bytes], bytes] | None = None,
) -> Behaviour:
    """Answer a handshake, say *behind* in the same breath, then listen."""

    async def behave(connection: Connection) -> None:
        received = await connection.request()
        key = received.value(b"sec-websocket-key")
        said = switch(key, fields) if make is None else make(key)
        await connection.send(said + behind)
        await connection.rest()
        connection.ended = True

    return behave


def routed(bench: Bench) -> Bench:
    bench.decision.routes["socket"] = SOCKET
    return bench


async def opened(bench: Bench, fields: bytes = b"") -> Caller:
    """Return a client that has been told 101."""
    caller = await routed(bench).caller()
    await caller.send(shake(fields=fields))
    head = await caller.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    return caller


async def test_the_handshake_is_ours_on_both_sides() -> None:
    """Key, version and subprotocols; what was agreed, and nothing of what was not."""
    fields = (
        b"Sec-WebSocket-Protocol: chat, bearer.secret\r\n"
        b"Sec-WebSocket-Protocol: v2\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Sec-WebSocket-Odd: x\r\nX-Gateway-Assertion: forged\r\nCookie: a=b\r\n"
        b"Authorization: Bearer secret\r\n"
    )
    said = (
        b"Sec-WebSocket-Protocol: v2\r\nSet-Cookie: c=d\r\nServer: x\r\n"
        b"X-Gateway-Assertion: forged\r\nX-Own: 1\r\n"
    )
    async with running(opening(said)) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(shake(fields=fields))
        head = await caller.reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].split(b"\r\n")
        got = [tuple(each.split(b": ")) for each in lines]
        sent = backend.requests[0]
        assert line == b"HTTP/1.1 101 Switching Protocols"
        assert sorted(got) == [
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", ACCEPT),
            (b"sec-websocket-protocol", b"v2"),
            (b"set-cookie", b"c=d"),
            (b"upgrade", b"websocket"),
            (b"x-own", b"1"),
            (b"x-request-id", sent.value(b"x-request-id")),
        ]
        assert (sent.method, sent.target) == (b"GET", b"/socket")
        assert sent.value(b"connection") == b"Upgrade"
        assert sent.value(b"upgrade") == b"websocket"
        assert sent.value(b"sec-websocket-version") == b"13"
        assert sent.value(b"sec-websocket-protocol") == b"chat, v2"
        assert sent.value(b"sec-websocket-key") != KEY
        assert sent.value(b"x-gateway-assertion") == b"alice"
        assert sent.value(b"cookie") == b"a=b"
        assert sent.value(b"host") == b"shop.example"
        for name in (b"extensions", b"odd"):
            assert sent.values(b"sec-websocket-" + name) == []
        assert b"secret" not in backend.raw
        assert bench.decision.heads[0].kind == "websocket"


async def test_frames_go_through_as_they_are() -> None:
    """Also those that came with the 101, and in pieces."""
    async with (
        running(opening(behind=REPLY + REPLY[:3])) as backend,
        gate_to(backend) as bench,
    ):
        caller = await opened(bench)
        assert await caller.reader.readexactly(len(REPLY)) == REPLY
        for at in range(len(HELLO)):
            await caller.send(HELLO[at : at + 1])
        async with asyncio.timeout(5):
            while not backend.raw.endswith(b"\r\n\r\n" + HELLO):
                await asyncio.sleep(0.005)


async def test_a_close_is_not_lost_to_what_is_said_behind_it() -> None:
    """The connection ends as RFC 6455 section 7.1.1 has it: half first, and read on."""
    goodbye = made(CLOSE, mask=b"")
    async with (
        running(opening(behind=goodbye)) as backend,
        gate_to(backend) as bench,
    ):
        caller = await opened(bench)
        await caller.send(made(CLOSE))
        await bench.settled(1)
        sock = caller.writer.get_extra_info("socket")
        for _ in range(3):  # a reset is the answer to the first, and fails the next
            assert os.write(sock.fileno(), HELLO) == len(HELLO)
        assert await caller.rest() == goodbye
        caller.close()
        async with asyncio.timeout(5):
            while bench.port.fronts:
                await asyncio.sleep(0.005)


async def test_nothing_goes_upstream_before_the_decision() -> None:
    """No connection is made for who is refused."""
    async with running(opening()) as backend, gate_to(backend) as bench:
        routed(bench)
        for target, status in ((b"/denied", 401), (b"/away", 503), (b"/bug", 500)):
            assert (await bench.call(shake(target))).status == status
        assert backend.connections == []


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (shake().replace(KEY, b"short"), 400, "upgrade.refused:key"),
        (shake().replace(b": 13", b": 12"), 426, "upgrade.version"),
        (shake(fields=b"Sec-WebSocket-Protocol: a, a\r\n"), 400, "upgrade.refused"),
        (shake(fields=b"Content-Length: 3\r\n") + b"abc", 400, "upgrade.refused:body"),
    ],
)
async def test_what_is_no_handshake_is_refused(
    data: bytes, status: int, reason: str
) -> None:
    """With a status, and the backend has heard nothing."""
    async with running(opening()) as backend, gate_to(backend) as bench:
        got = await routed(bench).call(data)
        assert got.status == status
        assert (got.values(b"sec-websocket-version") == [b"13"]) is (status == 426)
        assert str(bench.entries[0].reason).startswith(reason)
        assert backend.connections == []


@pytest.mark.parametrize(
    "make",
    [
        lambda key: switch(b"x" + key),
        lambda key: switch(key).replace(b"Upgrade: websocket\r\n", b""),
        lambda key: switch(key).replace(b"Connection: upgrade\r\n", b""),
        lambda key: switch(key).replace(b"1.1 101", b"1.0 101"),
        lambda key: switch(key, b"Sec-WebSocket-Extensions: x\r\n"),
        lambda key: switch(key, b"Sec-WebSocket-Protocol: other\r\n"),
        lambda key: switch(key, b"Transfer-Encoding: chunked\r\n"),
        lambda key: switch(key, b"X: a\x00b\r\n"),
        lambda key: b"HTTP/1.1 103 Early Hints\r\n\r\n" + switch(key),
        lambda _: b"HTTP/1.1 020 Odd\r\n\r\n",
        lambda _: b"not HTTP\r\n\r\n",
        lambda _: b"x" * (70 * 1024),
    ],
)
async def test_an_upstream_that_answers_something_else_is_broken(
    make: Callable[[bytes], bytes],
) -> None:
    """502, and the connection to it is closed."""
    async with running(opening(make=make)) as backend, gate_to(backend) as bench:
        got = await routed(bench).call(shake())
        assert got.status == 502
        assert bench.entries[0].reason == "upstream.broke"
        async with asyncio.timeout(5):
            while not backend.connections[0].ended:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("raw", "close", "body"),
    [
        (answer(b"no", status=b"403 Forbidden"), False, b"no"),
        (answer(b""), False, b""),
        (
            b"HTTP/1.1 404 \r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            False,
            b"no",
        ),
        (b"HTTP/1.1 500 No\r\n\r\nto the end", True, b"to the end"),
    ],
)
async def test_an_answer_that_does_not_switch_is_the_clients(
    raw: bytes, close: bool, body: bytes
) -> None:
    """R33: relayed as any other, and that connection serves nobody else."""
    async with (
        running(saying(raw, close=close)) as backend,
        gate_to(backend) as bench,
    ):
        got = await routed(bench).call(shake())
        assert (got.status, got.body) == (int(raw[9:12]), body)
        assert got.values(b"connection") == [b"close"]
        assert (await bench.call(request(b"/"))).status == int(raw[9:12])
        assert len(backend.connections) == 2
        async with asyncio.timeout(5):
            while not (close or backend.connections[0].ended):
                await asyncio.sleep(0.005)
        assert bench.entries[0].reason is None


async def test_a_silent_upstream_has_its_time() -> None:
    """504 after `first_byte`, as for any request; and a 502 where nobody listens."""

    async def silent(connection: Connection) -> None:
        await connection.rest()
        connection.ended = True

    times = Timeouts(connect=1.0, first_byte=0.1)
    async with running(silent) as backend, gate_to(backend, timeouts=times) as bench:
        assert (await routed(bench).call(shake())).status == 504
        assert bench.entries[0].reason == "upstream.timed_out"
        bench.decision.routes["nowhere"] = SOCKET
        assert (await bench.call(shake(b"/nowhere"))).status == 502
        assert bench.entries[1].reason == "upstream.refused"


async def test_a_client_that_leaves_before_the_101_takes_all_with_it() -> None:
    """R32; and its seat is free again."""

    async def silent(connection: Connection) -> None:
        await connection.rest()
        connection.ended = True

    async with running(silent) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(shake())
        async with asyncio.timeout(5):
            while not backend.raw.endswith(b"\r\n\r\n"):
                await asyncio.sleep(0.005)
        caller.close()
        await bench.settled(1)
        assert bench.entries[0].reason == "client.gone"
        async with asyncio.timeout(5):
            while not backend.connections[0].ended:
                await asyncio.sleep(0.005)
        assert bench.port.streams.take_seat(("socket", "corp", "alice"), 1)


async def test_a_kept_connection_is_left_to_requests() -> None:
    """It may be too old, and could not be tried again; nor is it kept longer for it."""
    behaviours = [echoing, opening()]

    async def each(connection: Connection) -> None:
        await behaviours.pop(0)(connection)

    async with running(each) as backend, gate_to(backend) as bench:
        assert (await bench.call(request(b"/first"))).status == 200
        (kept,) = bench.port.pools["backend"].connections
        until = kept.deadline
        await opened(bench)
        assert len(backend.connections) == 2
        assert kept.deadline == until
        assert (await bench.call(request(b"/again"))).body.startswith(b"/again")


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "early", [HELLO, b"GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n"]
)
async def test_what_comes_before_the_101_spoils_it(
    early: bytes, together: bool
) -> None:
    """It is no frame and no request: neither is passed on (R33)."""
    go = asyncio.Event()

    async def late(connection: Connection) -> None:
        received = await connection.request()
        await go.wait()
        await connection.send(switch(received.value(b"sec-websocket-key")))
        await connection.rest()

    async with running(late) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(shake() + early if together else shake())
        if not together:
            await bench.seen(1)
            await caller.send(early)
            await asyncio.sleep(0.05)
        go.set()
        got = await caller.answer()
        assert got.status == 400
        await caller.rest()
        assert bench.entries[0].reason == "upgrade.refused:early"
        assert len(bench.decision.heads) == 1
        assert early not in backend.raw


async def test_behind_a_refused_handshake_nothing_is_http() -> None:
    """A client that went on with frames would be read as one that smuggles."""
    smuggled = request(b"/smuggled")
    async with running(echoing) as backend, gate_to(backend) as bench:
        for target in (b"/denied", b"/plain"):
            said = await routed(bench).say(shake(target) + smuggled)
            assert said.count(b"HTTP/1.1 ") == 1
        assert [head.path for head in bench.decision.heads] == [b"/denied", b"/plain"]
        assert b"smuggled" not in backend.raw


async def test_a_route_without_websockets_serves_a_plain_request() -> None:
    """As for any other upgrade (R33); the backend sees none, and no token."""
    token = b"Sec-WebSocket-Protocol: bearer.secret, chat\r\n"
    async with running(echoing) as backend, gate_to(backend) as bench:
        got = await bench.call(shake(b"/plain", token))
        assert (got.status, got.values(b"connection")) == (200, [b"close"])
        for word in (b"websocket", b"upgrade", b"secret"):
            assert word not in backend.raw.lower()


async def test_pipelined_requests_come_first() -> None:
    """The handshake waits for its turn."""
    behaviours = [echoing, opening()]

    async def each(connection: Connection) -> None:
        await behaviours.pop(0)(connection)

    async with running(each) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(request(b"/first") + shake())
        assert (await caller.answer()).status == 200
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        await caller.send(HELLO)
        async with asyncio.timeout(5):
            while not backend.raw.endswith(HELLO):
                await asyncio.sleep(0.005)


async def test_a_decision_that_waits_is_waited_for() -> None:
    """The 101 comes after it; and a denial after it is one."""
    async with running(opening()) as backend, gate_to(backend) as bench:
        routed(bench).decision.routes["wait"] = SOCKET
        caller = await bench.caller()
        await caller.send(shake(b"/wait/long"))
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert (await bench.call(shake(b"/wait/denied"))).status == 401
        assert len(backend.connections) == 1


async def test_a_claim_that_no_header_can_say_refuses_it() -> None:
    """As for any request (R95)."""
    async with running(opening()) as backend, gate_to(backend) as bench:
        bench.decision.routes["unspeakable"] = SOCKET
        assert (await bench.call(shake(b"/unspeakable"))).status == 401
        assert backend.connections == []
        assert bench.port.streams.take_seat(("socket", "corp", "alice"), 1)


async def test_an_http_1_0_client_gets_no_websocket() -> None:
    """RFC 6455 section 4.1 asks for 1.1."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        data = shake().replace(b"HTTP/1.1", b"HTTP/1.0")
        assert (await routed(bench).call(data)).status == 200
        assert b"upgrade" not in backend.raw.lower()


async def test_a_port_that_drains_ends_what_it_has() -> None:
    """1001, and a client that does not answer is not waited for long."""
    async with running(opening()) as backend, gate_to(backend) as bench:
        caller = await opened(bench)
        closing = asyncio.ensure_future(bench.port.close(5))
        assert await caller.reader.readexactly(4) == b"\x88\x02\x03\xe9"
        await caller.send(made(8, b"\x03\xe9"))
        await asyncio.sleep(0.05)
        caller.close()
        await closing
        assert bench.entries[0].reason == "close.1001:gateway"


async def test_a_socket_behind_many_requests_is_read_too() -> None:
    """Reading had paused, because so many waited before it."""

    async def behave(connection: Connection) -> None:
        while True:
            received = await connection.request()
            key = received.values(b"sec-websocket-key")
            if key:
                await connection.send(switch(key[0]))
                assert await connection.reader.readexactly(len(HELLO))
                await connection.send(REPLY)
                await connection.rest()
                return
            await connection.send(answer(b"ok"))

    async with running(behave) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(request(b"/wait/x") * 9 + shake())
        for _ in range(9):
            assert (await caller.answer()).status == 200
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        await caller.send(HELLO)
        async with asyncio.timeout(5):
            assert await caller.reader.readexactly(len(REPLY)) == REPLY


async def test_what_opens_while_a_port_drains_is_ended_at_once() -> None:
    """The upstream was asked already, so it is told as the client is."""
    go = asyncio.Event()

    async def late(connection: Connection) -> None:
        received = await connection.request()
        await go.wait()
        await connection.send(switch(received.value(b"sec-websocket-key")))
        await connection.rest()

    async with running(late) as backend, gate_to(backend) as bench:
        caller = await routed(bench).caller()
        await caller.send(shake())
        async with asyncio.timeout(5):
            while not backend.raw.endswith(b"\r\n\r\n"):
                await asyncio.sleep(0.005)
        closing = asyncio.ensure_future(bench.port.close(5))
        await asyncio.sleep(0)
        go.set()
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert await caller.reader.readexactly(4) == b"\x88\x02\x03\xe9"
        caller.close()
        await closing


async def test_a_slow_client_is_given_up() -> None:
    """Who takes nothing for `body_timeout` holds memory that others could use."""

    async def pouring(connection: Connection) -> None:
        received = await connection.request()
        await connection.send(switch(received.value(b"sec-websocket-key")))
        piece = made(2, b"x" * 60_000, mask=b"")
        while True:
            await connection.send(piece)

    async with (
        running(pouring) as backend,
        gate_to(backend, server=Server(body_timeout=0.3)) as bench,
    ):
        routed(bench)
        caller = await bench.caller(receive_buffer=4096)
        await caller.send(shake())
        await bench.settled(1)
        assert bench.entries[0].reason == "close.1006:client"
        assert bench.entries[0].status == 101
        assert len(bench.port.streams) == 0


@pytest.mark.parametrize(
    ("denial", "code"),
    [
        (Denial(Reason.TOKEN_REVOKED), 4401),
        (Denial(Reason.TOKEN_EXPIRED), 4401),
        (Denial(Reason.ISSUER_UNTRUSTED), 4401),
        (Denial(Reason.CREDENTIAL_MISSING), 4401),
        (Denial(Reason.PERMISSION_MISSING, "orders:read"), 4403),
        (Denial(Reason.CONDITION_FAILED, "owner"), 4403),
        (Denial(Reason.ROUTE_UNKNOWN), 4403),
    ],
)
async def test_one_that_is_ended_is_told_why(denial: Denial, code: int) -> None:
    """401 becomes 4401, anything else 4403; the log has the reason, as of a request."""
    async with running(opening()) as backend, gate_to(backend) as bench:
        caller = await opened(bench)
        (front,) = bench.port.fronts
        assert front.current is not None
        front.current.end(denial)
        front.current.end(Denial(Reason.DPOP_MISSING))  # the first one counts
        said = code.to_bytes(2, "big")
        assert await caller.rest() == made(CLOSE, said, mask=b"")
        await bench.settled(1)
        (entry,) = bench.entries
        assert (entry.decision, entry.reason) == ("deny", str(denial))
        assert (entry.status, entry.route) == (101, "socket")
        assert (entry.principal, entry.upstream) == (
            bench.decision.principal,
            "backend",
        )


async def test_one_that_is_ended_has_no_time_to_finish_a_frame() -> None:
    """Nor to answer: half a second, and the connection is cut."""
    half = made(1, b"x" * 500, mask=b"")[:300]
    async with running(opening(behind=half)) as backend, gate_to(backend) as bench:
        caller = await opened(bench)
        assert await caller.reader.readexactly(len(half)) == half
        began = time.monotonic()
        (front,) = bench.port.fronts
        assert front.current is not None
        front.current.end(Denial(Reason.TOKEN_REVOKED))
        assert await caller.rest() == b""
        assert time.monotonic() - began < 2
        await bench.settled(1)
        assert bench.entries[0].reason == "token.revoked"


@pytest.mark.parametrize("behaviour", ["open", "silent"])
async def test_one_is_listed_from_its_handshake_on(behaviour: str) -> None:
    """With the end of its token, whatever its route says."""

    async def silent(connection: Connection) -> None:
        await connection.rest()
        connection.ended = True

    known = opening() if behaviour == "open" else silent
    async with running(known) as backend, gate_to(backend) as bench:
        bench.decision.principal = replace(ALICE, expires_at=time.time() + 0.1)
        caller = await routed(bench).caller()
        await caller.send(shake())
        await bench.settled(1)
        assert bench.entries[0].reason == "token.expired"
        assert len(bench.port.streams) == 0
        status = 101 if behaviour == "open" else 401
        assert bench.entries[0].status == status

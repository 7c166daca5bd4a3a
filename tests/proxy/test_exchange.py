"""One request and its answer: what is sent to either side, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from gateway.config.settings import Server, Timeouts
from gateway.wire.headers import Hygiene
from tests import backends
from tests.backends import Connection, answer, echoing, running, saying
from tests.proxy.harness import chunked, gate_to, post, request

EXPECT = b"Expect: 100-continue\r\n"


async def test_a_route_has_so_many_requests_in_flight_and_no_more() -> None:
    """R35: more are told to come back; other routes of its upstream are not affected.

    Its room is free again however they end.
    """

    async def slow(connection: Connection) -> None:
        while True:
            got = await connection.request()
            if b"silent" in got.target:
                await connection.rest()
            await connection.send(answer(b"ok"))

    times = Timeouts(first_byte=0.5)
    async with running(slow) as backend, gate_to(backend, timeouts=times) as bench:
        for end in ("client", "timeout"):
            callers = [await bench.caller() for _ in range(2)]
            logged = len(bench.entries)
            for caller in callers:
                await caller.send(request(b"/narrow/silent"))
            async with asyncio.timeout(2):
                while bench.port.in_flight["narrow"] < 2:
                    await asyncio.sleep(0.005)
            full = await bench.call(request(b"/narrow/a"))
            assert full.status == 503
            assert full.values(b"retry-after") == [b"1"]
            assert bench.entries[-1].reason == "route.full"
            assert bench.entries[-1].route == "narrow"
            assert (await bench.call(request(b"/b"))).status == 200
            if end == "client":
                for caller in callers:
                    caller.close()
            else:
                got = [await caller.answer() for caller in callers]
                assert [one.status for one in got] == [504, 504]
            await bench.settled(logged + 4)
            assert not bench.port.in_flight
            for _ in range(4):
                assert (await bench.call(request(b"/narrow/c"))).status == 200
        assert not bench.port.in_flight


async def test_what_was_permitted_is_what_is_sent() -> None:
    """R11: method and target byte for byte; the Host is the client's."""
    target = b"/a%20b/c;d=1?e=%2F&f=%zz&g"
    async with running(echoing) as backend, gate_to(backend) as bench:
        assert (await bench.call(request(target))).status == 200
        sent = backend.requests[0]
        assert (sent.method, sent.target) == (b"GET", target)
        assert sent.value(b"host") == b"shop.example"
        assert sent.values(b"content-length") == []
        assert sent.values(b"transfer-encoding") == []
        assert sent.values(b"connection") == []


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("client", b"shop.example"),
        ("upstream", b"127.0.0.1:%d"),
        ("orders", b"orders"),
    ],
)
async def test_the_host_is_as_configured(host: str, told: bytes) -> None:
    """The client's validated one, the upstream's own, or a name."""
    async with running(echoing) as backend, gate_to(backend, host=host) as bench:
        await bench.call(request())
        told = told % backend.port if b"%d" in told else told
        assert backend.requests[0].value(b"host") == told


async def test_identity_is_ours_alone() -> None:
    """I3, R16: written after what is theirs; nothing in `Connection` takes it away."""
    fields = (
        b"X-Gateway-Assertion: mallory\r\nx_gateway_assertion: mallory\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"
        b"Authorization: Bearer secret\r\nX-Other: stays\r\nX-Named: mine\r\n"
        b"Connection: close, X-Gateway-Assertion, x-forwarded-for, AUTHORIZATION, "
        b"x-named\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: b\r\n"
        b"Upgrade: h2c\r\nTrailer: x\r\n"
    )
    async with running(echoing) as backend, gate_to(backend) as bench:
        assert (await bench.call(request(b"/", fields))).status == 200
        sent = backend.requests[0]
        names = [name for name, _ in sent.headers]
        after = names[names.index(b"x-gateway-assertion") + 1 :]
        assert after == [b"x-request-id", b"traceparent"]
        assert sent.value(b"x-gateway-assertion") == b"alice"
        assert sent.value(b"x-forwarded-for") == b"127.0.0.1"
        assert sent.value(b"x-other") == b"stays"
        for word in (b"mallory", b"6.6.6.6", b"secret", b"mine", b"h2c", b"trailers"):
            assert word not in backend.raw


async def test_a_public_route_tells_of_nobody() -> None:
    """No assertion; the credential is the backend's affair there."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        got = await bench.call(request(b"/public/x", b"Authorization: Bearer t\r\n"))
        assert got.values(b"vary") == []
        sent = backend.requests[0]
        assert sent.values(b"x-gateway-assertion") == []
        assert sent.value(b"authorization") == b"Bearer t"


async def test_credentials_stay_here_unless_told() -> None:
    """R19: the route's word is the last; its upstream's is in it when it is loaded."""
    fields = b"Authorization: Bearer t\r\n"
    for target, passes in ((b"/", False), (b"/public/a", True)):
        async with (
            running(echoing) as backend,
            gate_to(backend, pass_credentials=not passes) as bench,
        ):
            await bench.call(request(target, fields))
            assert bool(backend.requests[0].values(b"authorization")) is passes


async def test_the_answer_is_cleaned() -> None:
    """R20: hop-by-hop, our names and what `Connection` names go; ours come."""
    raw = answer(
        b"ok",
        status=b"200 Whatever They Say",
        fields=b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"X-Gateway-Assertion: forged\r\nX-Request-Id: theirs\r\nServer: secret/1\r\n"
        b"Proxy-Authenticate: x\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nX-Own: 1\r\n",
    )
    async with running(saying(raw)) as backend, gate_to(backend) as bench:
        got = await bench.call(request())
        assert got.raw_head.startswith(b"HTTP/1.1 200 OK\r\n")
        names = [name for name, _ in got.headers]
        assert sorted(names) == [
            b"content-length",
            b"set-cookie",
            b"set-cookie",
            b"vary",
            b"x-own",
            b"x-request-id",
        ]
        assert got.values(b"vary") == [b"Authorization"]
        said = got.values(b"x-request-id")[0]
        assert said == backend.requests[0].value(b"x-request-id")
        assert bench.entries[0].request_id == said.decode()
        trace = backend.requests[0].value(b"traceparent")
        # A trace that begins here has the request's own id.
        assert bench.entries[0].trace_id == trace[3:35].decode() == said.decode()


@pytest.mark.parametrize(
    ("target", "status", "decision", "reason"),
    [
        (b"/x", 200, "permit", None),
        (b"/denied", 401, "deny", "credential.missing"),
        (b"/away", 503, "outage", "revocation store"),
        (b"/bug", 500, "error", "bug"),
        (b"/wait/x", 200, "permit", None),
        (b"/wait/denied", 401, "deny", "token.revoked"),
        (b"/wait/away", 503, "outage", "revocation store"),
        (b"/wait/bug", 500, "error", "bug"),
        (b"/nowhere", 502, "permit", "upstream.refused"),
        (b"/unspeakable", 401, "deny", "token.claim:sub"),
        (b"/a/../b", 400, "deny", "target.ambiguous:dot segment"),
    ],
)
async def test_every_request_is_logged_once(
    target: bytes, status: int, decision: str, reason: str | None
) -> None:
    """With what was decided, and why; never with a query."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        got = await bench.call(request(target + b"?secret=1"))
        assert got.status == status
        (entry,) = bench.entries
        assert (entry.status, entry.decision, entry.reason) == (
            status,
            decision,
            reason,
        )
        assert entry.path == target.decode()
        assert entry.method == "GET"
        assert entry.client == "127.0.0.1"
        assert got.values(b"x-request-id") == [entry.request_id.encode()]
        assert entry.bytes_out == len(got.body)
        assert entry.ms >= 0
        if status == 503:
            assert got.values(b"retry-after")
        if status == 200:
            assert (entry.route, entry.upstream) == ("any", "backend")
            assert entry.principal is not None
            assert entry.upstream_ms is not None


async def test_bodies_stream_both_ways() -> None:
    """More than any buffer, byte for byte, with a length and in chunks."""
    body = bytes(range(256)) * (16 << 10)  # 4 MiB

    async def mirror(connection: Connection) -> None:
        while True:
            request = await connection.request()
            if request.values(b"content-length"):
                await connection.send(answer(request.body))
            else:
                await connection.send(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for at in range(0, len(request.body), 70_000):
                    piece = request.body[at : at + 70_000]
                    await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await connection.send(b"0\r\n\r\n")

    async with running(mirror) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        pieces = [body[at : at + 99_999] for at in range(0, len(body), 99_999)]
        for raw in (post(b"/up", body), chunked(b"/up", *pieces, b"")):
            got = await caller.call(raw)
            assert got.body == body
        assert [entry.bytes_in for entry in bench.entries] == [len(body)] * 2
        assert [entry.bytes_out for entry in bench.entries] == [len(body)] * 2
        assert len(backend.connections) == 1


async def test_a_slow_reader_slows_its_upstream_down() -> None:
    """Back-pressure: memory does not grow with the answer."""
    sent = 0

    async def fountain(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 268435456\r\n\r\n")
        while True:
            await connection.send(b"a" * 65536)
            sent += 65536

    async with running(fountain) as backend, gate_to(backend) as bench:
        caller = await bench.caller(receive_buffer=4096)
        await caller.send(request())
        await asyncio.sleep(0.5)
        assert 0 < sent < 16 << 20
        before = sent
        for _ in range(2000):
            await caller.reader.readexactly(8192)
        await asyncio.sleep(0.1)
        assert sent > before


async def test_a_slow_upstream_slows_its_client_down() -> None:
    """Back-pressure the other way."""
    gate = asyncio.Event()

    async def lazy(connection: Connection) -> None:
        request = await connection.head()
        await gate.wait()
        await connection.body(request)
        await connection.send(answer(b"%d" % len(request.body)))

    async with running(lazy) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        body = b"a" * (64 << 20)
        sending = asyncio.get_running_loop().create_task(
            caller.send(post(b"/large", body))
        )
        await asyncio.sleep(0.5)
        assert not sending.done()
        gate.set()
        assert (await caller.answer()).body == b"%d" % len(body)
        await sending


async def test_nothing_is_read_ahead_of_a_decision() -> None:
    """R7: while a decision is pending, a body waits in the client's hands."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        bench.decision.delay = 0.4
        caller = await bench.caller()
        body = b"a" * (9 << 20)
        loop = asyncio.get_running_loop()
        sending = loop.create_task(caller.send(post(b"/wait/x", body)))
        await asyncio.sleep(0.3)
        assert not sending.done()
        assert not backend.raw
        assert (await caller.answer()).status == 200
        await sending


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (post(b"/small/%b", b"a" * 1000), 200),
        (post(b"/small/%b", b"a" * 1001), 413),
        (chunked(b"/small/%b", b"a" * 500, b"a" * 500, b""), 200),
        (chunked(b"/small/%b", b"a" * 500, b"a" * 501, b""), 413),
    ],
)
async def test_a_body_has_a_bound(raw: bytes, status: int, pending: bool) -> None:
    """413, on the length declared or while it streams; a route may differ."""
    async with (
        running(echoing) as backend,
        gate_to(backend, server=Server(max_body=1000)) as bench,
    ):
        raw = raw.replace(b"/small/%b", b"/wait/x" if pending else b"/small/x")
        got = await bench.call(raw)
        assert got.status == status
        if status == 413:
            assert got.values(b"connection") == [b"close"]
            assert all(one.body == b"" for one in backend.requests)
            assert bench.entries[0].reason == "body.too_large"


async def test_a_declared_body_that_is_too_large_is_not_read() -> None:
    """R7: refused at the head; a route of its own may take more."""
    server = Server(max_body=10)
    async with running(echoing) as backend, gate_to(backend, server=server) as bench:
        raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n"
        assert (await bench.call(raw)).status == 413
        assert backend.raw == b""
        assert (await bench.call(post(b"/large", b"a" * 11))).status == 200


async def test_a_100_is_the_upstreams() -> None:
    """Decided first, then forwarded, and its 100 relayed."""
    async with running(backends.patient) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        head, body = post(b"/", b"hello", EXPECT)[:-5], b"hello"
        await caller.send(head)
        assert await caller.reader.readuntil(b"\r\n\r\n") == (
            b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        await caller.send(body)
        assert (await caller.answer()).body == b"hello"
        assert backend.requests[0].value(b"expect") == b"100-continue"
        # Nobody asked for the next one.
        got = await caller.call(post(b"/", b"again"))
        assert got.interim == []
        assert got.body == b"again"


async def test_http_1_0_is_told_of_no_100() -> None:
    """RFC 9110 section 15.2: nor is its expectation passed on."""
    async with running(backends.patient) as backend, gate_to(backend) as bench:
        raw = post(b"/", b"hello", EXPECT).replace(b"HTTP/1.1", b"HTTP/1.0")
        got = await bench.call(raw)
        assert (got.body, got.interim) == (b"hello", [])
        assert backend.requests[0].values(b"expect") == []


async def test_an_answer_before_the_end_of_the_request_ends_both() -> None:
    """Relayed, sending stops, both connections close."""
    async with running(backends.hasty) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(chunked(b"/", b"abc"))
        got = await caller.answer()
        assert (got.status, got.body) == (403, b"no thanks")
        assert got.values(b"connection") == [b"close"]
        async with asyncio.timeout(3):
            assert await caller.rest() == b""
            while not backend.connections[0].reader.at_eof():
                await asyncio.sleep(0.01)
        assert len(bench.entries) == 1


async def test_an_underscore_may_be_refused() -> None:
    """`underscores = "reject"` is a 400 of the forwarder."""
    hygiene = Hygiene(underscores="reject")
    async with (
        running(echoing) as backend,
        gate_to(backend, hygiene=hygiene) as bench,
    ):
        assert (await bench.call(request(b"/", b"a_b: c\r\n"))).status == 400
        assert backend.raw == b""


async def test_a_client_that_goes_while_it_is_decided_costs_nothing() -> None:
    """R32: the decision runs to its end, and nothing is sent for it."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        for target in (b"/wait/x", b"/wait/denied", b"/wait/away"):
            bench.decision.delay = 0.05
            caller = await bench.caller()
            await caller.send(request(target))
            await bench.seen(len(bench.entries) + 1)
            caller.close()
            await bench.settled(len(bench.entries) + 1)
            async with asyncio.timeout(2):
                while bench.tasks:
                    await asyncio.sleep(0.005)
        assert backend.raw == b""
        assert [entry.reason for entry in bench.entries] == ["client.gone"] * 3


async def test_a_connection_made_in_vain_serves_the_next() -> None:
    """The client went while it was being opened: it is fresh, so it is kept."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(request(b"/1"))
        caller.close()
        await bench.settled(1)
        async with asyncio.timeout(2):
            while bench.tasks:
                await asyncio.sleep(0.005)
        assert (await bench.call(request(b"/2"))).body == b"/2  "
        assert len(backend.connections) <= 2


async def test_a_mistake_in_the_answer_is_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500, not 502: the upstream is not to blame."""

    def broken(*_: object, **__: object) -> list[tuple[bytes, bytes]]:
        raise RuntimeError("a mistake")

    async with running(echoing) as backend, gate_to(backend) as bench:
        monkeypatch.setattr(bench.gate.hygiene, "to_client", broken)
        got = await bench.call(request())
        assert got.status == 500
        assert "a mistake" in caplog.text
        assert bench.entries[0].reason == "bug"

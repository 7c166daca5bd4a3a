"""WebSockets through a whole gateway, between a client and a server that others wrote.

Both ends are the `websockets` package. It checks what it receives as strictly as we do,
so a frame that we bent would end a test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import resource
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from gateway.proxy import tunnel
from gateway.serving import Gateway
from gateway.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    code_of,
)
from tests.proxy.test_websocket import FIELDS
from tests.site import POLICY, Site
from tests.wire.test_frames import made

SHOP = Origin("https://shop.example")
LEEWAY = 30  # seconds; the issuer's

ROUTES = """
[[route]]
id        = "live"
methods   = ["GET"]
path      = "/live"
access    = "authenticated"
websocket = { max_message = "64 KiB", per_subject = 2 }

[[route]]
id        = "large"
methods   = ["GET"]
path      = "/large"
access    = "authenticated"
websocket = { max_message = "16 MiB" }

[[route]]
id        = "board"
methods   = ["GET"]
path      = "/board"
access    = "authenticated"
websocket = { origins = ["https://shop.example", "none"] }

[[route]]
id        = "page"
methods   = ["GET"]
path      = "/page"
access    = { public = "for everybody" }
websocket = { origins = ["https://shop.example"] }

[[route]]
id        = "maybe"
methods   = ["GET"]
path      = "/maybe"
access    = "optional"
websocket = { per_subject = 1 }
"""

Handler = Callable[[ServerConnection], Awaitable[None]]


async def echoing(socket: ServerConnection) -> None:
    async for said in socket:
        await socket.send(said)


@dataclass
class Fleet:
    """A gateway, the WebSocket server behind it, and what that has seen."""

    site: Site
    gateway: Gateway
    requests: list[Request] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)  # as the server saw them end

    def url(self, path: str) -> str:
        bound = self.gateway.bound[0]
        return f"ws://{bound.host}:{bound.port}/api/orders{path}"

    def connect(self, path: str = "/live", subject: str = "c-1", **how: Any) -> connect:
        """Return a connection to be; with a token unless `headers` says otherwise."""
        claims = how.pop("claims", {})
        headers = how.pop("headers", None)
        if headers is None:
            headers = self.site.bearer(subject, **claims)
        return connect(self.url(path), additional_headers=headers, **how)

    async def refused(self, path: str = "/live", **how: Any) -> Response:
        """Connect, and return the answer that refuses it."""
        with pytest.raises(InvalidStatus) as refusal:
            async with self.connect(path, **how):
                pass
        return refusal.value.response

    async def logged(self, entries: int) -> None:
        async with asyncio.timeout(5):
            while len(self.site.log) < entries:
                await asyncio.sleep(0.005)

    async def ended(self, sockets: int) -> None:
        async with asyncio.timeout(5):
            while len(self.codes) < sockets:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def fleet(
    directory: Path, handler: Handler = echoing, **how: Any
) -> AsyncIterator[Fleet]:
    """Run both."""
    site = Site(directory, policy=POLICY + ROUTES)
    found: Fleet | None = None

    async def handle(socket: ServerConnection) -> None:
        assert found is not None
        assert socket.request is not None
        found.requests.append(socket.request)
        try:
            await handler(socket)
            await socket.wait_closed()
        finally:
            found.codes.append(socket.close_code)

    how.setdefault("max_size", None)
    async with serve(handle, "127.0.0.1", 0, **how) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        site.upstream = f"http://127.0.0.1:{port}"
        async with site.running() as gateway:
            found = Fleet(site, gateway)
            yield found


async def test_what_is_said_is_echoed(tmp_path: Path) -> None:
    """Text, bytes, nothing, fragments and pings go through and come back."""
    async with fleet(tmp_path) as it:
        async with it.connect() as socket:
            for said in (
                "hello",
                "\u00fc\U0001f600",
                "",
                b"\x00\xff",
                b"",
                b"x" * 60_000,
            ):
                await socket.send(said)
                assert await socket.recv() == said
            await socket.send(["in ", "pieces ", "of ", "one"])
            assert await socket.recv() == "in pieces of one"
            await (await socket.ping(b"there?"))
        assert (socket.close_code, socket.close_reason) == (1000, "")
        await it.ended(1)
        assert it.codes == [1000]
        await it.logged(1)
        (entry,) = it.site.log
        assert (entry.status, entry.decision) == (101, "permit")
        assert (entry.route, entry.reason) == ("live", "close.1000:client")
        assert entry.principal is not None
        assert entry.principal.subject == "c-1"
        assert entry.bytes_in > entry.bytes_out > 60_000  # masks are four bytes
        assert entry.upstream == "orders"


FRAGMENTS = made(TEXT, b"a", fin=False) + made(CONTINUATION, b"b", fin=False)

# What a client says, and how many frames are the answer; by RFC 6455's sections.
SAID: tuple[tuple[bytes, int], ...] = (
    (made(TEXT), 1),
    (made(TEXT, b"x" * 125) + made(BINARY, b"x" * 126), 2),
    (made(BINARY, b"x" * 65_535) + made(BINARY, b"x" * 65_536), 2),
    (made(PING) + made(PING, b"x" * 125) + made(PONG, b"?") + made(TEXT, b"x"), 3),
    (FRAGMENTS + made(PING, b"between") + made(CONTINUATION, b"c"), 2),
    (made(TEXT, fin=False) + made(CONTINUATION, b"x"), 1),
    (made(TEXT, "\u03ba\U0001f600\ufffe".encode()), 1),
    (made(TEXT, b"\xce", fin=False) + made(CONTINUATION, b"\xba"), 1),
    # What no text may hold is found by the backend.
    (made(TEXT, b"\xf4\x90\x80\x80"), 1),
    (made(TEXT, b"\xce", fin=False) + made(CONTINUATION, b"x"), 1),
    (made(CLOSE), 1),
    (made(CLOSE, b"\x0f\xa0because"), 1),
    (made(CLOSE, b"\x03\xe8") + made(PING, b"late") + made(TEXT, b"late"), 1),
    # What breaks the rules.
    (made(CLOSE, b"\x03"), 1),
    (made(CLOSE, b"\x03\xed"), 1),
    (made(CLOSE, b"\x03\xe8\xce"), 1),
    (made(CLOSE, b"\x03\xe8" + b"x" * 124), 1),
    (made(TEXT, b"x", reserved=0x40), 1),
    (made(PING, reserved=0x70), 1),
    (made(3) + made(TEXT, b"late"), 1),
    (made(11), 1),
    (made(PING, fin=False), 1),
    (made(PING, b"x" * 126), 1),
    (made(CONTINUATION, b"x"), 1),
    (FRAGMENTS + made(TEXT, b"x"), 1),
    (made(TEXT, b"x", mask=b""), 1),
)


@pytest.mark.parametrize("piece", [1 << 20, 1])
async def test_a_client_sees_what_it_sees_directly(tmp_path: Path, piece: int) -> None:
    """Messages, pongs, the code of the Close: nothing comes on top, nothing is lost."""
    async with fleet(tmp_path, subprotocols=[Subprotocol("chat")]) as it:
        for said, answers in SAID:
            if piece < 1000 < len(said):
                continue  # a system call for each byte
            through = await heard(it, it.url("/live"), said, answers, piece)
            backend = it.site.upstream.replace("http:", "ws:")
            direct = await heard(it, backend, said, answers, piece)
            assert through == direct, said[:40]
            assert through[-1][0] == CLOSE
            assert len(through) - answers in {0, 1}


async def heard(
    it: Fleet, url: str, said: bytes, answers: int, piece: int
) -> list[tuple[int, bytes | int]]:
    """Say it, and Close behind the answers; return all frames, the Close as a code."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    token = it.site.token()
    head = f"GET {where.path or '/'} HTTP/1.1\r\nHost: shop.example\r\n"
    head += f"Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: chat\r\n"
    writer.write(head.encode() + FIELDS + b"\r\n")
    found: list[tuple[int, bytes | int]] = []
    async with asyncio.timeout(15):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(said), piece):
                writer.write(said[at : at + piece])
                await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                opcode, payload = await one_frame(reader)
                found.append((opcode, code_of(payload) if opcode == CLOSE else payload))
                if opcode == CLOSE or len(found) == answers:
                    writer.write(made(CLOSE, b"\x03\xe8"))
    writer.close()
    return found


async def one_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first & 0x0F, await reader.readexactly(size)


async def test_the_backend_learns_who_it_is_and_not_by_which_token(
    tmp_path: Path,
) -> None:
    """Hygiene and signed identity as for HTTP; the handshake is ours (R19, R93)."""
    async with fleet(tmp_path) as it:
        headers = it.site.bearer("c-1") | {
            "X-Gateway-Assertion": "forged",
            "X-Auth-Request-User": "mallory",
            "Cookie": "a=b",
        }
        async with it.connect(headers=headers, compression="deflate") as socket:
            assert socket.protocol.extensions == []
            request = it.requests[0]
            sent = request.headers
            assert request.path == "/api/orders/live"
            assert "authorization" not in sent
            assert sent.get_all("x-auth-request-user") == ["c-1"]
            assert sent["x-gateway-assertion"].count(".") == 2
            assert sent["x-forwarded-for"] == "127.0.0.1"
            assert sent["cookie"] == "a=b"
            assert "sec-websocket-extensions" not in sent
            assert sent.get_all("sec-websocket-version") == ["13"]
            assert socket.request is not None
            assert (
                sent["sec-websocket-key"] != socket.request.headers["sec-websocket-key"]
            )
            assert socket.response is not None
            assert socket.response.headers["x-request-id"] == sent["x-request-id"]


@pytest.mark.parametrize("encoded", [False, True])
async def test_a_token_may_be_a_subprotocol(tmp_path: Path, encoded: bool) -> None:
    """The only place that a browser has for it; it goes no further."""
    chat = Subprotocol("chat.v2")
    async with fleet(tmp_path, subprotocols=[chat, Subprotocol("other")]) as it:
        token = it.site.token("c-7")
        offered = Subprotocol(as_protocol(token, encoded=encoded))
        async with it.connect(headers={}, subprotocols=[offered, chat]) as socket:
            assert socket.subprotocol == "chat.v2"
        sent = it.requests[0].headers
        assert sent.get_all("sec-websocket-protocol") == ["chat.v2"]
        assert sent["x-auth-request-user"] == "c-7"
        assert not any(
            token in value or offered in value for _, value in sent.raw_items()
        )
        await it.logged(1)
        assert it.site.log[0].token_hash


def as_protocol(token: str, *, encoded: bool) -> str:
    if not encoded:
        return "bearer." + token
    said = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return "base64url.bearer.authorization.k8s.io." + said


async def test_a_backend_that_echoes_the_token_is_not_believed(tmp_path: Path) -> None:
    """It was offered no such subprotocol (RFC 6455 section 4.1)."""

    def choose(socket: ServerConnection, offered: Any) -> Subprotocol:
        return Subprotocol("bearer.x")

    async with fleet(tmp_path, select_subprotocol=choose) as it:
        refused = await it.refused(subprotocols=[Subprotocol("chat")])
        assert refused.status_code == 502
        await it.logged(1)
        assert it.site.log[0].reason == "upstream.broke"


async def test_a_refusal_comes_before_the_accept(tmp_path: Path) -> None:
    """A real status, and the backend has heard nothing."""
    async with fleet(tmp_path) as it:
        two = [Subprotocol("bearer." + it.site.token())]
        many = [*two, Subprotocol("bearer.b")]
        for how, status, reason in (
            ({"headers": {}}, 401, "credential.missing"),
            ({"headers": {"authorization": "Bearer x"}}, 401, "credential.unrecog"),
            ({"claims": {"exp": int(time.time()) - 60}}, 401, "token.expired"),
            ({"subprotocols": two}, 400, "credential.ambiguous:two credentials"),
            (
                {"headers": {}, "subprotocols": many},
                400,
                "credential.ambiguous:two credentials",
            ),
            ({"path": "/nowhere"}, 404, "route.unknown"),
        ):
            refused = await it.refused(**how)
            assert refused.status_code == status
            assert refused.headers["content-type"] == "application/problem+json"
            await it.logged(1)
            entry = it.site.log.pop()
            assert entry.reason is not None
            assert entry.reason.startswith(reason)
        assert it.requests == []


@pytest.mark.parametrize(
    ("path", "origin", "passes"),
    [
        ("/board", "https://shop.example", True),
        ("/board", "https://SHOP.example:443", True),
        ("/board", "https://evil.example", False),
        ("/board", "http://shop.example", False),
        ("/board", "https://shop.example.evil.example", False),
        ("/board", "null", False),
        ("/board", None, True),
        ("/page", "https://shop.example", True),
        ("/page", "https://evil.example", False),
        ("/page", None, False),
        ("/live", "https://evil.example", True),
    ],
)
async def test_a_page_of_another_origin_is_refused(
    tmp_path: Path, path: str, origin: str | None, passes: bool
) -> None:
    """Whatever it presents, and on a public route too (R93)."""
    async with fleet(tmp_path) as it:
        said = None if origin is None else Origin(origin)
        if passes:
            async with it.connect(path, origin=said):
                pass
            return
        refused = await it.refused(path, origin=said)
        assert refused.status_code == 403
        await it.logged(1)
        assert it.site.log[0].reason == "origin.forbidden"
        assert it.requests == []


async def test_a_caller_has_so_many_and_no_more(tmp_path: Path) -> None:
    """By subject, for each route; one that ends makes room."""
    async with fleet(tmp_path) as it:
        async with it.connect() as first, it.connect():
            refused = await it.refused()
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "10"
            async with it.connect(subject="c-2"), it.connect("/large"):
                pass
            await first.close()
            await it.logged(4)
            async with it.connect():
                pass
            await it.logged(5)
        reasons = [entry.reason for entry in it.site.log]
        assert reasons.count("socket.too_many") == 1


async def test_callers_without_a_name_are_counted_by_address(tmp_path: Path) -> None:
    """Or nobody would be a name for as many as like."""
    async with fleet(tmp_path) as it, it.connect("/maybe", headers={}):
        assert (await it.refused("/maybe", headers={})).status_code == 429
        async with it.connect("/maybe"):
            pass


async def test_it_ends_with_its_token(tmp_path: Path) -> None:
    """4401 on both sides, when a request with it would be refused: leeway and all."""
    async with fleet(tmp_path) as it:
        exp = int(time.time()) - LEEWAY + 2
        async with it.connect(claims={"exp": exp, "iat": exp - 60}) as socket:
            await socket.send("still here")
            assert await socket.recv() == "still here"
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(4):
                    await socket.recv()
        assert exp + LEEWAY <= time.time() < exp + LEEWAY + 1
        assert socket.close_code == 4401
        await it.ended(1)
        assert it.codes == [4401]
        await it.logged(1)
        (entry,) = it.site.log
        assert (entry.decision, entry.reason) == ("deny", "token.expired")
        assert entry.status == 101


async def test_a_drain_says_that_it_goes_away(tmp_path: Path) -> None:
    """1001 on both sides, and the port closes as soon as they have answered (R101)."""
    async with fleet(tmp_path) as it:
        async with it.connect() as socket:
            port = it.gateway.port
            assert port is not None
            began = time.monotonic()
            await port.close(grace=5)
            assert time.monotonic() - began < 2
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert socket.close_code == 1001
        await it.ended(1)
        assert it.codes == [1001]
        assert it.site.log[0].reason == "close.1001:gateway"


@pytest.mark.parametrize("pieces", [1, 16])
async def test_a_message_has_a_longest_from_the_client(
    tmp_path: Path, pieces: int
) -> None:
    """1009, in one frame or in many; the backend never has the whole of it."""
    async with fleet(tmp_path) as it:
        async with it.connect() as socket:
            await socket.send(b"x" * 64 * 1024)
            assert len(await socket.recv()) == 64 * 1024
            size = 64 * 1024 // pieces
            long: Any = [b"x" * size] * (pieces + 1)
            if pieces == 1:
                long = b"x" * (size + 1)
            with contextlib.suppress(ConnectionClosed):
                await socket.send(long)
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert socket.close_code == 1009
        await it.ended(1)
        assert it.codes == [1009]
        await it.logged(1)
        assert it.site.log[0].reason == "close.1009:gateway"


async def test_a_message_has_a_longest_from_the_backend(tmp_path: Path) -> None:
    """1009 likewise."""

    async def talkative(socket: ServerConnection) -> None:
        await socket.send(b"x" * (64 * 1024 + 1))

    async with fleet(tmp_path, talkative) as it:
        async with it.connect() as socket:
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert socket.close_code == 1009
        await it.ended(1)
        assert it.codes == [1009]


async def test_the_backends_close_is_the_clients(tmp_path: Path) -> None:
    """Code and reason go through as they are."""

    async def leaving(socket: ServerConnection) -> None:
        await socket.close(4000, "enough")

    async with fleet(tmp_path, leaving) as it:
        async with it.connect() as socket:
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4000, "enough")
        await it.logged(1)
        assert it.site.log[0].reason == "close.4000:upstream"


async def test_a_backend_that_breaks_off_is_a_bad_gateway(tmp_path: Path) -> None:
    """1014, as 502 would be."""

    async def breaking(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    async with fleet(tmp_path, breaking) as it:
        async with it.connect() as socket:
            await socket.send("go")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert socket.close_code == 1014
        await it.logged(1)
        assert it.site.log[0].reason == "close.1006:upstream"


async def test_a_client_that_is_gone_is_gone_for_the_backend(tmp_path: Path) -> None:
    """It sees the same: an end without a Close (R32)."""
    async with fleet(tmp_path) as it:
        async with it.connect() as socket:
            socket.transport.abort()
        await it.ended(1)
        assert it.codes == [1006]
        await it.logged(1)
        assert it.site.log[0].reason == "close.1006:client"


async def test_pings_keep_a_silent_one_and_end_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R93: who answers stays, and who has not by the next one is gone."""
    monkeypatch.setattr(tunnel, "PING_INTERVAL", 0.4)
    async with fleet(tmp_path, ping_interval=None) as it:
        async with it.connect(ping_interval=None) as alive:
            await asyncio.sleep(1.5)
            await alive.send("alive")
            assert await alive.recv() == "alive"
        async with it.connect(ping_interval=None) as dead:
            dead.transport.pause_reading()
            await it.ended(2)
            dead.transport.abort()
        assert it.codes == [1000, 1006]
        assert it.site.log[1].reason == "close.1006:client"


async def test_a_dead_backend_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client learns of it."""
    monkeypatch.setattr(tunnel, "PING_INTERVAL", 0.4)
    stopped = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await stopped.wait()
        socket.transport.abort()

    async with fleet(tmp_path, deaf, ping_interval=None) as it:
        async with it.connect(ping_interval=None) as socket:
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(4):
                    await socket.recv()
        stopped.set()
        assert socket.close_code == 1014


@pytest.mark.parametrize("to_client", [True, False])
async def test_who_is_slow_is_waited_for_in_flat_memory(
    tmp_path: Path, to_client: bool
) -> None:
    """While one side takes nothing, nothing is read from the other."""
    piece, count = b"x" * (1 << 20), 64
    sent = 0

    async def pour(socket: ServerConnection | ClientConnection) -> None:
        nonlocal sent
        for _ in range(count):
            await socket.send(piece)
            sent += 1

    async def drink(socket: ServerConnection | ClientConnection) -> int:
        return sum([len(await socket.recv()) for _ in range(count)])

    ready, taken = asyncio.Event(), 0

    async def backend(socket: ServerConnection) -> None:
        nonlocal taken
        if to_client:
            await pour(socket)
        else:
            await ready.wait()
            taken = await drink(socket)

    small: dict[str, Any] = {"max_queue": 1, "max_size": None, "compression": None}
    async with (
        fleet(tmp_path, backend, **small) as it,
        it.connect("/large", **small) as socket,
    ):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        pouring = None
        if not to_client:
            pouring = asyncio.ensure_future(pour(socket))
        stuck = -1
        while stuck != sent or not sent:
            stuck = sent
            await asyncio.sleep(0.5)
        # What fits into the buffers of four sockets in the kernel.
        assert stuck < count // 2
        ready.set()
        if pouring is None:
            taken = await drink(socket)
        else:
            await pouring
            while not taken:
                await asyncio.sleep(0.01)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken == count << 20
        # Both ends hold a message or two of a MiB; between them there is next to none.
        assert peak < 12 << 20
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 32 * 1024  # KiB


async def test_an_answer_that_is_no_websocket_is_the_clients(tmp_path: Path) -> None:
    """Relayed as it is, and that connection to the backend ends (R33)."""

    def refuse(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(418, "not here\n")

    async with fleet(tmp_path, process_request=refuse) as it:
        refused = await it.refused()
        assert refused.status_code == 418
        assert refused.body == b"not here\n"
        await it.logged(1)
        assert (it.site.log[0].status, it.site.log[0].reason) == (418, None)

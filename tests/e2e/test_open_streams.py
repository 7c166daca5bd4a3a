"""What is open ends within a second when it may be open no more (R64, R93).

The real command, a real Redis, one worker and two: WebSockets and server-sent events of
two people, so many that each worker has some of each. What ends one's leaves the
other's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.wire.frames import CLOSE
from tests.backends import Connection, running
from tests.e2e.fleet import Node, ask, node, until
from tests.proxy.test_websocket import FIELDS, HELLO, REPLY, switch
from tests.redis_server import RedisServer
from tests.site import AUDIENCE, POLICY
from tests.wire.test_frames import made

EACH = 6  # of a kind and a person: with two workers, one has none of 1 in 16 kinds
SOON = 1.0  # seconds
# Nobody is asked to go before the end of a test, when the second signal says so.
DRAIN = 'drain_delay = "60s"\ndrain_timeout = "1s"'
ROUTES = """
[[route]]
id        = "orders.live"
methods   = ["GET"]
path      = "/live"
require   = "orders:read"
websocket = {}

[[route]]
id      = "orders.feed"
methods = ["GET"]
path    = "/feed"
require = "orders:read"
stream  = true
"""
CUSTOMERS = """\
[roles.customer]
permissions = ["orders:read", "orders:write"]
"""
LESS = CUSTOMERS.replace('"orders:read", ', "")
ALLOWED = 'allow = ["customer", "support"]'
NEW = """
[[route]]
id      = "orders.new"
methods = ["GET"]
path    = "/new"
access  = { public = "says which configuration is in force" }
"""
EVENT = b"data: x\n\n\r\n"  # as the end of a chunk


@dataclass
class Stream:
    """One that is open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_socket: bool

    async def ends(self, code: int) -> float:
        """Wait until it ends as it should; return when (monotonic seconds)."""
        goodbye = made(CLOSE, code.to_bytes(2, "big"), mask=b"")
        if self.is_socket:
            assert await self.reader.readexactly(len(goodbye)) == goodbye
            self.writer.write(made(CLOSE))
            told = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert await self.reader.read() == b""
        return told if self.is_socket else time.monotonic()

    async def lives(self) -> bool:
        """Tell whether something still comes through."""
        if self.is_socket:
            self.writer.write(HELLO)
        expected = REPLY if self.is_socket else EVENT
        async with asyncio.timeout(10):
            with contextlib.suppress(asyncio.IncompleteReadError):
                return (await self.reader.readuntil(expected)).endswith(expected)
        return False


@dataclass
class House:
    """A gateway, what is behind it, and what is open."""

    node: Node
    again: asyncio.Event
    closing: contextlib.ExitStack

    async def opened(self, subject: str, *roles: str) -> list[Stream]:
        """Return as many of each kind as tell something about all workers."""
        fields = self.node.site.bearer(subject, *roles)
        return [
            await self._open(is_socket, fields)
            for is_socket in (True, False)
            for _ in range(EACH)
        ]

    async def _open(self, is_socket: bool, fields: dict[str, str]) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.node.port)
        self.closing.callback(writer.close)
        path = "live" if is_socket else "feed"
        lines = [f"GET /api/orders/{path} HTTP/1.1", "Host: shop.example"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join([*lines, ""]).encode() + (FIELDS if is_socket else b"")
        writer.write(head + b"\r\n")
        async with asyncio.timeout(10):
            await reader.readuntil(b"101 Switching" if is_socket else EVENT)
            if is_socket:
                await reader.readuntil(b"\r\n\r\n")
        return Stream(reader, writer, is_socket)

    def reasons(self) -> list[tuple[str, str]]:
        """Return decision and reason of what has ended so far."""
        lines = [json.loads(line) for line in self.node.command.out.splitlines()]
        paths = ("/live", "/feed")
        return [
            (each["decision"], each["reason"])
            for each in lines
            if each.get("path", "").endswith(paths)
        ]


@asynccontextmanager
async def house(directory: Path, store: str, workers: int) -> AsyncIterator[House]:
    again = asyncio.Event()

    async def behave(connection: Connection) -> None:
        received = await connection.request()
        keys = received.values(b"sec-websocket-key")
        if keys:
            await connection.send(switch(keys[0]))
            while True:
                await connection.reader.readexactly(len(HELLO))
                await connection.send(REPLY)
        if not received.target.endswith(b"/feed"):
            await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            return
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + EVENT[:-2])
        await again.wait()
        await connection.send(EVENT[:-2])
        await connection.rest()

    async with running(behave) as backend:
        given = await asyncio.to_thread(
            node,
            directory,
            backend.port,
            store=store,
            server=f"workers = {workers}",
            drain=DRAIN,
            policy=POLICY + ROUTES,
        )
        with given.command, contextlib.ExitStack() as closing:
            try:
                yield House(given, again, closing)
            finally:
                given.command.process.send_signal(signal.SIGTERM)
                await given.told("draining")  # and a second one does not wait


async def all_end(streams: Sequence[Stream], code: int, began: float) -> None:
    """Wait until all have ended as they should, within a second."""
    async with asyncio.timeout(10):
        times = await asyncio.gather(*(each.ends(code) for each in streams))
    assert max(times) - began < SOON


async def all_live(it: House, streams: Sequence[Stream]) -> None:
    it.again.set()
    assert all(await asyncio.gather(*(each.lives() for each in streams)))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_revocation_ends_what_is_open(
    tmp_path: Path, redis_server: RedisServer, workers: int
) -> None:
    """Of alice, everywhere; bob's goes on."""
    async with house(tmp_path, redis_server.url, workers) as it:
        site = it.node.site
        alice, bob = await it.opened("c-1"), await it.opened("c-2")
        words = ["revoke", "-c", str(site.config), "--sub", "c-1"]
        async with asyncio.timeout(5):  # they are counted once they have lasted a while
            dry, count = "", f"; {len(alice)} open streams\n"
            while not dry.endswith(count):
                outcome = await asyncio.to_thread(
                    CliRunner().invoke, main, [*words, "--dry-run"]
                )
                assert outcome.exit_code == 0, outcome.output
                dry = outcome.output
        outcome = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert outcome.exit_code == 0, outcome.output
        await all_end(alice, 4401, time.monotonic())
        await all_live(it, bob)
        await until(lambda: len(it.reasons()) >= len(alice), it.node.command)
        assert set(it.reasons()) == {("deny", "token.revoked")}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("old", "new", "code", "reason"),
    [
        (CUSTOMERS, LESS, 4403, "permission.missing:orders:read"),
        (ALLOWED, 'allow = ["support"]', 4403, "permission.missing:orders:read"),
        (AUDIENCE, "https://other.example", 4401, "token.audience"),
    ],
    ids=["role", "issuer's roles", "audience"],
)
async def test_a_reload_ends_what_it_no_longer_permits(
    tmp_path: Path,
    redis_server: RedisServer,
    workers: int,
    old: str,
    new: str,
    code: int,
    reason: str,
) -> None:
    """In workers that retire, and in those whose turn has not come."""
    async with house(tmp_path, redis_server.url, workers) as it:
        given, site = it.node, it.node.site
        alice = await it.opened("c-1")
        bob = await it.opened("c-2", "support")
        site.policy += NEW
        site.write()
        for path in (site.config, tmp_path / "policies" / "orders.toml"):
            path.write_text(path.read_text().replace(old, new))
        given.command.process.send_signal(signal.SIGHUP)
        # A worker by the new configuration serves when one has answered by it.
        async with asyncio.timeout(30):
            while await ask(given.port, "/api/orders/new") != 200:
                await asyncio.sleep(0.01)
        began = time.monotonic()
        if old == AUDIENCE:
            alice += bob
        await all_end(alice, code, began)
        if old != AUDIENCE:
            await all_live(it, bob)
        await until(lambda: len(it.reasons()) >= len(alice), given.command)
        assert set(it.reasons()) == {("deny", reason)}

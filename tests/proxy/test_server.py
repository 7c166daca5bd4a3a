"""Listening, admitting, closing."""

from __future__ import annotations

import asyncio
import itertools
import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.config.settings import Address, Server, UpstreamUrl
from gateway.observe.metrics import CONNECTIONS_REFUSED
from gateway.proxy import precedence
from gateway.proxy.server import DataPort
from gateway.proxy.sockets import bind
from tests.backends import dribbling, echoing, running, silent
from tests.proxy.harness import chunked, gate_to, request

SOME = ip_network("127.0.0.0/8")
LATE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"done"


async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """There the client has no address, and nobody invents one."""
    listen = Address(path=str(tmp_path / "data.sock"))
    async with (
        running(echoing) as backend,
        gate_to(backend, listen=listen) as bench,
    ):
        assert bench.port.bound == (listen,)
        assert (await bench.call(request(b"/u"))).body == b"/u  "
        assert bench.entries[0].client == ""
        assert backend.requests[0].values(b"x-forwarded-for") == []


async def test_a_unix_socket_is_replaced(tmp_path: Path) -> None:
    """A crash leaves one behind."""
    listen = Address(path=str(tmp_path / "data.sock"))
    bind(listen).close()
    async with (
        running(echoing) as backend,
        gate_to(backend, listen=listen) as bench,
    ):
        assert (await bench.call(request(b"/u"))).status == 200
        with pytest.raises(OSError, match="another process"):
            bind(listen)


async def test_it_listens_and_forwards_by_ipv6() -> None:
    """The client's address is written without brackets, as proxies do."""
    async with running(echoing) as backend:
        six = Address("::1", 0)
        async with (
            gate_to(backend, listen=six) as inner,
            gate_to(
                backend, listen=six, urls=(UpstreamUrl(inner.address, "inner"),)
            ) as bench,
        ):
            assert str(bench.address) == f"[::1]:{bench.address.port}"
            assert (await bench.call(request(b"/v6"))).body == b"/v6  "
            assert bench.entries[0].client == inner.entries[0].client == "::1"
            assert backend.requests[0].values(b"x-forwarded-for") == [b"::1"]


async def test_it_forwards_to_a_unix_socket(tmp_path: Path) -> None:
    """An upstream in the same pod needs no port."""
    path = str(tmp_path / "b.sock")
    async with (
        running(echoing, path) as backend,
        gate_to(backend, urls=(UpstreamUrl(Address(path=path), "localhost"),)) as bench,
    ):
        caller = await bench.caller()
        assert (await caller.call(request(b"/1"))).body == b"/1  "
        assert (await caller.call(request(b"/2"))).body == b"/2  "
        assert len(backend.connections) == 1


async def test_draining_tells_each_client_with_its_next_answer() -> None:
    """R101: nobody's request meets a connection that has just been closed."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        idle, busy = await bench.caller(), await bench.caller()
        assert (await idle.call(request(b"/1"))).values(b"connection") == []
        bench.decision.delay = 0.1
        await busy.send(request(b"/wait/2"))
        await bench.seen(2)
        bench.port.drain()
        assert (await busy.answer()).values(b"connection") == [b"close"]
        assert await busy.rest() == b""
        got = await idle.call(request(b"/3"))
        assert (got.status, got.values(b"connection")) == (200, [b"close"])
        assert await idle.rest() == b""
        late = await bench.caller()
        got = await late.call(request(b"/4"))
        assert (got.status, got.values(b"connection")) == (200, [b"close"])


async def test_an_answer_that_did_not_say_so_is_not_the_last() -> None:
    """Its head had gone out when the drain began: the next one says it."""
    async with (
        running(dribbling(LATE[0], LATE[1], pause=0.1)) as backend,
        gate_to(backend) as bench,
    ):
        caller = await bench.caller()
        await caller.send(request(b"/1"))
        got = await caller.answer(head_only=True)
        assert got.values(b"connection") == []
        bench.port.drain()
        assert (await caller.reader.readexactly(4)) == b"done"
        got = await caller.call(request(b"/2"))
        assert (got.body, got.values(b"connection")) == (b"done", [b"close"])


async def test_a_port_that_stopped_accepting_serves_who_is_there() -> None:
    """Others may have its sockets, and accept."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        assert (await caller.call(request(b"/1"))).status == 200
        address = bench.address
        bench.port.stop_accepting()
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection(address.host, address.port)
        assert (await caller.call(request(b"/2"))).status == 200
        assert not await bench.port.emptied(0.05)
        bench.port.drain()
        assert (await caller.call(request(b"/3"))).status == 200
        assert await bench.port.emptied(2)


async def test_closing_lets_what_is_in_hand_end() -> None:
    """Idle connections go at once, a request in hand is answered."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        idle, busy = await bench.caller(), await bench.caller()
        assert (await idle.call(request(b"/1"))).status == 200
        bench.decision.delay = 0.2
        await busy.send(request(b"/wait/2"))
        await bench.seen(2)
        loop = asyncio.get_running_loop()
        closing = loop.create_task(bench.port.close(5))
        assert await idle.rest() == b""
        got = await busy.answer()
        assert got.body == b"/wait/2  "
        assert got.values(b"connection") == [b"close"]
        assert await busy.rest() == b""
        async with asyncio.timeout(2):
            await closing


async def test_closing_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """After the grace the rest is cut off, a line says so, and each is logged."""
    async with running(silent) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        await caller.send(request(b"/1"))
        await bench.seen(1)
        half = await bench.caller()
        await half.send(chunked(b"/2", b"abc"))
        await bench.seen(2)
        async with asyncio.timeout(2):
            await bench.port.close(0.1)
        assert await caller.rest() == b""
        cut = [(entry.status, entry.reason) for entry in bench.entries]
        assert cut == [(None, "gateway.stopped")] * 2
        assert "2 requests were cut off, 0.1 s after" in caplog.text
        assert not bench.port.fronts


class Transport(asyncio.Transport):
    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})


async def test_one_address_has_a_cap_unless_it_is_ours() -> None:
    """R5: per peer, but not for loopback and trusted proxies."""
    proxies = (ip_network("10.0.0.0/8"),)
    server = Server(max_connections_per_peer=2, trusted_proxies=proxies)
    async with running(echoing) as backend, gate_to(backend, server=server) as bench:
        port, refused = bench.port, 0
        for address, admitted in (
            ("192.0.2.1", 2),
            ("::ffff:192.0.2.7", 2),
            ("127.0.0.1", 9),
            ("::1", 9),
            ("2001:db8::1", 2),
            ("10.1.2.3", 9),
        ):
            fronts = [_front(port) for _ in range(9)]
            got = [port.admit(front, Transport(address)) for front in fronts]
            assert sum(peer is not None for peer in got) == admitted, address
            for front in fronts:
                port.left(front)
            refused += 9 - admitted
            assert (CONNECTIONS_REFUSED, (), refused) in port.measure()
            # Room is given back whole.
            again = port.admit(fronts[0], Transport(address))
            assert again is not None
            port.left(fronts[0])


async def test_it_says_what_is_open_and_in_use() -> None:
    """A request in hand is one, an idle connection is none; both are open."""
    server = Server(max_connections=3)
    async with running(silent) as backend, gate_to(backend, server=server) as bench:
        idle = await bench.caller()
        assert (await idle.call(request(b"/denied"))).status == 401
        busy = [await bench.caller() for _ in range(2)]
        for caller in busy:
            await caller.send(request(b"/busy"))
        await bench.seen(3)
        assert await (await bench.caller()).rest() == b""
        while bench.port.pools["backend"].connecting:
            await asyncio.sleep(0.001)

        measured = {
            (family.name, *labels): value
            for family, labels, value in bench.port.measure()
            if value or family.name.startswith("gateway_conn")
        }

    assert measured == {
        ("http_server_active_requests",): 2,
        ("gateway_connections", "active"): 2,
        ("gateway_connections", "waiting"): 0,
        ("gateway_connections", "idle"): 1,
        ("gateway_connections", "handshake"): 0,
        ("gateway_connections_refused_total",): 1,
        ("gateway_upstream_connections", "backend", "lent"): 2,
        ("gateway_upstream_endpoints", "nowhere", "up"): 1,
        ("gateway_upstream_endpoints", "backend", "up"): 1,
    }


async def test_a_household_has_one_cap() -> None:
    """R5: a subscriber's /64 holds more addresses than we have room (RFC 6177)."""
    server = Server(max_connections_per_peer=2)
    async with running(echoing) as backend, gate_to(backend, server=server) as bench:
        port = bench.port
        fronts = [_front(port) for _ in range(4)]
        addresses = [
            "2001:db8::1",
            "2001:db8::2:0:0:1",
            "2001:db8::f:1",
            "2001:db8:0:1::",
        ]
        got = [
            port.admit(front, Transport(address))
            for front, address in zip(fronts, addresses, strict=True)
        ]
        assert [peer is not None for peer in got] == [True, True, False, True]
        for front in fronts:
            port.left(front)


def _front(port: DataPort):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from gateway.proxy.front import Front

    return Front(port)


async def test_names_are_made_in_blocks_and_never_twice() -> None:
    """Ids of requests are unguessable, at a fraction of a system call each."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        seen = {bench.port.names() for _ in range(1000)}
        assert len(seen) == 1000
        assert all(re.fullmatch(rb"[0-9a-f]{48}", one) for one in seen)
        ids = {(await bench.call(request())).values(b"x-request-id")[0] for _ in "abc"}
        assert len(ids) == 3
        assert all(len(one) >= 16 for one in ids)


async def test_a_trusted_proxy_is_believed() -> None:
    """R17: its word on the client counts, anybody else's does not."""
    told = b"X-Forwarded-For: 203.0.113.9\r\nX-Request-Id: theirs\r\n"
    for proxies, client, name in (
        ((), "127.0.0.1", False),
        ((SOME,), "203.0.113.9", True),
    ):
        server = Server(trusted_proxies=proxies)
        async with (
            running(echoing) as backend,
            gate_to(backend, server=server) as bench,
        ):
            got = await bench.call(request(b"/", told))
            assert bench.entries[0].client == client
            assert (got.values(b"x-request-id") == [b"theirs"]) is name


async def test_who_is_late_together_ends_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R5: thousands of slow clients are ended without a pause for all the others."""
    monkeypatch.setattr(precedence, "SHARE", 1e-6)  # less than it takes to end one
    monkeypatch.setattr(precedence, "PATIENCE", 60)
    server = Server(header_timeout=2.0)  # in which all have connected and sent
    async with running(echoing) as backend, gate_to(backend, server=server) as bench:
        slow = [await bench.caller() for _ in range(80)]
        for caller in slow:
            await caller.send(b"GET / HTTP/1.1\r\n")
        # The first may be late before the last is there, where the machine is busy.
        while len(bench.port.fronts) + len(bench.entries) < len(slow):
            await asyncio.sleep(0.01)
        left: list[int] = []
        while bench.port.fronts:
            left.append(len(bench.entries))
            await asyncio.sleep(0)
        # This task sees every turn of the loop, or every other.
        steps = [later - sooner for sooner, later in itertools.pairwise(left)]
        assert max(steps) <= 2
        assert [(await each.answer()).status for each in slow] == [408] * len(slow)
        assert len(bench.entries) == len(slow)

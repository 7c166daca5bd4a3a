"""gateway.proxy.names: the addresses of a name, and for how long they are good."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.names import Found, Names, Resolve, ask_system
from tests.name_server import SERVER_FAILURE, NameServer, name_server


async def nobody(host: str, port: int) -> Found:
    raise OSError(f"{host} is not found")


async def elsewhere(host: str, port: int) -> Found:
    return Found(["192.0.2.7"])


@contextlib.asynccontextmanager
async def finding(
    system: Resolve = nobody, **options: Any
) -> AsyncIterator[tuple[Names, NameServer]]:
    async with name_server() as server:
        names = Names(system, nameservers=[server.address], **options)
        try:
            yield names, server
        finally:
            await names.aclose()


async def test_addresses_of_both_versions_come_with_their_ttl() -> None:
    """The shortest, if there are several."""
    async with finding() as (names, server):
        server.zone["backend.test"] = ["127.0.0.2", "127.0.0.3", "::1"]
        server.ttl = 77
        found = await names.find("backend.test", 80)
        assert sorted(found.addresses) == ["127.0.0.2", "127.0.0.3", "::1"]
        assert found.ttl == 77


async def test_an_alias_is_good_for_no_longer_than_it_says() -> None:
    """RFC 1034 section 3.6.2: an alias has a TTL of its own."""
    async with finding() as (names, server):
        server.zone["www.test"] = ["backend.test"]
        server.zone["backend.test"] = ["127.0.0.2"]
        server.ttls = {"www.test": 5, "backend.test": 60}
        assert await names.find("www.test", 80) == Found(["127.0.0.2"], 5)


async def test_it_is_found_anew_when_its_time_is_over() -> None:
    """And not asked before: what is left of the TTL is told."""
    async with finding() as (names, server):
        server.zone["backend.test"] = ["127.0.0.2"]
        assert await names.find("backend.test", 80) == Found(["127.0.0.2"], 1)
        server.zone["backend.test"] = ["127.0.0.3"]
        async with asyncio.timeout(10):
            while (await names.find("backend.test", 80)).addresses != ["127.0.0.3"]:
                await asyncio.sleep(0.05)
        assert server.asked["backend.test"] == 2


async def test_a_short_name_is_searched_for() -> None:
    """In the domains of resolv.conf; there first, if it has fewer dots than ndots."""
    domains = ["shop.svc.test", "svc.test"]
    async with finding(domains=domains, ndots=2) as (names, server):
        server.zone["orders.svc.test"] = ["127.0.0.2"]
        server.zone["orders.shop.svc.test.svc.test"] = ["127.0.0.9"]
        server.zone["a.b"] = ["127.0.0.4"]
        assert (await names.find("orders", 80)).addresses == ["127.0.0.2"]
        assert list(server.asked) == ["orders.shop.svc.test", "orders.svc.test"]
        server.asked.clear()
        assert (await names.find("a.b", 80)).addresses == ["127.0.0.4"]
        assert list(server.asked) == ["a.b.shop.svc.test", "a.b.svc.test", "a.b"]


async def test_the_hosts_file_wins() -> None:
    """Nobody is asked for what stands in it."""
    lines = Path("/etc/hosts").read_text(encoding="utf-8").splitlines()
    entries = [line.partition("#")[0].split() for line in lines]
    address, name, *_ = next(each for each in entries if each and "." in each[0])
    async with finding() as (names, server):
        server.zone[name] = ["192.0.2.1"]
        found = await names.find(name, 80)
        assert address in found.addresses
        assert "192.0.2.1" not in found.addresses
        assert not server.asked


@pytest.mark.parametrize("why", ["no such name", "failure", "silence", "no address"])
async def test_what_it_does_not_find_the_system_is_asked_for(
    why: str,
) -> None:
    """It may know of other places; of how long it is good nobody tells."""
    async with finding(elsewhere) as (names, server):
        if why == "failure":
            server.code = SERVER_FAILURE
        server.is_silent = why == "silence"
        if why == "no address":
            server.zone["backend.test"] = []
        assert await names.find("backend.test", 80) == Found(["192.0.2.7"])
        assert server.asked["backend.test"] >= 1
    async with finding() as (names, _):
        with pytest.raises(OSError, match="not found"):
            await names.find("backend.test", 80)


async def test_the_system_knows_localhost() -> None:
    """What is asked in the end."""
    found = await ask_system("localhost", 80)
    assert set(found.addresses) & {"127.0.0.1", "::1"}
    assert found.ttl is None
    with pytest.raises(socket.gaierror):
        await ask_system("nowhere.invalid", 80)


async def test_nothing_waits_while_it_asks() -> None:
    """A silent name server is waited for in a thread that is not ours."""
    async with finding() as (names, server):
        server.is_silent = True
        loop = asyncio.get_running_loop()
        asking = loop.create_task(names.find("backend.test", 80))
        longest, last = 0.0, loop.time()
        while not asking.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, loop.time() - last), loop.time()
        with pytest.raises(OSError, match="not found"):
            await asking
        assert server.asked["backend.test"] == 2  # tries
        assert longest < 0.5  # seconds; its patience is three


async def test_resolv_conf_says_who_is_asked() -> None:
    """With nothing said, the name servers are the system's."""
    text = Path("/etc/resolv.conf").read_text(encoding="utf-8")
    servers = re.findall(r"^nameserver\s+([0-9.]+)\s*$", text, re.MULTILINE)
    names = Names(nobody)
    assert (await names.find("localhost", 80)).addresses
    assert names._resolver is not None
    assert set(servers) <= set(names._resolver.nameservers)
    await names.aclose()

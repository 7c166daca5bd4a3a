"""A name server on loopback that says what a test wants (RFC 1035, over UDP).

async with name_server() as names:
    names.zone["backend.test"] = ["127.0.0.2"]
    ...  # ask it at names.address
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

A, CNAME, AAAA = 1, 5, 28
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 0, 2, 3
_IN = 1
_ANSWER = 0x8180  # a response, recursion desired and available


@dataclass(eq=False)
class NameServer(asyncio.DatagramProtocol):
    """What it says, and what it was asked."""

    host: str = ""
    port: int = 0
    zone: dict[str, list[str]] = field(default_factory=dict)  # addresses, or one alias
    ttls: dict[str, int] = field(default_factory=dict)  # seconds; else `ttl`
    ttl: int = 1
    code: int = NO_ERROR  # said to every question, unless it is this
    is_silent: bool = False
    asked: Counter[str] = field(default_factory=Counter)  # of A, by name
    transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        at, labels = 12, []
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode("ascii"))
            at += 1 + size
        (kind,) = struct.unpack_from(">H", data, at + 1)
        name = ".".join(labels).lower()
        self.asked[name] += kind == A
        if self.is_silent:
            return
        records = self._records(name, kind)
        code = self.code
        if code == NO_ERROR and name not in self.zone:
            code = NO_SUCH_NAME
        count = 0 if code else len(records)
        head = struct.pack(">HHHHH", _ANSWER | code, 1, count, 0, 0)
        answer = b"" if code else b"".join(records)
        self.transport.sendto(data[:2] + head + data[12 : at + 5] + answer, addr)

    def _records(self, name: str, kind: int) -> list[bytes]:
        found = []
        for each in self.zone.get(name, ()):
            ttl = self.ttls.get(name, self.ttl)
            if each in self.zone:  # an alias
                found.append(_record(name, CNAME, ttl, _encoded(each)))
                found += self._records(each, kind)
                continue
            address = ipaddress.ip_address(each)
            if kind == (A if address.version == 4 else AAAA):
                found.append(_record(name, kind, ttl, address.packed))
        return found


def _encoded(name: str) -> bytes:
    labels = [each.encode("ascii") for each in name.split(".")]
    return b"".join(bytes([len(each)]) + each for each in labels) + b"\0"


def _record(name: str, kind: int, ttl: int, said: bytes) -> bytes:
    return _encoded(name) + struct.pack(">HHIH", kind, _IN, ttl, len(said)) + said


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Run one."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    server.host, server.port = transport.get_extra_info("sockname")
    try:
        yield server
    finally:
        transport.close()

"""Ask an endpoint whether it is well: one GET on a connection of its own.

Nobody's credential and no identity travel with it. Of the answer the status alone is
read; the rest is left, with the connection.

Imports: gateway.config.settings, gateway.proxy.upstream.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

from gateway.config.settings import HealthCheck
from gateway.proxy.upstream import Endpoint

_HEALTHY = re.compile(rb"HTTP/1\.[01] 2[0-9][0-9][ \r]")
_STATUS = len(b"HTTP/1.1 200 ")  # bytes


async def check(endpoint: Endpoint, rules: HealthCheck, host: bytes) -> bool:
    """Tell whether *endpoint* answers with 2xx in time.

    Args:
        endpoint: Who is asked.
        rules: What, and how long.
        host: What its Host field says.
    """
    answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    asked = b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % (
        rules.path.encode("ascii"),
        host,
    )
    transport = None
    try:
        async with asyncio.timeout(rules.timeout):
            transport, _ = await endpoint.reach(lambda: _Question(asked, answered))
            return await answered
    except OSError:  # TimeoutError is one
        return False
    finally:
        if transport is not None:
            transport.abort()


class _Question(asyncio.Protocol):
    def __init__(self, asked: bytes, answered: asyncio.Future[bool]) -> None:
        self._asked = asked
        self._answered = answered
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._read += data[:_STATUS]
        if len(self._read) >= _STATUS:
            self._end(healthy=_HEALTHY.match(self._read) is not None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end(healthy=False)

    def _end(self, *, healthy: bool) -> None:
        if not self._answered.done():
            self._answered.set_result(healthy)

"""The ports of a gateway that are opened once and for life: probes and admin.

Whoever has them, a process that serves by itself or the supervisor of several, gives
the answers.

Imports: gateway.asgi, gateway.config.settings, gateway.model, gateway.observe,
gateway.proxy, gateway.tokens.key_status, starlette.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from starlette.types import ASGIApp

from gateway.asgi.admin import admin
from gateway.asgi.api_keys import KeyOrder, Told
from gateway.asgi.probes import Check, probes
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import Orders
from gateway.asgi.servers import SmallServer
from gateway.config.settings import Admin, Settings
from gateway.observe.metrics import Snapshot
from gateway.proxy.sockets import bind
from gateway.signals import Spawn
from gateway.tokens.key_status import KeyReport


class Whole(Protocol):
    """A whole gateway, as it answers at these ports."""

    has_started: bool  # the data port has accepted connections

    def checks(self) -> Sequence[Check]: ...
    async def snapshots(self) -> Sequence[Snapshot]: ...
    async def keys(self) -> KeyReport: ...
    async def revoke(self, orders: Orders, /) -> Told: ...
    async def inquire(self, inquiry: Inquiry, /) -> Told: ...
    async def order_keys(self, order: KeyOrder, /) -> Told: ...


@contextlib.asynccontextmanager
async def small_ports(
    settings: Settings, spawn: Spawn, whole: Whole
) -> AsyncIterator[None]:
    """Open the ports that *settings* names, for *whole*; close them at the end.

    Raises:
        OSError: A port or a socket can't be had.
    """
    async with contextlib.AsyncExitStack() as closing:

        async def serve(app: ASGIApp, sock: socket.socket) -> None:
            server = SmallServer(app, sock, spawn)
            await server.start()
            closing.push_async_callback(server.stop)

        if settings.probes is not None:
            app = probes(lambda: whole.has_started, whole.checks, whole.snapshots)
            await serve(app, bind(settings.probes))
        if settings.admin is not None:
            listen, token = settings.admin.listen, settings.admin.token
            app = admin(
                whole.revoke, whole.inquire, whole.order_keys, whole.keys, token
            )
            await serve(app, bind(listen))
            if listen.path:
                closing.callback(Path(listen.path).unlink, missing_ok=True)
        yield


@contextlib.contextmanager
def private_directory(admin_at: Admin | None) -> Iterator[Path]:
    """Give a directory that only we can enter, for the sockets to ourselves."""
    if admin_at is not None and admin_at.listen.path:
        directory = Path(admin_at.listen.path).parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="gateway-") as made:
        yield Path(made)

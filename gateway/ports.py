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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from starlette.types import ASGIApp

from gateway.asgi import api_keys, revocation_list, revocations
from gateway.asgi.admin import admin
from gateway.asgi.probes import Check, probes
from gateway.asgi.servers import SmallServer
from gateway.config.settings import Admin, Settings
from gateway.observe.metrics import Snapshot
from gateway.proxy.sockets import bind
from gateway.signals import Spawn
from gateway.tokens.key_status import KeyReport


@contextlib.asynccontextmanager
async def small_ports(
    settings: Settings,
    spawn: Spawn,
    *,
    started: Callable[[], bool],
    checks: Callable[[], Sequence[Check]],
    revoke: revocations.CarryOut,
    inquire: revocation_list.Inquire,
    order_keys: api_keys.CarryOut,
    snapshots: Callable[[], Awaitable[Sequence[Snapshot]]],
    keys: Callable[[], Awaitable[KeyReport]],
) -> AsyncIterator[None]:
    """Open the ports that *settings* names; close them at the end.

    Raises:
        OSError: A port or a socket can't be had.
    """
    async with contextlib.AsyncExitStack() as closing:

        async def serve(app: ASGIApp, sock: socket.socket) -> None:
            server = SmallServer(app, sock, spawn)
            await server.start()
            closing.push_async_callback(server.stop)

        if settings.probes is not None:
            await serve(probes(started, checks, snapshots), bind(settings.probes))
        if settings.admin is not None:
            listen, token = settings.admin.listen, settings.admin.token
            app = admin(revoke, inquire, order_keys, keys, token)
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

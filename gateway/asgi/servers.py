"""uvicorn as a guest in our process: no signals, no log, no trust in headers.

It serves the ports that are not the data port (DESIGN section 8). Its own defaults
would believe X-Forwarded-For from loopback (R17) and print query strings (R96).

Imports: starlette, uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp


class _Guest(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the composition root has the signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()


class SmallServer:
    """Serves *app* on a socket that is already bound.

    Args:
        app: Probes, admin or our own endpoints.
        sock: Bound, not yet listening. The server closes it.
        spawn: Starts background work and keeps a reference to it.
    """

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._server = _Guest(
            uvicorn.Config(
                app,
                access_log=False,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",  # that it starts and stops, we say ourselves
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
            )
        )
        self._socket = sock
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once connections are accepted."""
        self._task = self._spawn(self._server.serve(sockets=[self._socket]))
        ready = asyncio.ensure_future(self._server.ready.wait())  # noqa: TID251
        try:
            await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            ready.cancel()
            await self.stop()  # or its socket would be nobody's
            raise
        if not ready.done():
            ready.cancel()
            raise OSError("a server for our own endpoints did not start")

    async def stop(self) -> None:
        """Stop accepting, finish what is in flight, return."""
        if self._task is not None:
            self._server.should_exit = True
            try:
                await self._task
            finally:
                # Whoever has no time for that cancels, and uvicorn leaves them open.
                for each in getattr(self._server, "servers", ()):
                    each.close()
                self._socket.close()

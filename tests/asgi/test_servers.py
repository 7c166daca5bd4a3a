"""gateway.asgi.servers: uvicorn as a guest."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.asgi.servers import SmallServer


def spawn(work: Any) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


async def show(request: Request) -> Response:
    return JSONResponse([request.client.host if request.client else ""])


async def test_it_serves_a_bound_socket_and_stops_when_told() -> None:
    """Signals stay ours, and no forwarded address is believed (R17)."""
    before = signal.getsignal(signal.SIGTERM)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    server = SmallServer(Starlette(routes=[Route("/", show)]), sock, spawn)

    await server.start()
    async with httpx2.AsyncClient() as client:
        answer = await client.get(url, headers={"x-forwarded-for": "9.9.9.9"})
        during = signal.getsignal(signal.SIGTERM)
    await server.stop()

    assert answer.json() == ["127.0.0.1"]
    assert "server" not in answer.headers
    assert during == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_to_stop_what_never_started_is_nothing() -> None:
    """The composition root may fail between making a server and starting it."""
    with socket.socket() as sock:
        await SmallServer(Starlette(), sock, spawn).stop()


async def test_a_stop_that_is_cut_short_closes_its_socket() -> None:
    """Though somebody still has no answer."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def hang(_: Request) -> Response:
        asked.set()
        await go_on.wait()
        return Response()

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    server = SmallServer(Starlette(routes=[Route("/", hang)]), sock, spawn)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asked.wait()

    stopping = spawn(server.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    go_on.set()
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()

"""A data port on loopback, with a decision of its own and no tokens in it.

The decision goes by the path, so that these tests depend on nothing above the wire:
`/denied` is refused, `/wait/...` is permitted after a need was answered, `/away` has an
outage, `/bug` raises, `/public/...` is a public route, and all else is permitted.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from bench.ports import free_port
from gateway.clock import Clock
from gateway.config.settings import (
    Address,
    Server,
    Timeouts,
    Upstream,
    UpstreamTls,
    UpstreamUrl,
)
from gateway.decision import Pending
from gateway.identity.signer import NOBODY, Signed
from gateway.model import (
    ANONYMOUS,
    NOTHING,
    Denial,
    Permit,
    Principal,
    Reason,
    RequestHead,
    RevocationNeeded,
    Route,
    Steps,
    Unavailable,
)
from gateway.observe.access import Entry
from gateway.proxy.gate import Gate
from gateway.proxy.names import Resolve, ask_system
from gateway.proxy.server import DataPort
from gateway.proxy.sockets import bind_all
from gateway.proxy.tls import Certificates
from gateway.wire.headers import Hygiene
from tests.backends import Backend

CLOCK = Clock(time.time, time.monotonic)
ALICE = Principal("user", "corp", "alice")
ROUTE = Route("any", "test", "backend", "require", max_body=None)
PUBLIC = replace(ROUTE, id="public", access="public", pass_credentials=True)
SMALL = replace(ROUTE, id="small", max_body=1000)
NARROW = replace(ROUTE, id="narrow", max_in_flight=2)
LARGE = replace(ROUTE, id="large", max_body=1 << 40)
# What every data port here speaks, and what its callers trust; see test_over_tls.
OVER_TLS: tuple[Certificates, ssl.SSLContext] | None = None
GET = b"GET %b HTTP/1.1\r\nHost: shop.example\r\n%b\r\n"


def request(target: bytes = b"/", fields: bytes = b"") -> bytes:
    """Return a GET."""
    return GET % (target, fields)


def post(target: bytes, body: bytes, fields: bytes = b"") -> bytes:
    """Return a POST with a Content-Length."""
    return (
        b"POST %b HTTP/1.1\r\nHost: shop.example\r\ncontent-length: %d\r\n%b\r\n%b"
        % (
            target,
            len(body),
            fields,
            body,
        )
    )


def chunked(target: bytes, *chunks: bytes, fields: bytes = b"") -> bytes:
    """Return a POST in chunks, unfinished where the last one is not empty."""
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST %b HTTP/1.1\r\nHost: shop.example\r\n%b" % (target, fields)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces


def once_more(module: ModuleType) -> dict[str, Any]:
    """Return the asynchronous tests of *module* by their names, to be run once more."""
    return {
        name: found
        for name, found in vars(module).items()
        if name.startswith("test_")
        and inspect.iscoroutinefunction(found)
        and found.__module__ == module.__name__
    }


@dataclass(slots=True)
class Answer:
    """An answer as a client reads it, strictly."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    whole: bool = True  # it ended where it said
    interim: list[int] = field(default_factory=list)
    raw_head: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


class Caller:
    """One connection of a client."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read one answer; ConnectionError where there is none."""
        interim: list[int] = []
        while True:
            try:
                raw = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise ConnectionResetError(error.partial) from error
            line, *fields = raw[:-4].split(b"\r\n")
            status = int(line.split(b" ")[1])
            if status >= 200:
                break
            interim.append(status)
        headers = []
        for each in fields:
            name, _, value = each.partition(b": ")
            headers.append((name, value))
        answer = Answer(status, headers, interim=interim, raw_head=raw)
        if head_only or status in {204, 304}:
            return answer
        lengths = answer.values(b"content-length")
        codings = answer.values(b"transfer-encoding")
        assert len(lengths) + len(codings) <= 1, raw
        try:
            if lengths:
                answer.body = await self.reader.readexactly(int(lengths[0]))
            elif codings:
                assert codings == [b"chunked"], raw
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    answer.body += (await self.reader.readexactly(size + 2))[:-2]
                assert await self.reader.readexactly(2) == b"\r\n"
            else:
                assert b"close" in answer.values(b"connection"), raw
                answer.body = await self.reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            answer.whole = False
        return answer

    async def call(self, data: bytes) -> Answer:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer(head_only=data.startswith(b"HEAD"))

    async def rest(self) -> bytes:
        """Read to the end of the connection, however it ends."""
        found = b""
        try:
            while data := await self.reader.read(65536):
                found += data
        except ConnectionError:
            pass
        return found

    def close(self) -> None:
        self.writer.transport.abort()


class Decision:
    """Permits by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []
        self.permits: list[Permit] = []
        self.delay = 0.0  # seconds that a need takes
        self.routes = {
            "public": PUBLIC,
            "small": SMALL,
            "large": LARGE,
            "narrow": NARROW,
        }
        self.principal = ALICE

    def decide_now(self, head: RequestHead, now: float) -> Permit | Denial | Pending:
        self.heads.append(head)
        first = head.segments[0]
        if first == "denied":
            return Denial(Reason.CREDENTIAL_MISSING, route=ROUTE)
        if first == "away":
            raise Unavailable("revocation store")
        if first == "bug":
            raise RuntimeError("a mistake")
        if first == "wait":
            steps = self._steps(head)
            return Pending(next(steps), steps)
        return self._permit(head)

    async def finish(self, pending: Pending) -> Permit | Denial:
        await asyncio.sleep(self.delay)
        try:
            pending.steps.send(False)
        except StopIteration as end:
            outcome: Permit | Denial = end.value
            return outcome
        raise AssertionError

    def _steps(self, head: RequestHead) -> Steps[Permit | Denial]:
        yield RevocationNeeded(ALICE)
        last = head.segments[-1]
        if last == "denied":
            return Denial(Reason.TOKEN_REVOKED, route=ROUTE, principal=ALICE)
        if last == "away":
            raise Unavailable("revocation store")
        if last == "bug":
            raise RuntimeError("a mistake")
        return self._permit(head)

    def _permit(self, head: RequestHead) -> Permit:
        first = head.segments[0]
        route = self.routes.get(first, ROUTE)
        upstream = first if first in {"nowhere", "other"} else "backend"
        principal = ANONYMOUS if route is PUBLIC else self.principal
        permit = Permit(route, NOTHING, principal, 0, upstream, head.target)
        self.permits.append(permit)
        return permit


def identity(
    permit: Permit, head: RequestHead, request_id: bytes, now: float
) -> Signed | Denial:
    """Say who it is in a header, unsigned."""
    if permit.principal is ANONYMOUS:
        return NOBODY
    if head.path == b"/unspeakable":
        return Denial(Reason.CLAIM_INVALID, "sub", route=permit.route)
    fields = ((b"x-gateway-assertion", permit.principal.subject.encode()),)
    return Signed(fields, now, now + 60)


@dataclass(slots=True)
class Bench:
    """A running data port and what it wrote down."""

    port: DataPort
    gate: Gate
    decision: Decision
    entries: list[Entry]
    tasks: set[asyncio.Task[Any]]
    callers: list[Caller] = field(default_factory=list)
    client: ssl.SSLContext | None = None  # what callers speak TLS with, if they do
    revoked: set[bytes] = field(default_factory=set)  # fingerprints of subjects

    @property
    def address(self) -> Address:
        return self.port.bound[0]

    async def caller(self, *, receive_buffer: int = 0) -> Caller:
        caller = await self._caller(receive_buffer)
        self.callers.append(caller)
        return caller

    async def _caller(self, receive_buffer: int) -> Caller:
        address = self.address
        if address.path:
            return Caller(*await asyncio.open_unix_connection(address.path))
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.socket(family)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (address.host, address.port))
        if self.client is None:
            return Caller(*await asyncio.open_connection(sock=sock, limit=1 << 16))
        return Caller(
            *await asyncio.open_connection(
                sock=sock, limit=1 << 16, ssl=self.client, server_hostname="localhost"
            )
        )

    async def call(self, data: bytes) -> Answer:
        """Send one request on a connection of its own."""
        caller = await self.caller()
        try:
            return await caller.call(data)
        finally:
            caller.close()

    async def say(self, data: bytes, *, within: float = 5.0) -> bytes:
        """Send bytes, and return all that comes until the port closes."""
        caller = await self.caller()
        try:
            async with asyncio.timeout(within):
                await caller.send(data)
                return await caller.rest()
        finally:
            caller.close()

    async def seen(self, heads: int) -> None:
        """Wait until so many requests came to be decided."""
        async with asyncio.timeout(5):
            while len(self.decision.heads) < heads:
                await asyncio.sleep(0.005)

    async def settled(self, entries: int) -> None:
        """Wait until so many requests were logged."""
        async with asyncio.timeout(5):
            while len(self.entries) < entries:
                await asyncio.sleep(0.005)


def url_of(backend: Backend) -> UpstreamUrl:
    """Return where *backend* listens."""
    address = Address("127.0.0.1", backend.port)
    return UpstreamUrl(address, str(address))


def at(host: str, port: int, *, name: str = "backend", **more: Any) -> Upstream:
    """Return an upstream of one endpoint."""
    address = Address(host, port)
    return Upstream(name, (UpstreamUrl(address, str(address)),), **more)


@asynccontextmanager
async def gate_to(
    backend: Backend | None,
    *others: Backend,
    server: Server | None = None,
    timeouts: Timeouts | None = None,
    hygiene: Hygiene | None = None,
    listen: Address | None = None,
    tls: Certificates | None = None,
    resolve: Resolve = ask_system,
    more: Mapping[str, Upstream] | None = None,
    **upstream: Any,
) -> AsyncIterator[Bench]:
    """Run a data port in front of *backend*, and *others* that stand in for it."""
    decision = Decision()
    entries: list[Entry] = []
    tasks: set[asyncio.Task[Any]] = set()
    failures: list[BaseException] = []

    def spawn(work: Coroutine[Any, Any, Any]) -> object:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)

        def ended(task: asyncio.Task[Any]) -> None:
            tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                failures.append(task.exception() or RuntimeError())

        task.add_done_callback(ended)
        return task

    nobody = free_port()  # listens there
    limits = timeouts or Timeouts()  # a SYN that was lost is sent again after 1 s
    known = {"nowhere": at("127.0.0.1", nobody, name="nowhere", timeout=limits)}
    if backend is not None:
        urls = tuple(url_of(one) for one in (backend, *others))
        known["backend"] = Upstream(
            "backend",
            upstream.pop("urls", urls),
            timeout=limits,
            tls=upstream.pop("tls_to", UpstreamTls()),
            **upstream,
        )
    revoked: set[bytes] = set()

    def is_revoked(principal: Principal) -> bool:
        names = principal.fingerprints
        return names is not None and names.subject in revoked

    gate = Gate(
        server=server or Server(),
        decide_now=decision.decide_now,
        finish=decision.finish,
        hygiene=hygiene or Hygiene(),
        identity=identity,
        upstreams={**known, **(more or {})},
        log=entries.append,
        generation="g1",
        is_revoked=is_revoked,
    )
    port = DataPort(gate, CLOCK, spawn, os.urandom, resolve)
    secure, client = (tls, None) if tls else OVER_TLS or (None, None)
    await port.start(bind_all([listen or Address("127.0.0.1", 0)]), secure)
    bench = Bench(port, gate, decision, entries, tasks, client=client, revoked=revoked)
    try:
        yield bench
    finally:
        for caller in bench.callers:
            caller.close()
        await port.close(0)
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not failures, failures

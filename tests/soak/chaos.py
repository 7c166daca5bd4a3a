"""A gateway of two workers, what stands behind it, who calls it, and what went wrong.

    world    `pair` has two endpoints that are troubled, `calm` has one that never is,
             `moved` is a name whose address changes; each endpoint is a process
    callers  keep their connections, and note of each call what became of it
    leaks    what each worker holds, by kind, from /proc

See tests/soak/test_chaos.py for what is asked of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from bench.ports import free_port
from tests.e2e.fleet import Node, children
from tests.e2e.processes import Command
from tests.name_server import NameServer, name_server
from tests.site import Site
from tests.soak.endpoint import PAUSE, PIECES
from tests.soak.running import ROOT

PATIENCE = 15.0  # seconds for an answer; who waits longer has been forgotten
FIRST_BYTE = 1.0  # seconds; after a second of silence an endpoint's time is up
TTL = 1.0  # seconds, of the name of `moved`
EJECTION = 3  # failures in a row
LIVES = PIECES * PAUSE  # seconds that a stream or a WebSocket takes
NAME = "moved.test"
ADDRESSES = ("127.0.0.2", "127.0.0.3")

POLICY = """\
version = 1

[service]
name     = "{name}"
prefix   = "/{name}"
upstream = "{name}"

[permissions]
"{name}:use" = "Use it"
[roles.customer]
permissions = ["{name}:use"]

[[route]]
methods = ["GET", "POST"]
path    = "/items/{{rest...}}"
require = "{name}:use"

[[route]]
methods = ["GET"]
path    = "/stream/{{rest...}}"
require = "{name}:use"
stream  = true

[[route]]
methods   = ["GET"]
path      = "/live/{{rest...}}"
require   = "{name}:use"
websocket = {{}}
"""
UPSTREAM = """
[upstream.{name}]
urls          = {urls}
keep_alive    = "1s"
timeout       = {{ connect = "1s", first_byte = "{first_byte:.0f}s", idle = "5s" }}
ejection      = {{ failures = {ejection}, time = "500ms", max_time = "2s" }}
"""
SERVICES = ("pair", "calm", "moved")


@dataclass
class Process:
    """One endpoint: where it is, and the process that is there now."""

    name: str
    host: str
    port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def ledger(self) -> Path:
        return self.directory / f"{self.name}.ledger"

    async def start(self) -> None:
        """Return when it listens."""
        words = ["-m", "tests.soak.endpoint", self.name, self.host, str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, *words, str(self.ledger)], cwd=ROOT, stdin=subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(self.host, self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    def be(self, mode: str) -> None:
        """Have it behave so from now on; see tests.soak.endpoint."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(mode.encode() + b"\n")
        self.process.stdin.flush()

    def send(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    async def kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)
            assert process.stdin is not None
            process.stdin.close()


@dataclass
class World:
    """All of it."""

    node: Node
    directory: Path
    pair: list[Process]
    calm: Process
    moved: list[Process]  # the one that has the name first
    names: NameServer
    store: int  # its port
    seed: int

    @property
    def processes(self) -> list[Process]:
        return [*self.pair, self.calm, *self.moved]

    def ledger(self) -> dict[str, list[tuple[str, int]]]:
        """Return who got each call, and as which of its connection."""
        found = defaultdict(list)
        for each in self.processes:
            if each.ledger.exists():
                for line in each.ledger.read_text(encoding="ascii").splitlines():
                    _, name, by, count = line.split(" ")
                    found[name].append((by, int(count)))
        return found

    async def metrics(self) -> dict[str, float]:
        """Return every gauge and counter, added up over its labels but `state`."""

        def scrape() -> str:
            url = f"http://127.0.0.1:{self.node.probes}/metrics"
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                text: str = answer.read().decode()
                return text

        found: dict[str, float] = defaultdict(float)
        for line in (await asyncio.to_thread(scrape)).splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name, _, labels = series.partition("{")
                _, _, state = labels.partition('state="')
                kind = state and ":" + state.partition('"')[0]
                found[name + kind] += float(value)
        return found


@contextlib.asynccontextmanager
async def world(directory: Path, store: str, seed: int) -> AsyncIterator[World]:
    """Start everything; the gateway has met no bug when it ends."""
    pair = [Process(name, "127.0.0.1", free_port(), directory) for name in ("A", "B")]
    calm = Process("C", "127.0.0.1", free_port(), directory)
    port = free_port()
    moved = [
        Process(name, host, port, directory)
        for name, host in zip("DE", ADDRESSES, strict=True)
    ]
    urls = {
        "pair": [f"http://127.0.0.1:{each.port}" for each in pair],
        "calm": [f"http://127.0.0.1:{calm.port}"],
        "moved": [f"http://{NAME}:{port}"],
    }
    probes = free_port()
    site = Site(directory, store=store, listen=f"127.0.0.1:{free_port()}")
    site.server = "workers = 2"
    site.more = f'[probes]\nlisten = "127.0.0.1:{probes}"\n' + "".join(
        UPSTREAM.format(
            name=name,
            urls=json.dumps(each),
            first_byte=FIRST_BYTE,
            ejection=EJECTION,
        )
        for name, each in urls.items()
    )
    config = site.write()
    for name in SERVICES:
        policy = directory / "policies" / f"{name}.toml"
        policy.write_text(POLICY.format(name=name), encoding="utf-8")
    processes = [*pair, calm, moved[0]]
    await asyncio.gather(*[each.start() for each in processes])
    words = ["-m", "tests.soak.steered", "-c", str(config)]
    listen = int(site.listen.rpartition(":")[2])
    try:
        async with name_server() as names:
            (directory / "name_server").write_text(names.address, encoding="ascii")
            names.zone[NAME] = [ADDRESSES[0]]
            with Command(words, cwd=directory) as command:
                ready = f"http://127.0.0.1:{probes}/readyz"
                await asyncio.to_thread(command.wait_for, ready)
                node = Node(site, listen, probes, command)
                place = urlsplit(store).port or 0
                yield World(
                    node,
                    directory,
                    pair,
                    calm,
                    moved,
                    names,
                    place,
                    seed,
                )
                assert command.process.poll() is None, command.err
                assert "Traceback" not in command.err, command.err
                assert '"bug"' not in command.out, command.err
    finally:
        for each in [*pair, calm, *moved]:
            if each.process is not None:
                each.send(signal.SIGCONT)
                await each.kill()


# Callers


@dataclass
class Outcome:
    """What became of one call."""

    kind: str  # GET | POST | stream | websocket
    service: str
    name: str  # no other call has it
    port: int = 0  # of the client
    begun: float = 0.0  # seconds of the monotonic clock
    ended: float = 0.0
    status: int = 0  # 0: its connection ended before there was one
    endpoint: str = ""  # who answered
    is_whole: bool = False
    code: str = ""  # of a problem document of the gateway's own
    trouble: str = ""  # that it met on the client's side


class Line:
    """A connection to the gateway for one request at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader, self.writer = reader, writer
        self.port: int = writer.get_extra_info("sockname")[1]

    def drop(self) -> None:
        self.writer.transport.abort()

    async def call(self, request: bytes, outcome: Outcome) -> bytes:
        """Send *request*; return the content of the answer."""
        outcome.port = self.port
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        outcome.status = int(head[9:12])
        fields = dict(
            line.lower().split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:]
        )
        outcome.endpoint = fields.get(b"x-endpoint", b"").decode().upper()
        if b"transfer-encoding" not in fields:
            return await self.reader.readexactly(int(fields[b"content-length"]))
        content = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            content += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return content


class Callers:
    """Many clients, until they are told to stop."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outcomes: list[Outcome] = []
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._count = 0

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Call, the whole mix; what is under way at the end is finished."""
        self._stopping.clear()
        works = [("GET", 5), ("POST", 3), ("stream", 2), ("websocket", 1)]
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._client(kind, service, number))
            for service in SERVICES
            for kind, count in works
            for number in range(count)
        ]
        try:
            yield
        finally:
            self._stopping.set()
            await asyncio.gather(*self._tasks)

    async def _client(self, kind: str, service: str, number: int) -> None:
        chance = random.Random(f"{self.world.seed} {kind} {service} {number}")
        call = self._socket if kind == "websocket" else self._ask
        line: Line | None = None
        token = self.world.node.site.token(f"{kind}-{number}")
        while not self._stopping.is_set():
            await asyncio.sleep(chance.random() * 0.1)
            self._count += 1
            outcome = Outcome(kind, service, f"{kind}-{self._count}")
            if line is not None and chance.random() < 0.02:
                line.writer.close()
                line = None
            outcome.begun = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    line = await call(line, token, outcome)
            except TimeoutError:
                outcome.trouble = "no answer"
                line = None
            except (OSError, EOFError, ConnectionClosed, InvalidMessage) as error:
                outcome.trouble = type(error).__name__
                line = None
            outcome.ended = time.monotonic()
            self.outcomes.append(outcome)
        if line is not None:
            line.drop()

    async def _ask(self, line: Line | None, token: str, outcome: Outcome) -> Line:
        port = self.world.node.port
        if line is None or line.reader.at_eof():
            if line is not None:  # it was cut while nobody used it
                cut = Outcome("idle", outcome.service, "", line.port, outcome.begun)
                cut.ended = outcome.begun
                self.outcomes.append(cut)
                line.drop()
            line = Line(*await asyncio.open_connection("127.0.0.1", port))
        place = "stream" if outcome.kind == "stream" else "items"
        method = "POST" if outcome.kind == "POST" else "GET"
        target = f"/{outcome.service}/{place}/{outcome.name}"
        lines = [f"{method} {target} HTTP/1.1", "Host: shop.example"]
        lines += [f"Authorization: Bearer {token}"]
        body = "x" * 64 if method == "POST" else ""
        lines += [f"Content-Length: {len(body)}"] * bool(body)
        try:
            said = "\r\n".join([*lines, "", body]).encode()
            content = await line.call(said, outcome)
        except BaseException:
            line.drop()
            raise
        if outcome.status != 200 and not outcome.endpoint:
            outcome.code = json.loads(content)["code"]
        expected = b"piece" * PIECES if place == "stream" else target.encode()
        outcome.is_whole = outcome.status != 200 or content == expected
        return line

    async def _socket(self, _: Line | None, token: str, outcome: Outcome) -> None:
        path = f"/{outcome.service}/live/{outcome.name}"
        url = f"ws://127.0.0.1:{self.world.node.port}{path}"
        # A socket of one's own: who is refused wants to know its port too.
        sock = socket.socket()
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", self.world.node.port))
        outcome.port = sock.getsockname()[1]
        fields = {"Authorization": f"Bearer {token}"}
        try:
            async with connect(url, sock=sock, additional_headers=fields) as live:
                outcome.status = 101
                for said in map(str, range(PIECES)):
                    await live.send(said)
                    outcome.endpoint, echo = str(await live.recv()).split(" ")
                    assert echo == said
                    await asyncio.sleep(PAUSE)
                outcome.is_whole = True
        except InvalidStatus as refusal:
            outcome.status = refusal.response.status_code
            outcome.endpoint = refusal.response.headers.get("x-endpoint", "")
            if not outcome.endpoint and refusal.response.body:
                outcome.code = json.loads(refusal.response.body)["code"]


# What a process holds


@dataclass
class Held:
    """What one worker holds."""

    files: Counter[str] = field(default_factory=Counter)  # descriptors, by kind
    tasks: int = 0  # of its loop
    threads: int = 0
    rss: int = 0  # bytes


def _sockets() -> dict[str, tuple[int, int]]:
    """Return of each TCP and UDP socket by its name: its port and its peer's."""
    found = {}
    for name in ("tcp", "tcp6", "udp"):
        lines = Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()
        for line in lines[1:]:
            _, local, remote, _, *rest = line.split()
            here, there = (int(each.rpartition(":")[2], 16) for each in (local, remote))
            found[f"socket:[{rest[5]}]"] = here, there
    return found


def _names(pid: int) -> list[str]:
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(each.readlink()))
    return found


def is_stopped(pid: int) -> bool:
    """Tell whether SIGSTOP has come through to *pid*."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    return stat.rpartition(")")[2].split()[0] == "T"


def clients_of(pid: int, port: int) -> frozenset[int]:
    """Return the ports of the clients that *pid* has connections of, at *port*."""
    names = _names(pid)
    sockets: dict[str, tuple[int, int]] = {}
    for _ in range(3):  # others come and go meanwhile, and a row can be passed over
        sockets |= _sockets()
    pairs = [sockets.get(each, (0, 0)) for each in names]
    return frozenset(remote for local, remote in pairs if local == port and remote)


def held(world: World, pid: int) -> Held:
    """Return what the worker *pid* holds."""
    sockets = _sockets()
    upstreams = {each.port for each in world.processes}
    found = Held()
    for each in _names(pid):
        kind = each.partition(":[")[0]
        if kind == "socket":
            local, remote = sockets.get(each, (0, 0))
            if local == world.node.port:
                kind = "client" if remote else "listener"
            elif remote in upstreams:
                kind = "upstream"
            elif remote == world.store:
                kind = "store"
            elif remote == world.names.port:
                kind = LOOKUP
        elif kind.startswith("/"):
            kind = "file"
        found.files[kind] += 1
    found.tasks = int((world.directory / f"tasks.{pid}").read_text(encoding="ascii"))
    found.threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    found.rss = int(pages) * os.sysconf("SC_PAGE_SIZE")
    return found


LOOKUP = "lookup"  # a socket for one question to the name server
OPEN = (
    "gateway_connections:active",
    "gateway_connections:idle",
    "gateway_upstream_connections:idle",
    "gateway_upstream_connections:lent",
    "gateway_upstream_connections:connecting",
    "http_server_active_requests",
)


async def at_rest(world: World) -> list[Held]:
    """Wait until nothing is open by the gateway's own count; return what it holds."""
    end = time.monotonic() + PATIENCE
    while is_open := await _open(world):
        assert time.monotonic() < end, is_open
        await asyncio.sleep(0.05)
    return [held(world, pid) for pid in children(world.node.pid)]


async def _open(world: World) -> dict[str, float]:
    found = await world.metrics()
    assert all(name in found for name in OPEN), found
    return {name: found[name] for name in OPEN if found[name]}

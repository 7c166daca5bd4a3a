"""`gateway serve` as a process, what stands behind it, and what it costs.

What the process costs is read from /proc: resident memory, open files, and the time
that it ran, in nanoseconds. There is no backend process: the tests' own loop answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_port
from tests.site import Site
from tests.tokens import make

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "bench" / "results"
FULL = os.environ.get("GATEWAY_SOAK") == "full"
START = 15.0  # seconds to come up, on a busy machine
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b'{"ok":true}'
LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: 8388608\r\n\r\n" + bytes(8 << 20)

RSA_ISSUER = "https://rsa.test.example"
RSA = make.key("RS256", "rsa-1")
PUBLIC_URL = "https://shop.example"
OPAQUE = "op_"  # what tokens begin with that their issuer is asked about
POLICY = """\
version = 1

[service]
name     = "orders"
prefix   = "/api/orders"
upstream = "orders"
issuers  = ["corp", "rsa", "fernet", "jwe", "opaque"]
credentials = ["bearer", "api_key"]

[permissions]
"orders:read" = "Read"

[roles.customer]
permissions = ["orders:read"]
[roles.support]
permissions = ["orders:read"]

[[route]]
id      = "files"
methods = ["GET", "POST"]
path    = "/files/{rest...}"
require = "orders:read"

[[route]]
id      = "status"
methods = ["GET"]
path    = "/status"
access  = { public = "load balancers ask" }
"""
MORE = """
[issuer.rsa]
issuer      = "{issuer}"
jwks        = "http://127.0.0.1:{port}/jwks.json"
audience    = ["https://api.test.example"]
algorithms  = ["RS256"]
token_types = ["at+jwt"]
[issuer.rsa.roles]
claim = "roles"
allow = ["customer"]
[issuer.rsa.scope]
user    = "ignore"
service = "grant"

[issuer.opaque]
issuer   = "https://opaque.test.example"
audience = ["https://api.test.example"]
[issuer.opaque.introspection]
url           = "http://127.0.0.1:{port}/introspect"
client_id     = "gateway"
client_secret = "env:CLIENT"
prefix        = "{opaque}"
[issuer.opaque.scope]
user    = "ignore"
service = "grant"

[fernet]
issuer   = "https://api.test.example/sessions"
audience = ["https://api.test.example"]
keys     = ["env:FERNET"]
ttl      = "15m"
scope    = {{ user = "ignore", service = "grant" }}

[jwe]
issuer   = "https://api.test.example/sealed"
audience = ["https://api.test.example"]
nested   = ["rsa"]
scope    = {{ user = "ignore", service = "grant" }}
[[jwe.keys]]
alg = "dir"
enc = "A256GCM"
key = "env:JWE"
[[jwe.keys]]
alg = "RSA-OAEP-256"
enc = "A256GCM"
key = "env:JWE_RSA"
[[jwe.keys]]
alg = "ECDH-ES"
enc = "A256GCM"
key = "env:JWE_EC"

[api_keys]
scope = "ignore"
"""

# Another service, public, with an upstream of its own.
BESIDE = """\
version = 1
[service]
name     = "{name}"
prefix   = "/{name}"
upstream = "{name}"
issuers  = ["corp"]
[[route]]
methods = ["GET"]
path    = "/"
access  = {{ public = "for a test" }}
"""
BESIDE_UPSTREAM = """
[upstream.{name}]
urls            = ["{url}"]
max_connections = 20
timeout         = {{ connect = "1s", first_byte = "1s" }}
"""

OCTETS = bytes(range(32))  # of what opens sealed tokens
KEYS = {
    "FERNET": urlsafe_b64encode(OCTETS).decode(),
    "JWE": make.b64(OCTETS),
    "JWE_RSA": make.key("RS256", "opens").private_pem.decode(),
    "JWE_EC": make.key("ES256", "opens").private_pem.decode(),
    "CLIENT": "what the gateway is known by",
}

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="no /proc to measure with"
)


class _Backend(asyncio.Protocol):
    """Answers every GET at once; `/jwks.json` with a JWK Set. Waits for bodies.

    As an issuer it knows of no token: whichever it is asked about is not active.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._backend.connections.add(self)

    def data_received(self, data: bytes) -> None:
        *heads, self._buffer = (self._buffer + data).split(b"\r\n\r\n")
        for head in heads:
            target = head.split(b" ")[1]
            if target == b"/jwks.json":
                self._backend.key_sets += 1
                keys = make.jwks(RSA)
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (len(keys), keys)
                )
            elif target == b"/introspect":
                self._backend.questions += 1
                self._buffer = b""  # the token; it may still come
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b'content-length: 16\r\n\r\n{"active":false}'
                )
            elif head.startswith(b"GET"):
                self.transport.write(LARGE if target.endswith(b"large") else ANSWER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.connections.discard(self)


@dataclass
class Backend:
    """What answers behind the gateway, and for the issuer."""

    port: int = 0
    key_sets: int = 0  # how often the keys were asked for
    questions: int = 0  # about opaque tokens
    connections: set[_Backend] = field(default_factory=set)

    async def hang_up(self) -> None:
        """Close what nobody uses, as the gateway then does too."""
        for one in tuple(self.connections):
            one.transport.close()
        await asyncio.sleep(0.2)


@dataclass
class Running:
    """A gateway process, and its backend."""

    site: Site
    backend: Backend
    port: int
    process: subprocess.Popen[bytes]
    errors: Path

    def request(self, path: str = "/api/orders/files/a", **fields: str) -> bytes:
        """Return an honest request, of somebody with one token."""
        return _get(path, {**self.site.bearer(), **fields})

    @property
    def rss(self) -> int:
        """Resident bytes."""
        pages = int(_proc(self.process.pid, "statm").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu(self) -> float:
        """Seconds that its threads ran."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        total = 0
        for task in tasks.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    @property
    def taken(self) -> int:
        """Bytes that it has read, from whatever."""
        return int(_proc(self.process.pid, "io").split()[1])

    @property
    def files(self) -> int:
        """Open file descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def _proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def _get(path: str, fields: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n".encode("latin-1")


@contextlib.asynccontextmanager
async def running(
    directory: Path, server: str = "", beside: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Run `gateway serve`; it has said nothing bad when it ends.

    Args:
        directory: For its files.
        server: More of [server].
        beside: URLs of further upstreams, each with a service of its name.
    """
    backend = Backend()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Backend(backend), "127.0.0.1", 0)
    backend.port = listening.sockets[0].getsockname()[1]
    port = free_port()
    site = Site(
        directory,
        upstream=f"http://127.0.0.1:{backend.port}",
        listen=f"127.0.0.1:{port}",
        server=f'public_url = "{PUBLIC_URL}"\n{server}',
        policy=POLICY,
        more=MORE.format(issuer=RSA_ISSUER, port=backend.port, opaque=OPAQUE),
    )
    for name, url in (beside or {}).items():
        site.more += BESIDE_UPSTREAM.format(name=name, url=url)
    config = site.write()
    for name in beside or {}:
        policy = directory / "policies" / f"{name}.toml"
        policy.write_text(BESIDE.format(name=name), encoding="utf-8")
    errors = directory / "errors.log"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "-c", str(config)],
            cwd=directory,
            env={**os.environ, **KEYS, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    found = Running(site, backend, port, process, errors)
    cores = os.sched_getaffinity(0)
    try:
        _part(process.pid, cores)
        await _up(found)
        yield found
        assert process.poll() is None, errors.read_text()
    finally:
        os.sched_setaffinity(0, cores)
        if process.poll() is None:
            process.terminate()
        try:
            await asyncio.to_thread(process.wait, START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listening.close()
        for one in tuple(backend.connections):
            one.transport.abort()
    said = errors.read_text()
    assert "Traceback" not in said, said
    assert '"level":"error"' not in said.replace(" ", "").lower(), said


def _part(gateway: int, cores: set[int]) -> None:
    """Give the process *gateway* a core of its own, and us the others.

    What its clients take of the machine is not what it makes them wait.
    """
    if len(cores) > 1:
        first = min(cores)
        os.sched_setaffinity(gateway, {first})
        os.sched_setaffinity(0, cores - {first})


async def _up(found: Running) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until:
        assert found.process.poll() is None, found.errors.read_text()
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", found.port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not listen")


def report(name: str, figures: dict[str, Any]) -> None:
    """Print *figures*, and keep them beside those of the bench."""
    lines = [f"soak: {name}"]
    for key, value in figures.items():
        if isinstance(value, list):
            lines += [f"  {key}:", *(f"    {row}" for row in _rows(value))]
        else:
            lines.append(f"  {key:38} {_shown(value)}")
    # Past the capture of pytest: somebody reads them.
    if sys.__stdout__ is not None:
        sys.__stdout__.write("\n" + "\n".join(lines) + "\n")
        sys.__stdout__.flush()
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    form = "full" if FULL else "short"
    place = RESULTS if RESULTS.is_dir() else Path(tempfile.gettempdir())
    place = place / f"soak-{name}-{form}-{stamp}.json"
    place.write_text(json.dumps({"form": form, **figures}, indent=1) + "\n")


def _rows(table: list[dict[str, Any]]) -> list[str]:
    names = list(table[0])
    rows = [names, *[[_shown(row[name]) for name in names] for row in table]]
    widths = [max(len(row[at]) for row in rows) for at in range(len(names))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

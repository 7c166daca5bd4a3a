"""What is large or takes long, through the real command: `stream = true`."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.fleet import Node, node
from tests.site import POLICY

FULL = os.environ.get("GATEWAY_E2E") == "full"
SIZE = 2 << 30 if FULL else 64 << 20  # bytes
PIECE = 1 << 20
GROWS = 16 << 20  # bytes that the gateway may hold more than before, at most
PATIENCE = 60.0  # seconds without a byte, on a busy machine
SILENCE = 0.9  # seconds; three times what the upstream's limits allow
LIMITS = 'timeout = { first_byte = "300ms", idle = "300ms" }'
SERVER = 'idle_timeout = "300ms"\nbody_timeout = "20s"'

ROUTES = """
[[route]]
id       = "stream"
methods  = ["GET", "POST"]
path     = "/stream/{what}"
access   = "authenticated"
stream   = true
max_body = "4 GiB"

[[route]]
id      = "plain"
methods = ["GET"]
path    = "/plain/{what}"
access  = "authenticated"
"""


def pieces() -> Iterator[bytes]:
    """Yield SIZE bytes, no two pieces the same."""
    rest = bytes(range(256)) * (PIECE // 256)
    for number in range(SIZE // PIECE):
        yield number.to_bytes(8, "big") + rest[8:]


def digest_of(parts: Iterator[bytes]) -> str:
    found = hashlib.blake2b()
    for part in parts:
        found.update(part)
    return found.hexdigest()


class Backend(BaseHTTPRequestHandler):
    """Sends and takes as much as it is asked to, or takes its time."""

    protocol_version = "HTTP/1.1"
    over = threading.Event()

    def do_GET(self) -> None:
        what = urlsplit(self.path).path.rpartition("/")[2]
        if what == "poll":
            self.over.wait(SILENCE)
            self._answer(b"at last")
        elif what == "never":
            self.over.wait(PATIENCE)
        elif what == "events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number in range(3):
                self.over.wait(SILENCE)
                self.wfile.write(b"data: %d\n\n" % number)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(SIZE))
            self.end_headers()
            for piece in pieces():
                self.wfile.write(piece)

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])

        def parts() -> Iterator[bytes]:
            for _ in range(left // PIECE):
                yield self.rfile.read(PIECE)

        self._answer(digest_of(parts()).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name)
        pass


@contextmanager
def backend() -> Iterator[int]:
    """Run the backend; yield its port."""
    Backend.over.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            Backend.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Node]:
    with backend() as port:
        given = node(
            tmp_path, port, server=SERVER, policy=POLICY + ROUTES, upstream_more=LIMITS
        )
        with given.command:
            yield given


@contextmanager
def connected(gateway: Node) -> Iterator[http.client.HTTPConnection]:
    calling = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)
    with closing(calling):
        yield calling


@contextmanager
def flat(gateway: Node) -> Iterator[None]:
    """Assert that the gateway's memory hardly grows meanwhile."""
    process = Path(f"/proc/{gateway.pid}")
    (process / "clear_refs").write_text("5", encoding="ascii")  # forget the peak
    before = _memory(process, "VmRSS")
    yield
    assert _memory(process, "VmHWM") - before < GROWS


def _memory(process: Path, name: str) -> int:
    text = (process / "status").read_text(encoding="ascii")
    return int(text.partition(name + ":")[2].split()[0]) << 10


def path(what: str, route: str = "stream") -> str:
    return f"/api/orders/{route}/{what}"


def test_a_download_of_any_size_takes_no_memory(gateway: Node) -> None:
    """2 GiB in the long form: all of it, as it was sent, in some MiB."""
    with connected(gateway) as calling, flat(gateway):
        calling.request("GET", path("large"), headers=gateway.site.bearer())
        answer = calling.getresponse()
        assert (answer.status, answer.length) == (200, SIZE)
        found = digest_of(iter(lambda: answer.read(PIECE), b""))
    assert found == digest_of(pieces())


def test_an_upload_of_any_size_takes_no_memory(gateway: Node) -> None:
    """Likewise, and with the route's own `max_body`."""
    headers = {**gateway.site.bearer(), "Content-Length": str(SIZE)}
    with connected(gateway) as calling, flat(gateway):
        calling.request("POST", path("large"), body=pieces(), headers=headers)
        answer = calling.getresponse()
        assert answer.status == 200
        assert answer.read().decode() == digest_of(pieces())


def test_an_answer_may_be_silent_for_longer_than_the_limits(gateway: Node) -> None:
    """A long poll and server-sent events, by configuration."""
    with connected(gateway) as calling:
        calling.request("GET", path("poll"), headers=gateway.site.bearer())
        answer = calling.getresponse()
        assert (answer.status, answer.read()) == (200, b"at last")
    with connected(gateway) as calling:
        calling.request("GET", path("events"), headers=gateway.site.bearer())
        answer = calling.getresponse()
        assert answer.getheader("content-type") == "text/event-stream"
        assert answer.read() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_other_routes_keep_the_limits(gateway: Node) -> None:
    """The same upstream, asked by a route without `stream`."""
    with connected(gateway) as calling:
        calling.request("GET", path("never", "plain"), headers=gateway.site.bearer())
        assert calling.getresponse().status == 504

"""One gigabyte through a proxy, down and up: how fast, and with how much memory.

Both ends hand the kernel a file and throw away what arrives before it is copied, so
that the load costs little and the proxy in the middle is what is measured. Run as a
program it is the backend: GET is answered with the bytes, POST with how many came.

    python -m bench.streams PORT BYTES

Imports: bench.pace, bench.processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from bench.pace import WrongError, request_bytes
from bench.processes import cpu_seconds, resident

PIECE = 1 << 20  # bytes given to the kernel or taken from it at once
SAMPLE = 0.02  # seconds between two looks at the memory of the proxy
PATIENCE = 60.0  # seconds without a byte
MAX_HEAD = 64 * 1024
Direction = str
DIRECTIONS: tuple[Direction, ...] = ("download", "upload")


@dataclass(frozen=True, slots=True)
class Flow:
    """What one stream found."""

    rate: float  # MiB per second
    cpu: float  # microseconds of the proxy's processor time for each MiB
    grown: float  # MiB of memory that the proxy had at most beyond what it began with


@dataclass(slots=True)
class Watch:
    """Looks at the memory of a process until it is told to stop."""

    pid: int
    before: int = 0  # bytes
    most: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.before = self.most = resident(self.pid)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()
        self.most = max(self.most, resident(self.pid))

    def _look(self) -> None:
        while not self._over.wait(SAMPLE):
            self.most = max(self.most, resident(self.pid))


def stream(
    direction: Direction,
    port: int,
    path: str,
    headers: Mapping[str, str],
    *,
    size: int,
    pid: int,
) -> Flow:
    """Send *size* bytes through the proxy *pid* at *port*, or fetch them.

    Raises:
        WrongError: Not all of them came through.
    """
    used, begun = cpu_seconds(pid), time.perf_counter()
    with Watch(pid) as watch:
        if direction == "upload":
            upload(port, path, headers, size)
        else:
            download(port, path, headers, size)
    took = time.perf_counter() - begun
    mebibytes = size / (1 << 20)
    return Flow(
        rate=mebibytes / took,
        cpu=(cpu_seconds(pid) - used) * 1e6 / mebibytes,
        grown=(watch.most - watch.before) / (1 << 20),
    )


def download(port: int, path: str, headers: Mapping[str, str], size: int) -> None:
    """Fetch *size* bytes."""
    with _connected(port) as connection:
        connection.sendall(request_bytes("GET", path, headers))
        status, length = _head(connection)
        if (status, length) != (200, size):
            raise WrongError(f"{status}, {length} bytes promised")
        _discard(connection, size)


def upload(port: int, path: str, headers: Mapping[str, str], size: int) -> None:
    """Send *size* bytes; return when the backend has said that they all came."""
    said = {**headers, "Content-Length": str(size)}
    with _connected(port) as connection:
        connection.sendall(request_bytes("POST", path, said))
        # Who refuses closes: the answer says why, better than a broken pipe.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _send(connection, size)
        status, length = _head(connection)
        body = connection.recv(min(length, MAX_HEAD), socket.MSG_WAITALL)
        if (status, body) != (200, b"%d" % size):
            raise WrongError(f"{status}, {body.decode('latin-1')[:40]} bytes came")


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def _head(connection: socket.socket) -> tuple[int, int]:
    """Take the head of a message alone; return its status (0 of a request), its length.

    The body stays in the connection.
    """
    while True:
        seen = connection.recv(MAX_HEAD, socket.MSG_PEEK)
        end = seen.find(b"\r\n\r\n") + 4
        if end >= 4:
            break
        if not seen or len(seen) >= MAX_HEAD:
            raise WrongError("no head came")
        time.sleep(0.001)
    head = connection.recv(end)
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    said = head.split(b" ", 2)
    status = int(said[1]) if said[0].startswith(b"HTTP/") else 0
    return status, int(found[1]) if found else 0


def _send(connection: socket.socket, size: int) -> None:
    """Send *size* zeros that nobody copies on our side."""
    fd = os.memfd_create("bench")
    try:
        os.truncate(fd, PIECE)
        left = size
        while left:
            # A timeout makes the socket non-blocking underneath: wait as sendall does.
            try:
                left -= os.sendfile(connection.fileno(), fd, 0, min(left, PIECE))
            except BlockingIOError:
                _wait_writable(connection)
    finally:
        os.close(fd)


def _wait_writable(connection: socket.socket) -> None:
    _, ready, _ = select.select([], [connection], [], PATIENCE)
    if not ready:
        raise WrongError("nothing was taken any more")


def _discard(connection: socket.socket, size: int) -> None:
    """Take *size* bytes, which the kernel throws away uncopied."""
    buffer, left = bytearray(PIECE), size
    while left:
        taken = connection.recv_into(buffer, min(left, PIECE), socket.MSG_TRUNC)
        if not taken:
            raise WrongError(f"{left} bytes never came")
        left -= taken


def serve(port: int, size: int) -> None:
    """Answer on *port* until the process is stopped."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(
                target=_answer, args=(connection, size), daemon=True
            ).start()


def _answer(connection: socket.socket, size: int) -> None:
    """Answer one request after another."""
    with connection, contextlib.suppress(OSError, WrongError):
        while True:
            is_get = connection.recv(4, socket.MSG_PEEK) == b"GET "
            _, length = _head(connection)
            if is_get:
                connection.sendall(_ok(size))
                _send(connection, size)
            else:
                _discard(connection, length)
                came = b"%d" % length
                connection.sendall(_ok(len(came)) + came)


def _ok(length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))

"""Small WebSocket messages through a proxy and back: how many, for how much time.

Many connections each send a message, wait for its echo and send the next. Both ends
know the only message that there is, byte for byte, so that neither parses nor builds
one, and the proxy in the middle is what is measured. The mask is zero, which a proxy
that passes frames on doesn't see. Run as a program it is the backend.

    python -m bench.sockets PORT

Imports: bench.pace, bench.processes, gateway.wire.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.pace import WrongError, request_bytes
from bench.processes import cpu_seconds
from gateway.wire.websocket import VERSION, accept_of, new_key

CONNECTIONS = 64
PATIENCE = 10.0  # seconds for one echo
# The gateway's first ping comes after 20 seconds, and would be no echo.
LONGEST = 15
TEXT = b'{"order":"o-17","state":"packed"}'
MESSAGE = bytes((0x81, 0x80 | len(TEXT))) + bytes(4) + TEXT
ECHO = bytes((0x81, len(TEXT))) + TEXT
_SIZE = 65536


@dataclass(frozen=True, slots=True)
class Chat:
    """What one run found."""

    rate: float  # messages per second, there and back
    cpu: float  # microseconds of the proxy's processor time for each


def chat(
    port: int, path: str, headers: Mapping[str, str], *, seconds: float, pid: int
) -> Chat:
    """Keep the connections busy for *seconds*, through the proxy *pid* at *port*.

    Raises:
        WrongError: A handshake was refused, or something else than an echo came.
    """
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(opened_socket(port, path, headers))
            for _ in range(CONNECTIONS)
        ]
        used, begun = cpu_seconds(pid), time.perf_counter()
        count = _echoes(opened, begun + seconds)
        took = time.perf_counter() - begun
        cpu = (cpu_seconds(pid) - used) * 1e6 / count
    return Chat(count / took, cpu)


@contextlib.contextmanager
def opened_socket(
    port: int, path: str, headers: Mapping[str, str]
) -> Iterator[socket.socket]:
    """Open a WebSocket.

    Raises:
        WrongError: The answer is no 101.
    """
    fields = {
        **headers,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": VERSION.decode(),
        "Sec-WebSocket-Key": new_key(bytes(16)).decode(),
    }
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request_bytes("GET", path, fields))
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(_SIZE)
            if not piece:
                raise WrongError("no answer to a handshake")
            head += piece
        if b" 101 " not in head:
            raise WrongError(head.partition(b"\r\n")[0].decode("latin-1"))
        yield connection


def _echoes(opened: list[socket.socket], until: float) -> int:
    """Return how many messages came back."""
    count = 0
    by_number = {each.fileno(): each for each in opened}
    parts: dict[int, bytes] = {}
    with select.epoll() as poll:
        for number, each in by_number.items():
            each.settimeout(0)
            poll.register(number, select.EPOLLIN)
            each.send(MESSAGE)
        while time.perf_counter() < until:
            ready = poll.poll(PATIENCE)
            if not ready:
                raise WrongError("no echo came")
            for number, _ in ready:
                each = by_number[number]
                came = each.recv(_SIZE)
                if came != ECHO:
                    came = parts.pop(number, b"") + came
                    if not came or not ECHO.startswith(came):
                        raise WrongError(f"no echo: {came[:40]!r}")
                    if came != ECHO:
                        parts[number] = came
                        continue
                count += 1
                each.send(MESSAGE)
    return count


def serve(port: int) -> None:
    """Echo on *port* until the process is stopped."""
    open_: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1", port)) as listener, select.epoll() as poll:
        poll.register(listener, select.EPOLLIN)
        while True:
            for number, _ in poll.poll():
                if number == listener.fileno():
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    open_[connection.fileno()] = connection
                    poll.register(connection, select.EPOLLIN)
                elif not _is_answered(open_[number]):
                    poll.unregister(number)
                    open_.pop(number).close()


def _is_answered(connection: socket.socket) -> bool:
    """Answer what *connection* says; False where that is nothing that is known."""
    with contextlib.suppress(ConnectionError):
        came = connection.recv(_SIZE)
        if came == MESSAGE:
            connection.send(ECHO)
            return True
        for line in came.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key":
                connection.send(
                    b"HTTP/1.1 101 Switching Protocols\r\n"
                    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept_of(value.strip()) + b"\r\n\r\n"
                )
                return True
    return False


if __name__ == "__main__":
    serve(int(sys.argv[1]))

"""Requests at a fixed rate: how long each took, counted from when it was due.

wrk keeps its connections busy and sends the next request when an answer has come, so it
can't say what a request costs at a given rate. Here the times at which requests are due
are fixed beforehand, evenly; a late answer delays no other request, and a request that
could not be sent in time has waited already (no "coordinated omission").

    echo '{"port": 80, "path": "/", "headers": {}, "rate": 1000, "seconds": 3}' |
        python -m bench.pace

Imports: the standard library only.
"""

from __future__ import annotations

import gc
import json
import math
import select
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

CONNECTIONS = 8  # open beforehand; more are opened when all of them wait
PATIENCE = 10.0  # seconds, from the last request that was due


class WrongError(Exception):
    """An answer was not a 200, or there was none."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What one run found, in milliseconds."""

    p50: float
    p99: float
    late: float  # 99 of 100 requests were sent no later than this after they were due
    requests: int


@dataclass(slots=True)
class _Asked:
    due: float
    answer: bytearray = field(default_factory=bytearray)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of *values* that *share* of them do not exceed."""
    return sorted(values)[max(math.ceil(len(values) * share) - 1, 0)]


def request_bytes(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return the head of a request, with the end of the head."""
    fields = {"Host": "127.0.0.1", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def status_of(answer: bytes | bytearray) -> int | None:
    """Return the status of a whole answer; None while it is not whole.

    Raises:
        WrongError: It does not say how long it is.
    """
    head, end, body = bytes(answer).partition(b"\r\n\r\n")
    if not end:
        return None
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(head.split(b" ", 2)[1]) if len(body) >= int(value) else None
    raise WrongError("an answer without a length")


def keep_pace(port: int, request: bytes, *, rate: int, seconds: float) -> Pace:
    """Send *request* to *port* of loopback *rate* times a second.

    Raises:
        WrongError: One answer was not a 200, or none came.
    """
    total = int(rate * seconds)
    idle = [_connected(port) for _ in range(CONNECTIONS)]
    busy: dict[socket.socket, _Asked] = {}
    took: list[float] = []
    late: list[float] = []
    start = time.perf_counter() + 0.05
    gives_up = start + seconds + PATIENCE
    sent = 0
    gc.disable()
    try:
        while len(took) < total:
            now = time.perf_counter()
            while sent < total and (due := start + sent / rate) <= now:
                connection = idle.pop() if idle else _connected(port)
                connection.sendall(request)
                busy[connection] = _Asked(due)
                late.append(now - due)
                sent += 1
            if now > gives_up:
                raise WrongError(f"{len(busy)} requests without an answer")
            # poll() and epoll() round up to a millisecond, select() does not.
            wait = max(start + sent / rate - now, 0) if sent < total else 1.0
            ready, _, _ = select.select(list(busy), [], [], wait)
            for connection in ready:
                asked = busy[connection]
                piece = connection.recv(65536)
                asked.answer += piece
                status = status_of(asked.answer) if piece else 0
                if status is None:
                    continue
                took.append(time.perf_counter() - asked.due)
                if status != 200:
                    raise WrongError(f"an answer was {status or 'cut off'}")
                del busy[connection]
                idle.append(connection)
    finally:
        gc.enable()
        for connection in (*idle, *busy):
            connection.close()
    return Pace(
        p50=percentile(took, 0.5) * 1000,
        p99=percentile(took, 0.99) * 1000,
        late=percentile(late, 0.99) * 1000,
        requests=total,
    )


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def main() -> int:
    asked = json.load(sys.stdin)
    request = request_bytes("GET", asked["path"], asked["headers"])
    try:
        found = keep_pace(
            asked["port"], request, rate=asked["rate"], seconds=asked["seconds"]
        )
    except (WrongError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

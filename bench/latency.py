"""Two waits: what the gateway adds to a request, and how soon a revocation counts.

Imports: bench.lineup, bench.pace, bench.processes, bench.results, bench.site.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.lineup import ROOT
from bench.pace import Pace, WrongError, percentile, request_bytes, status_of
from bench.processes import pinned
from bench.results import Figure

RATE = 1000  # requests per second
PATIENCE = 10.0  # seconds
TRIES = 300  # revocations


def paced(port: int, path: str, headers: Mapping[str, str], *, seconds: int) -> Pace:
    """Return how long requests took at 1,000 a second, from core 1.

    Raises:
        WrongError: One was not answered with a 200.
    """
    asked = {"port": port, "path": path, "headers": dict(headers)}
    asked |= {"rate": RATE, "seconds": seconds}
    done = subprocess.run(
        pinned(1, [sys.executable, "-m", "bench.pace"]),
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=seconds + 30,
        check=False,
    )
    if done.returncode:
        raise WrongError(done.stderr.strip()[-200:])
    return Pace(**json.loads(done.stdout))


def added(
    name: str, through: Sequence[Pace], direct: Sequence[Pace], goal: bool = False
) -> list[Figure]:
    """Return what *name* adds to the direct call, in milliseconds."""
    figures = []
    for which, most in (("p50", 0.25), ("p99", 1.0)):
        base = median(getattr(pace, which) for pace in direct)
        took = [getattr(pace, which) for pace in through]
        late = max(pace.late for pace in (*through, *direct))
        figures.append(
            Figure(
                f"added by {name} at 1,000 req/s, {which}",
                "latency",
                "ms",
                tuple(each - base for each in took),
                most=most if goal else None,
                note=f"{median(took):.3f} over {base:.3f} direct; open loop, from when"
                f" it was due; sent at most {late:.2f} late (p99)",
            )
        )
    return figures


def revocation(
    name: str, admin: Path, port: int, path: str, tokens: Sequence[tuple[str, str]]
) -> list[Figure]:
    """Return how long after an order each of *tokens* was first refused.

    Args:
        name: Between whom.
        admin: The admin socket that takes the orders.
        port: Of the data port that is asked.
        path: What to ask for.
        tokens: Each with its `jti`; they let pass until then.

    Raises:
        WrongError: One was not let pass before, or was after PATIENCE.
    """
    waits = []
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as data,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as orders,
    ):
        data.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        orders.settimeout(PATIENCE)
        orders.connect(str(admin))
        for token, token_id in tokens:
            fields = {"Authorization": f"Bearer {token}"}
            asked = request_bytes("GET", path, fields)
            if (status := _status(data, asked)) != 200:
                raise WrongError(f"{status} before it was revoked")
            waits.append(_wait_for_refusal(data, asked, orders, token_id))
    return [
        Figure(
            f"a revocation counts, {name}, {which}",
            "latency",
            "ms",
            (percentile(waits, share) * 1000,),
            most=10.0 if which == "p99" else None,
            note=f"from sending the order to the first 401; {len(waits)} tokens",
        )
        for which, share in (("p50", 0.5), ("p99", 0.99))
    ]


def _wait_for_refusal(
    data: socket.socket, asked: bytes, orders: socket.socket, token_id: str
) -> float:
    """Revoke a token and ask until it is refused; return the seconds it took."""
    body = json.dumps({"issuer": "corp", "jti": token_id, "reason": "bench"}).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    order = request_bytes("POST", "/-/revocations", fields) + body
    sent = time.perf_counter()
    orders.sendall(order)
    while (status := _status(data, asked)) == 200:
        if time.perf_counter() - sent > PATIENCE:
            raise WrongError("it never counted")
    took = time.perf_counter() - sent
    if status != 401:
        raise WrongError(f"{status} after it was revoked")
    if (status := _answer(orders)) != 200:
        raise WrongError(f"the order was answered {status}")
    return took


def _status(connection: socket.socket, asked: bytes) -> int:
    connection.sendall(asked)
    return _answer(connection)


def _answer(connection: socket.socket) -> int:
    answer = b""
    while (status := status_of(answer)) is None:
        piece = connection.recv(65536)
        if not piece:
            raise WrongError("the connection was closed")
        answer += piece
    return status

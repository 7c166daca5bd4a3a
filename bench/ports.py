"""Ports for servers that a test or a bench starts.

Below the range from which clients are given theirs, or a server that starts late finds
its port taken by somebody's connection. And in a slice of one's own for each process,
so that several runs on one machine don't meet.

Imports: the standard library only.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FIRST, SLICE, SLICES = 20_000, 400, 30


def free_port() -> int:
    """Return a loopback port that nobody listens on now.

    Raises:
        OSError: As many processes ask for ports as there are slices.
    """
    return next(filter(_is_free, _mine()))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@cache
def _mine() -> Iterator[int]:
    """Return the ports of this process, over and over."""
    first = FIRST + SLICE * _slice()
    return itertools.cycle(range(first, first + SLICE))


def _slice() -> int:
    """Take a slice that nobody has; it is ours until this process ends."""
    places = Path(tempfile.gettempdir()) / f"gateway-ports.{os.getuid()}"
    places.mkdir(exist_ok=True)
    for number in range(SLICES):
        place = os.open(places / str(number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(place)
        else:
            return number
    raise OSError(f"{SLICES} processes use the ports from {FIRST} on")

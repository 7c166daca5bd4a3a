"""Sockets to listen on, bound but not yet listening.

`[::]` is every IPv6 address and no IPv4 one (IPV6_V6ONLY), as with nginx: who wants
both says both, and no client has two addresses. A Unix socket is for its owner, or for
its owner's group too, from before anybody can connect to it.

Several workers have a TCP socket each, with a queue of its own (SO_REUSEPORT): the
kernel spreads the clients, and nobody wakes up for another's. Whoever closes the last
descriptor of one resets the clients in its queue, so they belong to the supervisor, and
a worker's successor finds them as they were.

Imports: gateway.config.settings.
"""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gateway.config.settings import Address

PRIVATE = stat.S_IRUSR | stat.S_IWUSR
"""For our own user: the admin port, and our own endpoints."""
SHARED = PRIVATE | stat.S_IRGRP | stat.S_IWGRP
"""For our group too: the data port, whose clients are other services on this host."""


def bind(address: Address, mode: int = PRIVATE) -> socket.socket:
    """Return a socket bound to *address*.

    Args:
        address: A name stands for the first of its addresses.
        mode: Of a Unix socket.

    Raises:
        OSError: It is taken, or can't be had.
    """
    if address.path:
        return _bind_path(Path(address.path), mode)
    return _bind_host(address, *_resolve(address)[0])


def bind_all(addresses: Sequence[Address]) -> list[socket.socket]:
    """Return the sockets of a data port that listens at *addresses*.

    Raises:
        OSError: One of them is taken, or can't be had; none is left open.
    """
    (found,) = bind_each(addresses, 1)
    return found


def bind_each(addresses: Sequence[Address], workers: int) -> list[list[socket.socket]]:
    """Return for each of *workers* the sockets by which it listens at *addresses*.

    Of a Unix socket there is one, which they share: its name can't be bound twice.

    Raises:
        OSError: One of them is taken, or can't be had; none is left open.
    """
    found: list[list[socket.socket]] = [[] for _ in range(workers)]
    with contextlib.ExitStack() as bound:
        for address in addresses:
            for worker, sock in _bind_copies(address, workers):
                found[worker].append(bound.enter_context(sock))
        bound.pop_all()
    return found


def remove(sock: socket.socket) -> None:
    """Remove the file of a Unix socket; call it while it listens still.

    Whoever is to come after us refuses to start until then, so it is ours.
    """
    if sock.family == socket.AF_UNIX:
        Path(sock.getsockname()).unlink(missing_ok=True)


def _bind_copies(address: Address, copies: int) -> Iterator[tuple[int, socket.socket]]:
    if address.path:
        sock = bind(address, SHARED)
        yield 0, sock
        for copy in range(1, copies):
            yield copy, sock.dup()
        return
    for family, where in _resolve(address):
        first = _bind_host(address, family, where)
        if copies == 1:
            yield 0, first
            continue
        # It was free. With the option set from the start it might have been another
        # gateway's, and each would have had half of the clients.
        port = first.getsockname()[1]
        first.close()
        for copy in range(copies):
            again = (where[0], port, *where[2:])
            yield copy, _bind_host(address, family, again, shared=True)


def _resolve(address: Address) -> list[tuple[int, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(
            address.host,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {address}") from error
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))


def _bind_host(
    address: Address, family: int, where: tuple[Any, ...], *, shared: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{error.strerror}: {address}") from error
    return sock


def _bind_path(path: Path, mode: int) -> socket.socket:
    shared = 0o750 if mode & stat.S_IRWXG else 0o700
    path.parent.mkdir(mode=shared, parents=True, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        # Nobody can connect before listen(), so there is no moment in between.
        path.chmod(mode)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone; leave everything else alone."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(f"another process listens on {path}")

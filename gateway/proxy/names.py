"""What addresses a name has, and for how long they are good.

getaddrinfo does not tell how long, so the name servers are asked: c-ares reads
/etc/hosts first, then asks whom resolv.conf names, with its search list and ndots, for
both IP versions, and reads both files again when they change. What it does not find is
asked of the system, which may know of other places (nsswitch.conf) and nothing of time.

Nothing here blocks the loop: c-ares has a thread of its own, made with the first name.

Imports: aiodns, imported with the first name: most upstreams of a sidecar have none.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from aiodns import DNSResolver

# Seconds that a name server has for its answer, the first time; then twice as long.
_TIMEOUT = 1.0
_TRIES = 2


class Found(NamedTuple):
    """Where a name leads."""

    addresses: Sequence[str]  # IP addresses, one or more
    ttl: float | None = None  # seconds; None: nobody said


Resolve = Callable[[str, int], Awaitable[Found]]
"""Find a host, for a port. Raises OSError: it has no address, or nobody knows."""


async def ask_system(host: str, port: int) -> Found:
    """Ask as every program does.

    Raises:
        OSError: There is no address, or nobody knows.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    )
    return Found(list(dict.fromkeys(str(where[0]) for *_, where in found)))


class Names:
    """Finds names.

    Args:
        system: Who is asked for what no name server knows.
        options: What c-ares is told otherwise than in resolv.conf.
    """

    def __init__(self, system: Resolve = ask_system, **options: Any) -> None:
        self._system = system
        self._options = options
        self._resolver: DNSResolver | None = None

    async def find(self, host: str, port: int) -> Found:
        """Return where *host* leads; see `Resolve`."""
        from aiodns import DNSResolver  # noqa: PLC0415  (see above)
        from aiodns.error import DNSError  # noqa: PLC0415

        if self._resolver is None:
            options = {"timeout": _TIMEOUT, "tries": _TRIES} | self._options
            self._resolver = DNSResolver(**options)
        try:
            found = await self._resolver.getaddrinfo(
                host, port=port, type=socket.SOCK_STREAM
            )
        except DNSError:
            return await self._system(host, port)
        if not found.nodes:
            return await self._system(host, port)
        addresses = [_text(node.addr[0]) for node in found.nodes]
        # An alias on the way is good for no longer than it says itself.
        ttls = [each.ttl for each in found.nodes] + [one.ttl for one in found.cnames]
        return Found(list(dict.fromkeys(addresses)), min(ttls))

    async def aclose(self) -> None:
        """End what it has begun."""
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


def _text(address: bytes | str) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address

"""What asking an issuer may come to, and how its name is looked up.

Apart from gateway.adapters.issuer_http, so that who has its keys in files, and asks
nobody, does not wait for the HTTP client to be imported: 70 ms.

Imports: the standard library only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class SourceFailed(Exception):  # noqa: N818  (the source did)
    """A source gave no usable answer. The text names no address and no value."""


class SourceAway(SourceFailed):
    """It gave none at all: it can't be reached, hangs up, or is late."""


async def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of *host*, as the system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))

"""What a client asked for, and what follows when the same is asked for again.

Clients send the same bytes over and over. What those bytes mean is read once and kept
as an Asked; what is written for a request that was permitted, but for its own names and
the identity, is kept as a Way. Neither holds a decision: each request is decided, and a
Way counts only for the route, the principal and the permissions it was made for. Both
belong to one generation of the configuration and go with it.

Imports: gateway.identity, gateway.model, gateway.proxy, gateway.wire.
"""

from __future__ import annotations

import math
from typing import Any

from gateway.identity.signer import Signed
from gateway.model import (
    Headers,
    HeaderSection,
    Peer,
    Permit,
    Principal,
    RequestHead,
    Route,
)
from gateway.proxy.message import lines
from gateway.proxy.pool import Pool
from gateway.wire.framing import EMPTY, Body

MAX_KNOWN = 1024  # header sections kept by a port
MAX_KNOWN_BYTES = 4096  # of a head; 4 MiB in all
# Requests kept of one section: a page and what it loads. Of all, in number and in bytes
# received: what is made of a long target takes seven times its bytes, so 28 MB at most.
MAX_ASKED = 64
MAX_ASKED_BY_ALL = 4096
MAX_ASKED_BYTES = 4 << 20
# Statuses of which a Way keeps the form of the log line; backends use a handful.
_MAX_FORMS = 16


class Asked:
    """A request as it was read, but for its body."""

    __slots__ = (
        "body",
        "data",
        "head",
        "headers",
        "is_plain",
        "keep_alive",
        "method",
        "modern",
        "target",
        "trace_id",
        "traceparent",
        "way",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers | HeaderSection,
        body: Body | None,
        *,
        modern: bool = True,
        keep_alive: bool = True,
        is_plain: bool = False,
    ) -> None:
        """Hold what was read.

        Args:
            method: As received.
            target: As received.
            headers: As received, lower-case names; or what they were read as before.
            body: How the request's body is framed; None: it can't be told.
            modern: HTTP/1.1, not 1.0.
            keep_alive: The client means to go on after it.
            is_plain: No body, and nothing asked for but to go on after it.
        """
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.modern = modern
        self.keep_alive = keep_alive
        self.is_plain = is_plain
        # By the exchange, for a peer whose word does not count: what it says of other
        # hops, and the request's name, could differ each time.
        self.head: RequestHead | None = None
        self.traceparent: bytes | None = None  # the client's own, if it is one
        self.trace_id: str | None = None  # thereof
        self.way: Way | None = None
        # By KnownHeads, if it is kept there: all the bytes that it was read from.
        self.data = b""


class Way:
    """What is written for a permitted request, and where it goes."""

    __slots__ = (
        "_alike",
        "_begun",
        "granted",
        "is_stream",
        "lines",
        "peer",
        "pool",
        "principal",
        "route",
        "scheme",
        "since",
        "until",
        "vary",
    )

    def __init__(
        self, permit: Permit, head: RequestHead, pool: Pool, begun: bytes
    ) -> None:
        """Hold what was made for *permit*.

        Args:
            permit: As decided.
            head: For which; `begun` says where it came from.
            pool: Of its upstream.
            begun: The request line and all fields that are the same each time.
        """
        self.route: Route = permit.route
        self.principal: Principal = permit.principal
        self.granted = permit.granted
        self.peer: Peer = head.peer
        self.scheme = head.scheme
        self.pool = pool
        self._begun = begun
        self.vary = permit.route.access != "public"
        self.is_stream = permit.route.stream
        self.lines = b""  # with the signed ones, and the request's name begun
        self.since = self.until = -math.inf  # Unix seconds, in which they may be sent
        # By status: what the log entries of such requests have in common.
        self._alike: dict[int, tuple[Any, ...]] = {}

    def fits(self, permit: Permit, head: RequestHead) -> bool:
        """Tell whether *head*, with this *permit*, goes the same way."""
        return (
            self.principal is permit.principal
            and self.route is permit.route
            and self.granted == permit.granted
            and self.peer is head.peer
            and self.scheme == head.scheme
        )

    def say(self, signed: Signed) -> None:
        """Send *signed* from now on."""
        self.lines = b"%b%bx-request-id: " % (self._begun, lines(signed.fields))
        self.since, self.until = signed.since, signed.until

    def alike(self, status: int) -> tuple[Any, ...] | None:
        """Return what entries with *status* share, if that is kept."""
        return self._alike.get(status)

    def keep_alike(self, status: int, shared: tuple[Any, ...]) -> None:
        """Keep what entries with *status* share."""
        if len(self._alike) < _MAX_FORMS:
            self._alike[status] = shared


class KnownFields:
    """Header fields that came before, and what was asked for with them."""

    __slots__ = ("asked", "section")

    def __init__(self, section: HeaderSection) -> None:
        self.section = section
        self.asked: dict[bytes, Asked] = {}  # by request line


class KnownHeads:
    """What heads were read as, by their bytes, line ends included.

    Only heads of requests that were not refused are kept, so that a flood of inventions
    displaces nothing. Full, it starts afresh: each live head costs one reading then,
    and no order of use needs to be kept.
    """

    def __init__(self) -> None:
        self.by_fields: dict[bytes, KnownFields] = {}
        self._count = self._bytes = 0  # of what was asked for

    def __len__(self) -> int:
        return len(self.by_fields)

    def learn(self, head: bytes, end: int, section: HeaderSection) -> None:
        """Keep what the fields of *head*, whose request line ends at *end*, were."""
        fields = head[end:]
        if len(head) > MAX_KNOWN_BYTES or fields in self.by_fields:
            return
        if len(self.by_fields) >= MAX_KNOWN:
            self.clear()
        self.by_fields[fields] = KnownFields(section)

    def find(self, head: bytes) -> tuple[KnownFields | None, bytes]:
        """Return what is known of the fields of *head*, and its request line."""
        end = head.find(b"\r\n")
        return self.by_fields.get(head[end:]), head[:end]

    def keep(self, head: bytes, asked: Asked) -> None:
        """Keep what *head*, whose fields are known, asked for."""
        known, line = self.find(head)
        if known is None or len(head) > MAX_KNOWN_BYTES:
            return
        if len(known.asked) >= MAX_ASKED:
            self._count -= len(known.asked)
            self._bytes -= sum(len(each.data) for each in known.asked.values())
            known.asked.clear()
        elif self._count >= MAX_ASKED_BY_ALL or self._bytes >= MAX_ASKED_BYTES:
            self.clear()
            return
        known.asked[line] = asked
        asked.data = head
        self._count += 1
        self._bytes += len(head)

    def clear(self) -> None:
        """Forget everything."""
        self.by_fields = {}
        self._count = self._bytes = 0


def plain(method: bytes, target: bytes, section: HeaderSection) -> Asked:
    """Return a request that has fields which were read before, and no body."""
    return Asked(method, target, section, EMPTY, is_plain=True)

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
import re
from typing import Any, NamedTuple

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
from gateway.wire.request import Scheme

MAX_KNOWN = 1024  # header sections kept by a port
MAX_KNOWN_BYTES = 4096  # of a head; 4 MiB in all
# Requests kept of one section: a page and what it loads. Of all, in number and in bytes
# received: what is made of a long target takes seven times its bytes, so 28 MB at most.
MAX_ASKED = 64
MAX_ASKED_BY_ALL = 4096
MAX_ASKED_BYTES = 4 << 20
# Shapes of header sections, and all that was asked with them, in bytes received.
MAX_SHAPES = 64
MAX_SHAPES_BYTES = 1 << 20
# A bearer token, as the parser and gateway.wire.credential can only read it in one way.
_BEARER = re.compile(rb"\r\n[Aa]uthorization: Bearer ([A-Za-z0-9._~+/-]++=*+)(?=\r\n)")
# Statuses of which a Way keeps the form of the log line; backends use a handful.
_MAX_FORMS = 16


class Asked:
    """A request as it was read, but for its body."""

    __slots__ = (
        "begun",
        "body",
        "data",
        "head",
        "headers",
        "is_plain",
        "keep_alive",
        "method",
        "modern",
        "shape",
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
        self.begun: Begun | None = None  # with which its ways begin, whoever asks
        self.shape: Shape | None = None  # of the fields, where they have one
        # By KnownHeads, if it is kept there: all the bytes that it was read from.
        self.data = b""


class Begun(NamedTuple):
    """The request line and all fields that are the same whoever asks."""

    route: Route
    peer: Peer
    scheme: Scheme
    lines: bytes


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

    __slots__ = ("asked", "section", "shape")

    def __init__(self, section: HeaderSection, shape: Shape | None = None) -> None:
        self.section = section
        self.shape = shape
        self.asked: dict[bytes, Asked] = {}  # by request line


class Like(NamedTuple):
    """What a request line means beside the fields of a Shape."""

    method: bytes
    head: RequestHead  # without fields
    traceparent: bytes | None
    trace_id: str | None
    begun: Begun | None


class Shape:
    """Header fields that came before, with whatever token.

    The users of one program send the same fields but for their tokens. To put another
    token into its place, where nothing but a token can stand, is to read what the
    parser would. Whose it is, and whether it is any, is asked of each: neither a token
    nor a decision is kept here.
    """

    __slots__ = ("_after", "_bare", "_before", "asked", "passed")

    def __init__(self, section: HeaderSection, at: int) -> None:
        """Keep all of *section* but its field number *at*."""
        self._before, self._after = section.headers[:at], section.headers[at + 1 :]
        self._bare = HeaderSection((), section.host, section.authority)
        self.passed = section.lines[False]  # for an upstream: without the token
        self.asked: dict[bytes, Like] = {}  # by request line

    def section(self, token: bytes) -> HeaderSection:
        """Return what the fields are with *token*."""
        field = (b"authorization", b"Bearer " + token)
        headers = (*self._before, field, *self._after)
        made = HeaderSection(headers, self._bare.host, self._bare.authority)
        made.lines[False] = self.passed
        return made

    def again(self, line: bytes, section: HeaderSection) -> Asked | None:
        """Return what *line* asks for with *section*, if somebody asked it before."""
        like = self.asked.get(line)
        if like is None:
            return None
        made = plain(like.method, like.head.target, section, self)
        made.head = like.head._replace(headers=section.headers, section=section)
        made.traceparent, made.trace_id = like.traceparent, like.trace_id
        made.begun = like.begun
        return made

    def keep(self, line: bytes, asked: Asked) -> None:
        """Keep what *line*, which *asked* had, means."""
        head = asked.head
        if head is None:
            return
        if len(self.asked) >= MAX_ASKED:
            self.asked.clear()
        self.passed = self.passed or head.section.lines[False]
        head = head._replace(headers=(), section=self._bare)
        trace = asked.traceparent, asked.trace_id
        self.asked[line] = Like(asked.method, head, *trace, asked.begun)


class Seen:
    """Tells what comes again soon: only that is worth a place."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._hashes: set[int] = set()

    def __call__(self, data: bytes) -> bool:
        """Tell whether *data* was among the last ones; it is now."""
        name = hash(data)
        if name in self._hashes:
            return True
        if len(self._hashes) >= self._size:
            self._hashes.clear()
        self._hashes.add(name)
        return False


class KnownHeads:
    """What heads were read as, by their bytes, line ends included.

    Only heads of requests that were not refused are kept, so that a flood of inventions
    displaces nothing. Full, it starts afresh: each live head costs one reading then,
    and no order of use needs to be kept. Tokens that are more than that, in turn, are
    read by the shape of their heads each time.
    """

    def __init__(self) -> None:
        self.by_fields: dict[bytes, KnownFields] = {}
        self.by_shape: dict[tuple[bytes, bytes], Shape] = {}
        self._count = self._bytes = 0  # of what was asked for
        self._shapes_bytes = 0  # of the heads from which they have all they hold
        self._came, self._was_asked = Seen(MAX_KNOWN), Seen(MAX_KNOWN)

    def __len__(self) -> int:
        return len(self.by_fields)

    def learn(self, head: bytes, end: int, section: HeaderSection) -> None:
        """Keep what the fields of *head*, whose request line ends at *end*, were."""
        fields = head[end:]
        if len(head) <= MAX_KNOWN_BYTES and fields not in self.by_fields:
            self._put(fields, section, self._learn_shape(fields, section))

    def find(self, head: bytes) -> tuple[KnownFields | None, bytes]:
        """Return what is known of the fields of *head*, and its request line.

        Where others differ in their token alone, nothing of it is kept: whoever invents
        tokens displaces nobody's.
        """
        end = head.find(b"\r\n")
        fields, line = head[end:], head[:end]
        known = self.by_fields.get(fields)
        if known is None and len(head) <= MAX_KNOWN_BYTES:
            found = _BEARER.search(fields)
            if found is not None:
                start, stop = found.span(1)
                shape = self.by_shape.get((fields[:start], fields[stop:]))
                if shape is not None:
                    known = KnownFields(shape.section(found[1]), shape)
        return known, line

    def keep(self, head: bytes, asked: Asked) -> None:
        """Keep what *head*, whose fields are known, asked for, and was permitted."""
        section, shape = asked.headers, asked.shape
        if len(head) > MAX_KNOWN_BYTES or isinstance(section, tuple):
            return
        end = head.find(b"\r\n")
        line, fields = head[:end], head[end:]
        if shape is not None and line not in shape.asked and self._was_asked(line):
            self._count_shapes(len(head))
            shape.keep(line, asked)
        known = self.by_fields.get(fields)
        if known is None:
            if not self._came(fields):
                return
            known = self._put(fields, section, shape)
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
        self._clear_shapes()

    def _put(
        self, fields: bytes, section: HeaderSection, shape: Shape | None
    ) -> KnownFields:
        if len(self.by_fields) >= MAX_KNOWN:
            self.by_fields = {}
            self._count = self._bytes = 0
        known = self.by_fields[fields] = KnownFields(section, shape)
        return known

    def _learn_shape(self, fields: bytes, section: HeaderSection) -> Shape | None:
        """Return the shape of *fields*; None: they have none, or several tokens."""
        found = _BEARER.search(fields)
        names = [name for name, _ in section.headers]
        if found is None or names.count(b"authorization") != 1:
            return None
        start, stop = found.span(1)
        around = fields[:start], fields[stop:]
        shape = self.by_shape.get(around)
        if shape is None:
            if len(self.by_shape) >= MAX_SHAPES:
                self._clear_shapes()
            self._count_shapes(len(fields))
            shape = Shape(section, names.index(b"authorization"))
            self.by_shape[around] = shape
        return shape

    def _count_shapes(self, size: int) -> None:
        if self._shapes_bytes + size > MAX_SHAPES_BYTES:
            self._clear_shapes()
        self._shapes_bytes += size

    def _clear_shapes(self) -> None:
        self.by_shape = {}
        self._shapes_bytes = 0


def plain(
    method: bytes, target: bytes, section: HeaderSection, shape: Shape | None = None
) -> Asked:
    """Return a request that has fields which were read before, and no body."""
    asked = Asked(method, target, section, EMPTY, is_plain=True)
    asked.shape = shape
    return asked

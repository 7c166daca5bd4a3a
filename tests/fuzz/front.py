"""Bytes of a client, cut anywhere, into the whole data port.

The first nine bytes are the script: how the backend answers, and eight steps of how the
rest is cut and what happens between the pieces. The rest is the stream; it is cut also
at each CUT, where all that waits happens, and which is no part of it.

What has to hold is asserted of what stood on both wires, read by `strict`.
"""

from __future__ import annotations

import re

from gateway.proxy import message
from gateway.wire.headers import CREDENTIALS, HOP_BY_HOP, RESERVED
from tests.fuzz import strict
from tests.fuzz.world import (
    ALICE,
    ASSERTION,
    MAX_BODY,
    MAX_HEAD,
    MAX_HEADERS,
    PEER,
    Behaviour,
    Line,
    Upstreams,
    World,
)

STEPS = 8
SCRIPT = 1 + STEPS
CUT = b"\xfe"
# What the gateway itself says to the backend about where a request came from.
WRITTEN = {
    b"x-forwarded-for": PEER.encode(),
    b"x-forwarded-proto": b"http",
    b"x-gateway-assertion": ALICE.subject.encode(),
}
NEW = frozenset({b"x-forwarded-host", b"x-request-id", b"traceparent", b"tracestate"})
FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
_EXACT = frozenset(name.encode() for name in RESERVED if not name.endswith("*"))
_PREFIXES = tuple(name[:-1].encode() for name in RESERVED if name.endswith("*"))


def fuzz(data: bytes) -> None:
    """Feed *data*, and assert what holds for any bytes."""
    check(*play(data))


def play(data: bytes, world: World | None = None) -> tuple[World, bytes]:
    """Let a client say *data*; return what happened, and the stream that it sent."""
    script, stream = data[:SCRIPT].ljust(SCRIPT, b"\0"), data[SCRIPT:]
    world = world or World(answering(script[0]))
    world.is_busy = bool(script[0] & 0x40)
    at = 0
    for step in script[1:]:
        size = step & 0b11111
        piece = stream[at : at + size] if size else stream[at:]
        at += len(piece)
        _hear(world, piece)
        _between(world, step >> 5)
    _hear(world, stream[at:])
    if script[0] & 0x80:
        world.step(script[0] & 0b111)  # and goes away in the middle of it
    else:
        world.client.drain()
        world.run()
    return world, stream.replace(CUT, b"")


def _hear(world: World, data: bytes) -> None:
    first, *rest = data.split(CUT)
    world.client.hear(first)
    for piece in rest:
        world.run()
        world.client.hear(piece)


def _between(world: World, what: int) -> None:
    if what == 1:
        world.step(1)
    elif what == 2:
        world.step(3)
    elif what == 3:
        world.run()
    elif what == 4:
        world.client.fill()
        world.step(2)
    elif what == 5:
        world.client.drain()
    elif what == 6:
        for line in world.upstreams.lines:
            line.transport.fill()
            world.later(line.transport.drain)
    elif what == 7:
        world.client.drain()
        world.run()
        world.wait(4.0)


def answering(how: int) -> Behaviour:
    """Return a backend that tells each request apart, framed in one of eight ways."""

    def behave(upstreams: Upstreams, line: Line, request: strict.Message) -> None:
        told = sum(len(each.requests) for each in upstreams.lines)
        body = _told(request)
        style = (how + told) % 8 if how & 0b1000 else how % 8
        if request.method == b"HEAD":
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        elif style in {0, 1}:
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            line.say(body)
        elif style in {2, 3}:
            half = len(body) // 2
            line.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            line.say(message.chunk(body[:half]) + message.chunk(body[half:])[:2])
            line.say(message.chunk(body[half:])[2:] + b"0\r\n\r\n")
        elif style == 4:
            line.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
            line.say(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        elif style == 5:
            line.say(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            line.close()
        elif style == 6:
            line.say(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            line.close()
        else:
            line.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    return behave


def _told(request: strict.Message) -> bytes:
    (request_id,) = request.values(b"x-request-id")
    return b"%b %b %b" % (request_id, request.target, request.body)


def check(world: World, stream: bytes) -> None:
    """Assert what holds for any *stream*, then let it end, and assert that it does."""
    meant = strict.requests(stream)
    _arrived_as_meant(world, meant)
    _answered_in_order(world, meant)
    if meant.wrong or not meant.rest:
        pass
    elif not meant.messages or meant.messages[-1].whole:
        # An unfinished head, longer than any may be, is not awaited (R6).
        head = meant.rest.lstrip(b"\r\n")
        is_cut = not world.front.transport.is_closing() and not world.client.is_paused
        assert len(head) < 2 * MAX_HEAD or not is_cut or world.front.is_last
    world.leave()
    _arrived_as_meant(world, meant)
    assert not world.port.fronts
    assert all(not line.transport.is_open for line in world.upstreams.lines)
    names = [entry.request_id for entry in world.entries]
    assert len(names) == len(set(names))
    permitted = {request_id for request_id, _ in world.sent}
    assert permitted <= set(names), "permitted, and not logged"


def _arrived_as_meant(world: World, meant: strict.Reading) -> None:
    """I2, I3: what arrived is what the client said, in order, and was permitted."""
    permits = {request_id.encode(): head for request_id, head in world.sent}
    heads = [each for line in world.upstreams.lines for each in _readable(line)]
    order = [request_id.encode() for request_id, _ in world.sent]
    heads.sort(key=lambda each: order.index(each.values(b"x-request-id")[0]))
    spoken = iter(meant.messages)
    for request in heads:
        (request_id,) = request.values(b"x-request-id")
        head = permits[request_id]
        assert request.method == head.method.encode()
        assert request.target == head.target
        assert request.values(b"host") == [head.authority]
        assert not request.trailers
        _is_clean(request, is_public=head.segments[:1] == ("public",))
        # The next of the stream that is like it: none arrives twice or out of order.
        said = next((one for one in spoken if _is(one, request)), None)
        assert said is not None, ("nobody said this", request, meant)
        assert len(said.fields) <= MAX_HEADERS
        limit = MAX_BODY if head.segments[:1] != ("public",) else 1 << 30
        assert len(request.body) <= limit


def _readable(line: Line) -> list[strict.Message]:
    reading = line.reading
    assert not reading.wrong, (reading.wrong, bytes(line.transport.written))
    assert all(each.whole for each in reading.messages[:-1])
    if reading.rest and (not reading.messages or reading.messages[-1].whole):
        raise AssertionError(f"half a head was sent: {reading.rest!r}")
    return reading.messages


def _is(said: strict.Message, arrived: strict.Message) -> bool:
    if (said.method, said.target) != (arrived.method, arrived.target):
        return False
    if not _has_its_own_fields(said, arrived):
        return False
    if arrived.whole:
        return said.whole and said.body == arrived.body
    return said.body.startswith(arrived.body)


def _has_its_own_fields(said: strict.Message, arrived: strict.Message) -> bool:
    """I7: what the client said of it, and what nobody said of another request."""
    ours = NEW | FRAMING | set(WRITTEN)
    theirs = [each for each in arrived.fields if each[0] not in ours]
    if not all(each in said.fields for each in theirs):
        return False
    return bool(said.values(b"connection")) or all(
        each in theirs
        for each in said.fields
        if each[0] not in ours and not is_foreign(each[0], is_public=False)
    )


def is_foreign(name: bytes, *, is_public: bool) -> bool:
    """Tell whether a field of a client with this *name* may not arrive (R15, R16)."""
    folded = re.sub(rb"[^a-z0-9]", b"-", name)
    return (
        folded in HOP_BY_HOP
        or folded in _EXACT
        or folded.startswith((b"x-gateway-", b"proxy-", *_PREFIXES))
        or (folded in CREDENTIALS and not is_public)
        or b"_" in name
    )


def _is_clean(request: strict.Message, *, is_public: bool) -> None:
    seen = set()
    for name, value in request.fields:
        if name in WRITTEN:
            assert value == WRITTEN[name], (name, value)
            assert name != ASSERTION or not is_public
        elif name not in FRAMING | NEW:
            assert not is_foreign(name, is_public=is_public), name
            continue
        assert name not in seen, name
        seen.add(name)
    assert is_public or ASSERTION in seen


def _answered_in_order(world: World, meant: strict.Reading) -> None:
    """I5, I7: each answer is its request's, whole or cut off, and never our fault."""
    stream = bytes(world.client.written)
    entries = list(world.entries)
    ids = {request_id for request_id, _ in world.sent}
    while stream:
        entry = entries.pop(0) if entries else None
        method = entry.method.encode() if entry is not None else b"GET"
        is_closed = not world.client.is_open and not world.client.is_aborted
        found, reading = strict.answer(stream, method, closed=is_closed)
        assert not reading.wrong, (reading.wrong, stream)
        assert found.status < 500, stream
        for each in reading.messages[:-1]:
            assert each.status == 100
        if not found.whole:
            # The client is gone, or the answer is still on its way.
            return
        assert entry is not None, ("answered, and not logged", found)
        assert found.status == entry.status
        assert found.values(b"x-request-id") == [entry.request_id.encode()]
        if found.status == 200 and method != b"HEAD":
            told = b"%b " % entry.request_id.encode()
            assert found.body.startswith(told), (found.body, entry)
            assert entry.request_id in ids
        stream = reading.rest


def seeds() -> list[bytes]:
    """Return streams that are worth cutting and mixing."""
    get = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    two = b"Content-Length: 2\r\n\r\nhi"
    streams = [
        get,
        get * 3,
        b"GET /denied HTTP/1.1\r\nHost: a\r\n\r\n" + get,
        b"GET /wait/x HTTP/1.1\r\nHost: a\r\n\r\n" * 4 + get,
        b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n" + get,
        b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + get,
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-Gateway-Assertion: eve\r\n\r\n" + get,
        b"POST /d HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + two,
        b"GET /e HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Gateway-Assertion\r\n"
        b"Upgrade: h2c\r\nX-Gateway-Assertion: eve\r\nX_Gateway_Assertion: eve\r\n"
        b"X_Team: red\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: Bearer x\r\n\r\n"
        + get,
        b"GET /f HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" + get,
        b"POST /g HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n" + b"x" * 400,
        b"POST /public/g HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n"
        + b"x" * 400
        + get,
        b"POST /i HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
        b"GET /../j HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /k HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1200,
        b"GET /l HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 30 + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        get * 20,
        *(CUT.join(each) for each in _known()),
    ]
    scripts = [
        bytes(SCRIPT),
        b"\x08" + bytes([0x61, 0x27, 0x4C, 0x65, 0x30, 0x70, 0x21, 0x00]),
        b"\x0a" + bytes([0x9F, 0x3F, 0xBF, 0xDF, 0xFF, 0x5F, 0x1F, 0x7F]),
        b"\x8b" + bytes([0x3F] * 8),
        b"\x48" + bytes([0x61, 0x27, 0x4C, 0x65, 0x30, 0x70, 0x21, 0x00]),
        b"\xcb" + bytes([0x3F] * 8),
    ]
    return [script + stream for stream in streams for script in scripts]


def _known() -> list[list[bytes]]:
    """Return requests of which a later one repeats the fields of an earlier one."""
    fields = b"\r\nHost: a\r\nAccept: */*\r\n\r\n"
    get = b"GET /a HTTP/1.1" + fields
    return [
        [get, b"GET /b?c HTTP/1.1" + fields, b"HEAD /d HTTP/1.1" + fields, get],
        [get, b"POST /b HTTP/1.1" + fields, get],
        [get, b"GET /b HTTP/1.0" + fields, get],
        [get, b"GET /%2e%2e HTTP/1.1" + fields, b"GET *" + fields, get],
        [b"\r\n" + get, b"GET /x HTTP/1.1\r\n" + get, get],
        [get, get + get, get[:20], get[20:], get],
        [get, b"GET /n HTTP/1.1\r\nNonce: 1" + fields] * 2,
        [b"GET /denied HTTP/1.1" + fields, get, b"GET /wait/x HTTP/1.1" + fields] * 2,
    ]


WORDS = (
    CUT,
    CUT + b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" + CUT,
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"OPTIONS * HTTP/1.1\r\n",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: ",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\nUpgrade: x\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Gateway-Assertion: eve\r\n",
    b"X_Gateway_Assertion",
    b"X-Forwarded-For: ",
    b"Authorization: Bearer x\r\n",
    b"Trailer: x\r\n",
    b"TE: trailers\r\n",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b";x=y",
    b"/wait/x",
    b"/denied",
    b"/public/",
    b"/a",
    b"%2e%2e",
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
)

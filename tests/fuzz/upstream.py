"""Bytes of a hostile backend, cut anywhere, as the answer to an honest client.

The first nine bytes are the script: what the client asks, whether the backend closes,
and eight steps of how the rest is cut. The rest is what the backend says. Then others
ask, by the same connection of a client and by another, and are answered honestly: they
get their own answers and no byte of the first one (R20, R31).
"""

from __future__ import annotations

from tests.fuzz import strict
from tests.fuzz.front import SCRIPT
from tests.fuzz.world import Line, Upstreams, World

METHODS = (b"GET", b"HEAD", b"POST", b"GET")
SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
HONEST = b"the second one's own"
CLEAN = frozenset({b"connection", b"content-length", b"transfer-encoding"})
# Of fields that an upstream may not set, or that belong to its own connection.
GONE = frozenset({b"server", b"keep-alive", b"trailer", b"upgrade", b"te", b"proxy"})


def fuzz(data: bytes) -> None:
    """Let a backend say *data*, and assert what holds for any bytes."""
    script, said = data[:SCRIPT].ljust(SCRIPT, b"\0"), data[SCRIPT:]
    world = World(_nothing)
    # Heads that come again are not parsed again: what is said once is said three times.
    for _ in range(3 if script[0] & 0b10000 else 1):
        whole = _exchange(world, script, said)
        world.upstreams.behave = _honest
        taken = len(world.upstreams.lines)
        answered = len(world.client.written)
        if whole and world.client.is_open:
            world.client.hear(SECOND)
            world.run()
            _is_honest(bytes(world.client.written)[answered:])
            assert len(world.upstreams.lines) <= taken + 1
        # Whatever became of it, nobody else has anything to do with it.
        world.leave_client()
        world.enter()
        world.client.hear(SECOND)
        world.run()
        _is_honest(bytes(world.client.written))
        world.upstreams.behave = _nothing
        world.leave_client()
        world.enter()
        world.entries.clear()
    world.leave()
    assert all(not each.transport.is_open for each in world.upstreams.lines)


def _exchange(world: World, script: bytes, said: bytes) -> bool:
    """Ask once, and check what comes; tell whether it was a whole answer."""
    method = METHODS[script[0] & 0b11]
    closes = bool(script[0] & 0b100)
    modern = not script[0] & 0b1000
    before = [len(each.transport.written) for each in world.upstreams.lines]
    world.client.hear(_first(method, modern=modern))
    world.run()
    before += [0] * (len(world.upstreams.lines) - len(before))
    (line,) = (
        line
        for line, size in zip(world.upstreams.lines, before, strict=True)
        if len(line.transport.written) > size
    )
    at = 0
    for step in script[1:]:
        size = step & 0b11111
        piece = said[at : at + size] if size else said[at:]
        at += len(piece)
        line.transport.hear(piece)
        what = step >> 5
        if what == 1:
            world.client.fill()
        elif what == 2:
            world.client.drain()
        elif what == 3:
            world.run()
    line.transport.hear(said[at:])
    world.client.drain()
    world.run()
    if closes:
        line.transport.end()
        world.run()
    return _check_first(world, method, said, closes=closes, modern=modern) is not None


def _first(method: bytes, *, modern: bool) -> bytes:
    version = b"1.1" if modern else b"1.0\r\nConnection: keep-alive"
    head = b"%b /first HTTP/%b\r\nHost: a\r\n" % (method, version)
    if method == b"POST":
        return head + b"Content-Length: 2\r\n\r\nhi"
    return head + b"\r\n"


def _check_first(
    world: World, method: bytes, said: bytes, *, closes: bool, modern: bool
) -> strict.Message | None:
    """Return the whole answer that the client got; None: none, or a part of one."""
    meant, reading = strict.answer(said, method, closed=closes)
    stream = bytes(world.client.written)
    if not stream:
        # Nothing came, nothing was told; and it was not an answer.
        assert not meant.whole or world.client.is_aborted, (said, meant)
        return None
    is_closed = not world.client.is_open and not world.client.is_aborted
    got, answer = strict.answer(stream, method, closed=is_closed)
    assert not answer.wrong, (answer.wrong, stream)
    assert not (got.whole and answer.rest), ("more than an answer", stream)
    assert all(each.status == 100 for each in answer.messages[:-1])
    if not got.status:
        return None
    (entry,) = world.entries if got.whole else [*world.entries, None][:1]
    assert len(got.values(b"x-request-id")) == 1
    _is_clean(got, modern=modern)
    if got.status in {502, 504} and entry is not None and entry.reason:
        # Of our own making: not a byte of it is the backend's.
        assert b"upstream" in got.body or method == b"HEAD", got
        return got
    # What was told is what was said: its status, and its body or the beginning of it.
    assert got.status == meant.status, (got, meant)
    assert meant.body.startswith(got.body), (got, meant)
    if got.whole:
        assert entry is not None
        assert entry.status == got.status
        assert meant.whole, (said, stream, reading)
        assert got.body == meant.body or method == b"HEAD"
        assert got.values(b"set-cookie") == meant.values(b"set-cookie")
        return got
    return None


def _is_clean(got: strict.Message, *, modern: bool) -> None:
    connection = got.values(b"connection")
    assert connection in ([], [b"close"], [b"keep-alive"]), got
    assert len(got.values(b"content-length")) <= 1
    if got.values(b"transfer-encoding"):
        assert modern
        assert not got.values(b"content-length")
    for name, _ in got.fields:
        assert name not in GONE, name
        assert not name.startswith((b"x-gateway-", b"proxy-")), name


def _nothing(upstreams: Upstreams, line: Line, request: strict.Message) -> None:
    """Say nothing: the bytes are said by hand."""


def _honest(upstreams: Upstreams, line: Line, request: strict.Message) -> None:
    assert request.target == b"/second"
    line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(HONEST), HONEST))


def _is_honest(stream: bytes) -> None:
    got, reading = strict.answer(stream, b"GET", closed=False)
    assert got.whole, stream
    assert not reading.rest
    assert (got.status, got.body) == (200, HONEST), stream


def seeds() -> list[bytes]:
    """Return answers that are worth cutting and mixing."""
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answers = [
        ok,
        ok + ok,
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok,
        chunks + b"5\r\nhello\r\n0\r\n\r\n",
        chunks + b"5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
        chunks + b"5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        chunks.replace(b"\r\nT", b"\r\nContent-Length: 5\r\nT") + b"0\r\n\r\n",
        ok.replace(b"\r\nC", b"\r\nServer: x\r\nX-Request-Id: x\r\nC"),
        ok.replace(b"\r\nC", b"\r\nX-Gateway-Assertion: x\r\nSet-Cookie: a=b\r\nC"),
        ok.replace(b"\r\nC", b"\r\nConnection: close, x-a\r\nX-A: b\r\nC"),
        b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" + ok,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 3000,
        b"garbage\r\n\r\n",
        b"",
    ]
    scripts = [
        bytes([flags, *steps])
        for flags in (*range(16), 16, 17, 18, 24)
        for steps in ([0] * 8, [0x61, 0x02, 0x23, 0x48, 0x70, 0x11, 0x33, 0x00])
    ]
    return [script + each for each in answers for script in scripts]


WORDS = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 502 Bad Gateway\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Keep-Alive: timeout=5\r\n",
    b"Set-Cookie: a=b\r\n",
    b"X-Request-Id: x\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b";x=y",
)

"""gateway.proxy.tunnel: who is told what, when, and that nothing stands in a frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy.tunnel import CLOSE_WAIT, NEVER, PING_INTERVAL, Tunnel
from gateway.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Control,
    Frames,
    code_of,
)
from tests.wire.test_frames import made

MAX = 1000
PATIENCE = (30.0, 40.0)  # of the client, of the upstream
OURS = b"\x07" * 8  # what the pings say


@dataclass
class End:
    """One connection, which takes all it is given."""

    written: bytes = b""
    is_full: bool = False
    fills: bool = False  # with the next write
    held: bool = False
    eof: bool = False
    how: str = ""
    deadline: float = NEVER

    def write(self, data: bytes) -> None:
        self.written += data
        self.is_full = self.is_full or self.fills

    def write_eof(self) -> None:
        self.eof = True

    def hold(self) -> None:
        assert not self.held
        self.held = True

    def unhold(self) -> None:
        assert self.held
        self.held = False

    def close(self) -> None:
        self.how = "closed"

    def drop(self) -> None:
        self.how = "dropped"

    def taken(self) -> bytes:
        taken, self.written = self.written, b""
        return taken


@dataclass
class World:
    """A tunnel between two such ends, and its clock."""

    now: float = 100.0
    client: End = field(default_factory=End)
    upstream: End = field(default_factory=End)
    ended: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tunnel = Tunnel(
            self.client,
            self.upstream,
            max_message=MAX,
            patience=PATIENCE,
            random=lambda size: b"\x07" * size,
            monotonic=lambda: self.now,
            on_end=self.ended.append,
        )

    def wait(self, seconds: float) -> None:
        """Let time pass, with a sweeper that looks when it has to."""
        until = self.now + seconds
        while not self.tunnel.is_over and self.client.deadline <= until:
            self.now = self.client.deadline
            self.tunnel.expire(self.now)
        self.now = until

    def client_says(self, opcode: int, payload: bytes = b"") -> bytes:
        data = made(opcode, payload)
        self.tunnel.from_client(data)
        return data

    def upstream_says(self, opcode: int, payload: bytes = b"") -> bytes:
        data = made(opcode, payload, mask=b"")
        self.tunnel.from_upstream(data)
        return data

    def codes(self) -> tuple[int | None, int | None]:
        """Return the codes of the Close that either was sent, if it was."""
        client = _last(Frames(masked=False, max_message=1 << 30), self.client)
        return client, _last(Frames(masked=True, max_message=1 << 30), self.upstream)


def _last(frames: Frames, end: End) -> int | None:
    events = frames.feed(end.written)
    last = events[-1] if events else None
    assert all(isinstance(event, bytes | Control) for event in events)
    if isinstance(last, Control) and last.opcode == CLOSE:
        return code_of(last.payload)
    return None


def test_bytes_pass_as_they_came() -> None:
    """Data, pings and pongs; in both directions."""
    world = World()
    sent = world.client_says(TEXT, b"hello") + world.client_says(PING, b"p")
    sent += world.client_says(PONG, b"other")
    assert world.upstream.written == sent
    got = world.upstream_says(BINARY, b"x" * MAX) + world.upstream_says(PONG, b"p")
    assert world.client.written == got
    assert (world.tunnel.received, world.tunnel.sent) == (len(sent), len(got))
    assert world.ended == []


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa0because"])
@pytest.mark.parametrize("by", ["client", "upstream"])
def test_a_close_goes_through_and_its_answer_back(by: str, payload: bytes) -> None:
    """Code and reason as they are; then both connections close."""
    world = World()
    if by == "client":
        assert world.client_says(CLOSE, payload) == world.upstream.written
        assert world.upstream_says(TEXT, b"late") == world.client.taken()
        assert world.ended == []
        assert world.upstream_says(CLOSE, payload) == world.client.written
    else:
        assert world.upstream_says(CLOSE, payload) == world.client.written
        assert world.client_says(TEXT, b"late") == world.upstream.taken()
        assert world.ended == []
        assert world.client_says(CLOSE, payload) == world.upstream.written
    assert world.ended == [False]
    assert world.upstream.how == "closed"
    assert world.tunnel.reason == f"close.{code_of(payload)}:{by}"


@pytest.mark.parametrize("by", ["client", "upstream"])
def test_behind_its_close_nothing_passes(by: str) -> None:
    """Whatever it still says (section 5.5.1)."""
    world = World()
    says = world.client_says if by == "client" else world.upstream_says
    says(CLOSE)
    (world.upstream if by == "client" else world.client).taken()
    says(TEXT, b"more")
    assert (world.client.written, world.upstream.written) == (b"", b"")


@pytest.mark.parametrize("by", ["client", "upstream"])
def test_the_answer_to_a_close_has_a_deadline(by: str) -> None:
    """Both ways; whoever was told is closed, who was not is cut off."""
    world = World()
    (world.client_says if by == "client" else world.upstream_says)(CLOSE)
    world.wait(CLOSE_WAIT - 0.1)
    assert world.ended == []
    world.wait(0.2)
    assert world.ended == [by == "client"]
    assert world.upstream.how == ("closed" if by == "client" else "dropped")


def test_a_close_of_ours_goes_to_both() -> None:
    """And ends when both have answered."""
    world = World()
    world.tunnel.close(4401)
    assert world.codes() == (4401, 4401)
    world.tunnel.close(1001)  # the first one counts
    assert world.codes() == (4401, 4401)
    world.client_says(TEXT, b"late")
    assert world.codes() == (4401, 4401)
    world.client_says(CLOSE, b"\x11\x31")
    assert world.ended == []
    world.upstream_says(CLOSE, b"\x11\x31")
    assert world.ended == [False]
    assert world.tunnel.reason == "close.4401:gateway"


@pytest.mark.parametrize("by", ["client", "upstream", "nobody"])
def test_a_close_of_ours_may_be_in_a_hurry(by: str) -> None:
    """Whatever else it waits for: a frame's end, or the answer to another Close."""
    world = World()
    if by == "client":
        world.client_says(CLOSE)
    elif by == "upstream":
        world.upstream_says(CLOSE)
    else:
        half = made(BINARY, b"x" * 500, mask=b"")[:300]
        world.tunnel.from_upstream(half)
    world.tunnel.close(4401, within=0.5)
    world.wait(0.4)
    assert world.ended == []
    world.wait(0.2)
    assert len(world.ended) == 1


def test_a_close_of_ours_waits_for_the_end_of_a_frame() -> None:
    """It stands between two frames or nowhere."""
    world = World()
    half = made(BINARY, b"x" * 500, mask=b"")
    world.tunnel.from_upstream(half[:300])
    world.tunnel.close(4401)
    assert world.client.written == half[:300]
    assert world.codes()[1] == 4401
    world.tunnel.from_upstream(half[300:] + made(TEXT, mask=b"")[:1])
    assert world.codes()[0] == 4401
    world.upstream_says(TEXT, b"late")
    assert world.codes()[0] == 4401


def test_a_frame_that_does_not_end_is_cut_off() -> None:
    """With a deadline, and without a Close: it would be read as data."""
    world = World()
    world.tunnel.from_upstream(made(BINARY, b"x" * 500, mask=b"")[:300])
    world.tunnel.close(1001)
    world.wait(CLOSE_WAIT + 0.1)
    assert world.ended == [True]
    assert len(world.client.written) == 300


@pytest.mark.parametrize(
    ("by", "data", "told"),
    [
        ("client", made(3), (1002, 1002)),
        ("client", made(TEXT, mask=b""), (1002, 1002)),
        ("client", made(BINARY, b"x" * (MAX + 1)), (1009, 1009)),
        ("client", made(CLOSE, b"\x03\xe8\xff"), (1007, 1007)),
        ("client", made(CLOSE, b"\x03\xee"), (1002, 1002)),
        ("upstream", made(3, mask=b""), (1014, 1002)),
        ("upstream", made(TEXT), (1014, 1002)),
        ("upstream", made(BINARY, b"x" * (MAX + 1), mask=b""), (1009, 1009)),
    ],
)
def test_who_breaks_the_protocol_ends_it(
    by: str, data: bytes, told: tuple[int, int]
) -> None:
    """Each is told by a code of its own; what still comes is thrown away."""
    world = World()
    read = world.tunnel.from_client if by == "client" else world.tunnel.from_upstream
    read(data)
    if by == "client":
        assert world.codes() == (None, told[1])
        world.upstream_says(CLOSE, b"\x03\xe8")
    assert world.codes() == told
    assert (world.client.eof, world.upstream.eof) == (by == "client", by == "upstream")
    read(b"x" * 100_000)
    assert world.codes() == told
    code = told[0] if by == "client" else told[1]
    assert world.tunnel.reason == f"close.{code}:gateway"
    assert world.ended == []
    if by == "client":
        world.tunnel.client_lost()
    else:
        world.client_says(CLOSE)
        world.tunnel.upstream_lost()
    assert world.ended == [False]


def broken_by_the_client() -> World:
    """Return one whose client has asked something and then broken the protocol."""
    world = World()
    asked = made(TEXT, b"hello")
    world.tunnel.from_client(asked + made(3))
    assert world.upstream.written.startswith(asked)
    assert world.codes() == (None, 1002)
    return world


def test_what_was_asked_before_the_protocol_was_broken_is_answered() -> None:
    """The client's Close comes behind it, as from the upstream itself."""
    world = broken_by_the_client()
    answer = world.upstream_says(TEXT, b"hello")
    answer += world.upstream_says(PING, b"p")
    assert world.client.written == answer
    world.client_says(TEXT, b"more")
    assert world.codes() == (None, 1002)
    world.upstream_says(CLOSE, b"\x0f\xa0")
    assert world.client.written.startswith(answer)
    assert world.codes() == (1002, 1002)
    assert world.client.eof
    assert world.ended == []


@pytest.mark.parametrize("how", ["lost", "broken", "silent"])
def test_who_broke_the_protocol_is_told_in_any_case(how: str) -> None:
    """Whatever becomes of the upstream, and within the time for the answer."""
    world = broken_by_the_client()
    if how == "lost":
        world.tunnel.upstream_lost()
    elif how == "broken":
        world.tunnel.from_upstream(made(3, mask=b""))
    else:
        world.wait(CLOSE_WAIT - 0.1)
        assert world.codes()[0] is None
        world.wait(0.2)
        assert world.ended == [False]
    assert world.codes()[0] == 1002
    assert world.tunnel.reason == "close.1002:gateway"
    world.wait(CLOSE_WAIT)
    assert world.ended == [False]


def test_an_upstream_that_is_gone_is_told_to_the_client() -> None:
    """1014, and its answer is waited for."""
    world = World()
    world.upstream_says(TEXT, b"hello")
    world.tunnel.upstream_lost()
    assert world.codes()[0] == 1014
    assert world.ended == []
    world.client_says(CLOSE, b"\x03\xf6")
    assert world.ended == [False]
    assert world.tunnel.reason == "close.1006:upstream"


def test_an_upstream_that_is_gone_in_a_frame_takes_the_client_with_it() -> None:
    """Nothing can be said behind half a frame."""
    world = World()
    world.tunnel.from_upstream(made(TEXT, b"hello", mask=b"")[:4])
    world.tunnel.upstream_lost()
    assert world.ended == [True]
    assert world.tunnel.reason == "close.1006:upstream"


def test_an_upstream_may_close_without_an_answer() -> None:
    """The client gets the one that it is owed."""
    world = World()
    world.client_says(CLOSE, b"\x0f\xa0")
    world.tunnel.upstream_lost()
    assert world.codes()[0] == 4000
    assert world.ended == [False]
    assert world.tunnel.reason == "close.4000:client"


def test_an_upstream_that_has_said_goodbye_may_go() -> None:
    """The client still has its time to answer."""
    world = World()
    world.upstream_says(CLOSE, b"\x0f\xa0")
    world.tunnel.upstream_lost()
    assert world.ended == []
    world.client_says(CLOSE, b"\x0f\xa0")
    assert world.ended == [False]
    assert world.tunnel.reason == "close.4000:upstream"


def test_a_client_that_is_gone_is_gone_for_the_upstream() -> None:
    """It sees no Close, as it would without us (R32)."""
    world = World()
    world.client_says(TEXT, b"hello")
    world.tunnel.client_lost()
    assert world.ended == [True]
    assert world.upstream.how == "dropped"
    assert world.tunnel.reason == "close.1006:client"
    world.tunnel.upstream_lost()
    world.tunnel.from_client(made(TEXT))
    world.tunnel.from_upstream(made(TEXT, mask=b""))
    world.tunnel.client_drained()
    world.tunnel.close(1001)
    assert world.ended == [True]


def test_both_are_asked_whether_they_live() -> None:
    """Every 20 seconds; a pong to us goes no further, and any sign of life will do."""
    world = World()
    for _ in range(3):
        world.wait(PING_INTERVAL)
        assert world.client.taken() == made(PING, OURS, mask=b"")
        assert world.upstream.taken() == made(PING, OURS, mask=b"\x07" * 4)
        world.client_says(PONG, OURS)
        world.upstream_says(TEXT, b"x")
        assert world.upstream.taken() == b""
        assert world.client.taken() == made(TEXT, b"x", mask=b"")
    assert world.ended == []


@pytest.mark.parametrize("silent", ["client", "upstream"])
def test_who_does_not_answer_is_gone(silent: str) -> None:
    """By the time of the next ping."""
    world = World()
    world.wait(PING_INTERVAL + 1)
    if silent == "client":
        world.upstream_says(PONG, OURS)
    else:
        world.client_says(PONG, OURS)
    world.wait(PING_INTERVAL - 2)
    assert world.tunnel.reason == ""
    world.wait(1.5)
    assert world.tunnel.reason == f"close.1006:{silent}"
    if silent == "client":
        assert world.ended == [True]
        assert world.upstream.how == "dropped"
    else:
        assert world.codes()[0] == 1014
        assert world.upstream.how == "dropped"


def test_no_ping_stands_in_a_frame() -> None:
    """Something is under way then, which is sign enough to wait for."""
    world = World()
    half = made(BINARY, b"x" * 500, mask=b"")
    world.tunnel.from_upstream(half[:300])
    world.wait(PING_INTERVAL)
    assert world.client.written == half[:300]
    world.tunnel.from_upstream(half[300:])
    world.wait(PING_INTERVAL)
    assert world.client.written == half + made(PING, OURS, mask=b"")


@pytest.mark.parametrize("slow", ["client", "upstream"])
def test_who_is_slow_is_waited_for(slow: str) -> None:
    """The other is not read meanwhile; and can't be heard, so is not called dead."""
    world = World()
    full, other = world.client, world.upstream
    if slow == "upstream":
        full, other = other, full
    full.fills = True
    said = (world.upstream_says if slow == "client" else world.client_says)(TEXT, b"x")
    assert (full.held, other.held) == (False, True)
    world.wait(PING_INTERVAL + 5)
    assert full.written == said, "no ping behind what waits already"
    full.fills = full.is_full = False
    if slow == "client":
        world.tunnel.client_drained()
    else:
        world.tunnel.upstream_drained()
    assert not other.held
    assert world.ended == []


@pytest.mark.parametrize("slow", ["client", "upstream"])
def test_patience_ends(slow: str) -> None:
    """Who takes nothing for so long is given up."""
    world = World()
    full = world.client if slow == "client" else world.upstream
    full.fills = True
    (world.upstream_says if slow == "client" else world.client_says)(TEXT, b"x")
    patience = PATIENCE[slow == "upstream"]
    end = world.now + patience
    while world.now < end - 5:
        world.wait(5)
        if slow == "upstream":
            world.tunnel.from_upstream(made(PONG, OURS, mask=b""))
        else:
            world.tunnel.from_client(made(PONG, OURS))
    assert world.tunnel.reason == ""
    world.wait(10)
    assert world.tunnel.reason == f"close.1006:{slow}"
    assert world.upstream.how == "dropped"


FRAGMENTS = [
    made(TEXT, b"first", fin=False),
    made(CONTINUATION, b"middle", fin=False),
    made(CONTINUATION, b"last"),
    made(PING, b"p"),
    made(BINARY, b"x" * 200),
]


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("client"), st.binary(min_size=1, max_size=40)),
            st.tuples(st.just("client"), st.sampled_from(FRAGMENTS)),
            st.tuples(st.just("upstream"), st.integers(1, 300)),
            st.tuples(st.just("wait"), st.floats(0, 30)),
            st.tuples(st.just("close"), st.just(4401)),
            st.tuples(st.just("lost"), st.sampled_from(["client", "upstream"])),
        ),
        max_size=25,
    )
)
def test_whatever_happens_the_streams_stay_whole(
    events: list[tuple[str, object]],
) -> None:
    """What a client is sent can be read, frame by frame, to wherever it ends."""
    world = World()
    upstream = b"".join(
        made(BINARY, b"y" * size, mask=b"") for size in (300, 10, 0, 126, 700) * 9
    )
    at = 0
    for kind, what in events:
        if kind == "client":
            assert isinstance(what, bytes)
            world.tunnel.from_client(what)
        elif kind == "upstream":
            assert isinstance(what, int)
            world.tunnel.from_upstream(upstream[at : at + what])
            at += what
        elif kind == "wait":
            assert isinstance(what, float)
            world.wait(what)
        elif kind == "close":
            world.tunnel.close(4401)
        elif what == "client":
            world.tunnel.client_lost()
        else:
            world.tunnel.upstream_lost()
        world.codes()  # asserts that neither was sent anything broken
    assert len(world.ended) <= 1
    world.wait(200)
    world.tunnel.client_lost()
    assert len(world.ended) == 1

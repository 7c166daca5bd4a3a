"""gateway.wire.frames: RFC 6455 section 5, row by row, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import Protocol, Side, State

from gateway.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_PAYLOAD,
    NO_STATUS,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Broken,
    Control,
    Event,
    Frames,
    close_payload,
    code_of,
    frame,
    masked,
)

MASK = b"\x01\x02\x03\x04"
MAX = 1000  # bytes


def made(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    mask: bytes = MASK,
    reserved: int = 0,
) -> bytes:
    """Return a frame, right or wrong, with the shortest length that it can have."""
    size = len(payload)
    first = (0x80 if fin else 0) | reserved | opcode
    bit = 0x80 if mask else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 1 << 16:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    return head + mask + (masked(payload, mask) if mask else payload)


def of_client(max_message: int = MAX) -> Frames:
    return Frames(masked=True, max_message=max_message)


def together(events: list[Event]) -> list[Event]:
    """Join the bytes between two other events: how they came is nobody's business."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


def control(opcode: int, payload: bytes = b"") -> Control:
    return Control(opcode, payload, made(opcode, payload))


HELLO = made(TEXT, b"hello")
FIRST, MIDDLE, LAST = (
    made(TEXT, b"a" * 400, fin=False),
    made(CONTINUATION, b"b" * 400, fin=False),
    made(CONTINUATION, b"c" * 200),
)
BAD = Broken(PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (HELLO, [HELLO]),
        (made(BINARY), [made(BINARY)]),
        (HELLO * 3, [HELLO * 3]),
        (made(BINARY, b"x" * 125), [made(BINARY, b"x" * 125)]),
        (made(BINARY, b"x" * 126), [made(BINARY, b"x" * 126)]),
        (made(BINARY, b"x" * MAX), [made(BINARY, b"x" * MAX)]),
        (FIRST + MIDDLE + LAST, [FIRST + MIDDLE + LAST]),
        # One after the other, each has its own size.
        ((FIRST + MIDDLE + LAST) * 2, [(FIRST + MIDDLE + LAST) * 2]),
        (made(PING), [control(PING)]),
        (made(PING, b"x" * 125), [control(PING, b"x" * 125)]),
        (made(PONG, b"x"), [control(PONG, b"x")]),
        # Between the fragments of a message.
        (FIRST + made(PING) + LAST, [FIRST, control(PING), LAST]),
        (made(CLOSE), [control(CLOSE)]),
        (
            made(CLOSE, b"\x03\xe8bye \xc3\xbc"),
            [control(CLOSE, b"\x03\xe8bye \xc3\xbc")],
        ),
        # In the middle of a message, and nothing is looked at behind it.
        (FIRST + made(CLOSE) + b"\xff" * 9, [FIRST, control(CLOSE)]),
        # Reserved bits: no extension was agreed on.
        (made(TEXT, reserved=0x40), [BAD]),
        (made(TEXT, reserved=0x20), [BAD]),
        (made(TEXT, reserved=0x10), [BAD]),
        (made(PING, reserved=0x40), [BAD]),
        *((made(opcode), [BAD]) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        (HELLO + made(3), [HELLO, BAD]),
        # Direction.
        (made(TEXT, b"hello", mask=b""), [BAD]),
        (made(PING, mask=b""), [BAD]),
        # Control frames are short and whole.
        (made(PING, b"x" * 126), [BAD]),
        (made(CLOSE, b"\x03\xe8" + b"x" * 124), [BAD]),
        (made(PING, fin=False), [BAD]),
        (made(PONG, fin=False), [BAD]),
        (made(CLOSE, fin=False), [BAD]),
        # A message goes on with continuations and with nothing else.
        (made(CONTINUATION), [BAD]),
        (HELLO + made(CONTINUATION), [HELLO, BAD]),
        (FIRST + HELLO, [FIRST, BAD]),
        (FIRST + made(BINARY, fin=False), [FIRST, BAD]),
        (FIRST + LAST + LAST, [FIRST + LAST, BAD]),
        # The shortest form of a length, and none that is negative to somebody.
        (b"\x81\xfe\x00\x05", [BAD]),
        (b"\x81\xfe\x00\x7d", [BAD]),
        (b"\x81\xff" + (65535).to_bytes(8, "big"), [BAD]),
        (b"\x81\xff\x80" + b"\0" * 7, [BAD]),
        # Size: of a message, known from its headers.
        (b"\x82\xfe\x03\xe9", [Broken(TOO_BIG)]),
        (b"\x82\xff\x7f" + b"\xff" * 7, [Broken(TOO_BIG)]),
        (
            FIRST + MIDDLE + made(CONTINUATION, b"c" * 201),
            [FIRST + MIDDLE, Broken(1009)],
        ),
        (HELLO + b"\x82\xfe\x03\xe9", [HELLO, Broken(TOO_BIG)]),
        # A Close: two bytes of code or none, and a reason in UTF-8.
        (made(CLOSE, b"\x03"), [BAD]),
        (made(CLOSE, b"\x03\xe8\xff"), [Broken(INVALID_PAYLOAD)]),
        (made(CLOSE, b"\x03\xe8\xed\xa0\x80"), [Broken(INVALID_PAYLOAD)]),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 3])
def test_each_rule_holds(data: bytes, events: list[Event], step: int) -> None:
    """All at once, byte by byte, and otherwise."""
    frames = of_client()
    pieces = [data[at : at + step] for at in range(0, len(data), step)] if step else []
    found = [event for piece in pieces or [data] for event in frames.feed(piece)]
    assert together(found) == events


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        *((code, True) for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010)),
        *((code, True) for code in (1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)),
        *((code, False) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100)),
        *((code, False) for code in (2000, 2999, 5000, 65535)),
    ],
)
def test_a_code_is_one_that_may_be_sent(code: int, passes: bool) -> None:
    """RFC 6455 section 7.4, and the registry."""
    payload = close_payload(code) if code != NO_STATUS else b"\x03\xed"
    (event,) = of_client().feed(made(CLOSE, payload))
    assert event == (control(CLOSE, payload) if passes else BAD)
    if isinstance(event, Control):
        assert code_of(event.payload) == code


def test_a_server_does_not_mask() -> None:
    """And whoever does is none (section 5.1)."""
    said = made(TEXT, b"hello", mask=b"") + made(PING, b"x", mask=b"")
    frames = Frames(masked=False, max_message=MAX)
    assert frames.feed(said) == [
        made(TEXT, b"hello", mask=b""),
        Control(PING, b"x", made(PING, b"x", mask=b"")),
    ]
    assert frames.feed(HELLO) == [BAD]
    assert frames.feed(made(TEXT, mask=b"")) == []


def test_what_passes_whole_is_not_copied() -> None:
    """The bytes that came are the bytes that go."""
    frames = of_client(1 << 20)
    first = made(BINARY, b"x" * 1000)[:500]
    assert frames.feed(first)[0] is first
    assert not frames.is_between
    more = b"y" * 100
    assert frames.feed(more)[0] is more
    assert frames.feed(b"") == []


def test_one_may_put_a_frame_of_ones_own_between_two() -> None:
    """Also while a header is held: nothing of its frame has passed."""
    frames = of_client()
    assert frames.is_between
    frames.feed(HELLO[:-1])
    assert not frames.is_between
    frames.feed(HELLO[-1:] + HELLO[:3])
    assert frames.is_between
    frames.feed(HELLO[3:] + made(PING)[:3])
    assert frames.is_between
    frames.feed(made(PING)[3:] + FIRST)
    assert frames.is_between


def test_a_frame_of_ours_is_what_it_says() -> None:
    """Masked with its mask, or not at all."""
    assert frame(PING, b"abcde", MASK) == made(PING, b"abcde")
    assert frame(CLOSE, close_payload(1001)) == b"\x88\x02\x03\xe9"
    assert frame(CLOSE, close_payload(NO_STATUS)) == b"\x88\x00"
    assert code_of(b"") == NO_STATUS
    assert masked(b"", MASK) == b""


WHOLE = st.one_of(
    st.builds(
        made,
        st.sampled_from([TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE, 3]),
        st.one_of(st.binary(max_size=140), st.just(b"\x03\xe8"), st.just(b"z" * 600)),
        fin=st.booleans(),
        mask=st.sampled_from([MASK, MASK, MASK, b""]),
        reserved=st.sampled_from([0, 0, 0, 0x40]),
    ),
    st.just(HELLO),
    st.just(FIRST + LAST),
    st.just(FIRST),
    st.just(MIDDLE),
    st.just(LAST),
)
STREAMS = st.lists(st.one_of(WHOLE, st.binary(max_size=20)), max_size=8).map(b"".join)


@settings(max_examples=300)
@given(STREAMS, st.lists(st.integers(1, 40), max_size=60))
def test_any_bytes_cut_anywhere_give_the_same(data: bytes, cuts: list[int]) -> None:
    """What is said depends on the bytes alone; and never is more held than a header."""
    whole = of_client()
    expected = together(whole.feed(data))
    frames, found, at = of_client(), list[Event](), 0
    for cut in [*cuts, len(data)]:
        found += frames.feed(data[at : at + cut])
        at += cut
        assert len(frames._held) < 139
    assert together(found) == expected
    assert frames.is_between is whole.is_between
    passed = b"".join(
        event.raw if isinstance(event, Control) else event
        for event in expected
        if not isinstance(event, Broken)
    )
    assert data.startswith(passed)


@settings(max_examples=300)
@given(st.lists(WHOLE, max_size=8).map(b"".join))
def test_another_reader_agrees(data: bytes) -> None:
    """The `websockets` package passes and refuses the same, for the same reason."""
    theirs = Protocol(Side.SERVER, state=State.OPEN, max_size=None)
    theirs.receive_data(data)
    ours = of_client(1 << 30).feed(data)
    last = ours[-1] if ours else b""
    if theirs.parser_exc is not None and theirs.close_rcvd is None:
        assert theirs.close_sent is not None
        assert isinstance(last, Broken)
        # Of a Close with a wrong code and a wrong reason each names another fault.
        assert last.code in {theirs.close_sent.code, PROTOCOL_ERROR}
    else:
        # A Close within a message, which is right (section 5.4), they call a fault.
        assert not isinstance(last, Broken)
        is_closed = isinstance(last, Control) and last.opcode == CLOSE
        assert is_closed is (theirs.close_rcvd is not None)

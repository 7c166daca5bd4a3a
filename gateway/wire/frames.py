"""Where WebSocket frames begin and end, and whether they may stand there (RFC 6455).

A Frames follows one direction of a connection. It is given bytes as they were read and
says what of them passes, byte for byte: payloads are neither unmasked nor copied
together. Only headers and control frames, 139 bytes at most, are held until they are
whole. What it says depends on the bytes alone, not on how they were cut.

Sections 5.2 to 5.5 and 7.4. Left to the endpoints: whether text is UTF-8. No extension
is ever agreed on, so a reserved bit is a mistake.

Imports: the standard library only.
"""

from __future__ import annotations

from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# Why a connection ends (section 7.4.1, and the registry that it founded).
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS = 1005  # a Close without one; on no wire
ABNORMAL = 1006  # no Close at all; on no wire
INVALID_PAYLOAD = 1007
TOO_BIG = 1009
BAD_GATEWAY = 1014

MAX_CONTROL = 125  # bytes of a control frame's payload (section 5.5)
_FIN, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_SHORT, _LONG = 126, 127  # lengths that say: two, eight bytes follow
_LONGEST = 1 << 63  # its first bit is zero (section 5.2)
_OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
# Of a Close: what is registered to be sent, then libraries' and applications' own.
_CODES = frozenset({*range(1000, 1004), *range(1007, 1015)})
_OWN_CODES = range(3000, 5000)


class Control(NamedTuple):
    """A whole control frame."""

    opcode: int
    payload: bytes  # unmasked
    raw: bytes  # as received


class Broken(NamedTuple):
    """The sender broke the protocol; nothing after this is looked at."""

    code: int  # to close with


Event = bytes | Control | Broken
"""Bytes of data frames that pass as they are; or what has to be seen to."""


class Frames:
    """One direction of a WebSocket connection.

    Args:
        masked: Whether its sender has to mask: a client does, a server must not.
        max_message: bytes of payload of one message, all its fragments together.
    """

    __slots__ = ("_ended", "_held", "_in_message", "_left", "_masked", "_max", "_size")

    def __init__(self, *, masked: bool, max_message: int) -> None:
        self._masked = masked
        self._max = max_message
        self._held = b""  # of a frame that is not yet known to pass
        self._left = 0  # bytes of payload to come, of a data frame that passes
        self._size = 0  # bytes of the message in hand, as its headers declare them
        self._in_message = False
        self._ended = False

    @property
    def is_between(self) -> bool:
        """Whether all that passed were whole frames: another may stand here."""
        return not self._left

    def feed(self, data: bytes) -> list[Event]:
        """Return what *data* means, in order."""
        if self._ended or not data:
            return []
        size = len(data)
        if self._left >= size:  # in the middle of something large
            self._left -= size
            return [data]
        if self._held:
            data = self._held + data
            size = len(data)
            self._held = b""
        events: list[Event] = []
        at = self._left
        self._left = 0
        start = 0  # of what passes and is not yet among the events
        while at < size:
            frame = self._read(data, at, size)
            if frame is None:
                self._held = data[at:]
                break
            if isinstance(frame, int):
                at += frame
                if at > size:
                    self._left = at - size
                    at = size
                continue
            if at > start:
                events.append(data[start:at])
            events.append(frame)
            if isinstance(frame, Broken) or frame.opcode == CLOSE:
                self._ended = True
                return events
            at += len(frame.raw)
            start = at
        if at > start:
            events.append(data if at - start == size else data[start:at])
        return events

    def _read(self, data: bytes, at: int, size: int) -> int | Control | Broken | None:
        """Read the frame that begins at *at*.

        Returns the length of a data frame that passes, a whole control frame, or None
        where more has to be known.
        """
        if size - at < 2:  # noqa: PLR2004  (what every header has)
            return None
        first, second = data[at], data[at + 1]
        opcode = first & _OPCODE
        length = second & _LENGTH
        is_control = opcode >= CLOSE
        if (
            first & _RESERVED
            or opcode not in _OPCODES
            or bool(second & _MASKED) is not self._masked
            or (is_control and (length > MAX_CONTROL or not first & _FIN))
            # A message goes on with continuations, and with nothing else.
            or (not is_control and (opcode == CONTINUATION) is not self._in_message)
        ):
            return Broken(PROTOCOL_ERROR)
        header = 2
        if length >= _SHORT:
            header += 2 if length == _SHORT else 8
            if size - at < header:
                return None
            said = length
            length = int.from_bytes(data[at + 2 : at + header], "big")
            shortest = _SHORT if said == _SHORT else 1 << 16
            if not shortest <= length < _LONGEST:
                return Broken(PROTOCOL_ERROR)
        if is_control:
            return self._control(data, at, header, length)
        if self._size + length > self._max:
            return Broken(TOO_BIG)
        header += 4 if self._masked else 0
        if size - at < header:
            return None
        self._in_message = not first & _FIN
        self._size = self._size + length if self._in_message else 0
        return header + length

    def _control(
        self, data: bytes, at: int, header: int, length: int
    ) -> Control | Broken | None:
        mask = b""
        start = at + header
        if self._masked:
            mask = data[start : start + 4]
            start += 4
        end = start + length
        if len(data) < end:
            return None
        payload = data[start:end]
        if mask:
            payload = masked(payload, mask)
        opcode = data[at] & _OPCODE
        if opcode == CLOSE:
            fault = _fault(payload)
            if fault:
                return Broken(fault)
        return Control(opcode, payload, data[at:end])


def frame(opcode: int, payload: bytes = b"", mask: bytes = b"") -> bytes:
    """Return a whole control frame.

    Args:
        opcode: CLOSE, PING or PONG.
        payload: At most 125 bytes.
        mask: Four random bytes where we are the client (section 5.3).
    """
    head = bytes((_FIN | opcode, len(payload) | (_MASKED if mask else 0)))
    return head + mask + masked(payload, mask) if mask else head + payload


def close_payload(code: int) -> bytes:
    """Return what a Close that says *code* holds."""
    return b"" if code == NO_STATUS else code.to_bytes(2, "big")


def code_of(payload: bytes) -> int:
    """Return the code of a Close that has been found right."""
    return int.from_bytes(payload[:2], "big") if payload else NO_STATUS


def masked(payload: bytes, mask: bytes) -> bytes:
    """Mask, or unmask, *payload* (section 5.3)."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    both = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return both.to_bytes(size, "big")


def _fault(payload: bytes) -> int:
    """Return what is wrong with the payload of a Close, as a code; 0 for nothing."""
    if not payload:
        return 0
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _CODES or code in _OWN_CODES):
        return PROTOCOL_ERROR
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        return INVALID_PAYLOAD
    return 0

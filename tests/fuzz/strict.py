"""Messages read by the letter of RFC 9112, by other means than the product's.

No parser of the product is used here: only what two readers agree on is evidence. Where
the product's parser is known to read more than the letter, `LENIENT` says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# LENIENT: httptools takes several blanks before a target and before the version, and
# RTSP for HTTP. Neither moves the end of a message, and what is forwarded is written
# anew, so no two readers come apart over it.
_REQUEST_LINE = re.compile(
    rb"(" + TOKEN + rb") +([!-~]+) +(?:HTTP|RTSP)/([0-9]\.[0-9])"
)
# LENIENT: any bytes in the phrase, which is not copied.
_STATUS_LINE = re.compile(rb"HTTP/([0-9]\.[0-9]) ([0-9]{3})(?: [^\r\n]*)?")
_FIELD = re.compile(rb"(" + TOKEN + rb"):[\t ]*([\t -~\x80-\xff]*?)[\t ]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_NO_BODY = (204, 304)


class Unreadable(Exception):  # noqa: N818
    """By the letter, this is no message."""


class Unfinished(Exception):  # noqa: N818
    """The bytes end before the message does."""


@dataclass(slots=True)
class Message:
    """A request or an answer, as far as it came."""

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    version: bytes = b"1.1"
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    whole: bool = False
    until_close: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the field *name*, which is lower-case."""
        return [value for key, value in self.fields if key == name]


@dataclass(slots=True)
class Reading:
    """A stream, read as far as it can be."""

    messages: list[Message] = field(default_factory=list)  # the last may be not whole
    rest: bytes = b""  # behind the last one that is whole
    wrong: str = ""  # why it can't be read on; "" where it just ends


def requests(stream: bytes) -> Reading:
    """Read *stream* as requests, one behind the other."""
    reading = Reading(rest=stream)
    while True:
        # RFC 9112 section 2.2: an empty line before a request line is ignored.
        at = len(reading.rest) - len(reading.rest.lstrip(b"\r\n"))
        if at == len(reading.rest):
            return reading
        request = Message()
        try:
            at, line, request.fields = _head(reading.rest, at)
            match = _REQUEST_LINE.fullmatch(line)
            if match is None or match[3] not in {b"1.0", b"1.1"}:
                raise Unreadable("request line")  # noqa: TRY301
            request.method, request.target, request.version = match.groups()
            reading.messages.append(request)
            at = _body(reading.rest, at, request, framing(request))
        except Unfinished:
            return reading
        except Unreadable as error:
            reading.wrong = str(error)
            return reading
        request.whole = True
        reading.rest = reading.rest[at:]


def answer(stream: bytes, method: bytes, *, closed: bool) -> tuple[Message, Reading]:
    """Read the final answer to a *method*; interim ones are before it in the Reading.

    Args:
        stream: From the first byte of the first answer.
        method: Of the request.
        closed: Whether the connection was closed in order behind *stream*.
    """
    reading = Reading(rest=stream)
    while True:
        found = Message()
        # LENIENT: empty lines before a status line; an answer has none to be lost in.
        at = len(reading.rest) - len(reading.rest.lstrip(b"\r\n"))
        try:
            at, line, found.fields = _head(reading.rest, at)
            match = _STATUS_LINE.fullmatch(line)
            if match is None or match[1] not in {b"1.0", b"1.1"}:
                raise Unreadable("status line")  # noqa: TRY301
            found.version, found.status = match[1], int(match[2])
            if found.status < 100:
                raise Unreadable("status")  # noqa: TRY301
            size = framing(found)
            if method == b"HEAD" or found.status in _NO_BODY or found.status < 200:
                if found.status < 200 and size != 0:
                    raise Unreadable("a body where there is none")  # noqa: TRY301
                size = 0
            elif size == 0 and not found.values(b"content-length"):
                found.until_close = True
                found.body = reading.rest[at:]
                found.whole = closed
                reading.rest = b""
                reading.messages.append(found)
                return found, reading
            reading.messages.append(found)
            at = _body(reading.rest, at, found, size)
        except Unfinished:
            return found, reading
        except Unreadable as error:
            reading.wrong = str(error)
            return found, reading
        found.whole = True
        reading.rest = reading.rest[at:]
        if found.status >= 200:
            return found, reading


def is_field(line: bytes) -> bool:
    """Tell whether *line* could stand in a head."""
    return _FIELD.fullmatch(line) is not None


def _head(stream: bytes, at: int) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    end = stream.find(b"\r\n\r\n", at)
    if end < 0:
        raise Unfinished
    line, *rest = stream[at:end].split(b"\r\n")
    return end + 4, line, [_field(each) for each in rest]


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise Unreadable("field")
    return match[1].lower(), match[2]


def framing(message: Message) -> int | None:
    """Return the length of the body of *message*; None: it is chunked."""
    lengths = message.values(b"content-length")
    codings = message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Unreadable("two framing fields")
    if codings:
        if codings[0].lower() != b"chunked" or message.version == b"1.0":
            raise Unreadable("transfer-encoding")
        return None
    if not lengths:
        return 0
    if not _LENGTH.fullmatch(lengths[0]) or int(lengths[0]) >= 2**63:
        raise Unreadable("content-length")
    return int(lengths[0])


def _body(stream: bytes, at: int, message: Message, size: int | None) -> int:
    if size is not None:
        message.body = stream[at : at + size]
        if len(message.body) < size:
            raise Unfinished
        return at + size
    while True:
        line, at = _line(stream, at)
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise Unreadable("chunk size")
        size = int(match[1], 16)
        if not size:
            break
        message.body += stream[at : at + size]
        end = stream[at + size : at + size + 2]
        if len(end) < 2:
            if end not in {b"", b"\r"}:
                raise Unreadable("end of chunk")
            raise Unfinished
        if end != b"\r\n":
            raise Unreadable("end of chunk")
        at += size + 2
    while True:
        line, at = _line(stream, at)
        if not line:
            return at
        message.trailers.append(_field(line))


def _line(stream: bytes, at: int) -> tuple[bytes, int]:
    end = stream.find(b"\r\n", at)
    if end < 0:
        raise Unfinished
    return stream[at:end], end + 2

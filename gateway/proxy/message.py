"""Heads and chunks as bytes: how a message is written, to either side.

Everything here is written anew from parsed parts. No byte of a received request line,
status line or framing field is copied, so what one side meant by it can't be read in
another way by the other (RFC 9112 sections 3, 4 and 7).

Imports: the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

Field = tuple[bytes, bytes]

CLOSE: Field = (b"connection", b"close")
KEEP_ALIVE: Field = (b"connection", b"keep-alive")
CHUNKED: Field = (b"transfer-encoding", b"chunked")
LAST_CHUNK = b"0\r\n\r\n"  # no trailers, ever (R14)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# The phrase is ours, not the upstream's: nobody reads it, and a status line is no place
# for somebody else's bytes.
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}


def lines(fields: Iterable[Field]) -> bytes:
    """Return *fields* as they stand in a head, each with its line end."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def request_lines(
    method: bytes,
    target: bytes,
    host: bytes,
    passed: bytes,
    fields: Iterable[Field],
) -> bytes:
    """Return the request line with *target* byte for byte (R11), and fields.

    Args:
        method: As received.
        target: As permitted.
        host: For the Host field.
        passed: The lines of the client's fields that pass.
        fields: Ours.
    """
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b" % (
        method,
        target,
        host,
        passed,
        lines(fields),
    )


def answer_head(status: int, fields: Iterable[Field]) -> bytes:
    """Return the head of a response; *fields* hold its framing already."""
    return answer_lines(status, fields) + b"\r\n"


def answer_lines(status: int, fields: Iterable[Field]) -> bytes:
    """Return status line and *fields*, to which others may be added."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"%b%b\r\n" % (line, b"\r\n".join(map(b": ".join, fields)))


def chunk(content: bytes) -> bytes:
    """Return *content*, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def content_length(length: int) -> Field:
    """Return the field that declares *length* bytes."""
    return (b"content-length", b"%d" % length)

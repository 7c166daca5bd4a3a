"""Where a message ends, or a refusal to guess (RFC 9112 sections 2, 3 and 6).

The parser of the data port is strict, but not as strict as this house: it lets
through `gzip, chunked`, Transfer-Encoding on HTTP/1.0, other versions than 1.0 and
1.1, and a length of 2^63. A message that two readers could cut in two places is
refused, never repaired: that is request smuggling (R2), and from an upstream the
answer of another user (R20, R31). What a parser swallows before we see fields (blanks
in the request line, other protocol names, a line feed before it) is `head_is_clean`.

Imports: gateway.model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.model import Denial, Headers, Reason

TOKEN_CHARACTERS = (
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
"""What a field name or a method is made of (RFC 9110 section 5.6.2)."""

CONTROLS = bytes(range(9)) + bytes(range(10, 32)) + b"\x7f"
"""What no field value holds: all controls but the tab (RFC 9110 section 5.5)."""

# PRI begins HTTP/2, TRACK is Microsoft's TRACE. The others would make us a tunnel or
# a mirror (R3).
REFUSED_METHODS = frozenset({b"CONNECT", b"TRACE", b"TRACK", b"PRI"})

_VERSIONS = frozenset({"1.0", "1.1"})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

# int() of 4,301 digits raises, and no reader agrees on what exceeds 63 bits.
_LENGTH = re.compile(rb"[0-9]{1,19}")
_LENGTH_LIMIT = 2**63

_HEAD = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++ [!-~]++ HTTP/1\.[01]\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n)*+\r\n"
)


@dataclass(frozen=True, slots=True)
class Body:
    """How the body of a message is delimited."""

    length: int | None  # bytes; None: chunked, or until the connection closes
    until_close: bool = False  # answers only
    declared: int | None = None  # Content-Length of an answer that has no body (HEAD)


EMPTY = Body(0)
CHUNKED = Body(None)
UNTIL_CLOSE = Body(None, until_close=True)


def check_request(
    method: bytes, version: str, headers: Headers, upgrade: bool
) -> Body | Denial:
    """Say how the body of a request is delimited.

    Args:
        method: As received.
        version: "1.1", as the parser names it.
        headers: Of the whole head.
        upgrade: Whether the parser stopped because the request asks for an upgrade.
    """
    if version not in _VERSIONS:
        return Denial(Reason.REQUEST_MALFORMED, "version")
    if method in REFUSED_METHODS:
        return Denial(Reason.METHOD_UNSUPPORTED)
    if not fields_are_clean(headers):
        return Denial(Reason.REQUEST_MALFORMED, "field")

    length = coding = None
    for name, value in headers:
        if name in _FRAMING:
            if length is not None or coding is not None:
                return Denial(Reason.REQUEST_MALFORMED, "two framing fields")
            if name == b"content-length":
                length = value
            else:
                coding = value

    if length is not None:
        size = _length(length)
        if size is None:
            return Denial(Reason.REQUEST_MALFORMED, "content-length")
        if not size:
            return EMPTY
        body = Body(size)
    elif coding is not None:
        if version == "1.0" or coding.lower() != b"chunked":
            return Denial(Reason.REQUEST_MALFORMED, "transfer-encoding")
        body = CHUNKED
    else:
        return EMPTY
    if upgrade:
        # The parser leaves that body in the stream, where it would be read as the
        # next request (R33).
        return Denial(Reason.UPGRADE_REFUSED, "body")
    return body


def check_response(
    method: bytes, status: int, version: str, headers: Headers
) -> Body | None:
    """Say how the body of an upstream's answer is delimited; None: it is ambiguous.

    Args:
        method: Of the request it answers.
        status: As received; also of an interim answer.
        version: "1.1", as the parser names it.
        headers: Of the whole head.
    """
    if version not in _VERSIONS or not 100 <= status <= 599:  # noqa: PLR2004
        return None
    if not fields_are_clean(headers):
        return None
    length = coding = None
    for name, value in headers:
        if name in _FRAMING:
            if length is not None or coding is not None:
                return None
            if name == b"content-length":
                length = value
            else:
                coding = value

    size = None
    if length is not None:
        size = _length(length)
        if size is None:
            return None
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        return None

    if method == b"HEAD" or status == 304:  # noqa: PLR2004
        return EMPTY if size is None else Body(0, declared=size)
    if status < 200 or status == 204:  # noqa: PLR2004
        # Such an answer has no body (RFC 9112 section 6.3). One that announces a body
        # all the same may also send it, and we would take it for the next answer.
        return EMPTY if coding is None and not size else None
    if coding is not None:
        return CHUNKED
    return UNTIL_CLOSE if size is None else Body(size)


def fields_are_clean(headers: Headers) -> bool:
    """Tell whether every name is a token and no value holds a control character.

    The parser of the data port sees to it too; the servers behind the middleware
    don't, and neither may stop doing so in a patch release.
    """
    names = [name for name, _ in headers]
    values = b"".join([value for _, value in headers])
    return (
        b"" not in names
        and not b"".join(names).translate(None, TOKEN_CHARACTERS)
        and len(values.translate(None, CONTROLS)) == len(values)
    )


def head_is_clean(head: bytes) -> bool:
    """Tell whether *head*, from request line to empty line, is spelt as RFC 9112 says.

    For what a lenient parser leaves no trace of in its fields: two blanks in the
    request line, another protocol's name there, bare line feeds, folded lines.
    """
    return _HEAD.fullmatch(head) is not None


def _length(value: bytes) -> int | None:
    if not _LENGTH.fullmatch(value):
        return None
    size = int(value)
    return size if size < _LENGTH_LIMIT else None

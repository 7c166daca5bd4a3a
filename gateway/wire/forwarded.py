"""What we tell an upstream about where a request came from, and its two names.

X-Forwarded-* as every backend reads them, a request id, and W3C Trace Context. Behind a
trusted proxy these are appended to or kept; from anybody else they are set, because
anybody can send X-Forwarded-For (R17). gateway.wire.headers has taken the client's own
out.

Imports: gateway.model, gateway.wire.request.
"""

from __future__ import annotations

import re
from binascii import hexlify

from gateway.model import Headers, Peer, RequestHead
from gateway.wire.request import is_host

# W3C Trace Context section 3.2.2. A later version may append to it.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(?:-[!-~]*)?"
)
_V0_LENGTH = 55  # bytes; version 00 ends there
_MAX_TRACEPARENT = 256  # bytes; no version has more

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
TRACE_BYTES = 24
"""How many random bytes `new_traceparent` takes: a trace id's 16 and a span id's 8."""


def forwarding_fields(
    head: RequestHead, request_id: str, traceparent: bytes
) -> list[tuple[bytes, bytes]]:
    """Return the fields that say where *head* came from.

    Args:
        head: The request.
        request_id: Of `request_id_from`.
        traceparent: Of `traceparent_of`, or `new_traceparent` where that is None.
    """
    fields = origin_fields(head, traced=traceparent_of(head.headers) == traceparent)
    return [
        *fields,
        (b"x-request-id", request_id.encode("ascii", "replace")),
        (b"traceparent", traceparent),
    ]


def origin_fields(head: RequestHead, *, traced: bool) -> list[tuple[bytes, bytes]]:
    """Return those of them that do not name this one request.

    Args:
        head: The request.
        traced: Whether the client's own traceparent goes with it.
    """
    peer = head.peer
    chain = peer.address.encode("ascii", "replace")
    host = head.authority
    if peer.trusted:
        seen = [value for name, value in head.headers if name == b"x-forwarded-for"]
        chain = b", ".join([*filter(None, seen), *filter(None, [chain])])
        hosts = [value for name, value in head.headers if name == b"x-forwarded-host"]
        if len(hosts) == 1 and is_host(hosts[0]):
            host = hosts[0]

    fields = [
        (b"x-forwarded-proto", head.scheme.encode("ascii")),
        (b"x-forwarded-host", host),
    ]
    if chain:  # none behind a Unix socket, where nobody has an address
        fields.append((b"x-forwarded-for", chain))
    # It means nothing without the traceparent that it came with.
    if traced:
        fields += [field for field in head.headers if field[0] == b"tracestate"]
    return fields


def traceparent_of(headers: Headers) -> bytes | None:
    """Return the one valid traceparent in *headers*, or None."""
    found = None
    for name, value in headers:
        if name == b"traceparent":
            if found is not None:
                return None
            found = value
    if found is None or len(found) > _MAX_TRACEPARENT:
        return None
    match = _TRACEPARENT.fullmatch(found)
    if match is None or (match.group(1) == b"00" and len(found) != _V0_LENGTH):
        return None
    return found


def trace_id_of(headers: Headers) -> str | None:
    """Return the trace id that *headers* name, or None."""
    found = traceparent_of(headers)
    return None if found is None else found[3:35].decode("ascii")


def new_traceparent(random: bytes) -> bytes:
    """Make a traceparent of 24 *random* bytes.

    Sampled: a backend that samples by its parent would otherwise record nothing, which
    it did before we stood in front of it.
    """
    trace, span = random[:16], random[16:24]
    # All zero is no id (sections 3.2.2.3, 3.2.2.4).
    return b"00-%b-%b-01" % (
        hexlify(trace if trace != _NO_TRACE else _NO_TRACE[1:] + b"\x01"),
        hexlify(span if span != _NO_SPAN else _NO_SPAN[1:] + b"\x01"),
    )


def request_id_from(headers: Headers, peer: Peer, made: bytes) -> bytes:
    """Return the name of a request: a trusted peer's, or the one *made* here.

    Whoever else could choose it could make two requests share their lines in the log.
    """
    if peer.trusted:
        said = [value for name, value in headers if name == b"x-request-id"]
        if len(said) == 1 and _REQUEST_ID.fullmatch(said[0]):
            return said[0]
    return made

"""The access log: one line for each request, whatever became of it.

An Entry is made when its request has ended. What a client chose is escaped to ASCII, so
a line stays one line and shows what it shows (R97); a query is left out but for the
names that the configuration allows. The lines are described in docs/log.md.

Imports: gateway.model, gateway.observe.redact.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import Literal, NamedTuple
from urllib.parse import unquote_plus

from gateway.model import Principal
from gateway.observe.redact import redact

Decision = Literal["permit", "deny", "outage", "error"]

MAX_FIELD = 2048  # bytes as written (R97)
CUT = "..."  # ends a field that was longer


Form = tuple[str, str]
"""What stands in a line between the request's names and its sizes, and after them."""


class Entry(NamedTuple):
    """What is known of one request. Sizes are bytes, times milliseconds.

    First what differs from request to request; from `decision` on, what requests that
    are alike have in common, of which `form_of` makes a form once for all of them.
    """

    time: float  # Unix seconds, when the head had been read
    request_id: str
    trace_id: str | None = None
    bytes_in: int = 0  # of the body, from the client
    bytes_out: int = 0  # of the body, to the client
    ms: float = 0.0  # from the head's last byte to the answer's
    upstream_ms: float | None = None  # thereof, until the upstream's head
    decision: Decision = "error"  # until somebody has decided otherwise
    reason: str | None = None  # str(Denial), a dependency, an UpstreamFailure
    status: int | None = None  # None: the client was gone before an answer
    method: str = ""
    host: str = ""
    path: str = ""  # of `shown`
    route: str | None = None
    principal: Principal | None = None
    generation: str | None = None  # of the configuration that decided
    upstream: str | None = None  # by name
    client: str = ""  # the address, by R17
    token_hash: str | None = None  # of TokenHash
    revocation_age: float | None = None  # seconds; of an old mirror that decided
    form: Form | None = None  # of `form_of`, where somebody has made it before


FIELDS = (
    "time",
    "request_id",
    "trace_id",
    "method",
    "host",
    "route",
    "path",
    "status",
    "decision",
    "reason",
    "principal",
    "generation",
    "upstream",
    "bytes_in",
    "bytes_out",
    "ms",
    "upstream_ms",
    "client",
    "token_hash",
)
RARE_FIELDS = ("revocation_age",)  # there only when they say something
_ID = 64  # characters; the longest request id there is
_SHORT = 256  # characters of a path of which the line is remembered
PRINCIPAL_FIELDS = ("issuer", "subject", "kind", "client_id", "token_id", "roles")


def shown(target: bytes, allowed: frozenset[str] = frozenset()) -> str:
    """Return what of a request target may be logged.

    Args:
        target: As received, canonical or not.
        allowed: Names of the query parameters that are logged with their values.
    """
    # A fragment is no part of a target; whoever sends one may have put a token there.
    path, _, query = target.partition(b"#")[0].partition(b"?")
    text = path.decode("ascii", "backslashreplace")
    if query and allowed:
        kept = [
            pair
            for pair in query.decode("ascii", "backslashreplace").split("&")
            if unquote_plus(pair.partition("=")[0]) in allowed
        ]
        text = f"{text}?{'&'.join(kept)}" if kept else text
    return text


def unlogged(_: Entry) -> None:
    """Take an entry and write nothing, for `[log] access = false`."""


def to_json(entry: Entry) -> bytes:
    """Return the line of *entry*, with its line end."""
    moment, request_id, trace_id, bytes_in, bytes_out, ms, upstream_ms = entry[:7]
    between, after = entry[-1] or form_of(entry)
    second = int(moment)
    if len(request_id) > _ID or not request_id.isalnum() or "eyJ" in request_id:
        request_id = _named_by_others(request_id)
    # Joined, with numbers that are remembered as text: formatting costs four times as
    # much.
    return "".join(
        (
            _second(second),
            _MILLISECONDS[int((moment - second) * 1000)],
            request_id,
            '","trace_id":null' if trace_id is None else f'","trace_id":"{trace_id}"',
            between,
            _number(bytes_in),
            ',"bytes_out":',
            _number(bytes_out),
            ',"ms":',
            _thousandths(int(ms * 1000 + 0.5)),
            ',"upstream_ms":',
            "null"
            if upstream_ms is None
            else _thousandths(int(upstream_ms * 1000 + 0.5)),
            after,
        )
    ).encode("ascii")


def form_of(entry: Entry) -> Form:
    """Return what lines of entries like *entry* have in common."""
    form = _form(entry, quote)
    # No field can be too long in a line that is not, so nobody counts them.
    if len(form[0]) + len(form[1]) > MAX_FIELD:
        form = _form(entry, _quote_short)
    # Whatever field a token has got into: its characters need no escapes, so the line
    # stays the JSON it was.
    between, after = (redact(part) if "eyJ" in part else part for part in form)
    return between, after


def to_colour(entry: Entry) -> str:
    """Return a line for the developer who watches, without a line end."""
    status = "---" if entry.status is None else str(entry.status)
    colour = _COLOURS.get(status[0], _RED)
    at = datetime.fromtimestamp(entry.time, UTC).astimezone()
    words = [
        f"{_DIM}{at:%H:%M:%S}{_PLAIN}",
        f"{colour}{status}{_PLAIN}",
        _visible(entry.method),
        _visible(redact(entry.path)),
    ]
    who = entry.principal
    if who is not None and who.kind != "anonymous":
        words.append(_visible(f"{who.subject}@{who.issuer}"))
    if entry.decision == "permit":
        words.append(f"{_DIM}{_visible(entry.route or '-')} {entry.ms:.1f} ms{_PLAIN}")
    # The upstream's failure stands beside a permit too.
    if entry.decision != "permit" or entry.reason:
        words.append(
            f"{colour}{entry.decision}: {_visible(entry.reason or '-')}{_PLAIN}"
        )
    return " ".join(words)


_PLAIN, _DIM, _RED = "\x1b[0m", "\x1b[2m", "\x1b[31m"
_COLOURS = {"1": _DIM, "2": "\x1b[32m", "3": "\x1b[36m", "4": "\x1b[33m"}
_Quote = Callable[[str], str]


def _form(e: Entry, quote: _Quote) -> Form:
    who = e.principal
    place = _place if len(e.path) <= _SHORT else _place.__wrapped__
    between = (
        place(e.method, e.host, e.route, e.path, e.status, e.decision, e.reason, quote)
        + f',"principal":{_principal(who, quote) if who is not None else "null"}'
        f',"generation":{_said(e.generation, quote)}'
        f',"upstream":{_said(e.upstream, quote)}'
        ',"bytes_in":'
    )
    age = e.revocation_age
    rare = "" if age is None else f',"revocation_age":{age:.3f}'
    token = _said(e.token_hash, quote)
    after = f',"client":{quote(e.client)},"token_hash":{token}{rare}}}\n'
    return _escaped(between), _escaped(after)


# Callers are many, and what they call for are a few things.
@lru_cache(maxsize=512)
def _place(
    method: str,
    host: str,
    route: str | None,
    path: str,
    status: int | None,
    decision: str,
    reason: str | None,
    quote: _Quote,
) -> str:
    return (
        f',"method":{quote(method)}'
        f',"host":{quote(host)}'
        f',"route":{_said(route, quote)}'
        f',"path":{quote(redact(path))}'
        f',"status":{"null" if status is None else status}'
        f',"decision":"{decision}"'
        f',"reason":{_said(reason, quote)}'
    )


def _said(text: str | None, quote: _Quote) -> str:
    return "null" if text is None else quote(text)


def _escaped(text: str) -> str:
    return text.replace("\x7f", "\\u007f")  # the one control that JSON lets stand


def _named_by_others(request_id: str) -> str:
    """Return *request_id* as it stands between quotes: a trusted proxy's, not ours."""
    return redact(_escaped(_quote_short(request_id)[1:-1]))


# A caller who holds a known token is the same object each time, and a third of a line.
@lru_cache(maxsize=512)
def _principal(who: Principal, quote: _Quote) -> str:
    if who.kind == "anonymous":
        return "null"
    client = "null" if who.client_id is None else quote(who.client_id)
    quoted = [quote(role) for role in sorted(who.roles)]
    roles = ",".join(quoted)
    if len(roles) + 2 > MAX_FIELD:
        room, kept = MAX_FIELD - len(CUT) - 4, 0
        # Between two roles, so that each which is shown is one that there is.
        while (room := room - len(quoted[kept]) - 1) >= 0:
            kept += 1
        roles = ",".join([*quoted[:kept], f'"{CUT}"'])
    return (
        f'{{"issuer":{quote(who.issuer)},"subject":{quote(who.subject)}'
        f',"kind":"{who.kind}","client_id":{client}'
        f',"token_id":{quote(who.token_id)},"roles":[{roles}]}}'
    )


# Two: lines come in about the order of their times, and a second has a last one.
@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime('{"time":"%Y-%m-%dT%H:%M:%S.')


_MILLISECONDS = tuple(f'{number:03}Z","request_id":"' for number in range(1000))


# Sizes and times of a busy hour repeat; of others some 1 MB is kept.
@lru_cache(maxsize=4096)
def _number(number: int) -> str:
    return str(number)


@lru_cache(maxsize=8192)
def _thousandths(number: int) -> str:
    return f"{number / 1000:.3f}"


def _quote_short(text: str) -> str:
    """Quote *text*, cut so that it takes no more than MAX_FIELD as written."""
    quoted = quote(text)
    # A character takes up to 1, 2, 6 or 12 bytes; the last always fits.
    for length in (2040, 1020, 340, 170):
        if len(quoted) <= MAX_FIELD:
            break
        quoted = quote(text[:length] + CUT)
    return quoted


def _visible(text: str) -> str:
    """Return *text* without what a terminal would obey instead of show."""
    return quote(text)[1:-1].replace("\x7f", "\\u007f")

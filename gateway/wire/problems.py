"""What a client is told when it gets no answer from an upstream.

RFC 9457 documents, challenges of RFC 6750 section 3 and RFC 9449 section 7.1, DESIGN
section 7. One table turns a Reason into a status, a challenge and fixed words. The
words never differ within a row of that design: whether a token was forged, expired or
revoked is for the log (R99). And nothing that was received is ever said back: neither
Host, nor path, nor token. All that can be computed once is, since a refusal must cost
less than what it refuses.

Imports: gateway.model.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from gateway.model import Denial, Reason, Unavailable

# The gateway as a whole serves these; a 405 owes the client a list (RFC 9110
# section 15.5.6), also where no route was asked.
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

# RFC 6749 section 3.3. Names of permissions that could not be a scope stay unsaid.
_SCOPE_TOKEN: Final = re.compile(r"[!#-\[\]-~]+")
_NONCE: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 9449 section 8.1
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_MAX_RETRY_AFTER: Final = 3600  # seconds
# Nobody knows when the caller will close one of its own.
_SOCKET_RETRY: Final = b"10"  # seconds
_UPGRADE: Final = (
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
)

ChallengeError = Literal[
    "",
    "invalid_request",
    "invalid_token",
    "insufficient_scope",
    "invalid_dpop_proof",
    "use_dpop_nonce",
]
Scheme = Literal["Bearer", "DPoP"]
Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of our own, whole."""

    status: int
    headers: Fields
    body: bytes
    close: bool = False  # whether the connection can't be read on after it


class UpstreamFailure(enum.StrEnum):
    """What went wrong between us and an upstream, before its answer began."""

    REFUSED = "refused"
    BROKE = "broke"
    TIMED_OUT = "timed_out"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class _Problem:
    """One row: what a client sees of a kind of problem."""

    status: int
    code: str
    title: str
    detail: str
    error: ChallengeError | None = None  # of the challenge; None: no challenge
    close: bool = False
    scheme: Scheme = "Bearer"


_MALFORMED = _Problem(
    400,
    "malformed_request",
    "Bad Request",
    "The request is not well-formed HTTP/1.1.",
    close=True,
)
_INVALID_REQUEST = _Problem(
    400,
    "invalid_request",
    "Bad Request",
    "Send one access token, in one Authorization field.",
    error="invalid_request",
)
_INVALID_TOKEN = _Problem(
    401,
    "invalid_token",
    "Unauthorized",
    "The access token is expired, revoked, malformed or not valid here.",
    error="invalid_token",
)
_UNPROVEN = _Problem(
    401,
    "invalid_token",
    "Unauthorized",
    "The access token needs a proof of the key that it is bound to.",
    error="invalid_token",
    scheme="DPoP",
)
_INVALID_PROOF = _Problem(
    401,
    "invalid_dpop_proof",
    "Unauthorized",
    "The DPoP proof is malformed, too old, used or not for this request.",
    error="invalid_dpop_proof",
    scheme="DPoP",
)
_FORBIDDEN = _Problem(
    403,
    "forbidden",
    "Forbidden",
    "The access token does not permit this request.",
    error="insufficient_scope",
)

_PROBLEMS: Final[dict[Reason, _Problem]] = {
    Reason.REQUEST_MALFORMED: _MALFORMED,
    Reason.HTTP2_UNSUPPORTED: _Problem(
        400,
        "http2_unsupported",
        "Bad Request",
        "HTTP/2 is not served here: put Envoy, nginx or HAProxy in front, with this"
        " gateway as its decision service.",
        close=True,
    ),
    Reason.REQUEST_TIMEOUT: _Problem(
        408,
        "request_timeout",
        "Request Timeout",
        "The request did not arrive in time.",
        close=True,
    ),
    Reason.HEAD_TOO_LARGE: _Problem(
        431,
        "head_too_large",
        "Request Header Fields Too Large",
        "The request line and its header fields are too large.",
        close=True,
    ),
    Reason.BODY_TOO_LARGE: _Problem(
        413,
        "body_too_large",
        "Content Too Large",
        "The body of the request is too large.",
        close=True,
    ),
    Reason.METHOD_UNSUPPORTED: _Problem(
        405,
        "method_not_allowed",
        "Method Not Allowed",
        "This method is not supported.",
        close=True,
    ),
    Reason.UPGRADE_REFUSED: _Problem(
        400,
        "upgrade_refused",
        "Bad Request",
        "This upgrade is not supported.",
        close=True,
    ),
    Reason.UPGRADE_VERSION: _Problem(
        426,
        "websocket_version",
        "Upgrade Required",
        "The only version of WebSocket that is spoken here is 13.",
        close=True,
    ),
    Reason.ORIGIN_FORBIDDEN: _Problem(
        403,
        "origin_forbidden",
        "Forbidden",
        "Pages of this origin may not open a WebSocket here.",
    ),
    Reason.SOCKETS_TOO_MANY: _Problem(
        429,
        "too_many_websockets",
        "Too Many Requests",
        "As many WebSockets are open as one caller may have here.",
    ),
    Reason.TARGET_AMBIGUOUS: _Problem(
        400,
        "ambiguous_target",
        "Bad Request",
        "The request target can be read in more than one way.",
    ),
    Reason.HOST_MALFORMED: _Problem(
        400,
        "malformed_host",
        "Bad Request",
        "The request needs exactly one valid Host field.",
    ),
    Reason.HOST_UNKNOWN: _Problem(
        421,
        "unknown_host",
        "Misdirected Request",
        "This host is not served here.",
    ),
    Reason.ROUTE_UNKNOWN: _Problem(
        404, "not_found", "Not Found", "There is nothing at this path."
    ),
    Reason.METHOD_NOT_ALLOWED: _Problem(
        405,
        "method_not_allowed",
        "Method Not Allowed",
        "This path does not support this method.",
    ),
    Reason.CREDENTIAL_MISSING: _Problem(
        401,
        "credential_required",
        "Unauthorized",
        "This request needs an access token.",
        error="",  # RFC 6750 section 3.1: no error code without authentication
    ),
    Reason.CREDENTIAL_MALFORMED: _INVALID_REQUEST,
    Reason.CREDENTIAL_AMBIGUOUS: _INVALID_REQUEST,
    Reason.CREDENTIAL_IN_QUERY: _INVALID_REQUEST,
    Reason.CREDENTIAL_UNRECOGNISED: _INVALID_TOKEN,
    Reason.TICKET_INVALID: _INVALID_TOKEN,
    Reason.CERTIFICATE_INVALID: _INVALID_TOKEN,
    Reason.TOKEN_INACTIVE: _INVALID_TOKEN,
    Reason.TOKEN_MALFORMED: _INVALID_TOKEN,
    Reason.ISSUER_UNTRUSTED: _INVALID_TOKEN,
    Reason.TYPE_FORBIDDEN: _INVALID_TOKEN,
    Reason.ALGORITHM_FORBIDDEN: _INVALID_TOKEN,
    Reason.KEY_UNKNOWN: _INVALID_TOKEN,
    Reason.SIGNATURE_INVALID: _INVALID_TOKEN,
    Reason.CLAIM_INVALID: _INVALID_TOKEN,
    Reason.LIFETIME_TOO_LONG: _INVALID_TOKEN,
    Reason.TOKEN_EXPIRED: _INVALID_TOKEN,
    Reason.TOKEN_NOT_YET_VALID: _INVALID_TOKEN,
    Reason.AUDIENCE_WRONG: _INVALID_TOKEN,
    Reason.ISSUER_NOT_ACCEPTED: _INVALID_TOKEN,
    Reason.TOKEN_REVOKED: _INVALID_TOKEN,
    Reason.BINDING_MISSING: _INVALID_TOKEN,
    Reason.BINDING_WRONG: _INVALID_TOKEN,
    Reason.DPOP_MISSING: _UNPROVEN,
    Reason.DPOP_KEY: _UNPROVEN,
    Reason.DPOP_INVALID: _INVALID_PROOF,
    Reason.DPOP_REPLAYED: _INVALID_PROOF,
    Reason.DPOP_NONCE: _Problem(
        401,
        "use_dpop_nonce",
        "Unauthorized",
        "The DPoP proof needs the nonce of this answer.",
        error="use_dpop_nonce",
        scheme="DPoP",
    ),
    Reason.PERMISSION_MISSING: _FORBIDDEN,
    Reason.CONDITION_FAILED: _FORBIDDEN,
    Reason.CONDITION_UNKNOWN: _FORBIDDEN,
}

# Whose `needed` are the algorithms of proofs.
_WITH_PROOF: Final = frozenset(
    {
        Reason.CREDENTIAL_MISSING,
        Reason.BINDING_MISSING,
        Reason.DPOP_MISSING,
        Reason.DPOP_KEY,
        Reason.DPOP_INVALID,
    }
)

_OUTAGE = _Problem(
    503,
    "unavailable",
    "Service Unavailable",
    "This request can't be decided at the moment.",
)
_BUG = _Problem(
    500,
    "internal_error",
    "Internal Server Error",
    "The gateway failed on this request.",
)


def status_of(reason: Reason) -> int:
    """Return the status of a refusal for *reason*."""
    return _PROBLEMS[reason].status


def problem(denial: Denial, *, request_id: str, realm: str = "gateway") -> Answer:
    """Say no to the client, in the words for *denial*'s reason."""
    rendered = _render(_PROBLEMS[denial.reason], realm)
    more: Fields = ()
    if denial.reason is Reason.METHOD_NOT_ALLOWED:
        more = ((b"allow", _allow(denial.needed)),)
    elif denial.reason is Reason.METHOD_UNSUPPORTED:
        more = ((b"allow", _METHODS),)
    elif denial.reason is Reason.UPGRADE_VERSION:
        more = _UPGRADE  # RFC 6455 section 4.4, RFC 9110 section 15.5.22
    elif denial.reason is Reason.SOCKETS_TOO_MANY:
        more = ((b"retry-after", _SOCKET_RETRY),)
    elif rendered.challenge:
        challenge = rendered.challenge
        if rendered.scoped and denial.needed:
            challenge += _scope(denial.needed)
        elif denial.reason in _WITH_PROOF and denial.needed:
            # RFC 9449 section 7.1: what a proof may be signed with.
            if rendered.scheme == "Bearer":
                challenge += b", " + _bare("DPoP", realm).encode("ascii")
            challenge += _algorithms(denial.needed)
        more = ((b"www-authenticate", challenge), (b"vary", b"Authorization"))
        if denial.reason is Reason.DPOP_NONCE:  # RFC 9449 section 9
            nonces = filter(_NONCE.fullmatch, denial.needed[:1])
            more += tuple((b"dpop-nonce", each.encode("ascii")) for each in nonces)
    return rendered.answer(request_id, more)


def outage(unavailable: Unavailable, request_id: str) -> Answer:
    """Say that a dependency of ours is away, but not which."""
    seconds = min(max(1, unavailable.retry_after), _MAX_RETRY_AFTER)
    return _render(_OUTAGE, "").answer(request_id, ((b"retry-after", b"%d" % seconds),))


def upstream_failure(kind: UpstreamFailure, request_id: str, upstream: str) -> Answer:
    """Say what went wrong with *upstream*, by its name in the config."""
    more: Fields = ()
    if kind is UpstreamFailure.FULL:
        more = ((b"retry-after", b"1"),)
    return _upstream(kind, upstream).answer(request_id, more)


def bug(request_id: str) -> Answer:
    """Say that the fault is ours, and nothing else."""
    return _render(_BUG, "").answer(request_id, ())


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A problem with all its octets but the request's name."""

    status: int
    head: Fields
    challenge: bytes
    scheme: Scheme
    scoped: bool
    body: bytes  # as far as the request id
    close: bool

    def answer(self, request_id: str, more: Fields) -> Answer:
        # It is ours, or has been checked; this is the last place that can see to it.
        name = request_id if _REQUEST_ID.fullmatch(request_id) else "unknown"
        said = name.encode("ascii")
        body = self.body + said + b'"}'
        headers = (
            *self.head,
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", said),
            *more,
        )
        return Answer(self.status, headers, body, self.close)


@lru_cache(maxsize=256)
def _render(row: _Problem, realm: str) -> _Rendered:
    document = {
        "type": f"urn:gateway:problem:{row.code}",
        "title": row.title,
        "status": row.status,
        "detail": row.detail,
        "code": row.code,
        "instance": "urn:request:",
    }
    body = json.dumps(document, separators=(",", ":")).removesuffix('"}')
    return _Rendered(
        row.status,
        (
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
        ),
        b"" if row.error is None else _challenge(row, realm),
        row.scheme,
        row.error == "insufficient_scope",
        body.encode("ascii"),
        row.close,
    )


def _bare(scheme: Scheme, realm: str) -> str:
    # quoted-string, RFC 9110 section 5.6.4; a realm is the operator's text.
    quoted = re.sub(r'(["\\])', r"\\\1", re.sub(r"[^ -~]", "?", realm))
    return f'{scheme} realm="{quoted}"'


def _challenge(row: _Problem, realm: str) -> bytes:
    challenge = _bare(row.scheme, realm)
    if row.error:
        challenge += f', error="{row.error}", error_description="{row.detail}"'
    return challenge.encode("ascii")


@lru_cache(maxsize=1024)
def _scope(needed: tuple[str, ...]) -> bytes:
    """Return the `scope` parameter that names what would have helped."""
    names = " ".join(name for name in needed if _SCOPE_TOKEN.fullmatch(name))
    return f', scope="{names}"'.encode("ascii") if names else b""


def _algorithms(names: tuple[str, ...]) -> bytes:
    return f', algs="{" ".join(filter(_SCOPE_TOKEN.fullmatch, names))}"'.encode("ascii")


@lru_cache(maxsize=1024)
def _allow(methods: tuple[str, ...]) -> bytes:
    return ", ".join(filter(_METHOD.fullmatch, methods)).encode("ascii")


@lru_cache(maxsize=256)
def _upstream(kind: UpstreamFailure, upstream: str) -> _Rendered:
    status, title, what = {
        UpstreamFailure.REFUSED: (502, "Bad Gateway", "can't be reached"),
        UpstreamFailure.BROKE: (502, "Bad Gateway", "gave no valid answer"),
        UpstreamFailure.TIMED_OUT: (504, "Gateway Timeout", "did not answer in time"),
        UpstreamFailure.FULL: (503, "Service Unavailable", "is busy"),
    }[kind]
    detail = f'The upstream "{upstream}" {what}.'
    return _render(_Problem(status, f"upstream_{kind}", title, detail), "")

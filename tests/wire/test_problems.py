"""gateway.wire.problems: what a client is told, and what it is not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Principal, Reason, Unavailable
from gateway.wire.problems import (
    Answer,
    UpstreamFailure,
    bug,
    outage,
    problem,
    status_of,
    upstream_failure,
)

INVALID_TOKEN = (
    b'Bearer realm="gateway", error="invalid_token", error_description='
    b'"The access token is expired, revoked, malformed or not valid here."'
)
INVALID_REQUEST = (
    b'Bearer realm="gateway", error="invalid_request", error_description='
    b'"Send one access token, in one Authorization field."'
)
INSUFFICIENT = (
    b'Bearer realm="gateway", error="insufficient_scope", error_description='
    b'"The access token does not permit this request."'
)
BARE = b'Bearer realm="gateway"'
UNPROVEN = (
    b'DPoP realm="gateway", error="invalid_token", error_description='
    b'"The access token needs a proof of the key that it is bound to."'
)
INVALID_PROOF = (
    b'DPoP realm="gateway", error="invalid_dpop_proof", error_description='
    b'"The DPoP proof is malformed, too old, used or not for this request."'
)
USE_NONCE = (
    b'DPoP realm="gateway", error="use_dpop_nonce", error_description='
    b'"The DPoP proof needs the nonce of this answer."'
)

# DESIGN section 7, written out: what each reason is to a client.
TABLE: dict[Reason, tuple[int, str, bytes | None, bool]] = {
    Reason.REQUEST_MALFORMED: (400, "malformed_request", None, True),
    Reason.HTTP2_UNSUPPORTED: (400, "http2_unsupported", None, True),
    Reason.REQUEST_TIMEOUT: (408, "request_timeout", None, True),
    Reason.HEAD_TOO_LARGE: (431, "head_too_large", None, True),
    Reason.BODY_TOO_LARGE: (413, "body_too_large", None, True),
    Reason.METHOD_UNSUPPORTED: (405, "method_not_allowed", None, True),
    Reason.UPGRADE_REFUSED: (400, "upgrade_refused", None, True),
    Reason.UPGRADE_VERSION: (426, "websocket_version", None, True),
    Reason.ORIGIN_FORBIDDEN: (403, "origin_forbidden", None, False),
    Reason.SOCKETS_TOO_MANY: (429, "too_many_websockets", None, False),
    Reason.TARGET_AMBIGUOUS: (400, "ambiguous_target", None, False),
    Reason.HOST_MALFORMED: (400, "malformed_host", None, False),
    Reason.HOST_UNKNOWN: (421, "unknown_host", None, False),
    Reason.ROUTE_UNKNOWN: (404, "not_found", None, False),
    Reason.METHOD_NOT_ALLOWED: (405, "method_not_allowed", None, False),
    Reason.CREDENTIAL_MISSING: (401, "credential_required", BARE, False),
    Reason.CREDENTIAL_MALFORMED: (400, "invalid_request", INVALID_REQUEST, False),
    Reason.CREDENTIAL_AMBIGUOUS: (400, "invalid_request", INVALID_REQUEST, False),
    Reason.CREDENTIAL_IN_QUERY: (400, "invalid_request", INVALID_REQUEST, False),
    Reason.CREDENTIAL_UNRECOGNISED: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.TICKET_INVALID: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.CERTIFICATE_INVALID: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.TOKEN_MALFORMED: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.TOKEN_INACTIVE: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.ISSUER_UNTRUSTED: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.TYPE_FORBIDDEN: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.ALGORITHM_FORBIDDEN: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.KEY_UNKNOWN: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.SIGNATURE_INVALID: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.CLAIM_INVALID: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.LIFETIME_TOO_LONG: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.TOKEN_EXPIRED: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.TOKEN_NOT_YET_VALID: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.AUDIENCE_WRONG: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.ISSUER_NOT_ACCEPTED: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.TOKEN_REVOKED: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.BINDING_MISSING: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.BINDING_WRONG: (401, "invalid_token", INVALID_TOKEN, False),
    Reason.DPOP_MISSING: (401, "invalid_token", UNPROVEN, False),
    Reason.DPOP_KEY: (401, "invalid_token", UNPROVEN, False),
    Reason.DPOP_INVALID: (401, "invalid_dpop_proof", INVALID_PROOF, False),
    Reason.DPOP_REPLAYED: (401, "invalid_dpop_proof", INVALID_PROOF, False),
    Reason.DPOP_NONCE: (401, "use_dpop_nonce", USE_NONCE, False),
    Reason.PERMISSION_MISSING: (403, "forbidden", INSUFFICIENT, False),
    Reason.CONDITION_FAILED: (403, "forbidden", INSUFFICIENT, False),
    Reason.CONDITION_UNKNOWN: (403, "forbidden", INSUFFICIENT, False),
}
EVERY = list(Reason)


def fields(answer: Answer) -> dict[bytes, bytes]:
    assert len(dict(answer.headers)) == len(answer.headers), "one of each"
    return dict(answer.headers)


def document(answer: Answer) -> dict[str, Any]:
    """Return the problem document, having checked what all of them have in common."""
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    head = fields(answer)
    assert found.keys() == {"type", "title", "status", "detail", "code", "instance"}
    assert found["status"] == answer.status
    assert found["type"] == f"urn:gateway:problem:{found['code']}"
    assert head[b"content-type"] == b"application/problem+json"
    assert head[b"cache-control"] == b"no-store"
    assert head[b"content-length"] == b"%d" % len(answer.body)
    assert found["instance"] == f"urn:request:{head[b'x-request-id'].decode()}"
    return found


@pytest.mark.parametrize("reason", EVERY)
def test_every_reason_has_a_status_and_a_challenge(reason: Reason) -> None:
    """The table of the design, row by row; a new reason needs one."""
    status, code, challenge, close = TABLE[reason]

    answer = problem(Denial(reason), request_id="r-1")

    head = fields(answer)
    assert (answer.status, document(answer)["code"]) == (status, code)
    assert status_of(reason) == status
    assert answer.close is close
    assert head.get(b"www-authenticate") == challenge
    assert head.get(b"vary") == (None if challenge is None else b"Authorization")
    assert (b"allow" in head) == (status == 405)
    assert head[b"x-request-id"] == b"r-1"


@pytest.mark.parametrize("reason", EVERY)
def test_no_answer_says_what_was_received_or_why(reason: Reason) -> None:
    """The log has the reason; who is refused learns no more than it needs (R99)."""
    denial = Denial(
        reason,
        "canary-at",
        ("canary-need",),
        principal=Principal("user", "c", "canary-sub"),
    )

    answer = problem(denial, request_id="r-1")

    said = answer.body + b"".join(
        value
        for name, value in answer.headers
        if name not in {b"allow", b"www-authenticate", b"dpop-nonce"}
    )
    assert b"canary" not in said
    assert str(reason).encode() not in said
    assert b"canary-at" not in b"".join(value for _, value in answer.headers)


def test_all_bad_tokens_are_answered_alike() -> None:
    """Forged, expired, revoked or unknown: octet for octet the same."""
    answers = {
        problem(Denial(reason, str(reason)), request_id="r-1")
        for reason in EVERY
        if TABLE[reason][2] == INVALID_TOKEN
    }

    assert len(answers) == 1
    bad = ("token.", "ticket.", "binding.", "certificate.", "key.")
    assert (
        sum(TABLE[reason][2] == INVALID_TOKEN for reason in EVERY)
        == sum(reason.startswith(bad) for reason in EVERY) + 1
    )


def test_a_401_body_is_this_one() -> None:
    """The whole of it, for whoever parses it."""
    answer = problem(Denial(Reason.TOKEN_REVOKED), request_id="0af7")

    assert json.loads(answer.body) == {
        "type": "urn:gateway:problem:invalid_token",
        "title": "Unauthorized",
        "status": 401,
        "detail": "The access token is expired, revoked, malformed or not valid here.",
        "code": "invalid_token",
        "instance": "urn:request:0af7",
    }


@pytest.mark.parametrize(
    ("needed", "scope"),
    [
        ((), None),
        (("orders:read",), b"orders:read"),
        (("orders:read", "orders:read_any"), b"orders:read orders:read_any"),
        (('a"b', "c\\d", "e f", "caf\xe9", "g\n", ""), None),
        (('a"b', "g"), b"g"),
    ],
)
@pytest.mark.parametrize("reason", [Reason.PERMISSION_MISSING, Reason.CONDITION_FAILED])
def test_a_403_names_the_scope_that_would_help(
    reason: Reason, needed: tuple[str, ...], scope: bytes | None
) -> None:
    """As far as it is a scope (RFC 6749 section 3.3)."""
    answer = problem(Denial(reason, needed=needed), request_id="r-1")

    more = b"" if scope is None else b', scope="' + scope + b'"'
    assert fields(answer)[b"www-authenticate"] == INSUFFICIENT + more


@pytest.mark.parametrize(
    ("reason", "challenge"),
    [
        (Reason.CREDENTIAL_MISSING, BARE + b', DPoP realm="gateway"'),
        (Reason.BINDING_MISSING, INVALID_TOKEN + b', DPoP realm="gateway"'),
        (Reason.DPOP_MISSING, UNPROVEN),
        (Reason.DPOP_KEY, UNPROVEN),
        (Reason.DPOP_INVALID, INVALID_PROOF),
    ],
)
def test_who_has_to_prove_a_key_is_told_with_what(
    reason: Reason, challenge: bytes
) -> None:
    """RFC 9449 section 7.1; beside Bearer where the token could be of that scheme."""
    answer = problem(Denial(reason, needed=("ES256", "RS256")), request_id="r")

    said = fields(answer)[b"www-authenticate"]
    assert said == challenge + b', algs="ES256 RS256"'


@pytest.mark.parametrize("reason", [Reason.DPOP_NONCE, Reason.DPOP_INVALID])
def test_only_who_lacks_a_nonce_is_given_one(reason: Reason) -> None:
    """RFC 9449 section 9."""
    head = fields(problem(Denial(reason, needed=("n-1",)), request_id="r"))

    is_given = reason is Reason.DPOP_NONCE
    assert head.get(b"dpop-nonce") == (b"n-1" if is_given else None)


def test_only_a_403_names_a_scope() -> None:
    """A bad token has none."""
    denial = Denial(Reason.TOKEN_EXPIRED, needed=("orders:read",))

    answer = problem(denial, request_id="r-1")

    assert fields(answer)[b"www-authenticate"] == INVALID_TOKEN


@pytest.mark.parametrize(
    ("denial", "allow"),
    [
        (Denial(Reason.METHOD_NOT_ALLOWED, needed=("GET", "HEAD")), b"GET, HEAD"),
        (Denial(Reason.METHOD_NOT_ALLOWED, needed=("GET", "A\r\nB: c")), b"GET"),
        (Denial(Reason.METHOD_NOT_ALLOWED), b""),
        (
            Denial(Reason.METHOD_UNSUPPORTED),
            b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        ),
    ],
)
def test_a_405_says_which_methods_there_are(denial: Denial, allow: bytes) -> None:
    """Of the path; of the gateway, where no path was asked."""
    assert fields(problem(denial, request_id="r-1"))[b"allow"] == allow


@pytest.mark.parametrize(
    ("realm", "quoted"),
    [
        ("shop", b'"shop"'),
        ('a"b\\c', b'"a\\"b\\\\c"'),
        ("caf\xe9\r\nX: y", b'"caf???X: y"'),
    ],
)
def test_the_realm_is_the_operators_and_quoted(realm: str, quoted: bytes) -> None:
    """RFC 9110 section 11.5."""
    answer = problem(Denial(Reason.CREDENTIAL_MISSING), request_id="r", realm=realm)

    assert fields(answer)[b"www-authenticate"] == b"Bearer realm=" + quoted


@pytest.mark.parametrize(
    ("asked", "said"),
    [(1, b"1"), (7, b"7"), (0, b"1"), (-3, b"1"), (10**9, b"3600")],
)
def test_an_outage_is_503_and_says_when_to_come_back(asked: int, said: bytes) -> None:
    """But not what is away: that is ours to know."""
    answer = outage(Unavailable("revocation store", asked), "r-1")

    assert (answer.status, document(answer)["code"]) == (503, "unavailable")
    assert fields(answer)[b"retry-after"] == said
    assert b"revocation" not in answer.body


@pytest.mark.parametrize(
    ("kind", "status", "retry"),
    [
        (UpstreamFailure.REFUSED, 502, None),
        (UpstreamFailure.BROKE, 502, None),
        (UpstreamFailure.TIMED_OUT, 504, None),
        (UpstreamFailure.FULL, 503, b"1"),
    ],
)
def test_a_failed_upstream_is_named_by_its_name(
    kind: UpstreamFailure, status: int, retry: bytes | None
) -> None:
    """Never by its address."""
    answer = upstream_failure(kind, "r-1", "orders")

    found = document(answer)
    assert (answer.status, found["code"]) == (status, f"upstream_{kind}")
    assert found["detail"].startswith('The upstream "orders" ')
    assert fields(answer).get(b"retry-after") == retry


def test_a_bug_of_ours_is_500_and_says_nothing() -> None:
    """No trace, no type, no text of an exception."""
    answer = bug("r-1")

    assert (answer.status, document(answer)["code"]) == (500, "internal_error")
    assert fields(answer).keys() == {
        b"content-type",
        b"cache-control",
        b"content-length",
        b"x-request-id",
    }


@given(
    request_id=st.text(max_size=80),
    at=st.text(max_size=10),
    needed=st.lists(st.text(max_size=10), max_size=3).map(tuple),
    reason=st.sampled_from(EVERY),
    realm=st.text(max_size=10),
    upstream=st.text(max_size=10),
)
@settings(deadline=None, max_examples=300)
def test_no_text_breaks_an_answer(
    request_id: str,
    at: str,
    needed: tuple[str, ...],
    reason: Reason,
    realm: str,
    upstream: str,
) -> None:
    """Every field stays on its line, and every body is the JSON it says it is."""
    for answer in (
        problem(Denial(reason, at, needed), request_id=request_id, realm=realm),
        upstream_failure(UpstreamFailure.BROKE, request_id, upstream),
        bug(request_id),
    ):
        document(answer)
        for name, value in answer.headers:
            assert re.fullmatch(rb"[a-z-]+", name)
            assert re.fullmatch(rb"[ -~]*", value)


def test_who_speaks_another_websocket_is_told_which_is_spoken() -> None:
    """RFC 6455 section 4.4, and RFC 9110 section 15.5.22 for the field of a 426."""
    head = fields(problem(Denial(Reason.UPGRADE_VERSION), request_id="r"))
    assert head[b"sec-websocket-version"] == b"13"
    assert (head[b"upgrade"], head[b"connection"]) == (b"websocket", b"Upgrade")


def test_who_has_too_many_sockets_is_told_when_to_ask_again() -> None:
    """429 with Retry-After."""
    head = fields(problem(Denial(Reason.SOCKETS_TOO_MANY), request_id="r"))
    assert head[b"retry-after"] == b"10"

"""Which header fields pass, to the upstream and to the client.

RFC 9110 section 7.6.1, R14-R16, R19, R20. Names are compared after lower-casing and
after every other character than a letter or a digit has become `-`: to a CGI or WSGI
backend `X_Gateway_Assertion` is `X-Gateway-Assertion`, and some servers fold `.` and
others too. We take away first and write ours afterwards, or a `Connection` field could
name what we wrote. Fields that frame the message (Host, Content-Length,
Transfer-Encoding, Connection, Expect) are never copied: the forwarder writes them.

Imports: gateway.model, gateway.wire.framing.
"""

from __future__ import annotations

import enum
import string
from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal

from gateway.model import Denial, Headers, Reason
from gateway.wire.framing import TOKEN_CHARACTERS

Fields = list[tuple[bytes, bytes]]

# For one connection (RFC 9110 section 7.6.1, RFC 7540 section 3.2.1), or the framing
# of one message. `proxy` is not hop-by-hop, but HTTP_PROXY to a CGI backend, which
# then sends its own requests there (CVE-2016-5385).
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# A WebSocket's handshake is ours with either side; in any other message these fields
# mean nothing, and one of them may hold a token.
_HOP_BY_HOP_PREFIXES: Final = (b"proxy-", b"sec-websocket-")

# What gateway.wire.forwarded writes on every request.
WRITTEN: Final = frozenset(
    {
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
    }
)
_OURS: Final = "x-gateway-*"

# Names by which some backend, framework or proxy believes who the client is, where it
# comes from, or what it asked for. One reads them all in a screen, or misses one.
RESERVED: Final = (
    "forwarded",
    "x-forwarded-*",
    "x-real-ip",
    "x-original-*",
    "x-rewrite-url",
    "x-http-method*",
    "x-envoy-*",
    "x-middleware-*",
    "x-remote-*",
    "remote-user",
    "x-auth-request-*",
    "x-goog-iap-*",
    "x-goog-authenticated-user-*",
    "x-ms-client-principal*",
    "x-amzn-oidc-*",
    "cf-access-*",
    "x-pomerium-*",
    "client-cert",
    "client-cert-chain",
    "x-forwarded-client-cert",
    "x-ssl-client-*",
    "signature",
    "signature-input",
)

# What the client presents to us, and to nobody behind us (R19).
CREDENTIALS: Final = frozenset({b"authorization", b"dpop", b"x-api-key"})

_ALPHANUMERIC: Final = (string.ascii_letters + string.digits).encode()
_FOLD: Final = bytes(
    byte if byte in _ALPHANUMERIC else ord("-") for byte in bytes(range(256)).lower()
)

# An honest population of names is a few hundred. A flood of new ones empties the memory
# and costs a look at the rules for each, which is what it would cost without one.
_MAX_KNOWN: Final = 1024
_MAX_KNOWN_NAME: Final = 64  # bytes


class _Verdict(enum.IntEnum):
    PASS = 0  # the only false one
    DROP = 1
    CONNECTION = 2
    CREDENTIAL = 3
    UNDERSCORE = 4


class Hygiene:
    """Takes out of a message what is not for the other side.

    Args:
        strip: [headers].strip: names or `prefix-*`, reserved beyond the built-in ones.
        keep: [headers].keep: names or `prefix-*` that are not reserved after all, in
            exactly this spelling. Never covers names that we write ourselves.
        underscores: What to do with other names that hold a `_`.
        own: Further names that we write: [identity].headers.
        credential: The name, lower-case, of one more field that holds credentials:
            [api_keys].header.
    """

    def __init__(
        self,
        strip: Iterable[str] = (),
        keep: Iterable[str] = (),
        underscores: Literal["drop", "reject", "pass"] = "drop",
        own: Iterable[str] = (),
        credential: str | None = None,
    ) -> None:
        own = [*own]
        self._credentials = CREDENTIALS
        self._vary = (b"vary", b"Authorization")
        if credential is not None:
            name = credential.encode("ascii")
            self._credentials |= {name.translate(_FOLD)}
            self._vary = (b"vary", b"Authorization, " + name)
        self._own = _Names([_OURS, *own])
        self._written = _Names([_OURS, *own, *_text(WRITTEN)])
        self._reserved = _Names([*RESERVED, *strip])
        self._keep = _Names(keep)
        self._underscores = underscores
        self._requests: dict[bytes, _Verdict] = {}
        self._responses: dict[bytes, _Verdict] = {}
        self.underscored = 0
        """Fields dropped so far for a `_` that made them no reserved name."""

    def to_upstream(
        self,
        headers: Headers,
        *,
        drop: Collection[bytes] = frozenset(),
        keep_credentials: bool = False,
    ) -> Fields | Denial:
        """Return the fields of a request that its upstream may see.

        Args:
            headers: Of the client, as snapshot before the decision.
            drop: Further names, lower-case, that the caller writes itself.
            keep_credentials: Whether the client's credential travels on.

        A Denial only where `underscores` is "reject".
        """
        known = self._requests
        fields: Fields = []
        named: set[bytes] | None = None
        for field in headers:
            name = field[0]
            verdict = known.get(name)
            if verdict is None:
                verdict = _learn(known, name, self._judge_request)
            if not verdict:
                fields.append(field)
            elif verdict is _Verdict.CONNECTION:
                named = _options(field[1], named)
            elif verdict is _Verdict.CREDENTIAL:
                if keep_credentials:
                    fields.append(field)
            elif verdict is _Verdict.UNDERSCORE:
                if self._underscores == "reject":
                    return Denial(Reason.REQUEST_MALFORMED, "underscore in a name")
                self.underscored += 1
        if drop:
            fields = [field for field in fields if field[0] not in drop]
        if named:
            fields = [field for field in fields if field[0] not in named]
        return fields

    def to_client(self, headers: Headers, *, vary: bool = False) -> Fields:
        """Return the fields of an upstream's answer that the client may see.

        Args:
            headers: Of the upstream, names lower-case.
            vary: Whether the answer depended on a credential.
        """
        known = self._responses
        fields: Fields = []
        named: set[bytes] | None = None
        for field in headers:
            verdict = known.get(field[0])
            if verdict is None:
                verdict = _learn(known, field[0], self._judge_response)
            if not verdict:
                fields.append(field)
            elif verdict is _Verdict.CONNECTION:
                named = _options(field[1], named)
        if named:
            fields = [field for field in fields if field[0] not in named]
        if vary:
            fields.append(self._vary)
        return fields

    def _judge_request(self, name: bytes) -> _Verdict:
        if not _is_name(name):
            return _Verdict.DROP
        if name == b"connection":
            return _Verdict.CONNECTION
        folded = name.translate(_FOLD)
        if _is_hop_by_hop(folded) or folded in self._written:
            return _Verdict.DROP
        if folded in self._credentials:
            return _Verdict.CREDENTIAL if name == folded else _Verdict.DROP
        if folded in self._reserved and name not in self._keep:
            return _Verdict.DROP
        if b"_" in name and self._underscores != "pass":
            return _Verdict.UNDERSCORE
        return _Verdict.PASS

    def _judge_response(self, name: bytes) -> _Verdict:
        if not _is_name(name):
            return _Verdict.DROP
        if name == b"connection":
            return _Verdict.CONNECTION
        folded = name.translate(_FOLD)
        # The request id is ours to say, and what serves behind us is nobody's business.
        if folded in {b"x-request-id", b"server"} or folded in self._own:
            return _Verdict.DROP
        return _Verdict.DROP if _is_hop_by_hop(folded) else _Verdict.PASS


class _Names:
    """A set of names, some of them `prefix-*`; compared folded."""

    def __init__(self, patterns: Iterable[str]) -> None:
        exact, prefixes = set(), set()
        for pattern in patterns:
            name = pattern.lower().encode("ascii", "replace")
            if name.endswith(b"*"):
                prefixes.add(name[:-1].translate(_FOLD))
            else:
                exact.add(name.translate(_FOLD))
        self._exact = frozenset(exact)
        self._prefixes = tuple(sorted(prefixes))

    def __contains__(self, name: bytes) -> bool:
        return name in self._exact or name.startswith(self._prefixes)


def _learn(
    known: dict[bytes, _Verdict], name: bytes, judge: Callable[[bytes], _Verdict]
) -> _Verdict:
    verdict = judge(name)
    if len(name) <= _MAX_KNOWN_NAME:
        if len(known) >= _MAX_KNOWN:
            known.clear()
        known[name] = verdict
    return verdict


def _options(value: bytes, named: set[bytes] | None) -> set[bytes] | None:
    """Add the names in a Connection *value* to those seen in an earlier one."""
    if value in {b"close", b"keep-alive"}:  # they name no field, and nearly all say it
        return named
    options = set(value.lower().translate(None, b" \t").split(b","))
    return options if named is None else options | named


def _is_name(name: bytes) -> bool:
    return bool(name) and not name.translate(None, TOKEN_CHARACTERS)


def _is_hop_by_hop(folded: bytes) -> bool:
    return folded in HOP_BY_HOP or folded.startswith(_HOP_BY_HOP_PREFIXES)


def _text(names: Iterable[bytes]) -> list[str]:
    return [name.decode("ascii") for name in names]

"""Verify what the gateway says of a caller, before believing a word of it.

The header X-Gateway-Assertion holds a compact JWS (RFC 7515) with the claims of a JWT
(RFC 7519). It is the only thing believed: plain copies are compared with it. The checks
run in the order of RFC 8725 section 3: the algorithm belongs to the key, the key to the
gateway, the signature holds, and only then is anything in the payload believed.

Imports: gateway.backend.keys.
"""

from __future__ import annotations

import enum
import json
import math
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from gateway.backend.keys import KeySet, Source

HEADER = "x-gateway-assertion"

Text = str | bytes

MAX_ASSERTION = 16 * 1024  # bytes; the gateway writes 8 KiB at most
MAX_HELD = 1_000  # verified assertions remembered, each for a minute

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_ENDS = re.compile(" *(.*?) *", re.DOTALL)
_AS_IT_IS = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Fault(enum.StrEnum):
    """Why an assertion was not believed: one stable word, for logs and tests."""

    MISSING = "missing"
    AMBIGUOUS = "ambiguous"  # two fields, or one that was joined from two
    MALFORMED = "malformed"
    TYPE = "type"
    KEY = "key"  # the gateway publishes no such key
    ALGORITHM = "algorithm"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    EARLY = "early"
    CLAIM = "claim"
    COPY = "copy"  # a plain copy says something else
    BOUND = "bound"  # it was made for another request


class IdentityError(Exception):
    """The request does not carry an identity that can be believed."""

    def __init__(self, reason: Fault) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, as the gateway verified it. (issuer, subject) names the caller."""

    subject: str
    issuer: str  # of the subject: `src.iss`, not the gateway
    client_id: str | None
    roles: frozenset[str]
    scope: frozenset[str]  # the permissions granted
    token_id: str | None  # of the caller's token: `src.jti`
    request_id: str | None  # `txn`; only where the assertion is bound to the request
    expires_at: float  # Unix seconds
    claims: Mapping[str, Any]  # all of them, read-only

    def has(self, permission: str) -> bool:
        """Say whether *permission* was granted."""
        return permission in self.scope


class Verifier:
    """Verifies the assertions made for one service. May be used by several threads."""

    def __init__(
        self,
        keys: Source | KeySet,
        *,
        issuer: str,
        audience: str,
        leeway: float = 5.0,
        headers: Mapping[str, str] | None = None,
        bound: bool = False,
        wall: Callable[[], float] = time.time,  # noqa: TID251  (no app.py of ours here)
    ) -> None:
        """Keep what to compare with.

        Args:
            keys: The gateway's JWK Set, its URL, or what returns it (see KeySet).
            issuer: `[identity] issuer` of the gateway.
            audience: The name of this service's upstream in the gateway's config.
            leeway: How far the gateway's clock may be from ours, in seconds.
            headers: `[identity] headers` of the gateway: the plain copies that this
                service reads. Each is compared with its claim.
            bound: Refuse what is not bound to its request.
            wall: Unix seconds.
        """
        self.keys = keys if isinstance(keys, KeySet) else KeySet(keys)
        self.copied = {name.lower(): claim for name, claim in (headers or {}).items()}
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._bound = bound
        self._wall = wall
        self._held: dict[str, Identity] = {}
        self._version = self.keys.version

    def verify(
        self,
        values: Sequence[Text] | Text | None,
        *,
        method: str | None = None,
        target: Text | None = None,
        headers: Iterable[tuple[Text, Text]] | None = None,
        now: float | None = None,
    ) -> Identity:
        """Return the identity that a request carries. May wait for keys.

        Args:
            values: Every value of X-Gateway-Assertion in the request.
            method: Of the request; compared if the assertion is bound to it.
            target: Path and query as received, byte for byte; likewise.
            headers: The request's header fields; needed where copies are compared.
            now: Unix seconds; by default the clock's.

        Raises:
            IdentityError: Do not believe this request: 401.
            KeysUnavailable: The gateway's keys can't be had: 503.
        """
        assertion = _only(values)
        identity = self._remembered(assertion)
        if identity is None:
            identity = self._open(assertion)
        self._judge_time(identity.claims, self._wall() if now is None else now)
        self._judge_request(identity.claims, method, target)
        self._judge_copies(identity.claims, headers)
        return identity

    def key_wanted(self, values: Sequence[Text] | Text | None) -> str | None:
        """Return the key id for which `keys.refresh`, which waits, is due first."""
        try:
            assertion = _only(values)
            if self._remembered(assertion) is not None:
                return None
            key_id: str = _header(assertion)["kid"]
        except IdentityError:
            return None  # verify will say so, without waiting
        return key_id if self.keys.wants(key_id) else None

    def _remembered(self, assertion: str) -> Identity | None:
        """Return what these very characters said when they were verified."""
        if self._version != self.keys.version:
            self._version = self.keys.version
            self._held.clear()
        return self._held.get(assertion)

    def _open(self, assertion: str) -> Identity:
        """Verify the signature; return what is signed."""
        header = _header(assertion)
        if self.keys.wants(header["kid"]):
            self.keys.refresh(header["kid"])
        version = self.keys.version
        key = self.keys.find(header["kid"])
        if key is None:
            raise IdentityError(Fault.KEY)
        if header.get("alg") != key.algorithm:
            raise IdentityError(Fault.ALGORITHM)
        signing_input, _, signature = assertion.rpartition(".")
        if not key.verifies(signing_input.encode("ascii"), _bytes(signature)):
            raise IdentityError(Fault.SIGNATURE)
        claims = _object(signing_input.partition(".")[2])
        if claims.get("iss") != self._issuer:
            raise IdentityError(Fault.ISSUER)
        # One string: the gateway never writes a list, and a list could name others.
        if claims.get("aud") != self._audience:
            raise IdentityError(Fault.AUDIENCE)
        identity = _identity(claims)
        if version == self.keys.version:
            if len(self._held) >= MAX_HELD:
                self._held.clear()
            self._held[assertion] = identity
        return identity

    def _judge_time(self, claims: Mapping[str, Any], now: float) -> None:
        if now >= claims["exp"] + self._leeway:
            raise IdentityError(Fault.EXPIRED)
        if now < claims["iat"] - self._leeway:
            raise IdentityError(Fault.EARLY)

    def _judge_request(
        self, claims: Mapping[str, Any], method: str | None, target: Text | None
    ) -> None:
        if "htm" not in claims and "htu" not in claims:
            if self._bound:
                raise IdentityError(Fault.BOUND)
            return
        sent = target.decode("latin-1") if isinstance(target, bytes) else target
        # A request that we were not told is not the one it was made for.
        if method is None or sent is None:
            raise IdentityError(Fault.BOUND)
        if claims.get("htm") != method or claims.get("htu") != sent:
            raise IdentityError(Fault.BOUND)

    def _judge_copies(
        self, claims: Mapping[str, Any], headers: Iterable[tuple[Text, Text]] | None
    ) -> None:
        if not self.copied:
            return
        if headers is None:
            raise ValueError("verify needs the headers that it is to compare")
        received: dict[str, list[str]] = {name: [] for name in self.copied}
        for name, value in headers:
            lower = _string(name).lower()
            if lower in received:
                received[lower].append(_string(value))
        for name, claim in self.copied.items():
            copy = _copy(claims.get(claim))
            if received[name] != ([] if copy is None else [copy]):
                raise IdentityError(Fault.COPY)


def _only(values: Sequence[Text] | Text | None) -> str:
    """Return the one assertion among *values*."""
    if isinstance(values, str | bytes):
        values = [values]
    if not values:  # an empty field is not among these: it is one that says nothing
        raise IdentityError(Fault.MISSING)
    if len(values) > 1:
        raise IdentityError(Fault.AMBIGUOUS)
    value = _string(values[0])
    if "," in value:  # CGI and its heirs join two fields into one
        raise IdentityError(Fault.AMBIGUOUS)
    if len(value) > MAX_ASSERTION or not _COMPACT.fullmatch(value):
        raise IdentityError(Fault.MALFORMED)
    return value


def _header(assertion: str) -> dict[str, Any]:
    """Return the JOSE header, checked but for what the key has to say."""
    header = _object(assertion.partition(".")[0])
    if header.get("typ") != "JWT":
        raise IdentityError(Fault.TYPE)
    if not isinstance(header.get("kid"), str):
        raise IdentityError(Fault.KEY)
    if "crit" in header:  # RFC 7515 section 4.1.11: we understand none
        raise IdentityError(Fault.MALFORMED)
    return header


def _object(part: str) -> dict[str, Any]:
    """Return the JSON object that *part* of a compact JWS encodes."""
    try:
        content = json.loads(_bytes(part))
    except (ValueError, RecursionError):  # "[[[[" has no end
        raise IdentityError(Fault.MALFORMED) from None
    if not isinstance(content, dict):
        raise IdentityError(Fault.MALFORMED)
    return content


def _bytes(part: str) -> bytes:
    """Return what *part* encodes (RFC 7515 section 2)."""
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise IdentityError(Fault.MALFORMED) from None


def _identity(claims: dict[str, Any]) -> Identity:
    """Return *claims*, whose signature has been verified, in their types."""
    source = claims.get("src")
    if not isinstance(source, dict):
        raise IdentityError(Fault.CLAIM)
    subject, issuer = claims.get("sub"), source.get("iss")
    client_id, token_id = claims.get("client_id"), source.get("jti")
    roles, scope = claims.get("roles", []), claims.get("scope", "")
    request_id = claims.get("txn")
    if (
        not (isinstance(subject, str) and subject)
        or not (isinstance(issuer, str) and issuer)
        or not _is_list_of_strings(roles)
        or not isinstance(scope, str)
        or not isinstance(client_id, str | None)
        or not isinstance(token_id, str | None)
        or not isinstance(request_id, str | None)
        or not _is_date(claims.get("exp"))
        or not _is_date(claims.get("iat"))
    ):
        raise IdentityError(Fault.CLAIM)
    return Identity(
        subject=subject,
        issuer=issuer,
        client_id=client_id,
        roles=frozenset(roles),
        scope=frozenset(scope.split()),
        token_id=token_id,
        request_id=request_id,
        expires_at=claims["exp"],
        claims=MappingProxyType(claims),
    )


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_date(value: object) -> bool:
    """Say whether *value* is a NumericDate (RFC 7519 section 2)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON allows an integer of any length
        return False


def _string(value: Text) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _copy(value: object) -> str | None:
    """Return *value* as the gateway writes it into a header, None: not at all.

    The rule is in docs/identity.md. Written again here, because this room stands in
    other people's processes without the rest of the house.
    """
    if value is None or value == []:
        return None
    if isinstance(value, str):
        return _escape(value, _AS_IT_IS)
    if isinstance(value, list):
        safe = _AS_IT_IS.replace(",", "")
        return ",".join(_escape(str(item), safe) for item in value)
    return json.dumps(value)


def _escape(text: str, safe: str) -> str:
    found = _ENDS.fullmatch(text)
    assert found is not None
    start, end = found.span(1)
    inner = quote(text[start:end], safe=safe)
    return "%20" * start + inner + "%20" * (len(text) - end)

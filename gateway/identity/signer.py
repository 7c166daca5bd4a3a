"""What an upstream is told of a principal: one short-lived JWT, and plain copies.

DESIGN section 5; R94, R95; RFC 7515, RFC 7519. The assertion names its audience (the
upstream), ends with the caller's token at the latest, and says what was granted, not
what was asked for. It is the same for every request of a principal until half of its
life is over, so that in the steady state signing costs a look-up. Where a route binds
it to the request it is made each time, and only then does it name the request.

`src.iss` is the issuer's URL by configuration (its name, for a source that has no
URL): with `sub` it is the key of the caller. It is never read from a token.

Imports: gateway.model, gateway.identity.copies, gateway.identity.keys,
gateway.tokens.thumbprints.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.identity.copies import copies
from gateway.identity.keys import KeyRing
from gateway.model import Denial, Headers, Principal, Reason
from gateway.tokens.thumbprints import b64url

ASSERTION = b"x-gateway-assertion"

MAX_TTL = 60.0  # seconds: R94
# bytes: the longest field that nginx, gunicorn and Tomcat take by default is 8 KiB.
MAX_ASSERTION = 8 * 1024

# In every assertion.
_ALWAYS = frozenset({"iss", "aud", "sub", "iat", "exp", "jti", "src"})
# Ours to write, or with a meaning to whoever verifies: never taken from a token.
_RESERVED = frozenset({"nbf", "cnf", "htm", "htu", "txn"})
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^`|~-]+")  # RFC 9110 section 5.6.2, no "_"


@dataclass(frozen=True, slots=True)
class Signed:
    """What tells an upstream who calls, and while it may be said again.

    To the same upstream, of the same principal with the same permissions: for `since <=
    now < until`, in Unix seconds. What is bound to a request has no such time.
    """

    fields: Headers = field(repr=False)
    since: float
    until: float


NOBODY = Signed((), -math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class BoundRequest:
    """The request that an assertion is bound to (`identity = {bind = "request"}`)."""

    method: str
    target: bytes  # path and query, byte for byte as the upstream receives them
    request_id: str


class Signer:
    """Signs for the upstreams that share one [identity]."""

    def __init__(
        self,
        ring: KeyRing,
        *,
        issuer: str,
        issuers: Mapping[str, str],
        random: Callable[[int], bytes],
        ttl: float = MAX_TTL,
        claims: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        max_entries: int = 10_000,
    ) -> None:
        """Keep what is the same for every assertion.

        Args:
            ring: Its first key signs.
            issuer: Our `iss`; never that of a token issuer.
            issuers: The URL of each token issuer, by its name in gateway.toml.
            random: As many unpredictable bytes as asked for.
            ttl: Seconds an assertion lives, 1 to 60.
            claims: What to say beside the claims that are always there.
            headers: The plain copies: header name to claim. A claim named here is
                said in the assertion as well.
            max_entries: Assertions held; each some 2 KB.

        Raises:
            ValueError: A claim or header that an identity can't have, or a wrong ttl.
        """
        if not 1 <= ttl <= MAX_TTL:
            raise ValueError(f"an assertion lives 1 to {MAX_TTL:.0f} seconds")
        self._copied = _copied(headers or {})
        self._said = tuple(
            dict.fromkeys(
                name
                for name in (*claims, *(claim for _, claim in self._copied))
                if name not in _ALWAYS
            )
        )
        if reserved := _RESERVED.intersection(self._said):
            raise ValueError(f"the claim {min(reserved)!r} is the assertion's own")
        self._key = ring.signer
        self._protected = _part(
            {"alg": self._key.algorithm, "kid": self._key.key_id, "typ": "JWT"}
        )
        self._issuer = issuer
        self._issuers = dict(issuers)
        self._random = random
        self._ttl = ttl
        self._max_entries = max_entries
        # With the scope that was said.
        self._held: OrderedDict[
            tuple[Principal, str, str], tuple[Signed, tuple[str, ...]]
        ] = OrderedDict()

    def sign(
        self,
        principal: Principal,
        upstream: str,
        scope: tuple[str, ...],
        now: float,
        generation: str,
        request: BoundRequest | None = None,
    ) -> Signed | Denial:
        """Return the fields that tell *upstream* who calls: the assertion first.

        Nothing for an anonymous principal: no absent value means somebody. A Denial
        names the claim that can't be said in a header (R95).

        Args:
            principal: Whoever an authenticator vouched for, and `accept` let pass.
            upstream: Its name: the audience.
            scope: The names of the permissions granted, sorted.
            now: Unix seconds.
            generation: Of the policy that granted them.
            request: What to bind the assertion to, if the route says so.
        """
        if request is None:
            held = self._held.get((principal, upstream, generation))
            # `since`: after the clock was set back, what was signed in its future
            # would outlive our 60 seconds.
            if held and held[0].since <= now < held[0].until and held[1] == scope:
                return held[0]
        if principal.kind == "anonymous":
            return NOBODY
        claims = self._claims(principal, upstream, scope, now)
        if request is not None:
            claims["htm"] = request.method
            # RFC 9449 would leave the query out, and a name of our own would not be
            # understood better. ISO 8859-1, so that every byte has a character.
            claims["htu"] = request.target.decode("latin-1")
            claims["txn"] = request.request_id
        copied = copies(claims, self._copied)
        if isinstance(copied, Denial):
            return copied
        assertion = self._sign(claims)
        if assertion is None:
            return Denial(Reason.CLAIM_INVALID)
        fields = ((ASSERTION, assertion), *copied)
        if request is not None:
            return Signed(fields, now, -math.inf)
        signed = Signed(fields, now, self._renewal(principal, now))
        if now < signed.until:
            self._keep((principal, upstream, generation), signed, scope)
        return signed

    def _claims(
        self, principal: Principal, upstream: str, scope: tuple[str, ...], now: float
    ) -> dict[str, Any]:
        """Return what an unbound assertion says."""
        source = {"iss": self._issuers.get(principal.issuer, principal.issuer)}
        if principal.token_id:
            source["jti"] = principal.token_id
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": upstream,
            "sub": principal.subject,
            "iat": int(now),
            # Whole seconds, rounded down: never later than the caller's token.
            "exp": int(min(now + self._ttl, principal.expires_at)),
            "jti": b64url(self._random(16)),  # names the assertion, not the request
            "src": source,
        }
        for name in self._said:
            value = _claim(principal, scope, name)
            if value is not None:
                claims[name] = value
        return claims

    def _sign(self, claims: Mapping[str, Any]) -> bytes | None:
        """Return the compact JWS of *claims*, or None where it can't be sent."""
        try:
            signing_input = self._protected + b"." + _part(claims)
        except ValueError:  # a lone surrogate, a NaN: no authenticator lets these by
            return None
        signature = b64url(self._key.sign(signing_input)).encode("ascii")
        assertion = signing_input + b"." + signature
        return assertion if len(assertion) <= MAX_ASSERTION else None

    def _renewal(self, principal: Principal, now: float) -> float:
        """Return until when (Unix seconds) an assertion made *now* will do."""
        if principal.expires_at <= now + self._ttl:
            # It ends with the token: no later assertion could say more. After that
            # and its leeway, nobody lets the token pass.
            return principal.expires_at + principal.leeway
        return now + self._ttl / 2

    def _keep(
        self, key: tuple[Principal, str, str], signed: Signed, scope: tuple[str, ...]
    ) -> None:
        """Hold on to an assertion, and let go of those that are over."""
        self._held[key] = signed, scope
        self._held.move_to_end(key)
        # Two for each that comes: what is over goes long before the bound is reached,
        # and with it the principal, but no request pays for a sweep. The one that came
        # is last, and not over: it stays.
        for _ in range(2):
            oldest = next(iter(self._held))
            is_over = self._held[oldest][0].until <= signed.since
            if not is_over and len(self._held) <= self._max_entries:
                break
            del self._held[oldest]


def _claim(principal: Principal, scope: tuple[str, ...], name: str) -> object:
    """Return what the claim *name* says of *principal*; None: nothing."""
    # These six come from what was understood of the token, mapped and allowed;
    # a raw `roles` or `scope` of the token never gets here.
    if name == "scope":
        return " ".join(scope)
    if name == "roles":
        return sorted(principal.roles)
    if name == "client_id":
        return principal.client_id
    if name == "acr":
        return principal.acr
    if name == "amr":
        return list(principal.amr) or None
    if name == "auth_time":
        return None if principal.auth_time is None else int(principal.auth_time)
    return _plain(principal.claims.get(name))


def _plain(value: object) -> object:
    """Return *value* in the types that json knows; read-only ones become its own."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _part(content: Mapping[str, Any]) -> bytes:
    """Return *content* as one part of a compact JWS (RFC 7515 section 7.1)."""
    return b64url(_ENCODER.encode(content).encode("utf-8")).encode("ascii")


# Made once: `json.dumps` with any of these would make one each time.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _copied(headers: Mapping[str, str]) -> tuple[tuple[bytes, str], ...]:
    """Return *headers* as they are sent; raise ValueError where they can't be."""
    names = [name.lower() for name in headers]
    for name in names:
        if not _TOKEN.fullmatch(name) or name.startswith("x-gateway-"):
            raise ValueError(f"the header {name!r} can't carry a claim")
    if len(set(names)) < len(names):
        raise ValueError("the same header is to carry two claims")
    if "src" in headers.values():
        raise ValueError("the claim 'src' is an object: it has no plain copy")
    sent = (name.encode("ascii") for name in names)
    return tuple(zip(sent, headers.values(), strict=True))

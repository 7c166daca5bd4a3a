"""Opaque tokens: their issuer is asked what they are (RFC 7662).

A token that no other authenticator knows by its shape is opaque, and what it begins
with tells whose it is. The answer is the issuer's word, and goes through the checks
that the claims of a JWT go through. Where an answer may say less than a JWT has to, it
is told here what that means.

A refresh token is active too. It has no `token_type`, since RFC 6749 gives it none;
so that a token without one is no access token (R45).

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.fingerprints,
gateway.tokens.jwt, gateway.tokens.strict_json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gateway.model import Denial, IntrospectionNeeded, Principal, Reason, Steps
from gateway.tokens.claims import MAX_DATE, Claims, IssuerRules, principal_from
from gateway.tokens.fingerprints import name_of_content
from gateway.tokens.jwt import other_use
from gateway.tokens.strict_json import loads

MAX_ANSWER = 64 * 1024  # bytes; some servers list every group of a user
LEAST_LIFE = 1.0  # seconds that an answer counts for a stream, if it is not kept
_SIGNED_OR_SEALED = (2, 4)  # dots: a JWS has three parts, a JWE five


@dataclass(frozen=True, slots=True)
class OpaqueRules:
    """[issuer.x.introspection]: what an answer counts for."""

    issuer: IssuerRules
    cache: float = 60.0  # seconds
    prefix: str = ""  # of its tokens
    needs_audience: bool = True


class AnswerRefused(ValueError):  # noqa: N818  (the answer is)
    """Nothing that RFC 7662 knows. The text holds no part of it."""


def read_answer(raw: bytes, content_type: str) -> Claims | None:
    """Return what an introspection response says of a token; None: it is not active.

    Raises:
        AnswerRefused: It says neither.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        raise AnswerRefused("an answer that is not application/json")
    found = loads(raw)
    if found is None:
        raise AnswerRefused("an answer that is not one strict JSON object")
    active = found.get("active")
    if not isinstance(active, bool):
        raise AnswerRefused('an answer whose "active" is not a boolean')
    return found if active else None


class OpaqueAuthenticator:
    """Asks about tokens that nothing can be read from. The last one to be asked.

    Args:
        rules: Of the issuers; no prefix of theirs begins with another one.
    """

    def __init__(self, rules: Sequence[OpaqueRules]) -> None:
        for number, one in enumerate(rules):
            for other in rules[:number]:
                if one.prefix.startswith(other.prefix) or other.prefix.startswith(
                    one.prefix
                ):
                    raise ValueError("a token could be of either issuer")
        self._rules = tuple(rules)

    def recognises(self, token: str) -> bool:
        """Tell whether there is somebody to ask about *token*."""
        return self._of(token) is not None

    def authenticate(
        self, token: str, now: float, client: str = ""
    ) -> Steps[Principal | Denial]:
        """Have its issuer say what *token* is as of *now* (Unix seconds)."""
        rules = self._of(token)
        assert rules is not None, "it was recognised"
        claims: Claims | None = yield IntrospectionNeeded(
            rules.issuer.name, token, client
        )
        if claims is None:
            return Denial(Reason.TOKEN_INACTIVE)
        # Some servers write null for what they don't say. And where the token's name is
        # its text, it is no name for a log, or for a list of what is revoked (R50).
        said = {
            name: value
            for name, value in claims.items()
            if value is not None and value != token
        }
        return _principal(said, rules, now)

    def _of(self, token: str) -> OpaqueRules | None:
        # What has the form of a signed or a sealed token is judged as such a one, by
        # others, or not at all: no token is read in two ways.
        if token.count(".") in _SIGNED_OR_SEALED:
            return None
        for rules in self._rules:
            if token.startswith(rules.prefix):
                return rules
        return None


def _principal(claims: Claims, rules: OpaqueRules, now: float) -> Principal | Denial:
    wrong = _other_use(claims)
    if wrong is not None:
        return Denial(Reason.TYPE_FORBIDDEN, wrong)
    whole = {"iss": rules.issuer.issuer, **claims}
    # RFC 7662 section 2.2 makes `sub` the resource owner. A token that a client got for
    # itself has none, and then it is about the client.
    if "sub" not in claims and "username" not in claims and "client_id" in claims:
        whole["sub"] = claims["client_id"]
    if "aud" not in claims and not rules.needs_audience:
        whole["aud"] = sorted(rules.issuer.audience)
    if "exp" not in claims:
        end = _end(claims, rules, now)
        if isinstance(end, Denial):
            return end
        whole["exp"] = end
    found = principal_from(whole, rules.issuer, now, _digest(whole))
    if isinstance(found, Denial):
        return found
    return replace(
        found,
        # What we have put in is nothing that the issuer has said.
        claims=MappingProxyType(
            {name: value for name, value in found.claims.items() if name in claims}
        ),
        # Without the leeway: after `exp` the issuer is asked, who knows his own clock.
        known_for=max(0.0, min(rules.cache, found.expires_at - now)),
    )


def _end(claims: Claims, rules: OpaqueRules, now: float) -> float | Denial:
    """Return until when (Unix seconds) a token without `exp` counts.

    A revocation is kept for `max_lifetime`. A token that could outlive it would be
    valid again then; so its age has to be known (R63).
    """
    issued_at = claims.get("iat")
    if issued_at is None:
        return Denial(Reason.CLAIM_INVALID, "exp")
    if (
        isinstance(issued_at, bool)
        or not isinstance(issued_at, int | float)
        or not -MAX_DATE <= issued_at <= MAX_DATE
    ):
        return Denial(Reason.CLAIM_INVALID, "iat")
    counts = now + max(rules.cache, LEAST_LIFE)
    end = min(counts, issued_at + rules.issuer.max_lifetime)
    return end if now < end else Denial(Reason.LIFETIME_TOO_LONG, "iat")


def _other_use(claims: Claims) -> str | None:
    """Return the claim by which it is no access token that whoever has it may use."""
    wrong = other_use(claims)
    if wrong is not None:
        return wrong
    kind = claims.get("token_type")
    if kind is None:
        # Keycloak's older versions said it there.
        kind = claims.get("typ")
    is_bearer = isinstance(kind, str) and kind.lower() == "bearer"
    # A token that is bound says to what, in `cnf`, which is looked at with the claims.
    return None if is_bearer or "cnf" in claims else "token_type"


def _digest(claims: Claims) -> str:
    """Return the name of a token without an id: that of what makes it this one (R50).

    It has to be the same in every answer about the token. Who and for whom, and when it
    was issued, are; some servers move `exp` on with each use, and change the scope.
    Tokens that one client gets for one subject in one second share their name: to
    revoke one of them revokes all.
    """
    when = claims["iat"] if "iat" in claims else claims["exp"]
    parts = [claims.get(name) for name in ("iss", "sub", "client_id")]
    content = json.dumps([*parts, when], separators=(",", ":")).encode("ascii")
    return name_of_content(content)

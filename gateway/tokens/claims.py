"""The claims of a verified token, checked once and made into a Principal.

RFC 7519 section 4.1, RFC 9068 section 2.2, RFC 8725 section 3. A claim that is present
has to be what it should be, also where it may be absent. The clock is an argument;
whether the token is acceptable now and here is asked in gateway.tokens.accept.

Imports: gateway.model, gateway.tokens.confirmation, gateway.tokens.fingerprints.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from gateway.model import Denial, Principal, Reason, VerificationKey
from gateway.tokens.confirmation import BY_DEFAULT, BindingRules, binding_of
from gateway.tokens.fingerprints import fingerprints

Claims = Mapping[str, Any]

MAX_NAME = 255  # characters of `sub` and of other names (OpenID Connect Core section 2)
MAX_TOKEN_ID = 128  # characters of `jti`
MAX_DATE = 2**53  # Unix seconds; a double counts no further

_NOTHING: frozenset[str] = frozenset()
# RFC 6749 section 3.3: printable ASCII without the quote and the backslash.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """An issuer we trust, and what we trust it to say: [issuer.x] of gateway.toml."""

    name: str
    issuer: str  # its `iss`, compared octet by octet
    algorithms: frozenset[str]  # never taken from the token: RFC 8725 section 3.1
    token_types: frozenset[str] = frozenset({"at+jwt", "jwt"})  # lower-case
    audience: frozenset[str] = frozenset()  # for gateway.tokens.accept
    leeway: float = 30.0  # seconds
    max_lifetime: float = 24 * 3600.0  # seconds
    token_id: str = "jti"  # noqa: S105  (the name of a claim)
    role_claim: tuple[str, ...] = ()  # one element: the claim's name as it stands
    role_map: Mapping[str, str] | None = None
    role_allow: frozenset[str] = frozenset()  # the only roles it may assert
    role_split: bool = False  # a string is split at spaces
    scope_claim: str = "scope"
    binding: BindingRules = BY_DEFAULT


class Wrong(Exception):  # noqa: N818  (the claim is; and it never leaves this room)
    """A claim is not what it should be. `at` is a name of ours, never a value."""

    def __init__(self, at: str) -> None:
        super().__init__(at)
        self.at = at


def principal_from(
    claims: Claims,
    rules: IssuerRules,
    now: float,
    content_digest: str,
    key: VerificationKey | None = None,
) -> Principal | Denial:
    """Return the principal that *claims* describe.

    Its `claims` are read-only at the top; nobody changes what lies deeper, and it is
    shared by all requests that bring this token.

    Args:
        claims: The payload of a token whose signature has been verified.
        rules: Of the issuer whose key verified it.
        now: Unix seconds.
        content_digest: Names the verified content; the token's id if it has no other.
        key: Has verified it.
    """
    try:
        return _principal(claims, rules, now, content_digest, key)
    except Wrong as wrong:
        return Denial(Reason.CLAIM_INVALID, wrong.at)


def read_again(principal: Principal, rules: IssuerRules) -> Principal | Denial:
    """Return whom the claims of *principal*, verified before, describe by *rules*.

    Who it is stays; what its issuer may say of it is what may have changed.
    """
    claims, bound = principal.claims, rules.binding.required
    # What an issuer was asked about, it says without its name.
    if claims.get("iss", rules.issuer) != rules.issuer:
        return Denial(Reason.ISSUER_UNTRUSTED)
    binding = principal.binding
    if bound is not None and (binding is None or bound.isdisjoint(binding.kinds)):
        return Denial(Reason.BINDING_MISSING)
    try:
        roles, scope = _roles(claims, rules), _scope(claims, rules.scope_claim)
    except Wrong as wrong:
        return Denial(Reason.CLAIM_INVALID, wrong.at)
    return replace(principal, roles=roles, scope=scope)


def unless_expired(principal: Principal | Denial, now: float) -> Principal | Denial:
    """Return *principal*, unless its token has expired.

    accept() asks this on every request. Authenticators ask it too, so that dead tokens
    take no room among the verified ones.
    """
    if isinstance(principal, Principal) and now >= (
        principal.expires_at + principal.leeway
    ):
        return Denial(Reason.TOKEN_EXPIRED, principal=principal)
    return principal


def _principal(
    claims: Claims,
    rules: IssuerRules,
    now: float,
    content_digest: str,
    key: VerificationKey | None,
) -> Principal | Denial:
    if claims.get("iss") != rules.issuer:
        # Compared when the key was chosen too, but then it was not verified.
        return Denial(Reason.ISSUER_UNTRUSTED)

    bound = rules.binding
    binding = binding_of(claims, bound)
    if isinstance(binding, str):
        raise Wrong(binding)
    if bound.required is not None and (
        binding is None or bound.required.isdisjoint(binding.kinds)
    ):
        return Denial(Reason.BINDING_MISSING)
    expires_at = date_in(claims, "exp")
    if expires_at is None:
        raise Wrong("exp")
    issued_at = date_in(claims, "iat")
    not_before = date_in(claims, "nbf")
    # How long a revocation must be kept hangs on both. The issuer's clock may be ahead
    # of ours by the leeway; its subtraction can't be.
    too_late = expires_at > now + rules.max_lifetime + rules.leeway
    if too_late or (
        issued_at is not None and expires_at - issued_at > rules.max_lifetime
    ):
        return Denial(Reason.LIFETIME_TOO_LONG, "exp")

    subject = text_in(claims, "sub")
    if subject is None:
        raise Wrong("sub")
    named = text_in(claims, "jti", MAX_TOKEN_ID)
    if rules.token_id != "jti":  # noqa: S105  (the name of a claim)
        named = text_in(claims, rules.token_id, MAX_TOKEN_ID)
    token_id = named or content_digest
    session_id = text_in(claims, "sid")
    client_id = (
        text_in(claims, "client_id")
        or text_in(claims, "azp")
        or text_in(claims, "appid")
    )

    return Principal(
        # RFC 9068 section 2.2: a token that no user stands behind is about its client.
        # Auth0 says the same as "<client>@clients".
        kind=(
            "service"
            if client_id is not None and subject in {client_id, f"{client_id}@clients"}
            else "user"
        ),
        issuer=rules.name,
        subject=subject,
        client_id=client_id,
        token_id=token_id,
        session_id=session_id,
        issued_at=issued_at,
        not_before=not_before,
        expires_at=expires_at,
        leeway=rules.leeway,
        auth_time=date_in(claims, "auth_time"),
        acr=text_in(claims, "acr"),
        amr=_methods(claims),
        audience=audience_in(claims),
        roles=_roles(claims, rules),
        scope=_scope(claims, rules.scope_claim),
        claims=MappingProxyType(_lean(claims)),
        fingerprints=fingerprints(
            rules.issuer,
            token_id=token_id,
            session_id=session_id,
            subject=subject,
            client_id=client_id,
        ),
        key=key,
        binding=binding,
    )


def date_in(claims: Claims, name: str) -> float | None:
    """Return a NumericDate in Unix seconds, or None where there is none.

    RFC 7519 section 2: a JSON number. A string is none, whatever it spells.
    """
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(name)
    # What does not compare, a NaN, is refused. The number stays what it is: one of 32
    # bytes, which the claims hold too, and not another one of as many.
    if not -MAX_DATE <= value <= MAX_DATE:
        raise Wrong(name)
    return value


def text_in(claims: Claims, name: str, most: int = MAX_NAME) -> str | None:
    """Return a claim that names something, or None where there is none."""
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not is_name(value, most):
        raise Wrong(name)
    return value


def is_name(text: str, most: int) -> bool:
    """Tell whether a claim of at most *most* characters may name somebody so."""
    # Printable and in NFC: two names that look the same are the same, and none of them
    # ends a line in a log or a header.
    return (
        0 < len(text) <= most
        and text.isprintable()
        and (text.isascii() or unicodedata.is_normalized("NFC", text))
    )


def audience_in(claims: Claims) -> frozenset[str]:
    """Return for whom the token is: one name, or several (RFC 7519 section 4.1.3)."""
    value = claims.get("aud")
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not named or not _all_text(named):
        raise Wrong("aud")
    if len(named) == 1:
        return _alone(named[0])
    return frozenset(named)


def _methods(claims: Claims) -> tuple[str, ...]:
    value = claims.get("amr", [])
    # RFC 8176 says a list; some libraries write a list of one as its element.
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not _all_text(named):
        raise Wrong("amr")
    return tuple(named)


def _roles(claims: Claims, rules: IssuerRules) -> frozenset[str]:
    """Return the roles that the issuer asserts and may assert (R85).

    Exact strings: no folding, no trimming, no part of a string. Where there is a map,
    what it does not name is no role.
    """
    if not rules.role_claim:
        return _NOTHING
    value: Any = claims
    for name in rules.role_claim:
        if not isinstance(value, Mapping):
            raise Wrong("roles")
        if name not in value:
            return _NOTHING
        value = value[name]
    if isinstance(value, str) and rules.role_split:
        value = value.split(" ")
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Wrong("roles")
    if rules.role_map is not None:
        value = [rules.role_map[each] for each in value if each in rules.role_map]
    return _shared(rules.role_allow.intersection(value))


def _scope(claims: Claims, name: str) -> frozenset[str]:
    """Return what the token was granted to do.

    RFC 9068 section 2.2.3 says a string with spaces; Okta and others write a list.
    """
    value = claims.get(name, "")
    if isinstance(value, str):
        found = _words(value) if len(value) <= MAX_SHARED else _words_of(value)
        if found is None:
            raise Wrong("scope")
        return found
    if not isinstance(value, list) or not all(
        isinstance(each, str) and _SCOPE.fullmatch(each) for each in value
    ):
        raise Wrong("scope")
    return _shared(frozenset(value))


def _all_text(values: list[Any]) -> bool:
    return all(isinstance(each, str) and is_name(each, 1024) for each in values)


# Tokens of one issuer say the same few things over and over, and a hundred thousand of
# them are remembered: what is equal is one object, which halves an entry. Bounded, and
# only ever asked about what a trusted issuer has signed.
MAX_SHARED = 512  # characters; a longer text is not kept for others
_ALIKE = frozenset({"iss", "aud", "azp", "client_id", "scope"})


def _lean(claims: Claims) -> dict[str, Any]:
    """Return *claims* with names and texts that other tokens have too."""
    return {
        _one(name): _lean_value(value) if name in _ALIKE or _holds(value) else value
        for name, value in claims.items()
    }


def _lean_value(value: Any) -> Any:
    if isinstance(value, str):
        return _one(value) if len(value) <= MAX_SHARED else value
    if isinstance(value, list):
        return [_lean_value(each) for each in value]
    if isinstance(value, dict):
        return {_one(name): _lean_value(each) for name, each in value.items()}
    return value


def _holds(value: Any) -> bool:
    return isinstance(value, list | dict)


@lru_cache(maxsize=4096)
def _one(text: str) -> str:
    return text


def _words_of(text: str) -> frozenset[str] | None:
    words = frozenset(filter(None, text.split(" ")))
    return words if all(map(_SCOPE.fullmatch, words)) else None


_words = lru_cache(maxsize=1024)(_words_of)


@lru_cache(maxsize=1024)
def _alone(audience: str) -> frozenset[str]:
    return frozenset((audience,))


@lru_cache(maxsize=1024)
def _shared(names: frozenset[str]) -> frozenset[str]:
    return names

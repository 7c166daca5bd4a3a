"""Making tokens: what an issuer of ours would say, and the form that it takes.

Whatever is minted is judged first by the rules that will judge it later: a token that
the gateway would refuse is not made. Chance and time are arguments; what a seal needs
of chance beside that (an IV, a content key) comes from the library that seals.

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.jwks,
gateway.tokens.strict_json, cryptography, PyJWT.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import Algorithm, get_default_algorithms

from gateway.model import Denial
from gateway.tokens.claims import IssuerRules, principal_from
from gateway.tokens.jwks import ALGORITHMS, KeyRefused, key_from_pem

TOKEN_ID_BYTES = 16  # of chance in a `jti`

_SIGNERS: Mapping[str, Algorithm] = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in ALGORITHMS
}


class MintRefused(ValueError):  # noqa: N818  (the order is, not the program in error)
    """A token that would be refused. The text says why, in our words."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a token is to say."""

    subject: str
    lifetime: float  # seconds
    audience: tuple[str, ...] = ()  # none: all of its issuer's
    roles: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    session_id: str | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class MintingKey:
    """A key that signs, and the one algorithm it is used with."""

    algorithm: str
    key_id: str | None
    material: Any = field(repr=False)  # a cryptography private key, or bytes for HS*


def minting_key(pem: bytes, algorithms: frozenset[str]) -> tuple[MintingKey, bytes]:
    """Read a private key in PEM; return it with its public half in PEM.

    Raises:
        KeyRefused: It is none, or none for one of *algorithms*.
    """
    try:
        private: Any = load_pem_private_key(pem, None)
    except TypeError:
        raise KeyRefused("an encrypted PEM") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused("no private key in PEM") from None
    public = private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    first = key_from_pem(public, algorithms).keys[0]
    return MintingKey(first.algorithm, None, private), public


def claims_for(
    order: Order,
    rules: IssuerRules,
    now: float,
    random: Callable[[int], bytes],
    *,
    needs_session: bool = False,
) -> dict[str, Any]:
    """Return the claims of a new token.

    Args:
        order: What it is to say.
        rules: Of the issuer that says it.
        now: Unix seconds.
        random: Returns so many bytes of chance.
        needs_session: Whether the issuer's tokens have to name a login session.

    Raises:
        MintRefused: The gateway would refuse it, or not see in it what was ordered.
    """
    if not 0 < order.lifetime <= rules.max_lifetime:
        raise MintRefused(
            f"tokens of {rules.name} live for at most {rules.max_lifetime:g} s, and"
            " longer than none"
        )
    if needs_session and order.session_id is None:
        raise MintRefused(f"a token of {rules.name} has to name its session (sid)")
    issued_at = int(now)
    audience = list(order.audience) or sorted(rules.audience)
    claims: dict[str, Any] = {
        "iss": rules.issuer,
        "aud": audience[0] if len(audience) == 1 else audience,
        "sub": order.subject,
        "iat": issued_at,
        "exp": issued_at + max(int(order.lifetime), 1),
        "jti": base64.urlsafe_b64encode(random(TOKEN_ID_BYTES)).decode().rstrip("="),
    }
    if order.session_id is not None:
        claims["sid"] = order.session_id
    if order.client_id is not None:
        claims["client_id"] = order.client_id
    if order.scope:
        claims[rules.scope_claim] = " ".join(order.scope)
    if order.roles:
        _say_roles(claims, order.roles, rules)
    seen = principal_from(claims, rules, now, "")
    if isinstance(seen, Denial):
        raise MintRefused(f"the gateway would refuse it: {seen}")
    if seen.roles != set(order.roles) or seen.scope != set(order.scope):
        raise MintRefused("the gateway would see other roles, or another scope, in it")
    return claims


def signed(claims: Mapping[str, Any], rules: IssuerRules, key: MintingKey) -> str:
    """Return *claims* as a signed token of the type that its issuer's tokens have."""
    types = rules.token_types
    header = {"alg": key.algorithm, "typ": "at+jwt" if "at+jwt" in types else "JWT"}
    if header["typ"].lower() not in types:
        (header["typ"], *_) = sorted(types)
    if key.key_id is not None:
        header["kid"] = key.key_id
    signing_input = b".".join(map(_base64url, (to_json(header), to_json(claims))))
    signature = _SIGNERS[key.algorithm].sign(signing_input, key.material)
    return b".".join((signing_input, _base64url(signature))).decode("ascii")


def to_json(claims: Mapping[str, Any]) -> bytes:
    """Return *claims* as a token holds them."""
    return json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()


def _say_roles(
    claims: dict[str, Any], roles: tuple[str, ...], rules: IssuerRules
) -> None:
    """Put *roles* where the issuer's tokens have them, in its own words for them."""
    forbidden = sorted(set(roles) - rules.role_allow)
    if forbidden:
        raise MintRefused(
            f"{rules.name} may not assert: {', '.join(forbidden)}; it may:"
            f" {', '.join(sorted(rules.role_allow)) or 'no role'}"
        )
    words = {role: word for word, role in (rules.role_map or {}).items()}
    said = [words.get(role, role) for role in roles]
    place = claims
    for name in rules.role_claim[:-1]:
        place = place.setdefault(name, {})
    place[rules.role_claim[-1]] = said


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")

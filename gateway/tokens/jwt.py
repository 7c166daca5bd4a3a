"""Access tokens that another party signed: a JWT (RFC 7519) in a JWS (RFC 7515).

The checks run in the order of RFC 8725 section 3: the form, the issuer, the type, the
algorithm, the key, the signature, and only then is anything in the payload believed.
Before that it chooses the issuer and nothing else. What a header says about where keys
are (`jku`, `jwk`, `x5u`, `x5c`, `x5t`) is not read at all (R41).

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.compact,
gateway.tokens.fingerprints, gateway.tokens.jwks, gateway.tokens.strict_json, PyJWT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jwt.algorithms import Algorithm, get_default_algorithms

from gateway.model import (
    Denial,
    KeyNeeded,
    Principal,
    Reason,
    Steps,
    VerificationKey,
)
from gateway.tokens.claims import (
    Claims,
    IssuerRules,
    principal_from,
    unless_expired,
)
from gateway.tokens.compact import Compact, split
from gateway.tokens.fingerprints import name_of_content
from gateway.tokens.jwks import (
    ALGORITHMS,
    EDWARDS_ALGORITHMS,
    MAX_KEY_ID,
    KeyStore,
)
from gateway.tokens.strict_json import loads

_PARTS = 3  # header.payload.signature; a JWE has five (RFC 7516 section 9)

_KNOWN = get_default_algorithms()
_VERIFIERS: Mapping[str, Algorithm] = {
    # RFC 9864: EdDSA, where the key can only be of that curve.
    name: _KNOWN["EdDSA" if name == "Ed25519" else name]
    for name in ALGORITHMS
}
# Two numbers of the curve's size, end to end (RFC 7518 section 3.4).
_SIGNATURE_BYTES = {
    "ES256": 64,
    "ES384": 96,
    "ES512": 132,
    **dict.fromkeys(EDWARDS_ALGORITHMS, 64),  # RFC 8032 section 5.1.6
}

# JWTs that prove or order something, and are access to nothing (RFC 8725 section
# 3.11). Refused whatever [issuer.x].token_types says.
NEVER_ACCESS = frozenset(
    {
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "id+jwt",
        "client-authentication+jwt",
        "oauth-authz-req+jwt",
        "oauth-client-attestation+jwt",
        "oauth-client-attestation-pop+jwt",
        "token-introspection+jwt",
        "kb+jwt",
        "entity-statement+jwt",
    }
)
# Where `typ` is just "JWT", the payload shows what else a token may be: an ID token
# (OpenID Connect Core sections 2 and 3.3.2.11), a logout token or another security
# event (RFC 8417), or what Keycloak, Amazon Cognito and Hydra call it themselves.
_NOT_ACCESS = ("at_hash", "c_hash", "events")
_USES: Mapping[str, frozenset[str]] = {
    "typ": frozenset({"id", "refresh", "offline", "logout"}),
    "token_use": frozenset({"id", "id_token", "refresh", "refresh_token"}),
}


class JwtAuthenticator:
    """Verifies tokens from the issuers named in gateway.toml."""

    def __init__(self, rules: Sequence[IssuerRules], keys: KeyStore) -> None:
        self._rules = {each.issuer: each for each in rules}
        if len(self._rules) != len(rules):
            raise ValueError("two issuers with one `iss`: which of them is meant?")
        self._keys = keys

    def recognises(self, token: str) -> bool:
        """Tell by the number of parts."""
        return token.count(".") == _PARTS - 1

    def authenticate(
        self,
        token: str,
        now: float,
        client: str = "",  # noqa: ARG002
    ) -> Steps[Principal | Denial]:
        """Verify *token* as of *now* (Unix seconds)."""
        found = yield from signed(token, self._rules, self._keys, _is_access)
        if isinstance(found, Denial):
            return found
        # From here on the payload is the issuer's word.
        if found.kind == "jwt":
            wrong = other_use(found.claims)
            if wrong is not None:
                return Denial(Reason.TYPE_FORBIDDEN, wrong)
        rules, key = found.rules, found.key
        self._keys.used(rules.name, key)
        # Header and payload, and not the signature: there are several for one content
        # (R50).
        name = name_of_content(found.content)
        return unless_expired(principal_from(found.claims, rules, now, name, key), now)


class Signed(NamedTuple):
    """What an issuer has signed."""

    kind: str  # its `typ`, in canonical form
    claims: Claims
    rules: IssuerRules  # of whoever signed it
    key: VerificationKey  # with which
    content: bytes  # header and payload, as they were signed


def signed(
    token: str,
    rules: Mapping[str, IssuerRules],
    keys: KeyStore,
    is_meant: Callable[[str, IssuerRules], bool],
) -> Steps[Signed | Denial]:
    """Verify the signature of *token*.

    Args:
        token: As it was received.
        rules: Of each issuer whose word counts, by its `iss`.
        keys: Of the same.
        is_meant: Tells whether a token of this type, in canonical form, is wanted.
    """
    parts = split(token)
    if parts is None:
        return Denial(Reason.TOKEN_MALFORMED, "form")
    odd = _odd_header(parts.header)
    if odd is not None:
        return odd
    claims = loads(parts.payload)
    if claims is None:
        return Denial(Reason.TOKEN_MALFORMED, "payload")

    issuer = claims.get("iss")
    whose = rules.get(issuer) if isinstance(issuer, str) else None
    if whose is None:
        return Denial(Reason.ISSUER_UNTRUSTED)

    kind = type_of(parts.header)
    if not is_meant(kind, whose):
        return Denial(Reason.TYPE_FORBIDDEN, "typ")

    algorithm: str = parts.header["alg"]
    if algorithm not in whose.algorithms:
        return Denial(Reason.ALGORITHM_FORBIDDEN)

    key_id: str | None = parts.header.get("kid")
    key = keys.find(whose.name, key_id, algorithm)
    if key is None:
        key = yield KeyNeeded(whose.name, key_id, algorithm)
    if key is None:
        return Denial(Reason.KEY_UNKNOWN)

    if not verify(parts, key):
        return Denial(Reason.SIGNATURE_INVALID)
    return Signed(kind, claims, whose, key, parts.signing_input)


def _is_access(kind: str, rules: IssuerRules) -> bool:
    return kind in rules.token_types and kind not in NEVER_ACCESS


def verify(parts: Compact, key: VerificationKey) -> bool:
    """Tell whether *key* made the signature of *parts*.

    The algorithm is the key's (R40); a header that names another one, or asks for an
    extension that we don't know, is no reason to verify in another way.
    """
    header = parts.header
    if header.get("alg") != key.algorithm or "crit" in header or "b64" in header:
        return False
    size = _SIGNATURE_BYTES.get(key.algorithm)
    if size is not None and len(parts.signature) != size:
        return False
    return _VERIFIERS[key.algorithm].verify(
        parts.signing_input, key.material, parts.signature
    )


def _odd_header(header: Mapping[str, Any]) -> Denial | None:
    """Refuse a header that is not plainly that of a signed JWT."""
    if not isinstance(header.get("alg"), str):
        return Denial(Reason.TOKEN_MALFORMED, "alg")
    if "kid" in header:
        key_id = header["kid"]
        if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
            return Denial(Reason.TOKEN_MALFORMED, "kid")
    for name in ("typ", "cty"):
        if not isinstance(header.get(name, ""), str):
            return Denial(Reason.TOKEN_MALFORMED, name)
    # RFC 7515 section 4.1.11: we know no extension, so none may be critical. `b64`
    # (RFC 7797) would change what was signed, and has to be critical to be legal.
    for name in ("crit", "b64"):
        if name in header:
            return Denial(Reason.TOKEN_MALFORMED, name)
    if str(header.get("cty", "")).lower().endswith("jwt"):
        # RFC 7519 section 5.2: the payload would be another token.
        return Denial(Reason.TYPE_FORBIDDEN, "cty")
    return None


def type_of(header: Mapping[str, Any]) -> str:
    """Return the token's type in canonical form (RFC 7515 section 4.1.9)."""
    return str(header.get("typ", "JWT")).lower().removeprefix("application/")


def other_use(claims: Claims) -> str | None:
    """Return the claim by which a token of no stated type is no access token (R45)."""
    for name in _NOT_ACCESS:
        if name in claims:
            return name
    for name, uses in _USES.items():
        use = claims.get(name)
        if isinstance(use, str) and use.lower() in uses:
            return name
    # Keycloak before 25 copied the nonce into access tokens too, and says beside it
    # that they are such.
    if "nonce" in claims and claims.get("typ") != "Bearer":
        return "nonce"
    return None

"""Tokens that a shared key sealed: claims in a Fernet token.

The Fernet specification (github.com/fernet/spec), R43, R44, R50, R51. A key belongs to
one issuer, so the claims may leave out `iss` and `aud`: what the token does not say,
its key says. What it does say has to be right. The token's own timestamp is when it was
issued; it ends with `ttl` after that or with `exp`, whichever comes first.

There is one spelling of a token. `cryptography` skips what is no base64 and what stands
behind the padding; nothing here depends on that.

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.compact,
gateway.tokens.fingerprints, gateway.tokens.jwks, gateway.tokens.strict_json,
cryptography.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from gateway.model import Denial, Principal, Reason, Steps
from gateway.tokens.claims import IssuerRules, principal_from, unless_expired
from gateway.tokens.compact import MAX_CHARACTERS
from gateway.tokens.fingerprints import name_of_content
from gateway.tokens.jwks import KeyRefused, is_guessable
from gateway.tokens.strict_json import loads

# Version 0x80, then 22 of the 64 bits of a time, which are zero.
_FORM = re.compile(r"gAAAA[A-Za-z0-9_-]+={0,2}")
_LEAST = 73  # bytes: version, time, IV, one block, HMAC
_AROUND = 57  # bytes that are not ciphertext
_BLOCK = 16
_TIME = slice(1, 9)

KEY_BYTES = 32
MIN_ITERATIONS = 600_000  # of PBKDF2-HMAC-SHA256 (OWASP, 2023)
MAX_ITERATIONS = 10_000_000  # ten seconds at every start are enough
MIN_SALT = 16  # bytes
MIN_PASSWORD = 12  # characters; each guess costs the iterations

# Keys out of manuals: the specification's own.
_EXAMPLES = frozenset({"cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="})


@dataclass(frozen=True, slots=True)
class Opened:
    """What one of our keys has sealed."""

    sealed_at: int  # Unix seconds
    plaintext: bytes = field(repr=False)


class FernetKeys:
    """Opens what any of *keys* sealed, and seals with the first.

    Args:
        keys: 32 bytes each, as base64url.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def open(self, token: str) -> Opened | None:
        """Return what is in *token*, however old; None when none of our keys fits."""
        raw = _raw(token)
        if raw is None:
            return None
        try:
            plaintext = self._fernet.decrypt(token)
        except InvalidToken:
            return None
        # Covered by the HMAC, as all before it is.
        return Opened(int.from_bytes(raw[_TIME], "big"), plaintext)

    def seal(self, plaintext: bytes, now: float) -> str:
        """Return a token that says *plaintext* and was issued at *now*."""
        return self._fernet.encrypt_at_time(plaintext, int(now)).decode("ascii")

    def rotate(self, token: str) -> str | None:
        """Return *token* sealed with the first key, of the same age; None as `open`."""
        if self.open(token) is None:
            return None
        return self._fernet.rotate(token).decode("ascii")


def said_time(token: str) -> int | None:
    """Return when *token* says that it was sealed, which nobody has verified.

    Unix seconds; None: it is no Fernet token.
    """
    raw = _raw(token)
    return None if raw is None else int.from_bytes(raw[_TIME], "big")


class FernetAuthenticator:
    """Verifies tokens that the holders of *keys* have sealed.

    Args:
        rules: Of the issuer "fernet"; its `max_lifetime` is the `ttl`.
        keys: Which open a token.
        needs_session: Whether a token has to name its login session.
    """

    def __init__(
        self, rules: IssuerRules, keys: FernetKeys, *, needs_session: bool = False
    ) -> None:
        self._rules = rules
        self._keys = keys
        self._needs_session = needs_session

    def recognises(self, token: str) -> bool:
        """Tell by the version byte, which no other kind of token begins with."""
        return token.startswith("gAAAA") and "." not in token

    def authenticate(
        self,
        token: str,
        now: float,
        client: str = "",  # noqa: ARG002
    ) -> Steps[Principal | Denial]:
        """Verify *token* as of *now* (Unix seconds)."""
        yield from ()  # it needs nothing from outside
        return self._judge(token, now)

    def _judge(self, token: str, now: float) -> Principal | Denial:
        rules = self._rules
        if _raw(token) is None:
            return Denial(Reason.TOKEN_MALFORMED, "form")
        opened = self._keys.open(token)
        if opened is None:
            return Denial(Reason.SIGNATURE_INVALID)
        sealed_at = opened.sealed_at
        if sealed_at > now + rules.leeway:
            return Denial(Reason.TOKEN_NOT_YET_VALID, "iat")
        ends_at = sealed_at + rules.max_lifetime
        if now >= ends_at + rules.leeway:
            return Denial(Reason.TOKEN_EXPIRED)
        said = loads(opened.plaintext)
        if said is None:
            return Denial(Reason.TOKEN_MALFORMED, "payload")
        claims = {"iss": rules.issuer, "aud": sorted(rules.audience), **said}
        # An `iat` of the wrong type is still refused; a right one counts for nothing.
        if type(said.get("iat", 0)) in (int, float):
            claims["iat"] = sealed_at
        expires_at = said.get("exp")
        if isinstance(expires_at, int | float) and not isinstance(expires_at, bool):
            claims["exp"] = min(expires_at, ends_at)
        # Not of its text: sealed anew with another key and IV, it is the same token
        # (R50).
        content = sealed_at.to_bytes(8, "big") + opened.plaintext
        principal = principal_from(claims, rules, now, name_of_content(content))
        if isinstance(principal, Denial):
            return principal
        if self._needs_session and principal.session_id is None:
            return Denial(Reason.CLAIM_INVALID, "sid")
        return unless_expired(principal, now)


def read_key(text: str) -> str:
    """Return the Fernet key in *text*.

    Raises:
        KeyRefused: It is none, or one that everybody knows.
    """
    try:
        raw = base64.urlsafe_b64decode(text)
        canonical = base64.urlsafe_b64encode(raw).decode("ascii") == text
    except ValueError:
        raw, canonical = b"", False
    if not canonical or len(raw) != KEY_BYTES:
        raise KeyRefused("a Fernet key is 32 bytes in base64url, 44 characters")
    if text in _EXAMPLES or is_guessable(raw):
        raise KeyRefused("a key that anybody could guess")
    return text


def key_from_password(password: str, salt: bytes, iterations: int) -> str:
    """Return the Fernet key that PBKDF2-HMAC-SHA256 makes of *password*.

    Raises:
        KeyRefused: It could be found by guessing.
    """
    secret = password.encode("utf-8", "surrogateescape")
    if len(password) < MIN_PASSWORD or is_guessable(secret):
        raise KeyRefused(
            f"a password of {MIN_PASSWORD} characters or more that nobody guesses"
        )
    if len(salt) < MIN_SALT:
        raise KeyRefused(f"a salt of {MIN_SALT} bytes or more")
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise KeyRefused(
            f"{MIN_ITERATIONS} to {MAX_ITERATIONS} iterations of PBKDF2-HMAC-SHA256"
        )
    kdf = PBKDF2HMAC(SHA256(), KEY_BYTES, salt, iterations)
    return base64.urlsafe_b64encode(kdf.derive(secret)).decode("ascii")


def _raw(token: str) -> bytes | None:
    """Return the bytes that *token* spells, if it spells a Fernet token as one does."""
    if len(token) > MAX_CHARACTERS or len(token) % 4 or not _FORM.fullmatch(token):
        return None
    raw = base64.urlsafe_b64decode(token)
    if base64.urlsafe_b64encode(raw).decode("ascii") != token:
        return None
    if len(raw) < _LEAST or (len(raw) - _AROUND) % _BLOCK:
        return None
    return raw

"""What a token is by its form, and what it says of itself before anybody believes it.

For people who ask why a token is refused; nothing is decided by it. The token is never
said back: of its content only what names the issuer, the subject and the times.

Imports: gateway.tokens.api_key, gateway.tokens.compact, gateway.tokens.fernet,
gateway.tokens.strict_json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.tokens.api_key import is_shaped
from gateway.tokens.compact import split, split_encrypted
from gateway.tokens.fernet import said_time
from gateway.tokens.strict_json import loads

MAX_SHOWN = 120  # characters of one value

_HEADER = ("alg", "enc", "typ", "cty", "kid")
_CLAIMS = ("iss", "sub", "aud", "client_id", "azp")
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_DATES = {"iat": "issued", "nbf": "valid from", "exp": "expires"}


@dataclass(frozen=True, slots=True)
class Description:
    """A token by its looks."""

    form: str  # "JWT", "encrypted JWT", "Fernet token", "API key", "opaque token"
    header: tuple[str, ...] = ()  # `alg ES256`, as far as it can be read
    claims: tuple[str, ...] = ()  # likewise; nobody has verified them
    times: Mapping[str, float] | None = None  # Unix seconds, of iat, nbf and exp


def describe(token: str, now: float) -> Description:
    """Describe *token* as of *now* (Unix seconds)."""
    dots = token.count(".")
    if dots == 2:  # noqa: PLR2004  (RFC 7515 section 7.1)
        return _signed(token, now)
    if dots == 4:  # noqa: PLR2004  (RFC 7516 section 7.1)
        encrypted = split_encrypted(token)
        header = () if encrypted is None else tuple(_said(encrypted.header, _HEADER))
        return Description("encrypted JWT", header)
    at = said_time(token)
    if at is not None:
        times = {"iat": float(at)}
        return Description("Fernet token", (), tuple(_dates(times, now)), times)
    return Description("API key" if is_shaped(token) else "opaque token")


def since(seconds: float) -> str:
    """Say how long ago something was, or in how long it will be."""
    large = [each for each in _UNITS if abs(seconds) >= 2 * each[0]]
    size, unit = large[0] if large else (1, "s")
    count = f"{abs(seconds) / size:.0f} {unit}"
    return f"{count} ago" if seconds > -0.5 else f"in {count}"  # noqa: PLR2004


def _signed(token: str, now: float) -> Description:
    parts = split(token)
    if parts is None:
        return Description("JWT")
    header = tuple(_said(parts.header, _HEADER))
    claims = loads(parts.payload)
    if claims is None:
        return Description("JWT", header)
    times = {
        name: float(claims[name])
        for name in _DATES
        if isinstance(claims.get(name), int | float) and abs(claims[name]) < 2**53
    }
    said = (*_said(claims, _CLAIMS), *_dates(times, now))
    return Description("JWT", header, said, times)


def _said(fields: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if name in fields:
            text = json.dumps(fields[name])
            if len(text) > MAX_SHOWN:
                text = f"{text[:MAX_SHOWN]}..."
            yield f"{name} {text}"


def _dates(times: Mapping[str, float], now: float) -> Iterator[str]:
    for name, word in _DATES.items():
        if name in times:
            yield f"{word} {since(now - times[name])}"

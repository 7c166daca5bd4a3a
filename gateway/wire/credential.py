"""Finding the credential in a request head (RFC 6750 section 2, R8).

Only what a route accepts counts. Two of a kind are refused rather than ranked, since
the upstream might have picked the other one; and a token in the query is refused
because it is then in every log on the way (RFC 6750 section 2.3). Nothing is verified
here: to find a token and to believe it are two things.

Imports: gateway.model.
"""

from __future__ import annotations

import re

from gateway.model import Credential, Denial, Headers, HeaderSection, Reason

# b64token, RFC 6750 section 2.1, without the `=` it may end in. Deleting what is
# allowed costs a third of matching it.
_B64TOKEN = b"-._~+/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_SINGLE = frozenset({b"authorization", b"dpop", b"x-api-key"})


def _spellings(name: str) -> str:
    """Return a pattern for *name* in lower case, with any of its letters encoded."""
    return "".join(
        f"(?:{letter}|%{ord(letter):02x}|%{ord(letter.upper()):02x})" for letter in name
    )


# The parameter `access_token`, to any reader: PHP takes `access.token`,
# ` access token` and `access_token[]` for it too.
_IN_QUERY = re.compile(
    (
        r"[&;](?:\+|%20)*"
        + _spellings("access")
        + r"(?:[_.+]|%5f|%2e|%20)"
        + _spellings("token")
        + r"(?:[=&;\[]|%5b|%00|\Z)"
    ).encode("ascii")
)


def extract(
    section: HeaderSection,
    query: bytes | None,
    kinds: frozenset[str],
    max_token: int,
) -> Credential | Denial:
    """Return the one credential that counts.

    Args:
        section: The header fields; it remembers what is found in them.
        query: The raw query.
        kinds: The kinds of credential that the route accepts.
        max_token: bytes; a longer one is refused unread.
    """
    if query is not None:
        lower = query.lower()
        # Spelt out or encoded; everything else can't name it.
        if (b"access" in lower or b"%" in lower) and _IN_QUERY.search(b"&" + lower):
            return Denial(Reason.CREDENTIAL_IN_QUERY)

    known = section.credential
    if known is not None and known[0] == kinds:
        return known[1]
    found = _presented(section.headers, kinds, max_token)
    section.credential = (kinds, found)
    return found


def _presented(
    headers: Headers, kinds: frozenset[str], max_token: int
) -> Credential | Denial:
    single: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SINGLE:
            if name in single:
                return Denial(Reason.CREDENTIAL_AMBIGUOUS, "one field twice")
            single[name] = value
    authorization = single.get(b"authorization")
    if authorization is None or "bearer" not in kinds:
        return Denial(Reason.CREDENTIAL_MISSING)

    scheme, _, token = authorization.partition(b" ")
    if scheme != b"Bearer" and scheme.lower() != b"bearer":
        if not scheme:
            return Denial(Reason.CREDENTIAL_MALFORMED, "no scheme")
        return Denial(Reason.CREDENTIAL_MISSING, "another scheme")
    token = token.lstrip(b" ")  # credentials = auth-scheme 1*SP token68
    if len(token) > max_token:
        return Denial(Reason.CREDENTIAL_MALFORMED, "too long")
    padding = token.translate(None, _B64TOKEN)
    if token == padding or padding.strip(b"=") or not token.endswith(padding):
        return Denial(Reason.CREDENTIAL_MALFORMED, "not a b64token")
    return Credential("bearer", token.decode("ascii"))

"""Finding the credential in a request head (RFC 6750 section 2, RFC 9449, R8).

Only what a route accepts counts. Two of a kind are refused rather than ranked, since
the upstream might have picked the other one; and a token in the query is refused
because it is then in every log on the way (RFC 6750 section 2.3). A ticket is worth
nothing there once it was used, and is taken out of the query that goes on. An API key
has a field of its own; as a bearer token it is told by its prefix. Nothing is verified
here: to find a token and to believe it are two things.

Imports: gateway.model, gateway.wire.websocket.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.model import (
    Credential,
    CredentialKind,
    Denial,
    Headers,
    HeaderSection,
    Reason,
    RequestHead,
)
from gateway.wire.websocket import tokens_in

# b64token, RFC 6750 section 2.1, without the `=` it may end in. Deleting what is
# allowed costs a third of matching it.
_B64TOKEN = b"-._~+/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_SINGLE = frozenset({b"authorization", b"dpop", b"x-api-key"})
_BEARERS = frozenset({"bearer", "api_key"})  # kinds that come as `Bearer`


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

# The parameter `ticket` to any reader, and as the one that counts is spelt: once, by
# this name, with a value of this shape (R13).
_TICKET_NAMED = re.compile(
    (r"[&;](?:\+|%20)*" + _spellings("ticket") + r"(?:[=&;\[]|%5b|%00|\Z)").encode()
)
_TICKET = re.compile(rb"(?:\A|&)ticket=([^&]*)")
_TICKET_VALUE = re.compile(rb"[A-Za-z0-9_-]{43}")  # of gateway.tokens.tickets


class KeyPlace(NamedTuple):
    """Where API keys stand."""

    header: bytes  # lower-case
    prefix: bytes  # with which a bearer token is one
    in_query: re.Pattern[bytes]  # one in a query, in lower case

    @classmethod
    def of(cls, header: str, prefix: str) -> KeyPlace:
        """Return the place of keys that begin with *prefix* and `_`."""
        # An underscore may be encoded. Who encodes letters hides nothing but his own.
        pattern = rf"{prefix}(?:_|%5f)[0-9a-z]{{12}}(?:_|%5f)[0-9a-z]{{49}}"
        return cls(
            header.lower().encode(), f"{prefix}_".encode(), re.compile(pattern.encode())
        )


def extract(
    section: HeaderSection,
    query: bytes | None,
    kinds: frozenset[str],
    max_token: int,
    websocket: bool = False,
    keys: KeyPlace | None = None,
) -> Credential | Denial:
    """Return the one credential that counts.

    Args:
        section: The header fields; it remembers what is found in them.
        query: The raw query.
        kinds: The kinds of credential that the route accepts.
        max_token: bytes; a longer one is refused unread.
        websocket: Whether it may stand among the subprotocols too.
        keys: Where API keys stand; None: there are none.
    """
    if query is not None:
        lower = query.lower()
        # Spelt out or encoded; everything else can't name it.
        if (b"access" in lower or b"%" in lower) and _IN_QUERY.search(b"&" + lower):
            return Denial(Reason.CREDENTIAL_IN_QUERY)
        if keys is not None and "api_key" in kinds and keys.in_query.search(lower):
            return Denial(Reason.CREDENTIAL_IN_QUERY, "api_key")
        if "ticket" in kinds:
            named = len(_TICKET_NAMED.findall(b"&" + lower))
            if named:
                look = _offered if websocket else _presented
                other = look(section.headers, kinds, max_token, keys)
                return _ticket(query, named, other)

    if websocket:
        return _offered(section.headers, kinds, max_token, keys)
    known = section.credential
    if known is not None and known[0] == kinds:
        return known[1]
    found = _presented(section.headers, kinds, max_token, keys)
    section.credential = (kinds, found)
    return found


def without_ticket(head: RequestHead) -> RequestHead:
    """Return *head* as its ticket is no part of it: all that follows reads this one."""
    pieces = (head.query or b"").split(b"&")
    rest = b"&".join(piece for piece in pieces if not piece.startswith(b"ticket="))
    query = rest or None
    target = head.path if query is None else b"%b?%b" % (head.path, query)
    return head._replace(target=target, query=query)


def _ticket(
    query: bytes, named: int, other: Credential | Denial
) -> Credential | Denial:
    """Return the ticket in *query*, in which it is *named* so many times.

    Args:
        query: The raw query.
        named: How often it stands there to some reader.
        other: What was found in the header fields.
    """
    spelt = _TICKET.findall(query)
    if named != 1 or len(spelt) != 1:
        return Denial(Reason.CREDENTIAL_AMBIGUOUS, "ticket")
    if isinstance(other, Credential):
        return Denial(Reason.CREDENTIAL_AMBIGUOUS, "two kinds")
    if other.reason is not Reason.CREDENTIAL_MISSING:
        return other
    if not _TICKET_VALUE.fullmatch(spelt[0]):
        return Denial(Reason.TICKET_INVALID)
    return Credential("ticket", spelt[0].decode("ascii"))


def _presented(
    headers: Headers, kinds: frozenset[str], max_token: int, keys: KeyPlace | None
) -> Credential | Denial:
    single: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SINGLE or (keys is not None and name == keys.header):
            if name in single:
                return Denial(Reason.CREDENTIAL_AMBIGUOUS, "one field twice")
            single[name] = value
    found = _authorization(single, kinds, max_token, keys)
    if keys is None or "api_key" not in kinds or keys.header not in single:
        return found
    if isinstance(found, Credential) or found.reason is not Reason.CREDENTIAL_MISSING:
        return Denial(Reason.CREDENTIAL_AMBIGUOUS, "two credentials")
    key = _b64token(single[keys.header], max_token)
    return key if isinstance(key, Denial) else Credential("api_key", key)


def _authorization(
    single: dict[bytes, bytes],
    kinds: frozenset[str],
    max_token: int,
    keys: KeyPlace | None,
) -> Credential | Denial:
    authorization = single.get(b"authorization")
    if authorization is None or kinds.isdisjoint(_BEARERS):
        return Denial(Reason.CREDENTIAL_MISSING)

    scheme, _, token = authorization.partition(b" ")
    proof = None
    if scheme != b"Bearer" and (lower := scheme.lower()) != b"bearer":
        if not scheme:
            return Denial(Reason.CREDENTIAL_MALFORMED, "no scheme")
        if lower != b"dpop":
            return Denial(Reason.CREDENTIAL_MISSING, "another scheme")
        proof = single.get(b"dpop", b"")
    # credentials = auth-scheme 1*SP token68
    return _bearer(token.lstrip(b" "), kinds, max_token, keys, proof)


def _offered(
    headers: Headers, kinds: frozenset[str], max_token: int, keys: KeyPlace | None
) -> Credential | Denial:
    """Look among the subprotocols of a WebSocket's handshake too."""
    found = _presented(headers, kinds, max_token, keys)
    tokens = tokens_in(headers) if not kinds.isdisjoint(_BEARERS) else []
    if not tokens:
        return found
    is_only = isinstance(found, Denial) and found.reason is Reason.CREDENTIAL_MISSING
    if len(tokens) > 1 or not is_only:
        return Denial(Reason.CREDENTIAL_AMBIGUOUS, "two credentials")
    if tokens[0] is None:
        return Denial(Reason.CREDENTIAL_MALFORMED, "not base64url")
    return _bearer(tokens[0], kinds, max_token, keys)


def _bearer(
    received: bytes,
    kinds: frozenset[str],
    max_token: int,
    keys: KeyPlace | None,
    proof: bytes | None = None,
) -> Credential | Denial:
    token = _b64token(received, max_token)
    if isinstance(token, Denial):
        return token
    is_key = keys is not None and received.startswith(keys.prefix)
    kind: CredentialKind = "api_key" if is_key else "bearer"
    if kind not in kinds:
        return Denial(Reason.CREDENTIAL_MISSING, "another kind")
    return Credential(kind, token, proof)


def _b64token(token: bytes, max_token: int) -> str | Denial:
    if len(token) > max_token:
        return Denial(Reason.CREDENTIAL_MALFORMED, "too long")
    padding = token.translate(None, _B64TOKEN)
    if token == padding or padding.strip(b"=") or not token.endswith(padding):
        return Denial(Reason.CREDENTIAL_MALFORMED, "not a b64token")
    return token.decode("ascii")

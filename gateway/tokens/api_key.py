"""API keys: their form, the record that is kept of one, and whom it stands for (R52).

A key is `<prefix>_<id>_<secret><checksum>`: 256 random bits, and a checksum by which a
slip of the hand and a stranger's text are told without asking anybody. It is known by
its SHA-256, with a pepper by HMAC-SHA-256 of that, and nothing else of it is kept: who
reads a record can't use it, and with a pepper nobody else can write one (R53). Of one
key several secrets may live, while one of them is being replaced.

Imports: gateway.model, gateway.tokens.claims, gateway.tokens.fingerprints,
gateway.tokens.strict_json.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any, Final, Protocol
from zlib import crc32

from gateway.model import (
    API_KEYS,
    ApiKeyNeeded,
    Binding,
    Denial,
    Principal,
    Reason,
    Steps,
)
from gateway.tokens.claims import MAX_DATE, MAX_NAME, is_name
from gateway.tokens.fingerprints import fingerprints
from gateway.tokens.strict_json import loads

Network = IPv4Network | IPv6Network

DIGITS: Final = digits + ascii_uppercase + ascii_lowercase
ID_BYTES: Final = 9
SECRET_BYTES: Final = 32
# In digits: 62**12 is 71 bits, 62**43 is 256, 62**6 is 35 of which CRC-32 takes 32.
_ID, _SECRET, _CHECK = 12, 43, 6
PREFIX: Final = r"[a-z][a-z0-9]{1,15}"
REST: Final = rf"_[0-9A-Za-z]{{{_ID}}}_[0-9A-Za-z]{{{_SECRET + _CHECK}}}"
FORM: Final = PREFIX + REST
"""What a key looks like, for who searches files for secrets."""
_SHAPED = re.compile(FORM)

# An imported key is as good as whoever made it; these are too short to be any good.
LEAST_IMPORTED: Final = 20  # characters
MAX_KEY_ID: Final = 64  # characters; of ours, 12
_KEY_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_KEY_ID - 1}}}")
MAX_NOTE: Final = 255  # characters
MAX_LISTED: Final = 64  # roles, scopes or networks of one key
MAX_SECRETS: Final = 4  # of one key that live at once
DIGEST_BYTES: Final = 32

_VERSION: Final = b"1"
_AUDIENCE: Final = frozenset({API_KEYS})
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
_MAX_HELD: Final = 10_000  # principals; some 10 MB


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of a key."""

    digest: bytes = field(repr=False)
    created: float  # Unix seconds
    until: float | None = None  # Unix seconds; None: as long as the key


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key."""

    id: str
    owner: str  # the subject of whoever presents it
    secrets: tuple[Secret, ...]  # the newest last
    created: float  # Unix seconds
    expires: float  # Unix seconds
    roles: frozenset[str] = frozenset()
    scope: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()  # from where it counts; all, when empty
    not_before: float | None = None  # Unix seconds
    revoked: float | None = None  # Unix seconds
    note: str = field(default="", repr=False)


class KnownKeys(Protocol):
    """Who knows records."""

    def find(self, digest: bytes) -> ApiKey | None:
        """Return a record without waiting; None: somebody has to be asked."""
        ...

    def mark(self, key_id: str) -> None:
        """Note that a key is used now. Never waits."""
        ...


@dataclass(frozen=True, slots=True)
class KeyRules:
    """[api_keys], as far as it decides about keys."""

    prefix: str = "gw"
    pepper: bytes | None = field(default=None, repr=False)
    allow: frozenset[str] = frozenset()  # the only roles a key may have
    max_lifetime: float = 366 * 86_400.0  # seconds
    imported: bool = False  # whether keys of another form count


class ApiKeyAuthenticator:
    """Turns a key into a Principal.

    As long as a record is the same object, so is its Principal: what others keep of it
    stays good.

    Args:
        rules: Of [api_keys].
        declared: The records that stand in the configuration, by digest.
        known: Of the others.
    """

    def __init__(
        self, rules: KeyRules, declared: Mapping[bytes, ApiKey], known: KnownKeys
    ) -> None:
        self._rules = rules
        self._form = re.compile(re.escape(rules.prefix) + REST)
        self._declared = declared
        self._known = known
        # By digest; of what stands here, the form has been looked at.
        self._held: dict[bytes, tuple[ApiKey, Principal]] = {}

    def authenticate(self, token: str, now: float) -> Steps[Principal | Denial]:
        """Find out whose *token* is, as of *now* (Unix seconds)."""
        digest = digest_of(sha256(token.encode()).digest(), self._rules.pepper)
        held = self._held.get(digest)
        if held is None and (odd := self._odd(token)):
            return Denial(Reason.TOKEN_MALFORMED, odd)
        key = self._declared.get(digest) or self._known.find(digest)
        if key is None:
            key = yield ApiKeyNeeded(digest)
        if key is None:
            return Denial(Reason.KEY_UNKNOWN)

        if held is not None and held[0] is key:
            principal = held[1]
        else:
            secret = secret_of(key, digest)
            if secret is None:
                return Denial(Reason.KEY_UNKNOWN, "secret")
            principal = principal_of(key, secret, self._rules, now)
            if len(self._held) >= _MAX_HELD:
                self._held.clear()
            self._held[digest] = (key, principal)
        if key.revoked is not None:
            return Denial(Reason.TOKEN_REVOKED)
        # How long a revocation must be kept hangs on it.
        if not key.expires <= now + self._rules.max_lifetime:
            return Denial(Reason.LIFETIME_TOO_LONG)
        if not now < principal.expires_at:
            return Denial(Reason.TOKEN_EXPIRED)
        self._known.mark(key.id)
        return principal

    def _odd(self, token: str) -> str:
        """Say what is wrong with the form of *token*; "" if nothing is."""
        if self._form.fullmatch(token) is not None:
            return "" if has_checksum(token) else "checksum"
        return "" if self._rules.imported and len(token) >= LEAST_IMPORTED else "form"


def key_id_of(random: bytes) -> str:
    """Return the id made of ID_BYTES *random* ones."""
    return _base62(int.from_bytes(random) % len(DIGITS) ** _ID, _ID)


def key_of(prefix: str, key_id: str, random: bytes) -> str:
    """Return the key of *key_id* whose secret are SECRET_BYTES *random* bytes."""
    key = f"{prefix}_{key_id}_{_base62(int.from_bytes(random), _SECRET)}"
    return key + _checksum(key)


def is_shaped(text: str) -> bool:
    """Tell whether *text* looks like a key of some prefix, whole or not."""
    return _SHAPED.fullmatch(text) is not None


def has_checksum(key: str) -> bool:
    """Tell whether *key*, which has the form of one, was written as it was made."""
    return _checksum(key[:-_CHECK]) == key[-_CHECK:]


def is_key_id(text: str) -> bool:
    """Tell whether a key may be called *text*."""
    return _KEY_ID.fullmatch(text) is not None


def is_scope(text: str) -> bool:
    """Tell whether *text* is one scope (RFC 6749 section 3.3)."""
    return len(text) <= MAX_NAME and _SCOPE.fullmatch(text) is not None


def digest_of(plain: bytes, pepper: bytes | None) -> bytes:
    """Return what a key is known by, whose SHA-256 is *plain*.

    Of the digest and not of the key, so that a key of which somebody else has kept its
    SHA-256 alone can be peppered too.
    """
    return plain if pepper is None else hmac.digest(pepper, plain, "sha256")


def secret_of(key: ApiKey, digest: bytes) -> Secret | None:
    """Return the secret of *key* that has this *digest*."""
    found = None
    for secret in key.secrets:
        if hmac.compare_digest(secret.digest, digest):
            found = secret
    return found


def token_id_of(digest: bytes) -> str:
    """Return by which name a secret is revoked, and known in the log (R50)."""
    # Once more, so that a log and a store can't be laid side by side.
    named = sha256(b"gateway api key id\0" + digest).digest()
    return "sha256:" + urlsafe_b64encode(named).decode().rstrip("=")


def principal_of(key: ApiKey, secret: Secret, rules: KeyRules, now: float) -> Principal:
    """Return whom *secret* of *key* stands for, as of *now* (Unix seconds)."""
    token_id = token_id_of(secret.digest)
    until = key.expires if secret.until is None else min(key.expires, secret.until)
    return Principal(
        kind="api_key",
        issuer=API_KEYS,
        subject=key.owner,
        client_id=key.id,
        token_id=token_id,
        # The clock of whoever made it may be ahead of ours.
        issued_at=min(secret.created, now),
        not_before=key.not_before,
        expires_at=until,
        audience=_AUDIENCE,
        roles=key.roles & rules.allow,
        scope=key.scope,
        binding=Binding(networks=key.networks) if key.networks else None,
        fingerprints=fingerprints(
            API_KEYS,
            token_id=token_id,
            session_id=None,
            subject=key.owner,
            client_id=key.id,
        ),
    )


def rotated(
    key: ApiKey, digest: bytes, *, now: float, overlap: float, expires: float
) -> ApiKey:
    """Return *key* with a new secret, and until *expires* (Unix seconds).

    The others live for *overlap* seconds more, and no longer than they would have; of
    more than there may be, the oldest end at once.
    """
    until = min(now + overlap, key.expires)
    older = [
        secret if _ends(secret) <= until else replace(secret, until=until)
        for secret in key.secrets
        if _ends(secret) > now
    ]
    kept = older[-(MAX_SECRETS - 1) :]
    return replace(key, secrets=(*kept, Secret(digest, now)), expires=expires)


def _ends(secret: Secret) -> float:
    return math.inf if secret.until is None else secret.until


# The record, as a store keeps it: a version, what vouches for it, and JSON.


def written(key: ApiKey, pepper: bytes | None) -> bytes:
    """Return what a store keeps of *key*."""
    said = {
        "id": key.id,
        "owner": key.owner,
        "secrets": [
            {"digest": each.digest.hex(), "created": each.created, "until": each.until}
            for each in key.secrets
        ],
        "created": key.created,
        "expires": key.expires,
        "roles": sorted(key.roles),
        "scope": sorted(key.scope),
        "networks": list(map(str, key.networks)),
        "not_before": key.not_before,
        "revoked": key.revoked,
        "note": key.note,
    }
    text = json.dumps(said, separators=(",", ":")).encode()
    return b" ".join((_VERSION, _seal(text, pepper), text))


def read(value: bytes, pepper: bytes | None) -> ApiKey | None:
    """Return the record in *value*, or None: what was tampered with is no record."""
    version, _, rest = value.partition(b" ")
    seal, _, text = rest.partition(b" ")
    if version != _VERSION or not hmac.compare_digest(seal, _seal(text, pepper)):
        return None
    said = loads(text)
    if said is None or said.keys() != _MEMBERS:
        return None
    try:
        return _understood(said)
    except _Wrong:
        return None


_MEMBERS: Final = frozenset(ApiKey.__dataclass_fields__)


class _Wrong(Exception):  # noqa: N818  (a record is; it never leaves this file)
    """A record is not what this version writes."""


def _understood(said: dict[str, Any]) -> ApiKey:
    key_id, owner, note = said["id"], said["owner"], said["note"]
    if not isinstance(key_id, str) or not is_key_id(key_id):
        raise _Wrong
    if not isinstance(owner, str) or not is_name(owner, MAX_NAME):
        raise _Wrong
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise _Wrong
    secrets = said["secrets"]
    if not isinstance(secrets, list) or not 0 < len(secrets) <= MAX_SECRETS:
        raise _Wrong
    return ApiKey(
        id=key_id,
        owner=owner,
        secrets=tuple(map(_secret, secrets)),
        created=_date(said["created"]),
        expires=_date(said["expires"]),
        roles=_texts(said["roles"]),
        scope=_texts(said["scope"]),
        networks=_networks(said["networks"]),
        not_before=_maybe(said["not_before"]),
        revoked=_maybe(said["revoked"]),
        note=note,
    )


def _secret(said: object) -> Secret:
    if not isinstance(said, dict) or said.keys() != {"digest", "created", "until"}:
        raise _Wrong
    return Secret(
        digest_in(said["digest"]) or _wrong(),
        _date(said["created"]),
        _maybe(said["until"]),
    )


def digest_in(text: object) -> bytes | None:
    """Return the SHA-256 whose 64 hexadecimal digits *text* is, if it is that."""
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        return None
    return bytes.fromhex(text)


_HEX = re.compile(rf"[0-9a-fA-F]{{{2 * DIGEST_BYTES}}}")


def _wrong() -> bytes:
    raise _Wrong


def _date(said: object) -> float:
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise _Wrong
    if not 0 <= said <= MAX_DATE:
        raise _Wrong
    return float(said)


def _maybe(said: object) -> float | None:
    return None if said is None else _date(said)


def _texts(said: object) -> frozenset[str]:
    if not isinstance(said, list) or len(said) > MAX_LISTED:
        raise _Wrong
    for each in said:
        if not isinstance(each, str) or not is_name(each, MAX_NAME):
            raise _Wrong
    return frozenset(said)


def _networks(said: object) -> tuple[Network, ...]:
    if not isinstance(said, list) or len(said) > MAX_LISTED:
        raise _Wrong
    try:
        # Not of a number: `ip_network` takes one for an address.
        return tuple(ip_network(each if isinstance(each, str) else "") for each in said)
    except ValueError:
        raise _Wrong from None


def _seal(text: bytes, pepper: bytes | None) -> bytes:
    """Return what only who has the pepper can write before *text*."""
    if pepper is None:
        return b"-"
    return hmac.digest(_sealing(pepper), text, "sha256").hex().encode()


@lru_cache(maxsize=4)
def _sealing(pepper: bytes) -> bytes:
    return hmac.digest(pepper, b"gateway api key record", "sha256")


def _base62(number: int, length: int) -> str:
    text = ""
    for _ in range(length):
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text


def _checksum(text: str) -> str:
    return _base62(crc32(text.encode()), _CHECK)

"""The desk for API keys: what an operator orders, carried out on records.

Whoever changes a record says what it was before, so that two operators at once can't
undo each other. A revocation is written into the revocation list first, where it counts
with the next request, and then into the record (R62). What is said here of a key never
holds a secret, but once: in the answer to the order that made it.

Imports: gateway.adapters, gateway.asgi, gateway.clock, gateway.config, gateway.model,
gateway.revocation, gateway.tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from gateway.adapters.api_keys import ApiKeys, Conflict
from gateway.asgi.api_keys import KeyOrder, KeyRefused, Told
from gateway.asgi.revocations import WAIT
from gateway.clock import Clock
from gateway.config import settings, syntax
from gateway.model import API_KEYS, Unavailable
from gateway.revocation.entries import Revocation, entry_for
from gateway.revocation.feed import Position
from gateway.revocation.lists import RevocationList
from gateway.tokens.api_key import (
    ID_BYTES,
    MAX_LISTED,
    MAX_NOTE,
    SECRET_BYTES,
    ApiKey,
    KeyRules,
    Network,
    Secret,
    digest_in,
    digest_of,
    is_key_id,
    is_scope,
    key_id_of,
    key_of,
    read,
    rotated,
    token_id_of,
    written,
)
from gateway.tokens.claims import MAX_DATE, MAX_NAME, is_name

_LOG = logging.getLogger("gateway")

KEPT = 30 * 86_400.0  # seconds after its end in which a key is still listed
MAX_OVERLAP = 90 * 86_400.0  # seconds
_SHOWN = 8  # hexadecimal digits of a digest: enough to tell secrets of a key apart


class KeyDesk:
    """Carries orders out.

    Args:
        said: [api_keys].
        rules: Of the same, as tokens are judged by.
        store: Keeps the records.
        declared: The keys that stand in the configuration, by digest.
        revocations: Ends a key at once.
        clock: Says when.
        random: As many unpredictable bytes as asked for.
    """

    def __init__(
        self,
        said: settings.ApiKeys,
        rules: KeyRules,
        store: ApiKeys,
        declared: Mapping[bytes, ApiKey],
        revocations: RevocationList,
        clock: Clock,
        random: Callable[[int], bytes],
    ) -> None:
        self._said = said
        self._rules = rules
        self._store = store
        self._declared = {key.id: key for key in declared.values()}
        self._revocations = revocations
        self._clock = clock
        self._random = random

    async def carry_out(self, order: KeyOrder) -> Told:
        """Do what *order* says; return what there is to say about it.

        Raises:
            KeyRefused: It can't be done.
            Unavailable: The store has not acknowledged it.
        """
        match order.verb:
            case "create":
                return await self._create(order)
            case "list":
                return await self._list()
            case "show":
                return await self._show(order)
            case "rotate":
                return await self._rotate(order)
            case "revoke":
                return await self._revoke(order)

    async def _create(self, order: KeyOrder) -> Told:
        now = self._clock.wall()
        key_id = order.id or key_id_of(self._random(ID_BYTES))
        if not is_key_id(key_id):
            raise KeyRefused(400, "id: letters, digits, `_`, `.`, `-`; at most 64")
        if key_id in self._declared:
            raise KeyRefused(409, "a key with this id stands in the configuration")
        text, plain = None, digest_in(order.sha256)
        if not order.sha256:
            text = self._new_text(key_id)
            plain = sha256(text.encode()).digest()
        if plain is None:
            raise KeyRefused(400, "sha256: 64 hexadecimal digits")
        key = ApiKey(
            id=key_id,
            owner=self._owner(order.owner),
            secrets=(Secret(digest_of(plain, self._rules.pepper), now),),
            created=now,
            expires=now + self._lifetime(order.lifetime),
            roles=self._roles(order.roles),
            scope=_scope(order.scopes),
            networks=_networks(order.networks),
            not_before=_moment(order.not_before),
            note=_note(order.note),
        )
        if read(written(key, None), None) != key:
            raise KeyRefused(400, f"at most {MAX_LISTED} roles, printable and in NFC")
        try:
            await self._store.put(key, None)
        except Conflict:
            raise KeyRefused(409, "there is a key with this id or digest") from None
        how = "imported" if text is None else "created"
        _LOG.warning("API key %s: id=%s owner=%s", how, key.id, key.owner)
        told = self._told(key, now, {})
        return told if text is None else {"key": text, **told}

    async def _list(self) -> Told:
        now = self._clock.wall()
        used = await self._store.used()
        kept = []
        for key in await self._store.all():
            if key.expires + KEPT < now:
                await self._store.drop(key)
            else:
                kept.append(key)
        every = sorted([*kept, *self._declared.values()], key=lambda key: key.id)
        return {"keys": [self._told(key, now, used) for key in every]}

    async def _show(self, order: KeyOrder) -> Told:
        key = self._declared.get(order.id) or await self._get(order.id)
        return self._told(key, self._clock.wall(), await self._store.used())

    async def _rotate(self, order: KeyOrder) -> Told:
        now = self._clock.wall()
        if order.id in self._declared:
            raise KeyRefused(409, "it stands in the configuration: change it there")
        if not 0 <= order.overlap <= MAX_OVERLAP:
            raise KeyRefused(400, f"overlap: 0 to {MAX_OVERLAP:.0f} seconds")
        lifetime = self._lifetime(order.lifetime)
        key = await self._get(order.id)
        if key.revoked is not None or key.expires <= now:
            raise KeyRefused(409, "this key has ended: make another one")
        text = self._new_text(key.id)
        digest = digest_of(sha256(text.encode()).digest(), self._rules.pepper)
        new = rotated(
            key, digest, now=now, overlap=order.overlap, expires=now + lifetime
        )
        await self._put(new, key)
        if order.overlap == 0:
            await self._wait_for(await self._write(self._entries(key, now)))
        _LOG.warning("API key rotated: id=%s overlap=%g s", key.id, order.overlap)
        return {"key": text, **self._told(new, now, {})}

    async def entries(self, key_id: str) -> list[Revocation]:
        """Return what ends the key *key_id* when it is in the revocation list.

        Raises:
            KeyRefused: There is no such key.
            Unavailable: The store does not say.
        """
        key = self._declared.get(key_id) or await self._get(key_id)
        return self._entries(key, self._clock.wall())

    async def owned_by(self, owner: str) -> int:
        """Return how many keys of *owner* count now.

        Raises:
            Unavailable: The store does not say.
        """
        now = self._clock.wall()
        every = [*await self._store.all(), *self._declared.values()]
        return sum(k.owner == owner and _state(k, now) == "active" for k in every)

    async def revoke(self, key_id: str, reason: str) -> tuple[Told, Position]:
        """End the key *key_id*; return what to say of it, and where that is listed.

        Raises:
            KeyRefused: There is no such key, or somebody else has just changed it.
            Unavailable: The store has not acknowledged it.
        """
        now = self._clock.wall()
        key = self._declared.get(key_id) or await self._get(key_id)
        position = await self._write(self._entries(key, now))
        if key_id not in self._declared and key.revoked is None:
            key, before = replace(key, revoked=now), key
            try:
                await self._put(key, before)
            except KeyRefused:
                # Two orders of the same are one. Whoever has given it a new secret
                # meanwhile is told so.
                if (await self._get(key_id)).revoked is None:
                    raise
        _LOG.warning("API key revoked: id=%s reason=%s", key.id, reason or "-")
        return self._told(key, now, {}) | {"state": "revoked"}, position

    async def _revoke(self, order: KeyOrder) -> Told:
        told, position = await self.revoke(order.id, order.reason)
        await self._wait_for(position)
        return told

    def _entries(self, key: ApiKey, now: float) -> list[Revocation]:
        return [
            entry_for(
                "token",
                API_KEYS,
                token_id_of(secret.digest),
                now=now,
                max_lifetime=self._rules.max_lifetime,
                leeway=0.0,
                expires_at=key.expires,
            )
            for secret in key.secrets
        ]

    async def _write(self, entries: Sequence[Revocation]) -> Position:
        # One after another: the last is as far as any.
        return [await self._revocations.revoke(entry) for entry in entries][-1]

    async def _wait_for(self, position: Position) -> None:
        """Wait until what was written is in force, as long as an order may take."""
        with suppress(Unavailable):  # it is revoked all the same
            await self._revocations.effect(position, WAIT)

    async def _get(self, key_id: str) -> ApiKey:
        key = await self._store.get(key_id)
        if key is None:
            raise KeyRefused(404, "there is no key with this id")
        return key

    async def _put(self, key: ApiKey, old: ApiKey) -> None:
        try:
            await self._store.put(key, old)
        except Conflict:
            raise KeyRefused(409, "somebody has just changed it: try again") from None

    def _new_text(self, key_id: str) -> str:
        # One that was imported may have an id that is no part of a key.
        fits = len(key_id) == len(key_id_of(bytes(ID_BYTES))) and key_id.isalnum()
        named = key_id if fits else key_id_of(self._random(ID_BYTES))
        return key_of(self._rules.prefix, named, self._random(SECRET_BYTES))

    def _owner(self, owner: str) -> str:
        if not is_name(owner, MAX_NAME):
            raise KeyRefused(400, "owner: 1 to 255 printable characters, in NFC")
        return owner

    def _lifetime(self, seconds: float | None) -> float:
        if seconds is None:
            return self._said.lifetime
        if not 0 < seconds <= self._said.max_lifetime:
            most = self._said.max_lifetime
            raise KeyRefused(400, f"lifetime: at most {most:.0f} seconds, and not none")
        return seconds

    def _roles(self, roles: tuple[str, ...]) -> frozenset[str]:
        if unknown := set(roles) - self._rules.allow:
            allowed = ", ".join(sorted(self._rules.allow)) or "none"
            raise KeyRefused(
                400, f"roles: {min(unknown)} is not in [api_keys] allow: {allowed}"
            )
        return frozenset(roles)

    def _told(self, key: ApiKey, now: float, used: Mapping[str, float]) -> Told:
        is_declared = key.id in self._declared
        return {
            "id": key.id,
            "owner": key.owner,
            "state": _state(key, now),
            "declared": is_declared,
            "roles": sorted(key.roles),
            "scopes": sorted(key.scope),
            "networks": list(map(str, key.networks)),
            "created": None if is_declared else key.created,
            "expires": key.expires,
            "not_before": key.not_before,
            "last_used": used.get(key.id),
            "note": key.note,
            "secrets": [
                {
                    "digest": secret.digest.hex()[:_SHOWN] + "...",
                    "until": secret.until,
                }
                for secret in key.secrets
                if secret.until is None or secret.until > now
            ],
        }


def _state(key: ApiKey, now: float) -> str:
    if key.revoked is not None:
        return "revoked"
    if key.expires <= now:
        return "expired"
    return "early" if key.not_before is not None and now < key.not_before else "active"


def _scope(scopes: tuple[str, ...]) -> frozenset[str]:
    if len(scopes) > MAX_LISTED or not all(map(is_scope, scopes)):
        raise KeyRefused(400, "scopes: printable ASCII without spaces (RFC 6749)")
    return frozenset(scopes)


def _networks(said: tuple[str, ...]) -> tuple[Network, ...]:
    if len(said) > MAX_LISTED:
        raise KeyRefused(400, f"networks: at most {MAX_LISTED}")
    try:
        return tuple(map(syntax.network, said))
    except ValueError as error:
        raise KeyRefused(400, f"networks: {error}") from None


def _moment(said: float | None) -> float | None:
    if said is not None and not 0 <= said <= MAX_DATE:
        raise KeyRefused(400, "not_before: Unix seconds")
    return said


def _note(note: str) -> str:
    if len(note) > MAX_NOTE:
        raise KeyRefused(400, f"note: at most {MAX_NOTE} characters")
    return note

"""Our own keys, read once for each configuration, and who signs with them for whom.

Imports: gateway.config.settings, gateway.identity, gateway.tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.config.settings import Identity, Settings
from gateway.identity.keys import KeyRing, key_set_document, signing_key_from_pem
from gateway.identity.signer import Signer
from gateway.tokens.key_status import KeySetStatus, KeyStatus


class Signers:
    """All identities of one configuration.

    Raises:
        ValueError: A key can't be used; says which file.
    """

    def __init__(self, settings: Settings) -> None:
        own = [each.identity for each in settings.upstreams.values() if each.identity]
        identities = own + ([settings.identity] if settings.identity else [])
        read = {each.keys: _ring(each) for each in identities}
        rings = {keys: ring for keys, (ring, _) in read.items()}
        self.key_set = _published(list(rings.values()))  # a JWK Set document
        self.status = tuple(
            _status(issuer, keys, *read[keys])
            for issuer, keys in dict.fromkeys(
                (each.issuer, each.keys) for each in identities
            )
        )
        self.headers = frozenset(name for each in identities for name in each.headers)
        urls = {each.name: each.issuer for each in settings.issuers.values()}
        # One for each identity: upstreams that share it share what is remembered.
        signers = {
            id(identity): Signer(
                rings[identity.keys],
                issuer=identity.issuer,
                issuers=urls,
                random=secrets.token_bytes,
                ttl=identity.ttl,
                claims=identity.claims,
                headers=identity.headers,
            )
            for identity in identities
        }
        chosen = {
            upstream.name: upstream.identity or settings.identity
            for upstream in settings.upstreams.values()
        }
        self.by_upstream: Mapping[str, Signer] = {
            name: signers[id(each)] for name, each in chosen.items() if each
        }


def _ring(identity: Identity) -> tuple[KeyRing, Sequence[float]]:
    """Read the keys of *identity*, and when each was made; the newest file signs.

    Raises:
        ValueError: One of them is no such key; says which file, never what is in it.
    """
    kind, _, name = identity.keys.partition(":")
    path = Path(name)
    files = sorted(path.glob("*.pem"), reverse=True) if kind == "dir" else [path]
    if not files:
        raise ValueError(f"{path} holds no *.pem: see `gateway keys generate`")
    keys, made = [], []
    for file in files:
        try:
            pem = file.read_bytes()
            keys.append(signing_key_from_pem(pem, identity.algorithm))
            made.append(file.stat().st_mtime)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
    return KeyRing(tuple(keys)), made


def _status(
    issuer: str, source: str, ring: KeyRing, made: Sequence[float]
) -> KeySetStatus:
    return KeySetStatus(
        issuer,
        "directory" if source.startswith("dir:") else "file",
        tuple(
            KeyStatus(
                "current" if key is ring.signer else "previous",
                key.key_id,
                (key.algorithm,),
                key.key_id,
                at,
            )
            for key, at in zip(ring.keys, made, strict=True)
        ),
    )


def _published(rings: Sequence[KeyRing]) -> bytes:
    keys = {key.key_id: key for ring in rings for key in ring.keys}
    if not keys:
        return b'{"keys":[]}'
    return key_set_document(KeyRing(tuple(keys.values())))

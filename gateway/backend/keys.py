"""The gateway's public keys, as a service behind it holds them.

RFC 7517. The keys are given, or fetched when they are first needed: from a URL, or by
a function. What was fetched is used for five minutes, and for up to a day while no
newer set can be had. A key id that is not known is asked for at most once in 30 s, so
that made-up ones cost nothing.

Imports: cryptography, PyJWT.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

Document = Mapping[str, Any] | bytes | str
Source = Document | Callable[[], Document]

FRESH = 300.0  # seconds a fetched set is used without asking again
STALE = 24 * 3600.0  # seconds it is used while nobody answers
PAUSE = 30.0  # seconds between two fetches
FIRST_PAUSE = 1.0  # the same, while there is no key at all: the gateway may be starting
TIMEOUT = 2.0  # seconds for one fetch
MAX_BYTES = 1024 * 1024  # of a document; ours has some 200 for each key

_ALGORITHMS = get_default_algorithms()
_RSA_LEAST_BITS = 2_048  # RFC 7518 section 3.3


class KeysUnavailable(Exception):  # noqa: N818  (an outage is a state, not an error)
    """The gateway's keys can't be had. Says nothing about the caller."""

    def __init__(self) -> None:
        super().__init__("the gateway's keys can't be had")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the one algorithm it may be used with (RFC 8725 section 3.1)."""

    algorithm: str
    material: Any = field(repr=False)

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Say whether *signature* is this key's, over *signing_input*."""
        algorithm = _ALGORITHMS[self.algorithm]
        return algorithm.verify(signing_input, self.material, signature)


class KeySet:
    """The keys by key id. May be used by several threads."""

    def __init__(
        self, source: Source, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the keys, or remember where they are.

        Args:
            source: A JWK Set; or the URL of one (https, or http where the network
                between is trusted: a sidecar's loopback); or what returns one.
            monotonic: Seconds.

        Raises:
            ValueError: A document without a usable key, or no such URL.
        """
        self._monotonic = monotonic
        self._keys: Mapping[str, Key] = {}
        self._fetch = _fetcher(source)
        if self._fetch is None:
            assert not callable(source)
            self._keys = parse(source)
        self._lock = threading.Lock()  # held while somebody fetches
        self._fetched_at: float | None = None
        self._tried_at: float | None = None  # the end of the last attempt
        self._failed = False  # the last attempt
        self.version = 0  # changes with the keys

    def find(self, key_id: str) -> Key | None:
        """Return the key, or None: the gateway publishes no such key.

        Raises:
            KeysUnavailable: Nobody can say, because the keys can't be had.
        """
        keys = self._keys
        if self._fetch is not None:
            age = None if self._fetched_at is None else self._age(self._fetched_at)
            if age is None or age > STALE:
                raise KeysUnavailable
        key = keys.get(key_id)
        if key is None and self._failed:
            raise KeysUnavailable
        return key

    def wants(self, key_id: str) -> bool:
        """Say whether a `refresh`, which waits, is due before `find`."""
        if not self._due(key_id):
            return False
        # Old, but it will do: one of us goes, the others need not wait for him.
        return key_id not in self._keys or not self._lock.locked()

    def refresh(self, key_id: str) -> None:
        """Fetch the keys, or wait for whoever is at it. Keeps the old if that fails."""
        with self._lock:
            if self._fetch is not None and self._due(key_id):
                self._try(self._fetch)

    def _due(self, key_id: str) -> bool:
        """Say whether the keys should be fetched, given who asks for *key_id*."""
        if self._fetch is None:
            return False
        pause = FIRST_PAUSE if self._fetched_at is None else PAUSE
        if self._tried_at is not None and self._age(self._tried_at) < pause:
            return False
        if self._fetched_at is None or key_id not in self._keys:
            return True
        return self._age(self._fetched_at) > FRESH

    def _try(self, fetch: Callable[[], Document]) -> None:
        """Take what *fetch* returns."""
        try:
            keys = parse(fetch())
        except Exception:  # noqa: BLE001  (somebody's function may raise anything)
            self._failed = True
        else:
            self._failed = False
            changed = keys.keys() != self._keys.keys()
            self._keys = keys
            self.version += changed
            self._fetched_at = self._monotonic()
        # At the end: whoever comes meanwhile waits for this attempt.
        self._tried_at = self._monotonic()

    def _age(self, moment: float) -> float:
        """Return how many seconds ago *moment* was."""
        return self._monotonic() - moment


def parse(document: Document) -> dict[str, Key]:
    """Return the usable keys of a JWK Set; one bad key does not drop the others.

    Raises:
        ValueError: It is no JWK Set, two keys have one name, or none is usable.
    """
    if not isinstance(document, Mapping):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError):
            raise ValueError("the key set is not JSON") from None
    members = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(members, list):
        raise ValueError("there is no key set here (RFC 7517 section 5)")  # noqa: TRY004
    keys: dict[str, Key] = {}
    for member in members:
        key = _key(member)
        if key is None:
            continue
        if member["kid"] in keys:
            raise ValueError("two keys of the set have the same key id")
        keys[member["kid"]] = key
    if not keys:
        raise ValueError("the key set holds no key that can be used")
    return keys


def _key(jwk: object) -> Key | None:
    """Return the key that *jwk* describes, or None where it is none of ours."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
        return None
    algorithm = jwk.get("alg")
    if algorithm not in ("ES256", "EdDSA", "RS256") or jwk.get("use", "sig") != "sig":
        return None
    try:
        material = _ALGORITHMS[algorithm].from_jwk(jwk)
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if algorithm == "ES256":
        fits = isinstance(material, ec.EllipticCurvePublicKey) and isinstance(
            material.curve, ec.SECP256R1
        )
    elif algorithm == "EdDSA":
        fits = isinstance(material, ed25519.Ed25519PublicKey)
    else:
        fits = isinstance(material, rsa.RSAPublicKey) and (
            material.key_size >= _RSA_LEAST_BITS
        )
    return Key(algorithm, material) if fits else None


def _fetcher(source: Source) -> Callable[[], Document] | None:
    """Return what fetches the keys; None where *source* is the keys."""
    if callable(source):
        return source
    if isinstance(source, str) and not source.lstrip().startswith("{"):
        if not source.startswith(("https://", "http://")):
            raise ValueError("keys are a JWK Set, a function, or an http(s) URL")
        url = source
        return lambda: _download(url)
    return None


def _download(url: str) -> bytes:
    """Return the document at *url*: no redirect, no proxy from the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),  # a redirect is an error as well
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    ends = time.monotonic() + TIMEOUT
    parts: list[bytes] = []
    size = 0
    with opener.open(request, timeout=TIMEOUT) as response:
        assert isinstance(response, HTTPResponse)
        # The timeout of a socket is for one read; a document may come in drops.
        while part := response.read1(64 * 1024):
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES or time.monotonic() > ends:
                raise HTTPException("too large, or too slow")
    return b"".join(parts)

"""Which bytes have been verified, and as whom.

The one cache keyed by the text of a token: SHA-256 over its kind and all its bytes, so
that another spelling is another entry and finds nothing. Only what was verified is
kept; a refusal never is, and what depends on the route and on the moment is asked again
on every hit (R50, R65). The text alone says which issuer it is of, so that no two of
them share an entry. Bounded in entries and in bytes; the least recently used go first,
and among them at once those that have expired.

Imports: gateway.model, gateway.observe.metrics.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256

from gateway.model import CredentialKind, Principal, VerificationKey
from gateway.observe.metrics import (
    VERIFIED,
    VERIFIED_BYTES,
    VERIFIED_LOOKUPS,
    Sample,
)

MAX_ENTRIES = 100_000
MAX_BYTES = 256 * 1024 * 1024
SWEEP = 4  # expired entries that one put may take out: more than it brings in

# What an entry takes in memory, found with tracemalloc: 1,700 bytes for a token of 864
# characters with ten claims. The principal and its fingerprints are always there; the
# claims grow with the token.
ENTRY_BYTES = 1_000
BYTES_PER_CHARACTER = 1

# Until when it counts on the monotonic clock, where it has an end of its own.
Entry = tuple[Principal, int, float | None]


def _never() -> float:
    return float("-inf")


class VerifiedTokens:
    """Remembers principals by the digest of what they presented.

    Args:
        max_entries: The most to remember.
        max_bytes: The most memory to take, as estimated.
        now: Unix seconds; without it nothing is known to have expired.
        monotonic: Seconds, for entries with an end of their own.
    """

    def __init__(
        self,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        *,
        now: Callable[[], float] = _never,
        monotonic: Callable[[], float] = _never,
    ) -> None:
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._now = now
        self._monotonic = monotonic
        self.bytes = 0  # as estimated
        self._hits = 0
        self._misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, kind: CredentialKind, token: str) -> Principal | None:
        """Return whom *token* was verified as, if it was."""
        digest = _digest(kind, token)
        entry = self._entries.get(digest)
        if entry is None:
            self._misses += 1
            return None
        if entry[2] is not None and self._monotonic() >= entry[2]:
            self._drop(digest)
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(digest)
        return entry[0]

    def put(self, kind: CredentialKind, token: str, principal: Principal) -> None:
        """Remember that *token* was verified, for as long as that may be known."""
        digest = _digest(kind, token)
        self._drop(digest)
        size = ENTRY_BYTES + BYTES_PER_CHARACTER * len(token)
        if size > self._max_bytes or principal.known_for == 0:
            return
        until = None
        if principal.known_for is not None:
            until = self._monotonic() + principal.known_for
        self._entries[digest] = (principal, size, until)
        self.bytes += size
        self._sweep()
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            self.bytes -= self._entries.popitem(last=False)[1][1]

    def measure(self) -> Iterator[Sample]:
        """Yield what is remembered, and how often that has helped."""
        yield VERIFIED, (), len(self._entries)
        yield VERIFIED_BYTES, (), self.bytes
        yield VERIFIED_LOOKUPS, ("hit",), self._hits
        yield VERIFIED_LOOKUPS, ("miss",), self._misses

    def drop_keys(self, name: str, still: Callable[[VerificationKey], bool]) -> None:
        """Forget the tokens of the issuer *name* whose key is not *still* one of its.

        A token whose key is not known goes too.
        """
        # Thousands of tokens share a few keys, and to compare two takes long.
        judged: dict[int, bool] = {}

        def is_gone(key: VerificationKey | None) -> bool:
            if key is None:
                return True
            if id(key) not in judged:  # they are held by the entries meanwhile
                judged[id(key)] = not still(key)
            return judged[id(key)]

        gone = [
            digest
            for digest, (principal, *_) in self._entries.items()
            if principal.issuer == name and is_gone(principal.key)
        ]
        for digest in gone:
            self._drop(digest)

    def _sweep(self) -> None:
        """Take out expired entries as long as the oldest ones are."""
        now = self._now()
        for _ in range(SWEEP):
            digest, (principal, _size, until) = next(iter(self._entries.items()))
            if now < principal.expires_at + principal.leeway and (
                until is None or self._monotonic() < until
            ):
                return
            self._drop(digest)
            if not self._entries:
                return

    def _drop(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self.bytes -= entry[1]


# Hashing costs more than all else here, and the same text comes again at once.
@lru_cache(maxsize=1024)
def _digest(kind: CredentialKind, token: str) -> bytes:
    # No kind holds a NUL, so that no kind and token run together as another pair.
    # surrogatepass, so that any string at all has bytes of its own.
    return sha256(f"{kind}\0{token}".encode(errors="surrogatepass")).digest()

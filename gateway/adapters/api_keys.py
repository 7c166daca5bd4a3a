"""The records of API keys: in memory, or in Redis 7 or Valkey.

A record is found by the digest of a secret, without a scan. One that was read is known
for a second, counted from before it was asked for: whatever changes in a record counts
within that, everywhere, and what must count at once (a revocation) stands in the
revocation list too. That there is no such key is never remembered: whoever presents
texts that are none costs one look-up for each, of which MAX_WAITING of
gateway.adapters.redis_queue wait at most; then they are refused with an outage.

When a key was last used is written down every minute, besides, and may be lost.

Imports: gateway.adapters.redis_queue, gateway.adapters.script, gateway.clock,
gateway.model, gateway.tokens.api_key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from gateway.adapters.script import Script
from gateway.clock import Clock
from gateway.model import Unavailable
from gateway.tokens.api_key import ApiKey, read, written

_LOG = logging.getLogger(__name__)

STORE = "API key store"
FRESH = 1.0  # seconds for which a record that was read is known
MAX_KNOWN = 10_000  # records of which a process knows; some 20 MB
MAX_KEYS = 100_000  # in a store; some 50 MB
FLUSH_EVERY = 60.0  # seconds
_PAGE = 200  # records of a list in one exchange: 100 KB

_IDS = b"{gw:api_keys}:ids"  # a digest -> the id of its key
_RECORDS = b"{gw:api_keys}:records"  # an id -> its record
_USED = b"{gw:api_keys}:used"  # an id -> Unix seconds

# As for revocations, `#!lua` without flags makes Redis refuse these where it would
# refuse a write: a replica may not have heard yet that a key was taken back.
_FIND = Script(b"""#!lua
local id = redis.call('HGET', KEYS[1], ARGV[2])
if not id then return {ARGV[1], false} end
return {ARGV[1], redis.call('HGET', KEYS[2], id)}
""")
_GET = Script(b"""#!lua
return {ARGV[1], redis.call('HGET', KEYS[1], ARGV[2])}
""")
# The record goes in only if it still is what it was to whoever changed it, and no
# digest becomes another key's. What stands there already was written by the same call,
# whose answer was lost on the way.
_PUT = Script(b"""#!lua
local id, old, new, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local held = redis.call('HGET', KEYS[2], id) or ''
if held == new then return {ARGV[1], 'put'} end
if held ~= old then return {ARGV[1], 'changed'} end
if old == '' and redis.call('HLEN', KEYS[2]) >= most then return {ARGV[1], 'full'} end
local gone = 6 + tonumber(ARGV[6])
for place = 7, gone do
  local holder = redis.call('HGET', KEYS[1], ARGV[place])
  if holder and holder ~= id then return {ARGV[1], 'taken'} end
end
if new == '' then
  redis.call('HDEL', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
else
  redis.call('HSET', KEYS[2], id, new)
end
for place = 7, gone do redis.call('HSET', KEYS[1], ARGV[place], id) end
for place = gone + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[place]) end
return {ARGV[1], 'put'}
""")
_LIST = Script(b"""#!lua
local page = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
return {ARGV[1], page[1], page[2]}
""")
_MARK = Script(b"""#!lua
for place = 2, #ARGV, 2 do
  local held = tonumber(redis.call('HGET', KEYS[1], ARGV[place]) or '') or 0
  if tonumber(ARGV[place + 1]) > held then
    redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1])
  end
end
return {ARGV[1], 'marked'}
""")
_MARKS = 100  # in one exchange


class Conflict(Exception):  # noqa: N818  (an outcome)
    """A record is not what it was, or its id or its digest is another key's."""


class ApiKeys(Protocol):
    """Who keeps records. Whatever waits may raise Unavailable."""

    def find(self, digest: bytes) -> ApiKey | None:
        """Return what is known of a record without asking; None: ask."""
        ...

    async def fetch(self, digest: bytes) -> ApiKey | None:
        """Return the record of the key that has a secret with this *digest*."""
        ...

    async def get(self, key_id: str) -> ApiKey | None:
        """Return the record of the key *key_id*."""
        ...

    async def all(self) -> list[ApiKey]:
        """Return every record that can be read."""
        ...

    async def put(self, key: ApiKey, old: ApiKey | None) -> None:
        """Keep *key* instead of *old*; None: it is new.

        Raises:
            Conflict: There is another one by now, or somebody else has its digest.
        """
        ...

    async def drop(self, old: ApiKey) -> None:
        """Keep *old* no more; if it has changed, leave it."""
        ...

    def mark(self, key_id: str) -> None:
        """Note that a key was used now."""
        ...

    async def used(self) -> Mapping[str, float]:
        """Return when (Unix seconds) keys were last used, by id."""
        ...

    async def run(self) -> None:
        """Write down what was marked, every minute, for ever."""
        ...

    async def aclose(self) -> None: ...


class MemoryApiKeys:
    """Those of one process."""

    def __init__(self, clock: Clock) -> None:
        self._wall = clock.wall
        self._keys: dict[str, ApiKey] = {}
        self._by_digest: dict[bytes, ApiKey] = {}
        self._used: dict[str, float] = {}

    def find(self, digest: bytes) -> ApiKey | None:
        return self._by_digest.get(digest)

    async def fetch(self, digest: bytes) -> ApiKey | None:
        return self._by_digest.get(digest)

    async def get(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id)

    async def all(self) -> list[ApiKey]:
        return list(self._keys.values())

    async def put(self, key: ApiKey, old: ApiKey | None) -> None:
        if self._keys.get(key.id) is not old:
            raise Conflict
        if old is None and len(self._keys) >= MAX_KEYS:
            raise Unavailable(STORE)
        for secret in key.secrets:
            holder = self._by_digest.get(secret.digest)
            if holder is not None and holder.id != key.id:
                raise Conflict
        if old is not None:
            self._forget(old)
        self._keys[key.id] = key
        for secret in key.secrets:
            self._by_digest[secret.digest] = key

    async def drop(self, old: ApiKey) -> None:
        if self._keys.get(old.id) is old:
            self._forget(old)
            del self._keys[old.id]
            self._used.pop(old.id, None)

    def mark(self, key_id: str) -> None:
        self._used[key_id] = self._wall()

    async def used(self) -> Mapping[str, float]:
        return dict(self._used)

    async def run(self) -> None:
        """Do nothing: there is nobody to tell."""

    async def aclose(self) -> None:
        """Keep what there is: the next generation may go on with it."""

    def _forget(self, key: ApiKey) -> None:
        for secret in key.secrets:
            self._by_digest.pop(secret.digest, None)


class RedisApiKeys:
    """Those of all gateways on one store.

    Args:
        url: Of [store], with the passwords in it.
        clock: For how long a record is known.
        pepper: Of [api_keys].
        deadline: Seconds from a question to its answer or Unavailable. With the 150 ms
            of the revocation list, who is asked next, it makes the 250 ms of R60.

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """

    def __init__(
        self, url: str, clock: Clock, pepper: bytes | None, *, deadline: float = 0.100
    ) -> None:
        # redis takes 90 ms to import: who keeps these in memory doesn't wait for it.
        from gateway.adapters.redis_queue import Queue  # noqa: PLC0415

        self._queue = Queue(url, STORE, deadline=deadline)
        self._clock = clock
        self._pepper = pepper
        # By digest, the one that was read last at the end: the record as it was read,
        # what it means, and until when it is known.
        self._known: dict[bytes, tuple[bytes, ApiKey, float]] = {}
        self._used: dict[str, float] = {}

    def find(self, digest: bytes) -> ApiKey | None:
        known = self._known.get(digest)
        if known is None or self._clock.monotonic() >= known[2]:
            return None
        return known[1]

    async def fetch(self, digest: bytes) -> ApiKey | None:
        until = self._clock.monotonic() + FRESH
        (value,) = await self._ask(_FIND, (_IDS, _RECORDS), digest)
        known = self._known.pop(digest, None)
        if value is None:
            return None
        if known is not None and known[0] == value:
            key = known[1]  # the same object: what others keep of it stays good
        else:
            key_or_none = self._read(value)
            if key_or_none is None:
                return None
            key = key_or_none
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[digest] = (value, key, until)
        return key

    async def get(self, key_id: str) -> ApiKey | None:
        (value,) = await self._ask(_GET, (_RECORDS,), key_id.encode())
        return None if value is None else self._read(value)

    async def all(self) -> list[ApiKey]:
        values = await self._pages(_RECORDS)
        keys = [self._read(value) for value in values.values()]
        return [key for key in keys if key is not None]

    async def put(self, key: ApiKey, old: ApiKey | None) -> None:
        await self._put(key.id, key, old)

    async def drop(self, old: ApiKey) -> None:
        with suppress(Conflict):
            await self._put(old.id, None, old)

    def mark(self, key_id: str) -> None:
        if len(self._used) < MAX_KNOWN or key_id in self._used:
            self._used[key_id] = self._clock.wall()

    async def used(self) -> Mapping[str, float]:
        found = {}
        for key_id, value in (await self._pages(_USED)).items():
            with suppress(ValueError):
                found[key_id.decode("utf-8", "replace")] = float(value)
        return found

    async def run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            with suppress(Unavailable):
                await self.flush()

    async def flush(self) -> None:
        """Write down what was marked.

        Raises:
            Unavailable: It wasn't; it is tried again.
        """
        while self._used:
            marks = dict(list(self._used.items())[:_MARKS])
            said = [
                part
                for key_id, at in marks.items()
                for part in (key_id.encode(), b"%d" % at)
            ]
            await self._ask(_MARK, (_USED,), *said)
            for key_id, at in marks.items():
                if self._used.get(key_id) == at:
                    del self._used[key_id]

    async def aclose(self) -> None:
        with suppress(Unavailable):
            await self.flush()
        await self._queue.aclose()

    async def _put(self, key_id: str, key: ApiKey | None, old: ApiKey | None) -> None:
        """Write *key* where *old* stands; None: nothing."""
        now = [each.digest for each in key.secrets] if key else []
        before = [each.digest for each in old.secrets] if old else []
        (said,) = await self._ask(
            _PUT,
            (_IDS, _RECORDS, _USED),
            key_id.encode(),
            written(old, self._pepper) if old else b"",
            written(key, self._pepper) if key else b"",
            b"%d" % MAX_KEYS,
            b"%d" % len(now),
            *now,
            *(digest for digest in before if digest not in now),
        )
        if said in {b"changed", b"taken"}:
            raise Conflict
        if said != b"put":
            raise Unavailable(STORE)

    async def _pages(self, key: bytes) -> dict[bytes, bytes]:
        """Return the whole hash *key*, read in pieces."""
        found: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            cursor, flat = await self._ask(_LIST, (key,), cursor, b"%d" % _PAGE)
            found.update(zip(flat[::2], flat[1::2], strict=True))
            if cursor == b"0":
                return found

    def _read(self, value: bytes) -> ApiKey | None:
        key = read(value, self._pepper)
        if key is None:
            _LOG.warning("%s holds a record that can't be read, or was altered", STORE)
        return key

    async def _ask(self, script: Script, keys: tuple[bytes, ...], *args: bytes) -> Any:
        return await self._queue.ask(script, keys, *args)

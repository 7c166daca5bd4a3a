"""The keys of the issuers: fetched, kept, refreshed, and never waited for twice.

Answers KeyNeeded. A key that is held is found at once, without waiting. What is not is
asked for at most once in 30 seconds for each issuer, however many tokens name keys that
don't exist; whoever comes meanwhile waits for the same answer. The last good set is
kept while its source is away (R48). Keys are public, so that a source which is away
makes nobody a caller he isn't; only a set of which nothing was ever heard is an outage.
Of each key it is remembered since when it is held, whether it has verified a token, and
for a while that it was withdrawn: operators ask.

Imports: gateway.adapters, gateway.clock, gateway.config.settings, gateway.model,
gateway.observe.metrics, gateway.tokens.jwks, gateway.tokens.key_status,
gateway.tokens.thumbprints, httpx2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from gateway.adapters.key_sources import USUAL, KeyFile, KeyUrl, Loaded, Source, Timing
from gateway.adapters.sources import Resolve, SourceFailed, resolve_name
from gateway.clock import Clock
from gateway.config.settings import Issuer
from gateway.model import KeyNeeded, Unavailable, VerificationKey
from gateway.observe.metrics import KEYS, KEYS_AGE, KEYS_REFRESHES, Sample
from gateway.tokens.jwks import (
    HMAC_BYTES,
    KeyRefused,
    KeySet,
    key_from_pem,
    key_from_secret,
)
from gateway.tokens.key_status import KeySetStatus, KeyStatus, State
from gateway.tokens.thumbprints import public_members, thumbprint

if TYPE_CHECKING:
    import httpx2

logger = logging.getLogger("gateway.jwks")

MAX_GONE = 10  # withdrawn keys of an issuer that are remembered

OnChange = Callable[[str], object]


class JwksClient:
    """Holds the keys of all issuers; a gateway.tokens.jwks.KeyStore.

    Args:
        issuers: Secrets, PEM and key set files are read here and now.
        clock: Its monotonic side; the wall's for operators alone.
        on_change: Told the name of an issuer one of whose keys is gone, after it is.
        timing: Shorter ones make for quicker tests.
        resolve: Looks a name up.
        transport: Instead of the network, proxies included.

    Raises:
        KeyRefused: A secret, a PEM file, a key set file or a URL can't be used.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        clock: Clock,
        *,
        on_change: OnChange = lambda _name: None,
        timing: Timing = USUAL,
        resolve: Resolve = resolve_name,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timing = timing
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        self._on_change = on_change
        self._held: dict[str, _Held] = {}
        for issuer in issuers:
            try:
                self._hold(issuer, resolve, transport)
            except (ValueError, SourceFailed) as why:
                raise KeyRefused(f"issuer {issuer.name}: {why}") from why

    def find(
        self, issuer: str, key_id: str | None, algorithm: str
    ) -> VerificationKey | None:
        """Return a key that is held."""
        keys = self._held[issuer].keys
        return None if keys is None else keys.find(key_id, algorithm)

    def used(self, issuer: str, key: VerificationKey) -> None:
        """Note that *key* has verified a token."""
        self._held[issuer].used(key)

    def holds(self, issuer: str, key: VerificationKey) -> bool:
        """Tell whether *key* is one of those that count."""
        keys = self._held[issuer].keys
        return keys is not None and key in keys.keys

    async def fetch(self, need: KeyNeeded) -> VerificationKey | None:
        """Return the key, asking the issuer for it if that may help.

        Raises:
            Unavailable: The key is not held, and the issuer doesn't answer.
        """
        held = self._held[need.issuer]
        known = self.find(need.issuer, need.key_id, need.algorithm)
        if known is not None:
            return known
        if held.refreshing is not None or self._monotonic() >= held.ask_again:
            await self._refresh(held)
        found = None
        if held.keys is not None:
            found = held.keys.find(need.key_id, need.algorithm)
        # It may have published the key since it was last heard of.
        if found is None and (held.keys is None or held.trouble is not None):
            raise Unavailable(f"issuer {need.issuer}")
        return found

    async def start(self) -> None:
        """Try once to load the keys of every issuer. A source may be away."""
        await asyncio.gather(*(self._refresh(held) for held in self._fetched()))

    async def run(self) -> None:
        """Keep every set fresh, until cancelled."""
        while held := list(self._fetched()):
            now = self._monotonic()
            due = [each for each in held if now >= each.due]
            await asyncio.gather(*map(self._refresh, due))
            # Slept in short pieces, so that a forced refresh or a clock that is held
            # in a test changes the plan.
            wait = min(each.due for each in held) - self._monotonic()
            await asyncio.sleep(min(max(wait, 0.0), self._timing.first))

    async def aclose(self) -> None:
        """Give up what is being fetched, and close all connections."""
        tasks = [h.refreshing for h in self._held.values() if h.refreshing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for held in self._held.values():
            if held.source is not None:
                await held.source.aclose()
        # One turn of the loop, in which what a deadline cut off is closed.
        await asyncio.sleep(0)

    def is_empty(self, issuer: str) -> bool:
        """Tell whether no key of *issuer* is held."""
        return self._held[issuer].keys is None

    def health(self, issuer: str) -> str | None:
        """Say what is wrong with the keys of *issuer*; None where nothing is."""
        held = self._held[issuer]
        if held.keys is None:
            return f"no keys: {held.trouble or 'not loaded yet'}"
        if held.trouble is not None:
            return f"the last good keys are used: {held.trouble}"
        return None

    def measure(self) -> Iterator[Sample]:
        """Yield what is held of each issuer, and of its source how it does."""
        now = self._monotonic()
        for name, held in self._held.items():
            labels = (name,)
            yield KEYS, labels, 0 if held.keys is None else len(held.keys.keys)
            if held.source is None:
                continue
            if held.keys is not None:
                yield KEYS_AGE, labels, now - held.loaded_at
            yield KEYS_REFRESHES, (name, "loaded"), held.loads
            yield KEYS_REFRESHES, (name, "failed"), held.failures

    def status(self) -> tuple[KeySetStatus, ...]:
        """Say of each issuer's keys how they are."""
        # What is said in Unix seconds was measured by the other clock (R104).
        since = self._wall() - self._monotonic()
        return tuple(held.status(since) for held in self._held.values())

    def _fetched(self) -> Iterable[_Held]:
        return (held for held in self._held.values() if held.source is not None)

    def _hold(
        self,
        issuer: Issuer,
        resolve: Resolve,
        transport: httpx2.AsyncBaseTransport | None,
    ) -> None:
        """Load what is at hand, prepare what is not."""
        keys, timing = issuer.keys, self._timing
        if keys.secret is not None:
            shared = sorted(issuer.algorithms & HMAC_BYTES.keys())
            made = tuple(key_from_secret(keys.secret, each) for each in shared)
            if not made:
                raise KeyRefused("a secret, and no algorithm that uses one")
            self._held[issuer.name] = held = _Held(issuer.name, "secret", None)
            held.take(KeySet(made), self._monotonic())
        elif keys.pem is not None:
            fixed = key_from_pem(keys.pem, issuer.algorithms)
            self._held[issuer.name] = held = _Held(issuer.name, "pem", None)
            held.take(fixed, self._monotonic())
        elif keys.jwks_file is not None:
            file = KeyFile(keys.jwks_file, issuer.algorithms, timing.unsaid)
            held = self._held[issuer.name] = _Held(issuer.name, "file", file)
            self._take(held, file.read())
        else:
            source = KeyUrl(issuer, timing, resolve, transport)
            kind = "discovery" if keys.discover else "url"
            self._held[issuer.name] = _Held(issuer.name, kind, source)

    async def _refresh(self, held: _Held) -> None:
        """Load the set of *held* anew, or join those who wait for it already.

        In a task of its own: whoever asked first may be gone before the answer comes,
        and a client that hangs up must not make the others wait from the start.
        """
        if held.refreshing is None:
            held.refreshing = asyncio.get_running_loop().create_task(self._load(held))
            held.refreshing.add_done_callback(lambda _task: held.refreshed())
        await asyncio.wait([held.refreshing])

    async def _load(self, held: _Held) -> None:
        assert held.source is not None, "keys of the configuration are never too old"
        # Set before the answer is there, so that a source which fails is asked as
        # seldom as one which doesn't know the key.
        timing = self._timing
        pause = timing.first if held.keys is None else timing.asked_again
        begun = self._monotonic()
        held.ask_again = begun + pause
        try:
            self._take(held, await held.source.load())
            held.ask_again = begun + timing.asked_again
        except SourceFailed as why:
            self._failed(held, str(why))
        except Exception:
            # Not ours to foresee, but ours to survive: the last good set still serves.
            logger.exception("issuer %s: its keys could not be read", held.name)
            self._failed(held, "an error of our own")

    def _take(self, held: _Held, loaded: Loaded) -> None:
        if not loaded.keys.keys:
            # Nobody withdraws his last key on purpose; the keys that were good go on.
            raise SourceFailed("; ".join(("no usable key", *loaded.keys.skipped)))
        now = self._monotonic()
        before = held.keys
        held.take(loaded.keys, now)
        held.trouble = None
        held.loads += 1
        held.loaded_at = now
        held.good_until = now + self._timing.stale
        held.due = now + loaded.fresh
        for why in loaded.keys.skipped:
            if before is None or why not in before.skipped:
                logger.warning("issuer %s: %s", held.name, why)
        if before is not None and loaded.keys.lacks_any_of(before):
            logger.info("issuer %s has withdrawn a key", held.name)
            self._on_change(held.name)

    def _failed(self, held: _Held, why: str) -> None:
        now = self._monotonic()
        timing = self._timing
        if why != held.trouble:  # an outage is one line, not one each second
            logger.warning("issuer %s: keys not refreshed: %s", held.name, why)
        held.trouble = why
        held.failures += 1
        if held.keys is not None and now >= held.good_until:
            logger.error("issuer %s: its keys are too old to be used", held.name)
            held.keys = None
            self._on_change(held.name)
        pause = timing.first if held.keys is None else timing.after_failure
        held.due = now + pause


class _Held:
    """What is held of one issuer's keys. Times are on the monotonic clock."""

    def __init__(self, name: str, kind: str, source: Source | None) -> None:
        self.name = name
        self._kind = kind  # of the source, for operators
        self.source = source  # None: the keys stand in the configuration itself
        self.keys: KeySet | None = None  # nothing was ever loaded, or too long ago
        self._known: dict[tuple[str | None, str], _Known] = {}
        # By the identity of the keys that `keys` holds: comparing two takes long.
        self._unused: dict[int, _Known] = {}
        self.trouble: str | None = None  # why the last attempt failed, if it did
        self.refreshing: asyncio.Task[None] | None = None
        self.ask_again = float("inf") if source is None else float("-inf")
        self.due = self.ask_again  # for the background refresh
        self.good_until = float("inf")
        self.loaded_at = 0.0
        self.loads = 0
        self.failures = 0

    def refreshed(self) -> None:
        self.refreshing = None

    def take(self, keys: KeySet, now: float) -> None:
        """Use *keys* from *now* on, and remember what has changed."""
        self.keys = keys
        self._unused = {}
        published = set()
        for key in keys.keys:
            name = (key.key_id, _thumbprint(key))
            known = self._known.get(name)
            if known is None or known.gone_at is not None:
                # One that comes back is a new one: what it had verified is forgotten.
                known = self._known[name] = _Known(now)
            known.algorithms.add(key.algorithm)
            published.add(name)
            if not known.is_used:
                self._unused[id(key)] = known
        for name, known in self._known.items():
            if name not in published and known.gone_at is None:
                known.gone_at = now
        gone = [
            (known.gone_at, number, name)
            for number, (name, known) in enumerate(self._known.items())
            if known.gone_at is not None
        ]
        for *_, name in sorted(gone)[:-MAX_GONE]:
            del self._known[name]

    def used(self, key: VerificationKey) -> None:
        known = self._unused.pop(id(key), None)
        if known is not None:
            known.is_used = True

    def status(self, since: float) -> KeySetStatus:
        """Say how it is; *since*: Unix seconds when the monotonic clock was 0."""
        is_fetched = self.source is not None
        return KeySetStatus(
            self.name,
            self._kind,
            tuple(
                KeyStatus(
                    known.state,
                    key_id,
                    tuple(sorted(known.algorithms)),
                    print_,
                    since + known.seen_at,
                    None if known.gone_at is None else since + known.gone_at,
                )
                for (key_id, print_), known in self._known.items()
            ),
            since + self.loaded_at if is_fetched and self.loads else None,
            since + max(self.due, 0.0) if is_fetched else None,
            self.trouble or "",
            () if self.keys is None else self.keys.skipped,
        )


class _Known:
    """What is remembered of a key that was published."""

    def __init__(self, seen_at: float) -> None:
        self.algorithms: set[str] = set()
        self.seen_at = seen_at
        self.gone_at: float | None = None
        self.is_used = False  # has verified a token

    @property
    def state(self) -> State:
        if self.gone_at is not None:
            return "previous"
        return "current" if self.is_used else "next"


def _thumbprint(key: VerificationKey) -> str:
    # Of a secret it would be something to try guesses on.
    if isinstance(key.material, bytes):
        return ""
    return thumbprint(public_members(key.material))

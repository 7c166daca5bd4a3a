"""The keys of the issuers: fetched, kept, refreshed, and never waited for twice.

Answers KeyNeeded. A key that is held is found at once, without waiting. What is not is
asked for at most once in 30 seconds for each issuer, however many tokens name keys that
don't exist; whoever comes meanwhile waits for the same answer. The last good set is
kept while its source is away (R48). Keys are public, so that a source which is away
makes nobody a caller he isn't; only a set of which nothing was ever heard is an outage.

What an operator configured is fetched as it stands. What a discovery document names is
the issuer's word: https, and no address inside our own network.

Imports: gateway.clock, gateway.config.settings, gateway.model, gateway.observe.metrics,
gateway.tokens.jwks, gateway.tokens.strict_json, httpx2.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx2

from gateway.clock import Clock
from gateway.config.settings import Issuer
from gateway.model import KeyNeeded, Unavailable, VerificationKey
from gateway.observe.metrics import KEYS, KEYS_AGE, KEYS_REFRESHES, Sample
from gateway.tokens.jwks import (
    HMAC_BYTES,
    MAX_SET,
    KeyRefused,
    KeySet,
    key_from_pem,
    key_from_secret,
    parse_key_set,
)
from gateway.tokens.strict_json import loads

logger = logging.getLogger("gateway.jwks")

DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery section 4

OnChange = Callable[[str], object]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Timing:
    """Every time that plays a part here, in seconds."""

    answer: float = 2.0  # for one document, from the look-up of the name to its end
    asked_again: float = 30.0  # between refreshes because of an unknown key
    first: float = 1.0  # between attempts while nothing was ever loaded
    after_failure: float = 60.0  # between attempts of the background refresh
    shortest: float = 60.0  # bounds of what a source may say about freshness
    longest: float = 3600.0
    unsaid: float = 300.0  # where it says nothing; files are looked at as often
    stale: float = 24 * 3600.0  # the last good set is used no longer than this


class SourceFailed(Exception):  # noqa: N818  (the source did)
    """A source gave no usable set. The text names no address and no value."""


async def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of *host*, as the system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class JwksClient:
    """Holds the keys of all issuers; a gateway.tokens.jwks.KeyStore.

    Args:
        issuers: Secrets, PEM and key set files are read here and now.
        clock: Its monotonic side alone.
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
        timing: Timing = Timing(),
        resolve: Resolve = resolve_name,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timing = timing
        self._monotonic = clock.monotonic
        self._on_change = on_change
        self._held: dict[str, _Held] = {}
        for issuer in issuers:
            try:
                self._hold(issuer, resolve, transport)
            except (KeyRefused, SourceFailed) as why:
                raise KeyRefused(f"issuer {issuer.name}: {why}") from why

    def find(
        self, issuer: str, key_id: str | None, algorithm: str
    ) -> VerificationKey | None:
        """Return a key that is held."""
        keys = self._held[issuer].keys
        return None if keys is None else keys.find(key_id, algorithm)

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

    def skipped(self, issuer: str) -> tuple[str, ...]:
        """Return which keys of the held set are not used, and why."""
        keys = self._held[issuer].keys
        return () if keys is None else keys.skipped

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
            self._held[issuer.name] = _Held(issuer.name, None, KeySet(made))
        elif keys.pem is not None:
            fixed = key_from_pem(keys.pem, issuer.algorithms)
            self._held[issuer.name] = _Held(issuer.name, None, fixed)
        elif keys.jwks_file is not None:
            file = _File(keys.jwks_file, issuer.algorithms, timing.unsaid)
            held = self._held[issuer.name] = _Held(issuer.name, file)
            self._take(held, file.read())
        else:
            source = _Http(issuer, timing, resolve, transport)
            self._held[issuer.name] = _Held(issuer.name, source)

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
        before, held.keys = held.keys, loaded.keys
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

    def __init__(
        self, name: str, source: _Source | None, keys: KeySet | None = None
    ) -> None:
        self.name = name
        self.source = source  # None: the keys stand in the configuration itself
        self.keys = keys  # None: nothing was ever loaded, or too long ago
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


@dataclass(frozen=True, slots=True)
class Loaded:
    """A set, and for how long it is fresh, in seconds."""

    keys: KeySet
    fresh: float


class _File:
    """A JWK Set in a file, read again when the file has changed."""

    def __init__(self, path: str, algorithms: frozenset[str], fresh: float) -> None:
        self._path = Path(path)
        self._algorithms = algorithms
        self._fresh = fresh
        self._mark: object = None
        self._keys = KeySet()

    def read(self) -> Loaded:
        try:
            status = self._path.stat()
            # A file that was put in place of another may have the same time.
            mark = (status.st_mtime_ns, status.st_size, status.st_ino)
            if mark != self._mark:
                with self._path.open("rb") as file:
                    raw = file.read(MAX_SET + 1)
                self._keys = parse_key_set(raw, self._algorithms)
                self._mark = mark
        except OSError as error:
            raise SourceFailed(f"jwks file: {error.strerror}") from error
        except KeyRefused as why:
            raise SourceFailed(f"jwks file: {why}") from why
        return Loaded(self._keys, self._fresh)

    async def load(self) -> Loaded:
        return await asyncio.to_thread(self.read)

    async def aclose(self) -> None:
        """Nothing is open."""


class _Http:
    """A JWK Set behind a URL: a configured one, or one that is discovered."""

    def __init__(
        self,
        issuer: Issuer,
        timing: Timing,
        resolve: Resolve,
        transport: httpx2.AsyncBaseTransport | None,
    ) -> None:
        self._issuer = issuer
        self._timing = timing
        self._resolve = resolve
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None
        # A missing or broken CA file is found at start. The system's are not read
        # before they are needed, and not on the loop: that takes 20 ms and more.
        self._ca = self._own_ca(issuer.keys.ca_file)
        self._url = _configured_url(
            issuer.keys.jwks_url or issuer.issuer.rstrip("/") + DISCOVERY
        )

    async def load(self) -> Loaded:
        if self._client is None:
            if self._ca is None:
                self._ca = await asyncio.to_thread(ssl.create_default_context)
            self._client = self._http(self._ca)
        document, fresh = await self._get([self._url], {}, {})
        if self._issuer.keys.discover:
            document, fresh = await self._get(*await self._discovered(document))
        try:
            keys = parse_key_set(document, self._issuer.algorithms)
        except KeyRefused as why:
            raise SourceFailed(str(why)) from why
        return Loaded(keys, fresh)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _discovered(
        self, document: bytes
    ) -> tuple[list[httpx2.URL], dict[str, str], dict[str, str]]:
        """Return where to get the set that a discovery document names.

        OpenID Connect Discovery section 4.3: the document has to be this issuer's own,
        octet by octet.
        """
        found = loads(document)
        if found is None:
            raise SourceFailed("discovery: not one strict JSON object")
        if found.get("issuer") != self._issuer.issuer:
            raise SourceFailed("discovery: the document of another issuer")
        uri = found.get("jwks_uri")
        try:
            url = httpx2.URL(uri if isinstance(uri, str) else "")
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.host == self._url.host and _is_allowed(url):
            # Its own host, wherever that is: a provider inside our network is usual.
            return [url], {}, {}
        if not _is_allowed(url) or url.scheme != "https" or url.userinfo:
            raise SourceFailed("discovery: jwks_uri is no https URL")
        if self._issuer.keys.proxy:
            # The proxy looks names up, and decides what may be reached. What we can
            # see ourselves is an address.
            literal = url.host.strip("[]")
            if _address(literal) is not None and not _is_public(literal):
                raise SourceFailed("discovery: jwks_uri is inside a network")
            return [url], {}, {}
        # The addresses that were judged are those that are connected to. To look the
        # name up again would let it mean something else by then.
        port = url.port or 443
        try:
            async with asyncio.timeout(self._timing.answer):
                addresses = await self._resolve(url.host, port)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise SourceFailed("discovery: jwks_uri could not be looked up") from error
        if not addresses or not all(map(_is_public, addresses)):
            raise SourceFailed("discovery: jwks_uri is inside a network")
        return (
            [url.copy_with(host=address) for address in addresses],
            {"Host": url.netloc.decode("ascii")},
            {"sni_hostname": url.host},
        )

    async def _get(
        self,
        urls: Sequence[httpx2.URL],
        headers: dict[str, str],
        extensions: dict[str, str],
    ) -> tuple[bytes, float]:
        """Return the document, from the first of *urls* that can be connected to."""
        try:
            async with asyncio.timeout(self._timing.answer):
                for url in urls[:-1]:
                    with contextlib.suppress(httpx2.ConnectError):
                        return await self._get_one(url, headers, extensions)
                return await self._get_one(urls[-1], headers, extensions)
        except TimeoutError as error:
            raise SourceFailed("no answer in time") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as error:
            # The type and no more: the text may quote what was received.
            raise SourceFailed(type(error).__name__) from error

    async def _get_one(
        self,
        url: httpx2.URL,
        headers: dict[str, str],
        extensions: dict[str, str],
    ) -> tuple[bytes, float]:
        assert self._client is not None
        async with self._client.stream(
            "GET", url, headers=headers, extensions=extensions
        ) as answer:
            # A redirect is not followed: it is an address that nobody configured.
            if answer.status_code != httpx2.codes.OK:
                raise SourceFailed(f"status {answer.status_code}")
            # We asked for none: a small answer can become a very large one.
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise SourceFailed("a compressed answer")
            document = bytearray()
            async for chunk in answer.aiter_raw():
                document += chunk
                if len(document) > MAX_SET:
                    raise SourceFailed(f"an answer of more than {MAX_SET} bytes")
            return bytes(document), self._freshness(answer.headers)

    def _freshness(self, headers: httpx2.Headers) -> float:
        """Return when to fetch again: after 80 % of max-age, within our bounds."""
        timing = self._timing
        control = headers.get("cache-control", "")
        said = re.search(r"(?:^|[\s,])max-age=(\d{1,9})(?:[\s,]|$)", control, re.ASCII)
        if said is None:
            return timing.unsaid
        return min(max(0.8 * int(said[1]), timing.shortest), timing.longest)

    @staticmethod
    def _own_ca(path: str | None) -> ssl.SSLContext | None:
        if path is None:
            return None
        try:
            return ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError is one
            raise KeyRefused("its ca_file can't be read as certificates") from error

    def _http(self, ca: ssl.SSLContext) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            verify=ca,
            proxy=self._issuer.keys.proxy if self._transport is None else None,
            trust_env=False,
            follow_redirects=False,
            timeout=self._timing.answer,
            # Refreshes are minutes apart; a kept connection would be dead by then.
            limits=httpx2.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            transport=self._transport,
        )


_Source = _File | _Http


def _configured_url(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise KeyRefused("the URL of its keys is no URL") from None
    if not _is_allowed(url):
        raise KeyRefused("its keys come over https, or over http from loopback")
    return url


# The library is lenient: "https://[/" has the host "%5B" to it.
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")


def _is_allowed(url: httpx2.URL) -> bool:
    if not _HOST.fullmatch(url.raw_host):
        return False
    if url.scheme == "http":
        return url.host == "localhost" or _is_loopback(url.host)
    return url.scheme == "https"


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address inside


def _address(text: str) -> _Address | None:
    """Return the address that *text* is, the IPv4 one inside where there is one."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        return found.ipv4_mapped or found.sixtofour or found
    return found


def _is_loopback(text: str) -> bool:
    found = _address(text)
    return found is not None and found.is_loopback


def _is_public(text: str) -> bool:
    """Tell whether *text* is an address that belongs to no inner network.

    Loopback, private, link-local (where clouds keep their metadata), carrier-grade NAT,
    documentation and multicast are none.
    """
    found = _address(text)
    return found is not None and found.is_global and not found.is_multicast

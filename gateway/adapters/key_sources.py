"""Where the keys of an issuer come from: a file, or a URL.

Imports: gateway.adapters.issuer_http, gateway.adapters.sources,
gateway.config.settings, gateway.tokens.jwks, httpx2.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.adapters.sources import Resolve, SourceFailed
from gateway.config.settings import Issuer
from gateway.tokens.jwks import MAX_SET, KeyRefused, KeySet, parse_key_set

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True, slots=True)
class Timing:
    """Every time that plays a part in having keys, in seconds."""

    answer: float = 2.0  # for one document, from the look-up of the name to its end
    asked_again: float = 30.0  # between refreshes because of an unknown key
    first: float = 1.0  # between attempts while nothing was ever loaded
    after_failure: float = 60.0  # between attempts of the background refresh
    shortest: float = 60.0  # bounds of what a source may say about freshness
    longest: float = 3600.0
    unsaid: float = 300.0  # where it says nothing; files are looked at as often
    stale: float = 24 * 3600.0  # the last good set is used no longer than this


USUAL = Timing()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A set, and for how long it is fresh, in seconds."""

    keys: KeySet
    fresh: float


class KeyFile:
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


class KeyUrl:
    """A JWK Set behind a URL: a configured one, or one that is discovered."""

    def __init__(
        self,
        issuer: Issuer,
        timing: Timing,
        resolve: Resolve,
        transport: httpx2.AsyncBaseTransport | None,
    ) -> None:
        from gateway.adapters.issuer_http import IssuerHttp  # noqa: PLC0415

        self._algorithms = issuer.algorithms
        self._timing = timing
        self._http = IssuerHttp(
            issuer.issuer,
            url=issuer.keys.jwks_url,
            ca_file=issuer.keys.ca_file,
            proxy=issuer.keys.proxy,
            answer=timing.answer,
            most=MAX_SET,
            resolve=resolve,
            transport=transport,
        )

    async def load(self) -> Loaded:
        answer = await self._http.get(await self._http.place("jwks_uri"))
        try:
            keys = parse_key_set(answer.body, self._algorithms)
        except KeyRefused as why:
            raise SourceFailed(str(why)) from why
        return Loaded(keys, self._freshness(answer.headers))

    async def aclose(self) -> None:
        await self._http.aclose()

    def _freshness(self, headers: httpx2.Headers) -> float:
        """Return when to fetch again: after 80 % of max-age, within our bounds."""
        timing = self._timing
        control = headers.get("cache-control", "")
        said = re.search(r"(?:^|[\s,])max-age=(\d{1,9})(?:[\s,]|$)", control, re.ASCII)
        if said is None:
            return timing.unsaid
        return min(max(0.8 * int(said[1]), timing.shortest), timing.longest)


Source = KeyFile | KeyUrl

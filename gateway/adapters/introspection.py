"""Asks issuers about opaque tokens (RFC 7662), and never more than they can bear.

Answers IntrospectionNeeded. Whoever asks about a token that is being asked about waits
for the same answer. A few questions at a time go out to each issuer and a bounded
number wait; the next one is told at once that the issuer is busy. So is whoever comes
after so many questions in vain: a flood of invented tokens costs the issuer and us no
more than that (R100), and those whose tokens are remembered nothing. One that can't be
reached several times in a row is left alone for a second, after which one question
shows whether it is back (R60).

Nothing is remembered here: what was answered is kept by the verified-token cache, and
that a token is not active is kept by nobody (R65). A token stands in the body of a form
and nowhere else.

Imports: gateway.adapters.issuer_http, gateway.adapters.sources, gateway.clock,
gateway.config.settings, gateway.model, gateway.observe.metrics,
gateway.tokens.allowance, gateway.tokens.introspection, httpx2.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

from gateway.adapters.sources import (
    Resolve,
    SourceAway,
    SourceFailed,
    resolve_name,
)
from gateway.clock import Clock
from gateway.config.settings import Introspection, Issuer
from gateway.model import IntrospectionNeeded, Unavailable
from gateway.observe.metrics import INTROSPECTIONS, INTROSPECTIONS_PENDING, Sample
from gateway.tokens.allowance import Shares
from gateway.tokens.claims import Claims
from gateway.tokens.introspection import MAX_ANSWER, AnswerRefused, read_answer

if TYPE_CHECKING:
    import httpx2

    from gateway.adapters.issuer_http import IssuerHttp, Place

logger = logging.getLogger("gateway.introspection")

MEMBER = "introspection_endpoint"  # of a discovery document: RFC 8414 section 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """Every count and time that plays a part here; for one issuer and worker."""

    at_once: int = 32  # questions on their way
    waiting: int = 256  # tokens that are asked about, those on their way among them
    turn: float = 0.5  # seconds that one waits for its turn
    failures: int = 5  # in a row, until it is left alone
    rest: float = 1.0  # seconds that it is left alone
    # That found no active token. A question was measured at 4 ms of ours between other
    # work, 2 alone, so that these are a twentieth of a processor. At once as many as
    # may wait.
    in_vain: float = 12.0  # questions a second
    in_vain_at_once: int = 256
    discovered: float = 3600.0  # seconds that a discovered URL is used


class IntrospectionClient:
    """Asks the issuers that have an [issuer.x.introspection].

    Args:
        issuers: All of them.
        clock: Its monotonic side alone.
        bounds: Smaller ones make for quicker tests.
        resolve: Looks a name up.
        transport: Instead of the network, proxies included.

    Raises:
        ValueError: A URL or a CA file can't be used.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        clock: Clock,
        *,
        bounds: Bounds = Bounds(),
        resolve: Resolve = resolve_name,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._servers: dict[str, _Server] = {}
        for issuer in issuers:
            rules = issuer.introspection
            if rules is None:
                continue
            # Whoever asks no issuer does not wait for the HTTP client.
            from gateway.adapters.issuer_http import IssuerHttp  # noqa: PLC0415

            try:
                http = IssuerHttp(
                    issuer.issuer,
                    url=rules.url,
                    ca_file=rules.ca_file,
                    proxy=rules.proxy,
                    answer=rules.timeout,
                    most=MAX_ANSWER,
                    resolve=resolve,
                    transport=transport,
                )
            except ValueError as why:
                raise ValueError(f"introspection of {issuer.name}: {why}") from why
            self._servers[issuer.name] = _Server(
                issuer.name, rules, http, clock, bounds
            )

    async def ask(self, need: IntrospectionNeeded) -> Claims | None:
        """Return what its issuer says of a token; None: it is not active.

        Raises:
            Unavailable: It says nothing that can be used, or can't be asked now.
        """
        return await self._servers[need.issuer].ask(need)

    async def aclose(self) -> None:
        """Give up what is being asked, and close all connections."""
        for server in self._servers.values():
            await server.aclose()
        # One turn of the loop, in which what a deadline cut off is closed.
        await asyncio.sleep(0)

    def troubles(self) -> Mapping[str, str]:
        """Say of each issuer what was wrong with its last answer; "": nothing."""
        return {name: server.trouble for name, server in self._servers.items()}

    def measure(self) -> Iterator[Sample]:
        """Yield what was answered, and how many wait."""
        for name, server in self._servers.items():
            for outcome in ("active", "inactive", "failed", "not_asked"):
                yield INTROSPECTIONS, (name, outcome), server.outcomes[outcome]
            yield INTROSPECTIONS_PENDING, (name,), server.pending


class _Server:
    """One issuer's introspection endpoint, and how it does."""

    def __init__(
        self,
        name: str,
        rules: Introspection,
        http: IssuerHttp,
        clock: Clock,
        bounds: Bounds,
    ) -> None:
        self._name = name
        self._rules = rules
        self._http = http
        self._monotonic = clock.monotonic
        self._bounds = bounds
        self._asked: dict[bytes, asyncio.Task[Claims | SourceFailed | None]] = {}
        self._slots = asyncio.Semaphore(bounds.at_once)
        self._allowance = Shares(bounds.in_vain, bounds.in_vain_at_once)
        self._url: httpx2.URL | None = None  # as discovered
        self._url_until = float("-inf")
        self._discovering = asyncio.Lock()
        self._away = 0  # times in a row that it could not be reached
        self._rests_until = float("-inf")
        self._is_probed = False  # somebody finds out whether it is back
        self.trouble = ""  # with the last answer
        self.outcomes = Counter[str]()

    @property
    def pending(self) -> int:
        return len(self._asked)

    async def ask(self, need: IntrospectionNeeded) -> Claims | None:
        # As the cache does it, whose entry the answer will be.
        name = sha256(need.token.encode()).digest()
        task = self._asked.get(name)
        if task is None:
            if (
                self._is_left_alone()
                or self.pending >= self._bounds.waiting
                or not self._allowance.take(need.client, self._monotonic())
            ):
                self.outcomes["not_asked"] += 1
                raise self._unavailable()
            # In a task of its own: whoever asked first may hang up, and the others
            # must not wait from the start.
            is_probe = self._away >= self._bounds.failures
            self._is_probed = self._is_probed or is_probe
            work = self._answered(need, is_probe=is_probe)
            task = asyncio.get_running_loop().create_task(work)
            self._asked[name] = task
            task.add_done_callback(lambda _: self._settled(name, is_probe=is_probe))
        await asyncio.wait([task])
        if task.cancelled():
            raise self._unavailable()
        found = task.result()
        if isinstance(found, SourceFailed):
            # One for each who waits: it takes a route and a principal with it.
            raise self._unavailable()
        return found

    async def aclose(self) -> None:
        tasks = tuple(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    def _settled(self, name: bytes, *, is_probe: bool) -> None:
        del self._asked[name]
        if is_probe:
            self._is_probed = False

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"introspection by issuer {self._name}")

    def _is_left_alone(self) -> bool:
        if self._away < self._bounds.failures:
            return False
        return self._is_probed or self._monotonic() < self._rests_until

    async def _answered(
        self, need: IntrospectionNeeded, *, is_probe: bool
    ) -> Claims | SourceFailed | None:
        """Return the answer, or why there is none; note what it says of the server."""
        try:
            async with asyncio.timeout(self._bounds.turn):
                await self._slots.acquire()
        except TimeoutError:
            # It is slow, or there are many; whoever is being answered will tell.
            return self._not_asked(need, "too many wait")
        try:
            if not is_probe and self._is_left_alone():  # since we began to wait
                return self._not_asked(need, "it is left alone")
            return await self._heard(need)
        finally:
            self._slots.release()

    async def _heard(self, need: IntrospectionNeeded) -> Claims | SourceFailed | None:
        try:
            async with asyncio.timeout(self._rules.timeout):
                found = await self._question(need.token)
        except TimeoutError:
            return self._failed(SourceAway("no answer in time"))
        except SourceFailed as why:
            return self._failed(why)
        except AnswerRefused as why:
            return self._failed(SourceFailed(str(why)))
        except Exception as error:  # noqa: BLE001
            # Not ours to foresee. The type and no more: the text may quote the token,
            # which nothing can be told by.
            return self._failed(SourceFailed(f"a mistake: {type(error).__name__}"))
        if self.trouble:
            logger.info("issuer %s: introspection is back", self._name)
        self.trouble = ""
        self._away = 0
        if found is None:
            self.outcomes["inactive"] += 1
        else:
            self.outcomes["active"] += 1
            self._allowance.give_back(need.client)
        return found

    async def _question(self, token: str) -> Claims | None:
        form = {"token": token, "token_type_hint": "access_token"}
        headers = {}
        if self._rules.auth == "post":
            form["client_id"] = self._rules.client_id
            form["client_secret"] = self._rules.client_secret
        else:
            headers["Authorization"] = self._basic()
        place = await self._place()
        answer = await self._http.post(place, urlencode(form).encode("ascii"), headers)
        return read_answer(answer.body, answer.headers.get("content-type", ""))

    def _basic(self) -> str:
        # RFC 6749 section 2.3.1: each half encoded as in a form, then joined.
        halves = (self._rules.client_id, self._rules.client_secret)
        both = ":".join(map(quote_plus, halves))
        return "Basic " + base64.b64encode(both.encode("ascii")).decode("ascii")

    async def _place(self) -> Place:
        if self._rules.url is not None:
            return await self._http.place(MEMBER)
        async with self._discovering:
            now = self._monotonic()
            if self._url is None or now >= self._url_until:
                self._url = await self._http.discover(MEMBER)
                self._url_until = now + self._bounds.discovered
        return await self._http.judged(self._url, MEMBER)

    def _not_asked(self, need: IntrospectionNeeded, why: str) -> SourceFailed:
        self.outcomes["not_asked"] += 1
        self._allowance.give_back(need.client)
        return SourceFailed(why)

    def _failed(self, why: SourceFailed) -> SourceFailed:
        self.outcomes["failed"] += 1
        if str(why) != self.trouble:  # an outage is one line, not one for each token
            logger.warning("issuer %s: introspection: %s", self._name, why)
        self.trouble = str(why)
        # Only what costs time: an answer that makes no sense came quickly, and if one
        # could be provoked, it must not take the server from everybody else.
        if isinstance(why, SourceAway):
            self._away += 1
            self._rests_until = self._monotonic() + self._bounds.rest
        else:
            self._away = 0
        return why

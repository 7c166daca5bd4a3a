"""A gateway and an issuer through a life: tokens, rotation, outage, withdrawal.

Each is shown with a small issuer of our own, and in the long form (`make e2e`) with
oidc-provider too, a certified OpenID provider that knows nothing of us. Keys are
refreshed every third of a second here instead of every minute; how long it takes is
counted in refreshes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import httpx2
import pytest

from gateway.adapters.jwks import JwksClient
from gateway.adapters.key_sources import Timing
from gateway.observe.metrics import KEYS_REFRESHES
from gateway.serving import Gateway
from tests.backends import Backend, echoing, running
from tests.e2e.providers import (
    ALGORITHMS,
    SECRET,
    Issuing,
    Missing,
    OidcProvider,
    OurProvider,
    keys,
)
from tests.site import Site, url
from tests.tokens import make

FULL = os.environ.get("GATEWAY_E2E") == "full"
PROVIDERS = {"our own": OurProvider, "oidc-provider": OidcProvider}
QUICK = Timing(answer=10.0, asked_again=0.2, first=0.05, after_failure=0.2, unsaid=0.3)
PATIENCE = 30.0  # seconds; nothing here waits so long on a machine that is not busy
FILE = "/api/orders/files/a"
OLD, NEW = keys("old-"), keys("new-")

ISSUER = """\
[issuer.corp]
issuer      = "{url}"
jwks        = "discover"
audience    = ["{audience}"]
algorithms  = ["RS256", "ES256", "EdDSA"]
token_types = ["at+jwt"]
[issuer.corp.introspection]
client_id     = "gateway"
client_secret = "file:client-secret"
cache         = "{cache}"
timeout       = "10s"
[issuer.corp.scope]
user    = "ignore"
service = "grant"

"""


class House:
    """An issuer, a gateway that trusts it, a backend, and somebody who asks."""

    def __init__(
        self,
        issuer: Issuing,
        gateway: Gateway,
        backend: Backend,
        http: httpx2.AsyncClient,
    ) -> None:
        self.issuer = issuer
        self.gateway = gateway
        self.backend = backend
        self._http = http

    async def present(self, credential: bytes) -> httpx2.Response:
        headers = {b"authorization": credential}
        return await self._http.get(url(self.gateway) + FILE, headers=headers)

    async def ask(self, token: str) -> int:
        answer = await self.present(b"Bearer " + token.encode())
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
        return answer.status_code

    async def becomes(self, token: str, status: int) -> Counter[int]:
        """Ask until the answer is *status*; return what was answered meanwhile."""
        seen = Counter[int]()
        async with asyncio.timeout(PATIENCE):
            while (now := await self.ask(token)) != status:
                seen[now] += 1
                await asyncio.sleep(0.02)
        return seen

    async def dies(self, token: str) -> None:
        """Ask until *token* is refused, whose key was withdrawn before this call.

        The set that is being read just now may still be the old one; the one after it
        is not, and from when that is loaded no request is let through.
        """
        loaded = self.refreshes()
        async with asyncio.timeout(PATIENCE):
            while True:
                before = self.refreshes()
                status = await self.ask(token)
                if status == 401:
                    return
                assert (status, before - loaded < 2) == (200, True)
                await asyncio.sleep(0.02)

    def states(self) -> dict[str | None, str]:
        (corp,) = self.gateway.engine.key_report().issuers
        return {key.key_id: key.state for key in corp.keys}

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                await asyncio.sleep(0.02)

    def refreshes(self) -> float:
        """Return how often the keys were loaded."""
        return next(
            value
            for family, labels, value in self.gateway.engine.keys.measure()
            if family is KEYS_REFRESHES and labels[1] == "loaded"
        )


@contextlib.asynccontextmanager
async def house(
    directory: Path, provider: str, *, cache: str = "300ms"
) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            issuer: Issuing = await stack.enter_async_context(
                PROVIDERS[provider].running()  # type: ignore[attr-defined]
            )
        except Missing as why:
            pytest.skip(f"{provider}: {why}")
        await issuer.tell(OLD, OLD)
        backend = await stack.enter_async_context(running(echoing))
        site = Site(directory, f"http://127.0.0.1:{backend.port}")
        config = site.write()
        secret = directory / "client-secret"
        secret.write_text(SECRET, encoding="utf-8")
        secret.chmod(0o600)
        text = config.read_text(encoding="utf-8")
        start, end = text.index("[issuer.corp]"), text.index("[identity]")
        given = ISSUER.format(
            url=issuer.url, audience="https://api.test.example", cache=cache
        )
        config.write_text(text[:start] + given + text[end:], encoding="utf-8")
        timed = partial(JwksClient, timing=QUICK)
        stack.enter_context(patch("gateway.app.JwksClient", timed))
        stack.enter_context(patch.object(Site, "write", lambda _: config))
        gateway = await stack.enter_async_context(site.running())
        http = await stack.enter_async_context(
            httpx2.AsyncClient(trust_env=False, timeout=PATIENCE)
        )
        yield House(issuer, gateway, backend, http)


@pytest.fixture(params=PROVIDERS if FULL else ["our own"])
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_every_kind_of_token_is_taken(tmp_path: Path, provider: str) -> None:
    """JWTs of three algorithms by their signature, an opaque one by asking."""
    async with house(tmp_path, provider) as home:
        for kind in (*ALGORITHMS, "opaque"):
            token = await home.issuer.issue(kind)
            assert (token.count("."), kind == "opaque") in {(2, False), (0, True)}
            assert await home.ask(token) == 200
            request = home.backend.requests[-1]
            assert request.value(b"x-auth-request-user") == kind.encode()
            assert request.values(b"authorization") == []

        assert await home.ask("an-invented-token") == 401
        forged = make.token(make.key("ES256", "mallory"), {"iss": home.issuer.url})
        assert await home.ask(forged) == 401
        assert home.states() == {key.key_id: "current" for key in OLD}


async def test_a_token_that_its_issuer_ends_is_good_for_one_answer_more(
    tmp_path: Path, provider: str
) -> None:
    """Until what was answered no longer counts: `cache`."""
    async with house(tmp_path, provider) as home:
        token = await home.issuer.issue("opaque")
        assert await home.ask(token) == 200
        await home.issuer.revoke(token)

        assert (await home.becomes(token, 401)).keys() <= {200}


async def test_a_rotation_is_noticed_by_nobody(tmp_path: Path, provider: str) -> None:
    """Published, then signed with, then alone: no request is refused meanwhile."""
    async with house(tmp_path, provider) as home:
        statuses = Counter[int]()
        shown: list[str] = []
        stopping = asyncio.Event()

        async def caller(number: int) -> None:
            while not stopping.is_set():
                token = await home.issuer.issue(ALGORITHMS[number % len(ALGORITHMS)])
                shown.append(token)
                for each in (token, shown[0]):
                    statuses[await home.ask(each)] += 1

        async def more(calls: int) -> None:
            wanted = statuses.total() + calls
            await home.until(lambda: statuses.total() >= wanted)

        calling = asyncio.gather(*(caller(number) for number in range(6)))
        await more(30)
        await home.issuer.tell([*OLD, *NEW], OLD)
        await home.until(lambda: home.states().get(NEW[0].key_id) == "next")
        await home.issuer.tell([*OLD, *NEW], NEW)
        await more(30)
        assert home.states() == {key.key_id: "current" for key in (*OLD, *NEW)}
        stopping.set()
        await calling
        assert statuses.keys() == {200}

        # Both are in the cache; only one of them loses its key.
        first, last = shown[0], shown[-1]
        await home.issuer.tell(NEW, NEW)
        dying = asyncio.ensure_future(home.dies(first))
        while not dying.done():
            assert await home.ask(last) == 200
        await dying
        assert await home.ask(last) == 200
        assert {home.states()[key.key_id] for key in OLD} == {"previous"}


async def test_an_issuer_that_is_away_makes_nobody_a_stranger(
    tmp_path: Path, provider: str
) -> None:
    """200 by the keys that are held, 503 for what has to be asked; never 401."""
    async with house(tmp_path, provider) as home:
        jwt, unseen = [await home.issuer.issue("ES256") for _ in "12"]
        opaque = await home.issuer.issue("opaque")
        assert [await home.ask(each) for each in (jwt, opaque)] == [200, 200]
        claims = {"iss": home.issuer.url, "aud": "x", "sub": "x", "exp": 2**31}
        stranger = make.token(make.key("ES256", "stranger"), claims)
        await home.issuer.away()

        assert await home.ask(jwt) == 200
        assert await home.ask(unseen) == 200
        assert (await home.becomes(opaque, 503)).keys() <= {200}
        assert await home.ask("an-invented-token") == 503
        # For a moment it is not asked again, and is not known to be away.
        await home.until(
            lambda: bool(home.gateway.engine.key_report().issuers[0].trouble)
        )
        assert await home.ask(stranger) == 503
        assert [await home.ask(each) for each in (jwt, unseen)] == [200, 200]

        # It comes back, and one generation of its keys has been withdrawn meanwhile.
        await home.issuer.tell(NEW, NEW)
        await home.dies(jwt)
        assert (await home.becomes(opaque, 200)).keys() <= {503}
        assert await home.ask(unseen) == 401
        assert await home.ask(stranger) == 401
        assert await home.ask(await home.issuer.issue("EdDSA")) == 200


MALFORMED = [
    *(
        "a",
        "=",
        "a=",
        "a==",
        "~",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        "a.b.c.d.e.f",
    ),
    *(".", "..", "...", "....", "-._~+/", "gAAAAA", "ghp_0", "undefined", "null"),
    *("a b", "a,b", "a\tb", "a;b", '"a"', "a%00", "a=b", "\xe9", "{}", "'; --", "\\"),
    *("x" * 8_192, "x" * 8_193, "." * 8_192, "eyJ" * 2_730),
]


async def test_whatever_is_no_token_is_told_so_in_the_same_words(
    tmp_path: Path, provider: str
) -> None:
    """400 where it can't be one, 401 where it could; never an error of ours (I5)."""
    async with house(tmp_path, provider) as home:
        seen: dict[int, set[str]] = {}
        for text in MALFORMED:
            value = b"Bearer " + text.encode("latin-1")
            answer = await home.present(value)
            body = answer.json()
            body.pop("instance")
            seen.setdefault(answer.status_code, set()).add(str(body))

    assert seen.keys() == {400, 401}
    assert all(len(bodies) == 1 for bodies in seen.values())

"""gateway.adapters.introspection: an issuer is asked, and asked no more than it bears.

What an answer means is in tests/tokens/test_introspection.py.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from gateway.adapters.introspection import Bounds, IntrospectionClient
from gateway.clock import Clock
from gateway.config.settings import Introspection, Issuer, KeySource
from gateway.model import IntrospectionNeeded, Unavailable
from gateway.tokens.introspection import MAX_ANSWER
from tests.adapters.provider import Answer, Provider, Ticks, answer

SECRET = "s3cr3t & more:"
JSON = "content-type: application/json"
ALICE = {"active": True, "sub": "alice"}


def saying(body: Any, status: str = "200 OK", *fields: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(raw, status, *(fields or (JSON,)))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """Serve one on loopback, to which every token is Alice's."""
    found = Provider()
    found.answers["/introspect"] = saying(ALICE)
    async with found.serving():
        yield found


def issuer(base: str, name: str = "corp", **more: Any) -> Issuer:
    options = {"url": f"{base}/introspect", "timeout": 5.0, **more}
    return Issuer(
        name=name,
        issuer=base,
        keys=KeySource(),
        audience=frozenset({"shop"}),
        introspection=Introspection("gate & way", SECRET, **options),
    )


@contextlib.asynccontextmanager
async def client_of(
    *issuers: Issuer, ticks: Ticks | None = None, **more: Any
) -> AsyncIterator[IntrospectionClient]:
    clock = Clock(wall=lambda: 0.0, monotonic=ticks or Ticks())
    client = IntrospectionClient(issuers, clock, **more)
    try:
        yield client
    finally:
        await client.aclose()


def need(
    token: str = "tok", name: str = "corp", client: str = ""
) -> IntrospectionNeeded:
    return IntrospectionNeeded(name, token, client)


def measured(client: IntrospectionClient) -> dict[str, float]:
    return {labels[-1]: value for _, labels, value in client.measure()}


async def test_the_issuer_is_asked(provider: Provider) -> None:
    """The token is in the form; we are in Authorization, as RFC 6749 2.3.1 says."""
    async with client_of(issuer(provider.url)) as client:
        assert await client.ask(need("a+b/c=")) == ALICE

    (head,), (body,) = provider.heads, provider.bodies
    assert head.startswith("POST /introspect HTTP/1.1\r\n")
    assert parse_qs(body.decode()) == {
        "token": ["a+b/c="],
        "token_type_hint": ["access_token"],
    }
    both = base64.b64encode(b"gate+%26+way:s3cr3t+%26+more%3A").decode()
    assert f"\r\nAuthorization: Basic {both}\r\n".lower() in head.lower()


async def test_client_and_secret_may_stand_in_the_form(provider: Provider) -> None:
    """`auth = "post"`, for servers that ask for it so."""
    async with client_of(issuer(provider.url, auth="post")) as client:
        assert await client.ask(need()) == ALICE

    (head,), (body,) = provider.heads, provider.bodies
    assert "authorization" not in head.lower()
    assert parse_qs(body.decode()) == {
        "token": ["tok"],
        "token_type_hint": ["access_token"],
        "client_id": ["gate & way"],
        "client_secret": [SECRET],
    }


async def test_what_is_not_active_is_asked_about_each_time(provider: Provider) -> None:
    """A refusal is kept by nobody: the next answer may be another (R65)."""
    async with client_of(issuer(provider.url)) as client:
        provider.answers["/introspect"] = saying({"active": False})
        assert await client.ask(need()) is None
        assert await client.ask(need()) is None
        provider.answers["/introspect"] = saying(ALICE)
        assert await client.ask(need()) == ALICE

    assert provider.asked == 3


class Gate:
    """Answers that wait until they are let through."""

    def __init__(self, reply: bytes) -> None:
        self.opened = asyncio.Event()
        self._reply = reply

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        await self.opened.wait()
        writer.write(self._reply)


async def asked(provider: Provider, times: int) -> None:
    """Wait until so many questions have come in."""
    async with asyncio.timeout(10):
        while provider.asked < times:
            await asyncio.sleep(0.001)


async def test_everybody_waits_for_the_same_answer(provider: Provider) -> None:
    """A hundred requests with one token are one question; another token is another."""
    provider.answers["/introspect"] = gate = Gate(saying(ALICE))
    async with client_of(issuer(provider.url)) as client:
        waiting = asyncio.gather(*(client.ask(need()) for _ in range(100)))
        other = asyncio.ensure_future(client.ask(need("tok2")))
        await asked(provider, 2)
        assert measured(client)["corp"] == 2
        gate.opened.set()

        assert await waiting == [ALICE] * 100
        assert await other == ALICE
        assert provider.asked == 2
        assert measured(client) == {
            "active": 2,
            "inactive": 0,
            "failed": 0,
            "not_asked": 0,
            "corp": 0,
        }


async def test_a_client_that_hangs_up_stops_nobody_else(provider: Provider) -> None:
    """The question belongs to all who wait for it."""
    provider.answers["/introspect"] = gate = Gate(saying(ALICE))
    async with client_of(issuer(provider.url)) as client:
        first, second = (asyncio.ensure_future(client.ask(need())) for _ in "12")
        await asked(provider, 1)
        first.cancel()
        await asyncio.sleep(0)
        gate.opened.set()

        assert await second == ALICE
        assert first.cancelled()


async def test_one_token_at_two_issuers_is_two_questions(provider: Provider) -> None:
    """What one of them says counts for it alone (R65)."""
    other = Provider()
    other.answers["/introspect"] = saying({"active": False})
    async with (
        other.serving(),
        client_of(issuer(provider.url), issuer(other.url, "other")) as client,
    ):
        found = await asyncio.gather(client.ask(need()), client.ask(need(name="other")))

    assert list(found) == [ALICE, None]


async def hang_up(_writer: asyncio.StreamWriter) -> None:
    """Say nothing."""


async def wait(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


BAD: dict[str, tuple[Answer, str]] = {
    "an error": (saying(ALICE, "500 Oh"), "status 500"),
    "too many": (saying(ALICE, "429 Slow down"), "status 429"),
    "we are unknown": (saying({"error": "invalid_client"}, "401 No"), "status 401"),
    "a redirect": (answer(b"", "307 Go", "location: /x"), "status 307"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
    "not JSON": (saying(b"CANARY"), "strict JSON"),
    "a page": (saying(ALICE, "200 OK", "content-type: text/html"), "application/json"),
    "active as a word": (saying({"active": "true"}), "not a boolean"),
    "nothing said": (saying({}), "not a boolean"),
    "more than fits": (saying(b" " * (MAX_ANSWER + 1)), "more than"),
    "an end too soon": (hang_up, "RemoteProtocolError"),
    "no answer": (wait, "no answer in time"),
}


@pytest.mark.parametrize("row", BAD)
async def test_an_outage_or_nonsense_is_nobodys_bad_token(
    provider: Provider, row: str, caplog: pytest.LogCaptureFixture
) -> None:
    """503, never 401; said once, without a word of what was received."""
    reply, why = BAD[row]
    provider.answers["/introspect"] = reply
    timeout = 1.0 if reply is wait else 5.0
    async with client_of(issuer(provider.url, timeout=timeout)) as client:
        for _ in range(2):
            with pytest.raises(Unavailable) as outage:
                await client.ask(need())
            assert outage.value.dependency == "introspection by issuer corp"
            assert outage.value.retry_after >= 1
        assert why in client.troubles()["corp"]
        assert caplog.text.count(why) == 1
        assert "CANARY" not in caplog.text
        assert measured(client)["failed"] == 2

        provider.answers["/introspect"] = saying(ALICE)
        assert await client.ask(need()) == ALICE
        assert client.troubles() == {"corp": ""}


async def test_each_who_waits_has_an_outage_of_his_own(provider: Provider) -> None:
    """It is given the route and the principal of one request."""
    provider.answers["/introspect"] = saying({}, "500 Oh")
    async with client_of(issuer(provider.url)) as client:
        one, two = await asyncio.gather(
            client.ask(need()), client.ask(need()), return_exceptions=True
        )

    assert provider.asked == 1
    assert isinstance(one, Unavailable)
    assert isinstance(two, Unavailable)
    assert one is not two


async def test_one_that_is_away_is_not_waited_for_by_everybody(
    provider: Provider,
) -> None:
    """After five in a row it is left alone; then one question finds out."""
    ticks = Ticks()
    provider.answers["/introspect"] = hang_up
    async with client_of(issuer(provider.url), ticks=ticks) as client:

        async def fails() -> None:
            with pytest.raises(Unavailable):
                await client.ask(need())

        for _ in range(20):
            await fails()
        assert provider.asked == 5
        assert measured(client)["not_asked"] == 15

        ticks.now += 1
        provider.answers["/introspect"] = gate = Gate(saying(ALICE))
        probe = asyncio.ensure_future(client.ask(need("probe")))
        await asked(provider, 6)
        await fails()  # while the probe is on its way
        assert provider.asked == 6
        gate.opened.set()
        assert await probe == ALICE
        assert await client.ask(need()) == ALICE


async def test_a_probe_that_fails_is_followed_by_another_rest(
    provider: Provider,
) -> None:
    """And the one after that finds it back."""
    ticks = Ticks()
    provider.answers["/introspect"] = hang_up
    async with client_of(issuer(provider.url), ticks=ticks) as client:
        for later, questions in ((0.0, 5), (0.9, 5), (0.2, 6), (0.9, 6), (0.2, 7)):
            ticks.now += later
            for _ in range(6):
                with pytest.raises(Unavailable):
                    await client.ask(need())
            assert provider.asked == questions


async def test_a_token_that_breaks_the_server_harms_no_other(
    provider: Provider,
) -> None:
    """An answer that makes no sense costs no time: nobody is kept from asking."""
    provider.answers["/introspect"] = saying({}, "500 Oh")
    async with client_of(issuer(provider.url)) as client:
        for number in range(20):
            with pytest.raises(Unavailable):
                await client.ask(need(f"bad{number}"))
        provider.answers["/introspect"] = saying(ALICE)

        assert await client.ask(need()) == ALICE
    assert provider.asked == 21


async def test_a_flood_of_invented_tokens_is_bounded(provider: Provider) -> None:
    """So many at once, so many waiting; the next ones are told at once."""
    provider.answers["/introspect"] = gate = Gate(saying({"active": False}))
    bounds = Bounds(at_once=3, waiting=10, turn=60)
    async with client_of(issuer(provider.url), bounds=bounds) as client:
        flood = asyncio.gather(
            *(client.ask(need(f"t{number}")) for number in range(1_000)),
            return_exceptions=True,
        )
        await asked(provider, 3)
        assert measured(client)["corp"] == 10
        assert measured(client)["not_asked"] == 990
        gate.opened.set()
        found = await flood

        assert found[:10] == [None] * 10
        assert all(isinstance(each, Unavailable) for each in found[10:])
        assert provider.asked == 10


async def test_a_slow_flood_of_invented_tokens_is_bounded_too(
    provider: Provider,
) -> None:
    """R100: so many a second were asked about in vain; what is active is not counted.

    Neither is what was not asked about after all.
    """
    ticks = Ticks()
    bounds = Bounds(at_once=1, turn=0.01, in_vain=2, in_vain_at_once=3)
    async with client_of(issuer(provider.url), ticks=ticks, bounds=bounds) as client:
        for number in range(10):
            assert await client.ask(need(f"good{number}")) == ALICE
        provider.answers["/introspect"] = gate = Gate(saying({"active": False}))
        first = asyncio.ensure_future(client.ask(need("bad0")))
        await asked(provider, 11)
        with pytest.raises(Unavailable):
            await client.ask(need("has no turn"))
        gate.opened.set()
        assert await first is None
        for number in (1, 2):
            assert await client.ask(need(f"bad{number}")) is None
        for _ in range(1000):
            with pytest.raises(Unavailable) as outage:
                await client.ask(need("bad3"))
        assert outage.value.dependency == "introspection by issuer corp"
        assert provider.asked == 13
        ticks.now += 1
        for number in (3, 4):
            assert await client.ask(need(f"bad{number}")) is None
        with pytest.raises(Unavailable):
            await client.ask(need("bad5"))
    assert provider.asked == 15


async def test_who_asks_in_vain_uses_up_his_share_and_nobody_elses(
    provider: Provider,
) -> None:
    """R100: another client is answered, whose token nobody has seen before."""
    bounds = Bounds(in_vain=8, in_vain_at_once=8)
    async with client_of(issuer(provider.url), ticks=Ticks(), bounds=bounds) as client:
        provider.answers["/introspect"] = saying({"active": False})
        for number in range(4):
            bad = need(f"bad{number}", client="192.0.2.1")
            assert await client.ask(bad) is None
        for number in range(100):
            with pytest.raises(Unavailable):
                await client.ask(need(f"worse{number}", client="192.0.2.1"))
        provider.answers["/introspect"] = saying(ALICE)
        for number in range(100):
            good = need(f"good{number}", client="192.0.2.2")
            assert await client.ask(good) == ALICE


async def test_what_was_not_asked_after_all_is_nobodys_share(
    provider: Provider,
) -> None:
    """Who had no turn has cost the issuer nothing, and may come again."""
    provider.answers["/introspect"] = gate = Gate(saying({"active": False}))
    bounds = Bounds(at_once=1, turn=0.01, in_vain=0, in_vain_at_once=4)
    async with client_of(issuer(provider.url), ticks=Ticks(), bounds=bounds) as client:
        first = asyncio.ensure_future(client.ask(need("bad0", client="192.0.2.1")))
        await asked(provider, 1)
        for number in range(5):
            with pytest.raises(Unavailable):
                await client.ask(need(f"no turn {number}", client="192.0.2.1"))
        gate.opened.set()
        assert await first is None
        assert await client.ask(need("bad1", client="192.0.2.1")) is None
        with pytest.raises(Unavailable):
            await client.ask(need("bad2", client="192.0.2.1"))
    assert provider.asked == 2


async def test_nobody_waits_for_his_turn_for_long(provider: Provider) -> None:
    """A slow issuer is a busy one; that is not held against it."""
    provider.answers["/introspect"] = gate = Gate(saying(ALICE))
    bounds = Bounds(at_once=1, turn=0.05, failures=1)
    async with client_of(issuer(provider.url), bounds=bounds) as client:
        first = asyncio.ensure_future(client.ask(need("first")))
        await asked(provider, 1)
        with pytest.raises(Unavailable):
            await client.ask(need())
        gate.opened.set()

        assert await first == ALICE
        assert await client.ask(need()) == ALICE
        assert measured(client)["not_asked"] == 1


async def test_who_waits_for_a_turn_is_told_when_it_is_away(
    provider: Provider,
) -> None:
    """Those before have found out."""
    provider.answers["/introspect"] = hang_up
    bounds = Bounds(at_once=1, turn=60, failures=2)
    async with client_of(issuer(provider.url), bounds=bounds) as client:
        found = await asyncio.gather(
            *(client.ask(need(f"t{number}")) for number in range(50)),
            return_exceptions=True,
        )

        assert all(isinstance(each, Unavailable) for each in found)
        assert provider.asked == 2
        assert measured(client)["not_asked"] == 48


async def test_a_stop_ends_what_is_being_asked(provider: Provider) -> None:
    """Whoever waits is told that there is no answer."""
    provider.answers["/introspect"] = wait
    async with client_of(issuer(provider.url)) as client:
        asking = asyncio.ensure_future(client.ask(need()))
        await asked(provider, 1)

    with pytest.raises(Unavailable):
        await asking


class Net(httpx2.AsyncBaseTransport):
    """The internet: a discovery document, and an endpoint that it names."""

    def __init__(self, endpoint: str) -> None:
        self.document = {"issuer": "https://id.example"}
        self.document["introspection_endpoint"] = endpoint
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url))
        is_document = "openid-configuration" in request.url.path
        said = self.document if is_document else ALICE
        return httpx2.Response(
            200,
            headers={"content-type": "application/json"},
            stream=httpx2.ByteStream(json.dumps(said).encode()),
        )


async def test_where_to_ask_can_be_discovered() -> None:
    """For an hour; the address is judged each time, and is the one connected to."""
    net, ticks = Net("https://login.example/introspect"), Ticks()

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34"]

    corp = issuer("https://id.example", url=None)
    async with client_of(corp, ticks=ticks, transport=net, resolve=resolve) as client:
        first = (client.ask(need(f"t{number}")) for number in range(3))
        assert await asyncio.gather(*first) == [ALICE] * 3
        for later in (3_599, 1):
            ticks.now += later
            assert await client.ask(need()) == ALICE

    document = "https://id.example/.well-known/openid-configuration"
    endpoint = "https://93.184.216.34/introspect"
    assert net.asked == [document, *[endpoint] * 4, document, endpoint]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
async def test_a_discovered_url_takes_no_token_into_an_inner_network(
    address: str,
) -> None:
    """Nor our secret: the document is the issuer's word, not the operator's."""
    net = Net("https://login.example/introspect")

    async def resolve(_host: str, _port: int) -> list[str]:
        return [address]

    corp = issuer("https://id.example", url=None)
    async with client_of(corp, transport=net, resolve=resolve) as client:
        with pytest.raises(Unavailable):
            await client.ask(need())
        assert "inside a network" in client.troubles()["corp"]
    assert len(net.asked) == 1


async def test_a_mistake_of_ours_is_an_outage_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By its type alone: the text could be the token's, which has no shape."""

    async def resolve(_host: str, _port: int) -> list[str]:
        raise RuntimeError("tok")

    corp = issuer("https://id.example", url=None)
    net = Net("https://login.example/introspect")
    async with client_of(corp, transport=net, resolve=resolve) as client:
        with pytest.raises(Unavailable):
            await client.ask(need())
        assert client.troubles()["corp"] == "a mistake: RuntimeError"
    assert "RuntimeError: tok" not in caplog.text


@pytest.mark.parametrize(
    ("more", "why"),
    [({"url": "http://id.example/"}, "https"), ({"ca_file": "/nowhere"}, "ca_file")],
)
def test_what_can_not_be_used_is_refused_at_start(
    more: dict[str, Any], why: str
) -> None:
    """With the issuer's name and the reason."""
    clock = Clock(lambda: 0.0, lambda: 0.0)
    with pytest.raises(ValueError, match=f"introspection of corp: .*{why}"):
        IntrospectionClient([issuer("https://id.example", **more)], clock)


@pytest.fixture(autouse=True)
def _loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateway.introspection")

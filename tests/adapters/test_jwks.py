"""gateway.adapters.jwks: keys come from their source, and nothing else comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from joserfc import jwk

from bench.ports import free_port
from gateway.adapters.jwks import MAX_GONE, JwksClient
from gateway.adapters.key_sources import Timing
from gateway.clock import Clock
from gateway.config.settings import Issuer, KeySource
from gateway.model import KeyNeeded, Unavailable, VerificationKey
from gateway.tokens.jwks import MAX_SET, KeyRefused
from tests.adapters.provider import Answer, Provider, Ticks, answer
from tests.tokens import make

OLD, NEW = make.key("ES256", "old"), make.key("ES256", "new")
PATIENT = Timing(answer=5.0)  # the machine may be busy
HASTY = Timing(answer=0.2)  # where the answer is late on purpose


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """Serve one on loopback."""
    found = good_provider()
    async with found.serving():
        yield found


def good_provider() -> Provider:
    found = Provider()
    found.answers["/jwks"] = answer(make.jwks(OLD))
    return found


def issuer(url: str = "", name: str = "corp", **keys: Any) -> Issuer:
    if not keys:
        keys = {"jwks_url": f"{url}/jwks"}
    return Issuer(
        name=name,
        issuer=url or "https://id.example",
        keys=KeySource(**keys),
        audience=frozenset({"shop"}),
        algorithms=frozenset({"ES256"}),
        token_types=frozenset({"at+jwt"}),
    )


@contextlib.asynccontextmanager
async def client_of(
    *issuers: Issuer, ticks: Ticks | None = None, **options: Any
) -> AsyncIterator[JwksClient]:
    monotonic = ticks or Ticks()
    options = {"timing": PATIENT, **options}
    client = JwksClient(
        issuers, Clock(wall=lambda: 0.0, monotonic=monotonic), **options
    )
    try:
        yield client
    finally:
        await client.aclose()


def need(key_id: str | None = "old", name: str = "corp") -> KeyNeeded:
    return KeyNeeded(name, key_id, "ES256")


def published(key: make.Key) -> VerificationKey:
    return key.verifying


async def test_a_key_is_fetched_once_and_then_found(provider: Provider) -> None:
    """Nothing is waited for twice."""
    async with client_of(issuer(provider.url)) as client:
        assert client.find("corp", "old", "ES256") is None
        assert client.is_empty("corp")
        assert client.health("corp") == "no keys: not loaded yet"

        assert await client.fetch(need()) == published(OLD)
        assert client.find("corp", "old", "ES256") == published(OLD)
        assert await client.fetch(need()) == published(OLD)

        assert provider.asked == 1
        assert not client.is_empty("corp")
        assert client.health("corp") is None


async def test_everybody_waits_for_the_same_answer(provider: Provider) -> None:
    """A hundred requests with a new key are one fetch."""
    async with client_of(issuer(provider.url)) as client:
        found = await asyncio.gather(*(client.fetch(need()) for _ in range(100)))

        assert found == [published(OLD)] * 100
        assert provider.asked == 1


async def test_ten_thousand_unknown_keys_are_one_fetch(provider: Provider) -> None:
    """In 30 seconds and for each issuer; an honest token is served all the while."""
    ticks = Ticks()
    async with client_of(issuer(provider.url), ticks=ticks) as client:
        await client.start()
        ticks.now += 31
        for number in range(10_000):
            assert await client.fetch(need(f"k{number}")) is None
            ticks.now += 0.002
        assert client.find("corp", "old", "ES256") == published(OLD)
        assert provider.asked == 2

        ticks.now += 30
        await asyncio.gather(*(client.fetch(need(f"k{n}")) for n in range(100)))
        assert provider.asked == 3


async def test_a_new_key_is_accepted_when_the_first_token_names_it(
    provider: Provider,
) -> None:
    """Rotation: published first, signed with later, and known in one refresh."""
    ticks = Ticks()
    async with client_of(issuer(provider.url), ticks=ticks) as client:
        await client.start()
        provider.answers["/jwks"] = answer(make.jwks(OLD, NEW))
        assert await client.fetch(need("new")) is None

        ticks.now += 30
        assert await client.fetch(need("new")) == published(NEW)


async def test_a_withdrawn_key_is_gone_and_told(provider: Provider) -> None:
    """Whoever remembers tokens of that issuer can forget them then."""
    ticks, told = Ticks(), list[tuple[str, bool]]()

    def on_change(name: str) -> None:
        told.append((name, client.find(name, "old", "ES256") is None))

    async with client_of(
        issuer(provider.url), ticks=ticks, on_change=on_change
    ) as client:
        for keys in ((OLD,), (OLD, NEW), (NEW,), (NEW,)):
            provider.answers["/jwks"] = answer(make.jwks(*keys))
            await client.start()

        assert told == [("corp", True)]
        assert client.find("corp", "new", "ES256") == published(NEW)


async def test_a_key_has_a_life(provider: Provider) -> None:
    """Published, used, withdrawn; one that comes back begins anew."""
    ticks = Ticks()

    async def become(*keys: make.Key) -> list[tuple[str | None, str]]:
        provider.answers["/jwks"] = answer(make.jwks(*keys))
        await client.start()
        (told,) = client.status()
        return [(key.key_id, key.state) for key in told.keys]

    def use(name: str) -> None:
        key = client.find("corp", name, "ES256")
        assert key is not None
        client.used("corp", key)

    async with client_of(issuer(provider.url), ticks=ticks) as client:
        assert await become(OLD) == [("old", "next")]
        use("old")
        assert await become(OLD, NEW) == [("old", "current"), ("new", "next")]
        use("new")
        ticks.now += 7
        assert await become(NEW) == [("old", "previous"), ("new", "current")]
        ticks.now += 1
        assert await become(NEW) == [("old", "previous"), ("new", "current")]
        (told,) = client.status()
        old, new = told.keys
        # The wall's clock shows 0 while the other one shows what it does.
        assert (old.seen_at, old.gone_at) == (-8, -1)
        assert (new.seen_at, new.gone_at) == (-8, None)
        assert (told.refreshed_at, told.refresh_at) == (0, 300)
        assert (told.name, told.source, told.trouble) == ("corp", "url", "")
        assert new.algorithms == ("ES256",)
        assert new.thumbprint == joserfc_thumbprint(NEW)

        assert await become(OLD, NEW) == [("old", "next"), ("new", "current")]


def joserfc_thumbprint(key: make.Key) -> str:
    return jwk.import_key({**key.jwk}).thumbprint()


async def test_withdrawn_keys_are_remembered_for_a_while(provider: Provider) -> None:
    """The last ten of them, however often an issuer rotates."""
    ticks = Ticks()
    async with client_of(issuer(provider.url), ticks=ticks) as client:
        for number in range(MAX_GONE + 3):
            key = replace(OLD, key_id=f"k{number}")
            provider.answers["/jwks"] = answer(make.jwks(key))
            await client.start()
            ticks.now += 1
        (told,) = client.status()

    assert [key.key_id for key in told.keys if key.state == "previous"] == [
        f"k{number}" for number in range(2, MAX_GONE + 2)
    ]


async def test_what_the_configuration_holds_is_told_too(provider: Provider) -> None:
    """Of a secret no thumbprint, and when nothing was ever loaded no time."""
    home = replace(
        issuer(name="home", secret=os.urandom(32)), algorithms=frozenset({"HS256"})
    )
    provider.answers["/jwks"] = answer(b"", "500 Oh")
    own = issuer(name="own", pem=OLD.pem)
    async with client_of(home, own, issuer(provider.url)) as client:
        secret, pem, away = client.status()
        await client.start()
        failed = client.status()[2]

    assert (secret.source, pem.source, away.source) == ("secret", "pem", "url")
    assert [key.thumbprint for key in secret.keys] == [""]
    assert [key.thumbprint for key in pem.keys] == [joserfc_thumbprint(OLD)]
    assert (secret.refreshed_at, secret.refresh_at) == (None, None)
    assert (away.keys, away.refreshed_at, away.trouble) == ((), None, "")
    assert failed.trouble == "status 500"


async def test_only_what_is_held_counts(provider: Provider) -> None:
    """By what a key is, not by which reading of a document it came from."""
    async with client_of(issuer(provider.url)) as client:
        assert not client.holds("corp", published(OLD))
        await client.start()
        assert client.holds("corp", published(OLD))
        assert not client.holds("corp", published(NEW))
        assert not client.holds("corp", replace(published(OLD), key_id="other"))


async def wait(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a little, again and again, so that no single wait is long."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(writer: asyncio.StreamWriter) -> None:
    """Send without end, and without saying how much."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 65_536)
        await writer.drain()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")


BAD: dict[str, tuple[Answer, str]] = {
    "a redirect": (
        answer(b"", "302 Found", "location: /elsewhere"),
        "status 302",
    ),
    "not found": (answer(make.jwks(OLD), "404 Not Found"), "status 404"),
    "an error": (answer(b"", "500 Oh"), "status 500"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
    "more than fits": (answer(b" " * (MAX_SET + 1)), "bytes"),
    "no end": (flood, "bytes"),
    "no answer": (wait, "no answer in time"),
    "an answer in drops": (drip, "no answer in time"),
    "an end too soon": (hang_up, "RemoteProtocolError"),
    "not HTTP": (b"\x16\x03\x01 CANARY\r\n\r\n", "RemoteProtocolError"),
    "compressed": (
        answer(make.jwks(OLD), "200 OK", "content-encoding: gzip"),
        "compressed",
    ),
    "not JSON": (answer(b"<html>CANARY</html>"), "strict JSON"),
    "no keys": (answer(b'{"keys":[]}'), "no usable key"),
    "no usable key": (answer(make.jwks(make.key("ES384"))), "algorithms"),
    "two keys of one name": (answer(make.jwks(OLD, OLD)), "same name"),
}


def timing_for(reply: Answer) -> Timing:
    return HASTY if reply in {wait, drip} else PATIENT


@pytest.mark.parametrize("row", BAD)
async def test_a_source_that_fails_at_first_is_an_outage(
    provider: Provider, row: str, caplog: pytest.LogCaptureFixture
) -> None:
    """503 and not 401: we can't know whether the token is good."""
    reply, why = BAD[row]
    provider.answers = {"/jwks": reply, "/elsewhere": answer(make.jwks(OLD))}
    loop = asyncio.get_running_loop()
    async with client_of(issuer(provider.url), timing=timing_for(reply)) as client:
        begun = loop.time()
        with pytest.raises(Unavailable) as outage:
            await client.fetch(need())

        assert loop.time() - begun < 4
        assert outage.value.dependency == "issuer corp"
        assert provider.asked == 1
        assert client.is_empty("corp")
        assert why in (client.health("corp") or "")
        assert why in caplog.text
        assert "CANARY" not in caplog.text


@pytest.mark.parametrize("row", BAD)
async def test_the_last_good_keys_are_kept(provider: Provider, row: str) -> None:
    """Whatever becomes of the source, known keys verify; the others are an outage."""
    ticks = Ticks()
    reply, why = BAD[row]
    async with client_of(
        issuer(provider.url), ticks=ticks, timing=timing_for(reply)
    ) as client:
        # What is at hand is at hand, however slow this machine is just now.
        while client.is_empty("corp"):
            await client.start()
        provider.answers["/jwks"] = reply
        ticks.now += 600
        with pytest.raises(Unavailable):
            await client.fetch(need("new"))

        assert client.find("corp", "old", "ES256") == published(OLD)
        assert await client.fetch(need("old")) == published(OLD)
        assert why in (client.health("corp") or "")
        assert not client.is_empty("corp")

        provider.answers["/jwks"] = answer(make.jwks(NEW))
        ticks.now += 30
        assert await client.fetch(need("new")) == published(NEW)
        assert client.health("corp") is None


async def test_age_and_failures_can_be_watched(provider: Provider) -> None:
    """An age that grows, and failures, tell of a source that is away."""
    ticks = Ticks()
    own = issuer(name="own", pem=OLD.pem)

    def measured() -> dict[tuple[str, ...], float]:
        return {
            (family.name, *labels): value for family, labels, value in client.measure()
        }

    async with client_of(issuer(provider.url), own, ticks=ticks) as client:
        # No age where nothing was ever loaded, nor of keys that are configured.
        assert measured() == {
            ("gateway_jwks_keys", "corp"): 0,
            ("gateway_jwks_refreshes_total", "corp", "loaded"): 0,
            ("gateway_jwks_refreshes_total", "corp", "failed"): 0,
            ("gateway_jwks_keys", "own"): 1,
        }
        await client.start()
        provider.answers["/jwks"] = answer(b"", "500 No")
        ticks.now += 600
        await client.start()

        assert measured() == {
            ("gateway_jwks_keys", "corp"): 1,
            ("gateway_jwks_age_seconds", "corp"): 600,
            ("gateway_jwks_refreshes_total", "corp", "loaded"): 1,
            ("gateway_jwks_refreshes_total", "corp", "failed"): 1,
            ("gateway_jwks_keys", "own"): 1,
        }


async def test_a_source_that_is_away_is_asked_once_a_second() -> None:
    """While nothing was ever loaded; those between are told at once."""
    ticks, provider = Ticks(), good_provider()
    async with provider.serving():
        provider.answers["/jwks"] = answer(b"", "503 Away")
        async with client_of(issuer(provider.url), ticks=ticks) as client:
            for later, asked in ((0.0, 1), (0.5, 1), (0.6, 2)):
                ticks.now += later
                with pytest.raises(Unavailable):
                    await client.fetch(need())
                assert provider.asked == asked

            provider.answers["/jwks"] = answer(make.jwks(OLD))
            ticks.now += 1
            assert await client.fetch(need()) == published(OLD)


async def test_nobody_listening_is_an_outage(provider: Provider) -> None:
    """A refused connection fails at once."""
    async with client_of(issuer(f"http://127.0.0.1:{free_port()}")) as client:
        with pytest.raises(Unavailable):
            await client.fetch(need())
        assert client.health("corp") == "no keys: ConnectError"


async def test_keys_are_not_used_for_ever(provider: Provider) -> None:
    """After a day without its source a set is as good as none."""
    ticks, told = Ticks(), list[str]()
    async with client_of(
        issuer(provider.url), ticks=ticks, on_change=told.append
    ) as client:
        await client.start()
        provider.answers["/jwks"] = answer(b"", "500 Oh")
        ticks.now += 24 * 3600 - 1
        with pytest.raises(Unavailable):
            await client.fetch(need("new"))
        assert client.find("corp", "old", "ES256") is not None

        ticks.now += 30
        with pytest.raises(Unavailable):
            await client.fetch(need("new"))
        assert client.find("corp", "old", "ES256") is None
        assert told == ["corp"]


async def test_a_client_that_hangs_up_stops_nobody_else(provider: Provider) -> None:
    """The fetch belongs to all who wait for it."""
    go_on = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(make.jwks(OLD)))

    provider.answers["/jwks"] = late
    async with client_of(issuer(provider.url)) as client:
        first, second = (asyncio.ensure_future(client.fetch(need())) for _ in "12")
        while not provider.asked:
            await asyncio.sleep(0)
        first.cancel()
        go_on.set()

        assert await second == published(OLD)
        assert provider.asked == 1
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_closing_gives_up_what_is_under_way(provider: Provider) -> None:
    """And whoever waited is told that it is an outage."""
    provider.answers["/jwks"] = wait
    async with client_of(issuer(provider.url), timing=Timing()) as client:
        waiting = asyncio.ensure_future(client.fetch(need()))
        while not provider.asked:
            await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(Unavailable):
            await waiting


async def test_an_error_of_our_own_is_survived(
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged as one; the last good keys serve."""
    ticks = Ticks()
    async with client_of(issuer(provider.url), ticks=ticks) as client:
        await client.start()
        monkeypatch.setattr("gateway.adapters.key_sources.parse_key_set", None)
        ticks.now += 30
        with pytest.raises(Unavailable):
            await client.fetch(need("new"))

        assert client.find("corp", "old", "ES256") == published(OLD)
        assert client.health("corp") == (
            "the last good keys are used: an error of our own"
        )
        assert "TypeError" in caplog.text


async def test_a_bad_key_is_left_out_and_said_once(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad key does not drop the set."""
    bad = {**make.key("ES256", "bad").jwk, "use": "enc"}
    document = json.dumps({"keys": [bad, OLD.jwk]}).encode()
    provider.answers["/jwks"] = answer(document)
    async with client_of(issuer(provider.url)) as client:
        assert client.status()[0].skipped == ()
        await client.start()
        await client.start()

        assert client.find("corp", "old", "ES256") == published(OLD)
        assert client.status()[0].skipped == ('key 1: "use" is not "sig"',)
        assert caplog.text.count("is not") == 1


async def test_cookies_are_neither_kept_nor_sent(provider: Provider) -> None:
    """There is one client for each issuer, and it remembers nothing."""
    provider.answers["/jwks"] = answer(make.jwks(OLD), "200 OK", "set-cookie: a=b")
    async with client_of(issuer(provider.url)) as client:
        await client.start()
        await client.start()

        assert provider.asked == 2
        assert all("cookie" not in head.lower() for head in provider.heads)


async def test_the_environment_names_no_proxy(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the configuration does."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with client_of(issuer(provider.url)) as client:
        assert await client.fetch(need()) == published(OLD)


async def test_an_issuer_may_be_behind_its_own_proxy(provider: Provider) -> None:
    """The proxy is asked for the whole URL."""
    behind = issuer(jwks_url="http://localhost:9/jwks", proxy=provider.url)
    async with client_of(behind) as client:
        assert await client.fetch(need()) == published(OLD)
    assert provider.heads[0].startswith("GET http://localhost:9/jwks HTTP/1.1\r\n")


def authority(directory: Path) -> tuple[str, ssl.SSLContext]:
    """Return a CA file, and what a server on 127.0.0.1 needs to be believed by it."""
    private = OLD.private
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    ca_file, key_file = directory / "ca.pem", directory / "key.pem"
    ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ca_file, key_file)
    return str(ca_file), server


async def test_an_issuer_may_have_its_own_ca(tmp_path: Path) -> None:
    """It alone is believed for this issuer, and for no other."""
    ca_file, tls = authority(tmp_path)
    provider = good_provider()
    async with provider.serving(tls):
        url = f"{provider.url}/jwks"
        known = issuer(jwks_url=url, ca_file=ca_file)
        stranger = issuer(name="other", jwks_url=url)
        async with client_of(known, stranger, timing=Timing()) as client:
            assert await client.fetch(need()) == published(OLD)
            with pytest.raises(Unavailable):
                await client.fetch(need(name="other"))
            assert client.health("other") == "no keys: ConnectError"


# --- discovery ------------------------------------------------------------------------


def document(**fields: Any) -> bytes:
    return answer(json.dumps(fields).encode())


async def test_keys_can_be_discovered(provider: Provider) -> None:
    """OpenID Connect Discovery; an issuer inside our network is the operator's word."""
    provider.answers["/.well-known/openid-configuration"] = document(
        issuer=provider.url, jwks_uri=f"{provider.url}/jwks"
    )
    async with client_of(issuer(provider.url, discover=True)) as client:
        assert await client.fetch(need()) == published(OLD)
        assert [head.split(" ")[1] for head in provider.heads] == [
            "/.well-known/openid-configuration",
            "/jwks",
        ]


class Net(httpx2.AsyncBaseTransport):
    """The internet: answers by URL, and remembers what it was asked."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = answers
        self.requests: list[httpx2.Request] = []
        self.unreachable: set[str] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host in self.unreachable:
            raise httpx2.ConnectError("no route")
        name = "jwks" if "keys" in request.url.path else "discovery"
        return httpx2.Response(200, stream=httpx2.ByteStream(self.answers[name]))


ISS = "https://id.example/"


def net(**fields: Any) -> Net:
    said = {"issuer": ISS, "jwks_uri": "https://keys.example/keys", **fields}
    return Net(discovery=json.dumps(said).encode(), jwks=make.jwks(OLD))


def resolving(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("keys.example", 443)
        return addresses

    return resolve


async def discover(
    world: Net,
    *addresses: str,
    url: str = ISS,
    proxy: str | None = None,
    resolve: Any = None,
) -> str | None:
    """Return what is wrong after one attempt at discovery."""
    source = issuer(url, discover=True, proxy=proxy)
    async with client_of(
        source,
        transport=world,
        resolve=resolve or resolving(*addresses),
        timing=HASTY if resolve else PATIENT,
    ) as client:
        await client.start()
        return client.health("corp")


async def test_the_address_that_was_judged_is_the_one_connected_to() -> None:
    """A name that changes its meaning in between gets nowhere; TLS asks by name."""
    world = net()
    assert await discover(world, "93.184.216.34") is None

    discovery, keys = world.requests
    assert str(discovery.url) == "https://id.example/.well-known/openid-configuration"
    assert str(keys.url) == "https://93.184.216.34/keys"
    assert keys.headers["host"] == "keys.example"
    assert keys.extensions["sni_hostname"] == "keys.example"


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    """As any client does; each was judged before."""
    world = net()
    world.unreachable = {"2606:2800:220:1::1"}
    assert await discover(world, "2606:2800:220:1::1", "93.184.216.34") is None
    assert world.requests[1].url.host == "2606:2800:220:1::1"

    world.unreachable.add("93.184.216.34")
    assert await discover(world, "2606:2800:220:1::1", "93.184.216.34") == (
        "no keys: ConnectError"
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "not an address",
    ],
)
async def test_a_discovered_url_leads_into_no_inner_network(address: str) -> None:
    """One such address among others is enough to refuse the name."""
    for addresses in ([address], ["93.184.216.34", address]):
        world = net()
        trouble = await discover(world, *addresses)

        assert trouble == "no keys: discovery: jwks_uri is inside a network"
        assert len(world.requests) == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"issuer": "https://id.example"}, "another issuer"),
        ({"issuer": "https://evil.example/"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"jwks_uri": None}, "no https URL"),
        ({"jwks_uri": 1}, "no https URL"),
        ({"jwks_uri": ""}, "no https URL"),
        ({"jwks_uri": "/keys"}, "no https URL"),
        ({"jwks_uri": "https:///keys"}, "no https URL"),
        ({"jwks_uri": "https://[/keys"}, "no https URL"),
        ({"jwks_uri": "https://[::1/keys"}, "no https URL"),
        ({"jwks_uri": "http://keys.example/keys"}, "no https URL"),
        ({"jwks_uri": "http://id.example/keys"}, "no https URL"),
        ({"jwks_uri": "http://127.0.0.1/keys"}, "no https URL"),
        ({"jwks_uri": "file:///etc/keys"}, "no https URL"),
        ({"jwks_uri": "https://u:p@keys.example/keys"}, "no https URL"),
    ],
)
async def test_a_discovery_document_that_is_not_the_issuers_own_is_refused(
    fields: dict[str, Any], why: str
) -> None:
    """Its `issuer` is compared octet by octet, and keys come over https."""
    world = net(**fields)

    assert why in (await discover(world, "93.184.216.34") or "")
    assert len(world.requests) == 1


async def test_a_discovery_document_is_strict_json() -> None:
    """Two `jwks_uri` would be two documents."""
    world = Net(discovery=b'{"issuer":"a","issuer":"b"}')

    assert "strict JSON" in (await discover(world) or "")


async def test_a_name_that_can_not_be_looked_up_is_a_failure() -> None:
    """By error, by nothing found, or by no answer in time."""

    async def fail(_host: str, _port: int) -> Sequence[str]:
        raise OSError("unknown")

    async def hang(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return ()

    for resolve in (fail, hang):
        trouble = await discover(net(), resolve=resolve)
        assert trouble == "no keys: discovery: jwks_uri could not be looked up"
    assert "inside a network" in (await discover(net()) or "")


async def test_the_issuers_own_host_is_its_own_wherever_it_is() -> None:
    """A provider inside our network may name itself, on another port too."""
    world = net(jwks_uri="https://id.example:8443/keys")
    assert await discover(world) is None
    assert str(world.requests[1].url) == "https://id.example:8443/keys"


async def test_behind_a_proxy_names_are_the_proxys_to_judge() -> None:
    """An address inside a network is still seen to be one."""
    proxy = "http://127.0.0.1:9"
    world = net()
    assert await discover(world, proxy=proxy) is None
    assert str(world.requests[1].url) == "https://keys.example/keys"

    for address in ("10.0.0.1", "[::1]"):
        world = net(jwks_uri=f"https://{address}/keys")
        assert "inside a network" in (await discover(world, proxy=proxy) or "")
    assert await discover(net(jwks_uri="https://8.8.8.8/keys"), proxy=proxy) is None


# --- freshness ------------------------------------------------------------------------


async def test_sets_are_kept_fresh_in_the_background(provider: Provider) -> None:
    """A withdrawal is noticed without any token that asks for it."""
    timing = Timing(shortest=0.01, unsaid=0.01, first=0.01, after_failure=0.01)
    told = asyncio.Event()
    client = JwksClient(
        [issuer(provider.url), issuer(name="fixed", pem=OLD.pem)],
        Clock(wall=lambda: 0.0, monotonic=asyncio.get_running_loop().time),
        on_change=lambda _name: told.set(),
        timing=timing,
    )
    running = asyncio.ensure_future(client.run())
    try:
        async with asyncio.timeout(5):
            while client.is_empty("corp"):
                await asyncio.sleep(0.001)
            provider.answers["/jwks"] = answer(b"", "500 Oh")
            while client.health("corp") is None:
                await asyncio.sleep(0.001)
            provider.answers["/jwks"] = answer(make.jwks(NEW))
            await told.wait()
        assert client.find("corp", "new", "ES256") == published(NEW)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.aclose()


async def test_fixed_keys_need_no_background() -> None:
    """There is nothing to refresh."""
    async with client_of(issuer(pem=OLD.pem)) as client:
        async with asyncio.timeout(1):
            await client.run()


# --- what is at hand ------------------------------------------------------------------


async def test_a_pem_key_and_a_secret_are_there_from_the_start() -> None:
    """And are never asked for: an unknown key is unknown at once."""
    secret = os.urandom(32)
    shared = Issuer(
        name="home",
        issuer="https://home.example",
        keys=KeySource(secret=secret),
        audience=frozenset(),
        algorithms=frozenset({"HS256"}),
        token_types=frozenset(),
    )
    fetched = issuer("https://id.example", "other")
    async with client_of(issuer(pem=OLD.pem), shared, fetched) as client:
        key = client.find("corp", "any", "ES256")
        assert key is not None
        assert key.material == OLD.public
        key = client.find("home", None, "HS256")
        assert key is not None
        assert key.material == secret
        assert await client.fetch(KeyNeeded("corp", "any", "RS256")) is None
        assert client.health("corp") is None


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"jwks_url": "http://id.example/jwks"}, "https"),
        ({"jwks_url": "http://10.0.0.1/jwks"}, "https"),
        ({"jwks_url": "http://localhost.evil.example/jwks"}, "https"),
        ({"jwks_url": "file:///etc/jwks.json"}, "https"),
        ({"jwks_url": "jwks.json"}, "https"),
        ({"jwks_url": "https://[/"}, "https"),
        ({"jwks_url": "https://[::1"}, "no URL"),
        ({"jwks_url": "https://id.example/", "ca_file": "/nowhere.pem"}, "ca_file"),
        ({"jwks_file": "/nowhere.json"}, "No such file"),
        ({"pem": b"nothing"}, "PEM"),
        ({"secret": os.urandom(32)}, "no algorithm"),
    ],
)
def test_what_can_not_be_used_is_refused_at_start(
    keys: dict[str, Any], why: str
) -> None:
    """With the issuer's name and the reason."""
    with pytest.raises(KeyRefused, match=why) as refused:
        JwksClient([issuer(**keys)], Clock(lambda: 0.0, lambda: 0.0))

    assert str(refused.value).startswith("issuer corp: ")


@pytest.mark.parametrize("secret", [b"", b"x", b"secret", OLD.pem, b"s3cr3t-" * 9])
def test_a_bad_secret_is_refused_without_being_told(secret: bytes) -> None:
    """R46: the setting, never the value."""
    source = KeySource(secret=secret)
    home = Issuer("home", ISS, source, frozenset(), frozenset({"HS256"}), frozenset())
    with pytest.raises(KeyRefused) as refused:
        JwksClient([home], Clock(lambda: 0.0, lambda: 0.0))

    assert str(refused.value) in SAID


SAID = {
    f"issuer home: {why}"
    for why in (
        "a secret that anybody could guess",
        "a key document or a certificate, not a secret",
    )
}


@pytest.fixture(autouse=True)
def _loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gateway.jwks")

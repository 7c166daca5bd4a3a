"""API keys through a whole gateway: made, presented, changed, ended."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from bench.ports import free_port
from gateway.adapters.api_keys import FRESH
from gateway.asgi.api_keys import KeyOrder, KeyRefused, Told
from gateway.asgi.revocations import RevocationOrder
from gateway.cli import main
from gateway.config.settings import LEASE
from gateway.door import GatewayMiddleware
from gateway.observe.access import to_json
from gateway.serving import Gateway
from gateway.tokens.api_key import SECRET_BYTES, key_of
from tests.backends import Backend, echoing, running
from tests.e2e.processes import Command, backend
from tests.redis_server import RedisServer, start_redis
from tests.site import POLICY, Site, raw, url

ME = "/api/orders/me"
ORDERS = "/api/orders/customers/billing/orders"
DECLARED = key_of("shop", "Declared0001", bytes(range(SECRET_BYTES)))
IMPORTED = "sk_live_51H8ZzYx0a9B8c7D6e5F4g3H2"

KEYS = f"""
[api_keys]
prefix = "shop"
allow  = ["customer", "support"]
scope  = "ignore"

[[api_key]]
id      = "declared"
sha256  = "{sha256(DECLARED.encode()).hexdigest()}"
owner   = "billing"
roles   = ["customer"]
expires = {{expires}}
"""
# Keys beside tokens; on one route keys alone, on another tokens alone.
BOTH = (
    POLICY.replace(
        'upstream = "orders"\n',
        'upstream = "orders"\ncredentials = ["bearer", "api_key", "ticket"]\n',
        1,
    )
    .replace(
        'owner   = "customer_id"',
        'owner   = { param = "customer_id", issuer = "api_keys" }',
    )
    .replace(
        'owner    = "customer_id"',
        'owner    = { param = "customer_id", issuer = "api_keys" }',
    )
    + """
[[route]]
id      = "orders.machine"
methods = ["GET"]
path    = "/machine"
access  = "authenticated"
credentials = ["api_key"]

[[route]]
id      = "orders.person"
methods = ["GET"]
path    = "/person"
access  = "authenticated"
credentials = ["bearer"]
"""
)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def in_header(key: str) -> dict[str, str]:
    return {"x-api-key": key}


@dataclass
class Run:
    """A gateway, the backend behind it, and a program that asks."""

    site: Site
    gateway: Gateway
    backend: Backend
    http: httpx2.AsyncClient
    others: list[Gateway] = field(default_factory=list)

    async def order(self, verb: Any, key_id: str = "", **said: Any) -> Told:
        order = KeyOrder(verb, id=key_id, **said)
        return await self.gateway.engine.order_keys(order)

    async def create(self, **said: Any) -> Told:
        said = {"owner": "billing", "roles": ("customer",), **said}
        return await self.order("create", **said)

    async def get(self, key: str, path: str = ME, **more: Any) -> int:
        answer = await self.http.get(path, headers=bearer(key), **more)
        return answer.status_code

    def reason(self) -> str | None:
        """Return why the last request was refused."""
        return self.site.log[-1].reason


@pytest.fixture(params=["memory", "redis"])
async def run(
    tmp_path: Path, request: pytest.FixtureRequest, redis_server: RedisServer
) -> AsyncIterator[Run]:
    store = redis_server.url if request.param == "redis" else "memory"
    async with _running(tmp_path, store) as it:
        yield it


def site_in(directory: Path, old: str = "", new: str = "", **more: Any) -> Site:
    ends = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() + 30 * 86_400))
    keys = KEYS.format(expires=ends).replace(old, new, 1)
    return Site(directory, policy=BOTH, more=keys, **more)


@asynccontextmanager
async def _running(directory: Path, store: str, **more: Any) -> AsyncIterator[Run]:
    async with running(echoing) as backend:
        upstream = f"http://127.0.0.1:{backend.port}"
        site = site_in(directory, upstream=upstream, store=store, **more)
        async with (
            site.running() as gateway,
            httpx2.AsyncClient(base_url=url(gateway), trust_env=False) as http,
        ):
            yield Run(site, gateway, backend, http)


@pytest.mark.parametrize("present", [bearer, in_header])
async def test_a_key_is_its_owner_to_the_backend(
    run: Run, present: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As a bearer token or in the header of its own; the key itself ends here."""
    caplog.set_level(logging.DEBUG)
    told = await run.create()
    key = told["key"]

    answers = [await run.http.get(ORDERS, headers=present(key)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert "Authorization, x-api-key" in answers[0].headers["vary"]
    for request in run.backend.requests:
        assert request.value(b"x-auth-request-user") == b"billing"
        assert request.value(b"x-gateway-assertion")
        assert b"x-api-key" not in dict(request.headers)
    assert key.encode() not in run.backend.raw
    who = run.site.log[-1].principal
    assert who is not None
    assert (who.kind, who.issuer, who.client_id) == ("api_key", "api_keys", told["id"])
    assert who.roles == {"customer"}
    assert run.site.log[-1].token_hash
    said = [
        each.getMessage().encode() for each in caplog.records if each.name[0] != "h"
    ]
    assert key.rpartition("_")[2].encode() not in b"".join(
        [*map(to_json, run.site.log), *said]
    )


async def test_a_kind_counts_only_where_it_is_named(run: Run) -> None:
    """On every request, also when the credential was verified a moment ago (R8)."""
    key = (await run.create())["key"]
    token = run.site.token("billing")
    machine, person = "/api/orders/machine", "/api/orders/person"
    for _ in range(2):
        assert await run.get(key, machine) == 200
        assert await run.get(token, machine) == 401
        assert run.reason() == "credential.missing:another kind"
        assert await run.get(token, person) == 200
        assert await run.get(key, person) == 401
        assert run.reason() == "credential.missing:another kind"
        # What doesn't count is as if it were not there.
        both = bearer(token) | in_header(key)
        for path, who in ((machine, "api_key"), (person, "service")):
            answer = await run.http.get(path, headers=both)
            assert answer.status_code == 200
            principal = run.site.log[-1].principal
            assert principal is not None
            assert (principal.kind == "api_key") == (who == "api_key")
            assert key.encode() not in run.backend.raw


async def test_two_credentials_are_refused(run: Run) -> None:
    """Wherever both would count, in any pair (R8)."""
    key = (await run.create())["key"]
    token = run.site.token("billing")
    for one in (key, token):
        answer = await run.http.get(ME, headers=bearer(one) | in_header(key))
        assert answer.status_code == 400
        assert run.reason() == "credential.ambiguous:two credentials"
    for fields in (f"x-api-key: {key}\r\nX-API-Key: {key}\r\n",):
        sent = f"GET {ME} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n"
        assert (await raw(run.gateway, sent.encode())).startswith(b"HTTP/1.1 400 ")


async def test_a_key_in_the_query_is_refused(run: Run) -> None:
    """By its shape, under any name; what else is called so is the backend's (R52)."""
    key = (await run.create())["key"]
    for query in (f"api_key={key}", f"x={key.replace('_', '%5F')}", key):
        answer = await run.http.get(f"{ME}?{query}", headers=bearer(key))
        assert answer.status_code == 400
        assert run.reason() == "credential.in_query:api_key"
    assert await run.get(key, f"{ME}?api_key=of-the-backend") == 200


@pytest.mark.parametrize("present", [bearer, in_header])
async def test_whatever_is_no_good_key_meets_the_same_words(
    run: Run, present: Any
) -> None:
    """400 or 401 by its form alone, one body each, and never 5xx (R99)."""
    key: str = (await run.create())["key"]
    expired = await run.create(not_before=time.time() + 3_600)
    revoked = await run.create()
    await run.order("revoke", revoked["id"])
    elsewhere = await run.create(networks=("192.0.2.0/24",))
    stranger = key_of("shop", "0123456789ab", bytes(SECRET_BYTES))
    bad = {
        stranger: "token.key",
        key[:-1] + ("a" if key[-1] != "a" else "b"): "token.malformed:checksum",
        key[:-1]: "token.malformed:form",
        key + "a": "token.malformed:form",
        "shop_": "token.malformed:form",
        key.lower(): "token.malformed:checksum",
        key + "=": "token.malformed:form",
        expired["key"]: "token.early:nbf",
        revoked["key"]: "token.revoked",
        elsewhere["key"]: "binding.wrong:ip",
    }
    bodies = set()
    for text, reason in bad.items():
        answer = await run.http.get(ME, headers=present(text))
        assert answer.status_code == 401, text
        assert run.reason() == reason
        said = answer.json()
        del said["instance"]
        bodies.add(json.dumps(said))
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert len(bodies) == 1
    for text in ("shop_\u00e9", "shop_ a", "shop_" + "a" * 9_000, 'shop_"', "shop_,"):
        field = present(text.encode())
        value = field.get("x-api-key") or b"Bearer " + text.encode()
        sent = {next(iter(field)): value}
        answer = await run.http.get(ME, headers=sent)
        assert answer.status_code == 400
        assert run.reason() is not None
    assert not run.backend.requests


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_a_revoked_key_is_revoked_however_it_is_written(
    run: Run, scheme: str
) -> None:
    """Its names come from what it is, not from what was sent (R50)."""
    told = await run.create()
    key = told["key"]
    again = {"authorization": f"{scheme} {key}"}
    assert (await run.http.get(ME, headers=again)).status_code == 200
    await run.order("revoke", told["id"])
    refused = [
        {"authorization": f"{scheme} {key}"},
        {"authorization": f"{scheme}   {key}"},
        {"authorization": f"{scheme} {key}="},
        {"authorization": f"{scheme} {key}=="},
        {"authorization": f"{scheme} {key.swapcase()}"},
        {"x-api-key": key},
        {"X-API-KEY": key},
    ]
    for headers in refused:
        assert (await run.http.get(ME, headers=headers)).status_code == 401


async def test_a_revoked_key_is_401_with_the_next_request(run: Run) -> None:
    """The revocation list is asked each time, whatever is known of the record."""
    for by_name in (False, True):
        told = await run.create()
        assert await run.get(told["key"]) == 200
        if by_name:
            order = RevocationOrder("api_keys", "client", told["id"])
            await run.gateway.engine.revoke(order)
        else:
            await run.order("revoke", told["id"])
        assert await run.get(told["key"]) == 401
        assert run.reason() == "token.revoked"


async def test_an_owner_loses_all_keys_at_once_and_may_get_new_ones(run: Run) -> None:
    """By subject, as for tokens; a declared key is older than any such order."""
    keys = [(await run.create())["key"] for _ in range(2)]
    await run.gateway.engine.revoke(RevocationOrder("api_keys", "subject", "billing"))
    new = (await run.create())["key"]
    assert [await run.get(key) for key in (*keys, DECLARED, new)] == [401] * 3 + [200]


async def test_a_rotated_key_and_the_one_before_it_overlap(run: Run) -> None:
    """Both are good until the overlap ends; without one the old ends at once."""
    told = await run.create()
    rotated = await run.order("rotate", told["id"], overlap=60.0)
    assert rotated["id"] == told["id"]
    assert rotated["key"] != told["key"]
    assert [await run.get(each["key"]) for each in (told, rotated)] == [200, 200]

    last = await run.order("rotate", told["id"], overlap=0.0)

    three = (told, rotated, last)
    assert [await run.get(each["key"]) for each in three] == [401, 401, 200]
    assert len((await run.order("show", told["id"]))["secrets"]) == 1


async def test_a_declared_key_needs_no_store_of_keys(run: Run) -> None:
    """It is listed with the others, and changed where it stands."""
    assert await run.get(DECLARED, ORDERS) == 200
    listed = (await run.order("list"))["keys"]
    assert [(each["id"], each["declared"]) for each in listed] == [("declared", True)]
    with pytest.raises(KeyRefused, match="stands in the configuration"):
        await run.order("rotate", "declared")
    with pytest.raises(KeyRefused, match="stands in the configuration"):
        await run.order("create", "declared", owner="x")
    await run.order("revoke", "declared")
    assert await run.get(DECLARED, ORDERS) == 401


async def test_keys_go_on_over_a_reload(run: Run) -> None:
    """Those in memory too."""
    told = await run.create()
    before = run.gateway.engine
    await run.gateway.reload()
    assert run.gateway.engine is not before
    assert await run.get(told["key"]) == 200
    rotated = await run.order("rotate", told["id"], overlap=0.0)
    assert [await run.get(each["key"]) for each in (told, rotated)] == [401, 200]
    async with asyncio.timeout(10):
        while len(list(run.site.directory.glob("own.*.sock"))) > 1:  # at its goodbyes
            await asyncio.sleep(0.01)


async def _lease_ends(run: Run, key: str) -> None:
    """Wait until the mirror of revocations counts no more; a second at most."""
    end = time.monotonic() + LEASE + 1.0
    while await run.get(key) == 200:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_a_store_that_hangs_is_an_outage_in_time(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Within 250 ms of the gateway's time, look-up and revocation together (R60)."""
    async with _running(tmp_path, redis_server.url) as run:
        key = (await run.create())["key"]
        assert await run.get(key) == 200
        redis_server.pause()
        try:
            await _lease_ends(run, key)
            for text in (key, key_of("shop", "0123456789ab", bytes(SECRET_BYTES))):
                for _ in range(3):
                    assert await run.get(text) == 503
                    assert run.site.log[-1].ms < 250
        finally:
            redis_server.resume()


async def test_a_ticket_stands_for_a_key_as_for_any_credential(run: Run) -> None:
    """It is given to its holder, and dies with it."""
    told = await run.create()
    wish = {"method": "GET", "path": ME}

    async def ticket() -> str:
        given = await run.http.post(
            "/auth/ticket", json=wish, headers=in_header(told["key"])
        )
        return f"{ME}?ticket={given.json()['ticket']}"

    first, second = await ticket(), await ticket()
    assert (await run.http.get(first)).status_code == 200
    await run.order("revoke", told["id"])
    assert (await run.http.get(second)).status_code == 401


async def test_what_the_store_holds_opens_nothing(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """No key, no secret; a record that was altered is 401, and breaks nothing (R53)."""
    pepper = tmp_path / "pepper"
    pepper.write_text("a pepper of thirty-two bytes or so")
    pepper.chmod(0o600)
    async with _running(tmp_path, redis_server.url) as plain:
        told = await plain.create(note="a note")
        kept = redis_server.command("HGETALL", "{gw:api_keys}:records")
        ids = redis_server.command("HGETALL", "{gw:api_keys}:ids")
        assert ids[0] == sha256(told["key"].encode()).digest()
        for part in (told["key"], told["key"].split("_")[2]):
            assert part.encode() not in b"".join([*kept, *ids])
        for text in (ids[0].hex(), kept[1].decode(), told["id"]):
            assert await plain.get(text) in {400, 401}
        for value in (b"", b"1 - {}", b"2" + kept[1][1:], kept[1][:-9], b"\xff" * 99):
            redis_server.command("HSET", "{gw:api_keys}:records", told["id"], value)
            await asyncio.sleep(0)
            plain.gateway.engine.stores.api_keys._known.clear()  # type: ignore[union-attr]
            assert await plain.get(told["key"]) == 401
            assert plain.reason() == "token.key"
    redis_server.command("FLUSHALL")
    peppered = '[api_keys]\npepper = "file:pepper"'
    site = site_in(tmp_path, store=redis_server.url, old="[api_keys]", new=peppered)
    async with site.running() as gateway:
        engine = gateway.engine
        told = await engine.order_keys(
            KeyOrder("create", owner="billing", roles=("customer",))
        )
        (_, kept) = redis_server.command("HGETALL", "{gw:api_keys}:records")
        # With a pepper nobody else can raise what a key may do.
        raised = kept.replace(b'"customer"', b'"support"')
        redis_server.command("HSET", "{gw:api_keys}:records", told["id"], raised)
        with pytest.raises(KeyRefused, match="no key with this id"):
            await engine.order_keys(KeyOrder("show", id=told["id"]))


async def test_while_the_store_is_away_nobody_is_told_that_a_key_is_bad(
    tmp_path: Path,
) -> None:
    """503, never 401; what is told without the store is told, and public is served."""
    with start_redis() as server:
        async with _running(tmp_path, server.url) as run:
            key = (await run.create())["key"]
            assert await run.get(key) == 200
            server.kill()
            await _lease_ends(run, DECLARED)
            stranger = key_of("shop", "0123456789ab", bytes(SECRET_BYTES))
            for text in (key, stranger, DECLARED):
                assert await run.get(text) == 503
                assert run.reason() in {"API key store", "revocation store"}
            # Known without it: a declared key waits for the revocation list alone.
            assert run.reason() == "revocation store"
            assert await run.get(key[:-1] + "_") == 401
            assert await run.get("shop_nonsense") == 401
            assert (await run.http.get("/api/orders/status")).status_code == 200
            with pytest.raises(Exception, match="did not answer"):
                await run.create()
            server.start()
            until = time.monotonic() + 5
            while (status := await run.get(DECLARED)) != 200:
                assert status == 503
                assert time.monotonic() < until
                await asyncio.sleep(0.02)


async def test_two_gateways_on_one_store_agree_within_a_second(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """A revocation with the next request; another change once FRESH is over."""
    other = tmp_path / "other"
    other.mkdir()
    async with (
        _running(tmp_path, redis_server.url) as one,
        _running(other, redis_server.url) as two,
    ):
        told = await one.create()
        assert [await each.get(told["key"]) for each in (one, two)] == [200, 200]
        rotated = await one.order("rotate", told["id"], overlap=60.0)
        assert [await each.get(rotated["key"]) for each in (one, two)] == [200, 200]

        # Somebody takes the record away, and tells nobody.
        redis_server.command("DEL", "{gw:api_keys}:ids")
        began = time.monotonic()
        while await two.get(rotated["key"]) == 200:
            assert time.monotonic() - began < FRESH + 1.0  # and a busy machine
            await asyncio.sleep(0.02)
        await one.order("revoke", told["id"])
        assert await two.get(told["key"]) == 401


async def test_keys_made_elsewhere_count_in_the_header_alone(tmp_path: Path) -> None:
    """If the configuration says so; by their SHA-256, which is all there is of them."""
    for imported, status in ((False, 401), (True, 200)):
        directory = tmp_path / str(imported)
        directory.mkdir()
        switched = f"[api_keys]\nimported = {str(imported).lower()}"
        async with _running(directory, "memory", old="[api_keys]", new=switched) as run:
            digest = sha256(IMPORTED.encode()).hexdigest()
            told = await run.order("create", "p-1", owner="partner", sha256=digest)
            assert "key" not in told
            for headers, expected in (
                (in_header(IMPORTED), status),
                (bearer(IMPORTED), 401),
                (in_header(IMPORTED[:19]), 401),
                (in_header(IMPORTED[:-1]), 401),
            ):
                answer = await run.http.get(ME, headers=headers)
                assert answer.status_code == expected
            rotated = await run.order("rotate", "p-1")
            assert await run.get(rotated["key"]) == 200


async def test_an_application_of_ones_own_takes_keys_too(tmp_path: Path) -> None:
    """By the middleware, with a declared key: no store, no data port."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    site = site_in(tmp_path)
    guarded = GatewayMiddleware(
        app, config=site.write(), service="orders", log=site.log.append
    )
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(guarded), base_url="http://api.example"
    ) as http:
        answer = await http.get(ORDERS, headers=in_header(DECLARED))
    await guarded.engine.aclose()

    assert answer.status_code == 200
    (scope,) = seen
    headers = dict(scope["headers"])
    assert headers[b"x-auth-request-user"] == b"billing"
    assert b"x-api-key" not in headers


def test_every_worker_knows_a_revocation_with_the_next_request(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Of `gateway serve` with two of them, by its command line and its admin port."""
    port, probes = free_port(), free_port()
    with backend() as upstream:
        site = site_in(
            tmp_path,
            upstream=upstream,
            store=redis_server.url,
            listen=f"127.0.0.1:{port}",
            server="workers = 2",
            old="[api_keys]",
            new=f'[probes]\nlisten = "127.0.0.1:{probes}"\n[api_keys]',
        )
        config = str(site.write())
        words = ["apikey", "create", "-c", config, "--owner", "billing"]
        made = CliRunner().invoke(main, words)
        assert made.exit_code == 0, made.output
        key = made.stdout.strip()
        with Command(["-m", "gateway", "serve", "-c", config], cwd=tmp_path) as command:
            command.wait_for(f"http://127.0.0.1:{probes}/readyz")

            def statuses() -> set[int]:
                # The kernel spreads connections: of 24, both workers have some.
                with httpx2.Client(
                    base_url=f"http://127.0.0.1:{port}",
                    trust_env=False,
                    limits=httpx2.Limits(max_keepalive_connections=0),
                ) as http:
                    asked = (http.get(ME, headers=bearer(key)) for _ in range(24))
                    return {answer.status_code for answer in asked}

            def order(path: str, **said: Any) -> httpx2.Response:
                transport = httpx2.HTTPTransport(uds=str(tmp_path / "admin.sock"))
                with httpx2.Client(
                    transport=transport, base_url="http://admin"
                ) as http:
                    return http.post(f"/-/api-keys{path}", json=said)

            assert statuses() == {200}
            other = order("", owner="reports")
            assert other.status_code == 201
            assert other.json()["key"].startswith("shop_")
            assert order("/nobody/rotate").status_code == 404

            revoked = order(f"/{key.split('_')[1]}/revoke", reason="INC-7")
            assert revoked.json()["state"] == "revoked"
            assert statuses() == {401}
            redis_server.kill()
            assert order("", owner="reports").status_code == 503
            log = command.out + command.err
            assert '"principal":{"issuer":"api_keys"' in log
        assert key.split("_")[2] not in log
        assert other.json()["key"].split("_")[2] not in log

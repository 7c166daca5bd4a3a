"""gateway.app: the composition root."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, patch

import httpx2
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bench.ports import free_port
from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.app import Background, Engine
from gateway.asgi.own import KEY_SET_PATH
from gateway.asgi.revocations import RevocationOrder
from gateway.clock import Clock
from gateway.config.load import load
from gateway.config.sealed import jwe_keys
from gateway.model import (
    ANONYMOUS,
    Denial,
    Fingerprints,
    KeyNeeded,
    Permit,
    Principal,
    Reason,
    RevocationNeeded,
    Unavailable,
)
from gateway.observe.access import to_json
from gateway.observe.metrics import NEEDS
from gateway.proxy.standing import Standing
from gateway.tokens.fingerprints import fingerprints
from tests.backends import echoing, running
from tests.fakes import ALICE, bearer, head_of
from tests.sealed import RSA, SealedSite
from tests.site import AUDIENCE, ISSUER, POLICY, Site, raw, url
from tests.tokens import make

ORDERS = "/api/orders/customers/c-1/orders"
FILE = "/api/orders/files/a"
KNOWN = replace(ALICE, fingerprints=Fingerprints(b"t", None, b"s", None))


async def test_a_request_passes_the_whole_house(tmp_path: Path) -> None:
    """Decided, its credential taken out, signed for, forwarded, answered, logged."""
    async with running(echoing) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        token = site.token("c-1")
        async with site.running() as gateway, httpx2.AsyncClient() as http:
            answer = await http.get(
                url(gateway) + ORDERS, headers={"authorization": f"Bearer {token}"}
            )
            keys = (await http.get(url(gateway) + KEY_SET_PATH)).json()["keys"]

    assert answer.status_code == 200
    (request,) = backend.requests
    assert request.target == ORDERS.encode()
    assert request.values(b"authorization") == []
    assertion = request.value(b"x-gateway-assertion").decode()
    claims = jwt.decode(
        assertion,
        jwt.PyJWK(keys[0]),
        algorithms=["ES256"],
        audience="orders",
    )
    assert claims["sub"] == "c-1"
    assert token not in repr(backend.raw)
    entry = site.log[0]
    assert (entry.decision, entry.route) == ("permit", "orders.list")
    assert entry.token_hash
    assert entry.principal is not None
    assert entry.generation == gateway.engine.generation


async def test_a_prefix_is_left_out_of_what_is_sent(tmp_path: Path) -> None:
    """strip_prefix: the rest of the target is what was received, byte for byte."""
    async with running(echoing) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.policy = POLICY.replace(
            'upstream = "orders"', 'upstream = "orders"\nstrip_prefix = true'
        )
        async with site.running() as gateway, httpx2.AsyncClient() as http:
            for path in (ORDERS + "?q=%41&q=a+b", "/api/orders/files/%41/b%3B/"):
                answer = await http.get(url(gateway) + path, headers=site.bearer("c-1"))
                assert answer.status_code == 200

    assert [request.target for request in backend.requests] == [
        b"/customers/c-1/orders?q=%41&q=a+b",
        b"/files/%41/b%3B/",
    ]


async def test_endpoints_stand_in_for_one_another(tmp_path: Path) -> None:
    """One of two is killed under load, and comes back: nobody notices."""
    async with running(echoing) as one, running(echoing) as two:
        urls = f'http://127.0.0.1:{one.port}", "http://127.0.0.1:{two.port}'
        site = Site(tmp_path, upstream=urls)
        async with site.running() as gateway, httpx2.AsyncClient() as http:

            async def ask(times: int) -> set[int]:
                return {
                    (
                        await http.get(
                            url(gateway) + ORDERS, headers=site.bearer("c-1")
                        )
                    ).status_code
                    for _ in range(times)
                }

            assert await ask(20) == {200}
            assert one.requests
            assert two.requests
            await one.stop()
            assert await ask(40) == {200}
            assert gateway.port is not None
            state = gateway.port.upstream_states()[0]
            assert [each.state for each in state.endpoints] == ["unreachable", "up"]
            await one.start()
            seen = len(one.requests)
            async with asyncio.timeout(5):
                while len(one.requests) == seen:
                    assert await ask(5) == {200}


def test_a_process_opens_what_it_sealed_itself(tmp_path: Path) -> None:
    """Each worker has the same ephemeral key: it is told the secret of the process."""
    site = SealedSite(tmp_path)
    site.more = site.more.replace("file:dir.key", "ephemeral")
    loaded = site.load()
    assert loaded.settings.jwe is not None
    token = site.jwe(by=jwe_keys(loaded.settings.jwe, b"s" * 32).keys[0])
    head = head_of(FILE.encode(), bearer(token))

    def outcome(secret: bytes | None) -> str:
        engine = Engine(loaded, token_key=secret)
        found = engine.decider.decide_now(head, engine.clock.wall())
        return str(found) if isinstance(found, Denial) else type(found).__name__

    assert outcome(b"s" * 32) == "Permit"
    assert outcome(b"s" * 32) == "Permit"
    assert outcome(b"t" * 32) == outcome(None) == "token.signature"


async def test_of_a_query_only_allowed_names_are_logged(tmp_path: Path) -> None:
    """[log] query; everything else of a query may be a secret (R96)."""
    async with running(echoing) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.more = '[log]\nquery = ["page"]'
        async with site.running() as gateway, httpx2.AsyncClient() as http:
            await http.get(
                url(gateway) + ORDERS + "?page=2&code=s3cret",
                headers=site.bearer("c-1"),
            )

    assert site.log[0].path == ORDERS + "?page=2"
    assert backend.requests[0].target == ORDERS.encode() + b"?page=2&code=s3cret"


async def test_a_claim_that_no_header_can_say_is_refused(tmp_path: Path) -> None:
    """The request ends at the gateway, with the token's fault named (R95)."""
    async with running(echoing) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.more = '[upstream.orders.identity]\nheaders = { "X-Team" = "team" }'
        async with site.running() as gateway, httpx2.AsyncClient() as http:
            good = site.bearer("c-1", team="blue")
            bad = site.bearer("c-1", team={"not": "scalar"})
            answers = [
                await http.get(url(gateway) + ORDERS, headers=headers)
                for headers in (good, bad)
            ]

    assert [answer.status_code for answer in answers] == [200, 401]
    assert len(backend.requests) == 1
    assert site.log[1].reason == "token.claim:team"


async def test_an_order_on_the_admin_socket_takes_effect_at_once(
    tmp_path: Path,
) -> None:
    """With the memory store there is nobody else to ask; the socket is ours alone."""
    async with running(echoing) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        alice = site.bearer("c-1", jti="t-1")
        async with site.running() as gateway, httpx2.AsyncClient() as http:
            before = await http.get(url(gateway) + ORDERS, headers=alice)
            path = tmp_path / "admin.sock"
            transport = httpx2.AsyncHTTPTransport(uds=str(path))
            mode = stat.S_IMODE(path.stat().st_mode)
            async with httpx2.AsyncClient(transport=transport) as admin:
                done = await admin.post(
                    "http://admin/-/revocations", json={"jti": "t-1"}
                )
            after = await http.get(url(gateway) + ORDERS, headers=alice)

    statuses = [answer.status_code for answer in (before, done, after)]
    assert statuses == [200, 200, 401]
    assert mode == 0o600
    assert not path.exists()
    assert site.log[1].reason == "token.revoked"


async def test_readiness_names_what_is_in_trouble(tmp_path: Path) -> None:
    """A store that is away leaves it ready: public routes are still served (R102)."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")
    site.more = f'[probes]\nlisten = "127.0.0.1:{free_port()}"'
    loaded = site.load()
    probes = loaded.settings.probes
    async with site.running() as gateway, httpx2.AsyncClient() as http:
        for _ in range(5):  # the circuit opens
            refused = await http.get(url(gateway) + ORDERS, headers=site.bearer("c-1"))
        answer = await http.get(f"http://{probes}/readyz?verbose")

    assert refused.status_code == 503
    assert answer.status_code == 200
    assert "[-] revocation store" in answer.text
    assert "[+] keys of issuer corp: ok" in answer.text


ALLOWED = '[outage]\nrevocation = "allow-stale"\nmax_staleness = "5s"\n'
STRICT = 'revocation = { mode = "strict" }'
DENY = 'revocation = { outage = "deny" }'
SHORT = 'revocation = { outage = "allow-stale", max_staleness = "2s" }'
ME = """
[[route]]
id         = "orders.%s"
methods    = ["GET"]
path       = "/me/%s"
access     = "authenticated"
%s
"""


def with_ways(site: Site) -> Site:
    """Let *site* have a route of each way to ask about revocation."""
    ways = {"plain": "", "strict": STRICT, "deny": DENY, "short": SHORT}
    site.policy += "".join(ME % (name, name, said) for name, said in ways.items())
    site.more += ALLOWED
    return site


@dataclass
class Scripted:
    """A revocation list that says what a script has it say."""

    known: bool = False  # revoked, as the mirror knows
    revoked: bool = False  # as the store knows
    live: bool = True
    up: bool = True
    age: float = 0.0

    def check_now(self, _principal: Principal) -> bool | None:
        return self.known if self.known or self.live else None

    async def check(self, _principal: Principal) -> bool:
        if not self.up:
            raise Unavailable("revocation store")
        return self.known or self.revoked

    def check_stale(
        self, _principal: Principal, most: float
    ) -> tuple[bool, float] | None:
        return None if self.age > most else (self.known, self.age)

    def instead_of(self, engine: Engine) -> Any:
        """Return what lets it stand in for the list of *engine*."""
        return patch.multiple(
            engine.stores.revocations,
            check_now=self.check_now,
            check=self.check,
            check_stale=self.check_stale,
        )

    def expected(self, way: str) -> str:
        """Say what becomes of a request to a route that asks in this *way*."""
        most = {"plain": 5.0, "short": 2.0}.get(way, 0.0)
        if self.known:
            return "token.revoked"
        if self.live and way != "strict":
            return "permit"
        if self.up:
            return "token.revoked" if self.revoked else "permit"
        return (
            f"permit as of {self.age}"
            if 0 < most >= self.age
            else "revocation store away"
        )


async def became(engine: Engine, path: str, token: str) -> str:
    """Return what became of a request, in the words of Scripted.expected."""
    head = head_of(path.encode(), bearer(token))
    try:
        outcome = await engine.decide(head, engine.clock.wall())
    except Unavailable as outage:
        return f"{outage.dependency} away"
    if isinstance(outcome, Denial):
        return str(outcome)
    age = outcome.revocation_age
    return "permit" if age is None else f"permit as of {age}"


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, str]:
    """Give an engine with those routes, and a token that is good there."""
    site = with_ways(Site(tmp_path_factory.mktemp("ways")))
    return Engine(site.load()), site.token("c-1")


@given(
    schedule=st.lists(
        st.builds(
            Scripted,
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.floats(0.0, 9.0),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_no_schedule_of_outages_lets_pass_or_refuses_by_mistake(
    ways: tuple[Engine, str], schedule: list[Scripted]
) -> None:
    """Known as revoked: 401. Not known well enough: 503. Nobody is 401 by an outage."""
    engine, token = ways
    before = engine.metrics.decided_stale

    async def play() -> list[str]:
        said = []
        for script in schedule:
            with script.instead_of(engine):
                for way in ("plain", "strict", "deny", "short"):
                    path = f"/api/orders/me/{way}"
                    said.append(await became(engine, path, token))
                said.append(await became(engine, "/api/orders/status", token))
        return said

    found = asyncio.run(play())
    expected = [
        said
        for script in schedule
        for said in (
            *(script.expected(way) for way in ("plain", "strict", "deny", "short")),
            "permit",
        )
    ]
    assert found == expected
    stale = sum("as of" in each for each in found)
    assert engine.metrics.decided_stale - before == stale


async def test_an_old_mirror_that_decided_is_in_the_log_and_counted(
    tmp_path: Path,
) -> None:
    """Each request with the age it had then; usual ones say nothing of it."""
    port = free_port()
    async with running(echoing) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.more = f'[probes]\nlisten = "127.0.0.1:{port}"\n'
        alice = with_ways(site).bearer("c-1")
        async with site.running() as gateway, httpx2.AsyncClient() as http:

            async def ask(path: str, **script: Any) -> int:
                with Scripted(**script).instead_of(gateway.engine):
                    answer = await http.get(url(gateway) + path, headers=alice)
                return answer.status_code

            away = {"live": False, "up": False}
            # What is asked often is answered, and logged, by a shorter way.
            statuses = [
                *[await ask(ORDERS) for _ in range(4)],
                await ask(ORDERS, **away, age=2.0),
                await ask(ORDERS, **away, age=3.0),
                await ask(ORDERS.replace("c-1", "c-2"), **away, age=4.0),
                await ask(ORDERS, **away, age=5.5),
                await ask("/api/orders/me/deny", **away, age=1.0),
                await ask(ORDERS),
            ]
            found = await scraped(port)

    assert statuses == [*[200] * 6, 403, 503, 503, 200]
    ages = [*[None] * 4, 2.0, 3.0, 4.0, None, None, None]
    assert [entry.revocation_age for entry in site.log] == ages
    assert [b"revocation_age" in to_json(entry) for entry in site.log] == [
        age is not None for age in ages
    ]
    assert found["gateway_revocation_stale_decisions_total"] == {(): 3}
    assert found["gateway_revocation_mirror_live"] == {(): 1}
    assert found["gateway_revocation_mirror_age_seconds"] == {(): 0}
    assert found["gateway_revocation_mirror_entries"] == {(): 0}
    assert found["gateway_revocation_mirror_resyncs_total"] == {(): 0}


async def test_the_store_is_told_how_old_a_mirror_may_get_to_decide(
    tmp_path: Path,
) -> None:
    """The longest that any route allows, so that whoever revokes hears of it."""
    for said, most in (("", 0.0), (ALLOWED, 5.0), (ALLOWED + SHORT, 2.0)):
        site = Site(tmp_path, store="redis://127.0.0.1:9/0", more=said)
        if SHORT in said:
            site.more = ALLOWED
            site.policy = POLICY.replace("[service]\n", f"[service]\n{SHORT}\n")
        engine = Engine(site.load())
        try:
            assert isinstance(engine.stores.revocations, MirroredRevocations)
            assert engine.stores.revocations._stale == most
        finally:
            await engine.aclose()


async def test_a_mirror_that_never_was_has_no_age(tmp_path: Path) -> None:
    """And is said to be none."""
    engine = Engine(Site(tmp_path, store="redis://127.0.0.1:9/0").load())
    try:
        found = {family.name: value for family, _, value in engine.measure()}
        (note,) = [c.note for c in engine.checks() if c.name == "revocation store"]
    finally:
        await engine.aclose()

    assert found["gateway_revocation_mirror_live"] == 0
    assert "gateway_revocation_mirror_age_seconds" not in found
    assert note == "no mirror"


async def test_without_any_key_and_any_public_route_it_is_not_ready(
    tmp_path: Path,
) -> None:
    """Every request would fail, so none should be sent here."""
    site = Site(tmp_path)
    site.write()
    text = site.config.read_text().replace(
        '"file:jwks.json"', '"http://127.0.0.1:9/jwks"'
    )
    policy = site.policy[: site.policy.index('[[route]]\nid      = "orders.catalogue')]

    class Fixed(Site):
        def write(self) -> Path:
            super().write()
            self.config.write_text(text)
            return self.config

    engine = Engine(Fixed(tmp_path, policy=policy).load())
    try:
        (keys,) = [c for c in engine.checks() if c.name == "keys of issuer corp"]
    finally:
        await engine.aclose()

    assert keys.fatal
    assert keys.trouble


async def scraped(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    """Return what Prometheus reads: by name and label values, buckets left out."""
    async with httpx2.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            if "le" not in sample.labels:
                labels = tuple(sample.labels.values())
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_every_request_is_counted_on_the_probes_port(tmp_path: Path) -> None:
    """Permitted, refused, malformed, or failed by its upstream; as it was logged."""
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        backend = await stack.enter_async_context(running(echoing))
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.more = f'[probes]\nlisten = "127.0.0.1:{port}"'
        alice = site.bearer("c-1")
        async with site.running() as gateway, httpx2.AsyncClient() as http:
            await http.get(url(gateway) + ORDERS, headers=alice)
            await http.get(url(gateway) + ORDERS, headers=alice)
            await http.get(url(gateway) + ORDERS)
            await raw(gateway, b"GET  /x HTTP/1.1\r\nhost: a\r\n\r\n")
            await stack.aclose()
            await http.get(url(gateway) + FILE, headers=alice)
            gateway._lost = lambda: {"access": 3}
            found = await scraped(port)

    assert found["http_server_request_duration_seconds_count"] == {
        ("GET", "orders.list", "200"): 2,
        ("GET", "orders.file", "502"): 1,
        ("GET", "orders.list", "401"): 1,
        ("_OTHER", "", "400"): 1,
    }
    assert found["gateway_decisions_total"] == {
        ("permit", ""): 2,
        ("permit", "upstream.refused"): 1,
        ("deny", "credential.missing"): 1,
        ("deny", "request.malformed"): 1,
    }
    assert found["gateway_upstream_failures_total"] == {("orders", "refused"): 1}
    assert found["http_client_request_duration_seconds_count"] == {("orders", "200"): 2}
    assert found["gateway_verified_token_lookups_total"] == {("hit",): 2, ("miss",): 1}
    assert found["gateway_revocation_store_up"] == {(): 1}
    assert found["gateway_log_lines_lost_total"] == {("access",): 3}
    assert found["gateway_config_info"] == {(gateway.engine.generation,): 1}
    assert found["gateway_jwks_keys"] == {("corp",): 1}
    assert found["process_open_fds"][()] > 3


async def test_a_flood_of_forgeries_harms_nobody_who_is_known(tmp_path: Path) -> None:
    """R100: so many are opened, beside the loop; the others are an outage at once.

    To whoever they came from, and to nobody else.
    """
    site = SealedSite(tmp_path)
    (tmp_path / "rsa.pem").write_text(RSA, encoding="ascii")
    (tmp_path / "rsa.pem").chmod(0o600)
    site.more += """
[[jwe.keys]]
kid = "rsa"
alg = "RSA-OAEP-256"
enc = "A256GCM"
key = "file:rsa.pem"
"""
    engine = Engine(site.load())
    now = engine.clock.wall()

    async def asked(token: str, client: str = "192.0.2.1") -> str:
        try:
            head = head_of(b"/api/orders/me", bearer(token))._replace(client=client)
            return type(await engine.decide(head, now)).__name__
        except Unavailable as outage:
            return outage.dependency

    known, new, newer = (site.nested(by="rsa") for _ in range(3))
    body = known.rpartition(".")[0]
    forged = [f"{body}.{make.b64(number.to_bytes(16))}" for number in range(200)]
    assert await asked(known) == "Permit"
    found = Counter(await asyncio.gather(*map(asked, forged)))

    assert found == {"Denial": 64, "opening of tokens": 136}
    assert await asked(known) == "Permit"
    assert await asked(new) == "opening of tokens"
    assert await asked(new, client="192.0.2.2") == "Permit"
    assert await asked(newer) == "opening of tokens"
    now += 1
    assert await asked(newer) == "Permit"
    needs = engine.metrics.snapshot()[NEEDS.name]
    assert {labels: sum(series[:-1]) for labels, series in needs.items()} == {
        ("opening", "answered"): 67.0
    }
    await engine.aclose()


async def test_what_the_store_is_asked_is_counted(tmp_path: Path) -> None:
    """Checks that were answered, and those that met an outage (R60)."""
    outages = {("revocation", "unavailable"): 2.0}
    engine = Engine(Site(tmp_path, store="redis://127.0.0.1:9/0").load())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await engine.answer(RevocationNeeded(KNOWN))
    needs = engine.metrics.snapshot()[NEEDS.name]
    assert {labels: sum(series[:-1]) for labels, series in needs.items()} == outages

    with patch.object(
        engine.stores.revocations, "check", AsyncMock(return_value=False)
    ):
        assert await engine.answer(RevocationNeeded(KNOWN)) is False
    with patch.object(engine.keys, "fetch", AsyncMock(return_value=None)):
        await engine.answer(KeyNeeded("corp", "k", "ES256"))
    await engine.aclose()
    needs = engine.metrics.snapshot()[NEEDS.name]
    assert {labels: sum(series[:-1]) for labels, series in needs.items()} == {
        **outages,
        ("revocation", "answered"): 1,
        ("key", "answered"): 1,
    }


async def test_background_work_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged; nothing else ends with it."""
    background = Background()

    async def fail() -> None:
        raise ZeroDivisionError

    async def wait() -> None:
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR):
        await asyncio.wait([background.spawn(fail())])
        waiting = background.spawn(wait())
        await background.aclose()

    assert "background work failed" in caplog.text
    assert waiting.cancelled()


ASKED = """
[issuer.asked]
issuer   = "https://asked.test.example"
audience = ["https://api.test.example"]
[issuer.asked.introspection]
url           = "https://asked.test.example/introspect"
client_id     = "gateway"
client_secret = "env:CLIENT"
[issuer.asked.scope]
user    = "grant"
service = "grant"
"""


class Held:
    """Both clocks, which a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def asking_engine(tmp_path: Path, held: Held) -> Engine:
    """Return an engine with an issuer that is asked, and one that is not."""
    site = Site(tmp_path, more=ASKED)
    site.policy = POLICY.replace(
        "[permissions]", 'issuers = ["corp", "asked"]\n\n[permissions]', 1
    ).replace('"customer_id"\n', '{ param = "customer_id", issuer = "asked" }\n')
    loaded = load([site.write()], env={"CLIENT": "a secret of the client"})
    return Engine(loaded, clock=Clock(wall=held, monotonic=held))


def active(now: float, **more: object) -> dict[str, object]:
    return {
        "active": True,
        "sub": "alice",
        "aud": "https://api.test.example",
        "token_type": "Bearer",
        "scope": "orders:read",
        "iat": now,
        "exp": now + 600,
        **more,
    }


async def test_an_answer_is_kept_and_nothing_that_hangs_on_the_request(
    tmp_path: Path,
) -> None:
    """R65: another route asks for more, and a revocation counts at once."""
    held = Held()
    engine = asking_engine(tmp_path, held)
    ask = AsyncMock(return_value=active(held.now, jti="t-1"))

    async def decided(method: str, path: bytes) -> str:
        head = head_of(path, bearer("tok"), method=method)
        outcome = await engine.decide(head, held.now)
        return "permit" if isinstance(outcome, Permit) else str(outcome)

    files = b"/api/orders/files/a"
    with patch.object(engine.introspection, "ask", ask):
        assert await decided("GET", files) == "permit"
        assert await decided("GET", files) == "permit"
        place = b"/api/orders/customers/alice/orders"
        assert await decided("POST", place) == "permission.missing:orders:write"
        assert ask.await_count == 1

        held.now += 60
        assert await decided("GET", files) == "permit"
        assert ask.await_count == 2

        await engine.revoke(RevocationOrder("asked", "token", "t-1"))
        assert await decided("GET", files) == "token.revoked"
        assert ask.await_count == 2

        # It is not known as a JWT would be: the issuer's own word ends it.
        held.now += 60
        ask.return_value = None
        for _ in range(2):
            assert await decided("GET", files) == "token.inactive"
        assert ask.await_count == 4
    await engine.aclose()


async def test_a_token_without_a_name_can_be_revoked_too(tmp_path: Path) -> None:
    """Whatever else is said of it the next time, it is the same one (R50)."""
    held = Held()
    engine = asking_engine(tmp_path, held)
    ask = AsyncMock(return_value=active(held.now))
    head = head_of(b"/api/orders/files/a", bearer("tok"))
    with patch.object(engine.introspection, "ask", ask):
        permit = await engine.decide(head, held.now)
        assert isinstance(permit, Permit)
        name = permit.principal.token_id
        await engine.revoke(RevocationOrder("asked", "token", name))

        held.now += 61
        ask.return_value = active(held.now - 61, exp=held.now + 900, scope="")
        refused = await engine.decide(head, held.now)
    await engine.aclose()

    assert str(refused) == "token.revoked"
    assert ask.await_count == 2


async def test_an_issuer_that_can_t_be_asked_shows_in_the_checks(
    tmp_path: Path,
) -> None:
    """It makes nobody unready: tokens that are known and public routes go on."""
    engine = asking_engine(tmp_path, Held())
    troubles = {"asked": "status 401"}
    with patch.object(engine.introspection, "troubles", lambda: troubles):
        (check,) = [c for c in engine.checks() if c.name.startswith("introspection")]
    await engine.aclose()

    assert (check.name, check.trouble) == (
        "introspection by issuer asked",
        "status 401",
    )
    assert not check.fatal


# What is open, when something changes

READER = Principal(
    "user",
    "corp",
    "c-1",
    issued_at=1.0,
    expires_at=9e9,
    audience=frozenset({AUDIENCE}),
    roles=frozenset({"customer"}),
    claims={"iss": ISSUER, "roles": ["customer"]},
    fingerprints=fingerprints(
        ISSUER, token_id="t", session_id=None, subject="c-1", client_id=None
    ),
)


def let_in(path: str, who: Principal = READER, *, is_socket: bool = False) -> Standing:
    """Return how *who* was let in before."""
    return Standing(who, head_of(path.encode()), 1_000.0, is_socket)


async def test_what_was_let_in_is_judged_by_what_is_in_force(tmp_path: Path) -> None:
    """As of when it was: nothing that only time has changed ends it."""
    engine = Engine(Site(tmp_path).load())
    expired = replace(READER, expires_at=1_001.0)
    standings: list[Standing | Denial] = [
        let_in(FILE),
        let_in(FILE, expired),
        let_in(FILE, ANONYMOUS),
        let_in("/api/orders/status", ANONYMOUS),
        let_in(ORDERS.replace("c-1", "c-2")),
        let_in("/elsewhere"),
        let_in(FILE, replace(READER, issuer="gone")),
        let_in(FILE, replace(READER, claims={"iss": ISSUER})),
        let_in(FILE, is_socket=True),
        Denial(Reason.HOST_MALFORMED),
    ]
    assert [str(each) for each in await engine.judge(standings)] == [
        "None",
        "None",
        "credential.missing",
        "None",
        "condition.failed:owner",
        "route.unknown",
        "token.issuer",
        "permission.missing:orders:read",
        "upgrade.refused",
        "host.malformed",
    ]


@pytest.mark.parametrize(
    "trouble", [Unavailable("policy engine"), RuntimeError("a mistake")]
)
async def test_what_can_t_be_judged_goes_on(
    tmp_path: Path, trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """And a mistake with one of them is logged, and is none of the others'."""
    engine = Engine(Site(tmp_path).load())
    with patch.object(engine.decider, "decide", AsyncMock(side_effect=trouble)):
        verdicts = await engine.judge([let_in(FILE), let_in(FILE)])
    assert all(isinstance(each, Unavailable) for each in verdicts)
    assert ("a mistake" in caplog.text) is isinstance(trouble, RuntimeError)

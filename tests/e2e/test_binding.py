"""Bound tokens through a whole gateway: of use to whom they are bound, and nobody else.

The client's key (DPoP), its certificate (mTLS) or its address, by the data port and by
the middleware. Nothing here is pretended: TLS, Redis and the sockets are real.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from gateway.adapters.replays import RedisReplays
from gateway.asgi.revocations import RevocationOrder
from gateway.door import GatewayMiddleware
from gateway.serving import Gateway
from gateway.tokens.certificates import thumbprint
from gateway.tokens.dpop import AHEAD
from tests.backends import Backend, echoing, running
from tests.certificates import Authority, Signed
from tests.proxy.harness import Answer, Caller
from tests.redis_server import RedisServer, start_redis
from tests.site import POLICY, Site
from tests.tokens import make
from tests.tokens.proofs import jkt_of, proof_of

URL = "https://api.test.example"
ME = "/api/orders/me"
KEY = make.key("ES256", "of the client")
THIEF = make.key("ES256", "of a thief")
CA = Authority()
OURS, ALICE, BOB, PROXY = (
    CA.sign(name) for name in ("localhost", "alice", "bob", "proxy")
)
TLS = """
[server.tls]
certificate = "file:tls.crt"
key = "file:tls.key"
client = "optional"
client_ca = "file:ca.crt"
"""
PUBLIC_URL = f'public_url = "{URL}"\n'
HEAD = b"%b %b HTTP/1.1\r\nhost: api.test.example\r\n%b\r\n"

BY_ADDRESS = 'address_claim = "ip"\n'

Fields = Mapping[str, str]


@dataclass
class IssuingSite(Site):
    """A site whose [issuer.corp] has *issuer* too."""

    issuer: str = ""

    def write(self) -> Path:
        path = super().write()
        text = path.read_text(encoding="utf-8")
        line = 'algorithms  = ["ES256"]\n'
        assert line in text
        path.write_text(text.replace(line, line + self.issuer), encoding="utf-8")
        return path


@dataclass
class Run:
    """A gateway, the backend behind it, and whoever asks."""

    site: Site
    gateway: Gateway
    backend: Backend
    callers: list[Caller] = field(default_factory=list)

    async def caller(self, context: ssl.SSLContext | None = None) -> Caller:
        """Return a new connection, over TLS with *context*."""
        bound = self.gateway.bound[0]
        options: dict[str, Any] = {}
        if context is not None:
            options = {"ssl": context, "server_hostname": "localhost"}
        caller = Caller(
            *await asyncio.open_connection(bound.host, bound.port, **options)
        )
        self.callers.append(caller)
        return caller

    async def ask(
        self, fields: Fields, *, context: ssl.SSLContext | None = None, **request: Any
    ) -> Answer:
        """Send one request on a connection of its own."""
        caller = await self.caller(context)
        try:
            return await caller.call(asking(fields, **request))
        finally:
            caller.close()

    def reason(self) -> str | None:
        """Return why the last one was refused."""
        return self.site.log[-1].reason


def asking(fields: Fields, *, path: str = ME, method: str = "GET") -> bytes:
    """Return the bytes of a request."""
    said = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return HEAD % (method.encode(), path.encode(), said.encode("latin-1"))


@asynccontextmanager
async def run_at(directory: Path, **site: Any) -> AsyncIterator[Run]:
    async with running(echoing) as backend:
        made = IssuingSite(
            directory, upstream=f"http://127.0.0.1:{backend.port}", **site
        )
        OURS.write(directory)
        CA.write(directory)
        async with made.running() as gateway:
            it = Run(made, gateway, backend)
            try:
                yield it
            finally:
                for caller in it.callers:
                    caller.close()


def dpop(
    site: Site,
    *,
    key: make.Key = KEY,
    token: str | None = None,
    path: str = ME,
    method: str = "GET",
    scheme: str = "DPoP",
    **changes: Any,
) -> dict[str, str]:
    """Return the fields of a request by whoever holds *key*."""
    token = token or site.token("c-1", cnf={"jkt": jkt_of(KEY)})
    proof = proof_of(key, token, method, URL + path, time.time(), **changes)
    return {"authorization": f"{scheme} {token}", "dpop": proof}


# DPoP


@pytest.fixture(params=["memory", "redis"])
async def run(
    tmp_path: Path, request: pytest.FixtureRequest, redis_server: RedisServer
) -> AsyncIterator[Run]:
    store = redis_server.url if request.param == "redis" else "memory"
    been_up(redis_server)
    async with run_at(tmp_path, store=store, server=PUBLIC_URL) as it:
        if request.param == "redis":
            # Patient: these are about answers, and the machine may be busy.
            engine = it.gateway.engine
            hasty = engine.stores.replays
            patient = RedisReplays(store, engine.clock, deadline=5.0)
            engine.stores = replace(engine.stores, replays=patient)
            await hasty.aclose()
        yield it


def been_up(server: RedisServer) -> None:
    """Let the replay list of *server* have begun a while ago."""
    run = re.search(rb"run_id:(\w+)", server.command("INFO", "server"))
    assert run is not None
    since = b"%b %d" % (run[1], time.time() - AHEAD - 1)
    server.command("SET", "{gw:dpop}:since", since)


async def test_a_token_is_of_use_with_a_proof_of_its_key_once(run: Run) -> None:
    """Same bytes, same connection: 200, then 401. The backend sees neither."""
    fields = dpop(run.site)
    caller = await run.caller()

    answers = [await caller.call(asking(fields)) for _ in range(3)]
    again = await caller.call(asking(dpop(run.site)))

    assert [answer.status for answer in answers] == [200, 401, 401]
    assert again.status == 200
    (challenge,) = answers[1].values(b"www-authenticate")
    assert challenge.startswith(b'DPoP realm="gateway", error="invalid_dpop_proof"')
    reasons = [entry.reason for entry in run.site.log]
    assert reasons == [None, "dpop.replayed", "dpop.replayed", None]
    for request in run.backend.requests:
        assert not request.values(b"dpop")
        assert not request.values(b"authorization")
        assert request.value(b"x-auth-request-user") == b"c-1"
    # Heads that differ each time displace nothing that comes again.
    assert run.gateway.port is not None
    assert not len(run.gateway.port.known_heads)


async def test_of_a_hundred_at_once_one_is_answered(run: Run) -> None:
    """With one proof, on as many connections."""
    fields = dpop(run.site)

    answers = await asyncio.gather(*(run.ask(fields) for _ in range(100)))

    assert sorted(answer.status for answer in answers) == [200] + [401] * 99
    assert len(run.backend.requests) == 1


def _bound(run: Run) -> str:
    return run.site.token("c-1", cnf={"jkt": jkt_of(KEY)})


REFUSED: dict[str, tuple[Callable[[Run], Fields], str]] = {
    "as Bearer": (
        lambda run: {"authorization": f"Bearer {_bound(run)}"},
        "dpop.missing:scheme",
    ),
    "as Bearer with a proof": (
        lambda run: dpop(run.site, scheme="Bearer"),
        "dpop.missing:scheme",
    ),
    "without a proof": (
        lambda run: {"authorization": f"DPoP {_bound(run)}"},
        "dpop.missing:proof",
    ),
    "an empty proof": (
        lambda run: {"authorization": f"DPoP {_bound(run)}", "dpop": ""},
        "dpop.missing:proof",
    ),
    "a thief": (lambda run: dpop(run.site, key=THIEF), "dpop.key:jkt"),
    "a token that is bound to nothing": (
        lambda run: dpop(run.site, token=run.site.token("c-1")),
        "dpop.key:cnf",
    ),
    "a proof for another method": (
        lambda run: dpop(run.site, method="POST"),
        "dpop.invalid:htm",
    ),
    "a proof for another path": (
        lambda run: dpop(run.site, path="/api/orders/status"),
        "dpop.invalid:htu",
    ),
    "a proof for another host": (
        lambda run: dpop(run.site, htu="https://evil.example" + ME),
        "dpop.invalid:htu",
    ),
    "a proof for another token": (
        lambda run: dpop(run.site, ath="x"),
        "dpop.invalid:ath",
    ),
    "an old proof": (
        lambda run: dpop(run.site, iat=int(time.time()) - 70),
        "dpop.invalid:iat",
    ),
    "a private key": (
        lambda run: dpop(run.site, header={"jwk": {**KEY.jwk, "d": "AA"}}),
        "dpop.invalid:jwk",
    ),
    "an unknown confirmation": (
        lambda run: dpop(run.site, token=run.site.token("c-1", cnf={"kid": "x"})),
        "token.claim:cnf",
    ),
}


@pytest.mark.parametrize(("fields", "reason"), REFUSED.values(), ids=REFUSED)
async def test_without_its_proof_it_is_of_no_use(
    run: Run, fields: Callable[[Run], Fields], reason: str
) -> None:
    """A 401 like any other, of which the client learns the kind alone."""
    answer = await run.ask(fields(run))

    assert answer.status == 401
    assert answer.values(b"content-type") == [b"application/problem+json"]
    assert run.reason() == reason
    scheme = b"DPoP" if reason.startswith("dpop.") else b"Bearer"
    (challenge,) = answer.values(b"www-authenticate")
    assert challenge.startswith(scheme + b' realm="gateway", error="')
    if reason not in {"dpop.key:cnf", "token.claim:cnf"}:
        assert challenge.endswith(b', algs="ES256 EdDSA PS256 RS256"')
    assert not run.backend.requests


async def test_two_proofs_are_a_malformed_request(run: Run) -> None:
    """R8; comma-joined they are no JWT."""
    fields = dpop(run.site)
    twice = asking(fields)[:-2] + f"DPoP: {fields['dpop']}\r\n\r\n".encode()
    caller = await run.caller()

    assert (await caller.call(twice)).status == 400
    joined = {**fields, "dpop": f"{fields['dpop']}, {fields['dpop']}"}
    assert (await caller.call(asking(joined))).status == 401
    assert run.reason() == "dpop.invalid:form"


async def test_who_was_revoked_is_refused_and_uses_nothing_up(run: Run) -> None:
    """By token, session, subject and client, as any other."""
    token = run.site.token("c-1", cnf={"jkt": jkt_of(KEY)}, jti="t-1")
    assert (await run.ask(dpop(run.site, token=token))).status == 200
    await run.gateway.engine.revoke(RevocationOrder("corp", "token", "t-1"))

    answer = await run.ask(dpop(run.site, token=token))

    assert answer.status == 401
    assert run.reason() == "token.revoked"


async def test_a_handshake_of_a_websocket_proves_the_key_too(tmp_path: Path) -> None:
    """As a GET of the https URL; among the subprotocols it is a plain bearer token."""
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    policy = POLICY.replace('path    = "/me"\n', 'path    = "/me"\nwebsocket = {}\n')
    async with run_at(tmp_path, server=PUBLIC_URL, policy=policy) as run:
        protocols = f"bearer.{_bound(run)}, chat"
        wrong = [
            {"authorization": f"Bearer {_bound(run)}", **upgrade},
            {**dpop(run.site, htu=f"wss://api.test.example{ME}"), **upgrade},
            {"sec-websocket-protocol": protocols, **upgrade},
        ]
        assert [(await run.ask(each)).status for each in wrong] == [401] * 3
        assert [entry.reason for entry in run.site.log] == [
            "dpop.missing:scheme",
            "dpop.invalid:htu",
            "dpop.missing:scheme",
        ]
        fields = {**dpop(run.site), **upgrade}
        passed = await run.ask(fields)
        again = await run.ask(fields)

        # The backend speaks no WebSocket, and says so by another answer than 101.
        assert passed.status == 200
        assert again.status == 401
        assert len(run.backend.requests) == 1


async def test_nobody_gets_a_ticket_for_a_token_bound_to_a_key(
    tmp_path: Path,
) -> None:
    """It would be good without the key."""
    line = 'path    = "/me"\n'
    policy = POLICY.replace(line, line + 'credentials = ["bearer", "ticket"]\n')
    async with run_at(tmp_path, server=PUBLIC_URL, policy=policy) as run:
        path = "/auth/ticket"
        body = f'{{"method": "GET", "path": "{ME}"}}'
        fields = {
            **dpop(run.site, path=path, method="POST"),
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        caller = await run.caller()

        answer = await caller.call(
            asking(fields, path=path, method="POST") + body.encode()
        )

        assert answer.status == 401


async def test_a_nonce_is_asked_for_and_given(tmp_path: Path) -> None:
    """RFC 9449 section 9: the answer has the one to use."""
    more = "[dpop]\nnonce = true\n"
    async with run_at(tmp_path, server=PUBLIC_URL, more=more) as run:
        first = await run.ask(dpop(run.site))
        (nonce,) = first.values(b"dpop-nonce")
        second = await run.ask(dpop(run.site, nonce=nonce.decode()))
        made_up = await run.ask(dpop(run.site, nonce="A" * len(nonce)))

    assert [first.status, second.status, made_up.status] == [401, 200, 401]
    (challenge,) = first.values(b"www-authenticate")
    assert b'error="use_dpop_nonce"' in challenge
    assert run.site.log[0].reason == "dpop.nonce:nonce"


async def test_gateways_with_one_nonce_key_take_each_others_nonces(
    tmp_path: Path,
) -> None:
    """Without one, each start has its own."""
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "key").chmod(0o600)
    more = f'[dpop]\nnonce = true\nnonce_key = "file:{tmp_path}/key"\n'
    statuses = []
    for number, sections in enumerate((more, "[dpop]\nnonce = true\n")):
        site: dict[str, Any] = {"server": PUBLIC_URL, "more": sections}
        places = [tmp_path / f"{number}{each}" for each in "ab"]
        for place in places:
            place.mkdir()
        one_of, other_of = (run_at(place, **site) for place in places)
        async with one_of as one, other_of as other:
            (nonce,) = (await one.ask(dpop(one.site))).values(b"dpop-nonce")
            answer = await other.ask(dpop(other.site, nonce=nonce.decode()))
            statuses.append(answer.status)

    assert statuses == [200, 401]


async def test_a_restarted_store_lets_no_proof_be_used_again(tmp_path: Path) -> None:
    """Its list is gone: 503 for proofs that may have been on it, never 200."""
    with start_redis() as server:
        been_up(server)
        async with run_at(tmp_path, store=server.url, server=PUBLIC_URL) as run:
            fields = dpop(run.site)
            assert (await run.ask(fields)).status == 200
            server.restart()
            # Revocations are asked again too, and the store may be settling.
            replayed = {(await run.ask(fields)).status for _ in range(20)}
            assert replayed <= {401, 503}
            fresh = await run.ask(dpop(run.site, iat=int(time.time())))
            assert fresh.status == 503
            assert 1 <= int(fresh.values(b"retry-after")[0]) <= AHEAD + 2
            been_up(server)
            assert (await run.ask(dpop(run.site))).status == 200


async def test_while_the_store_is_away_no_proof_is_believed(tmp_path: Path) -> None:
    """Always closed (R61)."""
    async with run_at(tmp_path, server=PUBLIC_URL) as run:
        dead = "redis://127.0.0.1:9/0"
        engine = run.gateway.engine
        away = RedisReplays(dead, engine.clock)
        engine.stores = replace(engine.stores, replays=away)
        answer = await run.ask(dpop(run.site))
        plain = await run.ask(run.site.bearer("c-1"))

    assert (answer.status, plain.status) == (503, 200)
    assert run.site.log[0].reason == "replay list"


async def test_a_route_may_ask_for_a_bound_token(tmp_path: Path) -> None:
    """It says so in its challenge; an unbound token is 401 there, and there alone."""
    policy = POLICY.replace('path    = "/me"\n', 'path    = "/me"\nbinding = "dpop"\n')
    async with run_at(tmp_path, server=PUBLIC_URL, policy=policy) as run:
        nobody = await run.ask({})
        unbound = await run.ask(run.site.bearer("c-1"))
        bound = await run.ask(dpop(run.site))
        elsewhere = await run.ask(run.site.bearer("c-1"), path="/api/orders/files/a")

    statuses = [each.status for each in (nobody, unbound, bound, elsewhere)]
    assert statuses == [401, 401, 200, 200]
    assert nobody.values(b"www-authenticate") == [
        b'Bearer realm="gateway", DPoP realm="gateway", algs="ES256 EdDSA PS256 RS256"'
    ]
    assert [entry.reason for entry in run.site.log[:2]] == [
        "credential.missing",
        "binding.missing",
    ]


async def test_without_a_public_url_a_token_bound_to_a_key_is_none(
    tmp_path: Path,
) -> None:
    """There is nothing to compare a proof with; Host is the client's word."""
    async with run_at(tmp_path) as run:
        answer = await run.ask(dpop(run.site))

    assert answer.status == 401
    assert run.site.log[0].reason == "token.claim:cnf"


# Certificates


def showing(directory: Path, signed: Signed) -> ssl.SSLContext:
    """Return the context of a client that shows *signed*."""
    name = f"client-{signed.certificate.serial_number}"
    return CA.client(signed.write(directory, name))


def for_certificate(site: Site, signed: Signed = ALICE) -> dict[str, str]:
    """Return the field of a token bound to *signed*."""
    return site.bearer("c-1", cnf={"x5t#S256": thumbprint(signed.der)})


async def test_a_token_is_of_use_with_its_certificate(tmp_path: Path) -> None:
    """RFC 8705: shown in TLS to us; none, and another one, are 401, with any field."""
    async with run_at(tmp_path, more=TLS) as run:
        told = {"x-forwarded-client-cert": f"Hash={_hash(ALICE)}"}
        fields = for_certificate(run.site)
        alice, bob = (showing(tmp_path, each) for each in (ALICE, BOB))
        answers = [
            await run.ask(fields, context=alice),
            await run.ask(fields, context=CA.client()),
            await run.ask(fields, context=bob),
            await run.ask({**fields, **told}, context=bob),
            await run.ask({**fields, **told}, context=CA.client()),
            await run.ask(run.site.bearer("c-1"), context=CA.client()),
        ]
        caller = await run.caller(alice)
        again = [await caller.call(asking(fields)) for _ in range(3)]

    assert [each.status for each in answers] == [200, 401, 401, 401, 401, 200]
    # The same certificate proves as often as it is shown.
    assert [each.status for each in again] == [200] * 3
    assert [entry.reason for entry in run.site.log[1:5]] == [
        "binding.missing:mtls",
        "binding.wrong:mtls",
        "binding.wrong:mtls",
        "binding.missing:mtls",
    ]


def _hash(signed: Signed) -> str:
    return sha256(signed.der).hexdigest()


def _byte_sequence(signed: Signed) -> str:
    return f":{b64encode(signed.der).decode()}:"


SAID: dict[str, Callable[[Signed], Fields]] = {
    "client-cert": lambda signed: {"client-cert": _byte_sequence(signed)},
    "xfcc": lambda signed: {"x-forwarded-client-cert": f"Hash={_hash(signed)}"},
    "xfcc-last": lambda signed: {
        "x-forwarded-client-cert": f"Hash={_hash(BOB)},Hash={_hash(signed)}"
    },
}


@pytest.mark.parametrize("kind", SAID)
async def test_a_proxy_on_this_host_may_tell_the_certificate(
    tmp_path: Path, kind: str
) -> None:
    """In the field that the configuration names; the others count for nothing."""
    server = f'trusted_proxies = ["127.0.0.1"]\nclient_certificate = "{kind}"'
    say = SAID[kind]
    async with run_at(tmp_path, server=server) as run:
        fields = for_certificate(run.site)
        right = await run.ask({**fields, **say(ALICE)})
        wrong = [
            fields,
            {**fields, **say(BOB)},
            {**fields, **{name: f"{value}x" for name, value in say(ALICE).items()}},
            {**fields, **dict.fromkeys(say(ALICE), "")},
        ]
        wrong += [
            {**fields, **told(ALICE)}
            for told in SAID.values()
            if say(ALICE).keys() != told(ALICE).keys()
        ]
        statuses = [(await run.ask(each)).status for each in wrong]

    assert right.status == 200
    assert statuses == [401] * len(wrong)
    (request,) = run.backend.requests
    assert not request.values(b"client-cert")
    assert not request.values(b"x-forwarded-client-cert")


@pytest.mark.parametrize("kind", ["client-cert", "xfcc"])
async def test_nobody_else_may(tmp_path: Path, kind: str) -> None:
    """Not who is no trusted proxy, nor one by its address alone (R81)."""
    say = SAID[kind]
    server = f'trusted_proxies = ["192.0.2.1"]\nclient_certificate = "{kind}"'
    async with run_at(tmp_path, server=server, more=TLS) as run:
        fields = {**for_certificate(run.site), **say(ALICE)}
        proxy = showing(tmp_path, PROXY)
        answer = await run.ask(fields, context=proxy)

    assert answer.status == 401
    assert run.site.log[0].reason == "binding.missing:mtls"


# Certificates as credentials

TAKING = re.sub(
    r'owner +=\s"customer_id"',
    'owner = { param = "customer_id", issuer = "corp" }',
    POLICY,
).replace(
    'upstream = "orders"\n',
    'upstream = "orders"\nissuers = ["corp", "certificates"]\n'
    'credentials = ["bearer", "certificate"]\n',
)
NAMES = """
[certificates]
name = "subject"
[certificates.roles]
"CN=alice" = ["customer"]
"""
FILE = "/api/orders/files/a"


async def test_a_certificate_may_be_the_credential(tmp_path: Path) -> None:
    """Its name has roles, or none; a token that is there counts before it."""
    async with run_at(tmp_path, policy=TAKING, more=TLS + NAMES) as run:
        alice, bob = (showing(tmp_path, each) for each in (ALICE, BOB))
        bearer = run.site.bearer("c-1", "support")
        told = SAID["client-cert"](ALICE)
        answers = [
            await run.ask({}, context=alice, path=FILE),
            await run.ask({}, context=bob, path=FILE),
            await run.ask({}, context=bob),
            await run.ask({}, context=CA.client(), path=FILE),
            await run.ask(told, context=CA.client(), path=FILE),
            await run.ask(bearer, context=bob, path=FILE),
            await run.ask({"authorization": "Bearer x.y.z"}, context=alice),
        ]
        caller = await run.caller(alice)
        again = [(await caller.call(asking({}))).status for _ in range(3)]
        await run.gateway.engine.revoke(
            RevocationOrder("certificates", "token", thumbprint(ALICE.der))
        )
        again.append((await caller.call(asking({}))).status)

    assert [each.status for each in answers] == [200, 403, 200, 401, 401, 200, 401]
    assert again == [200, 200, 200, 401]
    assert run.reason() == "token.revoked"
    users = [each.value(b"x-auth-request-user") for each in run.backend.requests]
    assert users[:3] == [b"CN=alice", b"CN=bob", b"c-1"]
    who = run.site.log[0].principal
    assert who is not None
    assert (who.kind, who.issuer, who.subject) == (
        "service",
        "certificates",
        "CN=alice",
    )


async def test_a_proxy_may_tell_the_credential(tmp_path: Path) -> None:
    """Whole: a hash of it names nobody. From anybody else it is nothing."""
    pem = quote(ALICE.pem.decode(), safe="")
    whole = {"x-forwarded-client-cert": f'Hash={_hash(ALICE)};Cert="{pem}"'}
    believing = 'trusted_proxies = ["127.0.0.1"]\nclient_certificate = "xfcc"'
    other = believing.replace("127.0.0.1", "::1")
    statuses = []
    for number, server in enumerate((believing, other)):
        place = tmp_path / str(number)
        place.mkdir()
        async with run_at(place, policy=TAKING, server=server, more=NAMES) as run:
            for fields in (
                whole,
                SAID["xfcc"](ALICE),
                {"x-forwarded-client-cert": "x"},
                {"x-forwarded-client-cert": f'Cert="{pem[:-60]}"'},
            ):
                answer = await run.ask(fields, path=FILE)
                statuses.append((answer.status, run.reason()))

    assert statuses == [
        (200, None),
        (401, "credential.missing"),
        (401, "certificate.invalid:field"),
        (401, "certificate.invalid:field"),
        *([(401, "credential.missing")] * 4),
    ]


# Addresses


@pytest.mark.parametrize(
    ("claim", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.0/8", 200),
        ("::ffff:127.0.0.1", 200),
        (["192.0.2.1", "127.0.0.1"], 200),
        ("127.0.0.2", 401),
        ("0.0.0.0", 401),
        ("127.0.0.1/8", 401),
        ("localhost", 401),
        ("", 401),
        ([], 401),
        (7, 401),
        ({"127.0.0.1": True}, 401),
    ],
)
async def test_a_token_is_of_use_at_its_address(
    tmp_path: Path, claim: object, status: int
) -> None:
    """The socket's; what anybody says of it counts for nothing (R17, R82)."""
    async with run_at(tmp_path, issuer=BY_ADDRESS) as run:
        answer = await run.ask(run.site.bearer("c-1", ip=claim))
        spoofed = await run.ask(
            {
                **run.site.bearer("c-1", ip="192.0.2.7"),
                "x-forwarded-for": "192.0.2.7",
                "forwarded": "for=192.0.2.7",
                "x-real-ip": "192.0.2.7",
            }
        )

    assert answer.status == status
    assert spoofed.status == 401
    assert run.reason() == "binding.wrong:ip"


@pytest.mark.parametrize(
    ("chain", "status"),
    [
        (("192.0.2.7",), 200),
        (("::ffff:192.0.2.7",), 200),
        (("192.0.2.7:4711",), 200),
        (("[::ffff:192.0.2.7]:80",), 200),
        (("192.0.2.7, 127.0.0.1",), 200),
        (("203.0.113.9", "192.0.2.7"), 200),
        (("192.0.2.7, 203.0.113.9",), 401),
        (("192.0.2.7", "203.0.113.9"), 401),
        (("[::1]:80",), 401),
        (("",), 401),
        (("junk",), 401),
        (("192.0.2.7, junk",), 401),
        (("192.0.2.7," * 900 + "203.0.113.9",), 401),
        ((), 401),
    ],
)
async def test_behind_a_trusted_proxy_it_is_the_clients(
    tmp_path: Path, chain: tuple[str, ...], status: int
) -> None:
    """As everywhere: the first from the right that is no proxy (R17)."""
    server = 'trusted_proxies = ["127.0.0.1", "::1"]'
    async with run_at(tmp_path, server=server, issuer=BY_ADDRESS) as run:
        fields = run.site.bearer("c-1", ip="192.0.2.7")
        request = asking(fields)[:-2] + b"".join(
            f"X-Forwarded-For: {each}\r\n".encode() for each in chain
        )
        caller = await run.caller()
        answer = await caller.call(request + b"\r\n")

    assert answer.status == status


# The middleware


@pytest.fixture
def app() -> tuple[Any, list[Any]]:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app, seen


async def test_an_application_of_ones_own_gets_proven_tokens_alone(
    tmp_path: Path, app: tuple[Any, list[Any]]
) -> None:
    """By the middleware: key, address, and no certificate that a field tells."""
    inner, seen = app
    server = PUBLIC_URL + 'trusted_proxies = ["192.0.2.0/24"]'
    site = IssuingSite(tmp_path, server=server, issuer=BY_ADDRESS)
    guarded = GatewayMiddleware(
        inner, config=site.write(), service="orders", log=site.log.append
    )
    transport = httpx2.ASGITransport(guarded, client=("203.0.113.5", 1))
    async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:

        async def ask(fields: Fields) -> int:
            return (await http.get(ME, headers=dict(fields))).status_code

        fields = dpop(site)
        statuses = [
            await ask(fields),
            await ask(fields),
            await ask({"authorization": fields["authorization"]}),
            await ask(site.bearer("c-1", ip="203.0.113.5")),
            await ask(site.bearer("c-1", ip="203.0.113.6")),
            await ask({**for_certificate(site), **SAID["xfcc"](ALICE)}),
        ]
    await guarded.engine.aclose()

    assert statuses == [200, 401, 401, 200, 401, 401]
    assert len(seen) == 2
    assert not [
        name for scope in seen for name, _ in scope["headers"] if name == b"dpop"
    ]

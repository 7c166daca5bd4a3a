"""I8: no secret out (R96), whatever goes wrong.

A tour of requests carries a secret of its own in every place where one may stand, while
one part after the other of the gateway is made to raise, with secrets in the text of
the exception. Everything written meanwhile is kept: both forms of the access log, both
forms of the other log with every library at DEBUG, every answer of the gateway's own,
on all three ports, and what `repr` says of all that can be reached from it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from bench.ports import free_port
from gateway.adapters.issuer_http import IssuerHttp
from gateway.cli.serve import coloured
from gateway.config.load import Loaded, load
from gateway.identity.signer import Signer
from gateway.model import Principal
from gateway.observe.access import Entry, to_json
from gateway.observe.logs import LineHandler, install
from gateway.observe.writer import LogWriter
from gateway.proxy.exchange import Exchange
from gateway.proxy.front import Front
from gateway.proxy.gate import Gate
from gateway.proxy.server import DataPort
from gateway.proxy.upstream import UpstreamConnection
from gateway.tokens.api_key import SECRET_BYTES, key_of
from gateway.tokens.fernet import FernetKeys
from gateway.tokens.jwe import sealing_key
from tests.backends import Connection, answer
from tests.e2e.house import House, closing
from tests.site import ISSUER, Site
from tests.tokens import make

PART = 12  # characters of a secret that are too many

CHANCE = random.Random(96)


def _secret() -> str:
    """Return something that no rule can know by its shape."""
    return "".join(
        CHANCE.choices(
            "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=28
        )
    )


class Secrets:
    """One secret for each place, made when it is first named."""

    def __init__(self) -> None:
        self.by_place: dict[str, str] = {}

    def __getitem__(self, place: str) -> str:
        return self.by_place.setdefault(place, _secret())

    def raw(self, place: str) -> bytes:
        return self[place].encode()

    def take(self, place: str, value: str) -> str:
        """Count *value*, which was made elsewhere, among the secrets."""
        self.by_place[place] = value
        return value

    def found_in(
        self, output: bytes, *, but: frozenset[str] = frozenset()
    ) -> list[str]:
        """Return the places whose secrets, or parts of them, are in *output*."""
        return [
            place
            for place, secret in self.by_place.items()
            if place not in but
            and any(part in output for part in _parts(secret.encode()))
        ]


def _parts(secret: bytes) -> set[bytes]:
    return {secret[at : at + PART] for at in range(0, len(secret) - PART + 1, 4)}


S = Secrets()
FERNET = S.take("Fernet key", Fernet.generate_key().decode())
OCTETS = S.take("JWE key", make.b64(CHANCE.randbytes(32)))
AGREED = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
S.take("JWE private key", AGREED.splitlines()[1])
ENV = {
    "FERNET": FERNET,
    "PASSWORD": S["Fernet password"],
    "OCTETS": OCTETS,
    "AGREED": AGREED,
    "ADMIN_TOKEN": S["admin token"],
    "SHARED": S["shared secret"] + S["more of the shared secret"],
    "PEPPER": S["pepper"] + S["more of the pepper"],
    "CLIENT": S["client secret"],
    "STORE": f"redis://:{S['store password']}@127.0.0.1:9/0",
}
PRIVATE = make.key("ES256", "private")
FORGED = make.token(
    make.key("ES256", "mallory"),
    {
        "iss": ISSUER,
        "sub": S["forged subject"],
        "roles": [S["forged role"]],
        "jti": S["forged id"],
        "exp": int(time.time()) + 600,
    },
    {"kid": "k1"},
)
S.take("forged token", FORGED.partition(".")[2])
OPEN = "active opaque token"
SEALED_ELSEWHERE = (
    make.encrypted(CHANCE.randbytes(32), b'{"alg":"dir"}', S.raw("elsewhere")),
    Fernet(Fernet.generate_key()).encrypt(S.raw("elsewhere")).decode(),
)
for number, token in enumerate(SEALED_ELSEWHERE):
    S.take(f"sealed elsewhere {number}", token[24:])
RELAYED = frozenset({"answer's body", "answer's cookie"})

MORE = """
[issuer.shared]
issuer      = "https://shared.test.example"
secret      = "env:SHARED"
audience    = ["https://api.test.example"]
algorithms  = ["HS256"]
token_types = ["at+jwt"]
scope       = {{ user = "ignore", service = "grant" }}

[issuer.remote]
issuer      = "https://remote.test.example"
jwks        = "{upstream}/jwks"
audience    = ["https://api.test.example"]
algorithms  = ["ES256"]
token_types = ["at+jwt"]
scope       = {{ user = "ignore", service = "grant" }}

[api_keys]
scope  = "ignore"
pepper = "env:PEPPER"

[[api_key]]
id      = "declared"
sha256  = "{digest}"
owner   = "alice"
expires = {ends}
[issuer.asked]
issuer      = "https://asked.test.example"
audience    = ["https://api.test.example"]
scope       = {{ user = "ignore", service = "grant" }}
[issuer.asked.introspection]
url           = "{upstream}/introspect"
client_id     = "gateway"
client_secret = "env:CLIENT"
auth          = "post"

[fernet]
issuer   = "https://sessions.test.example"
audience = ["https://api.test.example"]
keys     = ["env:FERNET"]
derived  = {{ password = "env:PASSWORD", salt = "AAECAwQFBgcICQoLDA0ODw" }}
ttl      = "15m"
scope    = {{ user = "ignore", service = "grant" }}

[jwe]
issuer   = "https://sealed.test.example"
audience = ["https://api.test.example"]
nested   = ["corp"]
scope    = {{ user = "ignore", service = "grant" }}
[[jwe.keys]]
kid = "dir"
alg = "dir"
enc = "A256GCM"
key = "env:OCTETS"
[[jwe.keys]]
kid = "ec"
alg = "ECDH-ES"
enc = "A128CBC-HS256"
key = "env:AGREED"

[probes]
listen = "127.0.0.1:{probes}"
"""


def _key(number: int) -> str:
    """Return an API key, whose secret is one."""
    key = key_of("gw", f"canary{number:06}", CHANCE.randbytes(SECRET_BYTES))
    S.take(f"API key {number}", key.rpartition("_")[2])
    return key


DECLARED, STRANGE, QUERIED, LOST = map(_key, range(4))


class SecretSite(Site):
    """A site with secrets in its environment, and a private key in its key set."""

    def write(self) -> Path:
        self.probes, self.admin = free_port(), free_port()
        digest = S.take("digest", sha256(DECLARED.encode()).hexdigest())
        self.more = MORE.format(
            upstream=self.upstream,
            probes=self.probes,
            digest=digest,
            ends=time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() + 2e6)),
        )
        self.policy = self.policy.replace(
            "[permissions]",
            'issuers = ["corp", "shared", "remote", "asked", "fernet", "jwe"]\n'
            'credentials = ["bearer", "api_key"]\n\n[permissions]',
            1,
        ).replace('owner   = "customer"', OWNER)
        super().write()
        text = self.config.read_text(encoding="utf-8").replace(
            'listen = "unix:admin.sock"',
            f'listen = "127.0.0.1:{self.admin}"\ntoken = "env:ADMIN_TOKEN"',
        )
        self.config.write_text(text, encoding="utf-8")
        keys = {"keys": [self.key.jwk, _private_jwk()]}
        (self.directory / "jwks.json").write_text(json.dumps(keys), encoding="utf-8")
        pem = (self.directory / "identity" / "1.pem").read_text(encoding="ascii")
        S.take("identity key", pem.splitlines()[1])
        return self.config

    def load(self) -> Loaded:
        return load([self.write()], env=ENV)


class AwaySite(SecretSite):
    """The same, with a store that is away and whose URL holds a password."""

    def write(self) -> Path:
        self.store = "env:STORE"
        return super().write()


OWNER = 'owner   = { param = "customer", issuer = "corp" }'


def _private_jwk() -> dict[str, Any]:
    number = PRIVATE.private.private_numbers().private_value
    d = base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")
    return {**PRIVATE.jwk, "d": S.take("private JWK", d)}


async def hostile(connection: Connection) -> None:
    """Answer with secrets, and often badly."""
    body, cookie = S.raw("answer's body"), S.raw("answer's cookie")
    said = answer(body, fields=b"set-cookie: sid=%b\r\n" % cookie)
    broken = {
        b"/public/bad-head": b"HTTP/1.1 200 OK\r\nset-cookie: %b\x00\r\n\r\n"
        % S.raw("bad answer's cookie"),
        b"/public/bad-line": b"HTTP/9.%b\r\n\r\n" % S.raw("bad answer's line"),
        b"/public/bad-framing": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"
        b"content-length: 6\r\nx: %b\r\n\r\n" % S.raw("bad answer's field"),
        b"/public/bad-body": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%b\r\n" % S.raw("bad answer's body"),
        b"/public/surplus": said + b"password=%b" % S.raw("surplus"),
    }
    while True:
        try:
            received = await connection.request()
        except AssertionError:  # names in mixed case: it is not the data port who asks
            if connection.raw.startswith(b"POST /introspect "):
                await connection.send(await _introspected(connection))
                return
            await connection.send(
                answer(
                    b'{"keys": [{"d": "%b"' % S.raw("key set's body"),
                    fields=b"set-cookie: sid=%b\r\n" % S.raw("key set's cookie"),
                )
            )
            return
        found = broken.get(received.target, said)
        await connection.send(found)
        if found is not said:
            return


async def _introspected(connection: Connection) -> bytes:
    """Return what is said of an opaque token; sense of one of them alone."""
    asked = connection.raw
    while b"token=" not in asked or b"client_secret=" not in asked:
        asked += await connection.reader.read(65536)
    assert S.raw("client secret") in asked
    kind = b"content-type: application/json\r\nset-cookie: sid=%b\r\n" % S.raw(
        "introspection's cookie"
    )
    if S.raw(OPEN) not in asked:
        return answer(b'{"active": "%b"}' % S.raw("introspection's body"), fields=kind)
    said = {
        "active": True,
        "sub": "alice",
        "aud": "https://api.test.example",
        "token_type": "Bearer",
        "exp": int(time.time()) + 600,
        # Some servers say so; as a name it would be in every log line.
        "jti": S[OPEN],
        "email": S["claim of a valid opaque token"],
    }
    return answer(json.dumps(said).encode(), fields=kind)


class Run:
    """A house whose every output is kept."""

    patience = 5.0  # seconds for an answer

    def __init__(self, house: House, writers: list[LogWriter[Any]]) -> None:
        self.house = house
        self.writers = writers
        self.access = [io.BytesIO(), io.BytesIO()]
        self.others = [io.BytesIO(), io.BytesIO()]
        self.answers: list[tuple[str, bytes]] = []

    def ask(self, label: str, raw: bytes, port: int = 0) -> None:
        port = port or self.house.gateway.bound[0].port
        self.answers.append((label, self.house.run(_said(port, raw, self.patience))))

    def written(self) -> None:
        """Wait until the writers' threads have written what they were given."""
        for writer in self.writers:
            until = time.monotonic() + 5
            while writer._queue:
                assert time.monotonic() < until
                time.sleep(0.005)
        time.sleep(0.02)


async def _said(port: int, raw: bytes, patience: float) -> bytes:
    """Return what is answered to *raw*; a connection may end in any way, or not."""
    said = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(raw)
                while data := await reader.read(65536):
                    said += data
            finally:
                writer.close()
    return said


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Undo what `install` does to the whole process."""
    root = logging.getLogger()
    held = {
        name: (one, one.handlers[:], one.propagate)
        for name in logging.root.manager.loggerDict
        for one in [logging.getLogger(name)]
    }
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        logging.captureWarnings(capture=False)
        logging.raiseExceptions = True
        root.handlers[:] = handlers
        root.setLevel(level)
        for one, its, propagate in held.values():
            one.handlers[:] = its
            one.propagate = propagate


@contextlib.contextmanager
def running(directory: Path, site: type[Site]) -> Iterator[Run]:
    """Run a house as `gateway serve` does, both logs in both forms."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_logging_as_it_was())
        house = House(directory, hostile, site=site)
        run = Run(house, [])
        for stream, form in zip(run.access, (to_json, coloured), strict=True):
            access_log = LogWriter[Entry](stream, _careful(form))
            run.writers.append(access_log)
            house.sinks.append(access_log.put)
        for stream, json_lines in zip(run.others, (True, False), strict=True):
            other = LogWriter[bytes](stream, bytes)
            run.writers.append(other)
            handler = LineHandler(other.put, json_lines=json_lines)
            if json_lines:
                install(handler, level=logging.DEBUG)
            else:
                logging.getLogger().addHandler(handler)
        stack.enter_context(house.open())
        yield run


FORM = {"raises": False}


def _careful(form: Callable[[Entry], bytes]) -> Callable[[Entry], bytes]:
    """Return *form*, which fails when told to."""

    def line(entry: Entry) -> bytes:
        return fail() if FORM["raises"] else form(entry)

    return line


# What exceptions say


def texts() -> list[str]:
    """Return what libraries put into exceptions: secrets beside their names."""
    fields = [
        (b"authorization", b"Basic " + S.raw("said: basic")),
        (b"cookie", b"sid=" + S.raw("said: cookie")),
        (b"dpop", S.raw("said: dpop")),
        (b"x-api-key", S.raw("said: api key")),
    ]
    return [
        repr(fields),
        repr({name.decode(): value for name, value in fields}),
        b"\r\n".join(b": ".join(field) for field in fields).decode(),
        f"GET /cb?code={S['said: code']}&state={S['said: state']} HTTP/1.1",
        f"/x?access_token={S['said: query']}&password={S['said: password']}",
        f"cannot read the token {FORGED}",
        f"cannot find the key {LOST} or {LOST[:-20]}",
        f"cannot open the tokens {' '.join(SEALED_ELSEWHERE)}",
        f"connecting to redis://:{S['store password']}@127.0.0.1:9/0",
        f"proxy http://user:{S['said: userinfo']}@proxy.example/ refused",
        json.dumps(_private_jwk()),
        f"-----BEGIN PRIVATE KEY-----\n{S['identity key']}\n-----END PRIVATE KEY-----",
        f"client_secret={S['said: client secret']}",
        repr({"set-cookie": f"sid={S['said: set-cookie']}; HttpOnly"}),
    ]


def fail(*_: Any, **__: Any) -> Any:
    """Raise as something deep in a library does."""
    try:
        int("\n".join(texts()))
    except ValueError as error:
        error.add_note(CHANCE.choice(texts()))
        raise RuntimeError(CHANCE.choice(texts())) from error


async def fail_later(*_: Any, **__: Any) -> Any:
    await asyncio.sleep(0)
    fail()


# The tour


def tour(run: Run, *, is_whole: bool = True) -> None:
    """Ask for everything, with a secret in every place.

    The whole of it has every sealed token; else it has those that are good.
    """
    house = run.house
    site = house.site
    assert isinstance(site, SecretSite)
    valid = site.token("alice", jti="t-alice", email=S["claim of a valid token"])
    S.take("valid token", valid.rpartition(".")[2])
    S.take("valid token's claims", valid.split(".")[1])
    now = int(time.time())
    claims = {
        "sub": S["forged subject"],
        "roles": [S["forged role"]],
        "jti": S["forged id"],
        "iss": ISSUER,
        "exp": now + 60,
    }
    mallory = make.key("ES256", "mallory")
    forged = make.token(mallory, claims, {"kid": site.key.key_id})
    S.take("forged token", forged.partition(".")[2])
    unknown = make.token(
        mallory, {**claims, "iss": "https://" + S["forged issuer"]}, {}
    )
    S.take("unknown issuer's token", unknown.partition(".")[2])
    remote = make.token(mallory, {**claims, "iss": "https://remote.test.example"}, {})
    S.take("remote token", remote.partition(".")[2])
    expired = site.token("alice", iat=now - 900, exp=now - 90, email=S["expired claim"])
    S.take("expired token", expired.partition(".")[2])
    odd = site.token("alice", sub={"x": S["odd claim"]})
    S.take("odd token", odd.partition(".")[2])

    sealed = _sealed(site, now)
    for name, token in sealed.items():
        S.take(name, token[24:])

    def bearer(token: str) -> bytes:
        return b"authorization: Bearer %b\r\n" % token.encode()

    plain = (
        b"cookie: sid=%b\r\ndpop: %b\r\nx-%b: 1\r\nx-note: %b\r\n"
        b"x-gateway-assertion: %b\r\nproxy-authorization: Basic %b\r\n"
    ) % tuple(
        S.raw(place)
        for place in (
            *("cookie", "dpop", "header name", "header value", "assertion"),
            "proxy's credential",
        )
    )
    query = b"?" + b"&".join(
        b"%b=%b" % (name.encode(), S.raw(f"query {name}"))
        for name in ("token", "code", "state", "password", "id_token", "ticket", "q")
    )
    body = (
        b"transfer-encoding: chunked\r\n\r\n1c\r\n%b\r\n0\r\n"
        b"authorization: Bearer %b\r\nx-trailer: %b\r\n\r\n"
    ) % (S.raw("request's body"), S.raw("trailing token"), S.raw("trailer"))

    def post(target: bytes, fields: bytes) -> bytes:
        return b"POST %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n%b%b" % (
            target,
            fields,
            body,
        )

    opaque = S[OPEN]
    run.ask("relayed", post(b"/me/x", bearer(opaque)))
    run.ask("relayed", closing(b"/maybe/x", bearer(opaque)))
    for place in (b"/me/x", b"/files/x", b"/bound/x", b"/public/x", b"/maybe/x"):
        run.ask("relayed", post(place + query, plain + bearer(valid)))
        for token in (forged, unknown, remote, expired, odd):
            run.ask(
                "own" if place[1:3] != b"pu" else "relayed", post(place, bearer(token))
            )
    for name, token in sealed.items():
        is_good = name.startswith("valid")
        if is_good or is_whole:
            run.ask("relayed" if is_good else "own", closing(b"/me/x", bearer(token)))
    run.ask("relayed", closing(b"/public/x" + query, plain))
    api_key = b"x-api-key: %b\r\n" % S.raw("api key")
    run.ask("own", closing(b"/me/x" + query, plain + api_key))
    for field in (
        b"authorization: Basic %b\r\n" % S.raw("basic"),
        b"authorization: Digest username=%b\r\n" % S.raw("digest"),
        b"authorization: %b\r\n" % S.raw("bare credential"),
        b"authorization: Bearer %b\r\n" % S.raw("opaque token"),
        b"authorization: Bearer %b and\x80\r\n" % S.raw("spaced token"),
        bearer(valid) + b"authorization: Bearer %b\r\n" % S.raw("second token"),
        b"authorization: Bearer %b\x00\r\n" % S.raw("token with a control"),
        b"authorization : Bearer %b\r\n" % S.raw("token after a blank"),
        b"authorization: Bearer %b\n x\r\n" % S.raw("folded token"),
        b"authorization: Bearer " + S.raw("long token") * 400 + b"\r\n",
        b"authorization: Bearer " + S.raw("longest token") * 900 + b"\r\n",
    ):
        run.ask("own", closing(b"/me/x", field))
    for target in (
        b"/me/x?access_token=" + S.raw("query access_token"),
        b"/me/x?access%5Ftoken=" + S.raw("encoded access_token"),
        b"/nowhere" + query,
        b"/me/%zz" + query,
        b"/me/x#access_token=" + S.raw("fragment"),
        b"/nowhere/" + forged.encode(),
        b"/me/%zz/" + forged.encode(),
        b"http://user:" + S.raw("userinfo") + b"@a/x",
        b"/me/http://user:" + S.raw("userinfo in a path") + b"@a/x",
        b"/nowhere/password=" + S.raw("password in a path"),
        b"/nowhere/x%3Ftoken%3D" + S.raw("encoded query in a path"),
    ):
        run.ask("own", closing(target, plain))
    run.ask("relayed", closing(b"/public/" + forged.encode(), plain))
    run.ask("own", closing(b"/me/x", host=b"user:%b@a" % S.raw("Host")))
    run.ask("own", b"GET /me/x HTTP/9.9\r\n" + plain + b"\r\n")
    run.ask("own", b"\x16\x03\x01 password=" + S.raw("no HTTP") + b"\r\n\r\n")
    run.ask("own", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + plain)
    run.ask("own", b"GET /me/" + plain)
    run.ask("own", post(b"/me/x", bearer(valid)).replace(b"1c\r\n", b"zz\r\n"))
    for target in (b"bad-head", b"bad-line", b"bad-framing"):
        run.ask("own", closing(b"/public/" + target, plain))
    run.ask("bad body", closing(b"/public/bad-body", plain))
    run.ask("relayed", closing(b"/public/surplus", plain))
    run.ask("own", closing(b"/.well-known/gateway-identity/jwks.json" + query, plain))
    run.ask("own", closing(b"/auth/nothing" + query, plain + bearer(valid)))
    wish = json.dumps({"method": "GET", "path": f"/me/{S['wished path']}"}).encode()
    run.ask(
        "own",
        b"POST /auth/ticket HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
        % (len(wish), plain + bearer(valid), wish),
    )

    typed = DECLARED[:-1] + ("0" if DECLARED[-1] != "0" else "1")
    for key in (DECLARED, STRANGE, typed, DECLARED[:-9], DECLARED + "/x"):
        for field in (bearer(key), b"x-api-key: %b\r\n" % key.encode()):
            label = "relayed" if key is DECLARED else "own"
            run.ask(label, closing(b"/me/x" + query, field))
    for target in (b"/me/x?a=%b", b"/me/%b", b"/nowhere/%b", b"/me/%%zz/%b"):
        for key in (QUERIED, QUERIED.replace("_", "%5F"), LOST[:-6]):
            run.ask("relayed", closing(target % key.encode(), bearer(DECLARED)))
    for method, path, said in (
        ("GET", "", {}),
        ("GET", "/declared", {}),
        ("POST", "", {"owner": "bob", "lifetime": S["lifetime of a key"]}),
        ("POST", "", {"owner": "bob", "id": S["odd id of a key"] + "/"}),
        ("POST", "/declared/rotate", {"overlap": 0}),
    ):
        sent = json.dumps(said)
        raw = (
            f"{method} /-/api-keys{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
            f"authorization: Bearer {S['admin token']}\r\n"
            f"content-length: {len(sent)}\r\n\r\n{sent}"
        )
        run.ask("own", raw.encode(), site.admin)

    order = json.dumps({"sub": S["order's subject"], "reason": S["order's reason"]})
    for token, sent in (
        (S["wrong admin token"], order),
        (S["admin token"], order),
        (S["admin token"], json.dumps({"jti": [S["odd order"]]})),
        (S["admin token"], "password=" + S["order that is none"]),
        (
            S["admin token"],
            json.dumps({"sub": "x" * 999, "issuer": S["order's issuer"]}),
        ),
        (S["admin token"], json.dumps({"issuer": "corp", "jti": "t-nobody"})),
    ):
        raw = (
            "POST /-/revocations HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
            f"authorization: Bearer {token}\r\ncontent-length: {len(sent)}\r\n\r\n"
        )
        run.ask("own", (raw + sent).encode(), site.admin)
    for target in (
        b"/readyz?verbose&q=" + S.raw("query of a probe"),
        b"/x",
        b"/livez",
        b"/metrics?q=" + S.raw("query of a scrape"),
    ):
        run.ask("own", closing(target, plain), site.probes)


def _sealed(site: SecretSite, now: int) -> dict[str, str]:
    """Return sealed tokens by what they are, with secrets in them."""
    fernet = FernetKeys([FERNET])
    octets = sealing_key("dir", "A256GCM", "dir", OCTETS.encode())
    agreed = sealing_key("ECDH-ES", "A128CBC-HS256", "ec", AGREED.encode())
    stranger = FernetKeys([Fernet.generate_key().decode()])
    claims = {"sub": "alice", "exp": now + 600}
    ours = {
        **claims,
        "iss": "https://sealed.test.example",
        "aud": "https://api.test.example",
    }

    def said(of: dict[str, Any], place: str, **more: Any) -> bytes:
        return json.dumps({**of, "email": S[place], **more}).encode()

    inner = site.token("alice", email=S["claim in a nested token"]).encode()
    valid = {
        "valid Fernet token": fernet.seal(said(claims, "claim of a Fernet token"), now),
        "valid JWE": octets.seal(said(ours, "claim of a JWE"), {}),
        "valid nested JWE": agreed.seal(inner, {"cty": "JWT"}),
    }
    return {
        **valid,
        "forged Fernet token": stranger.seal(said(claims, "forged Fernet claim"), now),
        "old Fernet token": fernet.seal(said(claims, "old Fernet claim"), now - 9999),
        "odd Fernet token": fernet.seal(
            said(claims, "odd Fernet claim", sub={"x": S["odd Fernet subject"]}), now
        ),
        "odd JWE": octets.seal(
            said(ours, "odd JWE claim", aud={"x": S["odd JWE audience"]}), {}
        ),
        "JWE without a signature": agreed.seal(said(ours, "unsigned JWE claim"), {}),
        "JWE of no JSON": octets.seal(S.raw("plaintext of a JWE"), {}),
        **{f"broken {name}": token[:-8] + "AAAAAAAA" for name, token in valid.items()},
    }


# Breaking things

Fault = Callable[[House], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def _gate(house: House, **broken: Any) -> Iterator[None]:
    """Replace parts of what the data port decides by."""
    port = house.gateway.port
    assert port is not None
    gate = port.gate
    _decide_by(port, replace(gate, **broken))
    try:
        yield
    finally:
        _decide_by(port, gate)


def _decide_by(port: DataPort, gate: Gate) -> None:
    port.gate = gate
    # They remember what the gate before made of them.
    port.known_heads.clear()
    for pool in port.pools.values():
        pool.known_answers.clear()


@contextlib.contextmanager
def _asking_the_store(house: House, check: Any) -> Iterator[None]:
    store = house.gateway.engine.stores.revocations
    with (
        patch.object(store, "check_now", lambda _: None),
        patch.object(store, "check", check),
    ):
        yield


async def _not_revoked(_: Principal) -> bool:
    await asyncio.sleep(0)
    return False


@contextlib.contextmanager
def _finishing(house: House) -> Iterator[None]:
    with _asking_the_store(house, _not_revoked), _gate(house, finish=fail_later):
        yield


@contextlib.contextmanager
def _log_form(_: House) -> Iterator[None]:
    FORM["raises"] = True
    try:
        yield
    finally:
        time.sleep(0.05)  # the writer's thread has a look first
        FORM["raises"] = False


class BrokenHygiene:
    to_upstream = fail
    to_client = fail


FAULTS: dict[str, Fault] = {
    "nothing": lambda _: contextlib.nullcontext(),
    "decide_now": lambda house: _gate(house, decide_now=fail),
    "finish": _finishing,
    "store.check": lambda house: _asking_the_store(house, fail_later),
    "store.revoke": lambda house: patch.object(
        house.gateway.engine.stores.revocations, "revoke", fail_later
    ),
    "identity": lambda house: _gate(house, identity=fail),
    "signer": lambda _: patch.object(Signer, "_sign", fail),
    "hygiene": lambda house: _gate(house, hygiene=BrokenHygiene()),
    "keys": lambda house: patch.object(house.gateway.engine.keys, "find", fail),
    "fetching keys": lambda house: patch.object(
        house.gateway.engine.keys, "fetch", fail_later
    ),
    "finding API keys": lambda house: patch.object(
        house.gateway.engine.stores.api_keys, "find", fail
    ),
    "fetching API keys": lambda house: patch.object(
        house.gateway.engine.stores.api_keys, "fetch", fail_later
    ),
    "asking": lambda house: patch.object(
        house.gateway.engine.introspection, "ask", fail_later
    ),
    "posting": lambda _: patch.object(IssuerHttp, "post", fail_later),
    "opening Fernet": lambda _: patch.object(FernetKeys, "open", fail),
    "opening JWE": lambda _: patch("gateway.tokens.jwe.jwe.decrypt_compact", fail),
    "health": lambda house: patch.object(house.gateway.engine.keys, "health", fail),
    "front's head": lambda _: patch.object(Front, "on_headers_complete", fail),
    "front's url": lambda _: patch.object(Front, "on_url", fail),
    "front's body": lambda _: patch.object(Front, "on_body", fail),
    "front": lambda _: patch.object(Front, "data_received", fail),
    "answer": lambda _: patch.object(Exchange, "on_answer", fail),
    "content": lambda _: patch.object(Exchange, "on_content", fail),
    "end": lambda _: patch.object(Exchange, "on_end", fail),
    "upstream's head": lambda _: patch.object(
        UpstreamConnection, "on_headers_complete", fail
    ),
    "upstream": lambda _: patch.object(UpstreamConnection, "data_received", fail),
    "log form": _log_form,
}


def _others_at_work(run: Run) -> None:
    """What happens beside requests: tasks, callbacks, threads, libraries, warnings."""
    house = run.house

    async def beside() -> None:
        house.gateway.engine.background.spawn(fail_later())
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0.01)

    house.run(beside())
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    for name in ("httpx2", "httpcore2", "uvicorn.error", "redis", "py.warnings", "x.y"):
        logger = logging.getLogger(name)
        for text in texts():
            logger.debug("request %s", text)
            logger.info(text.replace("%", "%%"))
            logger.warning("%d of them", text)
            logger.error("%(authorization)s", {"authorization": text})
        try:
            fail()
        except RuntimeError:
            logger.exception("it failed")


def _said_by_repr(root: object) -> Iterator[str]:
    """Yield the repr of all that can be reached from *root* in the house."""
    waiting, seen = [root], set[int]()
    keep = []  # so that no id is used twice
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | bytes | int | float | type | None):
            continue
        seen.add(id(one))
        keep.append(one)
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset) and not hasattr(
            one, "_fields"
        ):
            waiting += one
        elif type(one).__module__.partition(".")[0] in HOUSE:
            yield repr(one)
            waiting += getattr(one, "__dict__", {}).values()
            slots = [getattr(kind, "__slots__", ()) for kind in type(one).__mro__]
            for names in slots:
                each = (names,) if isinstance(names, str) else names
                waiting += [getattr(one, name, None) for name in each]


BELIEVED = frozenset(
    f"claim {where}"
    for where in (
        *("of a valid token", "of a Fernet token", "of a JWE"),
        "in a nested token",
    )
)
HOUSE = {
    "gateway",
    "joserfc",
    "redis",
    "httpx2",
    "httpcore2",
    "jwt",
    "cryptography",
    "mappingproxy",
}


def _assert_silent(run: Run) -> None:
    house = run.house
    for label, said in run.answers:
        but = {"relayed": RELAYED, "bad body": RELAYED | {"bad answer's body"}}
        assert S.found_in(said, but=but.get(label, frozenset())) == [], said
    shown = "\n".join(_said_by_repr(house.gateway)).encode()
    assert len(shown) > 2_000
    # A Principal says what is known of somebody, to whoever asks for it.
    known = frozenset({"claim of a valid token", "claim of a valid opaque token"})
    assert S.found_in(shown, but=known) == []
    assert S.found_in(shown, but=BELIEVED) == []
    run.written()
    for stream in (*run.access, *run.others):
        assert stream.getvalue()
        assert S.found_in(stream.getvalue()) == []
    for stream in (run.access[0], run.others[0]):
        assert all(json.loads(line) for line in stream.getvalue().splitlines())
    run.answers.clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with running(tmp_path_factory.mktemp("house"), SecretSite) as run:
        yield run
    for writer in run.writers:  # what was said on the way out
        writer.close()
    _assert_silent(run)


# Of these nothing is logged: that a token can't be opened is an answer (R49).
SILENT = {"nothing", "log form", "posting", "opening JWE"}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_secret_gets_out(run: Run, fault: str) -> None:
    """I8, R96: not when all is well, and not when something fails with it in hand."""
    # What is broken may say nothing at all; that is not the subject here.
    run.patience = 5.0 if fault == "nothing" else 0.15
    written = len(run.others[0].getvalue())
    with FAULTS[fault](run.house):
        tour(run, is_whole=fault == "nothing" or fault.startswith("opening"))
    _assert_silent(run)
    run.house.received()  # while what was signed for it is valid: a minute
    # The exception was logged, with what is left of its text.
    said = run.others[0].getvalue()[written:]
    assert b"[redacted]" in said or fault in SILENT


def test_the_active_opaque_token_was_taken(run: Run) -> None:
    """Or the tour would show nothing of it: its claims are remembered."""
    run.ask("relayed", closing(b"/me/x", b"authorization: Bearer %b\r\n" % S.raw(OPEN)))
    (_, said) = run.answers[-1]
    assert said.startswith(b"HTTP/1.1 200 ")
    _assert_silent(run)


def test_no_secret_gets_out_beside_a_request(run: Run) -> None:
    """Nor in what libraries log, in warnings, or where a thread or a task ends."""
    _others_at_work(run)
    _assert_silent(run)


def test_no_secret_gets_out_while_the_store_is_away(tmp_path: Path) -> None:
    """Nor the password of its URL, in any message about it."""
    with running(tmp_path, AwaySite) as run:
        tour(run)
        run.written()
        assert b'"status":503' in run.access[0].getvalue()
        _assert_silent(run)


def test_a_secret_that_does_get_out_is_noticed() -> None:
    """The search above finds what it looks for, in part too."""
    assert S.found_in(b"x" + S.raw("cookie")[4:20] + b"x") == ["cookie"]

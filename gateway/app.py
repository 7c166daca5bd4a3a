"""The composition root: what the rooms ask for, and who gives it to them.

The only module that names the `time` module, makes background tasks, reads key files
and knows every room. An Engine decides; `serve` puts a data port, probes and an admin
port around it; GatewayMiddleware puts it into somebody's ASGI app.

Imports: every room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.adapters.jwks import JwksClient
from gateway.adapters.memory_store import MemoryRevocations
from gateway.adapters.redis_store import RedisRevocations
from gateway.asgi.admin import RevocationOrder, admin
from gateway.asgi.middleware import Guard
from gateway.asgi.own import own_endpoints
from gateway.asgi.probes import Check, probes
from gateway.asgi.servers import SmallServer
from gateway.clock import Clock
from gateway.config.load import Loaded, load
from gateway.config.settings import Address, Identity, Issuer, Upstream
from gateway.decision import Decider, Pending, finish
from gateway.identity.keys import KeyRing, key_set_document, signing_key_from_pem
from gateway.identity.signer import NOBODY, BoundRequest, Signed, Signer
from gateway.model import (
    SELF,
    Denial,
    KeyNeeded,
    Need,
    Permit,
    RequestHead,
)
from gateway.observe.access import Entry, to_json, unlogged
from gateway.observe.token_hash import TokenHash
from gateway.observe.writer import LogWriter
from gateway.proxy.gate import Gate
from gateway.proxy.server import DataPort
from gateway.proxy.sockets import bind, bind_all
from gateway.proxy.tls import Certificates
from gateway.revocation.entries import RevocationList, entry_for
from gateway.tokens.cache import VerifiedTokens
from gateway.tokens.claims import IssuerRules
from gateway.tokens.jwt import JwtAuthenticator
from gateway.wire.headers import Hygiene

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger("gateway")

CLOCK = Clock(wall=time.time, monotonic=time.monotonic)  # noqa: TID251  (here alone)

Log = Callable[[Entry], None]


class Background:
    """Tasks that nobody awaits: kept from the collector, their failures logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start *work*; a failure of it is logged and harms nothing else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def aclose(self) -> None:
        """Cancel what is left and wait for its end."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work failed", exc_info=task.exception())


class Engine:
    """All that decides, made from one configuration; the doors share it."""

    def __init__(self, loaded: Loaded, *, clock: Clock = CLOCK) -> None:
        settings, policy = loaded.settings, loaded.policy
        self.settings = settings
        self.policy = policy
        self.clock = clock
        self.background = Background()
        self.verified = VerifiedTokens(now=clock.wall)
        self.store: RevocationList = (
            MemoryRevocations(clock)
            if settings.store.is_memory
            else RedisRevocations(settings.store.url, clock)
        )
        self.keys = JwksClient(
            tuple(settings.issuers.values()),
            clock,
            on_change=self.verified.drop_issuer,
        )
        self.decider = Decider(
            policy,
            [
                JwtAuthenticator(
                    tuple(map(_rules, settings.issuers.values())), self.keys
                )
            ],
            self.verified,
            self.store,
            audiences={i.name: i.audience for i in settings.issuers.values()},
            hosts=settings.server.hosts,
            own_prefix=tuple(settings.server.own_prefix.strip("/").split("/")),
            max_token=settings.server.max_token,
        )
        self._issuer_urls = {i.name: i.issuer for i in settings.issuers.values()}
        self._signers = self._make_signers()
        self.hygiene = Hygiene(
            strip=settings.headers.strip,
            keep=settings.headers.keep,
            underscores=settings.headers.underscores,
            own=frozenset(
                name for identity in self._identities() for name in identity.headers
            ),
        )
        self._token_names = TokenHash(secrets.token_bytes(32))

    @property
    def generation(self) -> str:
        """Name this configuration, for the log and for what is cached by it."""
        return self.policy.generation

    async def start(self) -> None:
        """Load the issuers' keys as far as they can be had, and keep them fresh."""
        await self.keys.start()
        self.background.spawn(self.keys.run())

    async def aclose(self) -> None:
        """End background work, then close what it used."""
        await self.background.aclose()
        await self.keys.aclose()
        await self.store.aclose()

    async def answer(self, need: Need) -> Any:
        """Answer a Need of the main path.

        Raises:
            Unavailable: Whoever knows did not answer.
        """
        if isinstance(need, KeyNeeded):
            return await self.keys.fetch(need)
        return await self.store.check(need.principal)

    async def decide(self, head: RequestHead, now: float) -> Permit | Denial:
        """Decide *head* as of *now*, waiting for what has to be waited for."""
        return await self.decider.decide(head, now, self.answer)

    async def finish(self, pending: Pending) -> Permit | Denial:
        """Drive a pending decision to its end."""
        return await finish(pending, self.answer)

    def identity(
        self, permit: Permit, head: RequestHead, request_id: bytes, now: float
    ) -> Signed | Denial:
        """Return the signed fields that go with *permit*; none where nobody is."""
        principal = permit.principal
        if principal.kind == "anonymous":
            return NOBODY
        bound = None
        if permit.route.bind_request:
            name = request_id.decode("ascii")
            bound = BoundRequest(head.method, permit.target, name)
        upstream, policy = permit.upstream, self.policy
        return self._signers[upstream].sign(
            principal,
            upstream,
            policy.names(permit.granted),
            now,
            policy.generation,
            bound,
        )

    async def revoke(self, order: RevocationOrder) -> float:
        """Carry *order* out; return until when (Unix seconds) it is kept.

        Raises:
            Unavailable: The store has not acknowledged it.
        """
        issuer = self.settings.issuers[order.issuer]
        entry = entry_for(
            order.kind,
            issuer.issuer,
            order.value,
            now=self.clock.wall(),
            leeway=issuer.leeway,
            max_lifetime=issuer.max_lifetime,
        )
        await self.store.revoke(entry)
        logger.warning(
            "revoked by order: issuer=%s kind=%s reason=%s",
            order.issuer,
            order.kind,
            order.reason or "-",
        )
        return entry.until

    def checks(self) -> list[Check]:
        """Say how our dependencies are, from what is known without asking now."""
        found = [Check("revocation store", self.store.health() or "")]
        troubles = {name: self.keys.health(name) for name in self.settings.issuers}
        has_public = any(r.access in {"public", "optional"} for r in self.policy.routes)
        nobody = not has_public and all(map(self.keys.is_empty, troubles))
        found += [
            Check(
                f"keys of issuer {name}", trouble or "", fatal=nobody and bool(trouble)
            )
            for name, trouble in troubles.items()
        ]
        return found

    def key_set(self) -> bytes:
        """Return the JWK Set document that verifies our assertions."""
        return self._key_set

    def token_hash(self, head: RequestHead) -> str:
        """Return the log's name for the token of *head*; "" where it has none."""
        section = head.section
        name = section.token_name
        if name is None:
            name = ""
            for field, value in section.headers:
                if field == b"authorization":
                    token = value.partition(b" ")[2].strip(b" ")
                    name = self._token_names.of(token.decode("latin-1"))
                    break
            section.token_name = name
        return name

    def _identities(self) -> list[Identity]:
        own = [u.identity for u in self.settings.upstreams.values() if u.identity]
        return own + ([self.settings.identity] if self.settings.identity else [])

    def _make_signers(self) -> dict[str, Signer]:
        rings = {each.keys: _ring(each) for each in self._identities()}
        self._key_set = _published(list(rings.values()))
        # One for each identity: upstreams that share it share what is remembered.
        signers = {
            id(identity): Signer(
                rings[identity.keys],
                issuer=identity.issuer,
                issuers=self._issuer_urls,
                random=secrets.token_bytes,
                ttl=identity.ttl,
                claims=identity.claims,
                headers=identity.headers,
            )
            for identity in self._identities()
        }
        chosen = {
            upstream.name: upstream.identity or self.settings.identity
            for upstream in self.settings.upstreams.values()
        }
        return {name: signers[id(each)] for name, each in chosen.items() if each}

    def gate(self, log: Log, self_address: Address) -> Gate:
        """Return this generation as the data port takes it."""
        own = Upstream(SELF, self_address, authority="self")
        return Gate(
            server=self.settings.server,
            decide_now=self.decider.decide_now,
            finish=self.finish,
            hygiene=self.hygiene,
            identity=self.identity,
            upstreams={**self.settings.upstreams, SELF: own},
            log=log,
            generation=self.policy.generation,
            log_query=self.settings.log_query,
            token_hash=self.token_hash,
        )


class Gateway:
    """A whole gateway in one process: data port, probes, admin, own endpoints."""

    def __init__(self, loaded: Loaded, log: Log, *, clock: Clock = CLOCK) -> None:
        self.engine = Engine(loaded, clock=clock)
        self._settings = loaded.settings
        self._log = log
        self._started = False
        self._closing = contextlib.AsyncExitStack()
        self.port: DataPort | None = None
        self._certificates: Certificates | None = None

    @property
    def bound(self) -> Sequence[Address]:
        """Where the data port listens."""
        return self.port.bound if self.port else ()

    async def start(self) -> None:
        """Listen on every port, the data port last.

        Raises:
            OSError: A port or a socket can't be had.
            ValueError: The certificate or its key can't be used.
        """
        engine, settings, closing = self.engine, self._settings, self._closing
        closing.push_async_callback(engine.aclose)
        spawn = engine.background.spawn
        if settings.server.tls is not None:
            self._certificates = Certificates(settings.server.tls, engine.clock)
            spawn(self._certificates.run())
        # Our own endpoints come first: the data port forwards to them.
        private = self._private_directory()
        own_path = str(private / f"own.{secrets.token_hex(4)}.sock")
        await self._serve(own_endpoints(engine.key_set), bind(Address(path=own_path)))
        closing.callback(Path(own_path).unlink, missing_ok=True)
        if settings.probes is not None:
            app = probes(lambda: self._started, self.checks)
            await self._serve(app, bind(settings.probes))
        if settings.admin is not None:
            app = admin(
                engine.revoke, lambda: frozenset(settings.issuers), settings.admin.token
            )
            await self._serve(app, bind(settings.admin.listen))
            if settings.admin.listen.path:
                path = Path(settings.admin.listen.path)
                closing.callback(path.unlink, missing_ok=True)
        await engine.start()
        gate = engine.gate(self._log, Address(path=own_path))
        self.port = DataPort(gate, engine.clock, spawn, secrets.token_bytes)
        await self.port.start(bind_all(settings.server.listen), self._certificates)
        self._started = True

    def checks(self) -> list[Check]:
        """Say how our dependencies and our own certificate are."""
        found = self.engine.checks()
        if self._certificates is not None:
            found.append(Check("TLS certificate", self._certificates.health()))
        return found

    async def aclose(self, grace: float = 20.0) -> None:
        """Stop accepting, give what is in flight *grace* seconds, close the rest."""
        self._started = False
        if self.port is not None:
            await self.port.close(grace)
        await self._closing.aclose()

    async def _serve(self, app: Any, sock: socket.socket) -> None:
        server = SmallServer(app, sock, self.engine.background.spawn)
        await server.start()
        self._closing.push_async_callback(server.stop)

    def _private_directory(self) -> Path:
        """Return a directory that only we can enter, for the socket to ourselves."""
        admin_at = self._settings.admin
        if admin_at is not None and admin_at.listen.path:
            directory = Path(admin_at.listen.path).parent
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return directory
        return Path(
            self._closing.enter_context(tempfile.TemporaryDirectory(prefix="gateway-"))
        )


async def serve(
    loaded: Loaded, log: Log, *, on_ready: Callable[[Gateway], None] = lambda _: None
) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    Raises:
        OSError: A port or a socket can't be had.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, asked.set)
    gateway = Gateway(loaded, log)
    try:
        await gateway.start()
        on_ready(gateway)
        await asked.wait()
    finally:
        await gateway.aclose()


class GatewayMiddleware(Guard[Engine]):
    """Puts the gateway into an ASGI application (the third door).

        app = GatewayMiddleware(app, config="gateway.toml", service="orders")

    Args:
        app: The application; it receives what an upstream would.
        config: gateway.toml, or several files that overlay one another.
        service: Whose routes lead to *app*.
        log: Takes an entry for each request; default: JSON lines on stdout.

    Raises:
        ConfigError: With every problem of the configuration.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: str | Path | Sequence[str | Path] = "gateway.toml",
        service: str,
        log: Log | None = None,
    ) -> None:
        named = [config] if isinstance(config, str | Path) else config
        loaded = load([Path(each) for each in named], env=os.environ)
        services = {route.service for route in loaded.policy.routes}
        if service not in services:
            known = ", ".join(sorted(services))
            raise ValueError(f"no service {service!r} in the policies; known: {known}")
        if log is None:
            is_on = loaded.settings.log_access
            log = LogWriter(sys.stdout.fileno(), to_json).put if is_on else unlogged
        super().__init__(
            app,
            make_engine=lambda: Engine(loaded),
            own=own_endpoints(
                lambda: self.engine.key_set()  # noqa: PLW0108  (each lifespan has one)
            ),
            service=service,
            log=log,
            random=secrets.token_bytes,
        )


def _rules(issuer: Issuer) -> IssuerRules:
    return IssuerRules(
        name=issuer.name,
        issuer=issuer.issuer,
        audience=issuer.audience,
        algorithms=issuer.algorithms,
        token_types=issuer.token_types,
        leeway=issuer.leeway,
        max_lifetime=issuer.max_lifetime,
        token_id=issuer.token_id,
        role_claim=issuer.roles.claim,
        role_map=issuer.roles.map,
        role_allow=issuer.roles.allow,
        role_split=issuer.roles.split,
        scope_claim=issuer.scope.claim,
    )


def _ring(identity: Identity) -> KeyRing:
    """Read the keys of *identity*; of a directory the newest file signs.

    Raises:
        ValueError: One of them is no such key; says which file, never what is in it.
    """
    kind, _, name = identity.keys.partition(":")
    path = Path(name)
    files = sorted(path.glob("*.pem"), reverse=True) if kind == "dir" else [path]
    if not files:
        raise ValueError(f"{path} holds no *.pem: see `gateway keys generate`")
    keys = []
    for file in files:
        try:
            pem = file.read_bytes()
            keys.append(signing_key_from_pem(pem, identity.algorithm))
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
    return KeyRing(tuple(keys))


def _published(rings: Sequence[KeyRing]) -> bytes:
    keys = {key.key_id: key for ring in rings for key in ring.keys}
    if not keys:
        return b'{"keys":[]}'
    return key_set_document(KeyRing(tuple(keys.values())))

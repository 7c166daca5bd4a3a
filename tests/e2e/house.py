"""A whole gateway and the backend behind it, on one loop, kept for many examples.

    with House(tmp_path).open() as house:
        answer = house.call(request(b"/me", house.alice.fields))
        (received,) = house.received()

The backend records what it reads. `received` returns each request with the head that
was decided under its request id, and with the claims of its assertion, verified with
the keys that the gateway publishes and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import jwt
import uvloop

from gateway.asgi.own import KEY_SET_PATH
from gateway.decision import Pending
from gateway.model import Denial, Permit, RequestHead
from gateway.observe.access import Entry
from gateway.proxy.exchange import Exchange
from gateway.serving import Gateway
from tests.backends import Backend, Behaviour, Connection, Received, answer, running
from tests.proxy.harness import Answer, Caller
from tests.site import IDENTITY, Site

T = TypeVar("T")

HOST = b"shop.example"

POLICY = """\
version = 1

[service]
name     = "orders"
prefix   = "/"
upstream = "orders"

[permissions]
"orders:read"  = "See your own orders"
"orders:write" = "Place your own orders"

[roles.customer]
permissions = ["orders:read", "orders:write"]
[roles.support]
permissions = ["orders:read"]

[[route]]
id      = "open"
methods = ["*"]
path    = "/public/{rest...}"
access  = { public = "for everybody" }

[[route]]
id      = "maybe"
methods = ["*"]
path    = "/maybe/{rest...}"
access  = "optional"

[[route]]
id      = "me"
methods = ["*"]
path    = "/me/{rest...}"
access  = "authenticated"

[[route]]
id      = "files"
methods = ["*"]
path    = "/files/{rest...}"
require = "orders:read"

[[route]]
id            = "encoded"
methods       = ["*"]
path          = "/encoded/{rest...}"
require       = "orders:read"
allow_encoded = ["%2F", "%5C", "%23", "%3F", "%25"]

[[route]]
id      = "own"
methods = ["GET", "POST"]
path    = "/customers/{customer}/{rest...}"
owner   = "customer"
require = ["orders:read", "@owner"]

[[route]]
id       = "bound"
methods  = ["*"]
path     = "/bound/{rest...}"
access   = "authenticated"
identity = { bind = "request" }
"""

# What waits for more bytes ends soon: an example may stop anywhere.
HEADER_TIMEOUT = 0.2  # seconds
SERVER = f"""\
header_timeout = "{1000 * HEADER_TIMEOUT:.0f}ms"
body_timeout   = "200ms"
idle_timeout   = "5s"
"""

COPIES = {
    b"x-auth-request-user": "sub",
    b"x-roles": "roles",
    b"x-team": "team",
    b"x-teams": "teams",
}
MORE = """\
[upstream.orders.identity]
claims  = ["client_id", "roles", "scope"]
[upstream.orders.identity.headers]
"X-Auth-Request-User" = "sub"
"X-Roles"             = "roles"
"X-Team"              = "team"
"X-Teams"             = "teams"
"""


@dataclass(frozen=True)
class Person:
    """Somebody with a token, which is good or is not."""

    subject: str
    token: str = field(repr=False)
    token_id: str

    @property
    def fields(self) -> bytes:
        return b"authorization: Bearer " + self.token.encode() + b"\r\n"


@dataclass(frozen=True)
class Arrival:
    """A request as the backend read it, as it was decided, and whose it is."""

    request: Received
    judged: RequestHead
    entry: Entry
    claims: dict[str, Any] | None  # of its assertion, verified; None: it has none

    @property
    def token_id(self) -> str | None:
        return None if self.claims is None else self.claims["src"]["jti"]


def request(
    target: bytes,
    fields: bytes = b"",
    *,
    method: bytes = b"GET",
    host: bytes = HOST,
) -> bytes:
    """Return a request without a body."""
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, target, host, fields)


def closing(target: bytes, fields: bytes = b"", **more: bytes) -> bytes:
    """Return the same, and the last one of its connection."""
    return request(target, b"connection: close\r\n" + fields, **more)


async def telling(connection: Connection) -> None:
    """Answer with the target and with whom the gateway named."""
    while True:
        received = await connection.request()
        user = b"".join(received.values(b"x-auth-request-user"))
        said = answer(b"%b %b" % (received.target, user))
        if received.method == b"HEAD":
            said = said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        await connection.send(said)


class House:
    """A gateway on a loop of its own; change `site` before it is opened."""

    gateway: Gateway
    backend: Backend
    alice: Person
    bob: Person

    def __init__(
        self,
        directory: Path,
        behaviour: Behaviour = telling,
        *,
        site: type[Site] = Site,
    ) -> None:
        self.site = site(directory, server=SERVER, more=MORE, policy=POLICY)
        self.judged: dict[str, RequestHead] = {}  # by request id
        self._decided: dict[int, RequestHead] = {}  # kept, so that no id comes again
        self._behaviour = behaviour
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._verified: dict[bytes, dict[str, Any]] = {}
        self._seen = 0
        self.entries: dict[str, Entry] = {}
        self.sinks: list[Callable[[Entry], None]] = []  # who else is told of each

    # Life

    @contextlib.contextmanager
    def open(self) -> Iterator[House]:
        """Run it; everything that arrives is checked to its end."""
        with self._runner:
            stack = contextlib.AsyncExitStack()
            try:
                self.run(self._start(stack))
                yield self
                self.received()
            finally:
                self.run(stack.aclose())

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self.backend = await stack.enter_async_context(running(self._behaviour))
        self.site.upstream = f"http://127.0.0.1:{self.backend.port}"
        self.gateway = Gateway(self.site.load(), self._log)

        def noting(head: RequestHead, now: float) -> Permit | Denial | Pending:
            self._decided[id(head)] = head
            return decide_now(head, now)

        def naming(
            exchange: Exchange, outcome: Permit | Denial, head: RequestHead, now: float
        ) -> None:
            if exchange.port is self.gateway.port:  # and not another house's
                assert self._decided[id(head)] is head
                self.judged[exchange.request_id] = head
            go_on(exchange, outcome, head, now)

        decider = self.gateway.engine.decider
        decide_now, go_on = decider.decide_now, Exchange._decided
        with patch.object(decider, "decide_now", noting):
            await self.gateway.start()
        stack.enter_context(patch.object(Exchange, "_decided", naming))
        stack.push_async_callback(self.gateway.aclose, grace=0.5)
        caller = await self.caller()
        keys = (await caller.call(closing(KEY_SET_PATH.encode()))).body
        caller.close()
        self._keys = {each["kid"]: jwt.PyJWK(each) for each in json.loads(keys)["keys"]}
        self.alice = self.person("alice")
        self.bob = self.person("bob", "support")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work* on the loop of the house, within 10 seconds."""

        async def bounded() -> T:
            async with asyncio.timeout(10):
                return await work

        return self._runner.run(bounded())

    def person(self, subject: str, *roles: str, **claims: Any) -> Person:
        """Return somebody with a token of the issuer."""
        token_id = str(claims.setdefault("jti", f"t-{subject}"))
        return Person(subject, self.site.token(subject, *roles, **claims), token_id)

    # Asking

    async def caller(self) -> Caller:
        """Return a new connection to the data port."""
        bound = self.gateway.bound[0]
        return Caller(*await asyncio.open_connection(bound.host, bound.port))

    def call(self, *requests: bytes) -> Answer:
        """Send *requests* one after the other; return the last one's answer."""

        async def ask() -> Answer:
            caller = await self.caller()
            try:
                for each in requests:
                    found = await caller.call(each)
            finally:
                caller.close()
            return found

        return self.run(ask())

    def say(self, stream: bytes, cuts: Sequence[int] = ()) -> bytes:
        """Send *stream* in pieces; return all that comes until the port closes.

        On a busy machine it may be us who are late, and are closed before they have
        said a word (R5). Then it is said again.
        """

        async def ask() -> bytes:
            said, is_late = await tell()
            while not said and is_late:
                said, is_late = await tell()
            return said

        async def tell() -> tuple[bytes, bool]:
            begun = time.monotonic()
            caller = await self.caller()
            reading = asyncio.get_running_loop().create_task(caller.rest())
            at = 0
            try:
                for cut in [*cuts, len(stream)]:
                    await caller.send(stream[at : at + cut])
                    at += cut
                    for _ in range(3):  # so that the other side reads this much
                        await asyncio.sleep(0)
            except ConnectionError:
                pass
            took = time.monotonic() - begun
            try:
                return await reading, took >= HEADER_TIMEOUT
            finally:
                caller.close()

        return self.run(ask())

    # Evidence

    def received(self) -> list[Arrival]:
        """Return what reached the backend since the last time, checked.

        Whatever the test was about: each has been decided and permitted under its
        name, its line and Host are the very bytes that were judged (I2), and its
        fields of ours are whole.
        """
        new = self.backend.requests[self._seen :]
        self._seen += len(new)
        for one in self.backend.connections:
            one.raw.clear()
        return [self._arrival(each) for each in new]

    def _log(self, entry: Entry) -> None:
        assert entry.request_id not in self.entries
        self.entries[entry.request_id] = entry
        for sink in self.sinks:
            sink(entry)

    async def _logged(self, request_id: str) -> Entry:
        while request_id not in self.entries:
            await asyncio.sleep(0.001)
        return self.entries[request_id]

    def _arrival(self, one: Received) -> Arrival:
        request_id = one.value(b"x-request-id").decode()
        judged = self.judged[request_id]
        entry = self.run(self._logged(request_id))
        assert entry.decision == "permit", entry
        assert one.method == judged.method.encode()
        assert one.target == judged.target
        assert one.value(b"host") == judged.authority
        assert one.target.partition(b"?")[0] == judged.path == entry.path.encode()
        assert one.trailers == b""
        return Arrival(one, judged, entry, self._claims(one))

    def _claims(self, one: Received) -> dict[str, Any] | None:
        assertions = one.values(b"x-gateway-assertion")
        if not assertions:
            assert not any(one.values(name) for name in COPIES), one
            return None
        (assertion,) = assertions
        known = self._verified.get(assertion)
        if known is None:
            key = self._keys[jwt.get_unverified_header(assertion)["kid"]]
            known = self._verified[assertion] = jwt.decode(
                assertion,
                key,
                algorithms=["ES256"],
                audience="orders",
                issuer=IDENTITY,
                options={"require": ["exp", "iat", "sub", "src"]},
            )
        return known

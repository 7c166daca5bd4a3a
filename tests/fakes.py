"""Doors that answer as they are told, and remember being asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from gateway.decision import Decider
from gateway.model import (
    NOTHING,
    Case,
    CredentialKind,
    Denial,
    Headers,
    Need,
    Peer,
    Principal,
    Reason,
    RequestHead,
    Route,
    StaleRevocation,
    Steps,
    Unavailable,
)
from gateway.policy.policy import Policy
from gateway.wire.request import read_head

ALICE = Principal(
    "user",
    "corp",
    "alice",
    token_id="t-1",
    expires_at=2_000.0,
    audience=frozenset({"api"}),
    roles=frozenset({"customer"}),
)
READ, WRITE = 1, 2
ORDERS = Route(
    "orders.read",
    "orders",
    "orders",
    "require",
    needed=READ,
    issuers=frozenset({"corp"}),
)


def head_of(
    target: bytes = b"/orders/7",
    *headers: tuple[bytes, bytes],
    method: str = "GET",
    host: bytes = b"api.example",
    kind: Literal["http", "websocket"] = "http",
) -> RequestHead:
    """Return the head of a request, read as every request is."""
    head = read_head(
        kind=kind,
        method=method,
        scheme="http",
        target=target,
        headers=((b"host", host), *headers),
        peer=Peer("192.0.2.1"),
    )
    assert isinstance(head, RequestHead), head
    return head


def bearer(token: str) -> tuple[bytes, bytes]:
    """Return the field that presents *token*."""
    return (b"authorization", b"Bearer " + token.encode())


@dataclass
class Staff:
    """A policy, an authenticator, a cache, a mirror and a store in one.

    It remembers in `asked` who was asked, in order.
    """

    principal: Principal | Denial | Unavailable = ALICE
    route: Route | Denial = ORDERS
    granted_bits: int = READ
    mirror: bool | None = False
    store: bool | StaleRevocation | Unavailable = False
    verdict: Denial | None = None
    known: dict[str, Principal] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hosts: frozenset[str] = frozenset()
    clients: list[str] = field(default_factory=list)  # whose tokens were looked at

    # The policy

    def match(self, _head: RequestHead) -> tuple[Route, Mapping[str, str]] | Denial:
        self.asked.append("match")
        return self.route if isinstance(self.route, Denial) else (self.route, NOTHING)

    def granted(self, _principal: Principal) -> int:
        self.asked.append("granted")
        return self.granted_bits

    def authorize(self, case: Case) -> Steps[Denial | None]:
        self.asked.append("authorize")
        yield from ()
        if case.granted & case.route.needed != case.route.needed:
            return Denial(Reason.PERMISSION_MISSING, "orders:read")
        return self.verdict

    # The authenticator

    def recognises(self, token: str) -> bool:
        return token != "odd"

    def authenticate(
        self, _token: str, _now: float, client: str = ""
    ) -> Steps[Principal | Denial]:
        self.asked.append("authenticate")
        self.clients.append(client)
        yield from ()
        if isinstance(self.principal, Unavailable):
            raise self.principal
        return self.principal

    # The verified-token cache

    def get(self, _kind: CredentialKind, token: str) -> Principal | None:
        return self.known.get(token)

    def put(self, _kind: CredentialKind, token: str, principal: Principal) -> None:
        self.known[token] = principal

    # Mirror and store

    def check_now(self, _principal: Principal) -> bool | None:
        self.asked.append("mirror")
        return self.mirror

    async def answer(self, _need: Need) -> Any:
        self.asked.append("store")
        if isinstance(self.store, Unavailable):
            raise self.store
        return self.store

    def decider(self, **given: Any) -> Decider:
        """Return a Decider that has nobody else."""
        policy = cast("Policy", self)
        given = {"audiences": {"corp": frozenset({"api"})}, **given}
        return Decider(policy, [self], self, self, **given)


def fields(*pairs: tuple[str, str]) -> Headers:
    """Return *pairs* as header fields."""
    return tuple((name.encode(), value.encode()) for name, value in pairs)

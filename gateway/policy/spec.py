"""What the policy files say, parsed but not yet understood.

gateway.config reads TOML into these; gateway.policy.compile turns them into a
Policy or into Problems. `at` is the key path of a thing in its file, such as
("route", 3, "require"), from which gateway.config finds line and column.

Imports: the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one file, said so that its author can mend it."""

    file: str
    at: KeyPath  # where; the longest existing prefix is marked
    message: str
    suggestion: str = ""  # 'did you mean "orders:cancel_any"? (policies/roles.toml:3)'
    value: str = ""  # the offending string within `at`, to mark it alone
    key: bool = False  # mark the key at `at`, not its value


@dataclass(frozen=True, slots=True)
class OwnerSpec:
    """`owner = "customer_id"`, or `{ param, claim, issuer }`."""

    param: str
    claim: str = "sub"
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class SocketsSpec:
    """`websocket = { max_message, per_subject, origins }`."""

    max_message: int = 1024 * 1024  # bytes
    per_subject: int = 100
    origins: tuple[str, ...] | None = None  # None: any


@dataclass(frozen=True, slots=True)
class RevocationSpec:
    """`revocation = { mode, outage, max_staleness }`."""

    strict: bool = False
    outage: str | None = None  # "deny" | "allow-stale"; None: as gateway.toml says
    max_staleness: float | None = None  # seconds; None: as gateway.toml says


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One [[route]]."""

    at: KeyPath
    methods: tuple[str, ...]
    path: str
    id: str | None = None
    access: str | None = None  # "public" | "authenticated" | "optional"
    public_reason: str = ""
    require: object = None  # str, list, {any=}, {all=}, {not=}: as TOML gives it
    owner: OwnerSpec | None = None
    audience: tuple[str, ...] | None = None
    credentials: tuple[str, ...] | None = None
    binding: tuple[str, ...] | None = None  # of "ip", "mtls", "dpop": any of these
    revocation: RevocationSpec | None = None
    max_body: int | None = None  # bytes
    max_in_flight: int | None = None  # requests
    allow_encoded: tuple[str, ...] = ()
    credentials_to_upstream: str | None = None  # "strip" | "pass"
    bind_request: bool = False
    websocket: SocketsSpec | None = None
    stream: bool = False
    at_expiry: str | None = None  # "close" | "finish"


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """One [roles.x]; a role may be extended in several files."""

    at: KeyPath
    name: str
    permissions: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """[service] of one policy file."""

    at: KeyPath
    name: str
    prefix: str
    upstream: str  # the name of an [upstream.x]; config names the implicit ones
    hosts: tuple[str, ...] = ()
    strip_prefix: bool = False
    issuers: tuple[str, ...] | None = None
    credentials: tuple[str, ...] = ("bearer",)
    binding: tuple[str, ...] | None = None
    revocation: RevocationSpec | None = None
    read: str | None = None
    write: str | None = None
    audience: tuple[str, ...] | None = None
    inside: str | None = None
    # What its protected routes do unless they say otherwise: "strip" | "pass", from
    # the [upstream.x] it names.
    credentials_to_upstream: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One file: a service's (service is set), or operators' (service is None)."""

    file: str
    service: ServiceSpec | None
    permissions: Mapping[str, str] = field(default_factory=dict)  # name -> description
    roles: tuple[RoleSpec, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    operators: bool = False  # may use `inherits`, `*`, grant what it doesn't declare

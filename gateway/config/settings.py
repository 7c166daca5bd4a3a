"""What gateway.toml says, after it has been understood: frozen, no defaults left open.

Sizes are bytes, times are seconds. gateway.config.load makes these; every other room
takes the part it needs.

Imports: the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal


class Quiet:
    """Shows no value in repr(): any of them may be what `env:` or `file:` gave (R96).

    A name stands in the file itself, as a key, and is shown.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        name = getattr(self, "name", "")
        return f"{type(self).__name__}({name})"


@dataclass(frozen=True, slots=True, repr=False)
class Address(Quiet):
    """Where to listen: `host:port`, `[v6]:port` or `unix:/path`."""

    host: str = ""
    port: int = 0
    path: str = ""  # of a Unix socket; then host and port are empty

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return (
            f"[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.host}:{self.port}"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Tls(Quiet):
    """[server.tls]. Its files are read again whenever they change."""

    certificate: str  # absolute; PEM, ours first, then those that lead to its issuer
    key: str  # absolute; PEM
    minimum: Literal["1.2", "1.3"] = "1.2"
    client: Literal["none", "optional", "required"] = "none"
    client_ca: str | None = None  # absolute; set where clients are asked


@dataclass(frozen=True, slots=True, repr=False)
class Server(Quiet):
    """[server]."""

    listen: tuple[Address, ...] = (Address("127.0.0.1", 8080),)
    public_url: str | None = None
    # Who tells what certificate a client has shown.
    client_certificate: Literal["tls", "client-cert", "xfcc", "xfcc-last"] = "tls"
    hosts: frozenset[str] = frozenset()  # lower-case; with the services' hosts
    own_prefix: str = "/auth"
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    max_head: int = 16 * 1024
    max_headers: int = 100
    max_token: int = 8 * 1024
    max_body: int = 10 * 1024 * 1024
    header_timeout: float = 10.0
    body_timeout: float = 30.0  # between two reads of a body
    idle_timeout: float = 60.0
    max_connections: int = 10_000  # of one worker
    max_connections_per_peer: int = (
        1_000  # of one worker; not for loopback and trusted proxies
    )
    tls: Tls | None = None  # on every TCP address of `listen`
    workers: int | None = 1  # None: as many as there are cores to use
    drain_delay: float = 5.0  # after SIGTERM, until nobody new is admitted
    drain_timeout: float = 20.0  # after that, until what is in flight is cut off


@dataclass(frozen=True, slots=True, repr=False)
class Admin(Quiet):
    """[admin]: a Unix socket of mode 0600, or loopback with a token."""

    listen: Address = Address(path=".gateway/admin.sock")
    token: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Store(Quiet):
    """[store]. `url` may hold a password."""

    url: str = "memory"
    replicas: int = 0  # that have what was revoked before that is said

    @property
    def is_memory(self) -> bool:
        return self.url == "memory"


LEASE = 1.0  # seconds that a mirror of the revocation list counts without its store


@dataclass(frozen=True, slots=True)
class Outage:
    """[outage]."""

    revocation: Literal["deny", "allow-stale"] = "deny"
    max_staleness: float = 5.0

    @property
    def stale(self) -> float:
        """Seconds for which an old mirror may decide; 0: not at all."""
        return self.max_staleness if self.revocation == "allow-stale" else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class Certificates(Quiet):
    """[certificates]: clients whose certificate is their credential."""

    name: Literal["spiffe", "subject"] = "spiffe"
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by name
    max_lifetime: float = 90 * 86400.0


@dataclass(frozen=True, slots=True, repr=False)
class Dpop(Quiet):
    """[dpop]: proofs of the key that a token is bound to (RFC 9449)."""

    algorithms: frozenset[str]
    nonce: bool = False
    nonce_key: bytes | None = None  # None: one of each start


@dataclass(frozen=True, slots=True, repr=False)
class KeySource(Quiet):
    """Where an issuer's keys come from: one of these is set, or none.

    None where no key set stands behind its tokens: they are sealed, or looked up.
    """

    jwks_url: str | None = None
    jwks_file: str | None = None  # absolute
    discover: bool = False  # <issuer>/.well-known/openid-configuration
    pem: bytes | None = None  # a public key or certificate, PEM
    secret: bytes | None = None  # HS*
    ca_file: str | None = None  # a CA of its own for the two fetched kinds
    proxy: str | None = None  # http(s)://host:port; never from the environment


@dataclass(frozen=True, slots=True, repr=False)
class Introspection(Quiet):
    """[issuer.x.introspection]."""

    client_id: str
    client_secret: str
    url: str | None = None  # None: as discovered
    auth: Literal["basic", "post"] = "basic"
    cache: float = 60.0
    timeout: float = 2.0
    prefix: str = ""  # of its tokens; no other issuer's begins with it
    audience_from: Literal["token", "config"] = "token"
    ca_file: str | None = None  # absolute
    proxy: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class RoleMapping(Quiet):
    """[issuer.x.roles]."""

    claim: tuple[str, ...] = ()  # a path; one element is one claim name as it stands
    map: Mapping[str, str] | None = None
    allow: frozenset[str] = frozenset()  # the only roles this issuer may assert
    split: bool = False  # a string claim is split at spaces


@dataclass(frozen=True, slots=True, repr=False)
class ScopeRule(Quiet):
    """[issuer.x.scope]."""

    claim: str = "scope"
    user: Literal["limit", "grant", "ignore"] = "limit"
    service: Literal["limit", "grant", "ignore"] = "grant"


@dataclass(frozen=True, slots=True, repr=False)
class Issuer(Quiet):
    """[issuer.x]."""

    name: str
    issuer: str  # compared octet by octet with `iss`
    keys: KeySource
    audience: frozenset[str]
    algorithms: frozenset[str] = frozenset()
    token_types: frozenset[str] = frozenset()  # lower-case, without "application/"
    leeway: float = 30.0
    max_lifetime: float = 24 * 3600.0
    token_id: str = "jti"  # noqa: S105  (the name of a claim)
    roles: RoleMapping = RoleMapping()
    scope: ScopeRule = ScopeRule()
    introspection: Introspection | None = None  # None: it is not asked about tokens
    address_claim: str = ""  # names the addresses its token is bound to; "": none does
    subnet_v4: int = 32  # bits that count of a single address
    subnet_v6: int = 64
    binding: frozenset[str] | None = None  # its tokens are bound to one of these
    logout_audience: frozenset[str] = frozenset()  # of its logout tokens; none: no such

    @property
    def signs(self) -> bool:
        """Tell whether its tokens are JWTs that its own keys verify."""
        return self.keys != KeySource()


@dataclass(frozen=True, slots=True, repr=False)
class DeclaredKey(Quiet):
    """One [[api_key]]."""

    id: str
    sha256: bytes  # of the key
    owner: str
    expires: float  # Unix seconds
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()  # all, when empty


@dataclass(frozen=True, slots=True, repr=False)
class ApiKeys(Quiet):
    """[api_keys] and every [[api_key]]. Its roles and its scope: Settings.issuers."""

    prefix: str = "gw"
    header: str = "x-api-key"  # lower-case
    pepper: bytes | None = None
    lifetime: float = 90 * 86_400.0  # of a key that is made without one
    max_lifetime: float = 366 * 86_400.0
    imported: bool = False  # keys of another form count, in the header
    declared: tuple[DeclaredKey, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Fernet(Quiet):
    """[fernet]. The max_lifetime of its issuer, "fernet", is its ttl."""

    keys: tuple[str, ...]  # base64url of 32 bytes; the first seals
    directory: str | None = None  # absolute; where further keys are put
    needs_session: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class JweKey(Quiet):
    """One of [[jwe.keys]]."""

    algorithm: str
    encoding: str
    key_id: str | None = None
    material: bytes | None = None  # base64url or PEM; None: made when a process starts


@dataclass(frozen=True, slots=True, repr=False)
class Jwe(Quiet):
    """[jwe]: claims directly in it are those of the issuer "jwe", if there is one."""

    keys: tuple[JweKey, ...]  # the first seals
    nested: tuple[str, ...] = ()  # issuers whose signed tokens may stand in it


@dataclass(frozen=True, slots=True, repr=False)
class Identity(Quiet):
    """[identity], or its override in [upstream.x.identity]."""

    issuer: str
    keys: str  # "dir:/abs" or "file:/abs"
    algorithm: Literal["ES256", "EdDSA", "RS256"] = "ES256"
    ttl: float = 60.0
    claims: tuple[str, ...] = ("client_id", "roles", "scope", "acr", "auth_time")
    headers: Mapping[str, str] = field(default_factory=dict)  # header -> claim


@dataclass(frozen=True, slots=True, repr=False)
class HeaderRules(Quiet):
    """[headers]."""

    strip: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    underscores: Literal["drop", "reject", "pass"] = "drop"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """[upstream.x] timeout."""

    connect: float = 2.0
    send_idle: float = 30.0
    first_byte: float = 30.0
    idle: float = 60.0
    total: float | None = None  # "none"


@dataclass(frozen=True, slots=True, repr=False)
class UpstreamUrl(Quiet):
    """One of [upstream.x] urls."""

    address: Address  # TCP, where a name stands for all its addresses; or a Unix socket
    authority: str  # host[:port] as the upstream's own Host
    secure: bool = False  # https


@dataclass(frozen=True, slots=True, repr=False)
class UpstreamTls(Quiet):
    """[upstream.x.tls]. Its files are read again whenever they change."""

    ca: str | None = None  # absolute; None: the system's
    certificate: str | None = None  # absolute; what we show, with its key
    key: str | None = None
    server_name: str | None = None  # asked for, and checked; None: the URL's host
    minimum: Literal["1.2", "1.3"] = "1.2"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """[upstream.x.health]."""

    path: str  # of a GET; 2xx is healthy
    interval: float = 10.0
    timeout: float = 2.0
    healthy: int = 2  # checks in a row until it is used again
    unhealthy: int = 3  # until it is used no more


@dataclass(frozen=True, slots=True)
class Ejection:
    """[upstream.x.ejection]."""

    failures: int = 5  # in a row
    time: float = 10.0  # the first one; each further one is twice as long
    max_time: float = 300.0


@dataclass(frozen=True, slots=True, repr=False)
class Upstream(Quiet):
    """[upstream.x]: endpoints that may stand in for one another."""

    name: str
    urls: tuple[UpstreamUrl, ...]
    host: str = "client"  # "client" | "upstream" | a name
    timeout: Timeouts = Timeouts()
    pass_credentials: bool = False
    keep_alive: float = 4.0  # seconds an idle connection is kept
    max_idle: int = 256  # idle connections kept to each endpoint
    max_connections: int = 1024  # of one worker; a slow one must not take them all
    resolve_every: float = 300.0  # at most, until names are looked up again
    panic_threshold: int = 50  # percent available; below it all are used
    tls: UpstreamTls = UpstreamTls()
    health: HealthCheck | None = None  # None: it isn't asked
    ejection: Ejection = Ejection()
    identity: Identity | None = None  # None: [identity]


@dataclass(frozen=True, slots=True)
class Weakening:
    """Something that makes the gate weaker, shown by `gateway check`."""

    what: str  # e.g. 'public route "orders.status"'
    why: str  # the reason given for it, "" where there is none
    place: str  # file:line:col


@dataclass(frozen=True, slots=True, repr=False)
class Settings(Quiet):
    """The whole of gateway.toml."""

    server: Server
    probes: Address | None
    admin: Admin | None
    store: Store
    issuers: Mapping[str, Issuer]  # those of [fernet] and [jwe] too
    identity: Identity | None
    headers: HeaderRules
    upstreams: Mapping[str, Upstream]
    certificates: Certificates | None = None
    dpop: Dpop | None = None  # None: no public_url, and tokens bound to a key are none
    log_access: bool = True
    log_query: frozenset[str] = frozenset()  # query names the access log may show
    weakenings: tuple[Weakening, ...] = ()
    accepted: tuple[str, ...] = ()  # [[check.accept]] what
    outage: Outage = Outage()
    api_keys: ApiKeys | None = None  # None: there are none
    fernet: Fernet | None = None
    jwe: Jwe | None = None

    @property
    def takes_logouts(self) -> bool:
        """Tell whether an issuer sends logout tokens."""
        return any(each.logout_audience for each in self.issuers.values())

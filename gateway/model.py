"""The vocabulary of the house.

Read this file first. A request becomes, in this order, a RequestHead, a
Credential, a Principal and a Permit; at any step it can become a Denial. To hold
the later type is the proof that the earlier step was done. Whoever has to be told
something from outside yields a Need and is told.

Imports: the standard library only.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

Headers = tuple[tuple[bytes, bytes], ...]
"""Header fields in the order received; names lower-case, values without the
white space around them."""

PrincipalKind = Literal["user", "service", "api_key", "anonymous"]
CredentialKind = Literal["bearer", "ticket", "certificate", "api_key"]
CERTIFICATES = "certificates"
"""The issuer of certificates that are credentials: a name that no [issuer.x] has."""
BindingKind = Literal["ip", "mtls", "dpop"]
Access = Literal["public", "authenticated", "optional", "require"]

API_KEYS = "api_keys"
"""The issuer of API keys: a name that no [issuer.x] has."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Reason(enum.StrEnum):
    """Why a request was refused: one stable word, for logs, tests and `explain`.

    The client never sees it. gateway.wire.problems turns it into a status.
    """

    # The message itself (gateway.proxy, gateway.wire.request)
    REQUEST_MALFORMED = "request.malformed"  # framing; `at` names the rule
    HTTP2_UNSUPPORTED = "request.http2"  # it is for the proxy in front
    REQUEST_TIMEOUT = "request.timeout"
    HEAD_TOO_LARGE = "head.too_large"
    BODY_TOO_LARGE = "body.too_large"
    METHOD_UNSUPPORTED = "method.unsupported"  # CONNECT, TRACE
    UPGRADE_REFUSED = "upgrade.refused"
    UPGRADE_VERSION = "upgrade.version"  # of WebSocket
    ORIGIN_FORBIDDEN = "origin.forbidden"
    SOCKETS_TOO_MANY = "socket.too_many"
    TARGET_AMBIGUOUS = "target.ambiguous"
    HOST_MALFORMED = "host.malformed"
    HOST_UNKNOWN = "host.unknown"
    # The route
    ROUTE_UNKNOWN = "route.unknown"
    METHOD_NOT_ALLOWED = "method.not_allowed"
    # The credential
    CREDENTIAL_MISSING = "credential.missing"
    CREDENTIAL_MALFORMED = "credential.malformed"
    CREDENTIAL_AMBIGUOUS = "credential.ambiguous"
    CREDENTIAL_IN_QUERY = "credential.in_query"
    CREDENTIAL_UNRECOGNISED = "credential.unrecognised"
    TICKET_INVALID = "ticket.invalid"  # unknown, used, too old, or for another request
    CERTIFICATE_INVALID = "certificate.invalid"  # `at` names what of it
    # The token: authenticate
    TOKEN_MALFORMED = "token.malformed"  # noqa: S105
    TOKEN_INACTIVE = "token.inactive"  # noqa: S105  (its issuer says so: RFC 7662)
    ISSUER_UNTRUSTED = "token.issuer"
    TYPE_FORBIDDEN = "token.type"
    ALGORITHM_FORBIDDEN = "token.algorithm"
    KEY_UNKNOWN = "token.key"
    SIGNATURE_INVALID = "token.signature"
    CLAIM_INVALID = "token.claim"  # `at` names the claim
    LIFETIME_TOO_LONG = "token.lifetime"
    # The token: accept
    TOKEN_EXPIRED = "token.expired"  # noqa: S105
    TOKEN_NOT_YET_VALID = "token.early"  # noqa: S105
    AUDIENCE_WRONG = "token.audience"
    ISSUER_NOT_ACCEPTED = "token.issuer_not_accepted"
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    # What the token is bound to; `at` names the kind, or which check has failed
    BINDING_MISSING = "binding.missing"  # to nothing of what is asked for, or not shown
    BINDING_WRONG = "binding.wrong"  # to another address or certificate
    DPOP_MISSING = "dpop.missing"  # bound to a key, and there is no proof of it
    DPOP_KEY = "dpop.key"  # bound to another key, or to none
    DPOP_INVALID = "dpop.invalid"
    DPOP_NONCE = "dpop.nonce"  # a proof without a nonce of ours, or with an old one
    DPOP_REPLAYED = "dpop.replayed"
    # The permission
    PERMISSION_MISSING = "permission.missing"  # `at` names the first that is missing
    CONDITION_FAILED = "condition.failed"  # `at` names the condition
    CONDITION_UNKNOWN = "condition.unknown"  # could not be evaluated: denies


@dataclass(frozen=True, slots=True)
class Denial:
    """A refusal. An ordinary answer, not an exception."""

    reason: Reason
    at: str = ""  # what exactly: a claim, a permission, a condition; never a value
    # Methods for `Allow`, permissions for `scope`; where a proof would help, the
    # algorithms for `algs`, or the nonce for `DPoP-Nonce`.
    needed: tuple[str, ...] = ()
    route: Route | None = None  # as far as it was known, for the log
    principal: Principal | None = None
    revocation_age: float | None = None  # as of a Permit

    def __str__(self) -> str:
        return f"{self.reason}:{self.at}" if self.at else str(self.reason)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the connection."""

    address: str  # as the socket gives it, IPv4-mapped IPv6 normalised; "" for unix
    trusted: bool = False  # one of [server].trusted_proxies: its word counts (R17)
    certificate: str | None = None  # x5t#S256 of the one it has shown in TLS (RFC 8705)
    shown: bytes | None = field(default=None, repr=False)  # that one, DER


class HeaderSection:
    """The header fields of a request, and what was found out about them.

    A client sends the same fields over and over, so one section may stand for many
    requests that came with the same bytes. It remembers what follows from these
    fields alone, under the rules of one configuration; never a decision.
    """

    __slots__ = ("authority", "credential", "headers", "host", "lines", "token_name")

    def __init__(self, headers: Headers, host: str, authority: bytes) -> None:
        self.headers = headers
        self.host = host  # lower-case, without port
        self.authority = authority  # the Host field as received
        # By gateway.wire.credential: for which kinds, and what it found.
        self.credential: tuple[frozenset[str], Credential | Denial] | None = None
        # By the data port: the lines for an upstream, without and with credentials.
        self.lines: list[bytes | None] = [None, None]
        self.token_name: str | None = None  # of the token, for the log


class RequestHead(NamedTuple):
    """Everything of a request but its body, read once from the raw bytes.

    Only gateway.wire.request makes one, so that to hold it is the proof that target
    and Host are canonical (R4, R10). `target` is what will be sent, byte for byte. What
    is given to the request here, its id, is no part of it: the same bytes from the same
    peer are the same head, and read once.
    """

    kind: Literal["http", "websocket"]
    method: str
    scheme: Literal["http", "https"]
    host: str  # lower-case, without port; "" never
    authority: bytes  # the Host field as received
    target: bytes  # path and query as received
    path: bytes  # the raw path
    query: bytes | None  # the raw query without "?"; None where there is none
    segments: tuple[str, ...]  # decoded once: b"/a/b%20c/" is ("a", "b c", "")
    escapes: frozenset[str]  # of "%2F %5C %23 %3F %25": those the path holds
    headers: Headers
    peer: Peer
    client: str  # the client's address, by R17
    section: HeaderSection

    def __repr__(self) -> str:
        # A head may be kept, and holds what the client presented.
        return f"RequestHead({self.method} to {self.host})"


@dataclass(frozen=True, slots=True)
class Credential:
    """What the client presented. Proves nothing yet."""

    kind: CredentialKind
    token: str = field(repr=False)
    # Of the scheme DPoP (RFC 9449 section 7.1): the field of that name, b"" where it
    # is missing. None: of any other scheme.
    proof: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Binding:
    """What a token is bound to: whoever presents it has to prove all of it."""

    certificate: str | None = None  # x5t#S256 of the client's (RFC 8705 section 3.1)
    key: str | None = None  # jkt: the thumbprint of a key (RFC 9449 section 6.1)
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None  # IPv4-mapped is IPv4

    @property
    def kinds(self) -> frozenset[str]:
        """Name what is bound, as `binding` of a route does."""
        bound = (
            ("ip", self.networks),
            ("mtls", self.certificate),
            ("dpop", self.key),
        )
        return frozenset(kind for kind, to in bound if to is not None)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key and the one algorithm it may be used with (RFC 8725 section 3.1)."""

    algorithm: str
    key_id: str | None
    material: Any = field(repr=False)  # a cryptography public key, or bytes for HS*


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """Who the client is, once an authenticator has vouched for it.

    All of it comes from verified content. (issuer, subject) names the caller.
    """

    kind: PrincipalKind
    issuer: str  # the name in gateway.toml, not the `iss` URL
    subject: str
    client_id: str | None = None
    token_id: str = ""  # `jti`, or the digest of the verified content (R50)
    session_id: str | None = None  # `sid`
    family: str | None = None
    issued_at: float | None = None  # Unix seconds
    not_before: float | None = None  # Unix seconds
    expires_at: float = float("inf")  # Unix seconds
    leeway: float = 0.0  # seconds; its issuer's
    auth_time: float | None = None  # Unix seconds
    acr: str | None = None
    amr: tuple[str, ...] = ()
    audience: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    scope: frozenset[str] = frozenset()
    # A factory, because Python 3.11 takes a read-only mapping for a mutable default.
    claims: Mapping[str, Any] = field(
        default_factory=lambda: NOTHING, repr=False
    )  # verified
    # What a revocation may name it by: gateway.tokens.fingerprints, 16 bytes each.
    fingerprints: Fingerprints | None = None
    key: VerificationKey | None = field(default=None, repr=False)  # has verified it
    known_for: float | None = None  # seconds from then; None: until it expires
    binding: Binding | None = None  # None: whoever bears the token may use it


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The names under which a principal's token can be revoked, hashed.

    `token`, `session` and `family` are revoked or not. `subject`, `client` and
    `issuer` carry a cut-off T: whatever was issued at or before T is revoked.
    """

    token: bytes
    session: bytes | None
    subject: bytes
    client: bytes | None
    issuer: bytes | None = None
    family: bytes | None = None


ANONYMOUS = Principal("anonymous", "", "")


class Unavailable(Exception):  # noqa: N818  (an outage is a state, not an error)
    """Something we depend on did not answer. Says nothing about the client.

    `dependency` is a name from our own words ("revocation store", "issuer corp"),
    never an address.
    """

    def __init__(self, dependency: str, retry_after: int = 1) -> None:
        super().__init__(f"{dependency} did not answer")
        self.dependency = dependency
        self.retry_after = retry_after  # seconds
        self.route: Route | None = None  # as far as it was known, for the log
        self.principal: Principal | None = None


@dataclass(frozen=True, slots=True)
class KeyNeeded:
    """Answered with a VerificationKey, or None: the issuer publishes no such key.

    `key_id` None asks for the only key of an issuer whose tokens name none.
    """

    issuer: str
    key_id: str | None
    algorithm: str


@dataclass(frozen=True, slots=True)
class IntrospectionNeeded:
    """Answered with what the issuer says of an active token, or None: it is not.

    `client` is the address it came from: questions in vain are counted for it.
    """

    issuer: str
    token: str = field(repr=False)
    client: str = ""


@dataclass(frozen=True, slots=True)
class RevocationNeeded:
    """Answered with a bool, or with what an old mirror says where `stale` allows it.

    Asked while the local mirror is not live; of a strict route each time.
    """

    principal: Principal
    stale: float = 0.0  # seconds; none older counts


@dataclass(frozen=True, slots=True)
class StaleRevocation:
    """What was known of a principal some time ago, and nobody can say by now."""

    is_revoked: bool
    age: float  # seconds


@dataclass(frozen=True, slots=True)
class TicketNeeded:
    """Answered with the Credential that a ticket was given for, or None.

    To ask is to use it up: nobody who asks again is answered. `request` is what it has
    to have been given for, of gateway.tokens.tickets.
    """

    ticket: str = field(repr=False)
    request: bytes


@dataclass(frozen=True, slots=True)
class ApiKeyNeeded:
    """Answered with the record of an API key (gateway.tokens.api_key), or None."""

    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReplayNeeded:
    """Answered with a bool: this DPoP proof has not been used before.

    To ask is to use it.
    """

    proof: bytes  # a digest of whose it is, and of its `jti`
    issued_at: float  # Unix seconds, as it says


class Opener(Protocol):
    """A key that opens tokens."""

    def open(self, token: str) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class OpeningNeeded:
    """Answered with what *key* finds in *token*, or None: it does not open it.

    A computation, and one that is too long to let everybody else wait for it.
    """

    key: Opener
    token: str = field(repr=False)


Need = (
    KeyNeeded
    | IntrospectionNeeded
    | OpeningNeeded
    | RevocationNeeded
    | TicketNeeded
    | ReplayNeeded
    | ApiKeyNeeded
)
T = TypeVar("T")
Steps = Generator[Need, Any, T]
"""A computation that yields what it needs to be told, and returns a T."""


class Rule(Protocol):
    """What a route asks beyond `Route.needed`, compiled by gateway.policy."""

    def judge(self, case: Case) -> Steps[Denial | None]:
        """Return None to let *case* pass.

        Raises:
            Unavailable: What decides here did not answer, and nothing else decides.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sockets:
    """What a route says of its WebSockets."""

    max_message: int = 1024 * 1024  # bytes, each way
    per_subject: int = 100  # open at a time
    origins: frozenset[str] | None = None  # canonical; None: any


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One [[route]] of the policy, or a service's default, compiled."""

    id: str
    service: str
    upstream: str  # the name of an [upstream.x]
    access: Access
    needed: int = 0  # the permissions that must all be granted, as bits
    rule: Rule | None = None  # the rest of `require`, where there is more
    issuers: frozenset[str] = frozenset()  # names of the issuers whose tokens count
    audience: frozenset[str] | None = None  # None: what its issuer's section says
    credentials: frozenset[str] = frozenset({"bearer"})
    binding: frozenset[str] | None = None  # to any of these; None: to nothing, or any
    strict: bool = False  # the revocation store is asked each time
    stale: float = 0.0  # seconds for which an old mirror decides while that is away
    strip: int = 0  # leading segments of the path to leave out before sending
    escapes: frozenset[str] = frozenset()  # of "%2F ...": what its path may hold
    max_body: int | None = None  # bytes; None: the server's
    max_in_flight: int | None = None  # requests of a worker; None: its upstream's
    pass_credentials: bool = False
    bind_request: bool = False  # identity = { bind = "request" }
    websocket: Sockets | None = None  # None: an upgrade to it is a plain request
    stream: bool = False  # its answer may take its time, and be silent
    ends_with_token: bool = False  # an answer that is not whole when the token ends
    place: str = ""  # file:line, for explain and check


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule is asked to judge."""

    head: RequestHead
    route: Route
    params: Mapping[str, str]
    principal: Principal
    granted: int  # permissions of the principal, as bits


class Permit(NamedTuple):
    """Proof that a request was decided, and exactly what will be sent.

    Only gateway.decision makes one.
    """

    route: Route
    params: Mapping[str, str]
    principal: Principal
    granted: int  # permissions of the principal, as bits
    upstream: str
    target: bytes
    # Seconds; set where the store was away, and a mirror so old was asked instead.
    revocation_age: float | None = None
    reserved: bool = False  # one of our own endpoints: upstream is SELF


SELF = "self"
"""The upstream that answers for our own endpoints."""

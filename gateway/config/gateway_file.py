"""gateway.toml as pydantic models: every key, its type, default and meaning.

Unknown keys are errors and types are strict. The descriptions go into the JSON Schema.
What takes more than one key to judge is judged in gateway.config.build.

Imports: the standard library, gateway.config.fields, gateway.config.settings,
gateway.config.syntax, pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, InstanceOf, WithJsonSchema

from gateway.config import syntax
from gateway.config.fields import (
    Algorithm,
    BindingList,
    Duration,
    DurationOrNone,
    HeaderName,
    HeaderPattern,
    Host,
    Listen,
    Moment,
    Name,
    Network,
    Or,
    Origin,
    ProofAlgorithm,
    Reference,
    ScopeChoice,
    Size,
    Table,
    Text,
    between_sizes,
    between_times,
    checked,
    from_text,
    key,
    text_schema,
)
from gateway.config.settings import Address

MOST = 64  # workers; more cores than a proxy of this kind is given


def _workers(said: object) -> int | None:
    if said == "auto":
        return None
    if isinstance(said, bool) or not isinstance(said, int) or not 1 <= said <= MOST:
        raise ValueError(f'expected a number from 1 to {MOST}, or "auto"')
    return said


def _address_or_none(text: str) -> Address | None:
    return None if text == "none" else syntax.address(text)


class Tls(Table):
    """TLS on every TCP address of `listen`; a Unix socket has none."""

    certificate: Text = key(
        'Our certificate, then those that lead to its issuer, PEM: "file:...".'
    )
    minimum: Literal["1.2", "1.3"] = key("The oldest version that is spoken.", "1.2")
    client: Literal["none", "optional", "required"] = key(
        "Whether clients are asked for a certificate, and may have none.", "none"
    )
    client_ca: Text | None = key(
        'The issuers whose client certificates count, PEM: "file:...".', None
    )
    # Last: below it, `key` is this field.
    key: Text = key('The key of the certificate, PEM: "file:...".')


class Server(Table):
    """Where clients connect, and how much of them is borne."""

    listen: list[Listen] = key(
        "Where to listen: host:port, [v6]:port or unix:/path.",
        ["127.0.0.1:8080"],
        min_length=1,
    )
    public_url: Origin | None = key(
        "The URL under which clients reach the gateway, for metadata and challenges;"
        " never taken from Host.",
        None,
    )
    hosts: list[Host] = key(
        "With the services' hosts, the Host fields that are served; others are 421."
        " Neither set: any valid Host.",
        [],
    )
    client_certificate: Literal["tls", "client-cert", "xfcc", "xfcc-last"] = key(
        "Who tells what certificate a client has shown: our own TLS, or a field of a"
        " trusted proxy: Client-Cert (RFC 9440), X-Forwarded-Client-Cert with one"
        " element, or its last one.",
        "tls",
    )
    own_prefix: Annotated[str, checked(syntax.own_prefix)] = key(
        "The path of the gateway's own endpoints; no route may overlap it.", "/auth"
    )
    trusted_proxies: list[Network] = key(
        "Peers whose X-Forwarded-* fields are believed; loopback is not implied.", []
    )
    workers: Annotated[
        int | None,
        BeforeValidator(_workers),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": MOST},
                    {"const": "auto"},
                ]
            }
        ),
    ] = key(
        'Worker processes; "auto": as many as there are cores to use. More than one'
        " needs a store that they share.",
        1,
    )
    drain_delay: Annotated[Duration, between_times(0, 600)] = key(
        "After SIGTERM, until no more connections are accepted: /readyz is 503, and"
        " each answer is the last of its connection.",
        "5s",
    )
    drain_timeout: Annotated[Duration, between_times(0, 86_400)] = key(
        "After that, until what is still in flight is cut off.", "20s"
    )
    max_head: Annotated[Size, between_sizes(1024, 1024**2)] = key(
        "Request line and header fields together; more is 431.", "16 KiB"
    )
    max_headers: int = key(
        "Header fields of a request; more is 431.", 100, ge=1, le=1000
    )
    max_token: Annotated[Size, between_sizes(256, 1024**2)] = key(
        "A bearer token; a longer one is 400.", "8 KiB"
    )
    max_body: Size = key(
        "A request's body, unless its route says otherwise; more is 413.", "10 MiB"
    )
    header_timeout: Annotated[Duration, between_times(0.1, 600)] = key(
        "Until a request's head has arrived.", "10s"
    )
    body_timeout: Annotated[Duration, between_times(0.1, 3600)] = key(
        "Between two pieces of a request's body.", "30s"
    )
    idle_timeout: Annotated[Duration, between_times(0.1, 3600)] = key(
        "An idle keep-alive connection is kept.", "60s"
    )
    max_connections: int = key(
        "Client connections at a time.", 10_000, ge=1, le=1_000_000
    )
    max_connections_per_peer: int = key(
        "Client connections of one address at a time; loopback and trusted proxies"
        " are not counted.",
        1_000,
        ge=1,
        le=1_000_000,
    )
    tls: Tls | None = key("TLS on every TCP address of `listen`.", None)


class Probes(Table):
    """/livez /readyz /startupz /metrics, and nothing else."""

    listen: Listen = key("Where to listen.")


class Admin(Table):
    """/-/ endpoints: a Unix socket of mode 0600, or loopback with a token."""

    listen: Annotated[
        InstanceOf[Address] | None,
        from_text(_address_or_none),
        text_schema("address or none", "", "unix:/run/gw.sock", "none"),
    ] = key('Where to listen; "none" opens no admin port.', "unix:.gateway/admin.sock")
    token: Reference | None = key(
        "The bearer token that callers present; required off a Unix socket. 16"
        " characters or more.",
        None,
    )


class Store(Table):
    """Where revocations are kept."""

    url: str = key(
        "memory, redis://host:port/db, rediss://host:port/db or unix:///path."
        " A password in it comes from env: or file:.",
        "memory",
    )


class Certificates(Table):
    """Clients whose certificate is their credential."""

    name: Literal["spiffe", "subject"] = key(
        "What of it names the caller: its one SPIFFE ID, or its subject (RFC 4514).",
        "spiffe",
    )
    roles: dict[Text, list[Text]] = key("Which roles a caller has, by name.", {})
    max_lifetime: Annotated[Duration, between_times(1, 400 * 86400)] = key(
        "Certificates that are good for longer from now on are refused; bounds how long"
        " a revocation is kept.",
        "90d",
    )


class Dpop(Table):
    """Proofs of the key that a token is bound to (RFC 9449)."""

    algorithms: list[ProofAlgorithm] = key(
        "What proofs may be signed with.",
        ["ES256", "EdDSA", "PS256", "RS256"],
        min_length=1,
    )
    nonce: bool = key("Ask for a nonce of ours in each proof.", default=False)
    nonce_key: Reference | None = key(
        "What nonces are made with: 32 bytes or more, the same on every instance."
        " Without it, each start has its own.",
        None,
    )


class Outage(Table):
    """What happens while the store is away: one line for each use."""

    revocation: Literal["deny", "allow-stale"] = key(
        "deny: a request that needs the store is 503.", "deny"
    )


class IssuerRoles(Table):
    """Which roles an issuer's tokens carry."""

    claim: Annotated[
        list[Text],
        Field(min_length=1),
        Or(
            lambda said: [said] if isinstance(said, str) else said,
            {"type": "string", "minLength": 1},
        ),
    ] = key(
        "Where they stand: a string is one claim name as it is, dots and all; a list"
        " is a path."
    )
    map: dict[Text, Text] | None = key(
        "Values of the claim to roles; without it they are roles as they are.", None
    )
    allow: list[Text] = key(
        "The only roles that this issuer may assert; others are ignored.", min_length=1
    )
    split: bool = key("Split a string claim at its spaces.", default=False)


class IssuerScope(Table):
    """What the scope of an issuer's tokens grants. There is no default."""

    claim: Text = key("Where the scope stands.", "scope")
    user: ScopeChoice = key(
        "A user's token. limit: a permission that a role grants and the scope names;"
        " grant: what the scope names; ignore: what the roles grant."
    )
    service: ScopeChoice = key(
        "The same for a service's token, whose subject is its client (RFC 9068)."
    )


class Introspection(Table):
    """Asks the issuer about tokens that nothing can be read from (RFC 7662)."""

    url: Text = key(
        'Where it is asked: an https URL, or "discover" (OpenID).', "discover"
    )
    client_id: Text = key("Who we are to it.")
    client_secret: Reference = key("By what it knows us.")
    auth: Literal["basic", "post"] = key(
        "Where both stand: in Authorization, or in the form.", "basic"
    )
    cache: Annotated[Duration, between_times(0, 3600)] = key(
        "How long an answer counts, and never beyond the token's `exp`; what the issuer"
        " withdraws meanwhile counts on.",
        "60s",
    )
    timeout: Annotated[Duration, between_times(0.1, 10)] = key(
        "Until the whole answer; after that the request is 503.", "2s"
    )
    prefix: Annotated[str, checked(syntax.token_prefix)] = key(
        "What its tokens begin with, where several issuers are asked.", ""
    )
    audience_from: Literal["token", "config"] = key(
        "config: an answer without `aud` is taken to be for this issuer's `audience`: a"
        " weakening.",
        "token",
    )
    ca_file: Text | None = key(
        "Certificates to trust for its URLs instead of the system's, PEM.", None
    )
    proxy: Origin | None = key(
        "The HTTP proxy to its URLs; the environment's is not used.", None
    )


class Subnet(Table):
    """How much of a single address counts."""

    v4: int = key("Bits of an IPv4 address.", 32, ge=8, le=32)
    v6: int = key("Bits of an IPv6 address.", 64, ge=32, le=128)


class Issuer(Table):
    """Who may mint tokens for us: one of jwks, pem and secret, or introspection."""

    issuer: Text = key("The `iss` of its tokens, compared octet by octet.")
    jwks: Text | None = key(
        'Its keys: "discover" (OpenID), an https URL, or "file:..." of a JWK Set.', None
    )
    pem: Reference | None = key("Its public key or certificate, PEM.", None)
    secret: Reference | None = key(
        "The secret shared with it, for HS* alone: 32, 48, 64 bytes or more for HS256,"
        " HS384, HS512.",
        None,
    )
    ca_file: Text | None = key(
        "Certificates to trust for its URLs instead of the system's, PEM.", None
    )
    proxy: Origin | None = key(
        "The HTTP proxy to its URLs; the environment's is not used.", None
    )
    audience: list[Text] = key(
        "Its tokens are for us if their `aud` names one of these.", min_length=1
    )
    algorithms: list[Algorithm] | None = key(
        "The only ones that its signatures may use; needed where it has keys.",
        None,
        min_length=1,
    )
    token_types: list[Text] | None = key(
        'The `typ` of its access tokens: "at+jwt" (RFC 9068), "JWT"; needed where it'
        " has keys.",
        None,
        min_length=1,
    )
    leeway: Annotated[Duration, between_times(0, 60)] = key(
        "By how much its clock may differ from ours.", "30s"
    )
    max_lifetime: Annotated[Duration, between_times(1, 400 * 86400)] = key(
        "Longer-lived tokens are refused; bounds how long a revocation is kept.", "24h"
    )
    token_id: Text = key(
        "The claim that names a token; one without it is known by its digest.", "jti"
    )
    roles: IssuerRoles | None = key("Which roles its tokens carry; none without.", None)
    introspection: Introspection | None = key(
        "Asks it about opaque tokens; none are taken without.", None
    )
    scope: IssuerScope = key("What the scope of its tokens grants.")
    address_claim: Text | None = key(
        "The claim that names the addresses or networks its token may be used from.",
        None,
    )
    subnet: Subnet = key("How much of a single address there counts.", {})
    binding: BindingList | None = key(
        "Its tokens count only if they are bound to one of these.", None
    )


class Derived(Table):
    """A Fernet key that is made of a password: PBKDF2-HMAC-SHA256."""

    password: Reference = key("The password: 12 characters or more.")
    salt: Text = key("16 bytes or more, base64url; no secret.")
    iterations: int = key(
        "How often it is hashed; each start waits for that.",
        600_000,
        ge=600_000,
        le=10_000_000,
    )


class Fernet(Table):
    """Tokens that a shared key sealed. They are of the issuer "fernet"."""

    issuer: Text = key("Its name in revocations; an `iss` in a token has to equal it.")
    audience: list[Text] = key(
        "A token is for us if its `aud` names one of these, or if it has none.",
        min_length=1,
    )
    keys: list[Reference] = key(
        'Its keys: "env:NAME", "file:/path", or "dir:/path" of *.key files, newest'
        " first. The first seals, all open.",
        [],
        max_length=16,
    )
    derived: Derived | None = key(
        "One more, made of a password; it comes after `keys`.", None
    )
    ttl: Annotated[Duration, between_times(1, 400 * 86400)] = key(
        "How long after it was sealed a token ends; sooner if its `exp` says so."
    )
    leeway: Annotated[Duration, between_times(0, 60)] = key(
        "By how much the clock of whoever seals may differ from ours.", "30s"
    )
    sid: Literal["optional", "required"] = key(
        "Whether a token has to name its login session.", "optional"
    )
    token_id: Text = key(
        "The claim that names a token; one without it is known by its digest.", "jti"
    )
    roles: IssuerRoles | None = key("Which roles its tokens carry; none without.", None)
    scope: IssuerScope = key("What the scope of its tokens grants.")


class JweKey(Table):
    """A key, and the one pair of algorithms that it is used with."""

    kid: Text | None = key("Its name in the header of a token.", None)
    alg: Literal["dir", "A256KW", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A256KW"] = key(
        "How the content's key is had."
    )
    enc: Literal["A256GCM", "A128CBC-HS256", "A256CBC-HS512"] = key(
        "How the content is encrypted."
    )
    # Last: below it, `key` is this field.
    key: Reference = key(
        'Octets in base64url for dir and A256KW, else a private key in PEM; "ephemeral"'
        " (dir): made when the process starts."
    )


class Jwe(Table):
    """Encrypted tokens: what they say is in them directly, or is a signed token."""

    keys: list[JweKey] = key(
        "Its keys; the first seals, all open.", min_length=1, max_length=16
    )
    nested: list[Name] = key(
        "The [issuer.x] whose signed tokens may stand in it; their rules count then.",
        [],
    )
    issuer: Text | None = key(
        'The `iss` of claims that stand in it directly, of the issuer "jwe"; without'
        " it none may.",
        None,
    )
    audience: list[Text] = key("As in [issuer.x]; required with `issuer`.", [])
    leeway: Annotated[Duration, between_times(0, 60)] = key("As in [issuer.x].", "30s")
    max_lifetime: Annotated[Duration, between_times(1, 400 * 86400)] = key(
        "As in [issuer.x].", "24h"
    )
    token_id: Text = key("As in [issuer.x].", "jti")
    roles: IssuerRoles | None = key("As in [issuer.x].", None)
    scope: IssuerScope | None = key("As in [issuer.x]; required with `issuer`.", None)


class ApiKeys(Table):
    """Keys that the gateway itself gives to programs."""

    prefix: Annotated[str, checked(syntax.key_prefix)] = key(
        "With which they begin: `<prefix>_<id>_<secret>`.", "gw"
    )
    header: Annotated[str, checked(syntax.key_header), text_schema("header name")] = (
        key("The header field where they stand, if not as a bearer token.", "X-API-Key")
    )
    pepper: Reference | None = key(
        "A secret, 32 bytes or more, without which what is kept of keys is of no use.",
        None,
    )
    allow: list[Text] = key("The only roles that a key may have.", [])
    scope: ScopeChoice = key(
        "limit: a permission that a role grants and the scope names; grant: what the"
        " scope names; ignore: what the roles grant."
    )
    lifetime: Annotated[Duration, between_times(60, 3650 * 86400)] = key(
        "Of a key that is made without another one.", "90d"
    )
    max_lifetime: Annotated[Duration, between_times(60, 3650 * 86400)] = key(
        "A key that lives longer doesn't count; bounds how long a revocation is kept.",
        "366d",
    )
    imported: bool = key(
        "Keys of another form, made elsewhere, count too, in the header alone.",
        default=False,
    )


class ApiKey(Table):
    """A key that is known without a store."""

    id: Annotated[str, checked(syntax.key_id), text_schema("key id")] = key(
        "Its name: the client id of whoever presents it."
    )
    sha256: Annotated[str, checked(syntax.key_digest), text_schema("SHA-256")] = key(
        "The SHA-256 of the key, 64 hexadecimal digits; `gateway apikey create"
        " --declare` prints it."
    )
    owner: Text = key("The subject of whoever presents it.", max_length=255)
    expires: Moment = key("When it ends, such as 2027-01-31T00:00:00Z.")
    roles: list[Text] = key("Its roles, of [api_keys] allow.", [])
    scopes: list[Text] = key("Its scope.", [])
    networks: list[Network] = key("Where it counts; everywhere when empty.", [])
    note: str = key("For people.", "")


class Identity(Table):
    """What upstreams receive: a short-lived JWT in X-Gateway-Assertion."""

    issuer: Text = key("Its `iss`; never that of a token issuer.")
    keys: Text = key(
        '"dir:..." of PEM files (the newest valid one signs, all are published), or'
        ' "file:..." of one.'
    )
    algorithm: Literal["ES256", "EdDSA", "RS256"] = key("What it signs with.", "ES256")
    ttl: Annotated[Duration, between_times(1, 60)] = key(
        "How long an assertion is valid; never longer than the caller's token.", "60s"
    )
    claims: list[Text] = key(
        "What is told beside subject and source.",
        ["client_id", "roles", "scope", "acr", "auth_time"],
    )
    headers: dict[HeaderName, Text] = key(
        "Plain copies for backends that read headers: header to claim.", {}
    )


class UpstreamIdentity(Table):
    """What this upstream receives otherwise than [identity] says."""

    issuer: Text | None = key("As in [identity].", None)
    keys: Text | None = key("As in [identity].", None)
    algorithm: Literal["ES256", "EdDSA", "RS256"] | None = key(
        "As in [identity].", None
    )
    ttl: Annotated[Duration, between_times(1, 60)] | None = key(
        "As in [identity].", None
    )
    claims: list[Text] | None = key("As in [identity].", None)
    headers: dict[HeaderName, Text] | None = key("As in [identity].", None)


class Headers(Table):
    """Request headers on their way to an upstream, beyond the built-in rules."""

    strip: list[HeaderPattern] = key("Also removed.", [])
    keep: list[HeaderPattern] = key("Not removed, though reserved: a weakening.", [])
    underscores: Literal["drop", "reject", "pass"] = key(
        "Names with an underscore: drop the field, reject the request (400), pass.",
        "drop",
    )


class Timeouts(Table):
    """How long an upstream may take."""

    connect: Annotated[Duration, between_times(0.001, 600)] = key("To connect.", "2s")
    send_idle: Annotated[Duration, between_times(0.001, 86400)] = key(
        "While it takes nothing more of the request.", "30s"
    )
    first_byte: Annotated[Duration, between_times(0.001, 86400)] = key(
        "From the end of the request to the end of the answer's head.", "30s"
    )
    idle: Annotated[Duration, between_times(0.001, 86400)] = key(
        "Between two pieces of the answer.", "60s"
    )
    total: Annotated[DurationOrNone, between_times(0.001, 86400)] = key(
        "The whole exchange.", "none"
    )


class UpstreamTls(Table):
    """TLS to the https URLs of an upstream. The name is always checked."""

    ca: Text | None = key(
        'The issuers to trust instead of the system\'s, PEM: "file:...".', None
    )
    certificate: Text | None = key(
        'What we show, then what leads to its issuer, PEM: "file:...".', None
    )
    server_name: Host | None = key(
        "Who it has to be, and is asked for (SNI), instead of the URL's host.", None
    )
    minimum: Literal["1.2", "1.3"] = key("The oldest version that is spoken.", "1.2")
    # Last: below it, `key` is this field.
    key: Text | None = key('The key of the certificate, PEM: "file:...".', None)


class Health(Table):
    """Asks each endpoint itself whether it is well."""

    path: Annotated[str, checked(syntax.health_path)] = key(
        "What is asked for, with GET; 2xx is well."
    )
    interval: Annotated[Duration, between_times(0.1, 3600)] = key(
        "Between two checks.", "10s"
    )
    timeout: Annotated[Duration, between_times(0.01, 60)] = key(
        "Until the answer, connecting included.", "2s"
    )
    healthy: int = key("Checks in a row until it is used again.", 2, ge=1, le=100)
    unhealthy: int = key("Checks in a row until it is used no more.", 3, ge=1, le=100)


class Ejection(Table):
    """When an endpoint that fails requests is left alone. Never the only one."""

    failures: int = key(
        "In a row: answers 502, 503 and 504, none in time, and broken ones.",
        5,
        ge=1,
        le=1000,
    )
    time: Annotated[Duration, between_times(0.1, 3600)] = key(
        "How long, at first; twice as long each further time.", "10s"
    )
    max_time: Annotated[Duration, between_times(0.1, 86400)] = key(
        "How long at most.", "5m"
    )


class Upstream(Table):
    """A backend: one endpoint, or several that stand in for one another."""

    urls: list[Text] = key(
        "http://host:port, https://host:port or unix:/path. A name is all its"
        " addresses.",
        min_length=1,
    )
    host: Text = key(
        'The Host it receives: "client" (the client\'s, validated), "upstream" (the'
        " URL's), or a name.",
        "client",
    )
    timeout: Timeouts = key("How long it may take.", {})
    max_connections: int = key(
        "Connections to it, which are requests in flight; more is 503.",
        1024,
        ge=1,
        le=65536,
    )
    resolve_every: Annotated[Duration, between_times(1, 86400)] = key(
        "Names in its URLs are looked up again when their TTL has passed, and at the"
        " latest after this time.",
        "5m",
    )
    panic_threshold: int = key(
        "Percent of its endpoints; when fewer are available, all of them are used.",
        50,
        ge=0,
        le=100,
    )
    tls: UpstreamTls = key("TLS to its https URLs.", {})
    health: Health | None = key("Asks each endpoint whether it is well.", None)
    ejection: Ejection = key("When an endpoint is left alone.", {})
    credentials_to_upstream: Literal["strip", "pass"] = key(
        "Whether the client's credential travels on; routes may say otherwise.", "strip"
    )
    keep_alive: Annotated[Duration, between_times(0, 3600)] = key(
        "An idle connection to it is kept; shorter than it keeps its own.", "4s"
    )
    max_idle: int = key(
        "Idle connections to each endpoint that are kept.", 256, ge=0, le=65536
    )
    identity: UpstreamIdentity | None = key(
        "What it receives otherwise than [identity] says.", None
    )


class Accept(Table):
    """A weakening that somebody has looked at."""

    what: Text = key("As `gateway check` prints it.")
    why: Text = key("The reason.")


class Check(Table):
    """What `gateway check` is told."""

    accept: list[Accept] = key("Weakenings that somebody has looked at.", [])


class Log(Table):
    """The access log."""

    access: bool = key("Write a line for each request.", default=True)
    query: list[Text] = key(
        "Names of query parameters whose values may appear; others never do.", []
    )


class Gateway(Table):
    """gateway.toml: the plumbing, owned by operators."""

    version: int = key("The version of this format: 1.", ge=1, le=1)
    policies: list[Text] = key(
        "Globs of service files, relative to the file that says them."
    )
    roles: list[Text] = key(
        "Globs of operators' policy files: only these may use `inherits` and `*`, or"
        " grant what they do not declare.",
        [],
    )
    server: Server = key("Where clients connect.", {})
    probes: Probes | None = key("Health and metrics.", None)
    admin: Admin = key("The admin port.", {})
    store: Store = key("Where revocations are kept.", {})
    certificates: Certificates | None = key(
        "Clients whose certificate is their credential.", None
    )
    dpop: Dpop | None = key("Proofs of the key that a token is bound to.", None)
    outage: Outage = key("What happens while the store is away.", {})
    issuer: dict[Name, Issuer] = key("Token issuers by name.", {})
    api_keys: ApiKeys | None = key("API keys; without it there are none.", None)
    api_key: list[ApiKey] = key("API keys that are known without a store.", [])
    fernet: Fernet | None = key('Fernet tokens, of the issuer "fernet".', None)
    jwe: Jwe | None = key('Encrypted tokens, of the issuer "jwe" or nested.', None)
    identity: Identity | None = key(
        "What upstreams receive; required unless every route is public.", None
    )
    headers: Headers = key("Request headers on their way to an upstream.", {})
    upstream: dict[Name, Upstream] = key("Backends by name.", {})
    check: Check = key("What `gateway check` is told.", {})
    log: Log = key("The access log.", {})

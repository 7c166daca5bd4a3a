"""gateway.toml as pydantic models: every key, its type, default and meaning.

Unknown keys are errors and types are strict. The descriptions go into the JSON Schema.
What takes more than one key to judge is judged in gateway.config.build.

Imports: the standard library, gateway.config.credential_file, gateway.config.fields,
gateway.config.settings, gateway.config.syntax, gateway.config.upstream_file, pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, InstanceOf, WithJsonSchema

from gateway.config import syntax
from gateway.config.credential_file import (
    ApiKey,
    ApiKeys,
    Certificates,
    Dpop,
    Fernet,
    Issuer,
    Jwe,
)
from gateway.config.fields import (
    Duration,
    HeaderName,
    HeaderPattern,
    Host,
    Listen,
    Name,
    Network,
    Origin,
    Reference,
    Size,
    Staleness,
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
from gateway.config.upstream_file import Upstream

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
        "memory, redis://host:port/db, unix:///path,"
        " redis+sentinel://host:port,host:port/service or"
        " redis+cluster://host:port,host:port; rediss for TLS. A password in it comes"
        " from env: or file:.",
        "memory",
    )
    replicas: int = key(
        "How many replicas of the store must have a revocation before it is said to be"
        " made.",
        0,
        ge=0,
        le=10,
    )


class Outage(Table):
    """What happens while the store is away: one line for each use."""

    revocation: Literal["deny", "allow-stale"] = key(
        "deny: what needs the store is 503. allow-stale: the last complete mirror of"
        " the revocation list decides, as long as it is no older than max_staleness.",
        "deny",
    )
    max_staleness: Staleness = key("How old that mirror may be.", "5s")


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


class Headers(Table):
    """Request headers on their way to an upstream, beyond the built-in rules."""

    strip: list[HeaderPattern] = key("Also removed.", [])
    keep: list[HeaderPattern] = key("Not removed, though reserved: a weakening.", [])
    underscores: Literal["drop", "reject", "pass"] = key(
        "Names with an underscore: drop the field, reject the request (400), pass.",
        "drop",
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

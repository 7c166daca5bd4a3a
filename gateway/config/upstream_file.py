"""The tables of gateway.toml below [upstream.x].

Imports: the standard library, gateway.config.fields, pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from gateway.config import syntax
from gateway.config.fields import (
    Duration,
    DurationOrNone,
    HeaderName,
    Host,
    Table,
    Text,
    between_times,
    checked,
    key,
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

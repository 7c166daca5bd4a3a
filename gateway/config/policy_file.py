"""policies/*.toml as pydantic models: every key, its type, default and meaning.

Unknown keys are errors and types are strict. The descriptions go into the JSON Schema.
What the words mean together is judged in gateway.policy.compile.

Imports: the standard library, gateway.config.fields, pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

from gateway.config.fields import (
    BindingList,
    Host,
    Or,
    Size,
    Staleness,
    Table,
    Text,
    between_sizes,
    key,
)

CredentialWord = Literal["bearer", "ticket", "certificate", "api_key"]


class Service(Table):
    """The service that a policy file is about."""

    name: Text = key("Its name, in logs and route ids.")
    hosts: list[Host] = key("The hosts it answers on; all when empty.", [])
    prefix: Text = key('Every path in the file is relative to it; "/" for all.')
    strip_prefix: bool = key("Leave the prefix out of what is sent.", default=False)
    upstream: Text = key("The name of an [upstream.x], or its http URL.")
    issuers: list[Text] | None = key(
        "Names of the issuers whose tokens count; required once there are two.", None
    )
    credentials: list[CredentialWord] = key(
        "The kinds of credential that count.", ["bearer"], min_length=1
    )
    binding: BindingList | None = key(
        "Its tokens count only if they are bound to one of these.", None
    )
    revocation: RouteRevocation | None = key(
        "How revocation is asked about, more strictly than by default.", None
    )
    read: Text | None = key(
        "The permission for GET and HEAD of paths that no route names.", None
    )
    write: Text | None = key(
        "The permission for other methods of paths that no route names.", None
    )
    audience: list[Text] | None = key(
        "What its tokens' `aud` has to name, instead of the issuer's.",
        None,
        min_length=1,
    )
    inside: Text | None = key("The service within whose prefix this one's lies.", None)


class Role(Table):
    """What a role grants; it may be extended in several files."""

    permissions: list[Text] | None = key("What it grants.", None, min_length=1)
    inherits: list[Text] | None = key(
        "Roles whose grants it has too; operators' files only.", None, min_length=1
    )


class Public(Table):
    """Open to everybody."""

    public: Text = key("The reason for it.")


class Owner(Table):
    """Who owns what a path parameter names."""

    param: Text = key("The path parameter.")
    claim: Text = key("The claim that equals it.", "sub")
    issuer: Text | None = key(
        "The issuer whose claim it is; required once the service has two.", None
    )


class RouteIdentity(Table):
    """How identity is asserted on a route."""

    bind: Literal["request"] = key(
        "Bind each assertion to its request: method, URL and request id."
    )


class WebSocket(Table):
    """What a route says of its WebSockets."""

    max_message: Annotated[Size, between_sizes(1024, 1 << 30)] = key(
        "Of one message, either way; a longer one ends the connection.", "1 MiB"
    )
    per_subject: int = key("Open at a time, of one caller.", 100, ge=1)
    origins: list[Text] | None = key(
        'The only pages that may open one, by origin; "none" is a client without.',
        None,
        min_length=1,
    )


def _access(said: Any) -> Any:
    """Tell the three forms apart, so that each gets a message of its own."""
    if isinstance(said, Mapping):
        return Public.model_validate(said)
    if said not in ("authenticated", "optional"):
        raise ValueError('expected "authenticated", "optional" or { public = "why" }')
    return said


REQUIRE: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"$ref": "#/$defs/Require"}},
        *(
            {
                "type": "object",
                "properties": {word: {"$ref": "#/$defs/Require"}},
                "required": [word],
                "additionalProperties": False,
            }
            for word in ("any", "all", "not")
        ),
    ]
}


class RouteRevocation(Table):
    """How revocation is asked about; never less strictly than [outage] says."""

    mode: Literal["mirror", "strict"] = key(
        "mirror: the local mirror of the list, while it counts. strict: the store,"
        " each time.",
        "mirror",
    )
    outage: Literal["deny", "allow-stale"] | None = key(
        "As in [outage], for this route.", None
    )
    max_staleness: Staleness | None = key("As in [outage], for this route.", None)


class Route(Table):
    """What may be called, and by whom. Exactly one of access and require."""

    id: Text | None = key("Its name; otherwise made of method and path.", None)
    methods: list[Text] = key('Such as ["GET"]; ["*"] is all.', min_length=1)
    path: Text = key(
        "Relative to the prefix: {name}, {name:int}, {name:uuid}, {rest...}."
    )
    access: (
        Annotated[
            Public | Literal["authenticated", "optional"], BeforeValidator(_access)
        ]
        | None
    ) = key(
        'Who may call it: "authenticated", "optional", { public = "the reason" }.', None
    )
    require: Annotated[object, WithJsonSchema({"x-type": "require"})] = key(
        "A permission, @owner, a list of such (all), { any = [] }, { all = [] } or"
        " { not = ... }.",
        None,
    )
    owner: (
        Annotated[
            Owner,
            Or(
                lambda said: {"param": said} if isinstance(said, str) else said,
                {"type": "string", "minLength": 1},
            ),
        ]
        | None
    ) = key("The path parameter that equals the caller's `sub`.", None)
    audience: list[Text] | None = key(
        "As in [service], for this route.", None, min_length=1
    )
    credentials: list[CredentialWord] | None = key(
        "As in [service], for this route.", None, min_length=1
    )
    binding: BindingList | None = key("As in [service], for this route.", None)
    revocation: RouteRevocation | None = key("As in [service], for this route.", None)
    max_body: Size | None = key("As in [server], for this route; larger too.", None)
    max_in_flight: int | None = key(
        "Requests in flight at a time; more is 503. Without it, as many as its"
        " upstream may have.",
        None,
        ge=1,
        le=65536,
    )
    allow_encoded: list[Literal["%2F", "%5C", "%23", "%3F", "%25"]] = key(
        "Escapes that its path may hold, refused elsewhere.", []
    )
    credentials_to_upstream: Literal["strip", "pass"] | None = key(
        "As in [upstream.x], for this route; public routes pass.", None
    )
    identity: RouteIdentity | None = key("How identity is asserted.", None)
    websocket: WebSocket | None = key(
        "Clients may upgrade a GET to a WebSocket; {} as it is by default.", None
    )
    stream: bool = key(
        "Its answers may take their time: the upstream's `first_byte` and `idle` do"
        " not cut them.",
        default=False,
    )
    at_expiry: Literal["close", "finish"] | None = key(
        'What a stream does when its token ends; "close" unless said.', None
    )


class Policy(Table):
    """policies/*.toml: who may call what, owned by the service's team."""

    version: int = key("The version of this format: 1.", ge=1, le=1)
    service: Service | None = key("The service; operators' files have none.", None)
    permissions: dict[str, str] = key(
        "The vocabulary: permission to what it means.", {}
    )
    roles: dict[str, Role] = key("What roles grant.", {})
    route: list[Route] = key("What may be called, and by whom.", [])

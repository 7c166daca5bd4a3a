"""What keys hold: the types that both kinds of file are made of.

Each wants the text as TOML gives it, checks it alone and turns it into what it means.
No message repeats the text: it may have come from a secret.

Imports: the standard library, gateway.config.settings, gateway.config.syntax,
gateway.config.units, pydantic.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    InstanceOf,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from gateway.config import syntax, units
from gateway.config.settings import LEASE, Address

MOST_STALENESS = 300.0  # seconds; the longest in which a revocation may be missed

# What other versions know, or will: said in words instead of "unknown key".
LATER = {
    "client": "issuing tokens",
    "users": "issuing tokens",
    "login": "issuing tokens",
    "provider": "browser sign-in",
    "sessions": "browser sign-in",
    "service_when": "CEL conditions",
    "conditions": "CEL conditions",
    "who": "policy tests",
    "test": "policy tests",
    "limit": "rate limits",
    "cors": "CORS",
    "step_up": "step-up authentication",
    "conflict": "separation of duties",
}


def from_text(parse: Callable[[str], object]) -> BeforeValidator:
    """Make a validator that hands a string to *parse*, which turns it into a value.

    What is no string is told what *parse* says of an empty one: the form it wants.
    """

    def check(value: object) -> object:
        return parse(value if isinstance(value, str) else "")

    return BeforeValidator(check)


def checked(parse: Callable[[str], object]) -> AfterValidator:
    """Make a validator that keeps the string which *parse* accepts."""

    def check(value: str) -> str:
        parse(value)
        return value

    return AfterValidator(check)


def _between(low: float, high: float, spell: Callable[[Any], str]) -> AfterValidator:
    def check(value: float | None) -> float | None:
        if value is not None and value < low:
            raise ValueError(f"must be at least {spell(low)}")
        if value is not None and value > high:
            raise ValueError(f"must be at most {spell(high)}")
        return value

    return AfterValidator(check)


def between_times(low: float, high: float) -> AfterValidator:
    """Make a validator that keeps a duration from *low* to *high* (seconds)."""
    return _between(low, high, units.spell_duration)


def between_sizes(low: int, high: int) -> AfterValidator:
    """Make a validator that keeps a size from *low* to *high* (bytes)."""
    return _between(low, high, units.spell_size)


def text_schema(unit: str, pattern: str = "", *examples: str) -> WithJsonSchema:
    """Describe a string that means a *unit* to the JSON Schema."""
    schema: dict[str, Any] = {"type": "string", "x-type": unit}
    if pattern:
        schema["pattern"] = f"^(env:.*|{pattern})$"
    if examples:
        schema["examples"] = list(examples)
    return WithJsonSchema(schema)


Duration = Annotated[
    float, from_text(units.duration), text_schema("duration", units.DURATION, "10s")
]
DurationOrNone = Annotated[
    float | None,
    from_text(units.duration_or_none),
    text_schema("duration or none", f"none|{units.DURATION}", "30s", "none"),
]
Size = Annotated[int, from_text(units.size), text_schema("size", units.SIZE, "16 KiB")]
Listen = Annotated[
    InstanceOf[Address],
    from_text(syntax.address),
    text_schema("address", "", "127.0.0.1:8080", "[::1]:8080", "unix:/run/gw.sock"),
]
Host = Annotated[str, from_text(syntax.host), text_schema("host")]
Network = Annotated[
    InstanceOf[IPv4Network] | InstanceOf[IPv6Network],
    from_text(syntax.network),
    text_schema("network", "", "10.0.0.0/8"),
]
Moment = Annotated[
    float,
    BeforeValidator(syntax.moment),
    WithJsonSchema({"type": "string", "format": "date-time", "x-type": "moment"}),
]
Name = Annotated[str, checked(syntax.name), text_schema("name")]
Origin = Annotated[str, checked(syntax.origin), text_schema("URL")]
HeaderPattern = Annotated[
    str, checked(syntax.header_pattern), text_schema("header name, or prefix-*")
]
HeaderName = Annotated[str, checked(syntax.identity_header), text_schema("header name")]
Reference = Annotated[
    str, text_schema("reference", "", "env:NAME", "file:/run/secrets/name")
]
Text = Annotated[str, Field(min_length=1)]
ProofAlgorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
Algorithm = Literal[ProofAlgorithm, "HS256", "HS384", "HS512"]
ScopeChoice = Literal["limit", "grant", "ignore"]


def _staleness(value: float) -> float:
    if value <= LEASE:
        raise ValueError(
            f"must be more than {units.spell_duration(LEASE)}: so long the mirror"
            " counts anyway"
        )
    return value


Staleness = Annotated[
    Duration, AfterValidator(_staleness), between_times(0, MOST_STALENESS)
]


class Or:
    """Also takes the short form of a table, which *expand* turns into the long one."""

    def __init__(self, expand: Callable[[Any], Any], *short: JsonSchemaValue) -> None:
        self.expand = expand
        self.short = short

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], CoreSchema]
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            self.expand, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [*self.short, handler(schema)]}


BindingList = Annotated[
    list[Literal["ip", "mtls", "dpop"]],
    Field(min_length=1),
    Or(
        lambda said: [said] if isinstance(said, str) else said,
        {"enum": ["ip", "mtls", "dpop"]},
    ),
]


class Table(BaseModel):
    """A TOML table."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True
    )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # it may hold what env: and file: gave

    __str__ = __repr__


def key(description: str, default: Any = ..., **more: Any) -> Any:
    """Describe a key; a default stands as one would write it in TOML."""
    if default is ...:
        return Field(description=description, **more)
    return Field(
        default=default, validate_default=True, description=description, **more
    )

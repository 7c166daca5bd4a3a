"""The tables of gateway.toml that are about credentials: whose count, and how.

Imports: the standard library, gateway.config.fields, pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config import syntax
from gateway.config.fields import (
    Algorithm,
    BindingList,
    Duration,
    Moment,
    Name,
    Network,
    Or,
    Origin,
    ProofAlgorithm,
    Reference,
    ScopeChoice,
    Table,
    Text,
    between_times,
    checked,
    key,
    text_schema,
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
    backchannel_logout: bool = key(
        "Take logout tokens of it (OpenID Connect Back-Channel Logout).", default=False
    )
    logout_audience: list[Text] | None = key(
        "Its logout tokens are for us if their `aud` names one of these; without it,"
        " one of `audience`.",
        None,
        min_length=1,
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

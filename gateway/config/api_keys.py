"""[api_keys] and [[api_key]]: keys of our own making, and those that stand here.

R46 (the pepper is a secret), R52 (digests alone). Keys have an issuer like every token:
its name is reserved, and what a key counts for is asked of it.

Imports: gateway.config.credential_file, gateway.config.findings,
gateway.config.settings, gateway.config.syntax, gateway.model, gateway.policy.suggest,
gateway.tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config import credential_file as written
from gateway.config import syntax
from gateway.config.findings import Findings
from gateway.config.settings import (
    ApiKeys,
    DeclaredKey,
    Issuer,
    KeySource,
    RoleMapping,
    ScopeRule,
)
from gateway.model import API_KEYS
from gateway.policy.spec import KeyPath
from gateway.policy.suggest import did_you_mean
from gateway.tokens.api_key import MAX_LISTED, MAX_NOTE, is_scope
from gateway.tokens.claims import MAX_NAME, is_name
from gateway.tokens.jwks import key_from_secret


def build_api_keys(
    table: written.ApiKeys | None,
    tables: Sequence[written.ApiKey],
    found: Findings,
    now: float | None = None,
) -> ApiKeys | None:
    """Build what is said of API keys; *now* (Unix seconds) tells which have expired."""
    if table is None:
        if tables:
            found.problem(
                ("api_key", 0),
                "[[api_key]] without [api_keys]: where would it stand, and what would"
                " its scope mean?",
                'add [api_keys] with scope = "limit", "grant" or "ignore"',
            )
        return None
    pepper = None
    if table.pepper is not None:
        pepper = table.pepper.encode("utf-8", "surrogateescape")
        try:
            key_from_secret(pepper, "HS256")
        except ValueError as error:
            found.problem((API_KEYS, "pepper"), f"pepper: {error}")
    if table.lifetime > table.max_lifetime:
        at: KeyPath = (API_KEYS, "lifetime")
        found.problem(at, "lifetime has to be no longer than max_lifetime")
    if table.imported:
        found.weak((API_KEYS, "imported"), "API keys of another form")
    declared = []
    for index, each in enumerate(tables):
        _check(("api_key", index), each, table, tables[:index], found, now)
        declared.append(
            DeclaredKey(
                id=each.id,
                sha256=syntax.key_digest(each.sha256),
                owner=each.owner,
                expires=each.expires,
                roles=frozenset(each.roles),
                scopes=frozenset(each.scopes),
                networks=tuple(each.networks),
            )
        )
    return ApiKeys(
        prefix=table.prefix,
        header=table.header.lower(),
        pepper=pepper,
        lifetime=table.lifetime,
        max_lifetime=table.max_lifetime,
        imported=table.imported,
        declared=tuple(declared),
    )


def issuer_of_keys(table: written.ApiKeys) -> Issuer:
    """Return the issuer of API keys, as which they are accepted and revoked."""
    return Issuer(
        name=API_KEYS,
        issuer=API_KEYS,
        keys=KeySource(),
        audience=frozenset({API_KEYS}),
        leeway=0.0,
        max_lifetime=table.max_lifetime,
        roles=RoleMapping(allow=frozenset(table.allow)),
        scope=ScopeRule(user=table.scope, service=table.scope),
    )


def _check(
    at: KeyPath,
    each: written.ApiKey,
    table: written.ApiKeys,
    before: Sequence[written.ApiKey],
    found: Findings,
    now: float | None,
) -> None:
    """Note what is wrong with one [[api_key]]."""
    if any(each.id == other.id for other in before):
        found.problem((*at, "id"), "another [[api_key]] has this id")
    digest = each.sha256.lower()
    if any(digest == other.sha256.lower() for other in before):
        found.problem((*at, "sha256"), "another [[api_key]] is the same key")
    if not is_name(each.owner, MAX_NAME):
        found.problem((*at, "owner"), "an owner is printable text in NFC (R44)")
    for index, role in enumerate(each.roles):
        if role not in table.allow:
            found.problem(
                (*at, "roles", index),
                f'role "{role}" is not in [api_keys] allow, so it would be ignored',
                did_you_mean(role, table.allow),
            )
    for index, scope in enumerate(each.scopes):
        if not is_scope(scope):
            what = "a scope is printable ASCII without spaces and quotes (RFC 6749)"
            found.problem((*at, "scopes", index), what)
    for name in ("roles", "scopes", "networks"):
        if len(getattr(each, name)) > MAX_LISTED:
            found.problem((*at, name), f"at most {MAX_LISTED} of them")
    if len(each.note) > MAX_NOTE:
        found.problem((*at, "note"), f"at most {MAX_NOTE} characters")
    if now is None:
        return
    if each.expires <= now:
        found.weak((*at, "expires"), f"API key {each.id} has expired")
    elif each.expires > now + table.max_lifetime:
        what = "it lives longer than [api_keys] max_lifetime, so it would not count"
        found.problem((*at, "expires"), what)

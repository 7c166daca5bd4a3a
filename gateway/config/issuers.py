"""[issuer.x]: who may mint tokens for us, and what holds their word together.

R40 (algorithms belong to keys), R45 (token types), R46 (secrets), R48 (where key sets
come from).

Imports: the standard library, gateway.config.findings, gateway.config.gateway_file,
gateway.config.settings, gateway.config.syntax, gateway.tokens.jwks,
gateway.policy.suggest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from gateway.config import gateway_file as written
from gateway.config import syntax
from gateway.config.findings import Findings
from gateway.config.problems import quoted
from gateway.config.settings import Issuer, KeySource, RoleMapping, ScopeRule
from gateway.policy.spec import KeyPath
from gateway.policy.suggest import did_you_mean
from gateway.tokens.jwks import MAX_SET, key_from_pem, key_from_secret, parse_key_set

LONG_LEEWAY = 30.0  # seconds; more is shown by `check`, more than 60 refused

# Types of JWTs that are signed by the same issuers and are no access tokens (R45).
OTHER_TYPES = frozenset(
    {
        "client-authentication+jwt",
        "dpop+jwt",
        "logout+jwt",
        "oauth-authz-req+jwt",
        "secevent+jwt",
        "token-introspection+jwt",
    }
)


def build_issuers(
    tables: Mapping[str, written.Issuer], found: Findings
) -> Mapping[str, Issuer]:
    """Build every issuer that has no problem; note the problems of the others."""
    issuers: dict[str, Issuer] = {}
    by_url: dict[str, str] = {}
    for name, table in tables.items():
        at: KeyPath = ("issuer", name)
        before = len(found.problems)
        if table.issuer in by_url:
            found.problem(
                (*at, "issuer"),
                f"[issuer.{by_url[table.issuer]}] has the same issuer: whose keys and"
                " roles would count?",
            )
        by_url.setdefault(table.issuer, name)
        types = _token_types(at, table, found)
        keys = _keys(at, table, found)
        roles = _roles(at, table.roles, found)
        if len(found.problems) > before or keys is None:
            continue
        if table.leeway > LONG_LEEWAY:
            found.weak((*at, "leeway"), f"leeway of issuer {name}")
        issuers[name] = Issuer(
            name=name,
            issuer=table.issuer,
            keys=keys,
            audience=frozenset(table.audience),
            algorithms=frozenset(table.algorithms),
            token_types=types,
            leeway=table.leeway,
            max_lifetime=table.max_lifetime,
            token_id=table.token_id,
            roles=roles,
            scope=ScopeRule(table.scope.claim, table.scope.user, table.scope.service),
        )
    return MappingProxyType(issuers)


def _token_types(at: KeyPath, table: written.Issuer, found: Findings) -> frozenset[str]:
    """RFC 7515 section 4.1.9: "application/" is implied, case does not matter."""
    types = []
    for index, said in enumerate(table.token_types):
        type_ = said.lower().removeprefix("application/")
        if type_ in OTHER_TYPES:
            found.problem(
                (*at, "token_types", index),
                "a JWT of this type is no access token (R45)",
                'usual are "at+jwt" (RFC 9068) and "JWT"',
            )
        types.append(type_)
    return frozenset(types)


def _keys(at: KeyPath, table: written.Issuer, found: Findings) -> KeySource | None:
    """Build the one key source of an issuer."""
    sources = [
        name for name in ("jwks", "pem", "secret") if getattr(table, name) is not None
    ]
    if not sources:
        found.problem(
            at,
            f"[{'.'.join(map(str, at))}] has no keys",
            'add jwks = "discover", jwks = "https://...", jwks = "file:...",\n'
            'pem = "file:..." or secret = "env:..."',
        )
        return None
    if len(sources) > 1:
        found.problem(
            (*at, sources[1]),
            f"exactly one key source: {quoted(sources, 'and')} are set",
        )
        return None
    shared = {name for name in table.algorithms if name.startswith("HS")}
    if shared and shared != set(table.algorithms):
        found.problem(
            (*at, "algorithms"),
            "HS* and public-key algorithms never share an issuer (R40)",
            "make it two issuers, or drop one kind",
        )
        return None
    source = sources[0]
    if (source == "secret") != bool(shared):
        found.problem(
            (*at, "algorithms"),
            f"{source} needs "
            + ("HS* algorithms" if source == "secret" else "public-key algorithms"),
        )
        return None
    extra = _fetching(at, table, found)
    if table.secret is not None:
        return _from_secret(at, table, table.secret, found)
    if table.pem is not None:
        return _from_pem(at, table, table.pem, found)
    assert table.jwks is not None, "one of the three is set"
    return _from_jwks(at, table, table.jwks, extra, found)


def _from_secret(
    at: KeyPath, table: written.Issuer, secret: str, found: Findings
) -> KeySource | None:
    raw = secret.encode("utf-8", "surrogateescape")
    try:
        for algorithm in sorted(table.algorithms):
            key_from_secret(raw, algorithm)
    except ValueError as error:
        found.problem((*at, "secret"), f"secret: {error}")
        return None
    return KeySource(secret=raw)


def _from_pem(
    at: KeyPath, table: written.Issuer, pem: str, found: Findings
) -> KeySource | None:
    raw = pem.encode("utf-8", "surrogateescape")
    try:
        key_from_pem(raw, frozenset(table.algorithms))
    except ValueError as error:
        found.problem((*at, "pem"), f"pem: {error}")
        return None
    return KeySource(pem=raw)


def _fetching(
    at: KeyPath, table: written.Issuer, found: Findings
) -> tuple[str | None, str | None]:
    """Return CA file and proxy, which only a key set behind a URL has a use for."""
    fetched = table.jwks is not None and not table.jwks.startswith("file:")
    for name in ("ca_file", "proxy"):
        if getattr(table, name) is not None and not fetched:
            found.problem(
                (*at, name), f"{name} is for keys that come from a URL", key=True
            )
    if table.ca_file is None or not fetched:
        return None, table.proxy
    path = found.existing((*at, "ca_file"), table.ca_file.removeprefix("file:"))
    return str(path), table.proxy


def _from_jwks(
    at: KeyPath,
    table: written.Issuer,
    jwks: str,
    extra: tuple[str | None, str | None],
    found: Findings,
) -> KeySource | None:
    where = (*at, "jwks")
    ca_file, proxy = extra
    if jwks.startswith("file:"):
        path = found.existing(where, jwks.removeprefix("file:"))
        if path is None or not _has_keys(path, where, table, found):
            return None
        return KeySource(jwks_file=str(path))
    if jwks == "discover":
        problem = _unfit(table.issuer, query=False)
        if problem:
            found.problem(
                (*at, "issuer"), f'jwks = "discover" needs a URL here: {problem}'
            )
            return None
        return KeySource(discover=True, ca_file=ca_file, proxy=proxy)
    if "/" not in jwks:
        found.problem(
            where,
            'expected "discover", an https URL or "file:..."',
            did_you_mean(jwks, ["discover"]),
        )
        return None
    problem = _unfit(jwks, query=True)
    if problem:
        found.problem(where, f"jwks: {problem}")
        return None
    return KeySource(jwks_url=jwks, ca_file=ca_file, proxy=proxy)


def _has_keys(path: Path, at: KeyPath, table: written.Issuer, found: Findings) -> bool:
    """Read the JWK Set in *path* as whoever uses it will; note what is wrong."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_SET + 1)
        keys = parse_key_set(raw, frozenset(table.algorithms))
    except OSError as error:
        found.problem(at, f"jwks: cannot be read: {error.strerror}")
        return False
    except ValueError as error:
        found.problem(at, f"jwks: {error}")
        return False
    if not keys.keys:
        found.problem(at, "jwks: no key in it can be used", "\n".join(keys.skipped))
        return False
    return True


def _unfit(text: str, *, query: bool) -> str:
    """Say why keys can't be fetched from the URL *text*; "" if they can (R48)."""
    try:
        url = syntax.url(text)
    except ValueError as error:
        return str(error)
    if url.scheme != "https" and not syntax.is_loopback(url.host):
        return "plain http is for loopback only; use https"
    if url.query and not query:
        return "expected no query"
    return ""


def _roles(
    at: KeyPath, table: written.IssuerRoles | None, found: Findings
) -> RoleMapping:
    if table is None:
        return RoleMapping()
    allow = frozenset(table.allow)
    for value, role in (table.map or {}).items():
        if role not in allow:
            found.problem(
                (*at, "roles", "map", value),
                f'role "{role}" is not in `allow`, so it would be ignored',
                did_you_mean(role, allow),
            )
    return RoleMapping(
        claim=tuple(table.claim),
        map=None if table.map is None else MappingProxyType(dict(table.map)),
        allow=allow,
        split=table.split,
    )

"""[issuer.x]: who may mint tokens for us, and what holds their word together.

R40 (algorithms belong to keys), R45 (token types), R46 (secrets), R48 (where key sets
come from), R65 (which issuer is asked about a token).

Imports: the standard library, gateway.config.credential_file, gateway.config.findings,
gateway.config.settings, gateway.config.syntax, gateway.model, gateway.tokens.jwks,
gateway.policy.suggest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from gateway.config import credential_file as written
from gateway.config import syntax
from gateway.config.findings import Findings
from gateway.config.problems import quoted
from gateway.config.settings import (
    Introspection,
    Issuer,
    KeySource,
    RoleMapping,
    ScopeRule,
)
from gateway.model import API_KEYS, CERTIFICATES
from gateway.policy.spec import KeyPath
from gateway.policy.suggest import did_you_mean
from gateway.tokens.jwks import MAX_SET, key_from_pem, key_from_secret, parse_key_set

LONG_LEEWAY = 30.0  # seconds; more is shown by `check`, more than 60 refused
LONG_CACHE = 300.0  # seconds; for longer an issuer's withdrawals should not wait

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
    by_url: dict[str, str] = {API_KEYS: API_KEYS}  # and its tokens have no URL
    for name, table in tables.items():
        at: KeyPath = ("issuer", name)
        before = len(found.problems)
        if name == API_KEYS:
            found.problem(at, f'"{API_KEYS}" is the issuer of API keys', key=True)
        if CERTIFICATES in {name, table.issuer}:
            found.problem(
                at,
                "this name is that of callers by certificate: [certificates]",
                key=True,
            )
        if table.issuer in by_url:
            found.problem(
                (*at, "issuer"),
                f"[issuer.{by_url[table.issuer]}] has the same issuer: whose keys and"
                " roles would count?",
            )
        by_url.setdefault(table.issuer, name)
        types = _token_types(at, table, found)
        keys = _keys(at, table, found)
        roles = build_roles(at, table.roles, found)
        introspection = _introspection(name, table, found)
        logout = _logout(at, table, found)
        if len(found.problems) > before or keys is None:
            continue
        if table.leeway > LONG_LEEWAY:
            found.weak((*at, "leeway"), f"leeway of issuer {name}")
        issuers[name] = Issuer(
            name=name,
            issuer=table.issuer,
            keys=keys,
            audience=frozenset(table.audience),
            algorithms=frozenset(table.algorithms or ()),
            token_types=types,
            leeway=table.leeway,
            max_lifetime=table.max_lifetime,
            token_id=table.token_id,
            roles=roles,
            scope=ScopeRule(table.scope.claim, table.scope.user, table.scope.service),
            introspection=introspection,
            address_claim=table.address_claim or "",
            subnet_v4=table.subnet.v4,
            subnet_v6=table.subnet.v6,
            binding=None if table.binding is None else frozenset(table.binding),
            logout_audience=logout,
        )
    _check_prefixes(tables, found)
    return MappingProxyType(issuers)


def _token_types(at: KeyPath, table: written.Issuer, found: Findings) -> frozenset[str]:
    """RFC 7515 section 4.1.9: "application/" is implied, case does not matter."""
    types = []
    for index, said in enumerate(table.token_types or ()):
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
        return _no_keys(at, table, found)
    if len(sources) > 1:
        found.problem(
            (*at, sources[1]),
            f"exactly one key source: {quoted(sources, 'and')} are set",
        )
        return None
    for name in ("algorithms", "token_types"):
        if getattr(table, name) is None:
            section = ".".join(map(str, at))
            found.problem(at, f'missing key "{name}" in [{section}]')
            return None
    algorithms = frozenset(table.algorithms or ())
    shared = {name for name in algorithms if name.startswith("HS")}
    if shared and shared != algorithms:
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


def _no_keys(at: KeyPath, table: written.Issuer, found: Findings) -> KeySource | None:
    """Return no key source for an issuer that needs none."""
    if table.introspection is None:
        found.problem(
            at,
            f"[{'.'.join(map(str, at))}] has no keys",
            'add jwks = "discover", jwks = "https://...", jwks = "file:...",\n'
            'pem = "file:..." or secret = "env:...", or an introspection section',
        )
        return None
    for name in ("algorithms", "token_types", "ca_file", "proxy"):
        if getattr(table, name) is not None:
            found.problem(
                (*at, name), f"{name} is for an issuer that has keys", key=True
            )
    return KeySource()


def _from_secret(
    at: KeyPath, table: written.Issuer, secret: str, found: Findings
) -> KeySource | None:
    raw = secret.encode("utf-8", "surrogateescape")
    try:
        for algorithm in sorted(table.algorithms or ()):
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
        key_from_pem(raw, frozenset(table.algorithms or ()))
    except ValueError as error:
        found.problem((*at, "pem"), f"pem: {error}")
        return None
    return KeySource(pem=raw)


def _logout(at: KeyPath, table: written.Issuer, found: Findings) -> frozenset[str]:
    """Return for whom the issuer's logout tokens are; for nobody, if it sends none."""
    if not table.backchannel_logout:
        if table.logout_audience is not None:
            found.problem(
                (*at, "logout_audience"),
                "logout_audience is for an issuer with backchannel_logout = true",
                key=True,
            )
        return frozenset()
    if table.jwks is None and table.pem is None:
        # Whoever knows a shared secret could log anybody out.
        found.problem(
            (*at, "backchannel_logout"),
            "logout tokens need public keys: jwks or pem",
        )
    return frozenset(table.logout_audience or table.audience)


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
        keys = parse_key_set(raw, frozenset(table.algorithms or ()))
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


def _introspection(
    name: str, table: written.Issuer, found: Findings
) -> Introspection | None:
    said = table.introspection
    if said is None:
        return None
    at: KeyPath = ("issuer", name, "introspection")
    url = None if said.url == "discover" else said.url
    if url is None:
        problem = _unfit(table.issuer, query=False)
        if problem:
            found.problem(
                ("issuer", name, "issuer"),
                f'introspection url = "discover" needs a URL here: {problem}',
            )
    elif "/" not in url:
        found.problem(
            (*at, "url"),
            'expected "discover" or an https URL',
            did_you_mean(url, ["discover"]),
        )
    else:
        problem = _unfit(url, query=True)
        if problem:
            found.problem((*at, "url"), f"url: {problem}")
    if not said.client_secret:
        found.problem((*at, "client_secret"), "client_secret: must not be empty")
    ca_file = None
    if said.ca_file is not None:
        path = found.existing((*at, "ca_file"), said.ca_file.removeprefix("file:"))
        ca_file = str(path)
    if said.cache > LONG_CACHE:
        found.weak((*at, "cache"), f"long cache of introspection by issuer {name}")
    if said.audience_from == "config":
        found.weak((*at, "audience_from"), f"no audience asked of issuer {name}")
    return Introspection(
        client_id=said.client_id,
        client_secret=said.client_secret,
        url=url,
        auth=said.auth,
        cache=said.cache,
        timeout=said.timeout,
        prefix=said.prefix,
        audience_from=said.audience_from,
        ca_file=ca_file,
        proxy=said.proxy,
    )


def _check_prefixes(tables: Mapping[str, written.Issuer], found: Findings) -> None:
    """Note issuers that could both be asked about a token: whose word would count?"""
    asked = {
        name: table.introspection.prefix
        for name, table in tables.items()
        if table.introspection is not None
    }
    for number, (name, prefix) in enumerate(asked.items()):
        for other, taken in list(asked.items())[:number]:
            if not prefix.startswith(taken) and not taken.startswith(prefix):
                continue
            at: KeyPath = ("issuer", name, "introspection")
            found.problem(
                (*at, "prefix") if prefix else at,
                f"[issuer.{other}] is asked about tokens of this prefix too",
                'give each a prefix of its own: prefix = "corp_"',
            )


def build_roles(
    at: KeyPath, table: written.IssuerRoles | None, found: Findings
) -> RoleMapping:
    """Build the roles of the issuer whose section is at *at*."""
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

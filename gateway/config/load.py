"""From files to settings and policy, or to every problem at once.

Nothing of a configuration with one problem is used. What is said about a problem
names keys and places; a value that came from env: or file: is in no message (R96).

Imports: the standard library, gateway.config.*, gateway.model, gateway.policy.compile,
gateway.policy.spec.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from gateway.config import build
from gateway.config.api_keys import build_api_keys, issuer_of_keys
from gateway.config.bindings import (
    build_certificates,
    build_dpop,
    check_bindings,
    check_certificates,
    check_kinds,
    issuer_of,
)
from gateway.config.documents import (
    Document,
    SyntaxProblem,
    merge,
    origin,
    read,
    value_at,
    without,
)
from gateway.config.findings import Findings
from gateway.config.gateway_file import Gateway
from gateway.config.identities import build_identity, check_issuer_names
from gateway.config.issuers import build_issuers
from gateway.config.policies import Policies, find, read_policies
from gateway.config.problems import ConfigError, Hidden, error, line_of
from gateway.config.references import resolve
from gateway.config.review import check_reach, weak_routes
from gateway.config.sealed import build_fernet, build_jwe, check_names
from gateway.config.settings import Identity, Issuer, Settings, Upstream
from gateway.config.upstreams import build_upstreams
from gateway.config.validation import validate
from gateway.model import API_KEYS, CERTIFICATES
from gateway.policy.compile import IssuerGrants, Policy, compile_policy
from gateway.policy.spec import KeyPath, Problem

__all__ = ["Acceptance", "ConfigError", "Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One [[check.accept]]: somebody has looked at this weakening."""

    what: str
    why: str
    place: str  # file:line


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration without problems."""

    settings: Settings = field(repr=False)
    policy: Policy = field(repr=False)
    files: tuple[Path, ...]  # all that were read, gateway files first
    accepted: tuple[Acceptance, ...] = field(repr=False)
    shown: tuple[str, ...] = field(default=(), repr=False)  # their names in messages


def load(
    files: Sequence[Path],
    *,
    env: Mapping[str, str],
    base: Path | None = None,
    now: float | None = None,
) -> Loaded:
    """Load the overlaid gateway *files*, the last on top, and the policies they name.

    Args:
        files: One or more gateway.toml.
        env: The environment, for `env:` references.
        base: What relative paths are relative to, instead of the file that says them.
        now: Unix seconds, to see what has expired; None: that is not looked at.

    Raises:
        ConfigError: It doesn't load; says everything that is wrong.
    """
    if not files:
        raise ConfigError([Problem("", (), "no config file")], "no config file")
    documents: list[Document] = []
    broken: list[SyntaxProblem] = []
    for path in dict.fromkeys(file.absolute() for file in files):
        document, problem = read(path, _shown(path))
        documents.append(document)
        if problem is not None:
            broken.append(problem)
    if broken:
        raise error((), broken, documents, Hidden())

    found = Findings(documents, base)
    table, names = _read_table(env, found)
    server = build.build_server(table.server, found, now)
    probes = build.build_probes(table.probes, found)
    admin = build.build_admin(table.admin, found)
    if names.broken.isdisjoint({("server",), ("probes",), ("admin",)}):
        build.check_listeners(server, probes, admin, found)
    dpop = None
    if names.broken.isdisjoint({("server",), ("dpop",)}):
        dpop = build_dpop(table.dpop, server, found)
        check_certificates(server, found)
    certificates = None
    if names.broken.isdisjoint({("server",), ("certificates",)}):
        certificates = build_certificates(table.certificates, server, found)
    store = build.build_store(table.store, found)
    if names.broken.isdisjoint({("server",), ("store",)}):
        build.check_workers(server, store, found)
    outage = build.build_outage(table.outage, found)
    issuers = build_issuers(table.issuer, found)
    check_names(table, found)
    fernet = build_fernet(table.fernet, found)
    jwe = build_jwe(table.jwe, issuers, names.signers, found)
    sealed = [each[1] for each in (fernet, jwe) if each is not None]
    issuers = {**issuers, **{each.name: each for each in sealed if each is not None}}
    if certificates is not None:
        issuers = {**issuers, CERTIFICATES: issuer_of(certificates)}
    api_keys = build_api_keys(table.api_keys, table.api_key, found, now)
    if table.api_keys is not None:
        issuers = {**issuers, API_KEYS: issuer_of_keys(table.api_keys)}
    identity = None
    if table.identity is not None:
        identity = build_identity(table.identity, found)
    upstreams = build_upstreams(table.upstream, identity, found, now)
    identities = _identities(identity, upstreams)
    urls = {f"issuer.{name}": each.issuer for name, each in table.issuer.items()}
    urls |= {each.name: each.issuer for each in sealed if each is not None}
    check_issuer_names(identities, urls, found)
    headers = build.build_headers(
        table.headers, [each for _, each in identities], found
    )
    query = build.check_log(table.log, found)

    before = len(found.problems)
    services = find(table.policies, ("policies",), found, _shown)
    operators = find(table.roles, ("roles",), found, _shown)
    # What remains is not judged by what the files that are missing would have said.
    is_complete = (
        bool(services)
        and before == len(found.problems)
        and names.broken.isdisjoint({("policies",), ("roles",)})
    )
    policies = read_policies(
        services,
        operators,
        upstreams=upstreams,
        names=names.upstreams,
        env=env,
        found=found,
        shown=_shown,
    )
    everything = [*documents, *policies.documents]
    policy = None
    if policies.is_whole and is_complete:
        check_reach(
            policies, table, names.issuers, found, has_identity=names.has_identity
        )
        if names.broken.isdisjoint({("server",), ("dpop",)}):
            check_bindings(policies.files, issuers, server, dpop, found)
        if ("certificates",) not in names.broken:
            check_kinds(policies.files, certificates, found)
        # What [outage] says wrong is no reason to find fault with the routes as well.
        most = math.inf if ("outage",) in names.broken else outage.stale
        policy = _compile(policies, issuers, names, server.own_prefix, most, found)
    hidden = found.hidden
    if policy is None or found.problems or policies.broken:
        raise error(found.problems, policies.broken, everything, hidden)

    if not server.hosts and not policy.hosts:
        found.weak(("server",), "any Host")
    settings = Settings(
        server=server,
        probes=probes,
        admin=admin,
        store=store,
        issuers=MappingProxyType(issuers),
        identity=identity,
        headers=headers,
        upstreams=upstreams,
        certificates=certificates,
        dpop=dpop,
        log_access=table.log.access,
        log_query=query,
        weakenings=(*found.weakenings, *weak_routes(policy, hidden)),
        accepted=tuple(accept.what for accept in table.check.accept),
        outage=outage,
        api_keys=api_keys,
        fernet=None if fernet is None else fernet[0],
        jwe=None if jwe is None else jwe[0],
    )
    accepted = []
    for index, accept in enumerate(table.check.accept):
        at: KeyPath = ("check", "accept", index)
        place = line_of(origin(documents, at), at)
        accepted.append(
            Acceptance(hidden.mask(accept.what), hidden.mask(accept.why), place)
        )
    return Loaded(
        settings=settings,
        policy=policy,
        files=tuple(document.path for document in everything),
        accepted=tuple(accepted),
        shown=tuple(document.file for document in everything),
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """What the files name, whether or not it is right."""

    issuers: frozenset[str]
    signers: frozenset[str]  # of these, the [issuer.x]
    upstreams: frozenset[str]
    has_identity: bool
    broken: frozenset[KeyPath]  # sections with a problem of their own


def _read_table(env: Mapping[str, str], found: Findings) -> tuple[Gateway, _Names]:
    """Return what is right of the gateway files: sections with a problem are out."""
    resolved = resolve(
        merge(found.documents), env=env, file_of=found.file_of, base_of=found.base_of
    )
    found.hidden = Hidden(resolved.hidden)
    for at in resolved.readable:
        found.weak(at, f"readable secret {'.'.join(map(str, at))}")
    wrong = {problem.at for problem in resolved.problems}
    first = validate(
        Gateway, resolved.data, file_of=found.file_of, outside=resolved.outside
    )
    found.problems += resolved.problems
    found.problems += [item for item in first.problems if item.at not in wrong]
    sections = frozenset(map(_section, (*first.broken, *wrong)))
    rest = without(resolved.data, (*first.loose, *sections))
    # These two have no default; that they are missing has been noted.
    again = validate(
        Gateway, {"version": 1, "policies": [], **rest}, file_of=found.file_of
    )
    assert again.model is not None, "what is left had no problem"
    if value_at(resolved.data, ("policies",)) == []:
        found.problem(("policies",), "policies: must not be empty")
    named = {
        kind: frozenset(value_at(resolved.data, (kind,)) or ())
        if isinstance(value_at(resolved.data, (kind,)), Mapping)
        else frozenset()
        for kind in ("issuer", "upstream")
    }
    if API_KEYS in resolved.data:
        named["issuer"] |= {API_KEYS}
    said = resolved.data
    sealed = {"fernet", CERTIFICATES} & said.keys()
    if isinstance(said.get("jwe"), Mapping) and "issuer" in said["jwe"]:
        sealed.add("jwe")
    names = _Names(
        issuers=named["issuer"] | sealed,
        signers=named["issuer"],
        upstreams=named["upstream"],
        has_identity="identity" in said,
        broken=sections,
    )
    return again.model, names


def _section(at: KeyPath) -> KeyPath:
    """Return the table that a problem at *at* makes useless."""
    return at[:2] if at[:1] in (("issuer",), ("upstream",)) else at[:1]


def _identities(
    identity: Identity | None, upstreams: Mapping[str, Upstream]
) -> list[tuple[KeyPath, Identity]]:
    found: list[tuple[KeyPath, Identity]] = []
    if identity is not None:
        found.append((("identity",), identity))
    found.extend(
        (("upstream", name, "identity"), upstream.identity)
        for name, upstream in upstreams.items()
        if upstream.identity is not None
    )
    return found


def _compile(
    policies: Policies,
    issuers: Mapping[str, Issuer],
    names: _Names,
    own_prefix: str,
    stale: float,
    found: Findings,
) -> Policy | None:
    """Compile the policy; None, and problems, if it doesn't."""
    # An issuer with a problem of its own still is one: the policy may name it.
    grants = {
        name: IssuerGrants(name, frozenset(), "ignore", "ignore")
        for name in names.issuers
    }
    for name, issuer in issuers.items():
        grants[name] = IssuerGrants(
            name, issuer.roles.allow, issuer.scope.user, issuer.scope.service
        )
    by_file = {document.file: document for document in policies.documents}
    outcome = compile_policy(
        policies.files,
        issuers=grants,
        upstreams=names.upstreams | policies.upstreams,
        own_prefix=own_prefix,
        stale=stale,
        line=lambda file, at: line_of(by_file[file], at),
    )
    if isinstance(outcome, Policy):
        return outcome
    found.problems += outcome
    return None


def _shown(path: Path) -> str:
    """Name *path* as people here would: relative to where they are."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)

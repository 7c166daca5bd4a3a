"""Turn policy files into a Policy, or into everything that is wrong with them.

Nothing is decided by the order of files. What two places disagree on does not load,
and the Problem names both (R84). A policy with one Problem is no policy: nothing of it
serves.

Imports: gateway.model, gateway.policy.*.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from gateway.model import API_KEYS
from gateway.policy.grants import Grants, IssuerGrants
from gateway.policy.permissions import read_roles, read_vocabulary
from gateway.policy.policy import Listing, Policy
from gateway.policy.routes import (
    Compiled,
    Service,
    check_binding,
    check_kinds,
    check_revocation,
    compile_defaults,
    compile_route,
)
from gateway.policy.spaces import Line, Territory, check, spaces
from gateway.policy.spec import KeyPath, PolicyFile, Problem, RouteSpec, ServiceSpec
from gateway.policy.suggest import did_you_mean
from gateway.policy.table import ANY_METHOD, Entry, Table
from gateway.policy.templates import Fault, Shape, parse_prefix, shape

__all__ = ["IssuerGrants", "Listing", "Policy", "compile_policy"]

# No colon, no dot, no "*": it begins the names of permissions and of routes.
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# What gateway.wire.request lets through as a host, without a port; IPv6 in brackets.
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def compile_policy(
    files: Sequence[PolicyFile],
    *,
    issuers: Mapping[str, IssuerGrants],
    upstreams: Collection[str],
    own_prefix: str,
    line: Callable[[str, KeyPath], str],
    stale: float = 0.0,
) -> Policy | list[Problem]:
    """Return the policy that *files* make up together, or all Problems.

    Args:
        files: All of them; where one is said "first", it is in this order.
        issuers: What each [issuer.x] counts for, by its name.
        upstreams: The names of every [upstream.x].
        own_prefix: Where our own endpoints are; no route may stand there.
        line: Returns "file:line" of a key path, for messages that name two places.
        stale: Seconds for which operators let an old mirror of the revocation list
            decide while the store is away; 0: not at all.
    """
    vocabulary, problems = read_vocabulary(files, line)
    roles, wrong_roles = read_roles(files, vocabulary)
    problems += wrong_roles

    reserved = ((".well-known",), tuple(own_prefix.strip("/").split("/")))
    services: list[Service] = []
    for file in files:
        service = _service(file, issuers, upstreams, reserved, stale, problems)
        if service is not None:
            services.append(service)
    _check_names(files, line, problems)
    territories = [_territory(service) for service in services]
    problems += check(territories, line)

    compiled: list[Compiled] = []
    for service in services:
        for spec in service.file.routes:
            found = compile_route(service, spec, vocabulary, line)
            if isinstance(found, Compiled):
                compiled.append(found)
            else:
                problems += found
        defaults, wrong = compile_defaults(service, vocabulary, line)
        problems += wrong
        compiled += defaults
    problems += _check_ids(compiled)
    problems += _check_shapes(compiled)
    if problems:
        return problems

    entries: dict[str, list[Entry]] = {it.spec.name: [] for it in services}
    for it in compiled:
        entries[it.entry.route.service].append(it.entry)
    everywhere = [
        entry
        for service in services
        if not service.hosts
        for entry in entries[service.spec.name]
    ]
    return Policy(
        table=Table(everywhere, spaces(territories, entries)),
        listings=[it.listing for it in compiled],
        vocabulary=vocabulary,
        roles=roles,
        grants=Grants(vocabulary, roles, issuers),
        hosts=frozenset().union(*(service.hosts for service in services)),
        generation=_generation(files, issuers, own_prefix, stale),
    )


def any_route(issuers: Collection[str]) -> Policy:
    """Return a policy of one route, which asks for a token of *issuers* and no more."""
    route = RouteSpec(("route", 0), ("*",), "/{rest...}", access="authenticated")
    kinds = ("bearer", "api_key") if API_KEYS in issuers else ("bearer",)
    service = ServiceSpec(
        ("service",), "any", "/", "any", issuers=tuple(issuers), credentials=kinds
    )
    policy = compile_policy(
        [PolicyFile("", service, routes=(route,))],
        issuers={
            name: IssuerGrants(name, frozenset(), "ignore", "ignore")
            for name in issuers
        },
        upstreams={"any"},
        own_prefix="/auth",
        line=lambda file, _at: file,
    )
    assert isinstance(policy, Policy), policy
    return policy


def _service(
    file: PolicyFile,
    issuers: Mapping[str, IssuerGrants],
    upstreams: Collection[str],
    reserved: tuple[tuple[str, ...], ...],
    stale: float,
    problems: list[Problem],
) -> Service | None:
    """Understand one [service]; None where its routes can't be placed."""
    spec = file.service
    if spec is None:
        if file.routes:
            say = "a route belongs to a service: this file has no [service]"
            problems.append(Problem(file.file, file.routes[0].at, say))
        elif not file.operators:
            say = "a policy file has a [service]"
            hint = "files of roles alone are listed under roles in gateway.toml"
            problems.append(Problem(file.file, (), say, hint))
        return None

    def wrong(
        key: str, message: str, suggestion: str = "", value: str = "", *more: str
    ) -> None:
        at = (*spec.at, key, *more)
        say = f'service "{spec.name}": {message}'
        problems.append(Problem(file.file, at, say, suggestion, value))

    if not _SERVICE.fullmatch(spec.name):
        wrong("name", "a name is letters, digits, _ and -", value=spec.name)
    elif spec.name == "opa":
        wrong("name", '"opa" is taken: "opa:x" names an authorizer', value=spec.name)
    if spec.upstream not in upstreams:
        what = f'unknown upstream "{spec.upstream}"'
        wrong("upstream", what, did_you_mean(spec.upstream, upstreams), spec.upstream)
    for host in spec.hosts:
        if not _HOST.fullmatch(host.lower()):
            what = f'"{host}" is not a host: a name, without port and wildcard'
            wrong("hosts", what, value=host)
    has_keys = API_KEYS in issuers
    check_kinds(spec.credentials, has_keys, lambda *said: wrong("credentials", *said))
    check_binding(spec.binding, lambda *said: wrong("binding", *said))
    check_revocation(spec.revocation, stale, wrong)
    if spec.audience is not None and not spec.audience:
        wrong("audience", "an empty audience lets nobody pass")
    if spec.credentials_to_upstream not in {None, "strip", "pass"}:
        wrong("credentials_to_upstream", '"strip" or "pass" belongs here')

    # API keys count by their kind, whether or not their issuer is named here.
    named = sorted(issuers.keys() - {API_KEYS})
    accepted = spec.issuers
    if accepted is None:
        if len(named) > 1:
            what = f"say whose tokens count: issuers ({', '.join(named)})"
            wrong("issuers", what)
        accepted = tuple(named)
    elif not accepted:
        wrong("issuers", "an empty list lets nobody pass")
    for name in accepted:
        if name not in issuers:
            hint = did_you_mean(name, issuers)
            wrong("issuers", f'unknown issuer "{name}"', hint, name)

    prefix = parse_prefix(spec.prefix)
    if isinstance(prefix, Fault):
        wrong("prefix", prefix.message, prefix.suggestion, prefix.value)
        return None
    for own in reserved:
        if prefix[: len(own)] == own:
            what = f"/{'/'.join(own)} and all below it is the gateway's own"
            wrong("prefix", what, value=spec.prefix)
            return None
    return Service(
        file,
        spec,
        frozenset(host.lower() for host in spec.hosts),
        prefix,
        tuple(name for name in dict.fromkeys(accepted) if name != API_KEYS),
        reserved,
        has_keys,
        stale,
    )


def _territory(service: Service) -> Territory:
    spec = service.spec
    return Territory(
        service.file.file,
        spec.at,
        spec.name,
        service.hosts,
        service.prefix,
        spec.inside,
    )


def _check_names(
    files: Sequence[PolicyFile], line: Line, problems: list[Problem]
) -> None:
    places: dict[str, str] = {}
    for file in files:
        if file.service is None:
            continue
        name = file.service.name
        at = (*file.service.at, "name")
        if name in places:
            say = f'two services are named "{name}" (the first at {places[name]})'
            problems.append(Problem(file.file, at, say, value=name))
        places.setdefault(name, line(file.file, at))


def _check_ids(compiled: Sequence[Compiled]) -> list[Problem]:
    """Find ids that were given twice; equal derived ones are a collision of shapes."""
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for it in compiled:
        route = it.entry.route
        if route.id in places and ":" not in route.id:
            at = it.at if it.is_default else (*it.at, "id")
            say = f'two routes have the id "{route.id}" (the first at '
            say += f"{places[route.id]})"
            problems.append(Problem(it.file, at, say, value=route.id))
        places.setdefault(route.id, route.place)
    return problems


def _check_shapes(compiled: Sequence[Compiled]) -> list[Problem]:
    """Find routes between which nothing decides."""
    problems: list[Problem] = []
    seen: dict[Shape, list[Compiled]] = {}
    for it in compiled:
        found: Compiled | None = None
        for form in it.entry.forms:
            others = seen.setdefault(shape(form), [])
            for other in others:
                if found is None and _collide(it, other):
                    found = other
            others.append(it)
        if found is not None:
            problems.append(_collision(it, found))
    return problems


def _collide(one: Compiled, two: Compiled) -> bool:
    hosts, others = one.listing.hosts, two.listing.hosts
    if (hosts or others) and not set(hosts) & set(others):
        return False
    # Beside a route that names every path a default would never be reached, or would
    # serve the methods that the route refuses.
    same_service = one.entry.route.service == two.entry.route.service
    if one.is_default != two.is_default and same_service:
        return True
    mine, theirs = _methods(one), _methods(two)
    if ANY_METHOD in mine:
        return bool(theirs - one.entry.excluded)
    if ANY_METHOD in theirs:
        return bool(mine - two.entry.excluded)
    return not mine.isdisjoint(theirs)


def _methods(it: Compiled) -> frozenset[str]:
    methods = it.entry.methods
    return methods | {"HEAD"} if "GET" in methods else methods


def _collision(it: Compiled, other: Compiled) -> Problem:
    mine, theirs = it.entry.route, other.entry.route
    if it.is_default and not other.is_default and mine.service == theirs.service:
        say = f'service "{mine.service}": {it.at[-1]} is for paths that no route names,'
        say += f' and route "{theirs.id}" names them all ({theirs.place})'
        return Problem(it.file, it.at, say)
    say = f'route "{mine.id}" is for the same paths and method as route '
    say += f'"{theirs.id}" ({theirs.place})'
    at = it.at if it.is_default else (*it.at, "path")
    return Problem(it.file, at, say)


def _generation(
    files: Sequence[PolicyFile],
    issuers: Mapping[str, IssuerGrants],
    own_prefix: str,
    stale: float,
) -> str:
    """Name what this policy was made of: equal in every process, whatever the order."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.file):
        digest.update(repr(file).encode())
    for name, it in sorted(issuers.items()):
        parts = (name, sorted(it.roles), it.scope_user, it.scope_service)
        digest.update(repr(parts).encode())
    digest.update(f"{own_prefix} {stale}".encode())
    return digest.hexdigest()[:16]

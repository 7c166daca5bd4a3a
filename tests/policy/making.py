"""Policies, requests and principals for the tests of this room."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

from gateway.model import (
    NOTHING,
    Case,
    Denial,
    HeaderSection,
    Peer,
    Principal,
    PrincipalKind,
    RequestHead,
    Route,
)
from gateway.policy.compile import compile_policy
from gateway.policy.grants import IssuerGrants
from gateway.policy.policy import Policy
from gateway.policy.spec import (
    KeyPath,
    OwnerSpec,
    PolicyFile,
    Problem,
    RoleSpec,
    RouteSpec,
    ServiceSpec,
)

T = TypeVar("T")

ROLES = frozenset({"customer", "support", "admin"})
CORP = IssuerGrants("corp", ROLES, "ignore", "grant")
PARTNER = IssuerGrants("partner", ROLES, "ignore", "grant")
ONE = {"corp": CORP}
TWO = {"corp": CORP, "partner": PARTNER}
VOCABULARY = {"orders:read": "", "orders:write": "", "orders:read_any": ""}


def head(
    method: str = "GET",
    path: str = "/",
    *,
    host: str = "api",
    raw: bytes | None = None,
    escapes: frozenset[str] = frozenset(),
    query: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> RequestHead:
    """Return a request for the decoded *path*; *raw* is how it was spelt."""
    raw = path.encode() if raw is None else raw
    return RequestHead(
        kind="http",
        method=method,
        scheme="http",
        host=host,
        authority=host.encode(),
        target=raw if query is None else raw + b"?" + query,
        path=raw,
        query=query,
        segments=tuple(path[1:].split("/")),
        escapes=escapes,
        headers=headers,
        peer=Peer("192.0.2.1"),
        client="192.0.2.1",
        section=HeaderSection(headers, host, host.encode()),
    )


def principal(
    subject: str = "alice",
    *,
    issuer: str = "corp",
    kind: PrincipalKind = "user",
    roles: Sequence[str] = (),
    scope: Sequence[str] = (),
    claims: Mapping[str, Any] = NOTHING,
) -> Principal:
    return Principal(
        kind,
        issuer,
        subject,
        roles=frozenset(roles),
        scope=frozenset(scope),
        claims=claims,
    )


def service(
    name: str = "orders",
    prefix: str = "/api",
    *,
    hosts: Sequence[str] = (),
    inside: str | None = None,
    **more: Any,
) -> ServiceSpec:
    return ServiceSpec(
        ("service",), name, prefix, name, hosts=tuple(hosts), inside=inside, **more
    )


def route(
    said: str,
    number: int = 0,
    *,
    require: object = None,
    access: str | None = None,
    owner: OwnerSpec | str | None = None,
    **more: Any,
) -> RouteSpec:
    """Return the route of *said*, such as "GET,POST /a/{b}"; open to whoever is known.

    ("Authenticated" if it says neither access nor require; "@owner" with an owner.)
    """
    methods, _, path = said.partition(" ")
    if require is None and access is None:
        if owner is None:
            access = "authenticated"
        else:
            require = "@owner"
    if isinstance(owner, str):
        owner = OwnerSpec(owner)
    return RouteSpec(
        ("route", number),
        tuple(methods.split(",")),
        path,
        access=access,
        require=require,
        owner=owner,
        **more,
    )


def file(
    spec: ServiceSpec | None,
    *routes: RouteSpec | str,
    permissions: Sequence[str] = (),
    roles: Mapping[str, Sequence[str]] = NOTHING,
    inherits: Mapping[str, Sequence[str]] = NOTHING,
    operators: bool = False,
    name: str | None = None,
) -> PolicyFile:
    """Return a policy file; routes are numbered as they come."""
    made = []
    for number, it in enumerate(routes):
        spoken = route(it, number) if isinstance(it, str) else it
        made.append(replace_at(spoken, number))
    names = dict.fromkeys([*roles, *inherits])
    return PolicyFile(
        name or ("roles.toml" if spec is None else f"{spec.name}.toml"),
        spec,
        dict.fromkeys(permissions, ""),
        tuple(
            RoleSpec(
                ("roles", role),
                role,
                tuple(roles.get(role, ())),
                tuple(inherits.get(role, ())),
            )
            for role in names
        ),
        tuple(made),
        operators,
    )


def replace_at(spec: RouteSpec, number: int) -> RouteSpec:
    from dataclasses import replace

    return replace(spec, at=("route", number))


def line(name: str, at: KeyPath) -> str:
    return f"{name}:{'.'.join(map(str, at))}"


def compiled(
    *files: PolicyFile,
    issuers: Mapping[str, IssuerGrants] = ONE,
    stale: float = 0.0,
) -> Policy | list[Problem]:
    names = {it.service.upstream for it in files if it.service is not None}
    return compile_policy(
        files,
        issuers=issuers,
        upstreams=names,
        own_prefix="/auth",
        line=line,
        stale=stale,
    )


def policy(*files: PolicyFile, issuers: Mapping[str, IssuerGrants] = ONE) -> Policy:
    found = compiled(*files, issuers=issuers)
    assert isinstance(found, Policy), found
    return found


def problems(
    *files: PolicyFile, issuers: Mapping[str, IssuerGrants] = ONE
) -> list[Problem]:
    found = compiled(*files, issuers=issuers)
    assert isinstance(found, list), "it loaded"
    return found


def problem(
    *files: PolicyFile, issuers: Mapping[str, IssuerGrants] = ONE
) -> tuple[str, KeyPath, str, str]:
    """Return the one problem: file, place, message, suggestion."""
    (only,) = problems(*files, issuers=issuers)
    return only.file, only.at, only.message, only.suggestion


def matched(of: Policy, method: str, path: str, **more: Any) -> str:
    """Return the id of the matched route, or the denial in words."""
    found = of.match(head(method, path, **more))
    return str(found) if isinstance(found, Denial) else found[0].id


def end(steps: Generator[Any, Any, T]) -> T:
    """Run *steps* that need nothing from outside."""
    try:
        need = next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError(need)


def decide(of: Policy, request: RequestHead, who: Principal) -> str:
    """Say what becomes of *request*, as far as this room decides it."""
    found = of.match(request)
    if isinstance(found, Denial):
        return str(found)
    matched_route, params = found
    return verdict(of, request, matched_route, params, who)


def verdict(
    of: Policy,
    request: RequestHead,
    to: Route,
    params: Mapping[str, str],
    who: Principal,
) -> str:
    case = Case(request, to, params, who, of.granted(who))
    denial = end(of.authorize(case))
    return f"allow {to.id}" if denial is None else str(denial)

"""The policy files: found, read and handed to gateway.policy.compile as specs.

Imports: the standard library, gateway.config.documents, gateway.config.findings,
gateway.config.policy_file, gateway.config.problems, gateway.config.references,
gateway.config.settings, gateway.config.upstreams, gateway.config.validation,
gateway.policy.spec.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.config import policy_file as written
from gateway.config.documents import Document, SyntaxProblem, read, value_at, without
from gateway.config.findings import Findings
from gateway.config.problems import Hidden
from gateway.config.references import resolve
from gateway.config.settings import Upstream
from gateway.config.upstreams import implicit_upstream
from gateway.config.validation import Validated, validate
from gateway.policy.spec import (
    KeyPath,
    OwnerSpec,
    PolicyFile,
    RevocationSpec,
    RoleSpec,
    RouteSpec,
    ServiceSpec,
    SocketsSpec,
)


@dataclass(slots=True)
class Policies:
    """What the policy files say."""

    documents: list[Document] = field(default_factory=list)
    broken: list[SyntaxProblem] = field(default_factory=list)
    files: list[PolicyFile] = field(default_factory=list)
    is_whole: bool = True  # False: too little is known to judge what remains
    upstreams: set[str] = field(default_factory=set)  # that services make by a URL


def find(
    globs: Sequence[str], at: KeyPath, found: Findings, shown: Callable[[Path], str]
) -> list[Path]:
    """Return the files that *globs*, which stand at *at*, match; each once."""
    files: dict[Path, None] = {}
    for index, pattern in enumerate(globs):
        place = (*at, index)
        base = found.base_of(place)
        if "\0" in pattern:
            found.problem(place, "expected a path")
            continue
        # Path.glob takes no absolute pattern. A directory is no policy file, even one
        # called x.toml.
        names = glob.glob(pattern, root_dir=base, recursive=True)  # noqa: PTH207
        matched = [base / name for name in sorted(names)]
        matched = [path for path in matched if not path.is_dir()]
        if not matched:
            # What came from the environment is not repeated; the rest is in the line.
            found.problem(place, f"no file matches this below {shown(base)}")
        files.update(dict.fromkeys(path.absolute() for path in matched))
    return list(files)


def read_policies(
    services: Sequence[Path],
    operators: Sequence[Path],
    *,
    upstreams: dict[str, Upstream],
    names: frozenset[str],
    env: Mapping[str, str],
    found: Findings,
    shown: Callable[[Path], str],
) -> Policies:
    """Read all policy files; a file of both kinds is an operators' file.

    Args:
        services: The files of `policies`.
        operators: The files of `roles`.
        upstreams: By name; implicit ones are added.
        names: Of all [upstream.x], also of those that have a problem.
        env: The environment.
        found: Where problems and weakenings go.
        shown: Says how messages name a path.
    """
    out = Policies()
    same = set(operators)
    for path in [*(path for path in services if path not in same), *operators]:
        document, broken = read(path, shown(path))
        out.documents.append(document)
        if broken is not None:
            out.broken.append(broken)
            out.is_whole = False
            continue
        inner = Findings([document], found.base, found.hidden)
        resolved = resolve(
            document.data, env=env, file_of=inner.file_of, base_of=inner.base_of
        )
        found.hidden = Hidden({**found.hidden.references, **resolved.hidden})
        inner.hidden = found.hidden
        inner.problems += resolved.problems
        wrong = {problem.at for problem in resolved.problems}
        table = _validated(resolved.data, wrong, resolved.outside, inner, out)
        if table is not None:
            is_operators = path in same
            file = _file(document.file, table, operators=is_operators)
            out.files.append(_with_upstream(file, upstreams, names, out, inner))
        found.problems += inner.problems
        found.weakenings += inner.weakenings
    return out


@dataclass(frozen=True, slots=True)
class _Table:
    """A policy file, and which of its routes are which: those with problems are out."""

    table: written.Policy
    numbers: tuple[int, ...]


def _validated(
    data: Mapping[str, Any],
    wrong: set[KeyPath],
    outside: set[KeyPath],
    found: Findings,
    out: Policies,
) -> _Table | None:
    """Return what is right of a file; everything but its routes has to be."""
    first: Validated[written.Policy] = validate(
        written.Policy, data, file_of=found.file_of, outside=outside
    )
    found.problems += [item for item in first.problems if item.at not in wrong]
    routes = value_at(data, ("route",))
    routes = routes if isinstance(routes, list) else []
    broken = {*first.broken, *wrong}
    bad = {at[1] for at in broken if at[:1] == ("route",) and len(at) > 1}
    if any(at[:1] != ("route",) or len(at) == 1 for at in broken):
        out.is_whole = False
        return None
    numbers = tuple(number for number in range(len(routes)) if number not in bad)
    rest = without(data, [("route",), *first.loose])
    rest["route"] = [
        without(routes[number], [at[2:] for at in first.loose if at[1:2] == (number,)])
        for number in numbers
    ]
    again = validate(written.Policy, rest, file_of=found.file_of)
    assert again.model is not None, "what is left had no problem"
    return _Table(again.model, numbers)


def _file(file: str, parsed: _Table, *, operators: bool) -> PolicyFile:
    table = parsed.table
    service = table.service
    return PolicyFile(
        file=file,
        service=None
        if service is None
        else ServiceSpec(
            at=("service",),
            name=service.name,
            prefix=service.prefix,
            upstream=service.upstream,
            hosts=tuple(service.hosts),
            strip_prefix=service.strip_prefix,
            issuers=_maybe(service.issuers),
            credentials=tuple(service.credentials),
            binding=_maybe(service.binding),
            revocation=_revocation(service.revocation),
            read=service.read,
            write=service.write,
            audience=_maybe(service.audience),
            inside=service.inside,
        ),
        permissions=dict(table.permissions),
        roles=tuple(
            RoleSpec(
                ("roles", name),
                name,
                tuple(role.permissions or ()),
                tuple(role.inherits or ()),
            )
            for name, role in table.roles.items()
        ),
        routes=tuple(
            _route(("route", number), route)
            for number, route in zip(parsed.numbers, table.route, strict=True)
        ),
        operators=operators,
    )


def _route(at: KeyPath, route: written.Route) -> RouteSpec:
    access = route.access
    owner = route.owner
    sockets = route.websocket
    return RouteSpec(
        at=at,
        methods=tuple(route.methods),
        path=route.path,
        id=route.id,
        access="public" if isinstance(access, written.Public) else access,
        public_reason=access.public if isinstance(access, written.Public) else "",
        require=route.require,
        owner=None
        if owner is None
        else OwnerSpec(owner.param, owner.claim, owner.issuer),
        audience=_maybe(route.audience),
        credentials=_maybe(route.credentials),
        binding=_maybe(route.binding),
        revocation=_revocation(route.revocation),
        max_body=route.max_body,
        max_in_flight=route.max_in_flight,
        allow_encoded=tuple(route.allow_encoded),
        credentials_to_upstream=route.credentials_to_upstream,
        bind_request=route.identity is not None,
        websocket=None
        if sockets is None
        else SocketsSpec(
            sockets.max_message, sockets.per_subject, _maybe(sockets.origins)
        ),
        stream=route.stream,
        at_expiry=route.at_expiry,
    )


def _revocation(said: written.RouteRevocation | None) -> RevocationSpec | None:
    if said is None:
        return None
    return RevocationSpec(said.mode == "strict", said.outage, said.max_staleness)


def _maybe(items: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if items is None else tuple(items)


def _with_upstream(
    file: PolicyFile,
    upstreams: dict[str, Upstream],
    names: frozenset[str],
    out: Policies,
    found: Findings,
) -> PolicyFile:
    """Give a service whose upstream is a URL an upstream of its own name."""
    service = file.service
    if service is None:
        return file
    at: KeyPath = ("service", "upstream")
    said = service.upstream
    if "://" in said or said.startswith("unix:"):
        if service.name in names:
            found.problem(
                at,
                f"[upstream.{service.name}] exists: a URL here would make a second",
                f'upstream = "{service.name}"',
            )
        else:
            made = implicit_upstream(service.name, said, at, found)
            if made is not None:
                upstreams.setdefault(service.name, made)
        out.upstreams.add(service.name)
        service = replace(service, upstream=service.name)
    known = upstreams.get(service.upstream)
    if known is not None and known.pass_credentials:
        service = replace(service, credentials_to_upstream="pass")
    return replace(file, service=service)

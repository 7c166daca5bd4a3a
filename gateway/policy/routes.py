"""One [[route]], and a service's defaults, compiled.

A route says exactly one of `access` and `require`; what says neither does not load: no
route is open by omission.

Without an `id` a route is named by its service, methods and path as written:
`orders.get:/customers/{customer_id}/orders`, `orders.post+put:/x`, `orders.*:/y`. An id
that is given has no colon, so that it can't be mistaken for a derived one.

Imports: gateway.model, gateway.policy.permissions, gateway.policy.require,
gateway.policy.rules, gateway.policy.spec, gateway.policy.suggest, gateway.policy.table,
gateway.policy.templates, gateway.wire.websocket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from gateway.model import API_KEYS, Access, BindingKind, Route, Sockets
from gateway.policy.permissions import Vocabulary
from gateway.policy.policy import Listing
from gateway.policy.require import Reading
from gateway.policy.rules import All, Every, Owner, all_of, rule
from gateway.policy.spec import (
    KeyPath,
    OwnerSpec,
    PolicyFile,
    Problem,
    RevocationSpec,
    RouteSpec,
    ServiceSpec,
    SocketsSpec,
)
from gateway.policy.suggest import did_you_mean
from gateway.policy.table import ANY_METHOD, Entry
from gateway.policy.templates import Fault, Segment, Segments, forms, parse_path
from gateway.wire.websocket import NO_ORIGIN, canonical_origin

# RFC 9110 section 9, RFC 5789, QUERY, and what WebDAV and its kin use; no CONNECT and
# TRACE, which no route can serve (R3).
_COMMON = "GET HEAD POST PUT PATCH DELETE OPTIONS QUERY"
_RARE = "ACL BIND CHECKOUT COPY LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY"
_RARER = "PROPFIND PROPPATCH PURGE REBIND REPORT SEARCH SUBSCRIBE UNBIND UNLINK UNLOCK"
METHODS = frozenset(f"{_COMMON} {_RARE} {_RARER} UNSUBSCRIBE".split())

ESCAPES = frozenset({"%2F", "%5C", "%23", "%3F", "%25"})
CREDENTIALS = frozenset({"bearer", "ticket", "certificate", "api_key"})
BINDINGS = frozenset(get_args(BindingKind))
READING = frozenset({"GET", "HEAD"})

_ID = re.compile(r"[A-Za-z0-9_.-]+")
_NOBODY = "there is no [issuer.x], and API keys don't count here: nobody could call it"
_KEYS_ALONE = 'credentials = ["api_key"]'
_ACCESS: dict[str, Access] = {
    "public": "public",
    "authenticated": "authenticated",
    "optional": "optional",
}


@dataclass(frozen=True, slots=True)
class Service:
    """A [service] that was understood: what its routes have in common."""

    file: PolicyFile
    spec: ServiceSpec
    hosts: frozenset[str]
    prefix: tuple[str, ...]
    issuers: tuple[str, ...]
    reserved: tuple[tuple[str, ...], ...]  # our own prefixes
    has_keys: bool = False  # whether there are API keys at all
    stale: float = 0.0  # seconds that operators allow, see compile_policy

    @property
    def strip(self) -> int:
        """How many leading segments an upstream doesn't get to see."""
        return len(self.prefix) if self.spec.strip_prefix else 0

    def accepts(self, kinds: Collection[str]) -> tuple[str, ...]:
        """Return the issuers whose tokens count where *kinds* do."""
        by_token = self.issuers if set(kinds) - {"api_key", "ticket"} else ()
        return (*by_token, API_KEYS) if "api_key" in kinds else by_token


@dataclass(frozen=True, slots=True)
class Compiled:
    """A route with its place in the table."""

    entry: Entry
    listing: Listing
    file: str
    at: KeyPath
    is_default: bool = False


Line = Callable[[str, KeyPath], str]


def compile_route(
    service: Service, spec: RouteSpec, vocabulary: Vocabulary, line: Line
) -> Compiled | list[Problem]:
    """Understand one [[route]] of *service*."""
    file = service.file.file
    derived = derived_id(service.spec.name, spec.methods, spec.path)
    name = spec.id if spec.id is not None else derived
    say = f'route "{name}": '
    problems: list[Problem] = []

    def wrong(
        key: str, message: str, suggestion: str = "", value: str = "", *more: int | str
    ) -> None:
        at = (*spec.at, key, *more)
        problems.append(Problem(file, at, say + message, suggestion, value))

    if spec.id is not None and not _ID.fullmatch(spec.id):
        wrong("id", "an id is letters, digits and _.-", value=spec.id)
    _check_methods(spec.methods, wrong)
    path = parse_path(spec.path)
    if isinstance(path, Fault):
        wrong("path", path.message, path.suggestion, path.value)
        path = ()
    elif own := _reserved(service, path):
        wrong("path", f"{own} and all below it is the gateway's own", value=spec.path)
    parameters = [segment for segment in path if segment.kind != "literal"]
    kinds = (
        spec.credentials if spec.credentials is not None else service.spec.credentials
    )
    issuers = service.accepts(kinds)
    owner = _owner(issuers, spec.owner, parameters, wrong) if spec.owner else None

    for index, escape in enumerate(spec.allow_encoded):
        if escape not in ESCAPES:
            hint = did_you_mean(escape.upper(), ESCAPES)
            what = f'"{escape}" is not an escape that could be allowed'
            wrong("allow_encoded", what, hint, escape, index)
    check_kinds(spec.credentials, service.has_keys, lambda *a: wrong("credentials", *a))
    check_binding(spec.binding, lambda *a: wrong("binding", *a))
    check_revocation(spec.revocation, service.stale, wrong)
    for asked in ("binding", "revocation"):
        if getattr(spec, asked) is not None and spec.access == "public":
            wrong(asked, "a public route looks at no token")
    if spec.audience is not None and not spec.audience:
        wrong("audience", "an empty audience lets nobody pass")
    if spec.credentials_to_upstream not in {None, "strip", "pass"}:
        hint = did_you_mean(spec.credentials_to_upstream or "", ("strip", "pass"))
        wrong("credentials_to_upstream", '"strip" or "pass" belongs here', hint)

    sockets = _sockets(spec.websocket, spec.methods, wrong) if spec.websocket else None
    if spec.at_expiry not in {None, "close", "finish"}:
        hint = did_you_mean(spec.at_expiry or "", ("close", "finish"))
        wrong("at_expiry", '"close" or "finish" belongs here', hint)
    elif spec.at_expiry is not None and not spec.stream:
        what = "at_expiry is for streams; other answers are finished"
        wrong("at_expiry", what, "stream = true")

    if service.has_keys and not issuers and spec.access != "public":
        wrong("credentials", _NOBODY, _KEYS_ALONE)
    access: Access = "require"
    reading = Reading(file, say, vocabulary, owner)
    node = None
    if spec.access is not None:
        access = _access(spec, wrong)
    elif spec.require is not None:
        node = reading.read(spec.require, (*spec.at, "require"))
        problems += reading.problems
    else:
        at = spec.at
        what = "exactly one of access and require: no route is open by omission"
        # Not by owner alone: a deleted `require` must not open a route (R84).
        hint = 'require = "@owner" where to own it is enough' if spec.owner else ""
        problems.append(Problem(file, at, say + what, hint))
    if problems:
        return problems

    # An owner that `require` doesn't place itself is one more thing that must hold.
    if owner is not None and not reading.owns:
        node = owner if node is None else all_of((node, owner))
    needed, rest = 0, node
    match node:
        case Every():
            needed, rest = node.bits, None
        case All((Every() as every, *others), waiting):
            needed, rest = every.bits, all_of((*others, *waiting))
        case _:
            pass
    is_public = access == "public"
    to_upstream = spec.credentials_to_upstream or (
        "pass" if is_public else service.spec.credentials_to_upstream
    )
    audience = spec.audience if spec.audience is not None else service.spec.audience
    asked_how = spec.revocation or service.spec.revocation
    route = Route(
        name,
        service.spec.name,
        service.spec.upstream,
        access,
        needed=needed,
        rule=None if rest is None else rule(rest),
        issuers=frozenset(issuers),
        audience=None if audience is None else frozenset(audience),
        credentials=frozenset(kinds),
        binding=_binding(spec.binding or service.spec.binding),
        strict=asked_how is not None and asked_how.strict,
        stale=0.0 if is_public else _stale(asked_how, service.stale),
        strip=service.strip,
        escapes=frozenset(spec.allow_encoded),
        max_body=spec.max_body,
        max_in_flight=spec.max_in_flight,
        pass_credentials=to_upstream == "pass",
        bind_request=spec.bind_request,
        websocket=sockets,
        stream=spec.stream,
        ends_with_token=spec.stream and spec.at_expiry != "finish",
        place=line(file, spec.at),
    )
    requires = {
        "public": f"nothing: public ({spec.public_reason})",
        "optional": "nothing; a credential that is presented must be good",
        "authenticated": "any authenticated principal",
        "require": f"requires {node}",
    }[access]
    is_named = any(segment.is_named for segment in parameters)
    return _compiled(
        service,
        route,
        path,
        spec,
        requires=requires,
        is_owned=is_public or owner is not None or not is_named,
    )


def _sockets(
    spec: SocketsSpec, methods: Sequence[str], wrong: Callable[..., None]
) -> Sockets:
    """Understand `websocket`; its keys are of one table, so all are named by it."""
    if not {"GET", ANY_METHOD} & set(methods):
        wrong("websocket", "a WebSocket begins with a GET", 'methods = ["GET"]')
    if spec.per_subject < 1:
        wrong("websocket", "per_subject: at least 1")
    if spec.origins is None:
        return Sockets(spec.max_message, spec.per_subject)
    if not spec.origins:
        wrong("websocket", "an empty list of origins lets nobody pass")
    origins = set()
    for text in spec.origins:
        origin = text if text == NO_ORIGIN else canonical_origin(text)
        if not origin:
            what = f'"{text}" is no origin, such as "https://shop.example"'
            wrong("websocket", what, value=text)
        origins.add(origin)
    return Sockets(spec.max_message, spec.per_subject, frozenset(origins))


def derived_id(service: str, methods: Sequence[str], path: str) -> str:
    """Return the id of a route that was given none."""
    return f"{service}.{'+'.join(methods).lower()}:{path}"


def _compiled(
    service: Service,
    route: Route,
    path: Segments,
    spec: RouteSpec,
    *,
    requires: str,
    is_owned: bool,
) -> Compiled:
    methods = frozenset(spec.methods)
    served = methods | {"HEAD"} if "GET" in methods else methods
    prefix = "/" + "/".join(service.prefix)
    full = (prefix.rstrip("/") + spec.path) if service.prefix else spec.path
    entry = Entry(route, methods, forms(service.prefix, path))
    listing = Listing(
        route,
        tuple(sorted(served)),
        prefix if spec.path == "/" and service.prefix else full,
        tuple(sorted(service.hosts)),
        requires,
        spec.public_reason,
        is_owned,
    )
    return Compiled(entry, listing, service.file.file, spec.at)


def compile_defaults(
    service: Service, vocabulary: Vocabulary, line: Line
) -> tuple[list[Compiled], list[Problem]]:
    """Make the routes of `read` and `write`: what no route of the service names."""
    spec = service.spec
    file = service.file.file
    found: list[Compiled] = []
    problems: list[Problem] = []
    rest: Segments = (Segment("rest", "rest"),)
    prefix = "/".join(("", *service.prefix))
    for key, name in (("read", spec.read), ("write", spec.write)):
        if name is None:
            continue
        at: KeyPath = (*spec.at, key)
        say = f'service "{spec.name}": {key}: '
        if service.has_keys and not service.accepts(spec.credentials):
            problems.append(Problem(file, at, say + _NOBODY, _KEYS_ALONE))
            continue
        if name not in vocabulary:
            say += f'unknown permission "{name}"'
            hint = vocabulary.suggestion(name)
            problems.append(Problem(file, at, say, hint, name))
            continue
        is_read = key == "read"
        route = Route(
            f"{spec.name}.{key}",
            spec.name,
            spec.upstream,
            "require",
            needed=vocabulary.bit(name),
            issuers=frozenset(service.accepts(spec.credentials)),
            audience=None if spec.audience is None else frozenset(spec.audience),
            credentials=frozenset(spec.credentials),
            binding=_binding(spec.binding),
            strict=spec.revocation is not None and spec.revocation.strict,
            stale=_stale(spec.revocation, service.stale),
            strip=service.strip,
            pass_credentials=spec.credentials_to_upstream == "pass",
            place=line(file, at),
        )
        methods = READING if is_read else frozenset({ANY_METHOD})
        entry = Entry(
            route,
            methods,
            forms(service.prefix, rest),
            frozenset() if is_read else READING,
        )
        shown = ("GET", "HEAD") if is_read else (ANY_METHOD,)
        listing = Listing(
            route,
            shown,
            f"{prefix}/{{rest...}}",
            tuple(sorted(service.hosts)),
            f"requires {name}",
        )
        found.append(Compiled(entry, listing, file, at, is_default=True))
    return found, problems


def check_kinds(
    kinds: Iterable[str] | None,
    has_keys: bool,
    wrong: Callable[[str, str, str], None],
) -> None:
    """Report what is wrong with a list of credential kinds."""
    _check_words(kinds, CREDENTIALS, 'unknown credential kind "{}"', wrong)
    if kinds is None:
        return
    if "api_key" in kinds and not has_keys:
        what = "gateway.toml has no [api_keys]: there are no API keys"
        wrong(what, "see docs/api-keys.md", "api_key")
    if set(kinds) == {"ticket"}:
        wrong("a ticket stands for another kind, which has to count too", "", "ticket")


def check_binding(
    kinds: Iterable[str] | None, wrong: Callable[[str, str, str], None]
) -> None:
    """Report what is wrong with what tokens are to be bound to."""
    _check_words(kinds, BINDINGS, 'nothing is bound to "{}"', wrong)


def check_revocation(
    spec: RevocationSpec | None, stale: float, wrong: Callable[..., None]
) -> None:
    """Report what is wrong with how a service or a route asks about revocation.

    Args:
        spec: What it says.
        stale: Seconds that operators allow; it may only be stricter.
        wrong: Takes the key, what is wrong, a suggestion, "", and the key within it.
    """
    if spec is None:
        return

    def say(word: str, message: str, suggestion: str = "") -> None:
        wrong("revocation", message, suggestion, "", word)

    most = spec.max_staleness
    if spec.outage not in {None, "deny", "allow-stale"}:
        hint = did_you_mean(spec.outage or "", ("deny", "allow-stale"))
        say("outage", '"deny" or "allow-stale" belongs here', hint)
    elif spec.strict and spec.outage == "allow-stale":
        what = "strict asks the store each time: no old mirror decides"
        say("outage", what, 'mode = "mirror"')
    elif most is not None and (spec.strict or spec.outage == "deny"):
        what = "max_staleness is for allow-stale: no old mirror decides here"
        say("max_staleness", what, "leave it out")
    elif not stale and (most is not None or spec.outage == "allow-stale"):
        what = "gateway.toml says deny, and a route may only be stricter"
        hint = 'for its operators: [outage] revocation = "allow-stale"'
        say("outage" if spec.outage else "max_staleness", what, hint)
    elif most is not None and most > stale:
        what = f"gateway.toml allows {stale:g} s, and a route may only be stricter"
        say("max_staleness", what)


def _stale(spec: RevocationSpec | None, most: float) -> float:
    """Return for how many seconds an old mirror decides, *most* where nothing is said.

    Whatever was said, and whether or not it was checked: no longer than that.
    """
    if spec is None:
        return most
    if spec.strict or spec.outage == "deny":
        return 0.0
    return most if spec.max_staleness is None else min(spec.max_staleness, most)


def _check_words(
    words: Iterable[str] | None,
    known: frozenset[str],
    unknown: str,
    wrong: Callable[[str, str, str], None],
) -> None:
    if words is None:
        return
    words = tuple(words)
    if not words:
        wrong("an empty list lets nobody pass", "", "")
    for word in words:
        if word not in known:
            wrong(unknown.format(word), did_you_mean(word, known), word)


def _binding(kinds: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if kinds is None else frozenset(kinds)


def _check_methods(methods: Sequence[str], wrong: Callable[..., None]) -> None:
    if not methods:
        wrong("methods", 'methods are required; ["*"] is all of them')
    for index, method in enumerate(methods):
        if method == ANY_METHOD:
            if len(methods) > 1:
                what = '"*" is all methods and stands alone'
                wrong("methods", what, "", method, index)
        elif method not in METHODS:
            what = f'unknown method "{method}"'
            upper = method.upper()
            hint = did_you_mean(upper, METHODS)
            wrong("methods", what, hint, method, index)
        elif method in methods[:index]:
            wrong("methods", f'"{method}" stands twice', "", method, index)


def _reserved(service: Service, path: Segments) -> str | None:
    """Return which of our own prefixes the route would stand below, if any.

    A parameter may match our own segments too; those requests never come here.
    """
    for form in forms(service.prefix, path):
        for own in service.reserved:
            head = form[: len(own)]
            if tuple(s.text for s in head if s.kind == "literal") == own:
                return "/" + "/".join(own)
    return None


def _owner(
    issuers: Sequence[str],
    spec: OwnerSpec,
    parameters: Sequence[Segment],
    wrong: Callable[..., None],
) -> Owner | None:
    named = {s.text: s for s in parameters}
    found = named.get(spec.param)
    if found is None:
        hint = did_you_mean(spec.param, named)
        what = f'owner: the path has no parameter "{spec.param}"'
        wrong("owner", what, hint, spec.param)
    elif found.kind == "rest":
        what = f'owner: "{spec.param}" is the rest of a path; an owner is one segment'
        wrong("owner", what, "", spec.param)
    if not spec.claim:
        wrong("owner", "owner: the claim has no name")
    issuer = spec.issuer
    if issuer is None:
        if len(issuers) > 1:
            names = ", ".join(issuers)
            what = f"owner: name the issuer ({names}): each has subjects of its own"
            wrong("owner", what)
        issuer = issuers[0] if issuers else ""
    elif issuer not in issuers:
        hint = did_you_mean(issuer, issuers)
        what = f'owner: the service doesn\'t accept issuer "{issuer}"'
        wrong("owner", what, hint, issuer)
    return Owner(spec.param, spec.claim, issuer)


def _access(spec: RouteSpec, wrong: Callable[..., None]) -> Access:
    access = spec.access or ""
    if spec.require is not None:
        wrong("access", "exactly one of access and require, not both")
    if spec.owner is not None:
        wrong("owner", "owner goes with require, not with access")
    if access not in _ACCESS:
        hint = did_you_mean(access, _ACCESS)
        wrong("access", f'unknown access "{access}"', hint, access)
    elif access == "public" and not spec.public_reason.strip():
        what = "a public route says why"
        wrong("access", what, 'access = { public = "the reason" }')
    return _ACCESS.get(access, "authenticated")

"""gateway.policy.routes: one [[route]], and a service's defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.model import Route, Sockets
from gateway.policy.grants import IssuerGrants
from gateway.policy.policy import Policy
from gateway.policy.routes import derived_id
from gateway.policy.spec import (
    OwnerSpec,
    RevocationSpec,
    RouteSpec,
    ServiceSpec,
    SocketsSpec,
)
from tests.policy.making import (
    ONE,
    TWO,
    VOCABULARY,
    compiled,
    decide,
    file,
    head,
    matched,
    policy,
    principal,
    problem,
    problems,
    route,
    service,
)

ROLES = {
    "customer": ["orders:read", "orders:write"],
    "support": ["orders:read", "orders:read_any"],
}


def load(*routes: RouteSpec | str, of: ServiceSpec | None = None) -> Policy:
    return policy(
        file(of or service(), *routes, permissions=list(VOCABULARY), roles=ROLES)
    )


def only(spec: RouteSpec, of: ServiceSpec | None = None) -> Route:
    (found,) = load(spec, of=of).routes
    return found


@pytest.mark.parametrize(
    ("said", "id_"),
    [
        ("GET /a", "orders.get:/a"),
        ("POST,PUT /a/{x}/", "orders.post+put:/a/{x}/"),
        ("* /", "orders.*:/"),
    ],
)
def test_a_route_without_an_id_is_named_by_what_it_is_for(said: str, id_: str) -> None:
    """Service, methods and path as written."""
    assert only(route(said)).id == id_
    methods, _, path = said.partition(" ")
    assert derived_id("orders", methods.split(","), path) == id_


def test_an_id_that_is_given_is_kept() -> None:
    """`id = "orders.list"`."""
    assert only(route("GET /a", id="orders.list")).id == "orders.list"


def test_a_route_knows_its_place() -> None:
    """`explain` says where a route was written."""
    assert only(route("GET /a")).place == "orders.toml:route.0"


ALICE = principal("alice", roles=["customer"])
BOB = principal("bob", roles=["customer"])
STAFF = principal("sam", roles=["support"])
NOBODY = principal("nn")
EITHER = {"any": ["orders:read_any", {"all": ["orders:read", "@owner"]}]}


@pytest.mark.parametrize(
    ("more", "alice", "bob", "staff", "nobody"),
    [
        ({"access": "authenticated"}, "", "", "", ""),
        ({"access": "optional"}, "", "", "", ""),
        ({"require": "orders:read"}, "", "", "", "permission.missing:orders:read"),
        (
            {"require": ["orders:write", "orders:read"]},
            "",
            "",
            "permission.missing:orders:write",
            "permission.missing:orders:read",
        ),
        (
            {"require": "@owner", "owner": "id"},
            "",
            "condition.failed:owner",
            "condition.failed:owner",
            "condition.failed:owner",
        ),
        (
            {"require": "orders:read", "owner": "id"},
            "",
            "condition.failed:owner",
            "condition.failed:owner",
            "permission.missing:orders:read",
        ),
        (
            {"require": ["orders:read", "@owner"], "owner": "id"},
            "",
            "condition.failed:owner",
            "condition.failed:owner",
            "permission.missing:orders:read",
        ),
        (
            {"require": EITHER, "owner": "id"},
            "",
            "condition.failed:owner",
            "",
            "permission.missing:orders:read_any",
        ),
        (
            {"require": ["orders:read", {"not": "@owner"}], "owner": "id"},
            "condition.failed:not owner",
            "",
            "",
            "permission.missing:orders:read",
        ),
        (
            {
                "require": [
                    "orders:read",
                    {"any": ["orders:write", "orders:read_any"]},
                    {"any": ["orders:read_any", "@owner"]},
                ],
                "owner": "id",
            },
            "",
            "condition.failed:owner",
            "",
            "permission.missing:orders:read",
        ),
    ],
    ids=str,
)
def test_who_passes_a_route(
    more: dict[str, Any], alice: str, bob: str, staff: str, nobody: str
) -> None:
    """Access, require and owner, each with an owner, a neighbour, staff, a stranger."""
    of = load(route("GET /c/{id}", id="r", **more))
    request = head("GET", "/api/c/alice")
    said = [decide(of, request, who) for who in (ALICE, BOB, STAFF, NOBODY)]

    assert said == [it or "allow r" for it in (alice, bob, staff, nobody)]


def test_permissions_of_a_list_are_bits_and_the_rest_is_a_rule() -> None:
    """What needs no tree gets none."""
    plain = only(route("GET /a", require=["orders:read", "orders:write"]))
    owned = only(route("GET /a/{id}", require="orders:read", owner="id"))
    mixed = only(
        route("GET /a/{id}", require=["orders:read", EITHER, "@owner"], owner="id")
    )

    assert plain.rule is None
    assert plain.needed.bit_count() == 2
    assert owned.rule is not None
    assert owned.needed.bit_count() == 1
    assert mixed.needed.bit_count() == 1


@pytest.mark.parametrize(
    ("spec", "key", "message", "suggestion"),
    [
        (
            RouteSpec(("route", 0), ("GET",), "/a"),
            None,
            "exactly one of access and require: no route is open by omission",
            "",
        ),
        (
            route("GET /a", access="authenticated", require="orders:read"),
            "access",
            "exactly one of access and require, not both",
            "",
        ),
        (
            route("GET /{id}", access="authenticated", owner="id"),
            "owner",
            "owner goes with require, not with access",
            "",
        ),
        (
            route("GET /a", access="publik"),
            "access",
            'unknown access "publik"',
            'did you mean "public"?',
        ),
        (
            route("GET /a", access=""),
            "access",
            'unknown access ""',
            "known: authenticated, optional, public",
        ),
        (
            route("GET /a", access="public", public_reason=" "),
            "access",
            "a public route says why",
            'access = { public = "the reason" }',
        ),
        (
            route("GET /a", require="orders:raed"),
            "require",
            'unknown permission "orders:raed"',
            'did you mean "orders:read"? (orders.toml:permissions.orders:read)',
        ),
        (route("GET /a", require=[]), "require", "an empty list requires nothing", ""),
        (
            route("GET /a", id="a:b"),
            "id",
            "an id is letters, digits and _.-",
            "",
        ),
        (route("GET /a", id=""), "id", "an id is letters, digits and _.-", ""),
        (route("GET a"), "path", "a path starts with a slash", 'write "/a"'),
        (
            route("GET /{id}", require="orders:read", owner="idd"),
            "owner",
            'owner: the path has no parameter "idd"',
            'did you mean "id"?',
        ),
        (
            route("GET /a", require="orders:read", owner="id"),
            "owner",
            'owner: the path has no parameter "id"',
            "",
        ),
        (
            route("GET /{id...}", require="orders:read", owner="id"),
            "owner",
            'owner: "id" is the rest of a path; an owner is one segment',
            "",
        ),
        (
            route("GET /{id}", owner=OwnerSpec("id", "")),
            "owner",
            "owner: the claim has no name",
            "",
        ),
        (
            route("GET /{id}", owner=OwnerSpec("id", issuer="crop")),
            "owner",
            'owner: the service doesn\'t accept issuer "crop"',
            'did you mean "corp"?',
        ),
        (
            route("GET /a", allow_encoded=("%2f",)),
            "allow_encoded",
            '"%2f" is not an escape that could be allowed',
            'did you mean "%2F"?',
        ),
        (
            route("GET /a", credentials=("cookie",)),
            "credentials",
            'unknown credential kind "cookie"',
            "known: api_key, bearer, certificate, ticket",
        ),
        (
            route("GET /a", credentials=("bearer", "api_key")),
            "credentials",
            "gateway.toml has no [api_keys]: there are no API keys",
            "see docs/api-keys.md",
        ),
        (
            route("GET /a", credentials=("ticket",)),
            "credentials",
            "a ticket stands for another kind, which has to count too",
            "",
        ),
        (
            route("GET /a", credentials=()),
            "credentials",
            "an empty list lets nobody pass",
            "",
        ),
        (
            route("GET /a", binding=("mlts",)),
            "binding",
            'nothing is bound to "mlts"',
            'did you mean "mtls"?',
        ),
        (
            route("GET /a", binding=()),
            "binding",
            "an empty list lets nobody pass",
            "",
        ),
        (
            route("GET /a", access="public", public_reason="x", binding=("ip",)),
            "binding",
            "a public route looks at no token",
            "",
        ),
        (
            route(
                "GET /a",
                access="public",
                public_reason="x",
                revocation=RevocationSpec(strict=True),
            ),
            "revocation",
            "a public route looks at no token",
            "",
        ),
        (
            route("GET /a", audience=()),
            "audience",
            "an empty audience lets nobody pass",
            "",
        ),
        (
            route("GET /a", credentials_to_upstream="passs"),
            "credentials_to_upstream",
            '"strip" or "pass" belongs here',
            'did you mean "pass"?',
        ),
        (
            replace(route("GET /a"), methods=()),
            "methods",
            'methods are required; ["*"] is all of them',
            "",
        ),
        (route("get /a"), "methods", 'unknown method "get"', 'did you mean "GET"?'),
        (route("GETX /a"), "methods", 'unknown method "GETX"', 'did you mean "GET"?'),
        (route("CONNECT /a"), "methods", 'unknown method "CONNECT"', None),
        (route("GET,* /a"), "methods", '"*" is all methods and stands alone', ""),
        (route("GET,GET /a"), "methods", '"GET" stands twice', ""),
    ],
)
def test_what_is_wrong_with_a_route_is_said_at_its_place(
    spec: RouteSpec, key: str | None, message: str, suggestion: str | None
) -> None:
    """A route that says too little, too much or a wrong word does not load."""
    where, at, said, hint = problem(
        file(service(), spec, permissions=list(VOCABULARY), roles=ROLES)
    )

    assert where == "orders.toml"
    assert at[: 2 if key is None else 3] == ("route", 0) + (
        () if key is None else (key,)
    )
    name = derived_id("orders", spec.methods, spec.path) if spec.id is None else spec.id
    assert said == f'route "{name}": {message}'
    assert suggestion is None or hint == suggestion


@pytest.mark.parametrize(
    ("said", "stale", "meant"),
    [
        (None, 0.0, (False, 0.0)),
        (None, 5.0, (False, 5.0)),
        (RevocationSpec(), 5.0, (False, 5.0)),
        (RevocationSpec(strict=True), 5.0, (True, 0.0)),
        (RevocationSpec(strict=True, outage="deny"), 0.0, (True, 0.0)),
        (RevocationSpec(outage="deny"), 5.0, (False, 0.0)),
        (RevocationSpec(outage="deny"), 0.0, (False, 0.0)),
        (RevocationSpec(outage="allow-stale"), 5.0, (False, 5.0)),
        (RevocationSpec(outage="allow-stale", max_staleness=2.0), 5.0, (False, 2.0)),
        (RevocationSpec(max_staleness=2.0), 5.0, (False, 2.0)),
    ],
)
def test_a_route_asks_about_revocation_as_it_or_its_service_says(
    said: RevocationSpec | None, stale: float, meant: tuple[bool, float]
) -> None:
    """What it says replaces the service's word; else operators' counts."""
    public = route("GET /p", access="public", public_reason="x")

    def compile_one(of: ServiceSpec, spec: RouteSpec) -> list[tuple[bool, float]]:
        found = compiled(
            file(of, spec, public, permissions=list(VOCABULARY), roles=ROLES),
            stale=stale,
        )
        assert isinstance(found, Policy), found
        by_id = {each.id: each for each in found.routes}
        assert by_id.pop("orders.get:/p").stale == 0.0
        return [(each.strict, each.stale) for each in by_id.values()]

    plain = route("GET /a", access="authenticated")
    own = replace(plain, revocation=said)
    other = RevocationSpec(strict=True) if said is not None else None
    assert compile_one(service(revocation=other), own) == [meant]
    of = service(revocation=said, read="orders:read")
    assert compile_one(of, plain) == [meant, meant]


@pytest.mark.parametrize(
    ("said", "stale", "key", "message", "suggestion"),
    [
        (
            RevocationSpec(outage="allow-stal"),
            5.0,
            "outage",
            '"deny" or "allow-stale" belongs here',
            'did you mean "allow-stale"?',
        ),
        (
            RevocationSpec(outage="allow-stale"),
            0.0,
            "outage",
            "gateway.toml says deny, and a route may only be stricter",
            'for its operators: [outage] revocation = "allow-stale"',
        ),
        (
            RevocationSpec(max_staleness=2.0),
            0.0,
            "max_staleness",
            "gateway.toml says deny, and a route may only be stricter",
            'for its operators: [outage] revocation = "allow-stale"',
        ),
        (
            RevocationSpec(max_staleness=5.5),
            5.0,
            "max_staleness",
            "gateway.toml allows 5 s, and a route may only be stricter",
            "",
        ),
        (
            RevocationSpec(strict=True, outage="allow-stale"),
            5.0,
            "outage",
            "strict asks the store each time: no old mirror decides",
            'mode = "mirror"',
        ),
        *(
            (
                replace(each, max_staleness=2.0),
                5.0,
                "max_staleness",
                "max_staleness is for allow-stale: no old mirror decides here",
                "leave it out",
            )
            for each in (RevocationSpec(strict=True), RevocationSpec(outage="deny"))
        ),
    ],
)
def test_revocation_is_never_asked_about_less_strictly_than_operators_say(
    said: RevocationSpec, stale: float, key: str, message: str, suggestion: str
) -> None:
    """On a route and for a service, at the word that is wrong."""
    plain = route("GET /a", access="authenticated")
    for of, spec, at, say in (
        (
            service(),
            replace(plain, revocation=said),
            ("route", 0, "revocation", key),
            'route "orders.get:/a": ',
        ),
        (
            service(revocation=said),
            plain,
            ("service", "revocation", key),
            'service "orders": ',
        ),
    ):
        found = compiled(file(of, spec, permissions=list(VOCABULARY)), stale=stale)
        assert isinstance(found, list)
        (only,) = found
        assert (only.at, only.message) == (at, say + message)
        assert only.suggestion == suggestion


def test_what_operators_allow_is_part_of_a_generations_name() -> None:
    """Two instances that differ in it don't decide alike."""
    names = set()
    for stale in (0.0, 5.0):
        of = file(service(), "GET /a", permissions=list(VOCABULARY), roles=ROLES)
        found = compiled(of, stale=stale)
        assert isinstance(found, Policy)
        names.add(found.generation)
    assert len(names) == 2


def test_all_that_is_wrong_with_a_route_is_said_at_once() -> None:
    """One reading finds every problem."""
    spec = route("get a", require="x", owner="y", allow_encoded=("z",))

    found = problems(file(service(), spec))
    assert [it.at[2] for it in found] == [
        "methods",
        "path",
        "owner",
        "allow_encoded",
        "require",
    ]


@pytest.mark.parametrize(
    ("prefix", "path", "own"),
    [
        ("/", "/auth", "/auth"),
        ("/", "/auth/", "/auth"),
        ("/", "/auth/{x}", "/auth"),
        ("/", "/auth/{rest...}", "/auth"),
        ("/", "/.well-known/x", "/.well-known"),
    ],
)
def test_no_route_stands_where_the_gateway_answers_itself(
    prefix: str, path: str, own: str
) -> None:
    """`own_prefix` and `/.well-known` are ours."""
    _, at, message, _ = problem(file(service(prefix=prefix), f"GET {path}"))

    assert at == ("route", 0, "path")
    assert message.endswith(f": {own} and all below it is the gateway's own")


@pytest.mark.parametrize(
    ("prefix", "path"),
    [("/", "/author"), ("/", "/{x}/auth"), ("/", "/{rest...}"), ("/api", "/auth")],
)
def test_what_merely_resembles_our_own_paths_loads(prefix: str, path: str) -> None:
    """A parameter may stand beside them; they are answered before any route."""
    assert isinstance(compiled(file(service(prefix=prefix), f"GET {path}")), Policy)


def test_a_service_of_several_issuers_names_the_owners_issuer() -> None:
    """The same subject of two issuers is two people."""
    of = service(issuers=("corp", "partner"))
    _, at, message, _ = problem(file(of, route("GET /{id}", owner="id")), issuers=TWO)
    assert at == ("route", 0, "owner")
    assert message.endswith(
        "owner: name the issuer (corp, partner): each has subjects of its own"
    )

    spec = route("GET /{id}", id="r", owner=OwnerSpec("id", issuer="partner"))
    loaded = policy(file(of, spec), issuers=TWO)
    request = head("GET", "/api/7")
    partner, corp = principal("7", issuer="partner"), principal("7")
    assert decide(loaded, request, partner) == "allow r"
    assert decide(loaded, request, corp) == "condition.failed:owner"


def test_without_issuers_nobody_owns_anything() -> None:
    """A policy may be read before an issuer is configured; it opens nothing."""
    of = policy(file(service(), route("GET /{id}", owner="id")), issuers={})
    for issuer in ("", "corp"):
        who = principal("7", issuer=issuer)
        assert decide(of, head("GET", "/api/7"), who) == "condition.failed:owner"
    assert of.routes[0].issuers == frozenset()


@pytest.mark.parametrize(
    ("on_service", "on_route", "access", "passes"),
    [
        (None, None, "authenticated", False),
        (None, None, "public", True),
        (None, "pass", "authenticated", True),
        (None, "strip", "public", False),
        ("pass", None, "authenticated", True),
        ("pass", "strip", "authenticated", False),
        ("strip", None, "public", True),
    ],
)
def test_credentials_go_on_only_where_that_is_said(
    on_service: str | None, on_route: str | None, access: str, passes: bool
) -> None:
    """The route's word, else public routes pass, else as the service has it."""
    found = only(
        route(
            "GET /a",
            access=access,
            public_reason="why",
            credentials_to_upstream=on_route,
        ),
        service(credentials_to_upstream=on_service),
    )

    assert found.pass_credentials is passes


def test_a_route_takes_from_its_service_what_it_does_not_say() -> None:
    """Audience, binding and credentials; the rest is the route's own."""
    of = service(audience=("a",), binding=("mtls", "dpop"), strip_prefix=True)
    mine = route(
        "GET /x",
        audience=("b",),
        binding=("ip",),
        max_body=7,
        max_in_flight=9,
        allow_encoded=("%2F",),
        bind_request=True,
    )
    theirs, own = load("GET /y", mine, of=of).routes

    assert theirs.audience == frozenset({"a"})
    assert own.audience == frozenset({"b"})
    assert theirs.binding == frozenset({"mtls", "dpop"})
    assert own.binding == frozenset({"ip"})
    assert (own.max_body, own.max_in_flight, own.bind_request) == (7, 9, True)
    assert (theirs.max_body, theirs.max_in_flight) == (None, None)
    assert not theirs.bind_request
    assert own.escapes == {"%2F"}
    assert not theirs.escapes
    assert theirs.strip == own.strip == 1
    assert theirs.issuers == {"corp"}
    assert theirs.credentials == {"bearer"}
    assert (theirs.service, theirs.upstream) == ("orders", "orders")


# --- defaults


@pytest.mark.parametrize(
    ("read", "write", "calls"),
    [
        (
            "orders:read",
            "orders:write",
            {
                "GET /api": "orders.read",
                "GET /api/": "orders.read",
                "HEAD /api/x": "orders.read",
                "GET /api/x/y": "orders.read",
                "POST /api/x": "orders.write",
                "QUERY /api/x": "orders.write",
                "PROPFIND /api/x": "orders.write",
                "GET /api/named": "orders.get:/named",
                "POST /api/named": "method.not_allowed",
                "POST /elsewhere": "route.unknown",
            },
        ),
        (
            "orders:read",
            None,
            {"GET /api/x": "orders.read", "POST /api/x": "method.not_allowed"},
        ),
        (
            None,
            "orders:write",
            {
                "POST /api/x": "orders.write",
                "GET /api/x": "method.not_allowed",
                "HEAD /api/x": "method.not_allowed",
            },
        ),
        (None, None, {"GET /api/x": "route.unknown", "POST /api/x": "route.unknown"}),
    ],
)
def test_read_and_write_are_for_paths_that_no_route_names(
    read: str | None, write: str | None, calls: dict[str, str]
) -> None:
    """GET and HEAD need read, all else write; with one of them the others are 405."""
    of = load("GET /named", of=service(read=read, write=write))

    assert {call: matched(of, *call.split()) for call in calls} == calls


def test_a_default_that_is_alone_says_which_methods_it_serves() -> None:
    """`Allow` of a service that reads only, and of one that writes only."""
    reads = load(of=service(read="orders:read")).match(head("PUT", "/api/x"))
    writes = load(of=service(write="orders:write")).match(head("GET", "/api/x"))

    assert getattr(reads, "needed", None) == ("GET", "HEAD")
    assert getattr(writes, "needed", None) == (
        *("DELETE", "OPTIONS", "PATCH", "POST", "PUT", "QUERY"),
    )


def test_a_default_asks_for_its_permission() -> None:
    """What no route names is not open."""
    of = load(of=service(read="orders:read", write="orders:write"))

    assert decide(of, head("GET", "/api/x"), STAFF) == "allow orders.read"
    assert decide(of, head("PUT", "/api/x"), STAFF) == "permission.missing:orders:write"
    assert decide(of, head("GET", "/api/x"), NOBODY) == "permission.missing:orders:read"


def test_a_default_asks_for_a_bound_token_as_its_service_does() -> None:
    """A default that said nothing would be a way around it."""
    found = load(of=service(read="orders:read", binding=("dpop",))).routes

    assert [each.binding for each in found] == [frozenset({"dpop"})]
    assert only(route("GET /a", access="authenticated")).binding is None


def test_a_default_names_a_known_permission() -> None:
    """`read = "orders:raed"` does not load."""
    assert problem(
        file(
            service(read="orders:raed", write="orders:write"),
            permissions=list(VOCABULARY),
        )
    ) == (
        "orders.toml",
        ("service", "read"),
        'service "orders": read: unknown permission "orders:raed"',
        'did you mean "orders:read"? (orders.toml:permissions.orders:read)',
    )


def test_an_owner_alone_opens_nothing() -> None:
    """Otherwise a deleted `require` beside it would load, and permit more (R84)."""
    spec = RouteSpec(("route", 0), ("GET",), "/{id}", owner=OwnerSpec("id"))

    (only,) = problems(file(service(), spec))

    assert "exactly one of access and require" in only.message
    assert 'require = "@owner"' in only.suggestion


# --- WebSockets and streams


def test_a_route_says_what_its_websockets_may() -> None:
    """Origins in one spelling; without, any page."""
    spec = SocketsSpec(10, 2, ("HTTPS://Shop.Example:443", "none", "http://a:8080"))
    found = only(route("GET /a", access="authenticated", websocket=spec))
    assert found.websocket == Sockets(
        10, 2, frozenset({"https://shop.example", "none", "http://a:8080"})
    )
    found = only(route("* /a", access="authenticated", websocket=SocketsSpec()))
    assert found.websocket == Sockets()
    assert only(route("GET /a", access="authenticated")).websocket is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"websocket": SocketsSpec(per_subject=0)}, "at least 1"),
        ({"websocket": SocketsSpec(origins=())}, "lets nobody pass"),
        ({"websocket": SocketsSpec(origins=("null",))}, '"null" is no origin'),
        ({"websocket": SocketsSpec(origins=("*",))}, '"*" is no origin'),
        ({"websocket": SocketsSpec(origins=("shop.example",))}, "is no origin"),
        ({"at_expiry": "close"}, "at_expiry is for streams"),
        ({"at_expiry": "finish"}, "at_expiry is for streams"),
        ({"stream": True, "at_expiry": "finsh"}, '"close" or "finish" belongs here'),
    ],
)
def test_what_a_route_can_not_mean_is_named(said: dict[str, Any], words: str) -> None:
    """Each with its route."""
    spec = route("GET /a", access="authenticated", **said)
    (problem,) = problems(file(service(), spec, permissions=[]))
    assert words in problem.message
    assert problem.message.startswith('route "')


def test_a_websocket_begins_with_a_get() -> None:
    """A route that serves none would never have one."""
    spec = route("POST /a", access="authenticated", websocket=SocketsSpec())
    (problem,) = problems(file(service(), spec, permissions=[]))
    assert "begins with a GET" in problem.message


@pytest.mark.parametrize(
    ("said", "streams", "ends"),
    [
        ({}, False, False),
        ({"stream": True}, True, True),
        ({"stream": True, "at_expiry": "close"}, True, True),
        ({"stream": True, "at_expiry": "finish"}, True, False),
    ],
)
def test_a_stream_ends_with_its_token_unless_it_may_finish(
    said: dict[str, Any], streams: bool, ends: bool
) -> None:
    """The safe one is what one gets by saying nothing."""
    found = only(route("GET /a", access="authenticated", **said))
    assert (found.stream, found.ends_with_token) == (streams, ends)


KEYED = {**ONE, "api_keys": IssuerGrants("api_keys", frozenset(), "ignore", "ignore")}


def test_api_keys_count_by_their_kind() -> None:
    """Their issuer need not be named, and to name it makes nobody count."""
    for issuers in (None, ("corp",), ("corp", "api_keys")):
        found = policy(
            file(
                service(issuers=issuers, read="orders:read"),
                route("GET /both/a", credentials=("bearer", "api_key")),
                route("GET /keys/a", credentials=("api_key",)),
                route("GET /tokens/a"),
                permissions=["orders:read"],
            ),
            issuers=KEYED,
        )
        by_path = {each.path: each.route.issuers for each in found.listings}
        assert by_path["/api/both/a"] == {"corp", "api_keys"}
        assert by_path["/api/keys/a"] == {"api_keys"}
        assert by_path["/api/tokens/a"] == {"corp"}
        assert by_path["/api/{rest...}"] == {"corp"}


def test_a_service_may_take_api_keys_alone() -> None:
    """Where no issuer of tokens is."""
    keys = {"api_keys": KEYED["api_keys"]}
    spec = service(credentials=("api_key",), read="orders:read")
    found = policy(file(spec, "GET /a/b", permissions=["orders:read"]), issuers=keys)
    assert {each.issuers for each in found.routes} == {frozenset({"api_keys"})}


def test_a_route_for_tokens_needs_somebody_who_gives_them() -> None:
    """Where there are keys alone, and it doesn't take them."""
    keys = {"api_keys": KEYED["api_keys"]}
    spec = service(read="orders:read")
    public = route("GET /b/c", access="public", public_reason="for all")
    said = problems(
        file(spec, "GET /a/b", public, permissions=["orders:read"]), issuers=keys
    )
    assert [(each.at, each.suggestion) for each in said] == [
        (("route", 0, "credentials"), 'credentials = ["api_key"]'),
        (("service", "read"), 'credentials = ["api_key"]'),
    ]


def test_an_owner_is_of_one_issuer_also_beside_api_keys() -> None:
    """The caller is (issuer, subject): whose subject equals the parameter?"""
    both = service(credentials=("bearer", "api_key"))
    at, said = problem(file(both, route("GET /{id}", owner="id")), issuers=KEYED)[1:3]
    assert at == ("route", 0, "owner")
    assert "owner: name the issuer (corp, api_keys)" in said
    for kinds, issuer in ((("bearer",), "corp"), (("api_key",), "api_keys")):
        found = policy(
            file(both, route("GET /{id}", owner="id", credentials=kinds)), issuers=KEYED
        )
        (listed,) = found.listings
        assert listed.requires.endswith(f"sub of {issuer})")
    owner = OwnerSpec("id", issuer="corp")
    wrong = route("GET /{id}", owner=owner, credentials=("api_key",))
    assert "doesn't accept issuer" in problem(file(both, wrong), issuers=KEYED)[2]

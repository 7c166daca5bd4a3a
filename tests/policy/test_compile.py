"""gateway.policy.compile: a whole policy, or every problem of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial
from gateway.policy.compile import any_route, compile_policy
from gateway.policy.policy import Policy
from gateway.policy.spec import (
    KeyPath,
    OwnerSpec,
    PolicyFile,
    RoleSpec,
    RouteSpec,
    ServiceSpec,
)
from tests.policy.making import (
    ONE,
    TWO,
    VOCABULARY,
    compiled,
    decide,
    file,
    head,
    line,
    matched,
    policy,
    principal,
    problem,
    problems,
    route,
    service,
    verdict,
)

SPEC = service()


@pytest.mark.parametrize(
    ("spec", "key", "message", "suggestion"),
    [
        (
            replace(SPEC, name="or:ders"),
            "name",
            "a name is letters, digits, _ and -",
            "",
        ),
        (replace(SPEC, name="*"), "name", "a name is letters, digits, _ and -", ""),
        (replace(SPEC, name=""), "name", "a name is letters, digits, _ and -", ""),
        (
            replace(SPEC, name="opa"),
            "name",
            '"opa" is taken: "opa:x" names an authorizer',
            "",
        ),
        (
            replace(SPEC, upstream="order"),
            "upstream",
            'unknown upstream "order"',
            'did you mean "orders"?',
        ),
        (
            replace(SPEC, prefix="/api/"),
            "prefix",
            "a prefix has no slash at its end",
            'write "/api"',
        ),
        (
            replace(SPEC, prefix="/{x}"),
            "prefix",
            "a prefix has no parameters",
            "",
        ),
        (
            replace(SPEC, prefix="/auth/x"),
            "prefix",
            "/auth and all below it is the gateway's own",
            "",
        ),
        (
            replace(SPEC, prefix="/.well-known"),
            "prefix",
            "/.well-known and all below it is the gateway's own",
            "",
        ),
        *(
            (
                replace(SPEC, hosts=(host,)),
                "hosts",
                f'"{host}" is not a host: a name, without port and wildcard',
                "",
            )
            for host in ("", "a:80", "*.a", "a/b", "a.", ".a", "a..b", "u@a", "a b")
        ),
        (
            replace(SPEC, binding=("key",)),
            "binding",
            'nothing is bound to "key"',
            "known: dpop, ip, mtls",
        ),
        (
            replace(SPEC, credentials=("basic",)),
            "credentials",
            'unknown credential kind "basic"',
            "known: api_key, bearer, certificate, ticket",
        ),
        (
            replace(SPEC, credentials=()),
            "credentials",
            "an empty list lets nobody pass",
            "",
        ),
        (
            replace(SPEC, audience=()),
            "audience",
            "an empty audience lets nobody pass",
            "",
        ),
        (
            replace(SPEC, credentials_to_upstream="keep"),
            "credentials_to_upstream",
            '"strip" or "pass" belongs here',
            "",
        ),
        (
            replace(SPEC, issuers=()),
            "issuers",
            "an empty list lets nobody pass",
            "",
        ),
        (
            replace(SPEC, issuers=("crop",)),
            "issuers",
            'unknown issuer "crop"',
            'did you mean "corp"?',
        ),
    ],
)
def test_what_is_wrong_with_a_service_is_said_at_its_place(
    spec: ServiceSpec, key: str, message: str, suggestion: str
) -> None:
    """A service that can't be placed, or lets nobody pass, does not load."""
    found = compile_policy(
        [replace(file(spec, "GET /a"), file="orders.toml")],
        issuers=ONE,
        upstreams={"orders"},
        own_prefix="/auth",
        line=line,
    )

    assert isinstance(found, list)
    (only,) = found
    assert (only.file, only.at) == ("orders.toml", ("service", key))
    assert only.message == f'service "{spec.name}": {message}'
    assert only.suggestion == suggestion


@pytest.mark.parametrize("host", ["a", "A.Example", "a_b.x-y", "[::1]", "10.0.0.1"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    """In any case of letters; it is compared in lower case."""
    of = policy(file(service(hosts=[host]), "GET /a"))

    assert matched(of, "GET", "/api/a", host=host.lower()) == "orders.get:/a"


def test_with_several_issuers_a_service_says_whose_tokens_count() -> None:
    """One issuer is the default only while it is the only one."""
    assert problem(file(SPEC, "GET /a"), issuers=TWO) == (
        "orders.toml",
        ("service", "issuers"),
        'service "orders": say whose tokens count: issuers (corp, partner)',
        "",
    )
    both = policy(
        file(replace(SPEC, issuers=("corp", "partner")), "GET /a"), issuers=TWO
    )
    assert both.routes[0].issuers == {"corp", "partner"}
    one = policy(file(replace(SPEC, issuers=("partner",)), "GET /a"), issuers=TWO)
    assert one.routes[0].issuers == {"partner"}


@pytest.mark.parametrize(
    ("made", "at", "message"),
    [
        (
            file(None, "GET /a"),
            ("route", 0),
            "a route belongs to a service: this file has no [service]",
        ),
        (
            file(None, "GET /a", operators=True),
            ("route", 0),
            "a route belongs to a service: this file has no [service]",
        ),
        (file(None), (), "a policy file has a [service]"),
    ],
)
def test_a_policy_file_is_a_services(
    made: PolicyFile, at: KeyPath, message: str
) -> None:
    """Only operators' files go without one, and they have no routes."""
    _, place, said, _ = problem(made)

    assert (place, said) == (at, message)


def test_two_services_do_not_share_a_name() -> None:
    """Both places are named."""
    found = problem(
        file(service("a", "/a"), "GET /x", name="one.toml"),
        file(service("a", "/b"), "GET /y", name="two.toml"),
    )

    assert found == (
        "two.toml",
        ("service", "name"),
        'two services are named "a" (the first at one.toml:service.name)',
        "",
    )


# --- routes between which nothing decides


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("GET /a", "GET /a"),
        ("GET /{x}", "GET /{y}"),
        ("GET /{x:int}/b", "GET /{y:int}/b"),
        ("GET /{x...}", "GET /{y...}"),
        ("GET /a", "HEAD /a"),
        ("HEAD /a", "GET /a"),
        ("GET,POST /a", "POST,PUT /a"),
        ("* /a", "GET /a"),
        ("PROPFIND /a", "* /a"),
        ("* /a", "* /a"),
        ("GET /", "GET /"),
    ],
)
def test_two_routes_of_one_shape_and_method_do_not_load(one: str, two: str) -> None:
    """The names of parameters tell nothing apart; both lines are named."""
    files = file(SPEC, route(one, id="one"), route(two, id="two"))

    assert problem(files) == (
        "orders.toml",
        ("route", 1, "path"),
        (
            'route "two" is for the same paths and method as route "one" '
            "(orders.toml:route.0)"
        ),
        "",
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("GET /a", "POST /a"),
        ("GET /{x}", "POST /{y}"),
        ("GET /{x}", "GET /{x:int}"),
        ("GET /{x:uuid}", "GET /{x:int}"),
        ("GET /a", "GET /a/"),
        ("GET /", "GET /{rest...}"),
        ("HEAD /a", "POST /a"),
    ],
)
def test_routes_that_something_tells_apart_load(one: str, two: str) -> None:
    """By method, or by how specific they are."""
    assert isinstance(compiled(file(SPEC, one, two)), Policy)


@pytest.mark.parametrize(
    ("outer", "inner", "path"),
    [
        ("GET /orders", "GET /", "orders"),
        ("GET /orders/", "GET /", "orders"),
        ("GET /orders/{x}", "GET /{y}", "orders"),
        ("GET /orders/{x...}", "GET /{y...}", "orders"),
    ],
)
def test_shapes_are_compared_across_services(outer: str, inner: str, path: str) -> None:
    """Full paths count, so a linked service can't repeat its neighbour's route."""
    found = problem(
        file(service("outer", "/api"), route(outer, id="o")),
        file(service("inner", f"/api/{path}", inside="outer"), route(inner, id="i")),
    )

    assert found[0] == "inner.toml"
    assert found[2] == (
        'route "i" is for the same paths and method as route "o" (outer.toml:route.0)'
    )


def test_ids_are_unique() -> None:
    """In logs and tests an id means one route."""
    assert problem(
        file(
            replace(SPEC, read="orders:read"),
            *(route("GET /a", id="x"), route("GET /b", id="x")),
            permissions=["orders:read"],
        )
    ) == (
        "orders.toml",
        ("route", 1, "id"),
        'two routes have the id "x" (the first at orders.toml:route.0)',
        "",
    )
    assert problem(
        file(
            replace(SPEC, read="orders:read"),
            route("GET /a", id="orders.read"),
            permissions=["orders:read"],
        )
    ) == (
        "orders.toml",
        ("service", "read"),
        'two routes have the id "orders.read" (the first at orders.toml:route.0)',
        "",
    )


@pytest.mark.parametrize("said", ["GET /{all...}", "POST /{all...}", "* /{all...}"])
def test_a_route_for_all_paths_leaves_none_to_the_defaults(said: str) -> None:
    """It owns every method of every path: `read` and `write` would never be asked."""
    spec = replace(SPEC, read="orders:read", write="orders:write")
    found = problems(file(spec, route(said, id="all"), permissions=list(VOCABULARY)))

    assert [(it.at, it.message) for it in found] == [
        (
            ("service", key),
            (
                f'service "orders": {key} is for paths that no route names, '
                'and route "all" names them all (orders.toml:route.0)'
            ),
        )
        for key in ("read", "write")
    ]


def test_defaults_of_linked_services_do_not_meet() -> None:
    """Each is for what is below its own prefix; of one prefix only one may be."""
    outer = service("a", "/api", read="a:r")
    files = [
        file(outer, permissions=["a:r"]),
        file(service("b", "/api/b", inside="a", read="b:r"), permissions=["b:r"]),
    ]
    of = policy(*files)
    assert matched(of, "GET", "/api/x") == "a.read"
    assert matched(of, "GET", "/api/b/x") == "b.read"

    same = file(service("b", "/api", inside="a", read="b:r"), permissions=["b:r"])
    _, at, message, _ = problem(files[0], same)
    assert at == ("service", "read")
    assert message == (
        'route "b.read" is for the same paths and method as route "a.read" '
        "(a.toml:service.read)"
    )


def test_all_problems_of_all_files_are_found_together() -> None:
    """One run tells everything."""
    found = problems(
        file(
            replace(SPEC, inside="x"),
            route("GET /a", require="orders:nope"),
            "GETX /b",
            "GET /c",
            "GET /c",
            permissions=["billing:x"],
            roles={"r": ["zzz"]},
        ),
        file(service("billing", "/api/b", issuers=("nobody",)), "GET b"),
    )

    assert {(it.file, it.at[0]) for it in found} == {
        ("orders.toml", "permissions"),
        ("orders.toml", "roles"),
        ("orders.toml", "route"),
        ("orders.toml", "service"),
        ("billing.toml", "service"),
        ("billing.toml", "route"),
    }
    assert len(found) == 9


def test_an_empty_policy_serves_nothing() -> None:
    """What no file names is not there."""
    of = policy()

    assert of.routes == ()
    for method, path in itertools.product(["GET", "POST"], ["/", "/a", "/a/b"]):
        assert matched(of, method, path) == "route.unknown"


def test_the_order_of_files_and_routes_decides_nothing() -> None:
    """Every order of files gives the same route for every path (R84)."""
    files = [
        file(service("a", "/"), "GET /{x}/b", "GET /a/{y}", "GET /{r...}", "POST /a/b"),
        file(service("b", "/a/c", inside="a"), "GET /", "GET /{x:int}", "GET /{z}"),
        file(service("c", "/", hosts=["h"]), "GET /{x}", "GET /a"),
    ]
    mirrored = [replace(it, routes=it.routes[::-1]) for it in files]
    paths = ["/", "/a", "/a/b", "/q/b", "/a/c", "/a/c/", "/a/c/7", "/a/c/x", "/q/q/q"]
    said = {
        tuple(
            matched(of, method, path, host=host)
            for method in ("GET", "POST")
            for path in paths
            for host in ("h", "g")
        )
        for pool in (files, mirrored)
        for order in itertools.permutations(pool)
        for of in [policy(*order)]
    }

    assert len(said) == 1


def test_nobody_reads_or_changes_what_is_somebody_elses() -> None:
    """Every user, every user's resource, every verb: no call crosses (R86)."""
    users = ["1", "01", "1.0", "alice", "ALICE", "alice;x", "\uff11", "al ice", "*"]
    of = policy(
        file(
            SPEC,
            route("GET,PUT,DELETE /u/{id}", require="orders:read", owner="id"),
            route("POST /u/{id}/x", require=["orders:write", "@owner"], owner="id"),
            permissions=list(VOCABULARY),
            roles={"customer": ["orders:read", "orders:write"]},
        )
    )
    for who, whose in itertools.product(users, users):
        caller = principal(who, roles=["customer"])
        for method, path in [
            *((method, f"/api/u/{whose}") for method in ("GET", "HEAD", "PUT")),
            ("DELETE", f"/api/u/{whose}"),
            ("POST", f"/api/u/{whose}/x"),
        ]:
            said = decide(of, head(method, path), caller)
            assert said.startswith("allow") is (who == whose)


# --- a policy that loses something never permits more (R84)

PATHS = ["/", "/a", "/b", "/a/{id}", "/{id}", "/{id}/b", "/{n:int}", "/a/{rest...}"]
CALLS = [
    head(method, prefix + path)
    for method in ("GET", "POST")
    for prefix in ("/o", "/i")
    for path in ("", "/a", "/b", "/7", "/a/alice", "/a/bob/c", "/q/b", "/q/q")
]
NAMES = ["r", "w", "x"]


def requires(service: str) -> st.SearchStrategy[object]:
    permissions = st.sampled_from([f"{service}:{name}" for name in NAMES])
    return st.recursive(
        st.one_of(permissions, permissions, st.sampled_from(["@owner"])),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.lists(inner, min_size=1, max_size=3).map(lambda of: {"any": of}),
            st.lists(inner, min_size=1, max_size=3).map(lambda of: {"all": of}),
            st.just({"not": "@owner"}),
        ),
        max_leaves=5,
    )


@st.composite
def service_files(draw: st.DrawFn, name: str) -> PolicyFile:
    routes = []
    for number, path in enumerate(draw(st.lists(st.sampled_from(PATHS), unique=True))):
        require = draw(requires(name))
        has_id = "{id}" in path
        if "@owner" in str(require) and not has_id:
            require = f"{name}:r"
        routes.append(
            RouteSpec(
                ("route", number),
                (draw(st.sampled_from(["GET", "POST", "*"])),),
                path,
                id=f"{name}-{number}",
                require=require,
                owner=OwnerSpec("id") if has_id else None,
            )
        )
    default = st.sampled_from([None, *(f"{name}:{it}" for it in NAMES)])
    granted = st.lists(
        st.sampled_from([f"{name}:{it}" for it in NAMES]), min_size=1, unique=True
    )
    return PolicyFile(
        f"{name}.toml",
        ServiceSpec(
            ("service",),
            name,
            f"/{name}",
            name,
            read=draw(default),
            write=draw(default),
        ),
        {f"{name}:{it}": "" for it in NAMES},
        tuple(
            RoleSpec(("roles", role), role, tuple(draw(granted)))
            for role in draw(st.sets(st.sampled_from(["one", "two"])))
        ),
        tuple(routes),
    )


@st.composite
def operators_files(draw: st.DrawFn) -> PolicyFile:
    granted = st.lists(
        st.sampled_from(["o:r", "i:w", "*:r", "o:*", "*:*"]), min_size=1, max_size=2
    )
    roles = [RoleSpec(("roles", "three"), "three", tuple(draw(granted)))]
    if draw(st.booleans()):
        roles.append(RoleSpec(("roles", "one"), "one", (), ("three",)))
    return PolicyFile("roles.toml", None, {}, tuple(roles), (), operators=True)


worlds = st.tuples(service_files("o"), service_files("i"), operators_files())
World = tuple[PolicyFile, ...]
PEOPLE = [
    principal(name, roles=roles)
    for name in ("alice", "bob")
    for roles in ([], ["one"], ["two"], ["three"], ["one", "two"])
]
MAY_ASSERT = {
    "corp": replace(ONE["corp"], roles=frozenset({"one", "two", "three"})),
}


def without(items: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    return (*items[:index], *items[index + 1 :])


def put(items: tuple[Any, ...], index: int, item: object) -> tuple[Any, ...]:
    return (*items[:index], item, *items[index + 1 :])


def mutants(world: World) -> Iterator[World]:
    """Yield *world* with one thing deleted from it, or one word misspelt."""
    for index, of in enumerate(world):
        for mutant in _mutants(of):
            yield put(world, index, mutant)


def _mutants(of: PolicyFile) -> Iterator[PolicyFile]:
    for index, spec in enumerate(of.routes):
        yield replace(of, routes=without(of.routes, index))
        for words in _misspelt(spec.require):
            changed = replace(spec, require=words)
            yield replace(of, routes=put(of.routes, index, changed))
        if spec.owner is not None:
            changed = replace(spec, owner=OwnerSpec("idx"))
            yield replace(of, routes=put(of.routes, index, changed))
            changed = replace(spec, owner=OwnerSpec("id", "subx"))
            yield replace(of, routes=put(of.routes, index, changed))
        changed = replace(spec, methods=("GEX",))
        yield replace(of, routes=put(of.routes, index, changed))
    for index, role in enumerate(of.roles):
        yield replace(of, roles=without(of.roles, index))
        yield replace(of, roles=put(of.roles, index, replace(role, name="misspelt")))
        for key in ("permissions", "inherits"):
            words = getattr(role, key)
            for at in range(len(words)):
                for left in (without(words, at), put(words, at, words[at] + "x")):
                    changes: dict[str, Any] = {key: left}
                    less = replace(role, **changes)
                    yield replace(of, roles=put(of.roles, index, less))
    for name in of.permissions:
        rest = {it: "" for it in of.permissions if it != name}
        yield replace(of, permissions=rest)
        yield replace(of, permissions={**rest, name + "x": ""})
    if of.service is not None:
        for key in ("read", "write"):
            if getattr(of.service, key) is not None:
                for word in (None, "o:misspelt"):
                    said: dict[str, Any] = {key: word}
                    yield replace(of, service=replace(of.service, **said))


def _misspelt(value: object) -> Iterator[object]:
    if isinstance(value, str):
        yield value + "x"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for changed in _misspelt(item):
                yield [*value[:index], changed, *value[index + 1 :]]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield {key + "x": item}
            for changed in _misspelt(item):
                yield {key: changed}


def load(world: World) -> Policy | None:
    found = compiled(*world, issuers=MAY_ASSERT)
    return found if isinstance(found, Policy) else None


def allowed(of: Policy) -> set[tuple[int, int]]:
    return {
        (call, who)
        for call, request in enumerate(CALLS)
        for who, person in enumerate(PEOPLE)
        if decide(of, request, person).startswith("allow")
    }


@settings(deadline=None, max_examples=25)
@given(worlds, st.data())
def test_what_is_deleted_or_misspelt_never_permits_more(
    world: World, data: st.DataObject
) -> None:
    """Less in the files is less in the gate, or nothing loads.

    A path whose route is gone may be another route's then, one that is less specific:
    what that one permits, it permitted before wherever it applied.
    """
    before = load(world)
    if before is None:
        return
    held = allowed(before)
    routes = {it.id: it for it in before.routes}
    every = list(mutants(world))
    for number in data.draw(st.sets(st.integers(0, len(every) - 1), max_size=12)):
        after = load(every[number])
        if after is None:
            continue
        for call, who in allowed(after) - held:
            found = after.match(CALLS[call])
            assert not isinstance(found, Denial)
            now, params = found
            first = before.match(CALLS[call])
            # It was a route of its own, and that is the one that is gone ...
            gone = routes.keys() - {it.id for it in after.routes}
            assert _name(first) in gone
            # ... while the one that decides now was there, and says what it said.
            same = routes[now.id]
            said = verdict(before, CALLS[call], same, params, PEOPLE[who])
            assert said == f"allow {now.id}"


def _name(found: object) -> str:
    if isinstance(found, Denial):
        return "" if found.route is None else found.route.id
    assert isinstance(found, tuple)
    name: str = found[0].id
    return name


def test_the_property_sees_mutants_that_load() -> None:
    """The worlds above are not all refused, and their mutants are not either."""
    world = (
        file(
            service("o", "/o", read="o:r"),
            route("GET /a/{id}", require=["o:w", "@owner"], owner="id", id="x"),
            permissions=["o:r", "o:w"],
            roles={"one": ["o:r", "o:w"]},
        ),
    )
    assert load(world) is not None
    loaded = [it for it in mutants(world) if load(it) is not None]
    assert len(loaded) >= 5
    assert len(loaded) < len(list(mutants(world)))


def test_any_route_asks_for_a_token_and_no_more() -> None:
    """Of whichever issuer, for whatever path; or for a key, where there are keys."""
    for issuers, kinds in (
        (["corp", "home"], {"bearer"}),
        (["corp", "api_keys"], {"bearer", "api_key"}),
    ):
        for call in (head("GET", "/"), head("DELETE", "/a/b")):
            found = any_route(issuers).match(call)
            assert not isinstance(found, Denial)
            one, _ = found
            assert (one.access, one.needed, one.rule) == ("authenticated", 0, None)
            assert one.issuers == set(issuers)
            assert one.credentials == kinds

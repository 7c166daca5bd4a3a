"""gateway.policy.policy: what the main path, `explain` and `check` ask."""

from __future__ import annotations

import pytest

from gateway.model import ANONYMOUS, Case, Denial
from gateway.policy import policy as policy_module
from gateway.policy.policy import MAX_NAMED, Policy
from tests.policy.making import (
    VOCABULARY,
    end,
    file,
    head,
    policy,
    principal,
    route,
    service,
)

ROLES = {"customer": ["orders:read"]}


def load(hosts: tuple[str, ...] = ()) -> Policy:
    return policy(
        file(
            service(hosts=hosts, write="orders:write"),
            route("GET /", access="public", public_reason="load balancers ask"),
            route("GET /a", require=["orders:write", "orders:read"], id="a"),
            route("GET /b", access="authenticated"),
            route("GET /c", access="optional"),
            route("GET /{id}", require="orders:read", id="unowned"),
            route("GET /x/{id}", owner="id", require="orders:read", id="owned"),
            route("GET /{id}/y", access="public", public_reason="catalogue"),
            route("GET /z/{rest...}", require="orders:read"),
            permissions=list(VOCABULARY),
            roles=ROLES,
        )
    )


def test_permissions_have_names() -> None:
    """What is granted is said in sorted names, as the identity header says it."""
    of = load()

    assert of.permissions == ("orders:read", "orders:read_any", "orders:write")
    assert of.names(of.granted(principal(roles=["customer"]))) == ("orders:read",)
    assert of.names(0b101) == of.names(0b101) == ("orders:read", "orders:write")
    assert of.names(0) == ()
    assert of.roles == {"customer": 0b001}


def test_names_that_are_remembered_are_bounded() -> None:
    """However many sets of permissions callers hold, the memory ends."""
    of = load()
    of._named.update({-bits: () for bits in range(1, MAX_NAMED + 1)})

    assert of.names(0b001) == ("orders:read",)
    assert len(of._named) == 1


def test_a_denial_knows_route_and_principal() -> None:
    """The log says what was refused to whom; the challenge what would be needed."""
    of = load()
    who = principal(roles=["customer"])
    request = head("GET", "/api/a")
    found = of.match(request)
    assert not isinstance(found, Denial)
    denial = end(of.authorize(Case(request, *found, who, of.granted(who))))

    assert denial is not None
    assert str(denial) == "permission.missing:orders:write"
    assert denial.needed == ("orders:read", "orders:write")
    assert denial.route is found[0]
    assert denial.principal is who


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api", "allow orders.get:/"),
        ("/api/c", "allow orders.get:/c"),
        ("/api/b", "credential.missing"),
        ("/api/a", "credential.missing"),
        ("/api/x/1", "credential.missing"),
    ],
)
def test_nobody_passes_a_protected_route(path: str, said: str) -> None:
    """A second lock: even with every permission, an anonymous caller is refused."""
    of = load()
    request = head("GET", path)
    found = of.match(request)
    assert not isinstance(found, Denial)
    everything = (1 << len(of.permissions)) - 1
    denial = end(of.authorize(Case(request, *found, ANONYMOUS, everything)))

    assert (f"allow {found[0].id}" if denial is None else str(denial)) == said


def test_what_a_route_requires_is_said_in_words() -> None:
    """`explain` and `routes` read it out."""
    of = load()

    assert [(listing.path, of.describe(listing.route)) for listing in of.listings] == [
        ("/api", "nothing: public (load balancers ask)"),
        ("/api/a", "requires orders:write and orders:read"),
        ("/api/b", "any authenticated principal"),
        ("/api/c", "nothing; a credential that is presented must be good"),
        ("/api/{id}", "requires orders:read"),
        ("/api/x/{id}", "requires orders:read and @owner ({id} is sub of corp)"),
        ("/api/{id}/y", "nothing: public (catalogue)"),
        ("/api/z/{rest...}", "requires orders:read"),
        ("/api/{rest...}", "requires orders:write"),
    ]


def test_a_listing_says_where_and_how_a_route_is_reached() -> None:
    """Methods as they are served, the whole path, the hosts."""
    of = load(hosts=("b.example", "a.example"))
    first, *_, last = of.listings

    assert of.listing(first.route) is first
    assert (first.methods, first.path) == (("GET", "HEAD"), "/api")
    assert first.hosts == ("a.example", "b.example")
    assert (last.methods, last.route.id) == (("*",), "orders.write")


def test_check_is_told_of_public_and_of_unowned_routes() -> None:
    """Every weakening has a name: public with its reason, `{id}` without an owner."""
    of = load()

    assert [(it.id, reason) for it, reason in of.public] == [
        ("orders.get:/", "load balancers ask"),
        ("orders.get:/{id}/y", "catalogue"),
    ]
    assert [it.id for it in of.unowned] == ["unowned"]


def test_hosts_are_those_of_all_services() -> None:
    """Part of the allow-list; lower-case."""
    of = policy(
        file(service("a", "/a", hosts=["X.example", "y.example"]), "GET /"),
        file(service("b", "/b"), "GET /"),
    )

    assert of.hosts == {"x.example", "y.example"}
    assert load().hosts == frozenset()


def test_a_generation_is_named_after_what_it_says() -> None:
    """Equal in every process and for any order of files; another for another word."""
    one = file(service("a", "/a"), "GET /x")
    two = file(service("b", "/b"), "GET /x")
    other = file(service("b", "/b"), "GET /y")

    assert policy(one, two).generation == policy(two, one).generation
    assert policy(one, two).generation != policy(one, other).generation
    assert len(policy(one).generation) == 16


def test_what_was_matched_is_remembered_by_all_that_it_depends_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Method, host and raw path; boundedly, and never a refusal."""
    monkeypatch.setattr(policy_module, "MAX_MATCHED", 2)
    of = policy(file(service(), "GET,POST /a/{x}", "GET /b"))

    for _ in range(2):
        for method, path, value in [
            ("GET", "/api/a/1", "1"),
            ("POST", "/api/a/1", "1"),
            ("GET", "/api/a/2", "2"),
        ]:
            found = of.match(head(method, path))
            assert isinstance(found, tuple)
            assert (found[0].id, found[1]) == ("orders.get+post:/a/{x}", {"x": value})
        assert isinstance(of.match(head("DELETE", "/api/a/1")), Denial)
        assert isinstance(of.match(head("GET", "/api/a/" + "1" * 300)), tuple)
        assert isinstance(of.match(head("GET", "/api/a/1", raw=b"/api/a/%31")), tuple)
        found = of.match(
            head("GET", "/api/a/x", raw=b"/api/a/%2F", escapes=frozenset({"%2F"}))
        )
        assert isinstance(found, Denial)

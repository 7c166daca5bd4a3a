"""gateway.policy.spaces: services do not take paths from one another."""

from __future__ import annotations

import pytest

from gateway.policy.policy import Policy
from gateway.policy.spec import PolicyFile, ServiceSpec
from tests.policy.making import compiled, file, matched, policy, problem, service


def pair(one: ServiceSpec, two: ServiceSpec) -> list[PolicyFile]:
    return [file(one, "GET /a"), file(two, "GET /b")]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (service("a", "/a"), service("b", "/b")),
        (service("a", "/api"), service("b", "/apis")),
        (service("a", "/api/a"), service("b", "/api/b")),
        (service("a", "/", hosts=["x"]), service("b", "/", hosts=["y"])),
        (service("a", "/", hosts=["x"]), service("b", "/")),
        (service("a", "/api", hosts=["x"]), service("b", "/api/b")),
        (service("a", "/api", inside="b"), service("b", "/")),
        (service("a", "/", inside="b"), service("b", "/", inside="a")),
        (service("a", "/api", hosts=["x"], inside="b"), service("b", "/")),
        (service("a", "/api", inside="b"), service("b", "/", hosts=["x"])),
    ],
)
def test_spaces_that_are_apart_or_linked_load(
    one: ServiceSpec, two: ServiceSpec
) -> None:
    """Different prefixes, different hosts, or `inside`: the order doesn't matter."""
    assert isinstance(compiled(*pair(one, two)), Policy)
    assert isinstance(compiled(*pair(two, one)), Policy)


@pytest.mark.parametrize(
    ("one", "two", "wide", "inner"),
    [
        (service("a", "/"), service("b", "/"), "a", "b"),
        (service("a", "/api"), service("b", "/api/b"), "a", "b"),
        (service("a", "/api/b"), service("b", "/api"), "b", "a"),
        (service("a", "/"), service("b", "/b"), "a", "b"),
        (
            service("a", "/", hosts=["x", "y"]),
            service("b", "/b", hosts=["y", "z"]),
            "a",
            "b",
        ),
        (service("a", "/", hosts=["X"]), service("b", "/", hosts=["x"]), "a", "b"),
    ],
)
def test_spaces_that_overlap_do_not_load(
    one: ServiceSpec, two: ServiceSpec, wide: str, inner: str
) -> None:
    """Equal or nested prefixes on a common host are a problem naming both places."""
    assert problem(*pair(one, two)) == (
        "b.toml",
        ("service", "prefix"),
        'service "b": prefix overlaps that of service "a" (a.toml:service.prefix)',
        f'if it is meant, write inside = "{wide}" in service "{inner}"',
    )


def test_inside_reaches_through_several_services() -> None:
    """What is inside b, which is inside a, is inside a."""
    of = policy(
        file(service("c", "/x/y", inside="b"), "GET /c"),
        file(service("b", "/x", inside="a"), "GET /y/b"),
        file(service("a", "/"), "GET /x/y/a"),
    )

    for name in ("a", "b", "c"):
        assert matched(of, "GET", f"/x/y/{name}").startswith(f"{name}.get:")


def test_two_services_inside_a_third_are_still_fenced_from_each_other() -> None:
    """Each says what it is inside of; that says nothing of its neighbours."""
    files = [
        file(service("a", "/"), "GET /a"),
        file(service("b", "/x", inside="a"), "GET /b"),
        file(service("c", "/x/c", inside="a"), "GET /c"),
    ]

    where, at, message, _ = problem(*files)
    assert (where, at) == ("c.toml", ("service", "prefix"))
    assert message.startswith('service "c": prefix overlaps that of service "b"')


@pytest.mark.parametrize(
    ("one", "message", "suggestion"),
    [
        (
            service("a", "/api", inside="bb"),
            'service "a": unknown service "bb"',
            'did you mean "b"?',
        ),
        (service("a", "/api", inside="a"), 'service "a": is inside itself', "known: b"),
        (
            service("a", "/a", inside="b"),
            (
                'service "a": its prefix is not below that of service "b" '
                "(b.toml:service.prefix)"
            ),
            "",
        ),
        (
            service("a", "/b/c", hosts=["y"], inside="b"),
            (
                'service "a": it has no host in common with service "b" '
                "(b.toml:service.prefix)"
            ),
            "",
        ),
    ],
)
def test_inside_names_a_service_that_is_around(
    one: ServiceSpec, message: str, suggestion: str
) -> None:
    """A misspelt or misplaced `inside` does not load."""
    found = problem(*pair(one, service("b", "/b", hosts=["x"])))

    assert found == ("a.toml", ("service", "inside"), message, suggestion)


def test_a_deeper_space_on_a_host_has_the_word() -> None:
    """Below what linked services share, a host's own service is asked alone."""
    of = policy(
        file(service("wide", "/api"), "GET /{x}/end", "GET /a"),
        file(service("linked", "/api/l", hosts=["x"], inside="wide"), "GET /a"),
        file(service("own", "/api/o", hosts=["x"]), "GET /a"),
    )

    assert matched(of, "GET", "/api/l/a", host="x") == "linked.get:/a"
    assert matched(of, "GET", "/api/l/end", host="x") == "wide.get:/{x}/end"
    assert matched(of, "GET", "/api/o/a", host="x") == "own.get:/a"
    assert matched(of, "GET", "/api/o/end", host="x") == "route.unknown"
    assert matched(of, "GET", "/api/o/end") == "wide.get:/{x}/end"
    assert matched(of, "GET", "/api/l/a") == "route.unknown"


def test_a_link_counts_only_where_it_leads() -> None:
    """A service without hosts, inside one that has some, is reached on all hosts."""
    of = policy(
        file(service("outer", "/api", hosts=["x"]), "GET /{x}/b", "GET /a"),
        file(service("inner", "/api/i", inside="outer"), "GET /a"),
        file(service("apart", "/other"), "GET /a"),
    )

    assert matched(of, "GET", "/api/i/a", host="x") == "inner.get:/a"
    assert matched(of, "GET", "/api/i/b", host="x") == "outer.get:/{x}/b"
    assert matched(of, "GET", "/api/i/a", host="y") == "inner.get:/a"
    assert matched(of, "GET", "/api/i/b", host="y") == "route.unknown"
    assert matched(of, "GET", "/other/a", host="x") == "apart.get:/a"


def test_a_neighbour_without_hosts_is_no_part_of_a_hosts_space() -> None:
    """Linked only through a service that another host has, it is reached as ever."""
    of = policy(
        file(service("outer", "/", hosts=["x"]), "GET /{a}/{b}"),
        file(service("c", "/c", hosts=["x", "y"], inside="outer"), "GET /a"),
        file(service("d", "/d", inside="outer"), "GET /a"),
    )

    assert matched(of, "GET", "/d/a", host="y") == "d.get:/a"
    assert matched(of, "GET", "/d/b", host="y") == "route.unknown"
    assert matched(of, "GET", "/d/b", host="x") == "outer.get:/{a}/{b}"
    assert matched(of, "GET", "/c/b", host="y") == "route.unknown"


def test_services_of_one_host_stay_beside_each_other() -> None:
    """Two prefixes of a host are two spaces; what is outside both is everybody's."""
    of = policy(
        file(service("a", "/a", hosts=["x", "y"]), "GET /{p}"),
        file(service("b", "/b", hosts=["x"]), "GET /{p}"),
        file(service("rest", "/"), "GET /b/{p}", "GET /c"),
    )

    assert matched(of, "GET", "/a/1", host="x") == "a.get:/{p}"
    assert matched(of, "GET", "/b/1", host="x") == "b.get:/{p}"
    assert matched(of, "GET", "/b/1", host="y") == "rest.get:/b/{p}"
    assert matched(of, "GET", "/c", host="x") == "rest.get:/c"

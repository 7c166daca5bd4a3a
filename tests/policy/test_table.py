"""gateway.policy.table: the one route that decides, whatever the order of files."""

from __future__ import annotations

import random
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Reason
from gateway.policy import table as subject
from gateway.policy.policy import Policy
from gateway.policy.templates import RANK, Fault, Segments, parse_path
from tests.policy.making import file, head, matched, policy, route, service

UUID = "2f1c7a34-58f0-4b0e-9d51-0a1b2c3d4e5f"


def one(*routes: str, prefix: str = "/api") -> Policy:
    """Return a policy of one service whose routes are named by what they say."""
    return policy(file(service(prefix=prefix), *routes))


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        # the prefix itself
        ("GET", "/api", "GET /"),
        ("GET", "/api/", "GET /"),
        ("GET", "/ap", "route.unknown"),
        ("GET", "/apis", "route.unknown"),
        ("GET", "/", "route.unknown"),
        ("GET", "/API", "route.unknown"),
        # specific wins, left to right
        ("GET", "/api/a", "GET /a"),
        ("GET", "/api/7", "GET /{n:int}"),
        ("GET", f"/api/{UUID}", "GET /{u:uuid}"),
        ("GET", "/api/zz", "GET /{x}"),
        ("GET", "/api/zz/yy", "GET /{rest...}"),
        ("GET", "/api/a/b", "GET /a/{x}"),
        ("GET", "/api/7/b", "GET /{x}/b"),
        ("GET", "/api/7/c", "GET /{rest...}"),
        # a trailing slash is another path
        ("GET", "/api/a/", "GET /a/"),
        ("GET", "/api/zz/", "GET /{rest...}"),
        ("GET", "/api/a/b/", "GET /{rest...}"),
        # one reading of a segment
        ("GET", "/api/A", "GET /{x}"),
        ("GET", "/api/a ", "GET /{x}"),
        ("GET", "/api/\uff17", "GET /{x}"),
        # the winner owns every method of its path
        ("HEAD", "/api/a", "GET /a"),
        ("POST", "/api/a", "method.not_allowed"),
        ("POST", "/api/7", "method.not_allowed"),
        ("POST", "/api/zz", "POST /{y}"),
        ("get", "/api/a", "method.not_allowed"),
        ("GETX", "/api/a", "method.not_allowed"),
        ("", "/api/a", "method.not_allowed"),
        ("PUT", "/api/zz", "method.not_allowed"),
    ],
)
def test_the_most_specific_path_wins_and_owns_its_methods(
    method: str, path: str, said: str
) -> None:
    """Literal before typed before plain before rest, left to right; else 404 or 405."""
    of = one(
        "GET /{rest...}",
        "GET /{x}/b",
        "GET /{x}",
        "POST /{y}",
        "GET /{u:uuid}",
        "GET /{n:int}",
        "GET /a/{x}",
        "GET /a/",
        "GET /a",
        "GET /",
    )
    verb, _, template = said.partition(" ")
    expected = f"orders.{verb.lower()}:{template}" if template else said

    assert matched(of, method, path) == expected


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/a/b/c", "orders.get:/a/{x}/c"),
        ("/z/b/c", "orders.get:/{y}/b/c"),
        ("/a/b/d", "route.unknown"),
        ("/a/b", "route.unknown"),
        ("/z/z/c", "route.unknown"),
    ],
)
def test_a_dead_end_leads_back_to_the_next_specific_branch(
    path: str, said: str
) -> None:
    """Both templates begin like the path; only one that matches all of it counts."""
    assert matched(one("GET /a/{x}/c", "GET /{y}/b/c", prefix="/"), "GET", path) == said


@pytest.mark.parametrize(
    ("routes", "path", "params"),
    [
        (["GET /a"], "/api/a", {}),
        (["GET /{x}/{y:int}"], "/api/p/7", {"x": "p", "y": "7"}),
        (["GET /a/{r...}"], "/api/a/", {"r": ""}),
        (["GET /a/{r...}"], "/api/a/b/c", {"r": "b/c"}),
        (["GET /a/{r...}"], "/api/a/b/", {"r": "b/"}),
        (["GET /{x}/{r...}"], "/api/a/b", {"x": "a", "r": "b"}),
        (["GET /{r...}"], "/api", {"r": ""}),
        (["GET /{r...}"], "/api/", {"r": ""}),
        (["GET /{x}", "POST /{y}"], "/api/p", {"x": "p"}),
        (["GET /{x}"], "/api/al ice", {"x": "al ice"}),
    ],
)
def test_parameters_are_the_decoded_segments(
    routes: list[str], path: str, params: dict[str, str]
) -> None:
    """Each route has its own names for the segments it takes."""
    found = one(*routes).match(head("GET", path))

    assert not isinstance(found, Denial)
    assert dict(found[1]) == params


def test_a_rest_below_a_literal_needs_the_slash() -> None:
    """`/a/{rest...}` is for what is below `/a/`; `/a` is another path."""
    assert matched(one("GET /a/{rest...}"), "GET", "/api/a") == "route.unknown"


def test_a_route_for_the_prefix_is_more_specific_than_a_rest() -> None:
    """Where both could take the prefix without its slash, the literal one does."""
    of = one("GET /", "POST /{rest...}")

    assert matched(of, "GET", "/api") == "orders.get:/"
    assert matched(of, "POST", "/api") == "method.not_allowed"
    assert matched(of, "POST", "/api/a") == "orders.post:/{rest...}"


@pytest.mark.parametrize(
    ("routes", "allow"),
    [
        (["GET /a"], ("GET", "HEAD")),
        (["HEAD /a"], ("HEAD",)),
        (["POST,DELETE /a"], ("DELETE", "POST")),
        (["POST /a", "GET /a"], ("GET", "HEAD", "POST")),
    ],
)
def test_another_method_is_answered_with_those_that_are_served(
    routes: list[str], allow: tuple[str, ...]
) -> None:
    """405 names the methods of the path, sorted, with HEAD where GET is."""
    found = one(*routes).match(head("PUT", "/api/a"))

    assert isinstance(found, Denial)
    assert found.reason is Reason.METHOD_NOT_ALLOWED
    assert found.needed == allow
    assert found.route is not None


def test_a_star_serves_every_method() -> None:
    """`methods = ["*"]` leaves nothing for a 405."""
    of = one("* /a", "GET /{x}")

    for method in ("GET", "HEAD", "PATCH", "PROPFIND"):
        assert matched(of, method, "/api/a") == "orders.*:/a"


@pytest.mark.parametrize(
    ("escapes", "path", "method", "said"),
    [
        (set(), "/api/open/x", "GET", "orders.get:/open/{x}"),
        ({"%2F"}, "/api/open/a/b", "GET", "target.ambiguous:%2F"),
        ({"%2F"}, "/api/open/x", "GET", "orders.get:/open/{x}"),
        ({"%2F", "%25"}, "/api/open/x", "GET", "target.ambiguous:%25"),
        ({"%2F"}, "/api/shut/x", "GET", "target.ambiguous:%2F"),
        ({"%2F"}, "/nowhere", "GET", "target.ambiguous:%2F"),
        ({"%2F"}, "/api/shut/x", "POST", "target.ambiguous:%2F"),
        ({"%2F"}, "/api/open/x", "POST", "method.not_allowed"),
    ],
)
def test_an_escape_that_the_route_does_not_allow_is_ambiguous(
    escapes: set[str], path: str, method: str, said: str
) -> None:
    """`%2F` and its like are refused with 400 unless the route itself takes them."""
    of = policy(
        file(
            service(),
            route("GET /open/{x}", allow_encoded=("%2F",)),
            route("GET /shut/{x}"),
        )
    )

    assert matched(of, method, path, escapes=frozenset(escapes)) == said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/users/alice;x", "orders.get:/users/{id}"),
        ("/api/users/a;x/", "route.unknown"),
        ("/api/admin;x", "target.ambiguous:;"),
        ("/api/admin;x=1/drop", "orders.get:/{any}/drop"),
        ("/api/admin/;x", "route.unknown"),
        ("/api/users/7;x", "orders.get:/users/{id}"),
        ("/api/users/;x", "target.ambiguous:;"),
        ("/api/zz;x/drop", "orders.get:/{any}/drop"),
    ],
)
def test_path_parameters_do_not_lead_around_a_route(path: str, said: str) -> None:
    """A servlet container reads `/admin;x` as `/admin`: if another route's, 400."""
    of = one("GET /users/{id}", "GET /admin", "GET /{any}", "GET /{any}/drop")

    assert matched(of, "GET", path) == said


@pytest.mark.parametrize(
    ("prefix", "raw", "strip"),
    [
        ("/", b"/a", 0),
        ("/api", b"/api/a", 1),
        ("/api", b"/%61pi/%61", 1),
        ("/caf\u00e9/x", b"/caf%C3%A9/x/a", 2),
    ],
)
def test_a_prefix_is_stripped_by_its_segments(
    prefix: str, raw: bytes, strip: int
) -> None:
    """However a client spells the prefix, it has as many segments."""
    of = policy(
        file(service(prefix=prefix, strip_prefix=True, read="orders:r"), "GET /a"),
        file(None, permissions=["orders:r"], operators=True),
    )
    path = f"{prefix.rstrip('/')}/a"
    found = of.match(head("GET", path, raw=raw))

    assert not isinstance(found, Denial)
    assert found[0].id == "orders.get:/a"
    assert {route.strip for route in of.routes} == {strip}


@pytest.mark.parametrize(
    "more",
    [
        {"query": b"path=/api/a"},
        {"query": b"/api/a"},
        {"headers": ((b"x-forwarded-uri", b"/api/a"),)},
        {"headers": ((b"x-original-url", b"/api/a"),)},
        {"headers": ((b"x-http-method-override", b"GET"),)},
    ],
)
def test_nothing_but_path_host_and_method_is_looked_at(more: dict[str, Any]) -> None:
    """A path in the query or in a header moves a request nowhere (R12)."""
    of = one("GET /a", "POST /b")

    assert matched(of, "GET", "/api/private", **more) == "route.unknown"
    assert matched(of, "GET", "/api/b", **more) == "method.not_allowed"


@pytest.mark.parametrize(
    ("host", "path", "said"),
    [
        ("other", "/a", "all.get:/a"),
        ("other", "/b", "all.get:/b"),
        ("one", "/a", "one.get:/{x}"),
        ("one", "/b/c", "route.unknown"),
        ("two", "/a", "one.get:/{x}"),
        ("three", "/a", "all.get:/a"),
        ("three", "/deep", "route.unknown"),
        ("three", "/deeper", "route.unknown"),
        ("three", "/deep/a", "three.get:/a"),
        ("three", "/deep/b", "route.unknown"),
        ("three", "/deep/a/b", "route.unknown"),
        ("other", "/deep/b", "all.get:/deep/b"),
        ("ONE", "/b", "all.get:/b"),
    ],
)
def test_a_service_that_names_hosts_has_its_prefix_there_to_itself(
    host: str, path: str, said: str
) -> None:
    """On its hosts no route of a service without hosts counts, however specific."""
    of = policy(
        file(service("all", "/"), "GET /a", "GET /b", "GET /deep", "GET /deep/b"),
        file(service("one", "/", hosts=["one", "two"]), "GET /{x}"),
        file(service("three", "/deep", hosts=["three"]), "GET /a"),
    )

    assert matched(of, "GET", path, host=host) == said


@pytest.mark.parametrize(
    ("host", "path", "said"),
    [
        ("x", "/api/b", "inner.get:/b"),
        ("x", "/api/a", "inner.get:/a"),
        ("x", "/api/q", "inner.get:/{y}"),
        ("x", "/api/a/b", "outer.get:/a/b"),
        ("x", "/api/q/b", "outer.get:/{x}/b"),
        ("z", "/api/a", "outer.get:/a"),
        ("z", "/api/b", "outer.get:/{x}"),
    ],
)
def test_of_two_routes_of_one_shape_the_one_that_names_the_host_wins(
    host: str, path: str, said: str
) -> None:
    """Linked by `inside`, paths are compared first, then hosts."""
    of = policy(
        file(
            service("outer", "/api"),
            *("GET /a", "GET /{x}", "GET /a/b", "GET /{x}/b"),
        ),
        file(
            service("inner", "/api", hosts=["x"], inside="outer"),
            *("GET /b", "GET /{y}", "GET /a"),
        ),
    )

    assert matched(of, "GET", path, host=host) == said


# --- properties

TEXTS = ["a", "b", "7", UUID]
PIECES = [*TEXTS, "{p}", "{p:int}", "{p:uuid}"]


@st.composite
def templates(draw: st.DrawFn) -> str:
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4))
    end = draw(st.sampled_from(["", "", "/", "/{r...}"]))
    named = [piece.replace("p", f"p{at}") for at, piece in enumerate(pieces)]
    return "/" + "/".join(named) + end


paths = st.lists(st.sampled_from([*TEXTS, "z"]), min_size=1, max_size=5).flatmap(
    lambda parts: st.sampled_from(["", "/"]).map(lambda end: f"/{'/'.join(parts)}{end}")
)


def takes(template: Segments, segments: tuple[str, ...]) -> bool:
    """Tell whether *template* matches, the slow and obvious way."""
    for at, part in enumerate(template):
        if part.kind == "rest":
            return at < len(segments)
        if at == len(segments):
            return False
        text = segments[at]
        fits = {
            "literal": text == part.text,
            "int": text == "7",
            "uuid": text == UUID,
            "plain": text != "",
        }
        if not fits[part.kind]:
            return False
    return len(template) == len(segments)


def by_reference(written: list[str], path: str) -> str:
    """Return the template of the lowest rank among all that match."""
    segments = tuple(path[1:].split("/"))
    found = []
    for text in written:
        template = parse_path(text)
        assert not isinstance(template, Fault)
        if takes(template, segments):
            found.append(([RANK[part.kind] for part in template], text))
    return f"orders.get:{min(found)[1]}" if found else "route.unknown"


@settings(deadline=None, max_examples=150)
@given(st.lists(templates(), min_size=1, max_size=12), paths, st.randoms())
def test_the_winner_is_the_lowest_in_a_total_order(
    written: list[str], path: str, random_: random.Random
) -> None:
    """What the table finds is the least of all that match, however they are sorted."""
    unique = sorted(set(written))  # parameters are named by place: one for each shape
    expected = by_reference(unique, path)

    for _ in range(2):
        random_.shuffle(unique)
        of = one(*(f"GET {text}" for text in unique), prefix="/")
        assert matched(of, "GET", path) == expected


def visits(of: Policy, path: str) -> int:
    """Count the nodes looked at; a node takes one turn of a loop or one call."""
    count = 0

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code is subject._find.__code__

    request = head("GET", path)
    sys.setprofile(profile)
    try:
        of.match(request)
    finally:
        sys.setprofile(None)
    return count


def test_a_match_costs_no_more_with_more_routes() -> None:
    """Ten routes or a thousand: as many nodes are looked at."""
    few, many = (
        one(
            *(f"GET /r{n}/{{x}}/c" for n in range(count)),
            *(f"GET /{{x}}/s{n}/c" for n in range(count)),
        )
        for count in (5, 500)
    )

    for path in ("/api/r1/y/c", "/api/r1/s1/d", "/api/q/s2/c", "/api/q/q/q"):
        assert visits(few, path) == visits(many, path)


def test_the_worst_policy_bounds_the_search_by_its_own_mixtures() -> None:
    """Every mixture of literal, int and plain in five segments: 3^5 ways, no more."""
    mixtures = [""]
    for at in range(5):
        mixtures = [
            f"{text}/{piece}"
            for text in mixtures
            for piece in ("7", f"{{i{at}:int}}", f"{{p{at}}}")
        ]
    of = one(*(f"GET {text}/end" for text in mixtures), prefix="/")

    assert matched(of, "GET", "/7/7/7/7/7/end") == "orders.get:/7/7/7/7/7/end"
    assert visits(of, "/7/7/7/7/7/no") <= (3**6 - 1) // 2
    assert visits(of, "/7" * 5000) <= (3**6 - 1) // 2

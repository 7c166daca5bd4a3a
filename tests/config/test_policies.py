"""gateway.config.policies: the policy files become specs, or problems."""

from __future__ import annotations

import pytest

from gateway.config.problems import ConfigError
from gateway.model import Sockets
from tests.config.making import Project

ORDERS = "policies/orders.toml"
GLOB = 'policies = ["policies/*.toml"]'
SECOND = """version = 1
[service]
name = "stock"
prefix = "/api/stock"
upstream = "http://127.0.0.1:8001"
read = "stock:read"
[permissions]
"stock:read" = "See what is there"
"""


def test_a_second_service_is_found_by_the_glob(project: Project) -> None:
    """Files are read in the order of their names, each once."""
    project.write("policies/stock.toml", SECOND)
    project.edit(
        "gateway.toml", GLOB, 'policies = ["policies/*.toml", "**/orders.toml"]'
    )
    loaded = project.load()
    assert [path.name for path in loaded.files] == [
        "gateway.toml",
        "orders.toml",
        "stock.toml",
        "roles.toml",
    ]
    assert {route.service for route in loaded.policy.routes} == {"orders", "stock"}


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('policies = ["policy/*.toml"]', "no file matches this below ."),
        ('policies = ["policies"]', "no file matches this below ."),
        ('policies = ["policies/*.toml", "a\\u0000b"]', "expected a path"),
        ("policies = []", "policies: must not be empty"),
        ('policies = "policies/*.toml"', "policies: expected a list"),
        ("", 'missing key "policies"'),
        (GLOB + '\nrole = ["x"]', 'did you mean "roles"?'),
    ],
)
def test_a_glob_that_finds_nothing_is_a_problem(
    project: Project, new: str, words: str
) -> None:
    """And nothing is said of what the missing files would have held."""
    project.edit("gateway.toml", GLOB, new)
    problems = project.problems()
    assert words in project.report()
    assert len(problems) == 1


def test_globs_are_relative_to_the_file_that_says_them(project: Project) -> None:
    """Absolute ones are taken as they are."""
    project.write("over/lay.toml", 'policies = ["p/*.toml"]\n')
    project.write("over/p/orders.toml", project.read(ORDERS))
    loaded = project.load("gateway.toml", "over/lay.toml")
    assert project.path / "over" / "p" / "orders.toml" in loaded.files
    project.write("over/lay.toml", f'policies = ["{project.path}/policies/o*.toml"]\n')
    loaded = project.load("gateway.toml", "over/lay.toml")
    assert project.path / "policies" / "orders.toml" in loaded.files


def test_a_file_of_operators_may_inherit(project: Project) -> None:
    """Because `roles` names it; `policies` may name it too."""
    project.edit("gateway.toml", 'roles    = ["policies/roles.toml"]', "")
    report = project.report()
    assert "policies/roles.toml" in report
    assert "a policy file has a [service]" in report


def test_the_whole_of_a_route_is_understood(project: Project) -> None:
    """Every key of the language reaches the policy."""
    project.append(
        ORDERS,
        """
[[route]]
id = "orders.everything"
methods = ["PUT"]
path = "/everything/{id}"
require = { any = ["orders:write", { not = "@owner" }] }
owner = { param = "id", claim = "customer", issuer = "demo" }
audience = ["https://other.example"]
credentials = ["bearer"]
max_body = "1 GiB"
max_in_flight = 20
allow_encoded = ["%2F"]
credentials_to_upstream = "pass"
identity = { bind = "request" }
stream = true
at_expiry = "close"

[[route]]
id = "orders.live"
methods = ["GET"]
path = "/live"
access = "authenticated"
[route.websocket]
max_message = "64 KiB"
per_subject = 3
origins = ["https://a.example:443", "none"]

[[route]]
id = "orders.feed"
methods = ["*"]
path = "/feed"
access = "authenticated"
websocket = {}
stream = true
at_expiry = "finish"
""",
    )
    project.edit(
        ORDERS,
        'prefix   = "/api/orders"',
        'prefix = "/api/orders"\nstrip_prefix = true',
    )
    (route,) = [
        route
        for route in project.load().policy.routes
        if route.id == "orders.everything"
    ]
    assert route.access == "require"
    assert route.rule is not None
    assert route.audience == frozenset({"https://other.example"})
    assert route.max_body == 1024**3
    assert route.max_in_flight == 20
    assert route.escapes == {"%2F"}
    assert route.strip == 2  # segments
    assert route.pass_credentials
    assert route.bind_request
    assert (route.websocket, route.stream, route.ends_with_token) == (None, True, True)
    live, feed = (
        each
        for each in project.load().policy.routes
        if each.id in {"orders.live", "orders.feed"}
    )
    origins = frozenset({"https://a.example", "none"})
    assert live.websocket == Sockets(64 * 1024, 3, origins)
    assert (live.stream, live.ends_with_token) == (False, False)
    assert feed.websocket == Sockets(1024**2, 100, None)
    assert (feed.stream, feed.ends_with_token) == (True, False)
    header = project.read(ORDERS).index('[[route]]\nid = "orders.everything"')
    line = project.read(ORDERS).count("\n", 0, header) + 1
    assert route.place == f"{ORDERS}:{line}"
    assert {
        "escapes in route orders.everything",
        "credentials passed on by route orders.everything",
        "WebSockets from any page on route orders.feed",
    } <= set(project.weak())
    assert "WebSockets from any page on route orders.live" not in project.weak()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('access  = "optional"', "", "exactly one of access and require"),
        (
            'require = "orders:reports"',
            'require = "orders:report"',
            "unknown permission",
        ),
        ('require = "orders:reports"', "require = 7", "orders.reports"),
        ('methods  = ["DELETE"]', 'methods = ["GET"]', "for the same paths and method"),
        ('path    = "/status"', 'path = "status"', "orders.status"),
        ('issuers  = ["demo"]', 'issuers = ["dmo"]', 'did you mean "demo"?'),
        ('upstream = "orders"', 'upstream = "order"', 'did you mean "orders"?'),
        ('prefix   = "/api/orders"', 'prefix = "/auth/x"', "the gateway's own"),
        ('prefix   = "/api/orders"', 'prefix = "/.well-known"', "the gateway's own"),
        (
            "[roles.customer]",
            "[roles.customers]",
            'no policy file has [roles."customer"]',
        ),
        ('permissions = ["orders:read", "orders:write"]', "", "grants nothing"),
        ('permissions = ["orders:read", "orders:write"]', "permissions = []", "empty"),
        (
            'access  = "optional"',
            'access = "optional"\nwebsocket = { max_message = "1 GB" }',
            "expected a size",
        ),
        (
            'access  = "optional"',
            'access = "optional"\nwebsocket = { max_message = "1 B" }',
            "must be at least 1 KiB",
        ),
        (
            'access  = "optional"',
            'access = "optional"\nwebsocket = { per_subject = 0 }',
            "per_subject",
        ),
        (
            'access  = "optional"',
            'access = "optional"\nwebsocket = { origin = [] }',
            'did you mean "origins"?',
        ),
        ("version = 1", "version = 2", "this gateway reads version 1"),
        ("version = 1", "", 'missing key "version"'),
        ('"orders:read"     = "See', '"orders:read" = ["See', "not TOML"),
        ('"orders:read"     = "See your own orders"', '"orders:read" = 1', "a string"),
        ('name     = "orders"', 'name = "or ders"', "a name is letters"),
    ],
)
def test_each_mistake_is_named(
    project: Project, old: str, new: str, words: str
) -> None:
    """By the language, or by the policy: they are told alike."""
    assert words in project.edit(ORDERS, old, new).report()


def test_two_services_of_one_name_do_not_load(project: Project) -> None:
    """Both places are named."""
    project.write("policies/stock.toml", SECOND.replace('"stock"', '"orders"', 1))
    assert 'two services are named "orders"' in project.report()
    assert "policies/orders.toml:6" in project.report()


def test_problems_of_different_kinds_are_told_together(project: Project) -> None:
    """Language, references, policy; in one file and across files."""
    project.edit(
        ORDERS, 'require = "orders:reports"', 'require = "orders:report"\nlimit = 1'
    )
    project.edit(ORDERS, 'max_body = "256 KiB"', "max_body = 256")
    project.edit(ORDERS, "load balancers ask", "env:NOT_SET")
    project.edit("policies/roles.toml", '"customer", "support"', '"custmer"')
    project.edit("gateway.toml", "[probes]", "[probe]")
    said = "\n".join(problem.message for problem in project.problems())
    for words in (
        'unknown permission "orders:report"',
        'unknown key "limit"',
        "max_body: expected a size",
        "the environment has no variable NOT_SET",
        'inherits unknown role "custmer"',
        'unknown key "probe"',
    ):
        assert words in said


def test_a_broken_file_is_not_judged_by_what_it_lacks(project: Project) -> None:
    """Its roles and permissions are unknown: nobody's use of them is wrong."""
    project.edit(ORDERS, "[permissions]", "[permissions]\n=")
    (problem,) = project.problems()
    assert problem.file == ORDERS
    assert "not TOML" in problem.message


def test_env_works_in_a_policy_too(project: Project) -> None:
    """Unset it is a problem; set it is shown nowhere."""
    project.edit(
        ORDERS, 'prefix   = "/api/orders"', 'prefix = "env:PREFIX"\nhosts = ["env:H"]'
    )
    project.env.update(PREFIX="/canary-prefix", H="CANARY-host.example")
    loaded = project.load()
    assert loaded.policy.hosts == {"canary-host.example"}
    project.env["PREFIX"] = "canary-without-slash"
    with pytest.raises(ConfigError) as refused:
        project.load()
    assert "canary" not in str(refused.value)
    assert "env:PREFIX" in str(refused.value)

"""gateway.config.report: what `gateway check` prints."""

from __future__ import annotations

from gateway.config.report import render_check
from tests.config.making import Project

ORDERS = "policies/orders.toml"

EXAMPLE = """\
gateway.toml, policies/orders.toml, policies/roles.toml: no problems
1 service, 7 routes, 4 permissions, 3 roles, 1 issuer, 1 upstream

Accepted:
  revocations in memory       a demo on one machine                        gateway.toml:20:7
  public route orders.status  it says that the service is up, and no more  load balancers ask  policies/orders.toml:65

Permissions by a token of demo:
  a person       "limit"  has those that a role grants and its scope names too
  a service      "grant"  has those that its scope names, whatever its roles are
  any scope      names    orders:read orders:read_any orders:reports orders:write
  role admin     grants   orders:read orders:read_any orders:reports orders:write
  role customer  grants   orders:read orders:write
  role support   grants   orders:read_any orders:reports"""  # noqa: E501


def lines(project: Project) -> list[str]:
    return render_check(project.load()).split("\n")


def test_the_example_has_nothing_unexplained(project: Project) -> None:
    """Files, counts, accepted weakenings with both reasons, and what tokens grant."""
    text = render_check(project.load())
    said = [" ".join(line.split()) for line in text.split("\n")]
    assert said == [" ".join(line.split()) for line in EXAMPLE.split("\n")]


def test_weakenings_are_listed_with_reason_and_place(project: Project) -> None:
    """Those that nobody has accepted come first."""
    text = project.read("gateway.toml")
    project.write("gateway.toml", text[: text.index("[[check.accept]]")])
    said = lines(project)
    first = said.index("Weaker than it could be (to accept one, add [[check.accept]]):")
    assert said[first + 1].split() == [
        *("revocations", "in", "memory", "gateway.toml:20:7")
    ]
    assert "public route orders.status  load balancers ask" in said[first + 2]
    assert "Accepted:" not in said


def test_an_acceptance_of_nothing_is_reported(project: Project) -> None:
    """It may be misspelt, or outlived what it accepted."""
    project.edit("gateway.toml", '"revocations in memory"', '"revocation in memory"')
    text = render_check(project.load())
    assert "Accepted, but there is no such weakening:" in text
    assert 'did you mean "revocations in memory"?' in text
    assert "gateway.toml:46" in text
    project.edit("gateway.toml", '"revocation in memory"', '"what was"')
    assert "what was  gateway.toml:46" in render_check(project.load())


def test_routes_without_an_owner_are_listed(project: Project) -> None:
    """S25: an id in a path and no word on whose it is."""
    project.append(
        ORDERS,
        '[[route]]\nid = "orders.any"\nmethods = ["GET"]\npath = "/any/{id}"\n'
        'require = "orders:read"\n',
    )
    (line,) = [line for line in lines(project) if "orders.any" in line]
    assert "GET HEAD /api/orders/any/{id}" in line
    assert f"{ORDERS}:" in line


def test_without_weakenings_it_says_so(project: Project) -> None:
    """Silence could be a failure to look."""
    project.edit("gateway.toml", '"memory"', '"rediss://redis"')
    text = project.read(ORDERS)
    project.write(ORDERS, text[: text.rindex("[[route]]")])
    text = project.read("gateway.toml")
    project.write("gateway.toml", text[: text.index("[[check.accept]]")])
    assert "No weakenings." in lines(project)


def test_each_choice_of_scope_is_said_in_words(project: Project) -> None:
    """With the scope as the grant, roles are not listed; otherwise each role is."""
    project.edit("gateway.toml", 'user    = "limit"', 'user    = "grant"')
    text = render_check(project.load())
    assert "has those that its scope names" in text
    assert "role customer" not in text
    project.edit("gateway.toml", 'user    = "grant"', 'user    = "ignore"')
    project.edit("gateway.toml", 'service = "grant"', 'service = "limit"')
    text = render_check(project.load())
    assert "its scope is not looked at" in text
    assert "any scope" not in text
    project.edit("gateway.toml", 'user    = "ignore"', 'user    = "grant"')
    assert "role customer  grants   orders:read orders:write" in render_check(
        project.load()
    )

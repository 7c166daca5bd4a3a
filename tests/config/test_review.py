"""gateway.config.review: what routes need of gateway.toml, and what they weaken."""

from __future__ import annotations

import re

from tests.config.making import Project


def test_a_route_that_is_not_public_needs_identity_and_an_issuer(
    project: Project,
) -> None:
    """Somebody's word has to count, and the upstream has to be told whose."""
    text = project.read("gateway.toml")
    without = re.sub(r"(?s)\[issuer\.demo\].*?\[upstream", "[upstream", text)
    project.write("gateway.toml", without)
    report = project.report()
    assert "no [issuer.x]: nobody could call" in report
    assert '[identity] is missing: service "orders" has routes that are not' in report
    assert 'keys   = "dir:.gateway/identity"' in report

    routes = project.read("policies/orders.toml")
    public = routes[routes.rindex("[[route]]") :]
    service = routes[: routes.index("[permissions]")].replace('issuers  = ["demo"]', "")
    project.write("policies/orders.toml", service + public)
    project.write("policies/roles.toml", "version = 1\n")
    loaded = project.load()
    assert loaded.settings.identity is None
    assert not loaded.settings.issuers


def test_identity_for_the_one_upstream_is_enough(project: Project) -> None:
    """[upstream.x.identity] may say all of it."""
    text = project.read("gateway.toml")
    project.write("gateway.toml", re.sub(r"(?s)\[identity\].*?\n\n", "", text))
    project.edit(
        "gateway.toml",
        "[[check.accept]]",
        '[upstream.orders.identity]\nissuer = "https://x.example"\n'
        'keys = "dir:.gateway/identity"\n[[check.accept]]',
    )
    assert project.load().settings.identity is None

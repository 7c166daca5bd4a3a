"""gateway.config.validation: pydantic's findings in our words, with our places."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.gateway_file import Gateway
from gateway.config.policy_file import Policy
from gateway.config.validation import SCOPE_CHOICES, Validated, label, validate
from gateway.policy.spec import KeyPath

ISSUER = {
    "issuer": "https://a",
    "jwks": "discover",
    "audience": ["a"],
    "algorithms": ["ES256"],
    "token_types": ["JWT"],
    "scope": {"user": "limit", "service": "grant"},
}
ROUTE = {"id": "r", "methods": ["GET"], "path": "/"}


def gateway(*outside: KeyPath, **tables: Any) -> Validated[Gateway]:
    data = {"version": 1, "policies": ["p"], **tables}
    return validate(Gateway, data, file_of=lambda _: "f", outside=outside)


def policy(**tables: Any) -> Validated[Policy]:
    return validate(Policy, {"version": 1, **tables}, file_of=lambda _: "f")


def said(found: Validated[Any]) -> tuple[str, str, KeyPath]:
    (problem,) = found.problems
    return problem.message, problem.suggestion, problem.at


@pytest.mark.parametrize(
    ("found", "message", "suggestion", "at"),
    [
        (
            gateway(sevrer={}),
            'unknown key "sevrer"',
            'did you mean "server"?',
            ("sevrer",),
        ),
        (
            gateway(server={"hots": []}),
            'unknown key "hots" in [server]',
            'did you mean "hosts"?',
            ("server", "hots"),
        ),
        (
            gateway(issuer={"corp": {**ISSUER, "leway": "1s"}}),
            'unknown key "leway" in [issuer.corp]',
            'did you mean "leeway"?',
            ("issuer", "corp", "leway"),
        ),
        (
            gateway(check={"accept": [{"what": "a", "why": "b", "x": 1}]}),
            'unknown key "x" in [[check.accept]]',
            "known: what, why",
            ("check", "accept", 0, "x"),
        ),
        (
            gateway(users={}),
            'unknown key "users"',
            "this version does not know issuing tokens yet",
            ("users",),
        ),
        (
            policy(route=[{**ROUTE, "limit": {}}]),
            'route "r": unknown key "limit"',
            "this version does not know rate limits yet",
            ("route", 0, "limit"),
        ),
        (
            policy(conditions={}),
            'unknown key "conditions"',
            "this version does not know CEL conditions yet",
            ("conditions",),
        ),
        (
            policy(route=[ROUTE, {"methods": ["GET"]}]),
            '[[route]]: missing key "path"',
            "path: Relative to the prefix: {name}, {name:int}, {name:uuid}, {rest...}.",
            ("route", 1),
        ),
        (
            gateway(probes={}),
            'missing key "listen" in [probes]',
            "listen: Where to listen.",
            ("probes",),
        ),
        (
            gateway(version=2),
            "version: this gateway reads version 1 of the format",
            "",
            ("version",),
        ),
        (
            gateway(server=[]),
            "server: expected a table",
            "",
            ("server",),
        ),
        (
            gateway(server={"max_headers": "100"}),
            "max_headers: expected a whole number",
            "",
            ("server", "max_headers"),
        ),
        (
            gateway(server={"max_headers": True}),
            "max_headers: expected a whole number",
            "",
            ("server", "max_headers"),
        ),
        (
            gateway(server={"max_headers": 0}),
            "max_headers: must be at least 1",
            "",
            ("server", "max_headers"),
        ),
        (
            gateway(server={"max_headers": 1001}),
            "max_headers: must be at most 1000",
            "",
            ("server", "max_headers"),
        ),
        (
            gateway(server={"hosts": "a"}),
            "hosts: expected a list",
            "",
            ("server", "hosts"),
        ),
        (
            gateway(server={"listen": []}),
            "listen: must not be empty",
            "",
            ("server", "listen"),
        ),
        (
            gateway(server={"hosts": ["a", 1]}),
            'hosts: expected a host, such as "api.shop.example"',
            "",
            ("server", "hosts", 1),
        ),
        (
            gateway(headers={"underscores": "pas"}),
            'underscores: expected "drop", "reject" or "pass"',
            'did you mean "pass"?',
            ("headers", "underscores"),
        ),
        (
            gateway(("headers", "underscores"), headers={"underscores": "pas"}),
            'underscores: expected "drop", "reject" or "pass"',
            "",
            ("headers", "underscores"),
        ),
        (
            policy(service={"name": "a", "prefix": "/", "upstream": 1}),
            "upstream: expected a string",
            "",
            ("service", "upstream"),
        ),
        (
            policy(service={"name": "", "prefix": "/", "upstream": "u"}),
            "name: must not be empty",
            "",
            ("service", "name"),
        ),
        (
            policy(route=[{**ROUTE, "access": "publik"}]),
            (
                'route "r": access: expected "authenticated", "optional" or'
                ' { public = "why" }'
            ),
            "",
            ("route", 0, "access"),
        ),
        (
            policy(route=[{**ROUTE, "access": {"public": "x", "pubic": 1}}]),
            'route "r": unknown key "pubic"',
            'did you mean "public"?',
            ("route", 0, "access", "pubic"),
        ),
        (
            policy(route=[{**ROUTE, "owner": {"param": "x", "clam": "y"}}]),
            'route "r": unknown key "clam"',
            'did you mean "claim"?',
            ("route", 0, "owner", "clam"),
        ),
        (
            policy(roles={"a": {"permission": ["x"]}}),
            'unknown key "permission" in [roles.a]',
            'did you mean "permissions"?',
            ("roles", "a", "permission"),
        ),
    ],
)
def test_every_finding_is_said_in_words(
    found: Validated[Any], message: str, suggestion: str, at: KeyPath
) -> None:
    """What, in which table, what was probably meant, and where."""
    assert said(found) == (message, suggestion, at)
    assert found.model is None


def test_a_missing_scope_lists_what_each_choice_grants() -> None:
    """There is no default: the author has to know what it would grant."""
    issuer = {name: value for name, value in ISSUER.items() if name != "scope"}
    message, suggestion, at = said(gateway(issuer={"corp": issuer}))
    assert message == 'missing key "scope" in [issuer.corp]'
    assert suggestion == SCOPE_CHOICES.format(table="issuer.corp.scope")
    assert at == ("issuer", "corp")
    for choice in ("limit", "grant", "ignore"):
        assert f'"{choice}"' in suggestion


def test_a_wrong_header_name_is_marked_itself() -> None:
    """The key is wrong, not what it is mapped to."""
    identity = {"issuer": "i", "keys": "dir:k", "headers": {"Connection": "sub"}}
    (problem,) = gateway(identity=identity).problems
    assert (problem.at, problem.key) == (("identity", "headers", "Connection"), True)


def test_unknown_keys_that_mean_no_known_one_can_be_left_out() -> None:
    """The rest can be judged without them; not without a misspelt one."""
    assert gateway(server={"hosts": [], "limit": {}}).loose == (("server", "limit"),)
    assert gateway(server={"hosts": [], "hots": []}).loose == (("server", "hots"),)
    assert gateway(server={"hots": []}).broken == (("server", "hots"),)
    assert gateway(server={"max_head": 1}).broken == (("server", "max_head"),)


def test_tables_are_named_as_they_are_written() -> None:
    """Routes by their id, where they have one."""
    assert label(("server",), {}) == "[server]"
    assert label(("issuer", "a", "roles"), {}) == "[issuer.a.roles]"
    assert label(("check", "accept", 1), {}) == "[[check.accept]]"
    assert label(("route", 0), {"route": [{}]}) == "[[route]]"
    assert label(("route", 0, "owner"), {"route": [{"id": "x"}]}) == 'route "x"'

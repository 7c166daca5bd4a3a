"""gateway.cli.outages: what an outage would come to, before there is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.cli.outages import during, render_outages, summary
from gateway.model import Route
from tests.site import POLICY, Site

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
STORE = "rediss://redis.test.example"
ALLOWED = '[outage]\nrevocation = "allow-stale"\n'
# Of the policy's six routes two are not what [outage] says.
MIXED = POLICY.replace(
    'path    = "/catalogue"', 'path    = "/catalogue"\nrevocation = { outage = "deny" }'
).replace('path    = "/me"', 'path    = "/me"\nrevocation = { mode = "strict" }')
KEYS = '[api_keys]\nscope = "ignore"\n'
DECLARED = """
[[api_key]]
id      = "batch"
sha256  = "%s"
owner   = "ops"
expires = 2099-01-01T00:00:00Z
"""
ASKED = """
[issuer.asked]
issuer   = "https://asked.test.example"
audience = ["https://api.test.example"]
jwks     = "discover"
algorithms  = ["ES256"]
token_types = ["at+jwt"]
[issuer.asked.introspection]
url           = "https://asked.test.example/introspect"
client_id     = "gateway"
client_secret = "env:CLIENT"
cache         = "30s"
[issuer.asked.scope]
user    = "grant"
service = "grant"
"""


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (Route("r", "s", "u", "public"), "served: public"),
        (Route("r", "s", "u", "public", strict=True), "served: public"),
        (Route("r", "s", "u", "require"), "503 after 1s"),
        (Route("r", "s", "u", "optional"), "503 after 1s"),
        (Route("r", "s", "u", "require", strict=True), "503 at once: strict"),
        (
            Route("r", "s", "u", "require", stale=2.5),
            "by the old mirror for 2500ms, then 503",
        ),
    ],
)
def test_each_way_to_ask_comes_to_something(route: Route, said: str) -> None:
    """What is stricter comes to a 503 sooner."""
    assert during(route) == said


def test_the_page_shows_the_report_as_it_is(tmp_path: Path) -> None:
    """docs/operations.md; computed from routes that differ in all ways."""
    site = Site(tmp_path, store=STORE, more=ALLOWED, policy=MIXED)
    said = render_outages(site.load())

    text = OPERATIONS.read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(While the store is away:.*?)```", text, re.DOTALL)
    assert lines(block) == lines(said)


def test_in_one_line_it_is_what_routes_come_to(tmp_path: Path) -> None:
    """As the gateway logs it at its start."""
    mixed = Site(tmp_path, store=STORE, more=ALLOWED, policy=MIXED)
    assert summary(mixed.load()) == (
        "Store away: 1 route 503 at once: strict, 1 route 503 after 1s,"
        " 3 routes by the old mirror for 5s, then 503, 1 route served: public"
    )
    plain = Site(tmp_path, store=STORE)
    assert summary(plain.load()) == (
        "Store away: 5 routes 503 after 1s, 1 route served: public"
    )


def test_what_is_in_memory_is_never_away(tmp_path: Path) -> None:
    """Whatever [outage] says; issuers are away all the same."""
    loaded = Site(tmp_path, more=ALLOWED).load()
    assert summary(loaded) == render_outages(loaded, verbose=True)
    assert "never is" in summary(loaded)


def test_every_use_of_the_store_is_listed_where_it_is_used(tmp_path: Path) -> None:
    """Tickets, proofs and API keys; there is no line for what is not there."""
    nobody = POLICY.replace('"optional"', '"authenticated"')
    less = render_outages(Site(tmp_path, store=STORE, policy=nobody).load())
    for word in ("tickets", "DPoP", "API keys", "of these"):
        assert f"  {word}" not in less

    policy = POLICY.replace(
        'upstream = "orders"',
        'upstream = "orders"\ncredentials = ["bearer", "ticket", "api_key"]',
        1,
    ).replace('"customer_id"\n', '{ param = "customer_id", issuer = "corp" }\n')
    more = KEYS + DECLARED % ("ab" * 32)
    server = 'public_url = "https://api.test.example"'
    site = Site(tmp_path, store=STORE, more=more, policy=policy, server=server)
    said = lines(render_outages(site.load()))
    assert "tickets 503 at once, for 5 routes; none is given" in said
    assert "DPoP 503 at once for whoever presents a proof" in said
    assert "API keys those of [[api_key]] as tokens" in said
    assert "API keys those in the store 503, 1s after they were last read" in said

    site.more = KEYS
    undeclared = lines(render_outages(site.load()))
    assert "API keys those of [[api_key]] as tokens" not in undeclared


def test_an_issuer_that_is_away_is_told_of_too(tmp_path: Path) -> None:
    """Keys that are fetched, and tokens that are asked about; a file is never away."""
    site = Site(tmp_path, store=STORE, more=ASKED.replace("env:CLIENT", "file:s"))
    (tmp_path / "s").write_text("a secret of the client")
    (tmp_path / "s").chmod(0o600)
    site.policy = POLICY.replace(
        "[permissions]", 'issuers = ["corp", "asked"]\n\n[permissions]', 1
    ).replace('"customer_id"\n', '{ param = "customer_id", issuer = "asked" }\n')
    said = lines(render_outages(site.load()))
    at = said.index("While an issuer is away:")
    assert said[at + 1 :] == [
        f"issuer asked its last {word}"
        for word in (
            "good keys count for 1d, then 503; 503 for a key never seen",
            "word on a token counts for 30s, then 503",
        )
    ]


def test_the_command_names_each_route_when_asked(tmp_path: Path) -> None:
    """With its place, and only beside --outage."""
    site = Site(tmp_path, store=STORE, more=ALLOWED, policy=MIXED)
    call = ["check", "-c", str(site.write())]

    plain = CliRunner().invoke(main, call)
    brief = CliRunner().invoke(main, [*call, "--outage"])
    whole = CliRunner().invoke(main, [*call, "--outage", "--verbose"])
    wrong = CliRunner().invoke(main, [*call, "--verbose"])

    assert plain.output.splitlines()[-1].startswith("Store away: 1 route 503 at once")
    assert "allow-stale for 5s" in plain.output
    assert "Each route:" not in brief.output
    assert whole.output.startswith(brief.output.rstrip("\n"))
    (strict,) = [line for line in whole.output.splitlines() if "orders.me" in line]
    assert re.match(r"  orders\.me +503 at once: strict +\S*orders\.toml:\d+", strict)
    assert whole.output.count("  orders.") == 6
    assert [each.exit_code for each in (plain, brief, whole)] == [0, 0, 0]
    assert wrong.exit_code == 2

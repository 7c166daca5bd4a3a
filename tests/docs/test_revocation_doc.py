"""docs/revocation.md: its commands run, and its orders are orders."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.asgi.revocations import MAX_ORDERS, MAX_REASON, MAX_WAIT, NAMES, order_from
from gateway.cli import main
from gateway.cli.orders import BATCH, EXIT_NOT_EVERYWHERE
from gateway.tokens.logout import FRESH
from tests.redis_server import RedisServer
from tests.site import Site

TEXT = Path(__file__).parents[2].joinpath("docs/revocation.md").read_text("utf-8")
COMMANDS = re.findall(r"^gateway (.+?)(?: *#.*)?$", TEXT, re.MULTILINE)
LINES = re.findall(r"^\{.+\}$", TEXT, re.MULTILINE)


@pytest.fixture
def site(tmp_path: Path, redis_server: RedisServer) -> Site:
    site = Site(tmp_path, store=redis_server.url)
    site.write()
    return site


def run(site: Site, words: list[str], stdin: str = "") -> str:
    outcome = CliRunner().invoke(main, words, input=stdin)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_every_command_runs_as_it_stands(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the directory of the configuration, as an operator would."""
    monkeypatch.chdir(site.directory)
    for command in COMMANDS:
        run(site, shlex.split(command.partition(" < ")[0]))
    assert len(COMMANDS) == 13
    said = run(site, ["revoke", "--sub", "alice"])
    assert re.match(r"revoked: subject of corp; kept until 2\S+; ", said)


def test_every_order_is_one(site: Site) -> None:
    """Those of a file, and those of a body."""
    alone = [line for line in LINES if not line.startswith('{"orders"')]
    (listed,) = [json.loads(line)["orders"] for line in LINES if line not in alone]
    assert [order_from(order).kind for order in listed] == [
        "subject",
        "unblock",
    ]
    assert len(alone) == 3
    config = str(site.config)
    words = ["revoke", "-c", config, "--from", "-"]
    assert run(site, words, "\n".join(alone)).startswith("revoked: 3 entries;")


def test_names_and_bounds_are_those_of_the_code() -> None:
    """So that neither is changed alone."""
    for name in NAMES:
        assert f"`{name}`" in TEXT
    assert f"at most {MAX_REASON} characters" in TEXT
    assert f"at most `{MAX_WAIT:g}s`" in TEXT
    assert f"up to {MAX_ORDERS}:" in TEXT
    assert f"{BATCH} orders at a time" in TEXT
    assert f"{EXIT_NOT_EVERYWHERE} is: revoked, but not known" in TEXT
    assert FRESH == 120

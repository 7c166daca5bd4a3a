"""gateway.cli.dev: an ordinary configuration, made on the spot."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.app import Engine
from gateway.cli import main
from gateway.cli.dev import prepare
from gateway.config.load import load
from gateway.model import Permit
from tests.fakes import bearer, head_of


def made(directory: Path) -> tuple[Engine, dict[str, str]]:
    tokens = prepare(directory, upstream="http://127.0.0.1:9", listen="127.0.0.1:8080")
    return Engine(load([directory / "gateway.toml"], env={})), tokens


@pytest.mark.parametrize(
    ("who", "method", "verdict"),
    [
        ("alice", "GET", "permit"),
        ("alice", "DELETE", "permit"),
        ("bob", "GET", "permit"),
        ("bob", "POST", "permission.missing:app:write"),
        ("sam", "GET", "permission.missing:app:read"),
    ],
)
def test_its_people_may_what_their_roles_say(
    tmp_path: Path, who: str, method: str, verdict: str
) -> None:
    """Alice edits, bob views, sam has no role."""
    engine, tokens = made(tmp_path)
    head = head_of(b"/any/thing", bearer(tokens[who]), method=method)

    outcome = engine.decider.decide_now(head, time.time())

    assert ("permit" if isinstance(outcome, Permit) else str(outcome)) == verdict


def test_its_keys_survive_a_restart_and_are_private(tmp_path: Path) -> None:
    """A token of this morning is good this afternoon."""
    _, first = made(tmp_path)
    engine, _ = made(tmp_path)

    outcome = engine.decider.decide_now(
        head_of(b"/", bearer(first["alice"])), time.time()
    )

    assert isinstance(outcome, Permit)
    for file in (tmp_path / "issuer.pem", tmp_path / "identity" / "identity.pem"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80", ":80"])
def test_it_refuses_to_be_seen_from_elsewhere(tmp_path: Path, listen: str) -> None:
    """Its people's tokens are printed, so another flag is asked for (R99)."""
    words = ["dev", "--upstream", "http://127.0.0.1:9", "--dir", str(tmp_path / "d")]

    outcome = CliRunner().invoke(main, [*words, "--listen", listen])

    assert outcome.exit_code == 2
    assert "--allow-remote" in outcome.output
    assert not (tmp_path / "d").exists()


def test_an_upstream_that_is_none_is_a_configuration_problem(tmp_path: Path) -> None:
    """Said as `gateway check` would say it."""
    words = ["dev", "--upstream", "ftp://x", "--dir", str(tmp_path / "d")]

    outcome = CliRunner().invoke(main, words)

    assert outcome.exit_code == 3
    assert 'urls = ["ftp://x"]' in outcome.output

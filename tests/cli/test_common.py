"""gateway.cli.common: how a configuration with problems ends a command."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from gateway.cli import VERBS, main
from tests.site import Site


def test_every_problem_is_printed_and_the_exit_code_is_three(tmp_path: Path) -> None:
    """Apart from 1 (it failed) and 2 (the call's words are off): R46."""
    site = Site(tmp_path, server='max_hed = "16 KiB"\nworkers = 70')

    outcome = CliRunner().invoke(main, ["check", "-c", str(site.write())])

    assert outcome.exit_code == 3
    assert "max_head" in outcome.stderr
    assert "workers" in outcome.stderr


def test_a_missing_file_is_a_problem_like_any_other(tmp_path: Path) -> None:
    """Said with its name, without a traceback."""
    outcome = CliRunner().invoke(main, ["check", "-c", str(tmp_path / "none.toml")])

    assert outcome.exit_code == 3
    assert "none.toml" in outcome.stderr


def test_every_verb_is_there_and_says_what_it_does() -> None:
    """`gateway --help` lists them without loading any."""
    listed = CliRunner().invoke(main, ["--help"]).output

    for verb, what in VERBS.items():
        assert what in listed
        helped = CliRunner().invoke(main, [verb, "--help"])
        assert helped.exit_code == 0, helped.output


def test_an_unknown_verb_is_refused() -> None:
    """With exit code 2, as click has it."""
    assert CliRunner().invoke(main, ["serv"]).exit_code == 2

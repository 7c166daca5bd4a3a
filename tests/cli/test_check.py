"""gateway.cli.check: a configuration without problems, and what weakens it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from gateway.cli import main
from tests.site import Site


def test_what_loads_is_described_with_its_weakenings(tmp_path: Path) -> None:
    """Public routes are named with the reason that their author gave."""
    outcome = CliRunner().invoke(main, ["check", "-c", str(Site(tmp_path).write())])

    assert outcome.exit_code == 0
    assert "no problems" in outcome.output
    assert "load balancers ask" in outcome.output

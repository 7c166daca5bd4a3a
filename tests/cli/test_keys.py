"""gateway.cli.keys: keys that sign identity."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.identity.keys import signing_key_from_pem


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_generated_key_is_for_its_owner_only_and_loads(
    tmp_path: Path, algorithm: str
) -> None:
    """It is named by its time, so that the newest file signs."""
    call = ["keys", "generate", "--dir", str(tmp_path / "k"), "--algorithm", algorithm]

    outcome = CliRunner().invoke(main, call)

    assert outcome.exit_code == 0, outcome.output
    (file,) = (tmp_path / "k").glob("*.pem")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = signing_key_from_pem(file.read_bytes(), algorithm)  # type: ignore[arg-type]
    assert outcome.output.split() == [str(file), key.key_id]

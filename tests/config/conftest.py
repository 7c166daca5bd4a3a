"""A project to break, for every test of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.making import Project, copy_to


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the repository's configuration, which is where we stand."""
    monkeypatch.chdir(tmp_path)
    return copy_to(tmp_path)

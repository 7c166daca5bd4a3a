"""gateway.observe.process: what a process takes of its machine."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

import pytest

from gateway.observe import process
from gateway.observe.metrics import CPU, MAX_FDS, MEMORY, OPEN_FDS


def test_it_is_what_the_kernel_says(tmp_path: Path) -> None:
    """Memory in bytes, descriptors without the one that looks."""
    gc.collect()  # what earlier tests have left behind keeps descriptors
    before = {family: value for family, _, value in process.measure()}
    with (tmp_path / "a").open("w"), (tmp_path / "b").open("w"):
        after = {family: value for family, _, value in process.measure()}

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # The kernel counts both in batches, so that neither is exact.
    assert peak / 10 < before[MEMORY] < peak * 1.1
    assert after[OPEN_FDS] == before[OPEN_FDS] + 2
    assert after[MAX_FDS] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 0 < before[CPU] <= after[CPU]


def test_without_proc_it_says_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, or where /proc is hidden; no limit is no number."""
    monkeypatch.setattr(process, "_MEMORY", Path("/nowhere/statm"))
    monkeypatch.setattr(process, "_FDS", Path("/nowhere/fd"))
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)

    assert [family for family, _, _ in process.measure()] == [CPU]

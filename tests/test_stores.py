"""gateway.stores: what goes on from one generation to the next, and what doesn't."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.memory_store import MemoryRevocations
from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.app import CLOCK
from gateway.config.settings import Settings, Store
from gateway.stores import stores_of
from tests.site import Site

KEYS = '[api_keys]\nscope = "ignore"\n'


def settings_of(directory: Path, more: str = "") -> Settings:
    directory.mkdir()
    return Site(directory, more=more).load().settings


def test_memory_goes_on(tmp_path: Path) -> None:
    """What it has revoked, given and seen; API keys as soon as there are any."""
    plain = settings_of(tmp_path / "plain")
    keyed = settings_of(tmp_path / "keyed", KEYS)
    first = stores_of(plain, CLOCK)
    second = stores_of(keyed, CLOCK, first)
    third = stores_of(keyed, CLOCK, second)

    assert isinstance(first.revocations, MemoryRevocations)
    assert first.api_keys is None
    assert second.api_keys is not None
    for name in ("revocations", "tickets", "replays"):
        assert getattr(first, name) is getattr(third, name)
    assert third.api_keys is second.api_keys
    assert stores_of(plain, CLOCK).revocations is not first.revocations


@pytest.mark.parametrize("more", ["", KEYS])
async def test_in_redis_each_has_connections_of_its_own(
    tmp_path: Path, more: str
) -> None:
    """None before they are needed."""
    settings = settings_of(tmp_path / "site", more)
    settings = replace(settings, store=Store("redis://127.0.0.1:9/0"))
    stores = stores_of(settings, CLOCK, stale=3.0)
    try:
        assert isinstance(stores.revocations, MirroredRevocations)
        assert stores.revocations._stale == 3.0
        assert (stores.api_keys is not None) == bool(more)
    finally:
        await stores.aclose()


def test_who_keeps_everything_in_memory_imports_no_redis(tmp_path: Path) -> None:
    """It takes a tenth of a start, and 6 MB of a worker."""
    settings_of(tmp_path / "site", KEYS)
    program = f"""if True:
        import sys
        from pathlib import Path
        import gateway.serving
        from gateway.app import Engine
        from gateway.config.load import load
        Engine(load([Path({str(tmp_path)!r}, "site", "gateway.toml")], env={{}}))
        print(sorted({{"redis", "hiredis", "joserfc"}} & sys.modules.keys()))
    """
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout == "[]\n"

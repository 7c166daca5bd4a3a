"""gateway.adapters.key_sources: keys are read from files and URLs, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.provider import Ticks, answer
from tests.adapters.test_jwks import (
    NEW,
    OLD,
    client_of,
    good_provider,
    issuer,
    need,
    published,
)
from tests.tokens import make


@pytest.mark.parametrize(
    ("control", "fresh"),
    [
        ("", 300),
        ("cache-control: public, max-age=1000, must-revalidate", 800),
        ("cache-control: max-age=5", 60),
        ("cache-control: max-age=99999999", 3600),
        ("cache-control: s-max-age=1000", 300),
        ("cache-control: max-age=-1", 300),
        ("cache-control: max-age=99999999999999999999", 300),
    ],
)
async def test_a_set_is_fetched_again_before_it_is_old(
    control: str, fresh: int
) -> None:
    """After 80 % of what the source says, between a minute and an hour."""
    ticks, provider = Ticks(), good_provider()
    fields = [control] if control else []
    provider.answers["/jwks"] = answer(make.jwks(OLD), "200 OK", *fields)
    async with (
        provider.serving(),
        client_of(issuer(provider.url), ticks=ticks) as client,
    ):
        await client.start()

        assert client._held["corp"].due == ticks.now + fresh


async def test_a_key_set_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    """And only then; a broken one leaves the last good keys."""
    ticks, told = Ticks(), list[str]()
    file = tmp_path / "jwks.json"
    file.write_bytes(make.jwks(OLD))
    async with client_of(
        issuer(jwks_file=str(file)), ticks=ticks, on_change=told.append
    ) as client:
        assert client.find("corp", "old", "ES256") == published(OLD)

        held = client._held["corp"].keys
        await client.start()
        assert client._held["corp"].keys is held

        file.write_bytes(b"{")
        await client.start()
        assert client.find("corp", "old", "ES256") == published(OLD)
        assert "jwks file" in (client.health("corp") or "")

        file.unlink()
        await client.start()
        assert "No such file" in (client.health("corp") or "")

        file.write_bytes(make.jwks(NEW))
        ticks.now += 30
        assert await client.fetch(need("new")) == published(NEW)
        assert client.health("corp") is None
        assert told == ["corp"]

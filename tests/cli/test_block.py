"""gateway.cli.block: a subject is refused for a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_orders import order, run, told
from tests.redis_server import RedisServer
from tests.site import Site


@pytest.mark.parametrize("kept", ["memory", "redis"])
async def test_a_subject_is_blocked_for_as_long_as_said(
    tmp_path: Path, redis_server: RedisServer, kept: str
) -> None:
    """The entry ends by itself."""
    site = Site(tmp_path, store="memory" if kept == "memory" else redis_server.url)
    async with told(site):
        outcome = await order(site, "block", "--sub", "a", "--for", "24h")

    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.startswith("blocked: subject of corp; until 2")
    if kept == "redis":
        (key,) = redis_server.command("KEYS", "*:block:*")
        assert redis_server.command("GET", key).endswith(b":block")
        assert 86_390 < redis_server.command("TTL", key) <= 86_400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sub", "a"), "Missing option '--for'"),
        (("--for", "24h"), "Missing option '--sub'"),
        (("--sub", "a", "--for", "24"), "a time with its unit"),
        (("--sub", "a", "--for", "4000d"), "at most ten years"),
        (("--sub", "", "--for", "24h"), "1 to 255 characters"),
        (("--sub", "a", "--for", "1h", "--issuer", "crop"), "must be one of: corp"),
    ],
)
def test_words_that_are_off_are_said_to_be(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """With exit code 2; nothing is asked of anybody."""
    site = Site(tmp_path)
    site.write()

    outcome = run(site, "block", *words)

    assert outcome.exit_code == 2
    assert said in outcome.output

"""gateway.cli.unblock: a block ends before its time."""

from __future__ import annotations

from pathlib import Path

from tests.cli.test_orders import run
from tests.redis_server import RedisServer
from tests.site import Site


def test_what_lifts_a_block_outlives_it(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Else the block would be back when it ends."""
    site = Site(tmp_path, store=redis_server.url)
    site.write()

    blocked = run(site, "block", "--sub", "a", "--for", "30d")
    lifted = run(site, "unblock", "--sub", "a")

    assert (blocked.exit_code, lifted.exit_code) == (0, 0)
    assert lifted.output.startswith("unblocked: subject of corp; ")
    (key,) = redis_server.command("KEYS", "*:block:*")
    assert redis_server.command("GET", key).endswith(b":lift")
    assert redis_server.command("TTL", key) > 30 * 86_400


def test_nobody_is_unblocked_by_words_that_are_off(tmp_path: Path) -> None:
    """With exit code 2; nothing is asked of anybody."""
    site = Site(tmp_path)
    site.write()

    outcome = run(site, "unblock", "--sub", "a\nb")

    assert outcome.exit_code == 2
    assert "holds characters that no token can" in outcome.output

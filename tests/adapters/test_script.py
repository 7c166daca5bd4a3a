"""gateway.adapters.script: a script has the name that Redis gives it."""

from __future__ import annotations

from gateway.adapters.script import Script
from tests.redis_server import RedisServer


def test_a_script_is_known_by_its_digest(redis_server: RedisServer) -> None:
    """`EVALSHA` takes what `SCRIPT LOAD` says."""
    script = Script(b"return ARGV[1]")

    assert redis_server.command("SCRIPT", "LOAD", script.text) == script.digest

"""The users of Redis that the pages tell one to make."""

from __future__ import annotations

from pathlib import Path

from tests.redis_server import RedisServer

DOCS = Path(__file__).parents[2] / "docs"


def let_in(server: RedisServer, page: str) -> str:
    """Make the user of docs/revocation.md, with what *page* adds; return its URL."""
    for each in ("revocation.md", page):
        lines = (DOCS / each).read_text(encoding="utf-8").splitlines()
        (line,) = [line for line in lines if line.startswith("ACL SETUSER")]
        words = line.replace("<password>", "secret").split()
        assert server.command(*words) == b"OK", line
    return server.url.replace("redis://", f"redis://{words[2]}:secret@")

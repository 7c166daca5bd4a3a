"""Where the stores of these suites are: in memory, in Redis, in Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, binaries, start_redis


@pytest.fixture(scope="module", params=["memory", *binaries()])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | None]:
    """Each in turn; None stands for memory."""
    if request.param == "memory":
        yield None
    else:
        with start_redis(binary=request.param) as started:
            yield started

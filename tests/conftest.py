"""Fixtures that several rooms share."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.redis_server import RedisServer, start_redis

# How long an example takes says nothing while each line is counted, and little where
# several processes share the tests: there it has ten times what Hypothesis allows.
settings.register_profile("patient", deadline=None)
settings.register_profile("shared", deadline=2_000)  # milliseconds
settings.register_profile("brief", deadline=2_000, max_examples=25)
SHARED = "PYTEST_XDIST_WORKER" in os.environ
if SHARED:
    settings.load_profile("shared")

LONG = 40  # characters; a digest, a token or a key has more
EPOCH = 1e9  # Unix seconds; what is larger is a time of this run


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long text or a time by its argument: what is made anew differs.

    Processes that share the tests between them compare their names.
    """
    if isinstance(val, float):
        return argname if val > EPOCH else None
    return argname if isinstance(val, str | bytes) and len(val) > LONG else None


LONGEST = {"e2e", "tests", "proxy", "adapters"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is alone, then what takes long.

    So nobody waits for others to end before it can begin, and at the end each process
    has little left.
    """

    def place(item: pytest.Item) -> int:
        if item.get_closest_marker("alone") is not None:
            return 0
        return 1 if item.path.parent.name in LONGEST else 2

    if SHARED:
        items.sort(key=place)


@pytest.fixture(autouse=True)
def turn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Have no test beside one that is marked `alone`, where processes share the tests.

    Who waits to be alone waits at the door, past which nobody goes meanwhile.
    """
    if not SHARED:
        yield
        return
    alone = request.node.get_closest_marker("alone") is not None
    place = tmp_path_factory.getbasetemp().parent  # of all the processes
    with (place / "room").open("w") as room:
        with (place / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.fixture
def tmp_path(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a directory with a short name: a Unix socket's path has 107 bytes."""
    name = request.node.name.removeprefix("test_")
    return tmp_path_factory.mktemp(re.sub(r"\W", "_", name)[:10])


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A real Redis or Valkey of one's own, running."""
    with start_redis() as server:
        yield server

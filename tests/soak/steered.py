"""`gateway serve` with a name server of its own, whose workers tell of their tasks.

    python -m tests.soak.steered -c gateway.toml

The file `name_server` in the working directory says where that is; what it doesn't know
nobody knows. With each scrape of /metrics a worker writes to `tasks.PID` how many
tasks its loop has.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from gateway import serving
from gateway.cli.serve import command
from gateway.observe.metrics import Snapshot
from gateway.proxy.names import Found, Names
from gateway.proxy.server import DataPort
from gateway.serving import Worker

_snapshot = Worker.snapshot


async def nobody(host: str, port: int) -> Found:
    raise OSError(f"{host} is not found")


def snapshot(worker: Worker, lost: Mapping[str, int]) -> Snapshot:
    count = len(asyncio.all_tasks())
    Path(f"tasks.{os.getpid()}").write_text(str(count), encoding="ascii")
    return _snapshot(worker, lost)


if __name__ == "__main__":
    address = Path("name_server").read_text(encoding="ascii")
    find = Names(nobody, nameservers=[address]).find
    with (
        patch.object(serving, "DataPort", functools.partial(DataPort, resolve=find)),
        patch.object(Worker, "snapshot", snapshot),
    ):
        command()

"""A supervisor whose workers have measured their process ids, and it says so.

    python -m tests.e2e.supervised gateway.toml 2 15

The last number is how long, in seconds, a worker may be silent. Each line on standard
output is what its workers answered, half a second after the last.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from gateway import supervisor as module
from gateway.cli.common import reading
from gateway.cli.serve import Streams
from gateway.observe.access import to_json
from gateway.observe.metrics import MEMORY, Snapshot
from gateway.serving import Worker
from gateway.supervisor import Supervisor, supervise

tasks: list[asyncio.Task[None]] = []


def measured(_worker: Worker, _lost: Mapping[str, int]) -> Snapshot:
    return {MEMORY.name: {(str(os.getpid()),): [1.0]}}


async def say(supervisor: Supervisor) -> None:
    while True:
        found = [each.get(MEMORY.name, {}) for each in await supervisor.snapshots()]
        # Beside the workers the supervisor itself, under no number.
        answers = sorted(
            int(pid) for each in found for labels in each for pid in labels
        )
        print(json.dumps(answers), flush=True)  # noqa: T201
        await asyncio.sleep(0.5)


def on_ready(supervisor: Supervisor) -> None:
    tasks.append(asyncio.get_running_loop().create_task(say(supervisor)))


if __name__ == "__main__":
    vars(module)["SILENCE"] = float(sys.argv[3])
    reread = reading([Path(sys.argv[1])])
    streams = Streams(to_json, json_lines=True)
    streams.open(requests=False)
    with patch.object(Worker, "snapshot", measured):
        supervise(reread(), int(sys.argv[2]), streams, reread=reread, on_ready=on_ready)
    streams.close()

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
from pathlib import Path

from gateway import supervisor as module
from gateway.cli.common import reading
from gateway.cli.serve import Streams
from gateway.observe.access import to_json
from gateway.supervisor import Supervisor, supervise

tasks: list[asyncio.Task[None]] = []


async def say(supervisor: Supervisor) -> None:
    while True:
        answers = sorted(int(each) for each in await supervisor.snapshots())
        print(json.dumps(answers), flush=True)  # noqa: T201
        await asyncio.sleep(0.5)


def on_ready(supervisor: Supervisor) -> None:
    tasks.append(asyncio.get_running_loop().create_task(say(supervisor)))


if __name__ == "__main__":
    vars(module)["SILENCE"] = float(sys.argv[3])
    reread = reading([Path(sys.argv[1])])
    streams = Streams(to_json, json_lines=True)
    streams.open(requests=False)
    supervise(
        reread(),
        int(sys.argv[2]),
        streams,
        reread=reread,
        on_ready=on_ready,
        snapshot=lambda: str(os.getpid()).encode(),
    )
    streams.close()

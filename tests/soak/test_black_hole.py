"""R35 on the running gateway: whoever waits for a black hole, it is nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import black_hole, silent
from tests.backends import running as serving
from tests.soak.load import Tally, load
from tests.soak.running import FULL, needs_proc, report, running

pytestmark = [needs_proc, pytest.mark.alone]

RATE = 200  # honest requests a second
PHASES, PHASE = (10, 10.0) if FULL else (2, 1.0)  # seconds each, alone and beside it
CALLERS = 60  # of the hole: three times as many as it has room for
# Of the p99 alone; milliseconds. Who waits behind a hole waits for its connect or
# first_byte, a second, and for the sweeper, a quarter of one. What other processes of
# the machine take is less in the best of the phases.
TIMES, SLACK = 2.0, 50.0


@pytest.mark.parametrize("kind", ["drops SYN", "never answers"])
async def test_a_black_hole_leaves_the_p99_of_others_alone(
    tmp_path: Path, kind: str
) -> None:
    """A bulkhead: its clients have 503 or 504, everybody else what they had before."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "drops SYN":
            port = stack.enter_context(black_hole())
        else:
            port = (await stack.enter_async_context(serving(silent))).port
        beside_it = {"hole": f"http://127.0.0.1:{port}"}
        run = await stack.enter_async_context(running(tmp_path, beside=beside_it))
        honest = itertools.repeat(run.request())
        lost = itertools.repeat(run.request("/hole/"))
        await load(run.port, honest, rate=RATE, seconds=1)
        alone: list[Tally] = []
        beside: list[Tally] = []
        swallowed: list[Tally] = []
        for _ in range(PHASES):
            alone.append(await load(run.port, honest, rate=RATE, seconds=PHASE))
            falling = asyncio.get_running_loop().create_task(_fall(run.port, lost))
            await asyncio.sleep(0.2)  # until it is full
            beside.append(await load(run.port, honest, rate=RATE, seconds=PHASE))
            swallowed.append(await falling)
    before, after = (
        min(each.quantile(0.99) for each in tallies) for tallies in (alone, beside)
    )
    statuses = sum((each.statuses for each in swallowed), start=Tally().statuses)
    report(
        f"black-hole-{kind.replace(' ', '-')}",
        {
            "honest requests beside it": sum(each.count for each in beside),
            "honest p99 alone, ms": before,
            "honest p99 beside it, ms": after,
            f"allowed: {TIMES} times, and {SLACK} ms": TIMES * before + SLACK,
            "swallowed, and told so with": dict(sorted(statuses.items())),
        },
    )
    for tally in (*alone, *beside):
        assert not tally.failures
        assert set(tally.statuses) == {200}
    assert after <= TIMES * before + SLACK
    assert set(statuses) == {503, 504}
    assert not any(each.failures for each in swallowed)


async def _fall(port: int, requests: Iterator[bytes]) -> Tally:
    return await load(port, requests, rate=100, seconds=PHASE + 0.2, callers=CALLERS)

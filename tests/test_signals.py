"""gateway.signals: what a process is told from outside."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.app import Background
from gateway.signals import Signals, unless


async def told(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
async def test_one_signal_stops_and_a_second_one_forces(which: signal.Signals) -> None:
    """R101."""
    signals = Signals()
    os.kill(os.getpid(), which)
    await told(signals.stop)
    assert not signals.force.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    await told(signals.force)


async def test_a_reload_follows_each_hangup_and_outlives_its_mistakes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those that come during a reload are one more."""
    signals, background = Signals(), Background()
    reloads = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal reloads
        reloads += 1
        if reloads == 1:
            for _ in range(3):
                signals.reload.set()
            raise ZeroDivisionError
        again.set()

    background.spawn(signals.each_reload(work))
    os.kill(os.getpid(), signal.SIGHUP)
    await told(again)
    await asyncio.sleep(0.01)
    await background.aclose()
    assert reloads == 2
    assert "could not be read again" in caplog.text


async def test_work_is_given_up_when_the_event_comes_first() -> None:
    """And its end is waited for."""
    event, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    asyncio.get_running_loop().call_later(0.01, event.set)
    assert not await unless(event, work())
    assert ended


async def test_work_that_is_done_says_so_and_its_errors_are_the_callers() -> None:
    """No event needs to come."""

    async def fail() -> None:
        raise OSError("taken")

    assert await unless(asyncio.Event(), asyncio.sleep(0))
    with pytest.raises(OSError, match="taken"):
        await unless(asyncio.Event(), fail())

"""What a process is told by signals: stop, at once, or read the configuration again.

SIGTERM and SIGINT ask for an orderly stop, a second one for a stop at once (R101).
SIGHUP asks for the configuration to be read again (R103).

Imports: the standard library only.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

logger = logging.getLogger("gateway")

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class Signals:
    """Signals as events. One is made in the running loop, by the main thread."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()
        self.reload = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    async def each_reload(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* each time SIGHUP came, for ever; those meanwhile are one more."""
        while True:
            await self.reload.wait()
            self.reload.clear()
            try:
                await work()
            except Exception:
                # What serves goes on serving; whoever reads the log knows.
                logger.exception("the configuration could not be read again")

    def _asked_to_stop(self) -> None:
        if self.stop.is_set():
            self.force.set()
        self.stop.set()


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do *work*, and give it up when *event* comes first; tell whether it was done."""
    loop = asyncio.get_running_loop()
    doing, coming = loop.create_task(work), loop.create_task(event.wait())
    try:
        await asyncio.wait({doing, coming}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        await doing  # its exception is the caller's
        return True
    finally:
        for each in (doing, coming):
            each.cancel()
        await asyncio.wait({doing, coming})

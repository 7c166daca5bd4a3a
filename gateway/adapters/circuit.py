"""Whether a store is worth asking, as its last exchanges ended (R60).

While a store hangs, each question would wait as long as it may. After a few exchanges
that failed in a row the circuit is open: whoever asks is told at once, and one probe
after the other finds out whether the store is back.

Imports: gateway.model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.model import Unavailable

_LOG = logging.getLogger(__name__)

OPEN_AFTER = 5  # failed exchanges in a row
PROBE_EVERY = 0.25  # seconds; with one deadline added it keeps R60's second


class Circuit:
    """The state of one store; whoever talks to it says how each exchange ended.

    Args:
        store: Its name, of our own words.
        probe: Has an exchange with the store although the circuit is open, and says how
            it ended as for every other one.
    """

    def __init__(self, store: str, probe: Callable[[], Awaitable[object]]) -> None:
        self._store = store
        self._probe = probe
        self._failures = 0  # exchanges in a row
        # Not app.spawn: it lives no longer than the outage.
        self._prober: asyncio.Task[None] | None = None
        self.fault: str | None = None
        """What is wrong; None: it is worth asking."""

    def succeeded(self) -> None:
        """Note that an exchange was had."""
        self._failures = 0
        if self.fault is not None:
            self.fault = None
            _LOG.warning("%s is back", self._store)

    def failed(self, fault: str) -> None:
        """Note that an exchange failed.

        Args:
            fault: The class of the error and no more: its text may hold an address.
        """
        self._failures += 1
        if self.fault is not None:
            self.fault = fault
        elif self._failures >= OPEN_AFTER:
            self.fault = fault
            _LOG.warning("%s is away: %s", self._store, fault)
            # In the background, not with the next question: with no traffic, as while
            # readiness fails, an outage would never be seen to end.
            loop = asyncio.get_running_loop()
            self._prober = loop.create_task(self._probe_until_back())

    async def aclose(self) -> None:
        """Look no more whether the store is back."""
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)

    async def _probe_until_back(self) -> None:
        while self.fault is not None:
            await asyncio.sleep(PROBE_EVERY)
            with suppress(Unavailable):
                await self._probe()

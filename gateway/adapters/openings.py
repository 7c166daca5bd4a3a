"""Opens encrypted tokens beside the event loop: a private key takes its time.

Answers OpeningNeeded. cryptography computes without the interpreter's lock, so that on
a second core nobody waits for it, and on one core the system divides it between this
thread and the loop. One thread, since all that it does is to compute. Whoever asks
about a token that is being opened waits for the same answer; how many wait is bounded
by who needs it (gateway.tokens.jwe).

Imports: gateway.model.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gateway.model import OpeningNeeded


class Openings:
    """One thread, which begins with the first token that is to be opened."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "openings")
        self._asked: dict[tuple[int, str], asyncio.Future[bytes | None]] = {}

    async def open(self, need: OpeningNeeded) -> bytes | None:
        """Return what is in the token; None: its key does not open it."""
        name = (id(need.key), need.token)
        asked = self._asked.get(name)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(self._thread, need.key.open, need.token)
            self._asked[name] = asked
            asked.add_done_callback(lambda _: self._asked.pop(name))
        # Whoever leaves takes nobody else's answer along.
        return await asyncio.shield(asked)

    async def aclose(self) -> None:
        """Open what is still waited for, and end."""
        await asyncio.to_thread(self._thread.shutdown)

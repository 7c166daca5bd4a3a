"""Questions to Redis 7 or Valkey, many of them in one exchange.

Whatever is asked while an exchange is under way goes out together in the next one. The
exchange is a task of its own, so that a caller who is cancelled leaves no answer behind
for another (I7). A store that has not answered several times in a row is asked by
probes alone until it does: meanwhile nobody waits for it (R60).

Imports: gateway.adapters.circuit, gateway.adapters.redis_line, gateway.adapters.script,
gateway.model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from gateway.adapters.circuit import Circuit
from gateway.adapters.redis_line import Call, Line, Reply
from gateway.adapters.script import Script
from gateway.model import Unavailable

MAX_WAITING = 1024  # questions; whoever comes after them fails at once
MAX_CALLS = 64  # of them in one exchange: half a megabyte of tickets

_PROBE = Script(b"#!lua\nreturn {ARGV[1]}\n")

_Question = tuple[Call, asyncio.Future[Reply | None]]


class Queue:
    """Those who ask one store.

    Args:
        url: Of [store], with the passwords in it.
        store: Its name, of our own words.
        deadline: Seconds from a question to its answer or Unavailable (R60).

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """

    def __init__(self, url: str, store: str, *, deadline: float) -> None:
        self._line = Line(url, connect_timeout=deadline)
        self._store = store
        self._deadline = deadline
        self._waiting: deque[_Question] = deque()
        # Not app.spawn: it lives no longer than somebody waits for it.
        self._sender: asyncio.Task[None] | None = None
        self._circuit = Circuit(store, lambda: self._ask(Call(_PROBE, ())))

    async def ask(
        self, script: Script, keys: tuple[bytes, ...], *args: bytes
    ) -> list[Any]:
        """Return what *script* returns, behind the number.

        It may run twice, and a caller who leaves may leave it running.

        Raises:
            Unavailable: Within the deadline there was no answer.
        """
        if self._circuit.fault is not None:
            raise Unavailable(self._store)
        return await self._ask(Call(script, keys, args))

    async def _ask(self, call: Call) -> list[Any]:
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable(self._store)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply | None] = loop.create_future()
        self._waiting.append((call, answer))
        if self._sender is None:
            self._sender = loop.create_task(self._send())
        reply = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._deadline):
                reply = await answer
        if not isinstance(reply, list):
            raise Unavailable(self._store)
        return reply

    async def aclose(self) -> None:
        """Tell whoever waits that there will be no answer."""
        await self._circuit.aclose()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        self._give_up()
        await self._line.aclose()

    async def _send(self) -> None:
        """Serve whoever waits, one exchange after the other, until nobody does."""
        try:
            while self._waiting:
                taken = [
                    self._waiting.popleft()
                    for _ in range(min(len(self._waiting), MAX_CALLS))
                ]
                # Whoever has given up is not to lose a ticket by it.
                batch = [each for each in taken if not each[1].done()]
                if batch:
                    await self._exchange(batch)
                if self._circuit.fault is not None:
                    self._give_up()
        finally:
            self._sender = None

    async def _exchange(self, batch: list[_Question]) -> None:
        """Answer all of *batch*; the answer None is a failure."""
        replies: Sequence[Reply | None] = [None] * len(batch)
        is_good = False
        try:
            async with asyncio.timeout(self._deadline):
                replies = await self._line.run([call for call, _ in batch])
            # After an error reply, too, the connection goes: a store that has become a
            # replica may by now be another one behind the same name.
            is_good = all(isinstance(reply, list) for reply in replies)
            self._circuit.succeeded()
        except Exception as error:  # noqa: BLE001  (a parser fed with anything at all)
            # The class of an error and no more: its text may hold an address.
            self._circuit.failed(type(error).__name__)
        finally:
            for (_, answer), reply in zip(batch, replies, strict=True):
                if not answer.done():
                    answer.set_result(reply)
            if not is_good:
                await self._line.drop()

    def _give_up(self) -> None:
        """Fail whoever waits."""
        for _, answer in self._waiting:
            if not answer.done():
                answer.set_result(None)
        self._waiting.clear()

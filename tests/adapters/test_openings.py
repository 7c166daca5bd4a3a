"""gateway.adapters.openings: who opens a token keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from gateway.adapters.openings import Openings
from gateway.model import OpeningNeeded

PATIENCE = 10.0  # seconds


@dataclass(eq=False)
class Lock:
    """A key that opens a token when it is let; "bad" it does not open."""

    let: threading.Event = field(default_factory=threading.Event)
    opened: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def open(self, token: str) -> bytes | None:
        assert self.let.wait(PATIENCE), "the loop waits for us"
        self.opened.append(token)
        self.threads.add(threading.current_thread().name)
        return None if token == "bad" else token.encode()


@pytest.fixture
async def openings() -> AsyncIterator[Openings]:
    made = Openings()
    yield made
    await made.aclose()


async def test_the_loop_goes_on_meanwhile(openings: Openings) -> None:
    """One after the other, in one thread, each with its own answer."""
    lock, other = Lock(), Lock()
    asked = [
        asyncio.ensure_future(openings.open(OpeningNeeded(key, token)))
        for key, token in ((lock, "a"), (lock, "bad"), (other, "a"), (lock, "b"))
    ]
    await asyncio.sleep(0)
    other.let.set()
    lock.let.set()  # which no callback could do if the loop waited

    assert await asyncio.gather(*asked) == [b"a", None, b"a", b"b"]
    assert lock.opened == ["a", "bad", "b"]
    assert lock.threads | other.threads == {"openings_0"}


async def test_one_token_is_opened_once_for_everybody(openings: Openings) -> None:
    """A browser that comes back with a new token asks for ten things at once."""
    lock = Lock()
    need = OpeningNeeded(lock, "a")
    first = asyncio.ensure_future(openings.open(need))
    others = [asyncio.ensure_future(openings.open(need)) for _ in range(9)]
    await asyncio.sleep(0)
    first.cancel()
    lock.let.set()

    assert await asyncio.gather(*others) == [b"a"] * 9
    assert lock.opened == ["a"]
    assert await openings.open(need) == b"a"
    assert lock.opened == ["a", "a"]


async def test_what_is_waited_for_is_answered_before_the_end() -> None:
    """And a thread that nobody needed was none."""
    openings, lock = Openings(), Lock()
    asked = asyncio.ensure_future(openings.open(OpeningNeeded(lock, "a")))
    await asyncio.sleep(0)
    end = asyncio.ensure_future(openings.aclose())
    await asyncio.sleep(0)
    lock.let.set()
    await end

    assert await asked == b"a"
    names = {thread.name for thread in threading.enumerate()}
    await Openings().aclose()
    assert "openings_0" not in names

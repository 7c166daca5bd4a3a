"""gateway.channel: what supervisor and worker say to each other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.app import Background
from gateway.channel import MAX_FRAME, Channel, Refused

Handle = Callable[[str, bytes], Awaitable[bytes]]


async def nothing(name: str, said: bytes) -> bytes:
    return b""


@contextlib.asynccontextmanager
async def line(handle: Handle = nothing) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends, both listening; the second one handles with *handle*."""
    background = Background()
    ends = socket.socketpair()
    first, second = [await Channel.over(end, background.spawn) for end in ends]
    background.spawn(first.serve(nothing))
    background.spawn(second.serve(handle))
    try:
        yield first, second
    finally:
        first.close()
        second.close()
        await background.aclose()


async def test_what_is_told_arrives_in_order_and_whole() -> None:
    """Any bytes, of any size that a frame may have."""
    heard: list[tuple[str, bytes]] = []
    done = asyncio.Event()

    async def handle(name: str, said: bytes) -> bytes:
        heard.append((name, said))
        if name == "last":
            done.set()
        return b""

    sent = [("a", b""), ("b", b"one\ntwo\0"), ("c", b"x" * 1_000_000), ("last", b"\n")]
    async with line(handle) as (first, _), asyncio.timeout(5):
        for name, said in sent:
            first.tell(name, said)
        await done.wait()
    assert heard == sent


async def test_answers_find_whoever_asked() -> None:
    """Also when the first question is answered last."""

    async def handle(name: str, said: bytes) -> bytes:
        await asyncio.sleep(float(said))
        return name.encode()

    async with line(handle) as (first, _):
        slow = first.ask("slow", b"0.1", within=5)
        quick = first.ask("quick", b"0", within=5)
        assert [*await asyncio.gather(slow, quick)] == [b"slow", b"quick"]


async def test_whoever_does_not_answer_is_not_waited_for() -> None:
    """And a late answer is nobody's."""
    go = asyncio.Event()

    async def handle(name: str, said: bytes) -> bytes:
        if name == "late":
            await go.wait()
        return b"answer"

    async with line(handle) as (first, _):
        with pytest.raises(TimeoutError):
            await first.ask("late", within=0.05)
        go.set()
        assert await first.ask("next", within=5) == b"answer"


async def test_a_mistake_over_there_is_told_here() -> None:
    """The line goes on."""

    async def handle(name: str, said: bytes) -> bytes:
        if name == "bad":
            raise ValueError("no such thing")
        return b"good"

    async with line(handle) as (first, _):
        with pytest.raises(Refused, match="ValueError: no such thing"):
            await first.ask("bad", within=5)
        assert await first.ask("good", within=5) == b"good"


async def test_the_end_of_the_line_is_noticed_by_whoever_waits() -> None:
    """A process that dies closes it, whatever killed it."""

    async def handle(name: str, said: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with line(handle) as (first, second):
        asking = asyncio.ensure_future(first.ask("x", within=5))
        await asyncio.sleep(0)
        second.close()
        with pytest.raises(ConnectionError):
            await asking
        with pytest.raises(ConnectionError):
            await first.ask("y", within=5)
        first.tell("z")  # nobody hears it, and nobody minds


async def test_a_frame_without_measure_ends_the_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both ends are ours: it has lost its step."""
    ours, theirs = socket.socketpair()
    background = Background()
    channel = await Channel.over(ours, background.spawn)
    with theirs:
        theirs.sendall(struct.pack(">IIc", MAX_FRAME + 1, 0, b"t"))
        async with asyncio.timeout(5):
            await channel.serve(nothing)
    assert "ends the line" in caplog.text
    await background.aclose()

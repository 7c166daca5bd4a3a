"""An open WebSocket: frames between a client and an upstream, and how it ends.

What either sends is followed frame by frame and passed on byte for byte; of our own we
add pings, whose pongs go no further, and a Close. Nothing is ever put into the middle
of a frame: where one is under way, ours waits for its end.

Whoever is slow is waited for: while one side takes nothing, nothing is read from the
other. Data costs no look at the clock; deadlines are looked at by the port's sweeper.

RFC 6455 sections 5.5 and 7. The first Close counts, and says in the log who sent it;
the other side has a few seconds to answer it.

Imports: gateway.wire.frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.wire.frames import (
    ABNORMAL,
    BAD_GATEWAY,
    CLOSE,
    PING,
    PONG,
    PROTOCOL_ERROR,
    Broken,
    Control,
    Frames,
    close_payload,
    code_of,
    frame,
)

NEVER = float("inf")
PING_INTERVAL = 20.0
"""Seconds between two pings, and until there has to be a sign of life (R93)."""
CLOSE_WAIT = 5.0
"""Seconds for the answer to a Close."""
_PING_SIZE = 8  # random bytes, by which a pong is known to be ours


class End(Protocol):
    """A connection, as far as a tunnel needs it."""

    is_full: bool  # it is slow to take what was written

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None:
        """Say that nothing more will be written, where that can be said."""
        ...

    def hold(self) -> None:
        """Read no more for now."""
        ...

    def unhold(self) -> None: ...


class ClientEnd(End, Protocol):
    """The client's connection, on which the sweeper looks for our deadline."""

    deadline: float  # monotonic seconds


class UpstreamEnd(End, Protocol):
    """The upstream's connection."""

    def close(self) -> None:
        """Close after what was written has gone out."""
        ...

    def drop(self) -> None:
        """Close at once."""
        ...


class _Half:
    """One side: how far it is, and what became of what it sent."""

    __slots__ = (
        "asked",
        "broken",
        "closed",
        "end",
        "frames",
        "heard",
        "held",
        "lost",
        "mask",
        "name",
        "passed",
        "patience",
        "stalled_at",
        "to_tell",
        "told",
    )

    def __init__(
        self,
        name: str,
        end: End,
        frames: Frames,
        mask: Callable[[], bytes],
        patience: float,
    ) -> None:
        self.name = name  # in the log
        self.end = end
        self.frames = frames  # of what it sends
        self.mask = mask  # for what we send it
        self.patience = patience  # seconds in which it has to take something
        self.passed = 0  # bytes of it that went on
        self.asked = False  # it was sent a ping, the last time
        self.heard = False  # it has said something since
        self.held = False  # it isn't being read
        self.stalled_at = NEVER  # monotonic seconds, when our patience ends
        self.closed = False  # it has sent a Close
        self.told = False  # it has been sent a Close
        self.to_tell = 0  # the code of the Close that waits until it can be sent
        self.broken = False  # it broke the protocol
        self.lost = False  # its connection is no more

    @property
    def is_done(self) -> bool:
        return self.lost or (self.closed and self.told)

    @property
    def is_silent(self) -> bool:
        """Whether nothing that it says passes any more."""
        return self.closed or self.broken or self.lost


class Tunnel:
    """One open WebSocket.

    Args:
        client: Its connection.
        upstream: Its connection.
        max_message: bytes, each way.
        patience: Seconds in which the client, and the upstream, have to take something
            of what waits for them.
        random: Returns that many random bytes.
        monotonic: Seconds.
        on_end: Told once, when all is over. True: the client can't be told by a Close.
    """

    def __init__(
        self,
        client: ClientEnd,
        upstream: UpstreamEnd,
        *,
        max_message: int,
        patience: tuple[float, float],
        random: Callable[[int], bytes],
        monotonic: Callable[[], float],
        on_end: Callable[[bool], None],
    ) -> None:
        self._sweepable = client
        self._upstream_end = upstream
        self._client = _Half(
            "client",
            client,
            Frames(masked=True, max_message=max_message),
            lambda: b"",
            patience[0],
        )
        self._upstream = _Half(
            "upstream",
            upstream,
            Frames(masked=False, max_message=max_message),
            lambda: random(4),
            patience[1],
        )
        self._monotonic = monotonic
        self._on_end = on_end
        self._ping = random(_PING_SIZE)
        self._tick_at = monotonic() + PING_INTERVAL
        self._closing_at = NEVER
        self.reason = ""  # how it ended: `close.1000:client`
        self.is_over = False
        self._arm()

    @property
    def received(self) -> int:
        """Bytes of the client that went on to the upstream."""
        return self._client.passed

    @property
    def sent(self) -> int:
        """Bytes of the upstream that went on to the client."""
        return self._upstream.passed

    # What is read

    def from_client(self, data: bytes) -> None:
        """Pass on what the client sent."""
        self._relay(self._client, self._upstream, data)

    def from_upstream(self, data: bytes) -> None:
        """Pass on what the upstream sent."""
        self._relay(self._upstream, self._client, data)

    def _relay(self, source: _Half, target: _Half, data: bytes) -> None:
        if self.is_over or source.closed:
            return
        source.heard = True
        for event in source.frames.feed(data):
            if isinstance(event, bytes):
                self._pass(source, target, event)
            elif isinstance(event, Broken):
                self._broken(source, target, event.code)
            elif event.opcode == CLOSE:
                self._closed(source, target, event)
            elif event.opcode != PONG or event.payload != self._ping:
                self._pass(source, target, event.raw)
        if target.to_tell and not self.is_over:
            self._tell(target, target.to_tell)

    def _pass(self, source: _Half, target: _Half, data: bytes) -> None:
        if not target.told and not target.lost:
            source.passed += len(data)
            self._write(target, data)

    def _write(self, half: _Half, data: bytes) -> None:
        half.end.write(data)
        if half.end.is_full and half.stalled_at == NEVER:
            half.stalled_at = self._monotonic() + half.patience
            other = self._other(half)
            if not other.held:
                other.held = True
                other.end.hold()
            self._arm()

    # What the ends tell

    def client_drained(self) -> None:
        """Go on: the client has taken what waited for it."""
        self._drained(self._client)

    def upstream_drained(self) -> None:
        """Go on: the upstream has taken what waited for it."""
        self._drained(self._upstream)

    def _drained(self, half: _Half) -> None:
        half.stalled_at = NEVER
        other = self._other(half)
        if other.held and not self.is_over:
            other.held = False
            other.heard = True  # it could not be heard
            other.end.unhold()
        self._arm()

    def client_lost(self) -> None:
        """Note that the client is no more (R32)."""
        self._client.lost = True
        self._note(ABNORMAL, "client")
        self._finish()

    def upstream_lost(self) -> None:
        """Note that the upstream is no more."""
        if self.is_over:
            return
        client, upstream = self._client, self._upstream
        upstream.lost = True
        self._drained(upstream)  # nothing waits for it any more
        if not upstream.frames.is_between:
            # What the client has of this frame will never be whole.
            self._note(ABNORMAL, "upstream")
            self._finish()
            return
        if not upstream.closed and not upstream.told:
            self._note(ABNORMAL, "upstream")
            self._tell(client, BAD_GATEWAY)
        elif client.closed or client.broken:
            # It went without an answer, which is owed to the client all the same.
            self._tell(client, self._code)
        self._await_close()

    # How it ends

    def close(self, code: int, *, within: float = CLOSE_WAIT) -> None:
        """End it for a reason of ours; sooner, if it is about to end anyhow.

        Args:
            code: Of the Close, to both sides.
            within: Seconds that a frame under way, and then the answers, have.
        """
        if self.is_over:
            return
        if self.reason:
            self._closing_at = min(self._closing_at, self._monotonic() + within)
            self._arm()
            return
        self._note(code, "gateway")
        self._tell(self._client, code)
        self._tell(self._upstream, code)
        self._await_close(within)

    def expire(self, now: float) -> None:
        """Do what is due (monotonic seconds)."""
        client, upstream = self._client, self._upstream
        if client.stalled_at <= now:
            self.client_lost()
        elif self._closing_at <= now:
            upstream.closed = True  # what it might still say comes too late
            if client.to_tell:
                self._tell(client, client.to_tell)
            self._finish()
        elif upstream.stalled_at <= now:
            self._give_up_upstream()
        elif self._tick_at <= now:
            self._tick_at = now + PING_INTERVAL
            if self._is_dead(client):
                self.client_lost()
            elif self._is_dead(upstream):
                self._give_up_upstream()
            elif not self.reason:
                self._ask(client)
                self._ask(upstream)
        self._arm()

    def _give_up_upstream(self) -> None:
        self._upstream_end.drop()
        self.upstream_lost()

    def _is_dead(self, half: _Half) -> bool:
        return half.asked and not half.heard and not half.held

    def _ask(self, half: _Half) -> None:
        half.heard = False
        # Not behind what waits already, nor into the middle of a frame: there is
        # something under way then, and the next time will do.
        half.asked = not half.end.is_full and self._other(half).frames.is_between
        if half.asked:
            self._write(half, frame(PING, self._ping, half.mask()))

    def _closed(self, source: _Half, target: _Half, event: Control) -> None:
        source.closed = True
        self._note(code_of(event.payload), source.name)
        if target.broken:
            self._tell(target, self._code)
        elif not target.told and not target.lost:
            target.told = True
            target.to_tell = 0
            source.passed += len(event.raw)
            self._write(target, event.raw)
        self._await_close()

    def _broken(self, source: _Half, target: _Half, code: int) -> None:
        source.broken = True
        self._note(code, "gateway")
        self._tell(source, code)
        if source is self._upstream and code == PROTOCOL_ERROR:
            code = BAD_GATEWAY
        self._tell(target, self._code if target.broken else code)
        self._await_close()

    def _tell(self, half: _Half, code: int) -> None:
        """Send a Close, as soon as it can stand there."""
        if half.told or half.lost:
            return
        other = self._other(half)
        # Not within a frame. And what a client asked for before it broke the protocol
        # is still on its way here: as from the upstream itself, its Close comes behind.
        is_owed = half.broken and half is self._client and not other.is_silent
        if is_owed or not other.frames.is_between:
            half.to_tell = code
            return
        half.told = True
        half.to_tell = 0
        self._write(half, frame(CLOSE, close_payload(code), half.mask()))
        if half.broken:
            # Its own Close can't be found any more. What it still sends is read and
            # thrown away, or a reset would overtake ours.
            half.end.write_eof()

    def _note(self, code: int, by: str) -> None:
        if not self.reason:
            self._code = code
            self.reason = f"close.{code}:{by}"

    def _await_close(self, within: float = CLOSE_WAIT) -> None:
        if self.is_over:
            return
        if self._client.is_done and self._upstream.is_done:
            self._finish()
        elif self._closing_at == NEVER:
            self._closing_at = self._monotonic() + within
            self._arm()

    def _finish(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._upstream.told:
            self._upstream_end.close()
        else:
            self._upstream_end.drop()
        self._on_end(not self._client.told)

    # Inside

    def _other(self, half: _Half) -> _Half:
        return self._upstream if half is self._client else self._client

    def _arm(self) -> None:
        if not self.is_over:
            self._sweepable.deadline = min(
                self._tick_at,
                self._closing_at,
                self._client.stalled_at,
                self._upstream.stalled_at,
            )

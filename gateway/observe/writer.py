"""Log lines on their way out, without anybody waiting for the disk or the pipe.

`put` hands a line to a thread, which writes. The queue between them is bounded: when
whoever reads the log is too slow, lines are lost rather than requests, they are
counted, and the count is written as soon as there is room (DESIGN section 8).

The line is made by whoever has something to say, not by the thread: a thread that
computes takes the interpreter away from the requests for 5 ms at a time, which halved
what one core could serve.

Imports: the standard library only.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

CAPACITY = 16_384  # lines; half a second of one worker at full speed, some 10 MB
BATCH = 512  # lines for each write: some 300 KB
# Seconds the thread waits for more after each write. A line that comes alone is written
# at once. While there are many nobody is woken for each, and the thread does not take
# the interpreter for each, which costs more than the line.
GATHER = 0.01
RETRY = 0.1  # seconds, after a write that failed
STUCK = 1.0  # seconds that `close` gives a reader who does not read
_ALONE = nullcontext()


class Stream(Protocol):
    """A binary file, as sys.stdout.buffer is one."""

    def write(self, line: bytes, /) -> object:
        """Take all of *line*."""
        ...

    def flush(self) -> object:
        """Hand on what was taken."""
        ...


class LogWriter(Generic[T]):
    """Writes what it is given to *out*, a file descriptor or a binary file.

    Args:
        out: Where to; never closed here.
        form: Makes the line of an item, with its line end.
        capacity: Lines that may wait.
        lost: Makes the line that says how many were lost.
        turn: Entered for each write, where other processes write to *out* too.
    """

    def __init__(
        self,
        out: int | Stream,
        form: Callable[[T], bytes],
        *,
        capacity: int = CAPACITY,
        lost: Callable[[int], bytes] = b'{"event":"log.lost","lost":%d}\n'.__mod__,
        turn: AbstractContextManager[None] = _ALONE,
    ) -> None:
        self._out = out
        self._form = form
        self._capacity = capacity
        self._lost_line = lost
        self._turn = turn
        self._queue: deque[bytes] = deque()
        self._wake = threading.Event()
        self._asleep = False
        self._closing = threading.Event()
        self._is_closed = False
        self._lost = 0  # by `put`, which alone changes it
        self._unwritten = 0  # by the thread, which alone changes it
        self._told = 0  # of both, written down
        # A daemon: a reader who never reads must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many items never became a line."""
        return self._lost + self._unwritten

    def put(self, item: T | bytes) -> None:
        """Write the line of *item*, in time; bytes are a line already. Never waits."""
        if len(self._queue) >= self._capacity or self._is_closed:
            self._lost += 1
            return
        try:
            line = item if isinstance(item, bytes) else self._form(item)
        except Exception:  # noqa: BLE001  (one bad entry must not end a request)
            self._lost += 1
            return
        self._queue.append(line)
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def close(self) -> None:
        """Write what waits, and stop. What comes after is counted as lost."""
        self._is_closed = True
        self._closing.set()
        self._wake.set()
        self._thread.join(STUCK)

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()
            if self._queue or self.lost > self._told:
                self._write_batch()
                if len(self._queue) < BATCH:
                    self._closing.wait(GATHER)
            elif closing:
                return
            else:
                self._sleep()

    def _sleep(self) -> None:
        self._wake.clear()
        self._asleep = True
        # A `put` that came before it saw the flag has left something.
        if not self._queue and not self._closing.is_set():
            self._wake.wait()
        self._asleep = False

    def _write_batch(self) -> None:
        lines: list[bytes] = []
        while self._queue and len(lines) < BATCH:
            lines.append(self._queue.popleft())
        lost = self.lost
        if lost > self._told:
            lines.append(self._lost_line(lost - self._told))
        try:
            with self._turn:
                self._write(b"".join(lines))
        except (OSError, ValueError):  # a full disk, a closed pipe, a closed file
            self._unwritten += len(lines) - (lost > self._told)
            if self._closing.wait(RETRY):
                self._unwritten += len(self._queue)
                self._queue.clear()
                self._told = self.lost
        else:
            self._told = lost

    def _write(self, text: bytes) -> None:
        out = self._out
        if not isinstance(out, int):
            out.write(text)
            out.flush()
            return
        rest = memoryview(text)
        while rest:
            try:
                rest = rest[os.write(out, rest) :]
            except BlockingIOError:
                # Standard output may be a pipe that somebody has set to non-blocking.
                with suppress(InterruptedError):
                    select.select([], [out], [], 0.1)

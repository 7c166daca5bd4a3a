"""Processes that write to one file, taking turns.

A pipe takes 4096 bytes in one piece (PIPE_BUF), and a worker writes its log lines by
the hundred: without turns a line of one would stand in the middle of another's. The
kernel ends the turn of a process that dies in it.

Imports: the standard library only.
"""

from __future__ import annotations

import fcntl
import os
from types import TracebackType


class Turns:
    """A lock among processes that were forked after it was made.

    It is of the process, not of the thread: one thread of each may use it.
    """

    def __init__(self) -> None:
        # A file of no file system: that may be read-only, all of it.
        self.descriptor = os.memfd_create("turns")

    def __enter__(self) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

"""What a process takes of its machine, as Prometheus' own clients name it.

Imports: gateway.observe.metrics.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gateway.observe.metrics import CPU, MAX_FDS, MEMORY, OPEN_FDS, Sample

_MEMORY = Path("/proc/self/statm")  # pages: in all, resident, ...; proc_pid_statm(5)
_FDS = Path("/proc/self/fd")


def measure() -> Iterator[Sample]:
    """Yield what is known here: without /proc neither memory nor descriptors."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield CPU, (), used.ru_utime + used.ru_stime
    with suppress(OSError):
        resident = int(_MEMORY.read_text(encoding="ascii").split()[1])
        yield MEMORY, (), resident * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        # One of them is for the look itself.
        yield OPEN_FDS, (), sum(1 for _ in _FDS.iterdir()) - 1
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        yield MAX_FDS, (), soft

"""Processes that the bench starts, pins to a core and stops, each by its own id.

Imports: the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

START_LIMIT = 15.0  # seconds until a server must accept
STOP_LIMIT = 10.0  # seconds until SIGKILL


class NotStartedError(Exception):
    """A server did not accept connections in time."""


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return *command*, to be run on *core* alone."""
    return ["taskset", "--cpu-list", str(core), *command]


@contextlib.contextmanager
def started(
    command: Sequence[str],
    *,
    core: int,
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    stdout_lines: Path | None = None,
    patience: float = START_LIMIT,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* on *core* until the block ends.

    Args:
        command: Must stay in the foreground.
        core: The number of a core.
        port: On loopback; the block starts once it accepts.
        log: Takes standard error, and standard output unless that is counted.
        env: Beside our own environment.
        stdout_lines: Where the number of lines on standard output is written. They
            go through a pipe, as under a container runtime, to a reader that keeps
            nothing.
        patience: Seconds until it must accept.
    """
    with contextlib.ExitStack() as stack:
        err = stack.enter_context(log.open("wb"))
        out: int | None = None
        if stdout_lines is not None:
            count = stack.enter_context(stdout_lines.open("wb"))
            reader = subprocess.Popen(
                pinned(1, ["wc", "-l"]), stdin=subprocess.PIPE, stdout=count
            )
            stack.callback(_stop, reader, grace=STOP_LIMIT)  # ends at end of file
            assert reader.stdin is not None
            out = reader.stdin.fileno()
        process = subprocess.Popen(
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=err if out is None else out,
            stderr=err,
            env={**os.environ, **(env or {})},
        )
        stack.callback(_stop, process)
        if out is not None:
            assert reader.stdin is not None
            reader.stdin.close()  # the server alone holds the pipe now
        _wait(process, port, log, patience)
        yield process


@contextlib.contextmanager
def launched(
    command: Sequence[str], *, core: int, log: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* on *core* until the block ends, which begins at once."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **env},
        )
        try:
            yield process
        finally:
            _stop(process)


def _wait(
    process: subprocess.Popen[bytes], port: int, log: Path, patience: float
) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStartedError(f"exit {process.returncode}: {_last_lines(log)}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise NotStartedError(f"not accepting after {patience:.0f} s: {_last_lines(log)}")


def _last_lines(log: Path) -> str:
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return " | ".join(said[-5:])


def _stop(process: subprocess.Popen[bytes], grace: float = 0.0) -> None:
    if grace:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, all its threads together."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    # The second field is the program's name in parentheses, and may hold anything.
    fields = stat.rpartition(")")[2].split()
    user, system = fields[11], fields[12]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds (VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def said_version(command: Sequence[str]) -> str:
    """Return what a tool prints of its version, its first line."""
    return _version(tuple(command))


@cache
def _version(command: tuple[str, ...]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "unknown"

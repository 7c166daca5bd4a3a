"""The real command, as a process of its own, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Self

import httpx2

from bench.ports import free_port

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0  # seconds for a process to come up or to end, on a busy machine


class Command:
    """`python -m gateway ...`, with what it prints kept in files."""

    def __init__(self, words: Sequence[str], *, cwd: Path) -> None:
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (ours until __exit__)
        self._err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (ours until __exit__)
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
        )

    @property
    def out(self) -> str:
        return _text(self._out)

    @property
    def err(self) -> str:
        return _text(self._err)

    def wait_for(self, url: str) -> Self:
        """Return when *url* answers 200."""
        until = time.monotonic() + PATIENCE
        # One client: each new one reads the certificates of the system, which takes
        # longer than the pause, and the time from whom it waits for.
        with httpx2.Client(trust_env=False) as client:
            while time.monotonic() < until:
                assert self.process.poll() is None, self.out + self.err
                with contextlib.suppress(httpx2.HTTPError):
                    if client.get(url).status_code == 200:
                        return self
                time.sleep(0.02)
        raise AssertionError(f"{url} did not answer: {self.out}{self.err}")

    def wait_to_say(self, text: str) -> Self:
        """Return when *text* has been printed."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if text in self.out:
                return self
            assert self.process.poll() is None, self.out + self.err
            time.sleep(0.02)
        raise AssertionError(f"{text!r} was not said: {self.out}{self.err}")

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._out.close()
        self._err.close()


def _text(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 24, 0).decode("utf-8", "replace")


@contextlib.contextmanager
def backend() -> Iterator[str]:
    """Run the backend of the examples; yield its URL."""
    port = free_port()
    words = ["-m", "tests.e2e.plain_backend", str(port)]
    url = f"http://127.0.0.1:{port}"
    with Command(words, cwd=ROOT) as command:
        command.wait_for(url + "/up")
        yield url

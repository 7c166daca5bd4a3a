"""The Autobahn test suite: its server that echoes, its client that breaks the rules.

It is of Python 2.7, so it lives apart, in `.venv-autobahn`, and is installed there when
it is first asked for, by the hashes of `autobahn.lock`. The Python is the `python2.7`
on the PATH, or one of pyenv's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ports import free_port
from tests.e2e.processes import PATIENCE, ROOT

LOCK = Path(__file__).with_name("autobahn.lock")
PLACE = ROOT / ".venv-autobahn"
INSTALLING = 300.0  # seconds
RUNNING = 1200.0  # seconds; it takes some two minutes

# Compression: the gateway agrees on no extension, whatever a server would take.
EXCLUDED = ("12.*", "13.*")
_WSTEST = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite.wstest import run
run()
"""


class MissingError(Exception):
    """The suite can't be had here."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the suite says about one case."""

    behaviour: str  # OK, NON-STRICT, INFORMATIONAL, FAILED ...
    close: str  # the same of how the connection ended
    code: int | None  # of the Close that came


@dataclass(frozen=True, slots=True)
class Suite:
    """An installed suite."""

    python: Path

    @contextlib.asynccontextmanager
    async def echoing(self, directory: Path) -> AsyncIterator[int]:
        """Run its server; yield the port."""
        port = free_port()
        url = f"ws://127.0.0.1:{port}"
        with (directory / "echoing.log").open("wb") as log:
            process = await self._run(log, "testeeserver", "-w", url)
            try:
                async with asyncio.timeout(PATIENCE):
                    while not await _accepts(port):
                        assert process.returncode is None, Path(log.name).read_text()
                        await asyncio.sleep(0.02)
                yield port
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()

    async def judge(
        self,
        directory: Path,
        servers: Sequence[Mapping[str, Any]],
        cases: Sequence[str],
    ) -> dict[str, dict[str, Verdict]]:
        """Try *cases* on *servers*; return by agent and case what became of them.

        Args:
            directory: Of the reports.
            servers: Each with `agent`, `url` and what else a specification may say.
            cases: Patterns, such as `6.4.*`.
        """
        specification = directory / "specification.json"
        said = {
            "outdir": str(directory / "reports"),
            "servers": servers,
            "cases": cases,
            "exclude-cases": EXCLUDED,
            "exclude-agent-cases": {},
        }
        specification.write_text(json.dumps(said), encoding="utf-8")
        with (directory / "judge.log").open("wb") as log:
            process = await self._run(log, "fuzzingclient", "-s", str(specification))
            try:
                async with asyncio.timeout(RUNNING):
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        assert process.returncode == 0, (directory / "judge.log").read_text()
        found = json.loads((directory / "reports" / "index.json").read_text())
        return {
            agent: {
                case: Verdict(
                    each["behavior"], each["behaviorClose"], each["remoteCloseCode"]
                )
                for case, each in cases.items()
            }
            for agent, cases in found.items()
        }

    async def _run(
        self, log: Any, mode: str, *words: str
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(str(self.python), "-c", _WSTEST, str(PLACE), "-m", mode, *words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def installed() -> Suite:
    """Return the suite, installing it if it isn't there.

    Raises:
        MissingError: There is no Python for it, or it could not be installed.
    """
    python = next(filter(_runs, _pythons()), None)
    if python is None:
        raise MissingError("no Python 2.7 with pip, neither on PATH nor of pyenv")
    stamp = PLACE / hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not stamp.exists():
        shutil.rmtree(PLACE, ignore_errors=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        pip += ["install", "--no-deps", "--require-hashes", "--target", str(PLACE)]
        try:
            subprocess.run(
                [*pip, "-r", str(LOCK)],
                check=True,
                capture_output=True,
                timeout=INSTALLING,
            )
        except subprocess.CalledProcessError as error:
            raise MissingError(error.stderr.decode()[-500:]) from error
        except subprocess.TimeoutExpired as error:
            raise MissingError("it could not be installed in time") from error
        stamp.touch()
    return Suite(python)


def _pythons() -> Iterator[Path]:
    found = shutil.which("python2.7")
    if found is not None:
        yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from root.glob("versions/2.7*/bin/python2.7")


def _runs(python: Path) -> bool:
    """Tell whether it runs at all: pyenv has a name on PATH for what it would not."""
    asked = [str(python), "-m", "pip", "--version"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True

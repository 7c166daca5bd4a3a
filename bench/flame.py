"""Where the gateway's time goes, as a flame graph: `make profile`.

py-spy looks at the gateway from outside 250 times a second while wrk keeps it busy
with one known token, so it runs the code that it always runs. What C does (uvloop,
httptools, OpenSSL) stands with the Python function that called it; what libuv does
without the interpreter (waiting, reading from sockets) is left out.

Imports: bench.lineup, bench.load, bench.processes, bench.site.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.lineup import BENCH_VENV, ROOT, servers
from bench.load import SpoiltError, measure
from bench.processes import NotStartedError, pinned, started
from bench.site import CALL, HERE, prepare

SCRATCH = HERE / ".run"
RESULT = HERE / "results" / "profile.svg"
RATE = 250  # looks per second
SHOWN = 15


def hottest(stacks: str) -> list[tuple[str, float]]:
    """Return the functions in which most time was spent itself, with their shares.

    Args:
        stacks: A line for each stack: its frames with ";" between them, a blank, a
            count (py-spy's "raw" form).
    """
    own: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        own[frames.rpartition(";")[2]] += int(count)
    total = sum(own.values()) or 1
    return [(name, count / total) for name, count in own.most_common()]


def main() -> int:
    spy = BENCH_VENV / "bin" / "py-spy"
    if not spy.exists() or shutil.which("wrk") is None:
        print("skipped: py-spy (requirements-bench.lock) or wrk is not installed")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seconds = max(2, min(60, int(os.environ.get("SECONDS", "10"))))
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    RESULT.parent.mkdir(exist_ok=True)
    site = prepare(SCRATCH)
    lineup = {server.name: server for server in servers(site)}
    fields = {"Authorization": f"Bearer {site.tokens['RS256'].good}"}
    with contextlib.ExitStack() as stack:
        try:
            for name in ("backend", "gateway"):
                server = lineup[name]
                if server.missing:
                    print(f"skipped: {server.missing}")
                    return 0
                process = stack.enter_context(
                    started(
                        server.command,
                        core=server.core,
                        port=server.port,
                        log=SCRATCH / f"{name}.out",
                        stdout_lines=SCRATCH / "lines" if server.counts_lines else None,
                    )
                )
        except NotStartedError as error:
            print(f"{name} did not start: {error}")
            return 1
        port = lineup["gateway"].port
        measure(port, CALL, fields, seconds=1)
        looks = [
            stack.enter_context(_look(spy, process.pid, form, seconds, to))
            for form, to in (
                ("flamegraph", RESULT),
                ("raw", SCRATCH / "profile.txt"),
            )
        ]
        try:
            reading = measure(port, CALL, fields, seconds=seconds + 1)
        except SpoiltError as error:
            print(f"spoilt run: {error}")
            return 1
        for look in looks:
            if look.wait(timeout=seconds + 30):
                said = look.stderr.read() if look.stderr else ""
                print(f"py-spy could not look into the gateway: {said.strip()}")
                return 1
    stacks = (SCRATCH / "profile.txt").read_text(encoding="utf-8")
    for name, share in hottest(stacks)[:SHOWN]:
        print(f"{share:6.1%}  {name}")
    print(f"{reading.rate:,.0f} req/s while it was looked at")
    print(f"written: {RESULT.relative_to(ROOT)}")
    return 0


@contextlib.contextmanager
def _look(
    spy: Path, pid: int, form: str, seconds: int, to: Path
) -> Iterator[subprocess.Popen[str]]:
    command = [str(spy), "record", "--pid", str(pid), "--format", form]
    command += ["--duration", str(seconds), "--rate", str(RATE), "--output", str(to)]
    # Who holds the interpreter: threads that only wait are no use of time.
    command += ["--gil", "--function"]
    look = subprocess.Popen(
        pinned(1, command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield look
    finally:
        if look.poll() is None:
            look.terminate()
        look.wait()


if __name__ == "__main__":
    sys.exit(main())

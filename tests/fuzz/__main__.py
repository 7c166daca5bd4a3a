"""`make fuzz`: every target for its share of SECONDS, or one input again.

    python -m tests.fuzz               all targets
    python -m tests.fuzz front FILE    one input, as a plain call, with its traceback

What it finds is kept in `.fuzz/found`, and the inputs that reached something new in
`.fuzz/corpus`, from where the next run goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parent.parent.parent
PLACE = ROOT / ".fuzz"
LOCK = ROOT / "requirements-fuzz.lock"
MAX_INPUT = 4096  # bytes
SHORT = 60  # seconds; a run in CI, where a missing fuzzer is no failure
ONE = 10  # seconds for one input; the slowest honest one takes milliseconds


def main(words: list[str]) -> int:
    """Run what *words* say; return the exit code."""
    if words:
        name, *files = words
        for file in files:
            TARGETS[name].fuzz(Path(file).read_bytes())
            print(f"{file}: nothing found")
        return 0
    seconds = int(os.environ.get("SECONDS") or 600)
    python = _environment()
    if python is None:
        print("skipped: atheris has no wheel for this Python and this machine")
        return 0 if seconds <= SHORT else 1
    shares = sum(each.share for each in TARGETS.values())
    running = [
        (name, _start(python, name, each, max(1, seconds * each.share // shares)))
        for name, each in TARGETS.items()
        if not _wait_for_room()
    ]
    return max(_ended(name, process) for name, process in running)


_processes: list[subprocess.Popen[bytes]] = []


def _wait_for_room() -> bool:
    """Wait until a core is free for one more; always false, for use in a filter."""
    while sum(each.poll() is None for each in _processes) >= (os.cpu_count() or 1):
        time.sleep(0.1)
    return False


def _environment() -> Path | None:
    """Return a Python that has atheris, or None where there is none to be had."""
    place = ROOT / (os.environ.get("FUZZ_VENV") or ".venv-fuzz")
    python, ready = place / "bin" / "python", place / ".ready"
    if ready.exists() and ready.stat().st_mtime > LOCK.stat().st_mtime:
        return python
    venv.create(place)
    words = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    words += ["--disable-pip-version-check", "--only-binary", ":all:"]
    words += ["--require-hashes", "-r", str(LOCK)]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        if "No matching distribution found for atheris" in done.stderr:
            return None
        sys.exit(done.stderr)
    ready.touch()
    return python


def _start(
    python: Path, name: str, target: Target, seconds: int
) -> subprocess.Popen[bytes]:
    seeds, corpus = PLACE / "seeds" / name, PLACE / "corpus" / name
    for place in (seeds, corpus, PLACE / "found"):
        place.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(seed)
    words = PLACE / f"{name}.dict"
    words.write_text("".join(map(_quoted, target.words)), encoding="ascii")
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-timeout={ONE}",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-dict={words}",
        f"-artifact_prefix={PLACE / 'found'}/{name}-",
    ]
    print(f"{name}: {seconds} s", flush=True)
    with (PLACE / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "tests.fuzz.guided", name, *options, corpus, seeds],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    _processes.append(process)
    return process


def _ended(name: str, process: subprocess.Popen[bytes]) -> int:
    code = process.wait()
    said = (PLACE / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    lines = said.splitlines()
    stats = dict(
        line.removeprefix("stat::").split(":", 1)
        for line in lines
        if line.startswith("stat::")
    )
    count = stats.get("number_of_executed_units", "?").strip()
    print(f"{name}: {count} inputs, {'nothing found' if not code else 'FOUND:'}")
    if code:
        print("\n".join(lines[-60:]))
        print(f"again: python -m tests.fuzz {name} .fuzz/found/{name}-crash-...")
    return code


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

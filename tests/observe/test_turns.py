"""gateway.observe.turns: lines of several processes in one pipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# Three processes write long lines at once into the pipe that is their stdout.
WRITERS = """
import os, sys
from gateway.observe.turns import Turns
from gateway.observe.writer import LogWriter
turns = Turns()
for number in range(3):
    if not os.fork():
        break
else:
    for _ in range(3):
        os.wait()
    sys.exit()
writer = LogWriter(1, bytes, turn=turns)
for _ in range(2000):
    writer.put(b"%d" % number * 3000 + b"\\n")
writer.close()
os._exit(0)
"""
# One dies in its turn, and the other one has the next.
DEATH = """
import os, signal
from gateway.observe.turns import Turns
turns = Turns()
ready, tell = os.pipe()
pid = os.fork()
if not pid:
    with turns:
        os.write(tell, b"!")
        signal.pause()
os.read(ready, 1)
os.kill(pid, signal.SIGKILL)
with turns:
    print("mine")
os.waitpid(pid, 0)
"""


def run(program: str) -> list[bytes]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_no_line_stands_in_another_ones_middle() -> None:
    """A pipe alone would take 4096 bytes in one piece."""
    lines = run(WRITERS)

    assert len(lines) == 6000
    assert {(len(line), len({*line})) for line in lines} == {(3000, 1)}


def test_the_turn_of_a_dead_process_is_over() -> None:
    """Whatever killed it."""
    assert run(DEATH) == [b"mine"]

"""gateway.observe.writer: nobody waits for the log, and what is lost is counted."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable

import pytest

from gateway.observe.writer import BATCH, LogWriter

PATIENCE = 5.0  # seconds


def line(number: int) -> bytes:
    return b"%d\n" % number


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


class Gate:
    """A stream that takes nothing until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.written = b""
        self.writes = 0

    def write(self, text: bytes) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE)
        self.writes += 1
        self.written += text

    def flush(self) -> None:
        pass


def test_lines_are_written_in_order_and_all_of_them_by_the_end() -> None:
    """`close` writes what waits."""
    out = io.BytesIO()
    writer = LogWriter(out, line)
    for number in range(5_000):
        writer.put(number)
    writer.close()

    assert out.getvalue() == b"".join(map(line, range(5_000)))
    assert writer.lost == 0
    assert not writer._thread.is_alive()


def test_a_line_that_is_one_already_is_taken_as_it_is() -> None:
    """Other loggers' lines share the writer."""
    out = io.BytesIO()
    writer = LogWriter(out, line)
    writer.put(b"ready\n")
    writer.put(7)
    writer.close()

    assert out.getvalue() == b"ready\n7\n"


def test_lines_come_out_while_nobody_closes() -> None:
    """Also the first one after a silence."""
    read, write = os.pipe()
    writer = LogWriter(write, line)
    try:
        for number in range(3):
            until(lambda: writer._asleep)
            writer.put(number)
            assert os.read(read, 100) == line(number)
    finally:
        writer.close()
        os.close(read)
        os.close(write)


def test_when_the_reader_is_slow_lines_are_lost_and_counted() -> None:
    """Requests go on; when there is room again, a line says how many."""
    out = Gate()
    writer = LogWriter(out, line, capacity=10)
    writer.put(0)
    assert out.reached.wait(PATIENCE)
    start = time.monotonic()
    for number in range(1, 1_001):
        writer.put(number)
    assert time.monotonic() - start < PATIENCE / 5
    assert writer.lost == 990
    out.open.set()
    writer.close()

    lines = out.written.splitlines()
    assert lines[:11] == [b"%d" % number for number in range(11)]
    assert [json.loads(line) for line in lines[11:]] == [
        {"event": "log.lost", "lost": 990}
    ]


def test_what_is_said_lost_and_what_is_written_is_all_there_was() -> None:
    """From several threads, with a reader that stops and goes."""
    read, write = os.pipe()
    writer = LogWriter(write, line, capacity=50)
    received = bytearray()

    def reader() -> None:
        while some := os.read(read, 512):
            received.extend(some)

    reading = threading.Thread(target=reader)
    reading.start()
    for number in range(20_000):
        writer.put(number)
    writer.close()
    os.close(write)
    reading.join(PATIENCE)
    os.close(read)

    lines = received.splitlines()
    numbers = [int(text) for text in lines if not text.startswith(b"{")]
    said = sum(json.loads(text)["lost"] for text in lines if text.startswith(b"{"))
    assert numbers == sorted(set(numbers))
    assert len(numbers) + said == 20_000
    assert said == writer.lost


def test_lines_are_written_several_at_a_time() -> None:
    """One system call for a batch, and no batch so long that requests would wait."""
    out = Gate()
    writer = LogWriter(out, line)
    writer.put(0)
    assert out.reached.wait(PATIENCE)
    for number in range(1, 10 * BATCH + 1):
        writer.put(number)
    out.open.set()
    writer.close()

    assert out.writes == 11


def test_of_many_lines_each_write_waits_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a thread that wrote each, the interpreter would be taken for each."""
    monkeypatch.setattr("gateway.observe.writer.GATHER", 1.0)
    out = Gate()
    out.open.set()
    writer = LogWriter(out, line)
    writer.put(0)
    until(lambda: out.writes == 1)
    for number in range(1, 11):
        writer.put(number)
        time.sleep(0.01)
    until(lambda: writer._asleep)
    assert out.writes == 2
    writer.put(11)
    until(lambda: out.writes == 3)
    writer.close()

    assert out.written == b"".join(map(line, range(12)))


def test_an_entry_that_cannot_be_formatted_costs_itself_only() -> None:
    """It is counted as lost."""

    def form(number: int) -> bytes:
        return line(10 // number)

    out = io.BytesIO()
    writer = LogWriter(out, form)
    for number in (5, 0, 2):
        writer.put(number)
    writer.close()

    assert out.getvalue() == b'2\n5\n{"event":"log.lost","lost":1}\n'


class Full:
    """A disk that is full until it is not."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.written = b""

    def write(self, text: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("No space left on device")
        self.written += text

    def flush(self) -> None:
        pass


def test_a_write_that_fails_is_counted_and_said_later() -> None:
    """The log goes on when it can."""
    out = Full(failures=2)
    writer = LogWriter(out, line)
    writer.put(1)
    until(lambda: not out.failures)
    writer.put(2)
    until(lambda: b"2\n" in out.written)
    writer.close()

    assert b'{"event":"log.lost","lost":1}\n' in out.written
    assert b"1\n" not in out.written.replace(b"1}\n", b"")


def test_a_reader_who_has_gone_keeps_nobody_from_ending() -> None:
    """A closed pipe: everything is lost, and counted."""
    read, write = os.pipe()
    os.close(read)
    writer = LogWriter(write, line)
    for number in range(100):
        writer.put(number)
    writer.close()
    os.close(write)

    assert not writer._thread.is_alive()
    assert writer.lost == 100


def test_a_reader_who_does_not_read_keeps_nobody_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`close` waits for it a while, not for ever."""
    monkeypatch.setattr("gateway.observe.writer.STUCK", 0.05)
    out = Gate()
    writer = LogWriter(out, line)
    writer.put(1)
    start = time.monotonic()
    writer.close()
    assert time.monotonic() - start < PATIENCE / 5
    out.open.set()
    writer._thread.join(PATIENCE)


def test_a_pipe_that_somebody_set_to_non_blocking_is_waited_for() -> None:
    """No line is cut in half."""
    read, write = os.pipe()
    os.set_blocking(write, False)

    def form(number: int) -> bytes:
        return b"%d" % number * 3_000 + b"\n"

    writer = LogWriter(write, form)
    for number in range(100, 150):
        writer.put(number)
    received = b""
    while received.count(b"\n") < 50:
        received += os.read(read, 65_536)
    writer.close()
    os.close(read)
    os.close(write)

    assert received.splitlines() == [b"%d" % n * 3_000 for n in range(100, 150)]


def test_what_comes_after_the_end_is_lost() -> None:
    """And counted; nobody is waiting to write it."""
    out = io.BytesIO()
    writer = LogWriter(out, line)
    writer.close()
    writer.put(1)

    assert (out.getvalue(), writer.lost) == (b"", 1)

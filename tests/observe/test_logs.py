"""gateway.observe.logs: every logger's output, through one door."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.observe.logs import (
    MAX_MESSAGE,
    MAX_TRACEBACK,
    LineHandler,
    RedactingFormatter,
    install,
)

CANARY = "canary-0123456789"


@pytest.fixture
def lines() -> Iterator[list[bytes]]:
    """The lines that come out, with everything put back afterwards."""
    root = logging.getLogger()
    kept = (root.handlers[:], root.level, logging.raiseExceptions)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    made: list[bytes] = []
    yield made
    logging.captureWarnings(capture=False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:], level, logging.raiseExceptions = kept
    root.setLevel(level)


def fail(error: Exception) -> None:
    raise error


def read(lines: list[bytes]) -> dict[str, Any]:
    (line,) = lines
    assert line.count(b"\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record_is_one_json_line(lines: list[bytes]) -> None:
    """Whatever its message holds."""
    install(LineHandler(lines.append))
    logging.getLogger("some.library").warning("two\nlines \x1b[31m\x7f\u202e %d", 7)

    found = read(lines)
    assert found["message"] == "two\nlines \x1b[31m\x7f\u202e 7"
    assert (found["level"], found["logger"]) == ("warning", "some.library")
    assert found["time"].endswith("Z")
    assert all(0x20 <= byte < 0x7F for byte in lines[0][:-1])


def test_a_library_keeps_no_handler_of_its_own(lines: list[bytes]) -> None:
    """What it brought is taken away, and its records come to the root."""
    aside = io.StringIO()
    library = logging.getLogger("some.noisy.library")
    library.addHandler(logging.StreamHandler(aside))
    library.propagate = False

    install(LineHandler(lines.append))
    library.error("GET /cb?code=%s", CANARY)

    assert read(lines)["message"] == "GET /cb?code=[redacted]"
    assert aside.getvalue() == ""


def test_the_http_client_tells_of_no_request(lines: list[bytes]) -> None:
    """Who asks issuers has a line for what went wrong, and none for each question."""
    install(LineHandler(lines.append))
    for name in ("httpx2", "httpcore2.connection"):
        logging.getLogger(name).info("HTTP Request: POST https://issuer.example/")
    assert lines == []
    logging.getLogger("httpx2").warning("something is wrong")
    assert read(lines)["logger"] == "httpx2"


def test_a_traceback_is_redacted_too(lines: list[bytes]) -> None:
    """Its lines of source, its error, and the error's cause."""
    install(LineHandler(lines.append))
    try:
        try:
            fail(ValueError(f"bad header Authorization: Bearer {CANARY}"))
        except ValueError as error:
            raise RuntimeError({"password": CANARY}) from error
    except RuntimeError:
        logging.getLogger("x").exception("failed for token=%s", CANARY)

    found = read(lines)
    assert "RuntimeError" in found["trace"]
    assert "ValueError" in found["trace"]
    assert CANARY not in lines[0].decode()


def test_no_other_formatters_traceback_is_believed() -> None:
    """A handler before ours may have left its own, unredacted, in the record."""
    record = logging.LogRecord("x", logging.ERROR, "", 0, "m", None, None)
    record.exc_text = CANARY

    assert CANARY not in RedactingFormatter().format(record)


def test_the_stack_is_shown_where_it_was_asked_for(lines: list[bytes]) -> None:
    """`stack_info` is a traceback without an error."""
    install(LineHandler(lines.append))
    logging.getLogger("x").warning("here", stack_info=True)

    assert "test_the_stack_is_shown" in read(lines)["trace"]


def test_a_record_that_cannot_be_formatted_is_a_line_too(
    lines: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    """The logging module would print it with all its arguments to standard error."""
    install(LineHandler(lines.append))
    logging.getLogger("x").warning("token=%s %d", CANARY)  # noqa: PLE1206

    assert read(lines)["message"] == "token=[redacted] %d (its arguments do not fit)"
    assert CANARY not in "".join(capfd.readouterr())


def test_a_long_record_is_cut(lines: list[bytes]) -> None:
    """After the redaction: half a secret would not be known as one."""
    install(LineHandler(lines.append))
    try:
        fail(ValueError("y" * 2 * MAX_TRACEBACK))
    except ValueError:
        start = "x" * (MAX_MESSAGE - 20)
        logging.getLogger("x").exception("%s redis://:%s@a", start, CANARY)

    found = read(lines)
    assert found["message"] == f"{start} redis://[redacted]@"[:MAX_MESSAGE]
    assert len(found["trace"]) == MAX_TRACEBACK


def test_warnings_and_crashes_take_the_same_way(lines: list[bytes]) -> None:
    """Of the main thread, of another one, and of nobody in particular."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        install(LineHandler(lines.append))
        warnings.warn_explicit(f"token={CANARY}", UserWarning, "x.py", 1)
    error = ValueError(f"token={CANARY}")
    sys.excepthook(ValueError, error, None)
    thread = threading.Thread(target=lambda: int(f"token={CANARY}"))
    thread.start()
    thread.join()
    sys.unraisablehook(_Unraisable(error))  # type: ignore[arg-type]
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    sys.unraisablehook(_Unraisable(None))  # type: ignore[arg-type]
    threading.excepthook(threading.ExceptHookArgs([ValueError, None, None, None]))

    assert len(lines) == 4
    assert CANARY.encode() not in b"".join(lines)
    assert all(b"token=" in line for line in lines)


class _Unraisable:
    def __init__(self, error: BaseException | None) -> None:
        self.exc_type = type(error)
        self.exc_value = error
        self.exc_traceback = None


def test_a_developer_reads_text(lines: list[bytes]) -> None:
    """With the traceback below it, and nothing that a terminal would obey."""
    install(LineHandler(lines.append, json_lines=False))
    try:
        fail(ValueError("\x1b[31m"))
    except ValueError:
        logging.getLogger("x").exception("é token=%s\x07", CANARY)

    text = b"".join(lines).decode()
    assert "ERROR x: é token=[redacted]" in text
    assert "ValueError: \\x1b[31m" in text
    assert "Traceback" in text.splitlines()[1]


def test_any_handler_is_given_the_formatter(lines: list[bytes]) -> None:
    """One that formats its own way would let through what we remove."""
    out = io.StringIO()
    install(logging.StreamHandler(out), level=logging.WARNING)
    logging.getLogger("x").info("not this")
    logging.getLogger("x").warning("password=%s", CANARY)

    assert json.loads(out.getvalue())["message"] == "password=[redacted]"

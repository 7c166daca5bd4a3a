"""Where the output of every other logger goes: ours, libraries', and tracebacks.

`install` puts one handler at the root and takes away those that libraries bring, so
that no line reaches anybody unredacted (R96), each is one line (R97), and nobody waits
for the reader of the log.

Imports: gateway.observe.redact.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType

from gateway.observe.redact import redact

MAX_MESSAGE = 2048  # characters (R97)
MAX_TRACEBACK = 16_384  # characters; its end, which names the error, is kept

# They tell of each question that is asked, and so of each invented token.
_TALKATIVE = ("httpx2", "httpcore2")

_LOG = logging.getLogger(__name__)


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, as one redacted line.

    Args:
        json_lines: JSON objects for machines; otherwise text for a person.
    """

    def __init__(self, *, json_lines: bool = True) -> None:
        super().__init__()
        self._json_lines = json_lines

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*, without a line end."""
        message = redact(_message(record))[:MAX_MESSAGE]
        trace = redact(self._trace(record))[-MAX_TRACEBACK:]
        at = datetime.fromtimestamp(record.created, UTC)
        if not self._json_lines:
            text = f"{at:%H:%M:%S} {record.levelname} {record.name}: {message}"
            return _visible(text + (f"\n{trace}" if trace else ""))
        line: dict[str, str] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if trace:
            line["trace"] = trace
        # ASCII escapes what could end the line or turn it around.
        return json.dumps(line, separators=(",", ":")).replace("\x7f", "\\u007f")

    def _trace(self, record: logging.LogRecord) -> str:
        parts: list[str] = []
        # Not record.exc_text: another handler's formatter may have put it there, and
        # it would stay there for yet another one.
        if record.exc_info and record.exc_info[1] is not None:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(record.stack_info)
        return "\n".join(parts)


class LineHandler(logging.Handler):
    """Hands each record's line to *put*, which does not wait (LogWriter.put)."""

    def __init__(
        self, put: Callable[[bytes], object], *, json_lines: bool = True
    ) -> None:
        super().__init__()
        self._put = put
        self.setFormatter(RedactingFormatter(json_lines=json_lines))

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the line of *record* on."""
        self._put(self.format(record).encode("utf-8", "backslashreplace") + b"\n")


def install(handler: logging.Handler, *, level: int = logging.INFO) -> None:
    """Make *handler* the only way out for log records, warnings and crashes."""
    if not isinstance(handler.formatter, RedactingFormatter):
        handler.setFormatter(RedactingFormatter())
    root = logging.getLogger()
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # Otherwise a record that can't be formatted is printed as it is, with arguments.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed
    sys.unraisablehook = _unraisable


def _crashed(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _LOG.critical("ended by an error", exc_info=(kind, error, trace))


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _LOG.error(
            "a thread ended by an error",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    # Without the object it happened in: its repr may be long, and is not needed.
    if args.exc_value is not None:
        _LOG.error(
            "an error nobody could catch",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  (a library's mistake, in a line about another)
        return f"{record.msg} (its arguments do not fit)"


def _visible(text: str) -> str:
    """Return *text* without what a terminal would obey, but for its line ends."""
    return "".join(
        character
        if character == "\n" or character.isprintable()
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )

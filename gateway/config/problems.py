"""How problems are told: place, line, mark, suggestion; and never a secret.

    policies/orders.toml:36:12: route "orders.cancel": unknown permission "orders:cancl"
       36 | require = ["orders:cancl", "@owner"]
          |            ^^^^^^^^^^^^^^ did you mean "orders:cancel"?

A value that came from the environment or from a file never stands here: it is not in
the text to begin with, and messages that would repeat it are masked. A secret that
somebody wrote into the file itself is masked in the line that is shown.

Imports: the standard library, gateway.config.documents, gateway.config.positions,
gateway.policy.spec.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.config.documents import Document, SyntaxProblem, strings, value_at
from gateway.config.positions import Span
from gateway.policy.spec import KeyPath, Problem

MASK = "***"
_WIDEST = 120  # characters of a source line that are shown
_SHORTEST = 8  # characters; a shorter bare word may be one of ours

# Keys whose values don't belong into a report, however they are spelt.
_SECRET_KEYS = frozenset(
    {"secret", "client_secret", "pem", "pepper", "token", "password", "nonce_key"}
)
# Where keys stand that seal: whatever is there is one, unless it says where they are.
SEALING: frozenset[tuple[str | int, ...]] = frozenset(
    {
        ("fernet", "keys", "*"),
        ("fernet", "derived", "password"),
        ("jwe", "keys", "*", "key"),
    }
)
_NO_KEY = re.compile("dir:.*|ephemeral", re.DOTALL)
_PEM = "-----BEGIN "  # what stands behind it, if not a secret, is no help either
# The password in a URL; a store's may hold characters that should have been escaped.
_USER_INFO = re.compile(
    r"//[^/?#]*@|^(?:redis[^:]*|unix)://.*@|[?&]sentinel_password=", re.DOTALL
)
_SECRET_IN_BROKEN_LINE = re.compile(
    r"(?i)(\b(?:\w*(?:secr|passw|pem|pepper|tok|url|proxy)\w*|keys?)[\"']?\s*=\s*)(.+)"
)


@dataclass(frozen=True, slots=True)
class Hidden:
    """What was read from outside the files, and how the files refer to it."""

    references: Mapping[str, str] = field(default_factory=dict, repr=False)

    def mask(self, text: str) -> str:
        """Return *text* with every hidden value replaced by its reference."""
        if text in self.references:
            return self.references[text]
        for value in sorted(filter(None, self.references), key=len, reverse=True):
            reference = self.references[value]
            text = text.replace(f'"{value}"', f'"{reference}"')
            if len(value) >= _SHORTEST:
                text = text.replace(value, reference)
        return text


class ConfigError(Exception):
    """The configuration doesn't load. str() is the report for people."""

    def __init__(self, problems: Sequence[Problem], report: str) -> None:
        super().__init__(report)
        self.problems = tuple(problems)


def quoted(words: Iterable[str], joint: str = "or") -> str:
    """Write '"a", "b" or "c"'."""
    items = [f'"{word}"' for word in words]
    if len(items) < 2:  # noqa: PLR2004  (one word needs no joint)
        return "".join(items)
    return f"{', '.join(items[:-1])} {joint} {items[-1]}"


def line_of(document: Document, at: KeyPath) -> str:
    """Return "file:line" of what stands at *at*."""
    span = document.positions.find(at)
    line = document.positions.line_column(span.start)[0] if span else 1
    return f"{document.file}:{line}"


def place_of(document: Document, at: KeyPath) -> str:
    """Return "file:line:column" of what stands at *at*."""
    span = document.positions.find(at)
    line, column = document.positions.line_column(span.start) if span else (1, 1)
    return f"{document.file}:{line}:{column}"


def error(
    problems: Iterable[Problem],
    broken: Iterable[SyntaxProblem],
    documents: Sequence[Document],
    hidden: Hidden,
) -> ConfigError:
    """Make the error that tells all of *problems* and *broken* at once."""
    by_file = {document.file: document for document in documents}
    order = {document.file: number for number, document in enumerate(documents)}
    placed = [(item.problem, item.span) for item in broken]
    placed.extend(
        (problem, _span(problem, by_file.get(problem.file)))
        for problem in dict.fromkeys(problems)  # each once
    )
    placed.sort(
        key=lambda item: (
            order.get(item[0].file, len(order)),
            item[1].start if item[1] else -1,
        )
    )
    masked = [
        (
            replace(
                problem,
                message=hidden.mask(problem.message),
                suggestion=hidden.mask(problem.suggestion),
                value=hidden.mask(problem.value),
            ),
            span,
        )
        for problem, span in placed
    ]
    paragraphs = [
        _paragraph(problem, span, by_file.get(problem.file)) for problem, span in masked
    ]
    files = len({problem.file for problem, _ in masked})
    count = f"{len(masked)} problem{'s' if len(masked) > 1 else ''}"
    count += f" in {files} files" if files > 1 else ""
    report = "\n\n".join([*paragraphs, count])
    return ConfigError([problem for problem, _ in masked], report)


def _span(problem: Problem, document: Document | None) -> Span | None:
    """Find what to mark."""
    if document is None:
        return None
    positions = document.positions
    if problem.value:
        below = value_at(document.data, problem.at)
        for at, text in strings(below, problem.at):
            if text == problem.value and at in positions.values:
                return positions.values[at]
        for at in ((*problem.at, problem.value), problem.at):
            if at and at[-1] == problem.value and at in positions.keys:
                return positions.keys[at]
    return positions.find(problem.at, key=problem.key)


def _paragraph(problem: Problem, span: Span | None, document: Document | None) -> str:
    message = _printable(problem.message)
    suggestion = _printable(problem.suggestion, keep="\n")
    help_lines = suggestion.split("\n") if suggestion else []
    if document is None or span is None:
        whole = document is None or document.broken
        place = problem.file if whole else f"{problem.file}:1:1"
        return "\n".join(
            [
                f"{place}: {message}",
                *(f"      | {line}".rstrip() for line in help_lines),
            ]
        )
    positions = document.positions
    line, column = positions.line_column(span.start)
    shown, start, width = _line(problem, span, document)
    first, *more = help_lines or [""]
    indent = "      | "
    return "\n".join(
        [
            f"{problem.file}:{line}:{column}: {message}",
            f"{line:5} | {shown}".rstrip(),
            f"{indent}{' ' * start}{'^' * width} {first}".rstrip(),
            *(f"{indent}{' ' * start}{text}".rstrip() for text in more),
        ]
    )


def _line(problem: Problem, span: Span, document: Document) -> tuple[str, int, int]:
    """Return the line to show, and where in it the mark begins and how wide it is."""
    positions = document.positions
    number, column = positions.line_column(span.start)
    text = positions.line_text(number)
    begin = span.start - column + 1
    end = begin + len(text)
    stop = min(span.stop, end)
    pieces: list[str] = []
    marks = [0, 0]  # where the marked part begins and ends in what is shown
    at, length = begin, 0

    def show(piece: str, real: int) -> None:
        """Add *piece*, which stands for *real* characters of the text."""
        nonlocal at, length
        for index, edge in enumerate((span.start, stop)):
            if at <= edge < at + real:
                inside = edge - at if len(piece) == real else 0
                marks[index] = length + inside
            elif edge >= at + real:
                marks[index] = length + len(piece)
        pieces.append(piece)
        length += len(piece)
        at += real

    if document.broken:
        found = _SECRET_IN_BROKEN_LINE.search(text)
        masks = [Span(begin + found.start(2), end)] if found else []
    else:
        masks = _masks(problem, document, begin, end)
    for mask in masks:
        first, last = max(mask.start, at), min(mask.stop, end)
        if first < last:
            show(_printable(text[at - begin : first - begin]), first - at)
            show(MASK, last - first)
    show(_printable(text[at - begin :]), end - at)
    shown = "".join(pieces)
    start, width = marks[0], max(1, marks[1] - marks[0])
    if len(shown) > _WIDEST:
        cut = max(0, min(start - 20, len(shown) - _WIDEST))
        shown = shown[cut : cut + _WIDEST]
        start -= cut
        width = max(1, min(width, len(shown) - start))
    return shown, start, width


def _masks(problem: Problem, document: Document, begin: int, end: int) -> list[Span]:
    """Return what of the text between *begin* and *end* is not to be shown."""
    spans = []
    for at, span in document.positions.values.items():
        if span.start >= end or span.stop <= begin:
            continue
        value = value_at(document.data, at)
        # Nobody knows what an unknown key holds: it may be a misspelt `secret`.
        unknown = problem.key and at == problem.at
        if unknown or (isinstance(value, str) and is_secret(at, value)):
            spans.append(span)
    return sorted(spans, key=lambda span: span.start)


def is_secret(at: KeyPath, value: str) -> bool:
    """Tell whether *value* is a secret that stands in the file itself."""
    if value.startswith(("env:", "file:")):
        return False
    if _PEM in value:
        return True
    if pattern_of(at) in SEALING:
        return _NO_KEY.fullmatch(value) is None
    keys: Collection[str] = [part for part in at if isinstance(part, str)]
    return not _SECRET_KEYS.isdisjoint(keys) or bool(_USER_INFO.search(value))


def pattern_of(at: KeyPath) -> tuple[str | int, ...]:
    """Return *at* with "*" for each index."""
    return tuple("*" if isinstance(part, int) else part for part in at)


def _printable(text: str, keep: str = "") -> str:
    """Return *text* as it may go to a terminal: no controls, nothing bidirectional."""
    return "".join(
        char if char.isprintable() or char in keep else "\N{REPLACEMENT CHARACTER}"
        for char in text.replace("\t", " ")
    )

"""Sizes and durations as people write them: "16 KiB", "250ms", "none".

A number without its unit is refused. Bytes or KiB, seconds or milliseconds: who
reads the line has to know, and who guesses is wrong by a factor of a thousand.

Imports: the standard library only.
"""

from __future__ import annotations

import re

SIZE = r"([0-9]{1,12}) ?(B|KiB|MiB|GiB)"
DURATION = r"([0-9]{1,9}) ?(ms|s|m|h|d)"

_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
# Milliseconds, so that "250ms" is a quotient of integers and not a sum of floats.
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def size(text: str) -> int:
    """Return the bytes that *text* says.

    Raises:
        ValueError: It is not a size; the message doesn't repeat it.
    """
    found = re.fullmatch(SIZE, text)
    if found is None:
        raise ValueError('expected a size with its unit, such as "16 KiB" or "10 MiB"')
    return int(found[1]) * _BYTES[found[2]]


def duration(text: str) -> float:
    """Return the seconds that *text* says.

    Raises:
        ValueError: It is not a duration; the message doesn't repeat it.
    """
    found = re.fullmatch(DURATION, text)
    if found is None:
        raise ValueError('expected a time with its unit, such as "10s" or "250ms"')
    return int(found[1]) * _MILLISECONDS[found[2]] / 1000


def duration_or_none(text: str) -> float | None:
    """Return the seconds that *text* says, or None for "none".

    Raises:
        ValueError: It is neither; the message doesn't repeat it.
    """
    if text == "none":
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "none"') from None


def spell_size(size_: int) -> str:
    """Write *size_* (bytes) in its largest whole unit."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_ and size_ % _BYTES[unit] == 0:
            return f"{size_ // _BYTES[unit]} {unit}"
    return f"{size_} B"


def spell_duration(seconds: float) -> str:
    """Write *seconds* in its largest whole unit."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _MILLISECONDS[unit] == 0:
            return f"{milliseconds // _MILLISECONDS[unit]}{unit}"
    return f"{milliseconds}ms"

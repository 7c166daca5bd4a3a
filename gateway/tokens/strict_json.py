"""JSON objects read so that no two readers can disagree about them (R43).

RFC 8259 leaves open what duplicate names, huge numbers and lone surrogates mean, and
Python's reader takes more than the RFC. Whatever the gateway, a policy engine and a
backend could understand differently is refused here: the header and the payload of
every token, and every document that keys come from, pass through `loads`.

Imports: the standard library only.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_DEPTH = 32  # no claim in use nests deeper; 5,000 brackets fit into 6.7 KB (R43)
MAX_INTEGER = 2**53  # beyond it a double rounds (RFC 7493 section 2.2)
_MAX_DIGITS = len(str(MAX_INTEGER)) + 1  # and a sign; int() on more is wasted time

# A string, also one that never ends, and then a bracket. Possessive, and the end of
# the text closes a string, so that hostile text is walked once and not once per quote.
_STRING = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_OPENS = ord("[")


def loads(raw: bytes) -> dict[str, Any] | None:
    """Return the JSON object that *raw* is, or None when it is anything else."""
    try:
        text = raw.decode("utf-8")
        if _is_too_deep(text):
            return None
        value = _DECODER.decode(text)
        if "\\u" in text:
            # "\ud800" alone parses, but is no text: nobody could encode it again.
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError:  # UnicodeError and JSONDecodeError are ValueErrors
        return None
    return value if isinstance(value, dict) else None


def _is_too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False  # nearly every token: brackets in strings included
    # Only the brackets are walked, and only as far as they are allowed to nest: a list
    # of all of them made the refusal of 6 KB dearer than several requests.
    depth = 0
    for bracket in _STRING.sub("", text).encode().translate(_ONE_KIND, _NO_BRACKETS):
        depth += 1 if bracket == _OPENS else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS or abs(value := int(digits)) > MAX_INTEGER:
        raise ValueError("an integer that not every reader can hold")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number beyond a double")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_real,
    parse_constant=_constant,
)

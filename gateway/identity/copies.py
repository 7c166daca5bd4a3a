"""Plain copies: claims of the assertion in headers, for backends that read headers.

R95. One rule, which a percent-decoder undoes:

- A string is its UTF-8 bytes. Printable ASCII (space to "~") stands for itself,
  but for "%"; every other byte, and a space at either end, which HTTP would trim,
  is "%" and two upper-case hexadecimal digits.
- A number or boolean is what JSON writes.
- A list of strings is its items joined by ","; in an item "," is encoded as well.
- A claim that is absent, null or an empty list has no header.

What can't be said so (an object, a list of anything else), is longer than 1 KiB,
or brings all copies of a request over 4 KiB, refuses the request. To leave the
header out instead would tell the backend that there is no such claim, and what a
backend makes of "no tenant" is not ours to guess.

Imports: gateway.model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from gateway.model import Denial, Headers, Reason

MAX_COPY = 1024  # bytes of one value: R95
MAX_COPIES = 4 * 1024  # bytes of all values of a request: R95

_AS_IT_IS = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_IN_A_LIST = _AS_IT_IS.replace(",", "")
_ENDS = re.compile(" *(.*?) *", re.DOTALL)


def copies(
    claims: Mapping[str, Any], names: Iterable[tuple[bytes, str]]
) -> Headers | Denial:
    """Return the header fields that copy *claims*.

    Args:
        claims: Those of the assertion, so that nothing stands beside it that is not
            in it (R94).
        names: Header name, lower-case, and the claim it copies.
    """
    fields = []
    total = 0
    for header, claim in names:
        value = claims.get(claim)
        if value is None or value == []:
            continue
        encoded = encode(value)
        if encoded is None:
            return Denial(Reason.CLAIM_INVALID, claim)
        total += len(encoded)
        if len(encoded) > MAX_COPY or total > MAX_COPIES:
            return Denial(Reason.CLAIM_INVALID, claim)
        fields.append((header, encoded))
    return tuple(fields)


def encode(value: object) -> bytes | None:
    """Return *value* as a header value, or None where the rule has no form for it."""
    try:
        if isinstance(value, str):
            return _escape(value, _AS_IT_IS).encode("ascii")
        if isinstance(value, bool | int | float):
            return json.dumps(value, allow_nan=False).encode("ascii")
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return ",".join(_escape(item, _IN_A_LIST) for item in value).encode("ascii")
    except ValueError:  # NaN; a lone surrogate, which UTF-8 can't say
        return None
    return None


def _escape(text: str, safe: str) -> str:
    """Return *text*, all but *safe* percent-encoded, with spaces only inside."""
    found = _ENDS.fullmatch(text)
    assert found is not None
    start, end = found.span(1)
    inner = quote(text[start:end], safe=safe)
    return "%20" * start + inner + "%20" * (len(text) - end)

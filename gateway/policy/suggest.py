"""Guess what an author meant.

Imports: the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that *word* most likely stands for."""
    found = get_close_matches(word, sorted(known), n=1)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return 'did you mean "x"?', or what there is to choose from if it is little."""
    words = sorted(known)
    near = nearest(word, words)
    if near is not None:
        return f'did you mean "{near}"?'
    # More than this is a list to search, not a hint.
    if 0 < len(words) <= 8:  # noqa: PLR2004
        return f"known: {', '.join(words)}"
    return ""

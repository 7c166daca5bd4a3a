"""What is fuzzed: each a function over bytes, inputs to begin with, and words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fuzz import front, head, tokens, upstream


@dataclass(frozen=True)
class Target:
    """One thing to fuzz."""

    fuzz: Callable[[bytes], None]  # raises where something does not hold
    seeds: Callable[[], list[bytes]]
    words: Sequence[bytes]  # what an input is likely to be made of
    share: int = 1  # of the time


TARGETS = {
    "front": Target(front.fuzz, front.seeds, front.WORDS, share=4),
    "upstream": Target(upstream.fuzz, upstream.seeds, upstream.WORDS, share=3),
    "head": Target(head.fuzz, head.seeds, head.WORDS, share=2),
    "tokens": Target(tokens.fuzz, tokens.seeds, tokens.WORDS, share=2),
}

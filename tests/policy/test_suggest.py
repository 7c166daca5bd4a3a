"""gateway.policy.suggest: guesses that help, or none."""

from __future__ import annotations

import pytest

from gateway.policy.suggest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("cancl", ["cancel", "list"], 'did you mean "cancel"?'),
        ("zzz", ["cancel", "list"], "known: cancel, list"),
        ("zzz", [], ""),
        ("zzz", [f"name{n}" for n in range(9)], ""),
    ],
)
def test_a_near_word_is_named_and_a_short_list_is_shown(
    word: str, known: list[str], said: str
) -> None:
    """Where nothing is near, what there is gets listed if it is little."""
    assert did_you_mean(word, known) == said


def test_the_guess_does_not_depend_on_the_order_of_what_is_known() -> None:
    """Two words as near as each other: the same one is named every time."""
    assert nearest("ab", ["abc", "abd"]) == nearest("ab", ["abd", "abc"])

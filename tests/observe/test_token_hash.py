"""gateway.observe.token_hash: one token can be followed, and none can be guessed."""

from __future__ import annotations

import re

import pytest

from gateway.observe.token_hash import TokenHash

KEY = b"0123456789abcdef"


def test_a_token_has_one_name_under_one_key() -> None:
    """And another one under another key, so that a guess can't be tried."""
    names = TokenHash(KEY)

    assert names.of("a") == names.of("a") == TokenHash(KEY).of("a")
    assert names.of("a") != names.of("b")
    assert names.of("a") != TokenHash(KEY + b"x").of("a")
    assert TokenHash().of("a") != TokenHash().of("a")


@pytest.mark.parametrize("token", ["", "é", "\ud800", "x" * 100_000])
def test_whatever_was_presented_has_a_name(token: str) -> None:
    """Sixteen hex digits."""
    assert re.fullmatch("[0-9a-f]{16}", TokenHash(KEY).of(token))


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 65])
def test_a_key_that_could_be_guessed_is_refused(key: bytes) -> None:
    """An empty key would be none."""
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        TokenHash(key)

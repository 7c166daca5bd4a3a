"""A name for a token that tells two tokens apart and gives neither away.

Keyed (RFC 7693 section 2.5), so that who reads the log can follow one token, but can't
test a guess. The key is the process's own, or one that all instances share.

Imports: the standard library only.
"""

from __future__ import annotations

import hashlib
import secrets

MIN_KEY = 16  # bytes: out of reach of guessing
SIZE = 8  # bytes; of a million tokens, two share a name once in 37 million logs


class TokenHash:
    """Names tokens under one key of 16 to 64 bytes; without one, under its own."""

    def __init__(self, key: bytes | None = None) -> None:
        key = secrets.token_bytes(32) if key is None else key
        if not MIN_KEY <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError("the key of the token hash has 16 to 64 bytes")
        self._keyed = hashlib.blake2b(digest_size=SIZE, key=key)

    def of(self, token: str) -> str:
        """Return the sixteen hex digits that stand for *token* in the log."""
        digest = self._keyed.copy()
        # A token is ASCII by the time anybody trusts it; before that it may be
        # anything, and must be no more than a different name then.
        digest.update(token.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

"""Lua scripts, as Redis knows them.

Apart from whoever sends them: redis takes 90 ms to import, and who keeps everything in
memory doesn't wait for it.

Imports: the standard library only.
"""

from __future__ import annotations

from hashlib import sha1


class Script:
    """A Lua script. Redis knows one that it has run by its digest."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.digest = sha1(text, usedforsecurity=False).hexdigest().encode()

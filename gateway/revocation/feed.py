"""The feed: how a mirror stays whole, and how it knows when it is not.

Whatever is written to the list gets a number, one more than the last, and the number
belongs to an epoch: the time in which one server kept the list without losing any of
it. A mirror that has applied every number of an epoch is whole. A number that is
missing, or another epoch, is a hole, and a hole is filled from a snapshot, never
passed over in silence.

Numbers begin at the time of day when an epoch does, in milliseconds: so a later epoch's
are higher than an earlier one's, which is what blocks are ordered by.

Imports: gateway.revocation.entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.revocation.entries import KINDS, PREFIX, Revocation, entry_of
from gateway.tokens.fingerprints import SIZE


class Hole(Exception):  # noqa: N818  (a state of the mirror)
    """There is, or may be, something that the mirror has not heard of."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the feed."""

    epoch: bytes
    number: int


class Follower:
    """How far a mirror has come."""

    def __init__(self) -> None:
        self.at: Position | None = None  # None: it has no snapshot yet
        self.is_level = False  # it has once been as far as the store, since then
        self.owed = 0  # the number that the store has said last

    def can_go_on(self, store: Position) -> bool:
        """Tell whether the feed leads from here to where *store* is."""
        at = self.at
        return at is not None and at.epoch == store.epoch and at.number <= store.number

    def begin(self, at: Position) -> None:
        """Go on from *at*, where a snapshot was begun."""
        self.at = at
        self.is_level = False
        self.owed = 0

    def follow(self, to: Position) -> None:
        """Take one step: *to* is what the next entry of the feed says.

        Raises:
            Hole: It is not the next one.
        """
        at = self.at
        if at is None or at.epoch != to.epoch or at.number + 1 != to.number:
            raise Hole
        self.at = to

    def told(self, store: Position, *, heard: bool) -> None:
        """Compare with where *store* says it is.

        Args:
            store: As just told.
            heard: The feed has said something since the last time.

        Raises:
            Hole: The feed does not lead there.
        """
        if not self.can_go_on(store):
            raise Hole
        assert self.at is not None, "or it could not go on"
        # It was read after the store had said that there is more, and was silent.
        if not heard and self.at.number < self.owed:
            raise Hole
        self.owed = store.number
        self.is_level = self.is_level or self.at.number == store.number


_KINDS = {kind.encode(): kind for kind in KINDS}
_ENDLESS = -1  # what Redis says of a key without an end


def entry_at(key: bytes, value: bytes, ends: int) -> Revocation | None:
    """Return the entry that a store holds under *key*; None: it is no entry.

    Args:
        key: As the store has it.
        value: As gateway.revocation.entries writes it.
        ends: Unix milliseconds, or -1 for never.
    """
    # Without a regular expression: a snapshot has a million of them.
    kind_and_name = key.removeprefix(PREFIX)
    said, _, digits = kind_and_name.partition(b":")
    kind = _KINDS.get(said)
    if kind is None or len(digits) != 2 * SIZE or kind_and_name == key:
        return None
    try:
        name = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
    if name.hex().encode() != digits:  # it has one spelling
        return None
    return entry_of(kind, name, value, math.inf if ends == _ENDLESS else ends / 1000)


def read_entry(
    entry_id: bytes, fields: Sequence[bytes]
) -> tuple[Position, Revocation | None]:
    """Return what one entry of the feed says: its place, and what was revoked.

    None: of a kind that a later version knows.

    Raises:
        Hole: It can't be understood.
    """
    said = dict(zip(fields[::2], fields[1::2], strict=False))
    number, _, zero = entry_id.partition(b"-")
    try:
        if zero != b"0":
            raise Hole
        entry = entry_at(said[b"key"], said[b"value"], int(said[b"ends"]))
        return Position(said[b"epoch"], int(number)), entry
    except (KeyError, ValueError, OverflowError):
        raise Hole from None

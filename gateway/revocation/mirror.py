"""What one process knows of the revocation list: whole, exact, and small.

A token, a session or a family is a name of 16 bytes and the second in which it ends, 20
bytes in three columns that are kept in order; a million of them take some 21 MB. The
whole names stay, though half of one would do to find it: what a store has lost, a
mirror gives back. Nothing is ever hashed anew: the columns of some thousand names grow
by a page at a time, so the longest step is one copy of them, and whoever chooses names
that lie side by side makes columns longer and nothing slow. Pages come from the system
itself: in the heap, columns that grow by turns would leave holes of a quarter of it.

Cut-offs and blocks are few, and stand in tables of their own.

What has run out counts no more from that moment on. Its memory is given back bit by
bit, with whatever is entered.

Imports: gateway.model, gateway.revocation.entries.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import compress
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap

from gateway.model import Principal
from gateway.revocation.entries import LISTED, Kind, Revocation, is_revoked

_SHARDS = 256  # of a kind, by the first byte of a name; 4,000 in each of a million
CREDIT = 8  # names that are looked through for each that is entered
_ROW = 20  # bytes of a name and its end
_STEP = PAGESIZE // _ROW  # names by which columns grow, beyond a page
_LAST = 2**32 - 1  # the last second that an array can hold: in the year 2106


class _Shard:
    """Some names of a kind, in order, and when each ends."""

    __slots__ = ("count", "ends", "first", "heads", "tails")

    def __init__(self, room: int = 0) -> None:
        self.count = 0
        self.first = _LAST  # none ends before that
        self._make(room)

    def _make(self, room: int) -> None:
        """Make new columns, for *room* names or some more."""
        size = room * _ROW
        if size < PAGESIZE:
            held = memoryview(bytearray(size))
        else:
            size = -(-size // PAGESIZE) * PAGESIZE
            # Private: what Python maps by itself, a child would write into with us.
            pages = mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
            held, room = memoryview(pages), size // _ROW
        self.heads = held[: 8 * room].cast("Q")  # the first 8 bytes of a name
        self.tails = held[8 * room : 16 * room].cast("Q")  # the last 8
        self.ends = held[16 * room : _ROW * room].cast("I")  # Unix seconds

    def place(self, head: int, tail: int) -> tuple[int, bool]:
        """Return where a name is, or would be, and whether it is there."""
        heads, tails, count = self.heads, self.tails, self.count
        at = bisect_left(heads, head, 0, count)
        # Two names with the same head are two to the power of 32 names away, unless
        # somebody looked for them.
        while at < count and heads[at] == head and tails[at] < tail:
            at += 1
        return at, at < count and heads[at] == head and tails[at] == tail

    def insert(self, at: int, head: int, tail: int, end: int) -> None:
        """Enter a name at its place."""
        count = self.count
        if count == len(self.heads):
            before = self.heads, self.tails, self.ends
            self._make(min(2 * count + 4, count + max(_STEP, count // 32)))
            self.heads[:count], self.tails[:count], self.ends[:count] = before
        heads, tails, ends = self.heads, self.tails, self.ends
        behind = count + 1
        heads[at + 1 : behind] = heads[at:count]
        tails[at + 1 : behind] = tails[at:count]
        ends[at + 1 : behind] = ends[at:count]
        heads[at], tails[at], ends[at] = head, tail, end
        self.count = behind
        self.first = min(self.first, end)

    def without(self, now: float) -> _Shard | None:
        """Return what of it has not run out at *now* (Unix seconds), if anything."""
        lives = [end > now for end in self.ends[: self.count]]
        count = sum(lives)
        if not count:
            return None
        left = _Shard(count)
        left.heads[:count] = array("Q", compress(self.heads, lives))
        left.tails[:count] = array("Q", compress(self.tails, lives))
        left.ends[:count] = array("I", compress(self.ends, lives))
        left.count, left.first = count, min(left.ends[:count])
        return left

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        count = self.count
        columns = self.heads[:count], self.tails[:count], self.ends[:count]
        # As it is now: entries may come while somebody walks.
        return zip(*map(tuple, columns), strict=True)


class _Names:
    """All that is listed of one kind."""

    def __init__(self) -> None:
        self._shards: list[_Shard | None] = [None] * _SHARDS
        self.count = 0
        self._swept = 0  # the shard that is looked through next
        self._credit = 0  # names that may be looked through now

    def get(self, name: bytes, now: float) -> float | None:
        """Return 0 if *name* is listed at *now* (Unix seconds)."""
        shard = self._shards[name[0]]
        if shard is None:
            return None
        head = int.from_bytes(name[:8])
        heads, count = shard.heads, shard.count
        at = bisect_left(heads, head, 0, count)
        if at == count or heads[at] != head:
            return None
        at, is_there = shard.place(head, int.from_bytes(name[8:]))
        return 0.0 if is_there and shard.ends[at] > now else None

    def until(self, name: bytes) -> float | None:
        """Return when *name* ends (Unix seconds), if it is listed."""
        shard = self._shards[name[0]]
        if shard is None:
            return None
        head, tail = int.from_bytes(name[:8]), int.from_bytes(name[8:])
        at, is_there = shard.place(head, tail)
        return float(shard.ends[at]) if is_there else None

    def put(self, name: bytes, until: float) -> bool:
        """List *name* until then (Unix seconds); tell whether that is news."""
        ends = math.ceil(min(max(until, 0.0), _LAST))
        shard = self._shards[name[0]]
        if shard is None:
            shard = self._shards[name[0]] = _Shard()
        head, tail = int.from_bytes(name[:8]), int.from_bytes(name[8:])
        at, is_there = shard.place(head, tail)
        if is_there:
            is_news = ends > shard.ends[at]
            shard.ends[at] = max(ends, shard.ends[at])
            return is_news
        shard.insert(at, head, tail, ends)
        self.count += 1
        return True

    def pay(self, now: float) -> None:
        """Look through as much as each entry has to pay for (Unix seconds)."""
        self._credit += CREDIT
        shard = self._shards[self._swept]
        if shard is None or shard.count <= self._credit:
            self._credit = 0
            self.sweep(now)

    def sweep(self, now: float) -> None:
        """Forget what has run out in the next shard."""
        number = self._swept
        self._swept = (number + 1) % _SHARDS
        shard = self._shards[number]
        if shard is None or shard.first > now:
            return
        left = shard.without(now)
        self.count -= shard.count - (left.count if left is not None else 0)
        self._shards[number] = left

    def __iter__(self) -> Iterator[tuple[bytes, float]]:
        for shard in self._shards:
            for head, tail, end in shard or ():
                yield head.to_bytes(8) + tail.to_bytes(8), float(end)


class _Table:
    """Few entries of one kind, each with a value; they go when they have run out."""

    def __init__(self) -> None:
        self._held: dict[bytes, Revocation] = {}
        # One element for each entry, however often it is renewed; when it comes up
        # and the entry has been given a longer life, it goes back with the new date.
        self._due: list[tuple[float, bytes]] = []

    @property
    def count(self) -> int:
        return len(self._held)

    def get(self, name: bytes, now: float) -> float | None:
        """Return the cut-off of *name*, or that it is blocked, at *now*."""
        held = self._held.get(name)
        if held is None or held.lifts or held.until <= now:
            return None
        return held.cutoff

    def find(self, name: bytes) -> Revocation | None:
        """Return the entry called *name*."""
        return self._held.get(name)

    def put(self, entry: Revocation) -> bool:
        """Merge *entry*; tell whether that is news."""
        name = entry.name
        held = self._held.get(name)
        if held is None:
            heapq.heappush(self._due, (entry.until, name))
            self._held[name] = entry
            return True
        merged = merge(held, entry)
        self._held[name] = merged
        return merged != held

    def sweep(self, now: float) -> None:
        """Forget what has run out."""
        due = self._due
        while due and due[0][0] <= now:
            name = due[0][1]
            until = self._held[name].until
            if until > now:
                heapq.heapreplace(due, (until, name))
            else:
                heapq.heappop(due)
                del self._held[name]

    def __iter__(self) -> Iterator[Revocation]:
        return iter(tuple(self._held.values()))


def merge(held: Revocation, entry: Revocation) -> Revocation:
    """Return what two entries of one kind and name say together."""
    until = max(held.until, entry.until)
    if entry.kind == "block":
        newest = entry if entry.number > held.number else held
        # What lifts a block must not end before it: else the block would be back.
        return replace(newest, until=until) if newest.lifts else newest
    return Revocation(held.kind, held.name, max(held.cutoff, entry.cutoff), until)


class Mirror:
    """Entries of the list, and what they do."""

    def __init__(self) -> None:
        self._names: dict[Kind, _Names] = {}
        self._tables: dict[Kind, _Table] = {}
        # Of the kinds that there have been entries of.
        self._lists: dict[Kind, Callable[[bytes, float], float | None]] = {}
        self.is_empty = True  # mostly it is, and then there is nothing to look into

    def __len__(self) -> int:
        """Return how many there are; some may just have run out."""
        return sum(each.count for each in self._held())

    def revokes(self, principal: Principal, now: float) -> bool:
        """Tell whether *principal* is revoked at *now* (Unix seconds)."""
        if self.is_empty and principal.fingerprints is not None:
            return False
        return is_revoked(principal, self._lists, now)

    def put(self, entry: Revocation, now: float) -> bool:
        """Merge *entry* as of *now* (Unix seconds); tell whether that is news."""
        kind = entry.kind
        self.is_empty = False
        if kind in LISTED:
            names = self._names.get(kind)
            if names is None:
                names = self._names[kind] = _Names()
                self._lists[kind] = names.get
            names.pay(now)
            return entry.until > now and names.put(entry.name, entry.until)
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = _Table()
            self._lists[kind] = table.get
        table.sweep(now)
        return entry.until > now and table.put(entry)

    def find(self, kind: Kind, name: bytes, now: float) -> Revocation | None:
        """Return what there is under *name* at *now* (Unix seconds)."""
        if kind in LISTED:
            names = self._names.get(kind)
            until = names.until(name) if names is not None else None
            found = None if until is None else Revocation(kind, name, 0.0, until)
        else:
            table = self._tables.get(kind)
            found = table.find(name) if table is not None else None
        return found if found is not None and found.until > now else None

    def sweep(self, now: float) -> None:
        """Give back some memory of what has run out by *now* (Unix seconds)."""
        for each in self._held():
            each.sweep(now)
        self.is_empty = not len(self)

    def __iter__(self) -> Iterator[Revocation]:
        for kind, names in tuple(self._names.items()):
            for name, until in names:
                yield Revocation(kind, name, 0.0, until)
        for table in tuple(self._tables.values()):
            yield from table

    def _held(self) -> tuple[_Names | _Table, ...]:
        return (*self._names.values(), *self._tables.values())

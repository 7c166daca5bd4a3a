"""What is asked of Redis for the revocation list, its feed and its mirrors.

All keys carry one hash tag, and every script names all that it touches, so that Redis
Cluster serves them too:

    {gw:revocation}:<kind>:<name>   an entry, with its end as TTL: the truth
    {gw:revocation}:state           a hash: the epoch, the last number, which server
    {gw:revocation}:feed            a stream: what was written last, <number>-0 each
    {gw:revocation}:workers         a hash: how far each mirror is, and its lease

One script writes an entry and feeds it, so that the two can't part. A server says by
its run_id that it is another one, or has started anew, and by its master_replid that it
was a replica meanwhile; nothing else would tell a snapshot that was loaded again, or a
replica that has become the master and has missed the last writes. Then a new epoch
begins: see gateway.revocation.feed.

Imports: gateway.adapters.redis_line, gateway.adapters.script, gateway.config.settings,
gateway.revocation.
"""

from __future__ import annotations

import secrets
from typing import Any

from gateway.adapters.redis_line import Call, Garbled
from gateway.adapters.script import Script
from gateway.config.settings import LEASE
from gateway.revocation.entries import PREFIX, Kind, Revocation, key_of, value_of
from gateway.revocation.feed import Position, entry_at
from gateway.revocation.lists import Effect, Follows, ListState

STATE, FEED, WORKERS = PREFIX + b"state", PREFIX + b"feed", PREFIX + b"workers"
# Never there. While a slot moves from one node of a cluster to another, neither can
# tell that, so whoever names it is told that the list is away.
NO_KEY = PREFIX + b"probe"
KEPT = 65_536  # entries of the feed: some 10 MB; who missed more takes a snapshot
FORGET = 60_000  # milliseconds after the end of its lease
SLACK = 10  # milliseconds
LATEST = 2.0**32  # Unix seconds; the end of what has none, where one is needed
_EPOCH_BYTES = 8

# ARGV[2] is the name of the epoch that begins, if one does. Two clocks would disagree,
# so the time is always the server's.
_BEGIN = b"""#!lua
local function text(number) return string.format('%.0f', number) end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local info = redis.call('INFO', 'server', 'replication')
local run = string.match(info, 'run_id:(%w+)')
  .. string.match(info, 'master_replid:(%w+)')
local held = redis.call('HMGET', KEYS[1], 'epoch', 'number', 'run')
local epoch, number = held[1], tonumber(held[2] or '')
if held[3] ~= run or not epoch or not number then
  epoch, number = ARGV[2], math.max(now, (number or 0) + 1)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'number', text(number), 'run', run,
    'since', text(now))
  redis.call('DEL', KEYS[2])
end
"""
# A union: the later cut-off and the later end win, in whichever order they come, and
# what this version can't read stays as it is. Of blocks the higher number wins.
_WRITE = Script(
    _BEGIN
    + b"""
local key, value = KEYS[3], ARGV[3]
local ends = tonumber(ARGV[4])
if ARGV[5] == 'life' then ends = now + ends end
if ends <= now then return {ARGV[1], epoch, text(number)} end
local held = redis.pcall('GET', key)
if type(held) == 'table' and held.err then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
  held = ''
end
local is_news = false
local kept = held and redis.call('PEXPIRETIME', key) or 0
local block = string.match(value, '^1:%d+:(%a+)$')
if block then
  local said = tonumber(string.match(value, '^1:(%d+):'))
  local past = held and tonumber(string.match(held, '^1:(%d+):%a+$') or '')
  if said == 0 then said = math.max(number, past or 0) + 1 end
  if not held or past and past < said then
    if block == 'lift' then ends = math.max(ends, kept) end
    value = '1:' .. text(said) .. ':' .. block
    redis.call('SET', key, value, 'PXAT', text(ends))
    is_news = true
  end
elseif held then
  local past = tonumber(string.match(held, '^1:(%d+%.?%d*)$') or '')
  if past and past < tonumber(string.sub(value, 3)) then
    redis.call('SET', key, value, 'KEEPTTL')
    is_news = true
  end
  if redis.call('PEXPIREAT', key, text(ends), 'GT') == 1 then is_news = true end
else
  redis.call('SET', key, value, 'PXAT', text(ends))
  is_news = true
end
if is_news then
  number = number + 1
  redis.call('HSET', KEYS[1], 'number', text(number))
  local said = redis.pcall('GET', key)
  if type(said) ~= 'string' then said = '' end
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], text(number) .. '-0',
    'epoch', epoch, 'key', key, 'value', said,
    'ends', text(redis.call('PEXPIRETIME', key)))
else
  -- A write, for WAIT waits for those of its own connection alone.
  redis.call('HSET', KEYS[1], 'number', text(number))
end
return {ARGV[1], epoch, text(number)}
"""
)
_WHERE = Script(_BEGIN + b"return {ARGV[1], epoch, text(number)}")
_RENEW = Script(
    _BEGIN
    + b"""
if ARGV[8] == 'join' then
  local all = redis.call('HGETALL', KEYS[3])
  for place = 1, #all, 2 do
    local ends = tonumber(string.match(all[place + 1], '^(%d+) ') or '0')
    local longer = tonumber(string.match(all[place + 1], ' (%d+)$') or '0')
    if ends + math.max(tonumber(ARGV[9]), longer) < now then
      redis.call('HDEL', KEYS[3], all[place])
    end
  end
end
redis.call('HSET', KEYS[3], ARGV[3], table.concat(
  {text(now + tonumber(ARGV[4])), ARGV[5], ARGV[6], ARGV[7]}, ' '))
return {ARGV[1], epoch, text(number)}
"""
)
_LEAVE = Script(b"""#!lua
redis.call('HDEL', KEYS[1], ARGV[2])
return {ARGV[1]}
""")
_STATUS = Script(b"""#!lua
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local since = tonumber(redis.call('HGET', KEYS[1], 'since') or '') or now
local found = {ARGV[1], string.format('%.0f', now), string.format('%.0f', since)}
for _, said in ipairs(redis.call('HVALS', KEYS[2])) do found[#found + 1] = said end
return found
""")
_STANDING = Script(b"""#!lua
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local held = redis.call('HMGET', KEYS[1], 'epoch', 'number')
local memory = string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)') or ''
local found = {ARGV[1], string.format('%.0f', now), held[1] or '', held[2] or '0',
  memory}
for _, said in ipairs(redis.call('HVALS', KEYS[2])) do found[#found + 1] = said end
return found
""")
_FIND = Script(b"""#!lua
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'table' and held.err then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
  held = ''
end
return {ARGV[1], held, string.format('%.0f', redis.call('PEXPIRETIME', KEYS[1]))}
""")
# Only what lies under our prefix, and is an entry: other keys are only passed by.
_PAGE = Script(b"""#!lua
local page = redis.call('SCAN', ARGV[2], 'MATCH', ARGV[3] .. '*:*', 'COUNT', ARGV[4])
local found = {ARGV[1], page[1]}
for _, key in ipairs(page[2]) do
  local held = redis.pcall('GET', key)
  if type(held) == 'table' and held.err then
    if not string.find(held.err, 'WRONGTYPE', 1, true) then return held end
    held = ''
  end
  local ends = redis.call('PEXPIRETIME', key)
  if held and ends ~= -2 then
    found[#found + 1] = key
    found[#found + 1] = held
    found[#found + 1] = string.format('%.0f', ends)
  end
end
return found
""")


def write_of(entry: Revocation, *, life: int | None = None, kept: int = KEPT) -> Call:
    """Return what writes *entry*, and feeds it if it is news.

    Args:
        entry: With its end in the time of the store's clock.
        life: Milliseconds; where its end is in the time of our own clock.
        kept: Entries of the feed.
    """
    # To the millisecond that it was read as: what is given back is no news.
    ends = b"%d" % (round(min(entry.until, LATEST) * 1000) if life is None else life)
    return Call(
        _WRITE,
        (STATE, FEED, key_of(entry.kind, entry.name)),
        (
            _epoch(),
            value_of(entry),
            ends,
            b"time" if life is None else b"life",
            b"%d" % kept,
        ),
    )


def where() -> Call:
    """Return what asks how far the store is."""
    return Call(_WHERE, (STATE, FEED), (_epoch(),))


def renewal(
    worker: bytes, at: Position, *, lease: float, stale: float, joins: bool
) -> Call:
    """Return what says that *worker* has applied all up to *at*, and asks as `where`.

    Args:
        worker: Its name.
        at: How far it is.
        lease: Seconds, from now, in which it will believe its mirror.
        stale: Seconds beyond that, for routes that allow it.
        joins: It has not done so before.
    """
    return Call(
        _RENEW,
        (STATE, FEED, WORKERS),
        (
            _epoch(),
            worker,
            # More than it is: the store's clock counts whole milliseconds.
            b"%d" % (lease * 1000 + SLACK),
            at.epoch,
            b"%d" % at.number,
            b"%d" % (stale * 1000),
            b"join" if joins else b"",
            b"%d" % FORGET,
        ),
    )


def leaving(worker: bytes) -> Call:
    """Return what says that *worker* decides no more."""
    return Call(_LEAVE, (WORKERS,), (worker,))


def position_of(reply: list[Any]) -> Position:
    """Return how far the store is, by its reply."""
    try:
        epoch, number = reply
        return Position(bytes(epoch), int(number))
    except (TypeError, ValueError):
        raise Garbled from None


def status() -> Call:
    """Return what asks how far all workers are."""
    return Call(_STATUS, (STATE, WORKERS))


def effect_of(position: Position, reply: list[Any]) -> Effect:
    """Return where what is at *position* is in force, by what the store says."""
    try:
        now, since, *said = (bytes(each) for each in reply)
        known = applied = lapsed = stale = late = 0
        for each in said:
            ends, epoch, number, longer = each.split(b" ")
            past = int(now) - int(ends)  # milliseconds since its lease has ended
            if past > max(FORGET, int(longer)):
                continue
            known += 1
            if epoch == position.epoch and int(number) >= position.number:
                applied += 1
            elif past >= 0:
                lapsed += 1
                stale += past < int(longer)
                late = max(late, int(longer) - past)
        # Whoever has its lease from before the epoch may not be known here.
        unknown = int(now) - int(since) < LEASE * 1000
        return Effect(known + unknown, applied, lapsed, stale, late / 1000)
    except (TypeError, ValueError):
        raise Garbled from None


def standing() -> Call:
    """Return what asks how the list is, beside what it holds."""
    return Call(_STANDING, (STATE, WORKERS))


def standing_of(reply: list[Any]) -> ListState:
    """Return how the list is, by what the store says."""
    try:
        now, epoch, number, memory, *said = (bytes(each) for each in reply)
        workers = []
        for each in said:
            ends, at_epoch, at, _ = each.split(b" ")
            left = int(ends) - int(now)  # milliseconds
            if left >= -FORGET:
                behind = int(number) - int(at) if at_epoch == epoch else None
                workers.append(Follows(left / 1000, behind))
        position = Position(epoch, int(number))
        return ListState(position, tuple(workers), int(memory) if memory else None)
    except (TypeError, ValueError):
        raise Garbled from None


def lookup(kind: Kind, name: bytes) -> Call:
    """Return what asks for one entry: its value, and when it ends."""
    return Call(_FIND, (key_of(kind, name),))


def found_of(key: bytes, reply: list[Any]) -> Revocation | None:
    """Return the entry under *key*, by what the store says."""
    try:
        value, ends = reply
        return None if value is None else entry_at(key, bytes(value), int(ends))
    except (TypeError, ValueError):
        raise Garbled from None


def page(cursor: bytes, count: int) -> Call:
    """Return what asks for the next part of a snapshot: some *count* keys."""
    return Call(_PAGE, (STATE, NO_KEY), (cursor, PREFIX, b"%d" % count))


def page_of(reply: list[Any]) -> tuple[bytes, list[tuple[bytes, bytes, int]]]:
    """Return where the next part of a snapshot begins, and what is in this one.

    Key, value and end of each; see gateway.revocation.feed.entry_at.
    """
    try:
        cursor, *rest = reply
        ends = [int(each) for each in rest[2::3]]
        return cursor, list(zip(rest[::3], rest[1::3], ends, strict=True))
    except (TypeError, ValueError):
        raise Garbled from None


def _epoch() -> bytes:
    return secrets.token_hex(_EPOCH_BYTES).encode()

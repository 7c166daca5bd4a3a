"""One suite for every RevocationList: in memory, in Redis and in Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.adapters.memory_store import MemoryRevocations
from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.model import ANONYMOUS
from gateway.revocation.lists import RevocationList
from tests.adapters.principals import CLOCK, entry, principal
from tests.redis_server import RedisServer

NOW = 1_000_000.0  # Unix seconds; for cut-offs, which no clock is compared with


@pytest.fixture
async def revocations(server: RedisServer | None) -> AsyncIterator[RevocationList]:
    made: RevocationList
    if server is None:
        made = MemoryRevocations(CLOCK)
    else:
        server.command("FLUSHALL")
        # Patient: this suite is about answers, and its machine may be busy.
        made = MirroredRevocations(server.url, CLOCK, deadline=5.0)
    yield made
    await made.aclose()


async def test_an_empty_list_revokes_nobody(revocations: RevocationList) -> None:
    """A principal is let through until something it is known by is revoked."""
    who = principal(session="s-1", client="web")

    assert not await revocations.check(who)
    assert revocations.check_now(who) in {None, False}
    assert revocations.health() is None
    await revocations.probe()
    state = revocations.state()
    assert (state.entries, state.resyncs) == (0, 0)
    assert state.is_live is (revocations.check_now(who) is not None)


async def test_a_token_or_session_is_revoked_by_name(
    revocations: RevocationList,
) -> None:
    """And no other one is."""
    await revocations.revoke(entry("token", "t-1"))
    await revocations.revoke(entry("session", "s-1"))

    assert await revocations.check(principal("t-1"))
    assert await revocations.check(principal("t-2", session="s-1"))
    assert not await revocations.check(principal("t-2", session="s-2"))
    # A name counts as what it is, not as something else of the same spelling.
    assert not await revocations.check(principal("s-1", session="t-1"))
    assert not await revocations.check(principal("t-3", subject="t-1", client="s-1"))


async def test_a_subject_or_client_is_revoked_up_to_its_cutoff(
    revocations: RevocationList,
) -> None:
    """What is issued later passes: "log out everywhere" lets one log in again."""
    await revocations.revoke(entry("subject", "alice", cutoff=NOW))
    await revocations.revoke(entry("client", "web", cutoff=NOW))

    assert await revocations.check(principal(issued_at=NOW))
    assert await revocations.check(principal(issued_at=None))
    assert not await revocations.check(principal(issued_at=NOW + 31))
    bob = principal(subject="bob", client="web", issued_at=NOW - 1)
    assert await revocations.check(bob)
    assert not await revocations.check(principal(subject="bob", issued_at=NOW - 1))


@pytest.mark.parametrize("order", [(NOW, NOW - 500), (NOW - 500, NOW)])
async def test_a_later_write_never_lowers_a_cutoff(
    revocations: RevocationList, order: tuple[float, float]
) -> None:
    """Entries are a union, so the order in which they arrive does not matter."""
    for cutoff in order:
        await revocations.revoke(entry("subject", "alice", cutoff=cutoff))

    assert await revocations.check(principal(issued_at=NOW))
    assert not await revocations.check(principal(issued_at=NOW + 31))


@pytest.mark.parametrize("order", [(600.0, 0.1), (0.1, 600.0)])
async def test_a_later_write_never_shortens_a_life(
    revocations: RevocationList, order: tuple[float, float]
) -> None:
    """The longest of the lives given to an entry is its own."""
    for cutoff, life in enumerate(order):
        # Also where it raises the cut-off.
        await revocations.revoke(entry("token", "t-1", cutoff=cutoff, life=life))
    await asyncio.sleep(0.2)

    assert await revocations.check(principal("t-1"))


async def test_an_entry_goes_when_its_life_has_ended(
    revocations: RevocationList,
) -> None:
    """Without a job, and without anybody asking for it."""
    await revocations.revoke(entry("token", "t-1", life=0.2))
    assert await revocations.check(principal("t-1"))

    end = time.monotonic() + 2.0
    while await revocations.check(principal("t-1")):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_many_at_once_each_get_their_own_answer(
    revocations: RevocationList,
) -> None:
    """Checks and writes share exchanges, never answers."""
    await asyncio.gather(
        *(revocations.revoke(entry("token", f"t-{n}")) for n in range(0, 900, 3))
    )

    found = await asyncio.gather(
        *(revocations.check(principal(f"t-{n}")) for n in range(900))
    )

    assert found == [n % 3 == 0 for n in range(900)]


async def test_whoever_has_no_names_is_not_looked_up(
    revocations: RevocationList,
) -> None:
    """Nobody is nobody; a caller who can't be looked up is refused."""
    assert not await revocations.check(ANONYMOUS)
    assert await revocations.check(replace(principal(), fingerprints=None))


async def test_a_subject_is_one_of_its_issuer(revocations: RevocationList) -> None:
    """(issuer, subject) names the caller: another issuer's alice is another one."""
    elsewhere = entry("subject", "alice", cutoff=NOW, issuer="https://other.example")

    await revocations.revoke(elsewhere)

    assert not await revocations.check(principal(issued_at=NOW))


async def test_what_is_held_can_be_found_and_listed(
    revocations: RevocationList,
) -> None:
    """Under its name, with its cut-off and its end."""
    held = [
        entry("token", "t-1"),
        entry("subject", "alice", cutoff=NOW + 0.25),
        entry("block", "alice"),
    ]
    for each in held:
        await revocations.revoke(each)

    listed = [each async for each in revocations.entries()]

    assert {(each.kind, each.name) for each in listed} == {
        (each.kind, each.name) for each in held
    }
    for each in held:
        found = await revocations.find(each.kind, each.name)
        assert found is not None
        assert found in listed
        assert found.cutoff == each.cutoff
        assert abs(found.until - each.until) < 2  # in whole seconds, or as it got there
        assert bool(found.number) is (each.kind == "block")
    assert await revocations.find("token", held[1].name) is None
    assert await revocations.find("client", held[0].name) is None
    standing = await revocations.standing()
    later = await revocations.revoke(entry("token", "t-2"))
    assert standing.position.epoch == later.epoch
    assert standing.position.number == later.number - 1


async def test_an_empty_list_can_be_looked_at(revocations: RevocationList) -> None:
    """It is no outage."""
    assert [each async for each in revocations.entries()] == []
    assert await revocations.find("token", entry("token", "t-1").name) is None
    await revocations.standing()

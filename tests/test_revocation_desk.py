"""gateway.revocation_desk: orders to revoke, carried out all or refused as a whole."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.api_keys import MemoryApiKeys
from gateway.adapters.memory_store import MemoryRevocations
from gateway.asgi.api_keys import KeyOrder
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import OrderKind, OrderRefused, Orders, RevocationOrder
from gateway.clock import Clock
from gateway.credentials import key_rules
from gateway.key_desk import KeyDesk
from gateway.model import Unavailable
from gateway.revocation.entries import MARGIN, MAX_LIFE, Revocation
from gateway.revocation.feed import Position
from gateway.revocation.lists import Effect
from gateway.revocation_desk import SLICE, RevocationDesk, entry_from
from tests.adapters.principals import principal
from tests.site import ISSUER, POLICY, Site

NOW = 1_800_000_000.0  # Unix seconds
LIFE = 24 * 3600 + 30 + MARGIN  # of an entry of corp
CLOCK = Clock(wall=lambda: NOW, monotonic=lambda: NOW)
SECOND = """
[issuer.partner]
issuer      = "https://partner.test.example"
jwks        = "file:jwks.json"
audience    = ["https://api.test.example"]
algorithms  = ["ES256"]
token_types = ["at+jwt"]
leeway      = "10s"
max_lifetime = "48h"
[issuer.partner.scope]
user    = "ignore"
service = "grant"
"""
KEYS = '[api_keys]\nscope = "ignore"\nmax_lifetime = "30d"\nlifetime = "10d"\n'


class Listing(MemoryRevocations):
    """Remembers what was written, and fails from a certain entry on."""

    def __init__(self, good: int = 10_000) -> None:
        super().__init__(CLOCK)
        self.written: list[Revocation] = []
        self.good = good
        self.found: Effect | None = Effect(workers=2, applied=2, seconds=0.5)
        self.asked: list[tuple[Position, float]] = []

    async def revoke(self, entry: Revocation) -> Position:
        if len(self.written) >= self.good:
            raise Unavailable("revocation store")
        self.written.append(entry)
        return await super().revoke(entry)

    async def effect(self, position: Position, within: float) -> Effect:
        self.asked.append((position, within))
        if self.found is None:
            raise Unavailable("revocation store")
        return self.found


class Office:
    """A desk and its list."""

    def __init__(self, directory: Path, more: str = "", good: int = 10_000) -> None:
        # With two issuers a service has to say whose tokens it takes.
        policy = POLICY.replace("[service]", '[service]\nissuers = ["corp"]')
        settings = Site(directory, more=more, policy=policy).load().settings
        self.list = Listing(good)
        keys, numbers = None, itertools.count()
        if settings.api_keys is not None:
            keys = KeyDesk(
                settings.api_keys,
                key_rules(settings),
                MemoryApiKeys(CLOCK),
                {},
                self.list,
                CLOCK,
                lambda count: next(numbers).to_bytes(count),
            )
        self.keys = keys
        self.desk = RevocationDesk(settings, self.list, keys, CLOCK)

    async def refusal(self, *orders: RevocationOrder) -> tuple[str, str, int]:
        with pytest.raises(OrderRefused) as refused:
            await self.desk.carry_out(Orders(orders))
        assert not self.list.written
        return str(refused.value), refused.value.name, refused.value.place


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (
            RevocationOrder("corp", "token", "t-1"),
            {"issuer": "corp", "kind": "token", "until": NOW + LIFE},
        ),
        (
            RevocationOrder("", "subject", "c-1", before=NOW - 7),
            {
                "issuer": "corp",
                "kind": "subject",
                "before": NOW - 7,
                "until": NOW + LIFE,
            },
        ),
        (
            RevocationOrder("", "issuer"),
            {"issuer": "corp", "kind": "issuer", "before": NOW, "until": NOW + LIFE},
        ),
        (
            RevocationOrder("", "all"),
            {"kind": "all", "before": NOW, "until": NOW + LIFE},
        ),
        (
            RevocationOrder("", "block", "c-1", seconds=60),
            {"issuer": "corp", "kind": "block", "until": NOW + 60},
        ),
        (
            RevocationOrder("", "unblock", "c-1"),
            {"issuer": "corp", "kind": "unblock", "until": NOW + MAX_LIFE},
        ),
    ],
)
async def test_an_order_is_carried_out_and_said_with_its_effect(
    tmp_path: Path, order: RevocationOrder, told: dict[str, object]
) -> None:
    """The only issuer need not be named."""
    office = Office(tmp_path)

    answer = await office.desk.carry_out(Orders((order,), wait=3.0))

    assert answer["orders"] == [told]
    assert answer["effect"] == {
        "effective": True,
        "workers": 2,
        "applied": 2,
        "lapsed": 0,
        "stale": 0,
        "late": 0.0,
        "seconds": 0.5,
    }
    ((position, within),) = office.list.asked
    assert within == 3.0
    assert position == office.list._at


@pytest.mark.parametrize(
    ("kind", "value", "is_hit"),
    [
        ("token", "t-1", True),
        ("token", "t-2", False),
        ("session", "s-1", True),
        ("subject", "alice", True),
        ("client", "web", True),
        ("issuer", "", True),
        ("all", "", True),
        ("block", "alice", True),
        ("unblock", "alice", False),
    ],
)
async def test_what_an_order_names_is_what_it_ends(
    tmp_path: Path, kind: OrderKind, value: str, is_hit: bool
) -> None:
    """And nothing else."""
    office = Office(tmp_path)
    who = principal(
        "t-1",
        issuer=ISSUER,
        subject="alice",
        session="s-1",
        client="web",
        issued_at=NOW - 1,
    )

    await office.desk.carry_out(
        Orders((RevocationOrder("corp", kind, value, seconds=60),))
    )

    assert office.list.check_now(who) is is_hit


async def test_a_block_is_lifted_by_an_order_that_comes_later(tmp_path: Path) -> None:
    """And one that comes after that holds again, in one list of orders too."""
    office = Office(tmp_path)
    block = RevocationOrder("corp", "block", "alice", seconds=60)
    lift = RevocationOrder("corp", "unblock", "alice")
    who = principal("t-1", issuer=ISSUER, subject="alice", issued_at=NOW + 600)

    await office.desk.carry_out(Orders((block, lift)))
    assert not office.list.check_now(who)
    await office.desk.carry_out(Orders((block, lift, block)))
    assert office.list.check_now(who)


async def test_all_of_all_issuers_lives_as_long_as_the_longest(tmp_path: Path) -> None:
    """With the longest leeway."""
    office = Office(tmp_path, SECOND)

    told = await office.desk.carry_out(Orders((RevocationOrder("", "all"),)))

    assert told["orders"][0]["until"] == NOW + 48 * 3600 + 30 + MARGIN


@pytest.mark.parametrize(
    ("order", "words", "name"),
    [
        (
            RevocationOrder("", "token", "a"),
            "issuer must be one of: corp, partner",
            "issuer",
        ),
        (
            RevocationOrder("crop", "issuer"),
            "issuer must be one of: corp, partner",
            "issuer",
        ),
        (
            RevocationOrder("corp", "token", "t" * 200),
            "no token can carry this token",
            "jti",
        ),
        (
            RevocationOrder("corp", "block", "e\u0301", seconds=1),
            "no token can carry this subject",
            "block",
        ),
        (
            RevocationOrder("corp", "subject", "a", before=NOW + 1),
            "the cut-off lies in the future",
            "before",
        ),
        (
            RevocationOrder("corp", "subject", "a", before=float("nan")),
            "the cut-off lies in the future",
            "before",
        ),
        (
            RevocationOrder("", "api_key", "nightly"),
            "gateway.toml has no [api_keys]",
            "api_key",
        ),
    ],
)
async def test_one_order_that_can_t_be_meant_keeps_all_from_being_begun(
    tmp_path: Path, order: RevocationOrder, words: str, name: str
) -> None:
    """It is said which, and what is wrong with it."""
    office = Office(tmp_path, SECOND)
    good = RevocationOrder("corp", "token", "t-1")

    assert await office.refusal(good, order) == (words, name, 1)


async def test_an_api_key_ends_by_its_id(tmp_path: Path) -> None:
    """Each of its secrets, and its record says so."""
    office = Office(tmp_path, KEYS)
    assert office.keys is not None
    await office.keys.carry_out(KeyOrder("create", id="nightly", owner="billing"))
    order = RevocationOrder("", "api_key", "nightly", "INC-7")

    told = await office.desk.carry_out(Orders((order,)))

    ends = NOW + 10 * 86_400 + MARGIN
    assert told["orders"] == [{"issuer": "api_keys", "kind": "api_key", "until": ends}]
    assert [entry.kind for entry in office.list.written] == ["token"]
    shown = await office.keys.carry_out(KeyOrder("show", id="nightly"))
    assert shown["state"] == "revoked"
    office.list.written.clear()
    assert await office.refusal(replace(order, value="daily")) == (
        "there is no key with this id",
        "api_key",
        0,
    )
    assert await office.refusal(replace(order, issuer="corp")) == (
        "the issuer of API keys is api_keys",
        "issuer",
        0,
    )


async def test_who_changes_a_key_meanwhile_is_not_overtaken(tmp_path: Path) -> None:
    """Another secret may be in force by now: it has to be ordered again."""
    office = Office(tmp_path, KEYS)
    keys = office.keys
    assert keys is not None
    await keys.carry_out(KeyOrder("create", id="nightly", owner="billing"))
    revoke = office.list.revoke

    async def rotate_first(entry: Revocation) -> Position:
        await keys.carry_out(KeyOrder("rotate", id="nightly"))
        return await revoke(entry)

    vars(office.list)["revoke"] = rotate_first
    with pytest.raises(OrderRefused, match="somebody has just changed it"):
        await office.desk.carry_out(
            Orders((RevocationOrder("", "api_key", "nightly"),))
        )


async def test_what_the_store_has_not_acknowledged_is_an_outage(tmp_path: Path) -> None:
    """Of whichever order: to give all of them again is harmless (R62)."""
    count = SLICE + 2
    office = Office(tmp_path, good=SLICE + 1)
    orders = tuple(RevocationOrder("", "token", f"t-{n}") for n in range(count))

    with pytest.raises(Unavailable):
        await office.desk.carry_out(Orders(orders))
    office.list.good = 10_000
    told = await office.desk.carry_out(Orders(orders))

    assert len(told["orders"]) == count


@pytest.mark.parametrize(
    ("found", "is_effective"),
    [
        (Effect(workers=0, applied=0), True),
        (Effect(workers=3, applied=2, lapsed=1), True),
        (Effect(workers=3, applied=2, lapsed=1, stale=1, late=4.0), False),
        (Effect(workers=3, applied=2), False),
        (None, None),
    ],
)
async def test_it_is_effective_where_nobody_lets_it_through(
    tmp_path: Path, found: Effect | None, is_effective: bool | None
) -> None:
    """Who may decide by what it knew for a while does; nobody knows: it isn't said."""
    office = Office(tmp_path)
    office.list.found = found

    told = await office.desk.carry_out(Orders((RevocationOrder("", "all"),)))

    effect = told["effect"]
    assert (effect and effect["effective"]) is is_effective


async def test_the_log_says_that_it_was_done_and_names_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for what is alike, with the reason."""
    office = Office(tmp_path)
    orders = [RevocationOrder("", "subject", f"c-{n}", "INC-7") for n in range(3)]

    await office.desk.carry_out(Orders(tuple(orders)))

    assert [record.getMessage() for record in caplog.records] == [
        "revoked by order: issuer=corp kind=subject reason=INC-7 count=3"
    ]


async def test_what_the_list_holds_is_told_within_a_limit(tmp_path: Path) -> None:
    """All, of one kind, or by one name."""
    office = Office(tmp_path)
    orders = [RevocationOrder("", "token", f"t-{n}") for n in range(3)]
    orders += [RevocationOrder("", "block", "c-1", seconds=60)]
    await office.desk.carry_out(Orders(tuple(orders)))
    name = office.list.written[-1].name.hex()

    async def listed(**said: Any) -> tuple[list[str], bool]:
        told = await office.desk.inquire(Inquiry("list", **said))
        return [each["kind"] for each in told["entries"]], told["more"]

    assert await listed() == (["token"] * 3 + ["block"], False)
    assert await listed(limit=3) == (["token"] * 3, True)
    assert await listed(limit=4) == (["token"] * 3 + ["block"], False)
    assert await listed(kind="block") == (["block"], False)
    assert await listed(kind="token", limit=1) == (["token"], True)
    assert await listed(name=name) == (["block"], False)
    assert await listed(name=name, kind="subject") == ([], False)
    stats = await office.desk.inquire(Inquiry("stats"))
    assert stats["entries"] == {"token": 3, "block": 1}
    assert stats["workers"] == [{"lease": None, "behind": 0}]


async def test_all_entries_are_understood_before_one_is_imported(
    tmp_path: Path,
) -> None:
    """And those that have ended are left out."""
    office = Office(tmp_path)
    good = {"kind": "token", "name": "0" * 32, "until": NOW + 60}

    with pytest.raises(OrderRefused) as refused:
        await office.desk.inquire(Inquiry("import", entries=(good, {})))
    assert refused.value.place == 1
    assert not office.list.written

    many = tuple({**good, "name": f"{n:032x}"} for n in range(SLICE + 1))
    over = {**good, "until": NOW}
    told = await office.desk.inquire(Inquiry("import", entries=(*many, over)))
    assert told == {"imported": SLICE + 1, "ended": 1}
    assert len(office.list) == SLICE + 1


async def test_what_an_order_would_do_is_said_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    """What there is already, and how many keys have an owner of this name."""
    office = Office(tmp_path, KEYS)
    assert office.keys is not None
    for name in ("nightly", "hourly", "gone"):
        await office.keys.carry_out(KeyOrder("create", id=name, owner="billing"))
    await office.keys.carry_out(KeyOrder("revoke", id="gone"))
    mine = RevocationOrder("api_keys", "subject", "billing")
    await office.desk.carry_out(Orders((mine,)))
    office.list.written.clear()
    orders = (
        mine,
        RevocationOrder("corp", "block", "c-1", seconds=60),
        RevocationOrder("corp", "session", "s-1"),
        RevocationOrder("", "api_key", "nightly"),
    )

    office.desk.count_streams = lambda entry, _: 3 if entry.kind == "subject" else 0
    told = await office.desk.carry_out(Orders(orders, dry_run=True))

    streams = [order["open_streams"] for order in told["orders"]]
    assert streams == [3, 0, 0, 0]
    assert not office.list.written
    assert told["dry_run"] is True
    assert "effect" not in told
    held = [order["held"] and order["held"]["kind"] for order in told["orders"]]
    assert held == ["subject", None, None, None]
    keys = [order.get("owned_keys") for order in told["orders"]]
    assert keys == [2, 0, None, None]
    shown = await office.keys.carry_out(KeyOrder("show", id="nightly"))
    assert shown["state"] == "active"


async def test_a_key_that_is_named_twice_is_revoked_once(tmp_path: Path) -> None:
    """A store answers later: both orders have read the record before one is written."""
    office = Office(tmp_path, KEYS)
    keys = office.keys
    assert keys is not None
    await keys.carry_out(KeyOrder("create", id="nightly", owner="billing"))
    store = vars(keys)["_store"]
    get = store.get

    async def later(key_id: str) -> object:
        found = await get(key_id)
        await asyncio.sleep(0)
        return found

    store.get = later
    order = RevocationOrder("", "api_key", "nightly")

    told = await office.desk.carry_out(Orders((order, order)))

    assert len(told["orders"]) == 2


async def test_everything_without_an_issuer_is_refused_in_words(tmp_path: Path) -> None:
    """Where all routes are public nobody's tokens can be meant."""
    office = Office(tmp_path)
    settings = replace(vars(office.desk)["_settings"], issuers={})
    with pytest.raises(OrderRefused):
        entry_from(RevocationOrder("", "all"), settings, NOW)

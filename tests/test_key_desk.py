"""gateway.key_desk: orders about keys, carried out or refused as a whole."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from gateway.adapters.api_keys import Conflict, MemoryApiKeys
from gateway.adapters.memory_store import MemoryRevocations
from gateway.asgi.api_keys import KeyOrder, KeyRefused, Told, Verb
from gateway.clock import Clock
from gateway.config.settings import ApiKeys
from gateway.key_desk import KEPT, KeyDesk
from gateway.model import Principal, Unavailable
from gateway.revocation.entries import Revocation
from gateway.revocation.feed import Position
from gateway.tokens.api_key import (
    ApiKey,
    ApiKeyAuthenticator,
    KeyRules,
    Secret,
    digest_of,
)

START = 1_800_000_000.0  # Unix seconds
DAY = 86_400.0
ROLES = frozenset({"customer", *(f"r{number}" for number in range(65))})
PEPPER = b"a pepper of thirty-two bytes, or more"
DECLARED = ApiKey("declared", "ops", (Secret(b"d" * 32, 0.0),), 0.0, START + 9 * DAY)


class Office:
    """A desk, its store, its clock, and somebody who presents keys."""

    def __init__(self) -> None:
        self.now = START
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)
        self.rules = KeyRules(pepper=PEPPER, allow=ROLES)
        self.store = MemoryApiKeys(self.clock)
        self.revocations = MemoryRevocations(self.clock)
        self.random = 0
        self.desk = KeyDesk(
            ApiKeys(pepper=PEPPER),
            self.rules,
            self.store,
            {DECLARED.secrets[0].digest: DECLARED},
            self.revocations,
            self.clock,
            self.bytes,
        )

    def bytes(self, count: int) -> bytes:
        self.random += 1
        return sha256(b"%d" % self.random).digest()[:count]

    async def order(self, verb: Verb, key_id: str = "", **said: Any) -> Told:
        return await self.desk.carry_out(KeyOrder(verb, id=key_id, **said))

    async def create(self, **said: Any) -> Told:
        return await self.order("create", said.pop("id", ""), owner="billing", **said)

    async def refused(self, verb: Verb, key_id: str = "", **said: Any) -> int:
        with pytest.raises(KeyRefused) as refusal:
            await self.order(verb, key_id, **said)
        return refusal.value.status

    async def present(self, key: str) -> str:
        """Say whether *key* is good now: "good", or why not."""
        steps = ApiKeyAuthenticator(self.rules, {}, self.store).authenticate(
            key, self.now
        )
        try:
            steps.send(await self.store.fetch(next(steps).digest))  # type: ignore[union-attr]
        except StopIteration as end:
            found = end.value
        if not isinstance(found, Principal):
            return str(found)
        return "revoked" if self.revocations.check_now(found) else "good"


async def test_a_key_is_told_once() -> None:
    """In the answer to the order that made it; of its digest, a part at most."""
    office = Office()
    told = await office.create(roles=("customer",), scopes=("a",), note="n")
    key = told.pop("key")
    shown = await office.order("show", told["id"])
    (listed, _) = sorted(
        (await office.order("list"))["keys"], key=lambda each: each["declared"]
    )

    assert await office.present(key) == "good"
    digest = digest_of(sha256(key.encode()).digest(), PEPPER).hex()
    for said in (told, shown, listed):
        assert key not in str(said)
        assert digest not in str(said)
        assert said["secrets"] == [{"digest": digest[:8] + "...", "until": None}]
    assert shown == listed
    assert shown["last_used"] is None
    used = await office.order("show", told["id"])
    assert used["last_used"] == office.now
    assert shown["expires"] == START + 90 * DAY
    assert (shown["state"], shown["roles"], shown["scopes"]) == (
        "active",
        ["customer"],
        ["a"],
    )


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"owner": ""}, 400),
        ({"owner": "a\nb"}, 400),
        ({"roles": ("admin",)}, 400),
        ({"roles": tuple(f"r{number}" for number in range(65))}, 400),
        ({"scopes": ("a b",)}, 400),
        ({"scopes": ("a",) * 65}, 400),
        ({"networks": ("10.0.0.1/8",)}, 400),
        ({"networks": ("10.0.0.0/8",) * 65}, 400),
        ({"lifetime": 0}, 400),
        ({"lifetime": -1}, 400),
        ({"lifetime": 367 * DAY}, 400),
        ({"lifetime": float("nan")}, 400),
        ({"not_before": -1}, 400),
        ({"not_before": float("inf")}, 400),
        ({"note": "a" * 256}, 400),
        ({"sha256": "abc"}, 400),
        ({"key_id": "a/b"}, 400),
        ({"key_id": "declared"}, 409),
        ({"key_id": "taken"}, 409),
    ],
)
async def test_an_order_for_what_could_not_count_makes_nothing(
    said: dict[str, Any], status: int
) -> None:
    """Every record that there is can be read, and counts as it was ordered."""
    office = Office()
    await office.create(id="taken")
    assert await office.refused("create", **{"owner": "billing", **said}) == status
    assert len(await office.store.all()) == 1


async def test_who_is_not_there_is_not_found() -> None:
    """By any verb."""
    office = Office()
    for verb in ("show", "rotate", "revoke"):
        assert await office.refused(verb, "nobody") == 404


async def test_a_rotated_key_keeps_its_id_and_gets_a_new_end() -> None:
    """The old secret lives for the overlap; the new one as long as a new key."""
    office = Office()
    told = await office.create(lifetime=10 * DAY)
    office.now += 5 * DAY
    rotated = await office.order("rotate", told["id"])

    assert rotated["id"] == told["id"]
    assert rotated["key"].split("_")[1] == told["id"]
    assert rotated["expires"] == office.now + 90 * DAY
    assert [each["until"] for each in rotated["secrets"]] == [office.now + DAY, None]
    office.now += DAY - 1
    assert await office.present(told["key"]) == "good"
    office.now += 1
    assert await office.present(told["key"]) == "token.expired"
    assert await office.present(rotated["key"]) == "good"
    assert len((await office.order("show", told["id"]))["secrets"]) == 1
    again = await office.order("rotate", told["id"], lifetime=3 * DAY)
    assert again["expires"] == office.now + 3 * DAY


async def test_without_an_overlap_the_old_secret_is_revoked() -> None:
    """It counts no more with the next request, whoever still knows the record."""
    office = Office()
    told = await office.create()
    record = await office.store.get(told["id"])
    assert record is not None
    rotated = await office.order("rotate", told["id"], overlap=0)
    assert await office.present(told["key"]) == "token.expired"
    assert await office.present(rotated["key"]) == "good"
    await office.store.put(record, await office.store.get(told["id"]))
    assert await office.present(told["key"]) == "revoked"
    assert await office.refused("rotate", told["id"], overlap=-1) == 400
    assert await office.refused("rotate", told["id"], overlap=91 * DAY) == 400


async def test_a_revoked_key_has_ended_with_all_of_its_secrets() -> None:
    """In the list and in its record; it can't be rotated back into life."""
    office = Office()
    told = await office.create()
    rotated = await office.order("rotate", told["id"])
    record = await office.store.get(told["id"])
    assert record is not None
    assert (await office.order("revoke", told["id"]))["state"] == "revoked"
    assert await office.refused("rotate", told["id"]) == 409
    assert (await office.order("revoke", told["id"]))["state"] == "revoked"  # again
    for key in (told["key"], rotated["key"]):
        assert await office.present(key) == "token.revoked"
    # Whoever still knows the record as it was asks the list.
    await office.store.put(record, await office.store.get(told["id"]))
    for key in (told["key"], rotated["key"]):
        assert await office.present(key) == "revoked"


async def test_a_revocation_lives_as_long_as_the_key_would_have() -> None:
    """Plus the margin (R63)."""
    office = Office()
    entries: list[Revocation] = []
    told = await office.create(lifetime=200 * DAY)

    async def revoke(entry: Revocation) -> Position:
        entries.append(entry)
        return Position(b"", 0)

    office.revocations.revoke = revoke  # type: ignore[method-assign]
    await office.order("revoke", told["id"])
    assert [entry.until for entry in entries] == [START + 200 * DAY + 60]


async def test_what_the_list_did_not_take_is_not_said_to_be_revoked() -> None:
    """And the record stays as it was: to order it again is all there is to do (R62)."""
    office = Office()
    told = await office.create()

    async def revoke(entry: Revocation) -> Position:
        raise Unavailable("revocation store")

    office.revocations.revoke = revoke  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await office.order("revoke", told["id"])
    assert await office.present(told["key"]) == "good"


async def test_a_declared_key_can_be_revoked_and_not_changed() -> None:
    """Its record stands in the configuration."""
    office = Office()
    assert await office.refused("rotate", "declared") == 409
    assert (await office.order("show", "declared"))["declared"] is True
    assert (await office.order("revoke", "declared"))["state"] == "revoked"
    assert len(office.revocations) == 1
    assert await office.store.all() == []


async def test_of_two_who_change_one_record_the_later_is_told() -> None:
    """Nobody's change is undone by somebody who had not seen it."""
    office = Office()
    told = await office.create()

    async def put(key: ApiKey, old: ApiKey | None) -> None:
        raise Conflict

    office.store.put = put  # type: ignore[method-assign]
    for verb in ("rotate", "revoke"):
        assert await office.refused(verb, told["id"]) == 409


async def test_an_imported_key_is_known_by_its_digest_alone() -> None:
    """It has no text to tell; once rotated it has one of our form."""
    office = Office()
    plain = sha256(b"a key that was made elsewhere").digest()
    told = await office.create(id="partner-1", sha256=plain.hex())
    assert "key" not in told
    record = await office.store.get("partner-1")
    assert record is not None
    assert record.secrets[0].digest == digest_of(plain, PEPPER) != plain
    assert await office.refused("create", "other", owner="x", sha256=plain.hex()) == 409
    rotated = await office.order("rotate", "partner-1")
    assert rotated["id"] == "partner-1"
    assert await office.present(rotated["key"]) == "good"


async def test_what_ended_long_ago_is_listed_no_more() -> None:
    """Thirty days after it could have been used."""
    office = Office()
    told = await office.create(lifetime=DAY)
    early = await office.create(not_before=START + 60 * DAY)

    async def states() -> dict[str, str]:
        listed = (await office.order("list"))["keys"]
        return {each["id"]: each["state"] for each in listed if not each["declared"]}

    assert await states() == {told["id"]: "active", early["id"]: "early"}
    office.now += DAY + KEPT
    assert await states() == {told["id"]: "expired", early["id"]: "early"}
    office.now += 1
    assert await states() == {early["id"]: "early"}
    assert await office.store.get(told["id"]) is None


async def test_orders_are_logged_without_what_they_hold(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who made, rotated and revoked what."""
    office = Office()
    told = await office.create()
    rotated = await office.order("rotate", told["id"])
    await office.order("revoke", told["id"], reason="INC-7")
    assert [line.split(":")[0] for line in caplog.messages] == [
        "API key created",
        "API key rotated",
        "API key revoked",
    ]
    assert "INC-7" in caplog.text
    for key in (told["key"], rotated["key"]):
        assert key.split("_")[2] not in caplog.text

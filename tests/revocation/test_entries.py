"""gateway.revocation.entries: what an entry blocks, and for how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import ANONYMOUS, Fingerprints, Principal
from gateway.revocation.entries import (
    MARGIN,
    MAX_LIFE,
    UNREADABLE,
    Kind,
    Revocation,
    block_for,
    entry_for,
    entry_of,
    is_revoked,
    key_of,
    names,
    value_of,
)
from gateway.tokens.fingerprints import EVERYTHING, fingerprint

NOW = 1_000_000.0  # Unix seconds
ISSUER = "https://id.example"
LEEWAY = 30.0
DAY = 86_400.0

HELD = Fingerprints(
    b"token", b"session", b"subject", b"client", issuer=b"issuer", family=b"family"
)
ALICE = Principal(
    "user", "corp", "alice", issued_at=NOW, leeway=LEEWAY, fingerprints=HELD
)


@pytest.mark.parametrize(
    ("found", "principal", "revoked"),
    [
        pytest.param({}, ALICE, False, id="an empty list revokes nobody"),
        pytest.param({"token": 0.0}, ALICE, True, id="its token, whatever its age"),
        pytest.param({"session": 0.0}, ALICE, True, id="its session, likewise"),
        pytest.param({"subject": NOW}, ALICE, True, id="issued at the cut-off"),
        pytest.param({"subject": NOW + 9}, ALICE, True, id="issued before it"),
        pytest.param(
            {"subject": NOW - LEEWAY}, ALICE, True, id="issued a leeway after it"
        ),
        pytest.param(
            {"subject": NOW - LEEWAY - 1}, ALICE, False, id="issued well after it"
        ),
        pytest.param({"client": NOW}, ALICE, True, id="its client"),
        pytest.param(
            {"client": NOW - LEEWAY - 1}, ALICE, False, id="issued after its client's"
        ),
        pytest.param(
            {"subject": 1.0, "client": NOW}, ALICE, True, id="the other cut-off"
        ),
        pytest.param(
            {"subject": 1.0},
            replace(ALICE, issued_at=None),
            True,
            id="a token without age is as old as any",
        ),
        pytest.param(
            {"subject": 1.0},
            replace(ALICE, issued_at=math.nan),
            True,
            id="an age that is no number is none",
        ),
        pytest.param(
            {"subject": math.inf}, ALICE, True, id="a cut-off nobody could read"
        ),
        pytest.param(
            {"session": 0.0, "client": NOW},
            replace(ALICE, fingerprints=Fingerprints(b"token", None, b"subject", None)),
            False,
            id="a token without session and client is not asked for them",
        ),
        pytest.param({"family": 0.0}, ALICE, True, id="its refresh family"),
        pytest.param({"issuer": NOW}, ALICE, True, id="its issuer"),
        pytest.param({"issuer": 1.0}, ALICE, False, id="issued after its issuer's"),
        pytest.param({"all": NOW}, ALICE, True, id="all that there are"),
        pytest.param({"all": 1.0}, ALICE, False, id="issued after all of them"),
        pytest.param({"block": 0.0}, ALICE, True, id="blocked, whenever it was issued"),
        pytest.param({}, ANONYMOUS, False, id="nobody presented nothing"),
        pytest.param(
            {},
            replace(ALICE, fingerprints=None),
            True,
            id="who can't be looked up is not let through",
        ),
    ],
)
def test_the_rule_of_revocation(
    found: dict[Kind, float], principal: Principal, revoked: bool
) -> None:
    """A token or session is revoked by being there; the rest by age."""
    asked: set[tuple[Kind, bytes]] = set()

    def held(kind: Kind, cutoff: float) -> Callable[[bytes, float], float]:
        def get(name: bytes, now: float) -> float:
            assert now == NOW
            asked.add((kind, name))
            return cutoff

        return get

    lists = {kind: held(kind, cutoff) for kind, cutoff in found.items()}
    assert is_revoked(principal, lists, NOW) is revoked
    assert asked <= set(names(principal))


def test_a_principal_is_asked_for_by_the_names_it_has() -> None:
    """At most eight, and none for what the token did not say."""
    assert names(ALICE) == (
        ("token", b"token"),
        ("session", b"session"),
        ("family", b"family"),
        ("subject", b"subject"),
        ("client", b"client"),
        ("issuer", b"issuer"),
        ("all", EVERYTHING),
        ("block", b"subject"),
    )
    few = replace(ALICE, fingerprints=Fingerprints(b"t", None, b"s", None))
    assert names(few) == (
        ("token", b"t"),
        ("subject", b"s"),
        ("all", EVERYTHING),
        ("block", b"s"),
    )
    assert names(ANONYMOUS) == ()


@pytest.mark.parametrize(
    ("kind", "expires_at", "life"),
    [
        ("token", NOW + 300, 300 + LEEWAY + MARGIN),
        ("token", None, DAY + LEEWAY + MARGIN),
        ("token", NOW - 300, LEEWAY + MARGIN),
        ("token", 1e30, MAX_LIFE + LEEWAY + MARGIN),
        ("token", math.inf, MAX_LIFE + LEEWAY + MARGIN),
        ("token", math.nan, MAX_LIFE + LEEWAY + MARGIN),
        ("session", NOW + 300, DAY + LEEWAY + MARGIN),
        ("subject", None, DAY + LEEWAY + MARGIN),
        ("client", NOW + 300, DAY + LEEWAY + MARGIN),
    ],
)
def test_an_entry_lives_as_long_as_what_it_may_block(
    kind: Kind, expires_at: float | None, life: float
) -> None:
    """The token's rest, or the longest there may be; with leeway and margin (R63)."""
    entry = entry_for(
        kind,
        ISSUER,
        "x",
        now=NOW,
        max_lifetime=DAY,
        leeway=LEEWAY,
        expires_at=expires_at,
    )

    assert (entry.cutoff, entry.until) == (NOW, NOW + life)
    assert entry.name == names_of(kind, "x")


@pytest.mark.parametrize("kind", ["issuer", "all"])
def test_all_tokens_need_no_name(kind: Kind) -> None:
    """An issuer is its URL; all is all, whoever says so."""
    made = [
        entry_for(kind, url, "", now=NOW, max_lifetime=DAY, leeway=LEEWAY)
        for url in (ISSUER, "https://other.example")
    ]

    assert made[0].name == names_of(kind, "")
    assert (made[0] == made[1]) is (kind == "all")
    assert made[0].until == NOW + DAY + LEEWAY + MARGIN


def test_a_cutoff_lies_in_the_past() -> None:
    """What was issued before last night; what will be issued only a block refuses."""

    def before(cutoff: float) -> Revocation:
        return entry_for(
            *("client", ISSUER, "app"),
            now=NOW,
            max_lifetime=DAY,
            leeway=0.0,
            before=cutoff,
        )

    assert before(NOW - 9.0) == replace(before(NOW), cutoff=NOW - 9.0)
    for late in (NOW + 1.0, math.nan):
        with pytest.raises(ValueError, match="the cut-off lies in the future"):
            before(late)


def test_a_block_ends_by_the_time_it_was_given() -> None:
    """A token issued meanwhile is refused too; what lifts it is a block as well."""
    block = block_for(ISSUER, "alice", now=NOW, seconds=60.0)

    assert block.name == fingerprint("subject", ISSUER, "alice")
    assert (block.kind, block.until, block.lifts) == ("block", NOW + 60.0, False)
    assert block_for(ISSUER, "alice", now=NOW, seconds=1e30).until == NOW + MAX_LIFE
    assert block_for(ISSUER, "alice", now=NOW, seconds=-1.0).until == NOW
    assert block_for(ISSUER, "alice", now=NOW, seconds=60.0, lifts=True) == replace(
        block, lifts=True
    )
    with pytest.raises(ValueError, match="no token can carry this subject"):
        block_for(ISSUER, "", now=NOW, seconds=60.0)


def names_of(kind: Kind, value: str) -> bytes:
    assert kind != "block"
    if kind == "all":
        return EVERYTHING
    return fingerprint(kind, ISSUER, value)


@given(
    leeway=st.floats(0, 60),
    lifetime=st.floats(1, 30 * DAY),
    early=st.floats(0, 1),
    late=st.floats(0, 1),
)
def test_no_token_outlives_the_cutoff_that_revokes_it(
    leeway: float, lifetime: float, early: float, late: float
) -> None:
    """Whatever a cut-off revokes has run out, leeway included, when the entry goes."""
    entry = entry_for(
        "subject", ISSUER, "a", now=NOW, max_lifetime=lifetime, leeway=leeway
    )
    issued_at = NOW + leeway * early
    expires_at = issued_at + lifetime * late

    assert expires_at + leeway <= entry.until + 1e-6


def read(kind: Kind, value: bytes) -> Revocation:
    return entry_of(kind, b"name", value, NOW)


@given(st.floats(0, 1e11))
def test_a_cutoff_is_written_down_without_loss(cutoff: float) -> None:
    """What is read is what was written, to the microsecond and never less."""
    found = read("subject", value_of(Revocation("subject", b"name", cutoff, NOW)))

    assert cutoff <= found.cutoff + 1e-9 * cutoff
    assert found.cutoff == pytest.approx(cutoff, abs=1e-5, rel=1e-12)
    assert (found.kind, found.name, found.until) == ("subject", b"name", NOW)


@given(st.integers(0, UNREADABLE - 1), st.booleans())
def test_a_block_is_written_down_without_loss(number: int, lifts: bool) -> None:
    """Its number, and whether it lifts one."""
    entry = Revocation("block", b"name", 0.0, NOW, number, lifts)

    assert read("block", value_of(entry)) == entry


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"1", b"1:", b"1:x", b"1:-5", b"1:nan", b"1:inf", b"1:1e9", b"2:5"),
        *(b"1:5 ", b" 1:5", b"1:5\n", b"1:5.", b"1:.5", b"1:5.5.5", b"\xff\x00", b"5"),
        b"1:" + b"9" * 400,
        "1:٣".encode(),
    ],
)
def test_a_value_that_cannot_be_read_revokes(value: bytes) -> None:
    """A list that one can't read is not a list that says no."""
    assert read("client", value).cutoff == math.inf
    assert read("block", value) == Revocation("block", b"name", 0.0, NOW, UNREADABLE)


def test_a_key_shows_its_kind_and_hides_its_name() -> None:
    """All keys share one hash tag, so that a cluster keeps them together."""
    name = fingerprint("subject", ISSUER, "alice@example.com")

    key = key_of("subject", name)

    assert key == b"{gw:revocation}:subject:" + name.hex().encode()
    assert b"alice" not in key


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("subject", ""),
        ("subject", "e\u0301"),
        ("subject", "a\n"),
        ("subject", "a" * 256),
        ("token", "a" * 129),
    ],
)
def test_what_no_token_can_carry_is_no_entry(kind: Kind, value: str) -> None:
    """It would match nothing, and somebody would believe it did (R62)."""
    with pytest.raises(ValueError, match=f"no token can carry this {kind}"):
        entry_for(kind, "https://i", value, now=0, max_lifetime=60, leeway=0)

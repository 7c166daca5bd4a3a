"""gateway.cli.orders: orders are given, and it is said what came of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.asgi.revocations import RevocationOrder, Told
from gateway.cli import main, orders
from gateway.cli.orders import effect_in_words, in_words, would_in_words
from gateway.model import Unavailable
from gateway.revocation.feed import Position
from tests.redis_server import RedisServer
from tests.site import Site

KEPT = 1_795_428_000.0  # 2026-11-23T10:00:00Z


def run(site: Site, verb: str, *words: str, stdin: str = "") -> Result:
    # The last word of a verb comes before any option.
    said = [*verb.split(), "-c", str(site.config), *words]
    return CliRunner().invoke(main, said, input=stdin)


@asynccontextmanager
async def told(site: Site) -> AsyncIterator[None]:
    """Run a gateway beside the command, if its store is that process's."""
    if site.store == "memory":
        async with site.running():
            yield
    else:
        site.write()
        yield


async def order(site: Site, *words: str, stdin: str = "") -> Result:
    # The command is its own program: from a thread it can't be in this loop.
    return await asyncio.to_thread(run, site, *words, stdin=stdin)


def one(kind: str, issuer: str = "corp", until: float = KEPT) -> Told:
    return {"kind": kind, "issuer": issuer, "until": until}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([one("subject")], "revoked: subject of corp; kept until 2026-11-23T10:00:00Z"),
        (
            [one("session"), one("session", until=KEPT - 9)],
            "revoked: 2 sessions of corp; kept until 2026-11-23T10:00:00Z",
        ),
        (
            [one("family"), one("family")],
            "revoked: 2 families of corp; kept until 2026-11-23T10:00:00Z",
        ),
        (
            [one("api_key", "api_keys")],
            "revoked: API key of api_keys; kept until 2026-11-23T10:00:00Z",
        ),
        ([one("issuer")], "revoked: all of corp; kept until 2026-11-23T10:00:00Z"),
        (
            [{"kind": "all", "until": KEPT}],
            "revoked: everything; kept until 2026-11-23T10:00:00Z",
        ),
        (
            [one("token"), one("subject"), one("subject", "partner")],
            "revoked: 3 entries; kept until 2026-11-23T10:00:00Z",
        ),
        ([one("block")], "blocked: subject of corp; until 2026-11-23T10:00:00Z"),
        (
            [one("block"), one("block")],
            "blocked: 2 subjects of corp; until 2026-11-23T10:00:00Z",
        ),
        ([one("unblock")], "unblocked: subject of corp"),
    ],
)
def test_what_was_done_is_said_in_words(said: list[Told], words: str) -> None:
    """One by its kind, several by their number."""
    assert in_words(said) == words


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        ({"applied": 6}, "effective on 6 of 6 workers after 4 ms"),
        (
            {"applied": 5, "lapsed": 1, "seconds": 1.07},
            (
                "effective on 5 of 6 workers after 1.1 s; 1 worker does not answer, its"
                " lease is over and it asks the store"
            ),
        ),
        (
            {"applied": 4, "lapsed": 2, "stale": 1, "late": 5.0, "seconds": 2.0},
            (
                "effective on 4 of 6 workers after 2 s; 2 workers do not answer, their"
                " leases are over and they ask the store; 1 that allows stale decisions"
                " may be late by up to 5 s"
            ),
        ),
        (
            {"applied": 4, "lapsed": 2, "stale": 2, "late": 0.5},
            (
                "effective on 4 of 6 workers after 4 ms; 2 workers do not answer, their"
                " leases are over and they ask the store; 2 that allow stale decisions"
                " may be late by up to 500 ms"
            ),
        ),
        (
            {"applied": 5, "seconds": 2.0},
            "not yet effective on 1 of 6 workers after 2 s",
        ),
        ({"workers": 0, "applied": 0}, "no worker has a mirror of the list"),
        (None, "the store does not say where it is effective yet"),
    ],
)
def test_where_it_is_in_force_is_said_in_words(
    effect: dict[str, Any] | None, words: str
) -> None:
    """So that nobody takes "written" for "in force"."""
    whole: Told = {"workers": 6, "lapsed": 0, "stale": 0, "late": 0.0, "seconds": 0.004}
    assert effect_in_words(None if effect is None else whole | effect) == words


@pytest.mark.parametrize(
    ("effect", "status"),
    [({"effective": True}, 0), ({"effective": False}, 4), (None, 4)],
)
def test_the_exit_status_says_whether_it_is_in_force_everywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    effect: dict[str, Any] | None,
    status: int,
) -> None:
    """Also for programs, with `--json`."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")
    site.write()
    waits = []

    class Engine:
        def __init__(self, _loaded: object) -> None:
            """Be made of nothing."""

        async def revoke(
            self, *each: RevocationOrder, wait: float, dry_run: bool
        ) -> Told:
            assert not dry_run
            waits.append(wait)
            return {"orders": [one("subject") for _ in each], "effect": effect}

        async def aclose(self) -> None:
            """Be done."""

    monkeypatch.setattr(orders, "Engine", Engine)

    outcome = run(site, "revoke", "--sub", "c-1", "--wait", "5s", "--json")

    assert outcome.exit_code == status
    assert json.loads(outcome.stdout) == {"orders": [one("subject")], "effect": effect}
    assert waits == [5.0]


def test_it_is_waited_for_the_last_of_several_batches_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of one that fails in between it is said how far it came: exit code 1."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")
    site.write()
    sizes: list[tuple[int, float]] = []
    is_away = False

    class Engine:
        def __init__(self, _loaded: object) -> None:
            """Be made of nothing."""

        async def revoke(
            self, *each: RevocationOrder, wait: float, dry_run: bool
        ) -> Told:
            assert not dry_run
            if is_away and sizes:
                raise Unavailable("revocation store")
            sizes.append((len(each), wait))
            told = [one("subject") for _ in each]
            return {"orders": told, "effect": {"effective": True}}

        async def aclose(self) -> None:
            """Be done."""

    monkeypatch.setattr(orders, "Engine", Engine)
    lines = "".join(f"c-{number}\n" for number in range(1001))
    words = ("revoke", "--from", "-", "--kind", "sub", "--json")

    whole = run(site, *words, stdin=lines)
    assert whole.exit_code == 0
    assert len(json.loads(whole.stdout)["orders"]) == 1001
    assert sizes == [(500, 0.0), (500, 0.0), (1, 2.0)]

    sizes.clear()
    is_away = True
    part = run(site, *words, stdin=lines)
    assert part.exit_code == 1
    assert "500 of 1001 are revoked: give all of them again" in part.output


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, redis_server: RedisServer) -> str:
    return redis_server.url if request.param == "redis" else "memory"


async def test_both_ways_lead_to_the_list(tmp_path: Path, store: str) -> None:
    """The admin port of a gateway with a memory store, or Redis itself."""
    site = Site(tmp_path, store=store)
    workers = 1 if store == "memory" else 0
    async with told(site):
        outcome = await order(site, "revoke", "--sub", "a", "--sub", "b", "--json")

    said = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert [(each["issuer"], each["kind"]) for each in said["orders"]] == [
        ("corp", "subject"),
        ("corp", "subject"),
    ]
    assert said["effect"]["workers"] == workers


def test_there_is_an_end_to_waiting(tmp_path: Path) -> None:
    """Half a minute."""
    site = Site(tmp_path)
    site.write()

    outcome = run(site, "revoke", "--sub", "a", "--wait", "31s")

    assert outcome.exit_code == 2
    assert "--wait is at most 30s" in outcome.output


@pytest.mark.parametrize(
    ("held", "keys", "words"),
    [
        (None, {}, "there is no entry yet"),
        ({}, {"owned_keys": 0}, "there is an entry already"),
        ({"lifts": False}, {}, "there is an entry already"),
        ({"lifts": True}, {}, "a block was lifted"),
        (
            None,
            {"owned_keys": 1},
            (
                "there is no entry yet; 1 API key has an owner of this name, of the"
                " issuer api_keys"
            ),
        ),
        (
            None,
            {"owned_keys": 2, "issuer": "api_keys"},
            "there is no entry yet; 2 API keys have an owner of this name",
        ),
    ],
)
def test_what_would_be_done_is_said_in_words(
    held: Told | None, keys: Told, words: str
) -> None:
    """A key of that name is not the subject of another issuer."""
    told = {**one("subject"), "held": held, **keys}
    for count, ends in (
        ({}, "no gateway here says how many streams are open"),
        ({"open_streams": 1}, "1 open stream"),
        ({"open_streams": 0}, "0 open streams"),
    ):
        said = would_in_words({**told, **count})
        assert said.startswith(
            f"would be revoked: subject of {told['issuer']}; kept until "
        )
        assert said.endswith(f"; {words}; {ends}")


async def test_to_find_out_what_would_be_done_writes_nothing(
    tmp_path: Path, store: str
) -> None:
    """By either way; everything need not be meant for that."""
    site = Site(tmp_path, store=store)
    async with told(site):
        would = await order(site, "revoke", "--sub", "a", "--sub", "b", "--dry-run")
        as_json = await order(site, "block", "--sub", "a", "--for", "1h", "--dry-run")
        every = await order(site, "revoke", "--everything", "--dry-run", "--json")
        listed = await order(site, "revocations list")

    assert would.exit_code == 0, would.output
    lines = would.output.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "would be revoked: subject of corp"
    ] * 2
    assert as_json.output.startswith("would be blocked: subject of corp; until 2")
    assert json.loads(every.stdout)["orders"][0]["held"] is None
    assert (listed.exit_code, listed.stdout) == (0, "")


def test_what_may_have_been_written_is_not_said_to_be_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two entries was acknowledged before the store went away."""
    written: list[object] = []

    async def revoke(_self: object, entry: object) -> Position:
        if written:
            raise Unavailable("revocation store")
        written.append(entry)
        return Position(b"e", 1)

    monkeypatch.setattr(MirroredRevocations, "revoke", revoke)
    site = Site(tmp_path, store="redis://127.0.0.1:1/0")
    site.write()

    outcome = run(site, "revoke", "--sub", "a", "--sub", "b")

    assert outcome.exit_code == 1
    assert len(written) == 1
    assert "nothing was revoked" not in outcome.output

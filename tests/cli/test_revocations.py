"""gateway.cli.revocations: what is revoked, how much, and from elsewhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.test_orders import run, store, told
from tests.redis_server import RedisServer, start_redis
from tests.site import Site

__all__ = ["store"]  # a fixture


def revocations(site: Site, verb: str, *words: str, stdin: str = "") -> Result:
    outcome = run(site, f"revocations {verb}", *words, stdin=stdin)
    assert outcome.exit_code == 0, outcome.output
    return outcome


async def test_what_is_revoked_is_listed_and_counted(
    tmp_path: Path, store: str
) -> None:
    """By fingerprints: whoever knows a name can look it up, nobody else learns it."""
    site = Site(tmp_path, store=store)

    def work() -> None:
        for verb, *words in (
            ("revoke", "--sub", "alice", "--before", "1795428000"),
            ("revoke", "--sub", "bob"),
            ("revoke", "--jti", "t-1", "--jti", "t-2"),
            ("block", "--sub", "alice", "--for", "1h"),
            ("unblock", "--sub", "alice"),
        ):
            assert run(site, verb, *words).exit_code == 0

        listed = revocations(site, "list", "--json")
        entries = [json.loads(line) for line in listed.stdout.splitlines()]
        kinds = sorted(entry["kind"] for entry in entries)
        assert kinds == ["block", "subject", "subject", "token", "token"]
        assert listed.stderr == ""
        assert "alice" not in listed.output

        alice = revocations(site, "list", "--sub", "alice", "--issuer", "corp")
        cutoff, block = sorted(alice.stdout.splitlines(), reverse=True)
        assert cutoff.startswith("subject  ")
        assert "  before 2026-11-23T10:00:00Z  until 2" in cutoff
        assert "  lifted  until 2" in block
        assert revocations(site, "list", "--sub", "carol").stdout == ""
        assert len(revocations(site, "list", "--kind", "token").stdout.split("\n")) == 3

        few = revocations(site, "list", "--limit", "4", "--json")
        assert len(few.stdout.splitlines()) == 4
        assert few.stderr == "there are more than 4: --limit\n"
        assert revocations(site, "list", "--limit", "5").stderr == ""

        counted = revocations(site, "stats").stdout
        assert counted.startswith("entries: 5\n  token: 2\n  subject: 2\n  block: 1\n")
        said = json.loads(revocations(site, "stats", "--json").stdout)
        assert said["entries"] == {"token": 2, "subject": 2, "block": 1}
        assert f"feed: epoch {said['epoch']}, number {said['number']}\n" in counted
        if store == "memory":
            assert "workers: 1\n  no lease, 0 entries behind\n" in counted
        else:
            assert "workers: 0\n" in counted
            assert f"memory of the store: {said['memory']}"[:20] in counted

    async with told(site):
        await asyncio.to_thread(work)


SOURCE = (
    ("revoke", "--jti", "t-1"),
    ("revoke", "--sub", "alice", "--before", "1795428000.25"),
    ("block", "--sub", "alice", "--for", "1h"),
    ("unblock", "--sub", "alice"),
)


def filled(directory: Path, redis: RedisServer) -> str:
    """Fill a list; return it as it is listed."""
    directory.mkdir()
    site = Site(directory, store=redis.url)
    site.write()
    for verb, *words in SOURCE:
        assert run(site, verb, *words).exit_code == 0
    return revocations(site, "list", "--json").stdout


def test_a_list_is_taken_over_and_changes_nothing_the_second_time(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """A union: what counts for longer stays, and blocks keep their number."""
    lines = filled(tmp_path / "here", redis_server)
    with start_redis() as second:
        there = Site(tmp_path, store=second.url)
        there.write()
        assert run(there, "revoke", "--sub", "alice").exit_code == 0

        first = revocations(there, "import", "-", stdin=lines)
        again = revocations(there, "import", "-", stdin=lines)

        assert first.stdout == again.stdout == "imported: 3; 0 had ended\n"
        old, new = (
            {
                kind: redis.command("GET", redis.command("KEYS", f"*:{kind}:*")[0])
                for kind in ("block", "subject")
            }
            for redis in (redis_server, second)
        )
        assert old["subject"] == b"1:1795428000.250000"
        assert new["subject"] > old["subject"]
        assert new["block"] == old["block"]
        # The cut-off that was there, the token, the lift: none of them twice.
        assert second.command("XLEN", "{gw:revocation}:feed") == 3


async def test_a_memory_takes_a_list_over_too(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Through the admin port."""
    lines = await asyncio.to_thread(filled, tmp_path / "here", redis_server)
    site = Site(tmp_path)
    async with site.running():
        words = ("import", "-")
        done = await asyncio.to_thread(revocations, site, *words, stdin=lines)
        listed = await asyncio.to_thread(revocations, site, "list", "--json")

    assert done.stdout == "imported: 3; 0 had ended\n"

    def numbers(text: str) -> list[int | None]:
        return [json.loads(line).get("number") for line in sorted(text.splitlines())]

    assert numbers(listed.stdout) == numbers(lines)


def test_what_has_ended_is_not_taken_over_and_a_bad_line_keeps_all_out(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """The line is named."""
    site = Site(tmp_path, store=redis_server.url)
    site.write()
    ended = json.dumps({"kind": "token", "name": "0" * 32, "until": 7.0})

    over = revocations(site, "import", "-", stdin=f"{ended}\n")
    bad = run(site, "revocations import", "-", stdin=f"{ended}\nnonsense\n")

    assert over.stdout == "imported: 0; 1 had ended\n"
    assert bad.exit_code == 1
    assert "line 2: an entry is an object" in bad.output
    assert redis_server.command("KEYS", "*:token:*") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--issuer", "corp"), "--issuer is that of a --sub"),
        (("list", "--sub", "a", "--issuer", "crop"), "must be one of: corp"),
        (("list", "--limit", "0"), "Invalid value for '--limit'"),
        (("list", "--limit", "10001"), "a gateway lists at most 10000"),
        (("list", "--kind", "tokens"), "Invalid value for '--kind'"),
        (("import", "nowhere"), "nowhere can't be read"),
    ],
)
def test_words_that_are_off_are_said_to_be(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """With exit code 2; nothing is asked of anybody."""
    site = Site(tmp_path)
    site.write()

    outcome = run(site, f"revocations {words[0]}", *words[1:])

    assert outcome.exit_code == 2, outcome.output
    assert said in outcome.output


@pytest.mark.parametrize("away", ["memory", "redis://127.0.0.1:9/0"])
def test_who_does_not_answer_is_said(tmp_path: Path, away: str) -> None:
    """An empty list is something else."""
    site = Site(tmp_path, store=away)
    site.write()

    for words in (("list",), ("stats",)):
        outcome = run(site, f"revocations {words[0]}", *words[1:])
        assert outcome.exit_code == 1
        assert "did not answer" in outcome.stderr
        assert outcome.stdout == ""

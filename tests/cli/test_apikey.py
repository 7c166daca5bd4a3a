"""gateway.cli.apikey: keys from the command line, by either way."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.tokens.api_key import FORM
from tests.redis_server import RedisServer
from tests.site import Site

KEYS = '[api_keys]\nallow = ["customer"]\nscope = "ignore"\n'
DIGESTS = [sha256(b"%d" % number).hexdigest() for number in range(3)]


def run(site: Site, *words: str, stdin: str = "") -> Result:
    words = (words[0], "-c", str(site.config), *words[1:])
    return CliRunner().invoke(main, ["apikey", *words], input=stdin)


def key_in(outcome: Result) -> str:
    """Return the one line on stdout."""
    assert outcome.exit_code == 0, outcome.output
    (line,) = outcome.stdout.splitlines()
    return line


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, redis_server: RedisServer) -> str:
    return redis_server.url if request.param == "redis" else "memory"


async def told(site: Site, work: Callable[[], None]) -> None:
    """Do *work* beside a running gateway, if there has to be one."""
    if site.store != "memory":
        site.write()
        await asyncio.to_thread(work)
        return
    async with site.running():
        # The command is its own program: from a thread it can't be in this loop.
        await asyncio.to_thread(work)


async def test_a_key_from_its_making_to_its_end(tmp_path: Path, store: str) -> None:
    """Printed once, alone on stdout; what is listed and shown gives nothing away."""
    site = Site(tmp_path, store=store, more=KEYS)

    def work() -> None:
        made = run(
            site,
            *("create", "--owner", "billing", "--role", "customer", "--scope", "a"),
            *("--network", "10.0.0.0/8", "--lifetime", "30d", "--note", "nightly"),
            *("--not-before", "2020-01-31T00:00:00Z"),
        )
        key = key_in(made)
        assert re.fullmatch(FORM, key)
        key_id = key.split("_")[1]
        assert made.stderr.startswith(f"{key_id}: active, of billing, until 2")
        listed = run(site, "list")
        assert listed.stdout.startswith(f"{key_id}  active  billing  2")
        assert listed.stdout.endswith("used never\n")
        shown = run(site, "show", key_id)
        said = json.loads(shown.stdout)
        assert (said["roles"], said["networks"]) == (["customer"], ["10.0.0.0/8"])

        rotated = key_in(run(site, "rotate", key_id))
        assert rotated != key
        again = run(site, "rotate", key_id, "--overlap", "0s", "--lifetime", "1d")
        revoked = run(site, "revoke", key_id, "--reason", "INC-7")
        assert revoked.stderr.startswith(f"{key_id}: revoked")
        assert revoked.stdout == ""
        everything = "".join(
            each.output for each in (listed, shown, revoked, run(site, "list"))
        )
        for secret in (key, rotated, key_in(again)):
            assert secret.split("_")[2] not in everything + made.stderr
            assert sha256(secret.encode()).hexdigest() not in everything
        refused = run(site, "rotate", key_id)
        assert refused.exit_code == 1
        assert "this key has ended" in refused.output

    await told(site, work)


async def test_keys_are_imported_from_each_form(tmp_path: Path, store: str) -> None:
    """Lines, JSON and TOML; what an entry doesn't say is as the options say."""
    site = Site(tmp_path, store=store, more=KEYS)
    entries = [{"sha256": DIGESTS[1], "id": "json-1", "owner": "other"}]
    (tmp_path / "keys.json").write_text(json.dumps(entries))
    ends = datetime.now(UTC).replace(microsecond=0).timestamp() + 86_400
    (tmp_path / "keys.toml").write_text(
        f'[[api_key]]\nid = "toml-1"\nsha256 = "{DIGESTS[2]}"\n'
        f"expires = {datetime.fromtimestamp(ends, UTC).isoformat()}\n"
    )
    who = ("--owner", "billing", "--role", "customer")

    def work() -> None:
        lines = f"{DIGESTS[0]} line-1\n\n"
        for name in ("-", "keys.json", "keys.toml"):
            source = name if name == "-" else str(tmp_path / name)
            outcome = run(site, "import", *who, source, stdin=lines)
            assert outcome.exit_code == 0, outcome.output
            assert outcome.stdout == ""
            assert "imported = false" in outcome.stderr
        said = {
            key_id: json.loads(run(site, "show", key_id).stdout)
            for key_id in ("line-1", "json-1", "toml-1")
        }
        assert [each["owner"] for each in said.values()] == [
            "billing",
            "other",
            "billing",
        ]
        assert {tuple(each["roles"]) for each in said.values()} == {("customer",)}
        assert abs(said["toml-1"]["expires"] - ends) < 5
        twice = run(site, "import", *who, "-", stdin=f"{DIGESTS[0]}\n")
        assert twice.exit_code == 1
        assert "there is a key with this id or digest" in twice.output
        assert "0 of 1 are imported" in twice.output

    await told(site, work)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "nonsense\n", "sha256: 64 hexadecimal digits"),
        ("a.json", "{", "a.json: "),
        ("a.json", "{}", "holds no list of keys"),
        ("a.json", "[1]", "entry 1: the body is not an object"),
        ("a.json", '[{"owner": "x"}]', "entry 1: sha256 is needed"),
        ("a.json", '[{"sha": "x"}]', "entry 1: known keys are"),
        ("a.toml", "a = ", "a.toml: "),
        ("a.toml", "a = 1", "holds no list of keys"),
        ("a.toml", '[[api_key]]\nexpires = "soon"', "expires: expected a moment"),
    ],
)
def test_what_is_no_list_of_keys_is_not_imported(
    tmp_path: Path, redis_server: RedisServer, name: str, text: str, said: str
) -> None:
    """It is said which entry is wrong, and what with it."""
    site = Site(tmp_path, store=redis_server.url, more=KEYS)
    site.write()
    source = tmp_path / name
    source.write_text(text)
    outcome = run(site, "import", "--owner", "x", str(source))
    assert outcome.exit_code in {1, 2}
    assert said in outcome.output
    assert redis_server.command("KEYS", "*") == []


def test_a_key_can_be_declared_instead_of_kept(tmp_path: Path) -> None:
    """What is printed is what gateway.toml takes, and nobody has been told of it."""
    site = Site(tmp_path, more=KEYS)
    site.write()
    outcome = run(
        site,
        *("create", "--declare", "--owner", "billing \u00e9", "--role", "customer"),
        *("--network", "10.0.0.0/8", "--id", "nightly"),
    )
    key = key_in(outcome)
    site.more += outcome.stderr
    keys = site.load().settings.api_keys
    assert keys is not None
    (declared,) = keys.declared
    assert declared.sha256 == sha256(key.encode()).digest()
    assert (declared.id, declared.owner) == ("nightly", "billing \u00e9")
    own = run(site, "create", "--declare", "--owner", "x")
    assert f'id = "{key_in(own).split("_")[1]}"' in own.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create",), "--owner is needed"),
        (("create", "--owner", "x", "--lifetime", "9"), "a time with its unit"),
        (("create", "--owner", "x", "--not-before", "soon"), "expected a moment"),
        (("import", "--owner", "x", "nowhere.txt"), "can't be read"),
        (("rotate", "k", "--overlap", "1"), "a time with its unit"),
    ],
)
def test_words_that_are_off_are_said_to_be(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """With exit code 2; nothing is asked of anybody."""
    site = Site(tmp_path, more=KEYS)
    site.write()
    outcome = run(site, *words)
    assert outcome.exit_code == 2
    assert said in outcome.output


def test_without_api_keys_there_is_nothing_to_do(tmp_path: Path) -> None:
    """The configuration says whether there are any."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")
    site.write()
    for words in (("list",), ("create", "--owner", "x", "--declare")):
        outcome = run(site, *words)
        assert outcome.exit_code in {1, 2}
        assert "gateway.toml has no [api_keys]" in outcome.output


@pytest.mark.parametrize("away", ["memory", "redis://127.0.0.1:9/0"])
def test_nothing_is_said_to_be_done_that_is_not(tmp_path: Path, away: str) -> None:
    """Neither gateway nor store: exit code 1, and no key (R62)."""
    site = Site(tmp_path, store=away, more=KEYS)
    site.write()
    for words in (("create", "--owner", "x"), ("revoke", "a/b"), ("list",)):
        outcome = run(site, *words)
        assert outcome.exit_code == 1
        assert "did not answer: nothing is said to be done" in outcome.stderr
        assert outcome.stdout == ""

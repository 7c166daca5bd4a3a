"""gateway.cli.revoke: an order is carried out, or said not to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.revoke import KINDS
from tests.cli.test_orders import order, run
from tests.redis_server import RedisServer
from tests.site import Site


def entries(redis: RedisServer, kind: str) -> dict[bytes, bytes]:
    """Return what the store holds of this kind: value by key."""
    keys = redis.command("KEYS", f"{{gw:revocation}}:{kind}:*")
    return {key: redis.command("GET", key) for key in keys}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "exactly one of --jti, --sid, --family, --sub, --client, --api-key"),
        (("--jti", "a", "--sid", "b"), "exactly one of"),
        (("--sub", "a", "--from", "-"), "exactly one of"),
        (("--sub", "a", "--kind", "sub"), "--kind is for the values in a file"),
        (("--sub", "a", "--issuer", "crop"), "issuer must be one of: corp"),
        (("--sub", ""), "sub is not a string of 1 to 255 characters"),
        (("--sub", "e\u0301"), "no token can carry this subject"),
        (("--jti", "x" * 300), "jti is not a string of 1 to 255 characters"),
        (("--jti", "a", "--before", "7"), "jti has no cut-off"),
        (("--sub", "a", "--before", "2h ago"), "expected a moment"),
        (("--sub", "a", "--before", "9999999999"), "lies in the future"),
        (("--everything", "--yes", "--issuer", "corp"), "is of every issuer"),
        (("--api-key", "a"), "gateway.toml has no [api_keys]"),
        (("--from", "nowhere.txt"), "nowhere.txt can't be read"),
    ],
)
def test_words_that_are_off_are_said_to_be(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """With exit code 2; nothing is asked of anybody."""
    site = Site(tmp_path)
    site.write()

    outcome = run(site, "revoke", *words)

    assert outcome.exit_code == 2, outcome.output
    assert said in outcome.output


def test_without_a_gateway_the_memory_store_can_not_be_told(tmp_path: Path) -> None:
    """It is that process's memory: the command says who did not answer."""
    site = Site(tmp_path)
    site.write()

    outcome = run(site, "revoke", "--sub", "c-1")

    assert outcome.exit_code == 1
    words = "admin port did not answer: not known to be revoked: give it again"
    assert words in outcome.output


@pytest.mark.parametrize("token", ["", "a-token-of-32-characters-or-longer"])
async def test_a_running_gateway_is_told_on_its_admin_port(
    tmp_path: Path, token: str
) -> None:
    """A Unix socket, or loopback with its token; the answer says until when."""
    site = Site(tmp_path)
    if token:
        secret = tmp_path / "admin-token"
        secret.write_text(token)
        secret.chmod(0o600)

        class Tcp(Site):
            def write(self) -> Path:
                super().write()
                text = self.config.read_text().replace(
                    'listen = "unix:admin.sock"',
                    'listen = "127.0.0.1:19555"\ntoken = "file:admin-token"',
                )
                self.config.write_text(text)
                return self.config

        site = Tcp(tmp_path)
    async with site.running() as gateway:
        outcome = await order(site, "revoke", "--sub", "c-1")

        assert outcome.exit_code == 0, outcome.output
        assert outcome.output.startswith("revoked: subject of corp; kept until 2")
        assert "; effective on 1 of 1 workers after 0 ms" in outcome.output
        assert gateway.engine.stores.revocations.health() is None


async def test_the_gateway_may_know_better(tmp_path: Path) -> None:
    """Its configuration is the one that counts: the command says what it says."""
    site = Site(tmp_path)
    async with site.running():
        text = site.config.read_text()
        site.config.write_text(text.replace("[issuer.corp", "[issuer.other"))
        outcome = await order(site, "revoke", "--sub", "c-1")

    assert outcome.exit_code == 1, outcome.output
    words = "refused: issuer must be one of: corp: nothing was revoked"
    assert words in outcome.output


@pytest.mark.parametrize(
    ("words", "kind", "count"),
    [
        (("--jti", "a", "--jti", "b"), "token", 2),
        (("--sid", "a"), "session", 1),
        (("--family", "a"), "family", 1),
        (("--sub", "a", "--sub", "b", "--sub", "a"), "subject", 2),
        (("--client", "a"), "client", 1),
        (("--all-of-issuer",), "issuer", 1),
        (("--everything", "--yes"), "all", 1),
    ],
)
def test_each_kind_is_written_under_its_name(
    tmp_path: Path,
    redis_server: RedisServer,
    words: tuple[str, ...],
    kind: str,
    count: int,
) -> None:
    """Of one kind as many as are named."""
    site = Site(tmp_path, store=redis_server.url)
    site.write()

    outcome = run(site, "revoke", *words)

    assert outcome.exit_code == 0, outcome.output
    assert len(entries(redis_server, kind)) == count
    assert len(entries(redis_server, "*")) == count


@pytest.mark.parametrize(
    "before", ["2026-11-23T10:00:00Z", "2026-11-23T11:00:00+01:00", "1795428000"]
)
def test_a_cut_off_may_lie_in_the_past(
    tmp_path: Path, redis_server: RedisServer, before: str
) -> None:
    """What was issued since then goes on."""
    site = Site(tmp_path, store=redis_server.url)
    site.write()

    outcome = run(site, "revoke", "--sub", "a", "--before", before)

    assert outcome.exit_code == 0, outcome.output
    assert [*entries(redis_server, "subject").values()] == [b"1:1795428000.000000"]


@pytest.mark.parametrize(
    ("typed", "status"), [("everything\n", 0), ("yes\n", 1), ("", 1)]
)
def test_everything_has_to_be_meant(
    tmp_path: Path, redis_server: RedisServer, typed: str, status: int
) -> None:
    """It is asked for, and only the whole word is an answer."""
    site = Site(tmp_path, store=redis_server.url)
    site.write()

    outcome = run(site, "revoke", "--everything", stdin=typed)

    assert outcome.exit_code == status, outcome.output
    assert "this ends every token of every issuer" in outcome.stderr
    assert bool(entries(redis_server, "*")) is not bool(status)


def test_a_file_holds_an_order_a_line(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """In JSON, of any kind; what a line does not say is as the options say."""
    site = Site(tmp_path, store=redis_server.url)
    site.write()
    lines = [
        {"sub": "a", "issuer": "corp", "before": 0},
        {"sub": "b"},
        {"jti": "t-1", "reason": "INC-8"},
        {"block": "c", "for": "1h"},
    ]
    file = tmp_path / "orders.jsonl"
    file.write_text("\r\n\n".join(map(json.dumps, lines)))

    outcome = run(site, "revoke", "--from", str(file), "--issuer", "corp")

    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.startswith("revoked: 4 entries; kept until 2")
    cutoffs = sorted(entries(redis_server, "subject").values())
    assert cutoffs[0] == b"1:0.000000"
    assert cutoffs[1] != cutoffs[0]
    assert len(entries(redis_server, "*")) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_may_hold_just_values(
    tmp_path: Path, redis_server: RedisServer, kind: str
) -> None:
    """Of one kind; even such as look like JSON."""
    more = '[api_keys]\nscope = "ignore"' if kind == "api_key" else ""
    site = Site(tmp_path, store=redis_server.url, more=more)
    site.write()

    words = ("--issuer", "api_keys" if kind == "api_key" else "corp", "--kind", kind)
    outcome = run(site, "revoke", "--from", "-", *words, stdin='a\n{"b": 1}\n')

    if kind == "api_key":
        assert outcome.exit_code == 1
        assert "there is no key with this id: nothing was revoked" in outcome.output
    else:
        assert outcome.exit_code == 0, outcome.output
        assert len(entries(redis_server, "*")) == 2


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ('{"sub": "a"}\n{"sub": 7}\n', (), "line 2: sub is not a string"),
        ('{"sub": "a"}\n\nnonsense\n', (), "line 3: it is not a JSON object"),
        ('{"sub": "a"}\n{"sub": "e\\u0301"}', (), "line 2: no token can carry"),
        ('{"sub": "a", "issuer": "crop"}', (), "line 1: issuer must be one of: corp"),
        ('{"jti": "a"}', ("--before", "7"), "line 1: jti has no cut-off"),
        ('{"everything": true}', (), "line 1: --everything stands in no file"),
        ('{"api_key": "a"}', (), "line 1: gateway.toml has no [api_keys]"),
        ("a\n\xff\n", ("--kind", "sub"), "line 2: it is not UTF-8"),
        ("\n \n", (), "the file holds no order"),
        ("{}\n" * 30, (), "... and 10 more"),
    ],
)
def test_one_bad_line_keeps_all_from_being_written(
    tmp_path: Path,
    redis_server: RedisServer,
    text: str,
    words: tuple[str, ...],
    said: str,
) -> None:
    """It is named by its number."""
    site = Site(tmp_path, store=redis_server.url)
    site.write()
    file = tmp_path / "orders"
    file.write_bytes(text.encode("latin-1"))

    outcome = run(site, "revoke", "--from", str(file), *words)

    assert outcome.exit_code == 1
    assert said in outcome.output
    assert "nothing was revoked" in outcome.output
    assert not entries(redis_server, "*")

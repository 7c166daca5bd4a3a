"""gateway.cli.keys: keys that sign identity or seal tokens, and how all keys are."""

from __future__ import annotations

import asyncio
import datetime as dt
import stat
from pathlib import Path
from unittest.mock import patch

import httpx2
import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from joserfc import jwk

from bench.ports import free_port
from gateway.app import CLOCK
from gateway.cli import main
from gateway.config.load import load as load_config
from gateway.identity.keys import signing_key_from_pem
from gateway.serving import Gateway
from gateway.tokens.fernet import FernetKeys, read_key
from gateway.tokens.jwe import ALGORITHMS, ENCODINGS, sealing_key
from gateway.tokens.key_status import KeyReport, KeySetStatus, KeyStatus, load
from tests.sealed import SealedSite
from tests.site import Site, url


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_generated_key_is_for_its_owner_only_and_loads(
    tmp_path: Path, algorithm: str
) -> None:
    """It is named by its time, so that the newest file signs."""
    call = ["keys", "generate", "--dir", str(tmp_path / "k"), "--algorithm", algorithm]

    outcome = CliRunner().invoke(main, call)

    assert outcome.exit_code == 0, outcome.output
    (file,) = (tmp_path / "k").glob("*.pem")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = signing_key_from_pem(file.read_bytes(), algorithm)  # type: ignore[arg-type]
    assert outcome.output.split() == [str(file), key.key_id]


def status(site: Site, *words: str) -> Result:
    call = ["keys", "status", "-c", str(site.config), *words]
    return CliRunner().invoke(main, call)


async def test_a_running_gateway_tells_how_its_keys_are(tmp_path: Path) -> None:
    """As a table for people, and as JSON for programs."""
    site = Site(tmp_path)
    async with site.running() as gateway, httpx2.AsyncClient() as http:
        before = await asyncio.to_thread(status, site)
        headers = site.bearer("c-1")
        await http.get(url(gateway) + "/api/orders/me", headers=headers)
        after = await asyncio.to_thread(status, site)
        told = await asyncio.to_thread(status, site, "--json")

    assert (before.exit_code, after.exit_code, told.exit_code) == (0, 0, 0)
    thumb = jwk.import_key({**site.key.jwk}).thumbprint()
    assert before.output.splitlines()[0].startswith("issuer corp (file), refreshed ")
    assert before.output.splitlines()[1].split()[:4] == ["next", "k1", "ES256", thumb]
    assert after.output.splitlines()[1].split()[0] == "current"
    report = load(told.output.encode())
    assert report.issuers[0].keys[0].thumbprint == thumb
    (own,) = report.identities
    assert f"identity {own.name} (directory)" in after.output.splitlines()
    pem = (tmp_path / "identity" / "1.pem").read_bytes()
    assert own.keys[0].key_id == signing_key_from_pem(pem, "ES256").key_id


async def test_trouble_and_what_is_gone_are_shown(tmp_path: Path) -> None:
    """And nothing of a name that a terminal would obey."""
    site, now = Site(tmp_path), CLOCK.wall()
    gone = KeyStatus("previous", "k\x1b[2J", ("ES256",), "thumb", 1.0, now - 400)
    report = KeyReport(
        (
            KeySetStatus("corp", "url", (gone,), now - 7300, now + 7300, "status 500"),
            KeySetStatus("new", "url", (), skipped=("key 1: too short",)),
        ),
        (),
    )
    async with site.running() as gateway:
        with patch.object(gateway.engine, "key_report", return_value=report):
            said = (await asyncio.to_thread(status, site)).output

    assert said.splitlines() == [
        "issuer corp (url), refreshed 2h ago, next in 2h",
        "  trouble: status 500",
        "  previous  k\\x1b[2J  ES256  thumb  withdrawn 6m ago",
        "issuer new (url)",
        "  no keys",
        "  not used: key 1: too short",
    ]


def test_no_gateway_no_status(tmp_path: Path) -> None:
    """Exit code 1, and who did not answer; 2 where there is no admin port at all."""
    site = Site(tmp_path)
    site.write()
    outcome = status(site)
    assert outcome.exit_code == 1
    assert "the gateway's admin port did not answer" in outcome.output

    text = site.config.read_text(encoding="utf-8")
    site.config.write_text(text.replace("unix:admin.sock", "none"), encoding="utf-8")
    outcome = status(site)
    assert outcome.exit_code == 2
    assert "an [admin] port is needed" in outcome.output


async def test_who_may_not_ask_is_told_so(tmp_path: Path) -> None:
    """The configuration here has another admin token than the gateway's."""
    site = Site(tmp_path)
    port = free_port()
    site.write()

    def configured(token: str) -> None:
        secret = tmp_path / "admin-token"
        secret.write_text(token, encoding="utf-8")
        secret.chmod(0o600)
        text = site.config.read_text(encoding="utf-8").replace(
            'listen = "unix:admin.sock"',
            f'listen = "127.0.0.1:{port}"\ntoken = "file:admin-token"',
        )
        site.config.write_text(text, encoding="utf-8")

    configured("a-token-of-32-characters-or-longer")
    gateway = Gateway(load_config([site.config], env={}), site.log.append)
    await gateway.start()
    try:
        assert (await asyncio.to_thread(status, site)).exit_code == 0
        configured("another-token-of-32-characters-too")
        outcome = await asyncio.to_thread(status, site)
    finally:
        await gateway.aclose()

    assert outcome.exit_code == 1
    assert outcome.output == "refused: The admin token is asked for.\n"


def call(*words: str, given: str = "") -> Result:
    return CliRunner().invoke(main, ["keys", *words], input=given)


def test_a_fernet_key_goes_where_it_is_used(tmp_path: Path) -> None:
    """Into a directory, by its time; into a new file; or, if one asks, to stdout."""
    outcome = call("generate", "--kind", "fernet", "--dir", str(tmp_path / "k"))
    (file,) = (tmp_path / "k").glob("*.key")
    assert outcome.output.strip() == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_key(file.read_text().strip())

    named = tmp_path / "one.key"
    outcome = call("generate", "--kind", "fernet", "--file", str(named))
    assert outcome.output.strip() == str(named)
    key = named.read_text().strip()
    assert read_key(key)
    outcome = call("generate", "--kind", "fernet", "--file", str(named))
    assert outcome.exit_code == 1
    assert "File exists" in outcome.output
    assert named.read_text().strip() == key

    outcome = call("generate", "--kind", "fernet", "--show")
    assert read_key(outcome.output.strip())


@pytest.mark.parametrize(
    "words",
    [
        ("identity",),
        ("identity", "--show"),
        ("identity", "--dir", "d", "--file", "f"),
        ("fernet",),
        ("fernet", "--dir", "d", "--show"),
        ("jwe",),
        ("jwe", "--dir", "d"),
        ("jwe", "--file", "f", "--show"),
    ],
)
def test_a_key_goes_to_one_place(words: tuple[str, ...]) -> None:
    """No key is printed because nothing else was said."""
    outcome = call("generate", "--kind", *words)
    assert outcome.exit_code == 2
    assert "key goes into" in outcome.output or "exactly one of" in outcome.output


@pytest.mark.parametrize("enc", ENCODINGS)
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_jwe_key_is_one_for_its_pair(tmp_path: Path, alg: str, enc: str) -> None:
    """As [[jwe.keys]] takes it."""
    file = tmp_path / "key"
    outcome = call(
        *("generate", "--kind", "jwe", "--file", str(file), "--alg", alg, "--enc", enc)
    )
    assert outcome.output.strip() == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = sealing_key(alg, enc, None, file.read_bytes().rstrip())
    assert key.open(key.seal(b"{}", {})) == b"{}"


def in_a_directory(tmp_path: Path, *names: str) -> SealedSite:
    """Return a site with the keys of [fernet] in files of these names."""
    site = SealedSite(tmp_path)
    site.more = site.more.replace('["file:new.key", "file:old.key"]', '["dir:fernet"]')
    site.write()
    (tmp_path / "fernet").mkdir()
    for name in names:
        file = tmp_path / "fernet" / f"{name}.key"
        file.write_text(Fernet.generate_key().decode())
        file.chmod(0o600)
    return site


def test_a_rotation_makes_a_key_and_says_which_may_go(tmp_path: Path) -> None:
    """A key may go when all has ended that it sealed before there was a newer one."""
    now = dt.datetime.now(dt.UTC)
    stamp = "%Y%m%dT%H%M%SZ"
    young, old = f"{now - dt.timedelta(minutes=5):{stamp}}", "20200101T000000Z"
    site = in_a_directory(tmp_path, young, old, "0-by-hand")
    config = str(site.config)

    outcome = call("rotate", "--kind", "fernet", "-c", config)

    assert outcome.exit_code == 0, outcome.output
    made, first, second, third = outcome.output.splitlines()
    directory = tmp_path / "fernet"
    (new,) = set(directory.glob("*.key")) - {
        directory / f"{name}.key" for name in (young, old, "0-by-hand")
    }
    assert made.startswith(f"made    {new}: ")
    assert first.startswith(f"stays   {directory / young}.key: what it sealed ends by ")
    assert second.startswith(f"stays   {directory / old}.key: ")
    assert (
        third == f"may go  {directory / '0-by-hand'}.key: all that it sealed has ended"
    )
    assert stat.S_IMODE(new.stat().st_mode) == 0o600

    keys = [each.read_text().strip() for each in sorted(directory.glob("*.key"))]
    settings = load_config([site.config], env={}).settings.fernet
    assert settings is not None
    assert list(settings.keys) == keys[::-1]
    assert not set(keys) & set(outcome.output.split())


def test_tokens_are_sealed_anew_line_by_line(tmp_path: Path) -> None:
    """With the newest key, and they stay the same tokens; a bad line stays empty."""
    site = SealedSite(tmp_path)
    site.write()
    token = site.fernet("c-1", by="old.key")
    words = ("rotate", "--kind", "fernet", "-c", str(site.config), "--token-stdin")

    outcome = call(*words, given=f"{token}\r\nnone\n{token}\n")

    assert outcome.exit_code == 1
    assert outcome.stderr == "line 2: no key of [fernet] has sealed this\n"
    one, none, two = outcome.stdout.split("\n")[:3]
    assert not none
    newest = FernetKeys([site.fernet_key("new.key")])
    opened = FernetKeys([site.fernet_key("old.key")]).open(token)
    assert newest.open(one) == newest.open(two) == opened
    assert one != two
    assert call(*words, given=token).exit_code == 0


@pytest.mark.parametrize(
    ("site", "said"),
    [(Site, "there is no [fernet]"), (SealedSite, "are in no directory")],
)
def test_without_a_directory_there_is_nowhere_to_put_a_key(
    tmp_path: Path, site: type[Site], said: str
) -> None:
    """Then an operator puts it first in `keys`."""
    made = site(tmp_path)
    made.write()
    outcome = call("rotate", "--kind", "fernet", "-c", str(made.config))
    assert outcome.exit_code == 2
    assert said in outcome.output

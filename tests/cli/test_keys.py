"""gateway.cli.keys: keys that sign identity, and how all keys are."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from unittest.mock import patch

import httpx2
import pytest
from click.testing import CliRunner, Result
from joserfc import jwk

from bench.ports import free_port
from gateway.app import CLOCK, Gateway
from gateway.cli import main
from gateway.config.load import load as load_config
from gateway.identity.keys import signing_key_from_pem
from gateway.tokens.key_status import KeyReport, KeySetStatus, KeyStatus, load
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

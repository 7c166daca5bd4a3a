"""gateway.cli.revoke: an order is carried out, or said not to be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.site import Site


def revoke(site: Site, *words: str) -> Result:
    return CliRunner().invoke(main, ["revoke", "-c", str(site.config), *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "exactly one of --jti, --sid, --sub, --client"),
        (("--jti", "a", "--sid", "b"), "exactly one of"),
        (("--sub", "a", "--issuer", "crop"), "--issuer must be one of: corp"),
    ],
)
def test_words_that_are_off_are_said_to_be(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """With exit code 2; nothing is asked of anybody."""
    site = Site(tmp_path)
    site.write()

    outcome = revoke(site, *words)

    assert outcome.exit_code == 2
    assert said in outcome.output


def test_without_a_gateway_the_memory_store_can_not_be_told(tmp_path: Path) -> None:
    """It is that process's memory: the command says who did not answer."""
    site = Site(tmp_path)
    site.write()

    outcome = revoke(site, "--sub", "c-1")

    assert outcome.exit_code == 1
    assert "admin port did not answer: nothing was revoked" in outcome.output


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
        # The command is its own program: from a thread it can't be in this loop.
        outcome = await asyncio.to_thread(revoke, site, "--sub", "c-1")
        refused = await asyncio.to_thread(revoke, site, "--jti", "x" * 300)

        assert outcome.exit_code == 0, outcome.output
        assert outcome.output.startswith("revoked: subject of corp; kept until 2")
        assert refused.exit_code == 1
        assert "refused: jti is not a string of 1 to 255 characters" in refused.output
        assert gateway.engine.stores.revocations.health() is None


def test_what_no_token_can_carry_is_not_said_to_be_revoked(tmp_path: Path) -> None:
    """A name pasted in another normal form would match nothing (R62)."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")
    site.write()

    outcome = revoke(site, "--sub", "e\u0301")

    assert outcome.exit_code == 1
    assert "no token can carry this subject: nothing was revoked" in outcome.output

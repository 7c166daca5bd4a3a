"""docs/sealed.md: what it seals passes, with the configuration that it shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.app import Engine
from gateway.cli import main
from gateway.config.load import load
from gateway.model import Permit
from tests import fakes
from tests.sealed import EC, OCTETS, SEALED_POLICY, SealedSite
from tests.site import AUDIENCE

PAGE = (Path(__file__).parent.parent.parent / "docs" / "sealed.md").read_text("utf-8")
FERNET_KEY = Fernet.generate_key().decode()
ENV = {
    "FERNET_KEY": FERNET_KEY,
    "FERNET_PASSWORD": "correct horse battery",
    "JWE_KEY": OCTETS,
}
TOML, PYTHON = (
    re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("toml", "python")
)
CALLS = re.findall(r"^gateway token mint (.*?)(?: +#.*)?$", PAGE, re.MULTILINE)


def site_of(tmp_path: Path) -> SealedSite:
    """Return a site with the sections of the page, for both its kinds."""
    fernet, derived, jwe = TOML
    text = f"{fernet}{derived}\n{jwe}".replace("https://api.shop.example", AUDIENCE)
    site = SealedSite(tmp_path, more=text, policy=SEALED_POLICY)
    site.write()
    for name, pem in (
        ("partners.pem", EC),
        (
            "corp.pem",
            site.key.private.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ).decode(),
        ),
    ):
        (tmp_path / name).write_text(pem)
        (tmp_path / name).chmod(0o600)
    return site


def principal_of(site: SealedSite, token: str, path: bytes = b"/me") -> Any:
    engine = Engine(load([site.config], env=ENV))
    head = fakes.head_of(b"/api/orders" + path, fakes.bearer(token))
    outcome = engine.decider.decide_now(head, engine.clock.wall())
    assert isinstance(outcome, Permit), outcome
    return outcome.principal


@pytest.mark.parametrize(("example", "issuer"), [(0, "fernet"), (1, "jwe")])
def test_an_example_makes_a_token_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: int, issuer: str
) -> None:
    """With nothing of ours: by the libraries that anybody has."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    made: dict[str, Any] = {}
    code = PYTHON[example].replace("https://api.shop.example", AUDIENCE)
    exec(compile(code, "docs/sealed.md", "exec"), made)  # noqa: S102

    who = principal_of(site_of(tmp_path), made["token"], b"/files/a")

    assert (who.issuer, who.subject) == (issuer, "42")
    assert who.roles == {"customer"}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_mints_a_token_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As it stands on the page."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    site = site_of(tmp_path)
    words = call.replace('"', "").split()

    outcome = CliRunner().invoke(main, ["token", "mint", *words])

    assert outcome.exit_code == 0, outcome.output
    assert principal_of(site, outcome.stdout.strip()).subject == "42"


def test_the_page_has_its_examples() -> None:
    """Three of TOML, two programs, four calls: nothing above ran on nothing."""
    assert (len(TOML), len(PYTHON), len(CALLS)) == (3, 2, 4)

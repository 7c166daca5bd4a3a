"""gateway.cli.token: what it mints passes, and what would not pass it does not mint."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.app import Engine
from gateway.cli import main
from gateway.config.load import load
from gateway.model import Denial, Permit
from tests import fakes
from tests.sealed import SealedSite
from tests.site import POLICY, Site
from tests.tokens import make

SECRET = "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJK"
FILE = b"/api/orders/files/a"
WHO = ("--sub", "c-1", "--roles", "customer")


def mint(site: Site, *words: str) -> Result:
    call = ["token", "mint", "-c", str(site.config), *words]
    return CliRunner().invoke(main, call)


def decided(site: Site, token: str, now: float | None = None) -> Permit | Denial:
    engine = Engine(load([site.config], env={}))
    head = fakes.head_of(FILE, fakes.bearer(token))
    outcome = engine.decider.decide_now(head, now or engine.clock.wall())
    assert isinstance(outcome, Permit | Denial)
    return outcome


def key_file(site: Site, key: make.Key) -> str:
    """Return the path of a file with the private half of *key*."""
    file = site.directory / f"{key.key_id}-{key.algorithm}.pem"
    file.write_bytes(
        key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return str(file)


@pytest.mark.parametrize(
    ("words", "issuer"),
    [
        (("--kind", "fernet"), "fernet"),
        (("--kind", "fernet", "--issuer", "fernet"), "fernet"),
        (("--kind", "jwe"), "jwe"),
        (("--kind", "jwe", "--issuer", "corp", "--key", "KEY"), "corp"),
        (("--kind", "jwt", "--key", "KEY"), "corp"),
        (("--kind", "jwt", "--issuer", "corp", "--key", "KEY"), "corp"),
    ],
)
def test_what_is_minted_passes(
    tmp_path: Path, words: tuple[str, ...], issuer: str
) -> None:
    """With what was asked for in it; it is the one line on stdout."""
    site = SealedSite(tmp_path)
    site.write()
    key = key_file(site, site.key)
    more = ("--sid", "s-1", "--scope", "a,b", "--client", "app", "--ttl", "5m")

    outcome = mint(
        site, *(key if each == "KEY" else each for each in words), *WHO, *more
    )

    assert outcome.exit_code == 0, outcome.output
    (token,) = outcome.stdout.splitlines()
    assert f"{words[1]} of {issuer} about c-1, until 2" in outcome.stderr
    permit = decided(site, token)
    assert isinstance(permit, Permit), permit
    who = permit.principal
    assert (who.issuer, who.subject, who.session_id) == (issuer, "c-1", "s-1")
    assert who.client_id == "app"
    assert who.roles == {"customer"}
    assert who.scope == {"a", "b"}
    assert who.issued_at is not None
    assert who.expires_at - who.issued_at == 300
    assert len(who.token_id) == 22


def with_secret(tmp_path: Path, source: str) -> Site:
    """Return a site with one issuer, whose keys come from *source*."""
    site = Site(tmp_path)
    site.write()
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    (tmp_path / "public.pem").write_bytes(site.key.pem)
    text = site.config.read_text().replace('jwks        = "file:jwks.json"', source)
    if "secret" in source:
        text = text.replace('["ES256"]', '["HS256", "HS384"]')
    site.config.write_text(text)
    return site


def test_a_secret_of_the_configuration_signs(tmp_path: Path) -> None:
    """With the only issuer there is, unless another is named."""
    site = with_secret(tmp_path, 'secret = "file:secret"')
    outcome = mint(site, "--kind", "jwt", *WHO)
    assert outcome.exit_code == 0, outcome.output
    assert isinstance(decided(site, outcome.stdout.strip()), Permit)
    assert SECRET not in outcome.output


def test_a_key_has_to_be_one_of_its_issuers(tmp_path: Path) -> None:
    """By its key set or its PEM; a key set behind a URL is not looked at."""
    site = with_secret(tmp_path, 'pem = "file:public.pem"')
    own, other = key_file(site, site.key), key_file(site, make.key("ES256", "other"))
    outcome = mint(site, "--kind", "jwt", "--key", own, *WHO)
    assert isinstance(decided(site, outcome.stdout.strip()), Permit)
    for each in (site, SealedSite(tmp_path)):
        if each is not site:
            each.write()
        outcome = mint(each, "--kind", "jwt", "--issuer", "corp", "--key", other, *WHO)
        assert outcome.exit_code == 1
        assert "none of the keys of corp: nothing was minted" in outcome.stderr

    remote = with_secret(tmp_path, 'jwks = "http://127.0.0.1:9/jwks"')
    outcome = mint(remote, "--kind", "jwt", "--key", other, "--kid", "k9", *WHO)
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--kind", "fernet", "--roles", "root"), 1, "fernet may not assert: root"),
        (("--kind", "fernet", "--ttl", "16m"), 1, "live for at most 900 s"),
        (("--kind", "fernet", "--ttl", "x"), 2, "expected a time"),
        (("--kind", "jwe", "--ttl", "25h"), 1, "live for at most 86400 s"),
        (("--kind", "jwe", "--aud", "x"), 1, "neither jwe nor a route has"),
        (("--kind", "jwt"), 1, "corp signs with a key of its own: --key FILE"),
        (("--kind", "jwt", "--key", "gateway.toml"), 1, "no private key in PEM"),
        (("--kind", "jwt", "--issuer", "fernet"), 2, "must be one of: corp"),
        (("--kind", "jwe", "--issuer", "fernet"), 2, "must be one of: jwe, corp"),
        (("--kind", "x"), 2, "'x' is not one of"),
    ],
)
def test_what_the_gateway_would_refuse_is_not_minted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    """And nothing is on stdout then."""
    monkeypatch.chdir(tmp_path)
    site = SealedSite(tmp_path)
    site.write()
    outcome = mint(site, "--sub", "c-1", *words)
    assert outcome.exit_code == code, outcome.output
    assert said in outcome.stderr
    assert outcome.stdout == ""


def test_an_audience_of_a_route_may_be_minted_for(tmp_path: Path) -> None:
    """Its service says so, instead of the issuer."""
    site = SealedSite(tmp_path)
    site.policy = site.policy.replace("[service]", '[service]\naudience = ["x"]', 1)
    site.write()
    outcome = mint(site, "--kind", "fernet", "--aud", "x", *WHO)
    assert isinstance(decided(site, outcome.stdout.strip()), Permit)


def test_a_session_is_asked_for_where_it_has_to_be(tmp_path: Path) -> None:
    """[fernet] sid = "required"."""
    site = SealedSite(tmp_path)
    site.more = site.more.replace('ttl      = "15m"', 'ttl = "15m"\nsid = "required"')
    site.write()
    outcome = mint(site, "--kind", "fernet", *WHO)
    assert "has to name its session" in outcome.stderr
    assert mint(site, "--kind", "fernet", "--sid", "s", *WHO).exit_code == 0


def test_claims_are_sealed_with_a_secret_key(tmp_path: Path) -> None:
    """The first that is one: claims under a public key would be refused."""
    site = SealedSite(tmp_path)
    start, second = (
        site.more.index(each) for each in ("[[jwe", '[[jwe.keys]]\nkid = "ec')
    )
    site.more = site.more[:start] + site.more[second:] + site.more[start:second]
    site.write()
    outcome = mint(site, "--kind", "jwe", *WHO)
    assert isinstance(decided(site, outcome.stdout.strip()), Permit)


@pytest.mark.parametrize("words", [(), ("--issuer", "corp", "--key", "KEY")])
def test_a_key_of_the_running_gateway_is_not_here(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """`key = "ephemeral"`: no other process has it."""
    site = SealedSite(tmp_path)
    start = site.more.index("[[jwe.keys]]")
    site.more = site.more[:start] + (
        '[[jwe.keys]]\nalg = "dir"\nenc = "A256GCM"\nkey = "ephemeral"\n'
    )
    site.write()
    key = key_file(site, site.key)
    outcome = mint(
        site, "--kind", "jwe", *(key if each == "KEY" else each for each in words), *WHO
    )
    assert outcome.exit_code == 1
    assert "in the running gateway alone" in outcome.stderr


@pytest.mark.parametrize("kind", ["jwe", "fernet"])
def test_a_kind_that_is_not_configured_has_no_issuer(tmp_path: Path, kind: str) -> None:
    """The command says so."""
    site = Site(tmp_path, policy=POLICY)
    site.write()
    outcome = mint(site, "--kind", kind, *WHO)
    assert outcome.exit_code == 2
    assert f"none: gateway.toml has nothing for {kind}" in outcome.stderr

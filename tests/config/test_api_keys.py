"""gateway.config.api_keys: what is said of API keys, and of those that stand there."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from gateway.config.load import ConfigError, load
from gateway.config.syntax import moment
from tests.config.making import Project

PEPPER = "0123456789abcdef0123456789abcdef-!"
SHA = "ab" * 32
SECTION = """
[api_keys]
scope = "limit"
allow = ["customer"]
"""
KEY = f"""
[[api_key]]
id      = "batch"
sha256  = "{SHA}"
owner   = "batch"
roles   = ["customer"]
scopes  = ["orders:read"]
expires = 2027-01-31T00:00:00Z
networks = ["10.0.0.0/8"]
"""
NOW = datetime(2026, 11, 25, tzinfo=UTC).timestamp()


def report(project: Project, *, now: float | None = None) -> str:
    try:
        load([project.path / "gateway.toml"], env=project.env, now=now)
    except ConfigError as error:
        return str(error)
    raise AssertionError("it loads")


def test_without_the_section_there_are_no_keys(project: Project) -> None:
    """Neither an issuer of them."""
    settings = project.load().settings
    assert settings.api_keys is None
    assert "api_keys" not in settings.issuers


def test_the_section_makes_an_issuer_of_its_own_name(project: Project) -> None:
    """With which keys are accepted, granted and revoked; no key set is behind it."""
    settings = project.append("gateway.toml", SECTION).load().settings
    assert settings.api_keys is not None
    assert (settings.api_keys.prefix, settings.api_keys.header) == ("gw", "x-api-key")
    issuer = settings.issuers["api_keys"]
    assert not issuer.signs
    assert (issuer.issuer, issuer.leeway) == ("api_keys", 0)
    assert issuer.roles.allow == {"customer"}
    assert (issuer.scope.user, issuer.scope.service) == ("limit", "limit")
    assert issuer.max_lifetime == settings.api_keys.max_lifetime == 366 * 86_400


def test_a_declared_key_is_understood(project: Project) -> None:
    """Its end as TOML writes a moment, or as a text."""
    project.append("gateway.toml", SECTION + KEY)
    keys = project.load().settings.api_keys
    assert keys is not None
    (key,) = keys.declared
    assert (key.id, key.owner, key.sha256) == ("batch", "batch", bytes.fromhex(SHA))
    assert (*key.roles, *key.scopes) == ("customer", "orders:read")
    assert key.networks == (ip_network("10.0.0.0/8"),)
    assert key.expires == datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    project.edit("gateway.toml", "2027-01-31T00:00:00Z", '"2027-01-31T01:00:00+01:00"')
    again = project.load().settings.api_keys
    assert again is not None
    assert again.declared == (key,)


def test_the_pepper_is_a_secret(project: Project) -> None:
    """Long enough, from elsewhere, and in no message and no repr (R46, R96)."""
    project.append("gateway.toml", SECTION + 'pepper = "env:PEPPER"\n')
    project.env["PEPPER"] = PEPPER
    loaded = project.load()
    assert loaded.settings.api_keys is not None
    assert loaded.settings.api_keys.pepper == PEPPER.encode()
    assert PEPPER not in repr((loaded, loaded.settings, loaded.settings.api_keys))
    project.env["PEPPER"] = PEPPER[:31]
    said = project.report()
    assert "pepper: a secret of less than the 32 bytes" in said
    assert PEPPER[:31] not in said
    project.edit("gateway.toml", '"env:PEPPER"', f'"{PEPPER}"')
    said = project.report()
    assert "a secret does not stand in this file" in said
    assert PEPPER not in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('scope = "limit"', "", 'missing key "scope"'),
        ('scope = "limit"', 'scope = "limits"', '"limit"'),
        ("[api_keys]", '[api_keys]\nprefix = "Gw"', "a prefix is a lower-case"),
        ("[api_keys]", '[api_keys]\nprefix = "g_w"', "a prefix is a lower-case"),
        ("[api_keys]", '[api_keys]\nheader = "X_Key"', "without an underscore"),
        ("[api_keys]", '[api_keys]\nheader = "DPoP"', "a field of their own"),
        ("[api_keys]", '[api_keys]\nheader = "Cookie"', "means something else"),
        ("[api_keys]", '[api_keys]\nheader = "X-Gateway-K"', "own fields"),
        ("[api_keys]", '[api_keys]\nheader = "Host"', "for one connection"),
        ("[api_keys]", '[api_keys]\nlifetime = "400d"', "no longer than max_lifetime"),
        ('allow = ["customer"]', 'allow = ["custom"]', 'no policy file has [roles."cu'),
        ('roles   = ["customer"]', 'roles = ["admin"]', "is not in [api_keys] allow"),
        ('scopes  = ["orders:read"]', 'scopes = ["a b"]', "a scope is printable"),
        (f'"{SHA}"', '"abc"', "expected a SHA-256"),
        ('"batch"', '"-"', "an id is a letter or digit"),
        ('owner   = "batch"', 'owner = "a\\u0007"', "an owner is printable text"),
        ("2027-01-31T00:00:00Z", "2027-01-31T00:00:00", "expected a moment"),
        ("2027-01-31T00:00:00Z", "2027-01-31", "expected a moment"),
        ("2027-01-31T00:00:00Z", '"soon"', "expected a moment"),
        ("2027-01-31T00:00:00Z", "1800000000", "expected a moment"),
        ("expires = 2027-01-31T00:00:00Z", "", 'missing key "expires"'),
        ('"10.0.0.0/8"', '"10.0.0.1/8"', "without host bits"),
        ('"10.0.0.0/8"', ", ".join(['"10.0.0.0/8"'] * 65), "at most 64 of them"),
        ("[[api_key]]", '[[api_key]]\nnote = "' + "a" * 256 + '"', "at most 255"),
        ("[api_keys]", "[api_kees]", "api_key"),
    ],
)
def test_each_mistake_is_named(
    project: Project, old: str, new: str, words: str
) -> None:
    """A key that would not count as it stands does not load."""
    project.append("gateway.toml", SECTION + KEY)
    assert words in project.edit("gateway.toml", old, new).report()


def test_two_declared_keys_are_two(project: Project) -> None:
    """By id and by what they are."""
    project.append("gateway.toml", SECTION + KEY + KEY.replace(SHA, SHA.upper()))
    said = project.report()
    assert "another [[api_key]] has this id" in said
    assert "another [[api_key]] is the same key" in said


def test_a_declared_key_needs_the_section(project: Project) -> None:
    """It says what its scope means."""
    said = project.append("gateway.toml", KEY).report()
    assert "[[api_key]] without [api_keys]" in said


def test_the_name_of_the_issuer_is_taken(project: Project) -> None:
    """A token issuer of that name would be believed as keys are."""
    text = project.read("gateway.toml").replace("[issuer.demo", "[issuer.api_keys")
    project.write("gateway.toml", text)
    assert '"api_keys" is the issuer of API keys' in project.report()
    project.write("gateway.toml", text.replace("issuer.api_keys", "issuer.demo"))
    project.edit("gateway.toml", '"https://login.demo.example"', '"api_keys"')
    assert "[issuer.api_keys] has the same issuer" in project.report()


def test_a_policy_takes_keys_only_if_there_are_any(project: Project) -> None:
    """Else it would say what never happens."""
    policy = project.read("policies/orders.toml")
    upstream = next(x for x in policy.splitlines() if x.startswith("upstream"))
    project.edit(
        "policies/orders.toml",
        upstream,
        upstream + '\ncredentials = ["bearer", "api_key"]',
    )
    assert "gateway.toml has no [api_keys]" in project.report()
    project.append("gateway.toml", SECTION)
    said = project.report()
    assert "owner: name the issuer (demo, api_keys)" in said
    assert "no [api_keys]" not in said


def test_when_a_key_ends_is_looked_at(project: Project) -> None:
    """Over is a weakening; later than any key may end is a mistake."""
    project.append("gateway.toml", SECTION + KEY)
    files = [project.path / "gateway.toml"]
    late = load(files, env={}, now=NOW + 90 * 86_400)
    whats = [each.what for each in late.settings.weakenings]
    assert "API key batch has expired" in whats
    assert "expired" not in repr(load(files, env={}, now=NOW).settings.weakenings)
    early = NOW - 400 * 86_400
    assert "lives longer than [api_keys] max_lifetime" in report(project, now=early)


def test_keys_of_another_form_are_a_weakening(project: Project) -> None:
    """Nobody knows how they were made."""
    project.append("gateway.toml", SECTION + "imported = true\n")
    assert "API keys of another form" in project.weak()


def test_a_moment_has_an_offset() -> None:
    """Or nobody knows when it is."""
    assert moment("1970-01-01T00:01:00Z") == moment(
        datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    )
    for said in ("1970-01-01T00:01:00", "", 60, None, datetime(1970, 1, 1)):  # noqa: DTZ001
        with pytest.raises(ValueError, match="expected a moment"):
            moment(said)

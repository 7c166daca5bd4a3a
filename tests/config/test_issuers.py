"""gateway.config.issuers: whose word counts, and by which keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.config.settings import Introspection
from tests.config.making import Project

JWKS = 'jwks        = "file:.gateway/demo-jwks.json"'
ES = 'algorithms  = ["ES256"]'
TYPES = 'token_types = ["at+jwt"]'
SECRET = "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SECOND = """
[issuer.other]
issuer      = "https://other.example"
jwks        = "https://other.example/jwks"
audience    = ["https://api.demo.example"]
algorithms  = ["RS256", "EdDSA"]
token_types = ["JWT", "application/AT+JWT"]
[issuer.other.scope]
user    = "ignore"
service = "ignore"
"""


def test_the_example_issuer_is_understood(project: Project) -> None:
    """Frozen, complete, with absolute paths."""
    issuer = project.load().settings.issuers["demo"]
    assert issuer.issuer == "https://login.demo.example"
    assert issuer.keys.jwks_file == str(project.path / ".gateway" / "demo-jwks.json")
    assert issuer.audience == {"https://api.demo.example"}
    assert issuer.algorithms == {"ES256"}
    assert issuer.token_types == {"at+jwt"}
    assert (issuer.leeway, issuer.max_lifetime) == (30, 86_400)
    assert issuer.roles.claim == ("roles",)
    assert issuer.roles.map is None
    assert issuer.roles.allow == {"customer", "support", "admin"}
    assert (issuer.scope.user, issuer.scope.service) == ("limit", "grant")


def test_a_second_issuer_is_understood(project: Project) -> None:
    """Token types are compared without "application/" and without case."""
    project.append("gateway.toml", SECOND)
    other = project.load().settings.issuers["other"]
    assert other.keys.jwks_url == "https://other.example/jwks"
    assert other.token_types == {"jwt", "at+jwt"}
    assert other.roles.allow == frozenset()


@pytest.mark.parametrize(
    ("old", "new", "words", "mark"),
    [
        (JWKS, "", "[issuer.demo] has no keys", "demo"),
        (JWKS, JWKS + '\nsecret = "env:S"', '"jwks" and "secret" are set', '"env:S"'),
        (JWKS, 'jwks = "discovr"', 'expected "discover", an https URL', '"discovr"'),
        (JWKS, 'jwks = "http://a/jwks"', "plain http is for loopback", '"http://a'),
        (JWKS, 'jwks = "ftp://a/jwks"', "expected a URL", '"ftp://a'),
        (JWKS, 'jwks = "https://u:p@a/"', "no user name", "***"),
        (JWKS, 'jwks = "file:"', "expected a path", '"file:"'),
        (JWKS, 'jwks = "file:no.json"', "cannot be read: No such file", '"file:no'),
        (JWKS, 'jwks = "file:.gateway"', "cannot be read: Is a dir", '"file:.g'),
        (JWKS, 'jwks = "file:gateway.toml"', "not one strict JSON object", '"file:g'),
        (JWKS, 'jwks = "file:none.json"', "no key in it can be used", '"file:n'),
        (JWKS, 'pem = "file:gateway.toml"', "not exactly one PEM block", '"file:g'),
        (JWKS, 'pem = "env:PRIVATE"', "pem: a private key", '"env:PRIVATE"'),
        (JWKS, 'secret = "env:S"', "secret needs HS* algorithms", '["ES256"]'),
        (ES, 'algorithms = ["HS256"]', "jwks needs public-key", '["HS256"]'),
        (ES, 'algorithms = ["ES256", "HS256"]', "never share an issuer", '["ES256",'),
        (ES, 'algorithms = ["none"]', "algorithms: expected", '"none"'),
        (ES, "algorithms = []", "must not be empty", "[]"),
        (ES, "", 'missing key "algorithms" in [issuer.demo]', "demo"),
        (TYPES, 'token_types = ["JWT", "DPoP+jwt"]', "no access token", '"DPoP+jwt"'),
        (TYPES, TYPES + '\nleeway = "61s"', "leeway: must be at most 1m", '"61s"'),
        (TYPES, TYPES + '\nca_file = "x"', "ca_file is for keys that", "ca_file"),
        (TYPES, TYPES + '\nproxy = "http://p"', "proxy is for keys that", "proxy"),
        ('audience    = ["https://api.demo.example"]', "", '"audience"', "demo"),
        ("[issuer.demo]", "[issuer.'de mo']", "a name is", "'de mo'"),
        ('"support", "admin"]', '"support"]\nmap = {x="admin"}', "`allow`", '"admin"'),
        ('"support", "admin"]', '"support", "root"]', "no policy file has", '"root"'),
    ],
)
def test_each_mistake_is_named_where_it_stands(
    project: Project, old: str, new: str, words: str, mark: str
) -> None:
    """The section, the key, or the value that is wrong."""
    project.write("none.json", '{"keys": [{"kty": "oct", "k": "AA"}]}')
    project.env["S"] = SECRET
    project.env["PRIVATE"] = PRIVATE.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ).decode()
    report = project.edit("gateway.toml", old, new).report()
    lines = report.split("\n")
    (number,) = [n for n, line in enumerate(lines) if words in line]
    column = lines[number + 2].index("^")
    assert lines[number + 1][column:].startswith(mark)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "a secret that anybody could guess"),
        ("x", "anybody could guess"),
        ("secret", "anybody could guess"),
        (SECRET[:31], "a secret of less than the 32 bytes of HS256"),
        (SECRET[:47], "a secret of less than the 48 bytes of HS384"),
        (PEM.decode(), "a key document or a certificate, not a secret"),
    ],
)
def test_a_weak_secret_does_not_load(project: Project, secret: str, words: str) -> None:
    """R46: the report names the setting, never the value."""
    project.env["S"] = secret
    project.edit("gateway.toml", ES, 'algorithms = ["HS256", "HS384"]')
    report = project.edit("gateway.toml", JWKS, 'secret = "env:S"').report()
    assert "secret: " in report
    if len(secret) != 31:
        assert words in report
    assert len(secret) < 7 or secret not in report


def test_a_good_secret_is_taken_as_it_is(project: Project) -> None:
    """From a file, without its last line end; it is in no repr."""
    project.write("key", SECRET + "\n")
    project.edit("gateway.toml", ES, 'algorithms = ["HS256", "HS512"]')
    project.edit("gateway.toml", JWKS, 'secret = "file:key"')
    loaded = project.load()
    issuer = loaded.settings.issuers["demo"]
    assert issuer.keys.secret == SECRET.encode()
    assert SECRET not in repr((loaded, loaded.settings, issuer, issuer.keys))


def test_a_public_key_may_stand_in_a_file_for_everybody(project: Project) -> None:
    """It is no secret: that others can read it weakens nothing."""
    project.write("key.pem", PEM.decode(), mode=0o644)
    project.edit("gateway.toml", JWKS, 'pem = "file:key.pem"')
    loaded = project.load()
    assert loaded.settings.issuers["demo"].keys.pem == PEM.strip()
    assert project.weak() == [
        "revocations in memory",
        "public route orders.status",
    ]


def test_keys_behind_a_url_may_have_a_ca_and_a_proxy(project: Project) -> None:
    """The CA of a company, and the one way out of its network."""
    project.write("ca.pem", "x")
    project.edit(
        "gateway.toml",
        JWKS,
        'jwks = "discover"\nca_file = "ca.pem"\nproxy = "env:PROXY"',
    )
    project.env["PROXY"] = "http://proxy:3128"
    keys = project.load().settings.issuers["demo"].keys
    assert keys.discover
    assert keys.ca_file == str(project.path / "ca.pem")
    assert keys.proxy == "http://proxy:3128"


@pytest.mark.parametrize(
    ("issuer", "words"),
    [
        ("kubernetes/serviceaccount", "expected a URL"),
        ("http://login.example", "plain http"),
        ("https://login.example/?x", "no query"),
    ],
)
def test_discovery_needs_an_issuer_that_is_a_url(
    project: Project, issuer: str, words: str
) -> None:
    """Otherwise any string will do: `iss` is compared, not followed."""
    project.edit("gateway.toml", "https://login.demo.example", issuer)
    assert project.load().settings.issuers["demo"].issuer == issuer
    project.edit("gateway.toml", JWKS, 'jwks = "discover"')
    assert words in project.report()


def test_http_is_for_loopback(project: Project) -> None:
    """R48: an identity provider on a developer's machine."""
    project.edit("gateway.toml", JWKS, 'jwks = "http://localhost:9000/jwks"')
    keys = project.load().settings.issuers["demo"].keys
    assert keys.jwks_url == "http://localhost:9000/jwks"


def test_two_issuers_do_not_share_a_url(project: Project) -> None:
    """Whose keys and whose roles would count?"""
    project.append("gateway.toml", SECOND)
    project.edit(
        "gateway.toml", '"https://other.example"', '"https://login.demo.example"'
    )
    (problem,) = project.problems()
    assert problem.at == ("issuer", "other", "issuer")
    assert "[issuer.demo] has the same issuer" in problem.message


def test_roles_are_read_from_where_the_issuer_puts_them(project: Project) -> None:
    """A path, a mapping of group ids, a string that is split."""
    project.edit(
        "gateway.toml",
        'claim = "roles"',
        'claim = ["realm_access", "roles"]\nmap = { "5b7f" = "admin" }\nsplit = true',
    )
    roles = project.load().settings.issuers["demo"].roles
    assert roles.claim == ("realm_access", "roles")
    assert dict(roles.map or {}) == {"5b7f": "admin"}
    assert roles.split


def test_roles_that_count_for_nothing_need_no_declaration(project: Project) -> None:
    """With the scope as the grant, roles are only told to the upstream."""
    project.edit("gateway.toml", '"support", "admin"]', '"beta-tester"]')
    project.edit("gateway.toml", 'user    = "limit"', 'user    = "grant"')
    assert "beta-tester" in project.load().settings.issuers["demo"].roles.allow


ASKED = """
[issuer.asked]
issuer   = "https://asked.example"
audience = ["https://api.demo.example"]
[issuer.asked.scope]
user    = "ignore"
service = "ignore"
[issuer.asked.introspection]
url           = "https://asked.example/introspect"
client_id     = "gateway"
client_secret = "env:S"
"""
URL = 'url           = "https://asked.example/introspect"'


def asked(project: Project, old: str = URL, new: str = URL) -> Project:
    """Add the issuer above, with *new* for *old*."""
    project.env["S"] = SECRET
    assert old in ASKED
    return project.append("gateway.toml", ASKED.replace(old, new, 1))


def test_an_issuer_may_be_asked_and_have_no_keys(project: Project) -> None:
    """Its tokens are opaque; its secret is in no repr."""
    issuer = asked(project).load().settings.issuers["asked"]

    assert not issuer.signs
    assert issuer.introspection == Introspection(
        client_id="gateway",
        client_secret=SECRET,
        url="https://asked.example/introspect",
    )
    assert SECRET not in repr((issuer, issuer.introspection))
    assert project.load().settings.issuers["demo"].introspection is None
    assert project.weak() == [
        "revocations in memory",
        "public route orders.status",
    ]


def test_an_issuer_may_have_keys_and_be_asked(project: Project) -> None:
    """JWTs by their signature, anything else by asking where discovery says."""
    project.write("ca.pem", "x")
    project.write("client", SECRET + "\n")
    project.append(
        "gateway.toml",
        """
[issuer.demo.introspection]
client_id     = "gateway"
client_secret = "file:client"
auth          = "post"
cache         = "10s"
timeout       = "500ms"
prefix        = "demo_"
ca_file       = "file:ca.pem"
proxy         = "http://proxy:3128"
""",
    )
    issuer = project.load().settings.issuers["demo"]

    assert issuer.signs
    assert issuer.introspection == Introspection(
        client_id="gateway",
        client_secret=SECRET,
        auth="post",
        cache=10.0,
        timeout=0.5,
        prefix="demo_",
        ca_file=str(project.path / "ca.pem"),
        proxy="http://proxy:3128",
    )


@pytest.mark.parametrize(
    ("old", "new", "words", "mark"),
    [
        (URL, 'url = "http://a/x"', "url: plain http is for loopback", '"http://a'),
        (URL, 'url = "discovr"', 'expected "discover" or an https', '"discovr"'),
        ('"https://asked.example"\n', '"corp"\n', "", ""),
        ('"env:S"', '"s3cr3t-in-the-file"', "does not stand in this file", "***"),
        ('"env:S"', '"env:EMPTY"', "client_secret: must not be empty", '"env:EM'),
        (URL, URL + '\nprefix = "a b"', "expected up to 64 of", '"a b"'),
        (URL, URL + '\ncache = "2h"', "cache: must be at most 1h", '"2h"'),
        (URL, URL + '\ntimeout = "1m"', "timeout: must be at most 10s", '"1m"'),
        (URL, URL + '\nauth = "none"', "auth: expected", '"none"'),
        (URL, URL + '\nca_file = "no"', "No such file", '"no"'),
        ("[issuer.asked.scope]", ES + "\n[issuer.asked.scope]", "has keys", "alg"),
        ("[issuer.asked.scope]", TYPES + "\n[issuer.asked.scope]", "has keys", "tok"),
    ],
)
def test_each_mistake_about_asking_is_named_where_it_stands(
    project: Project, old: str, new: str, words: str, mark: str
) -> None:
    """The key, or the value that is wrong; a secret is shown to nobody."""
    project.env["EMPTY"] = ""
    asked(project, old, new)
    if not words:
        project.load()  # any string will do, where nothing is discovered
        project.edit("gateway.toml", URL, "")
        words, mark = "expected a URL", '"corp"'
    report = project.report()
    lines = report.split("\n")
    (number,) = [n for n, line in enumerate(lines) if words in line]
    column = lines[number + 2].index("^")
    assert lines[number + 1][column:].startswith(mark)
    assert "s3cr3t" not in report


@pytest.mark.parametrize(
    ("one", "two", "is_right"),
    [
        ("", "", False),
        ("", "b_", False),
        ("a_", "", False),
        ("a", "a_", False),
        ("a_", "a_", False),
        ("a_", "b_", True),
    ],
)
def test_what_a_token_begins_with_tells_who_is_asked(
    project: Project, one: str, two: str, *, is_right: bool
) -> None:
    """Several issuers have prefixes, none of which begins with another."""
    asked(project, URL, f'{URL}\nprefix = "{one}"')
    second = ASKED.replace(URL, f'{URL}\nprefix = "{two}"').replace("asked", "second")
    project.append("gateway.toml", second)
    if is_right:
        project.load()
    else:
        (problem,) = project.problems()
        assert problem.at[:3] == ("issuer", "second", "introspection")
        assert "[issuer.asked] is asked about tokens of this prefix" in problem.message


def test_what_makes_asking_weaker_is_shown(project: Project) -> None:
    """Answers that count for long, and tokens that could be for others."""
    asked(project, URL, URL + '\ncache = "301s"\naudience_from = "config"')

    assert {
        "long cache of introspection by issuer asked",
        "no audience asked of issuer asked",
    } <= set(project.weak())


def test_a_long_leeway_is_a_weakening(project: Project) -> None:
    """30 s is the default, 60 s the most."""
    project.edit("gateway.toml", TYPES, TYPES + '\nleeway = "31s"')
    assert "leeway of issuer demo" in project.weak()


def test_an_unreadable_key_set_is_a_problem(project: Project, tmp_path: Path) -> None:
    """As whoever runs the gateway: root reads everything."""
    (tmp_path / ".gateway" / "demo-jwks.json").chmod(0)
    if os.geteuid() == 0:
        project.load()
    else:
        assert "cannot be read" in project.report()


def test_logout_tokens_are_for_whom_the_issuer_says(project: Project) -> None:
    """None are taken unless it is said; without an audience of their own, its."""
    assert project.load().settings.issuers["demo"].logout_audience == frozenset()
    assert not project.load().settings.takes_logouts
    project.edit("gateway.toml", TYPES, f"{TYPES}\nbackchannel_logout = true")
    settings = project.load().settings
    assert settings.takes_logouts
    assert settings.issuers["demo"].logout_audience == {"https://api.demo.example"}
    project.edit("gateway.toml", TYPES, f'{TYPES}\nlogout_audience = ["app"]')
    assert project.load().settings.issuers["demo"].logout_audience == {"app"}


def test_whoever_shares_a_secret_logs_nobody_out(project: Project) -> None:
    """All who verify by it could make such a token; nor is an opaque one signed."""
    project.env["S"] = SECRET
    more = 'secret = "env:S"\nbackchannel_logout = true'
    project.edit("gateway.toml", JWKS, more)
    project.edit("gateway.toml", ES, 'algorithms = ["HS256"]')
    assert "logout tokens need public keys" in project.report()


def test_an_audience_of_logout_tokens_alone_is_a_mistake(project: Project) -> None:
    """It would look as if they were taken."""
    project.edit("gateway.toml", TYPES, f'{TYPES}\nlogout_audience = ["app"]')
    assert "is for an issuer with backchannel_logout = true" in project.report()

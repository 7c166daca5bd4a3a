"""gateway.config.sealed: [fernet] and [jwe], and the issuers that they make."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.config import credential_file as written
from gateway.config.documents import Document
from gateway.config.findings import Findings
from gateway.config.sealed import build_jwe, fernet_keys, jwe_keys
from gateway.config.settings import Issuer, KeySource
from tests.config.making import Project

ONE, TWO, THREE = (
    base64.urlsafe_b64encode(bytes(range(n, n + 32))).decode() for n in (0, 50, 100)
)
EC = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
KEYS = 'keys = ["env:ONE"]'
ROLES = 'roles = { claim = "roles", allow = ["customer"] }'
SCOPE = 'scope = { user = "limit", service = "grant" }'
FERNET = f"""
[fernet]
issuer   = "https://api.demo.example/sessions"
audience = ["https://api.demo.example"]
ttl      = "15m"
{KEYS}
{ROLES}
{SCOPE}
"""
NESTED = 'nested = ["demo"]'
KEY = '{ kid = "k1", alg = "dir", enc = "A256GCM", key = "env:ONE" }'
JWE = f"""
[jwe]
issuer   = "https://api.demo.example/sealed"
audience = ["https://api.demo.example"]
{NESTED}
{SCOPE}
keys = [{KEY}]
"""
DERIVED = 'derived = { password = "env:P", salt = "AAECAwQFBgcICQoLDA0ODw" }'


def with_(project: Project, *sections: str) -> Project:
    """Return *project* with *sections*, and an environment with keys for them."""
    project.env |= {
        "ONE": ONE,
        "TWO": TWO,
        "THREE": THREE,
        "P": "correct horse battery",
        "EC": EC,
    }
    return project.append("gateway.toml", "".join(sections))


def test_fernet_makes_an_issuer(project: Project) -> None:
    """Its name is "fernet"; its tokens live as long as its ttl."""
    settings = with_(project, FERNET).load().settings
    issuer = settings.issuers["fernet"]
    assert (issuer.name, issuer.issuer) == (
        "fernet",
        "https://api.demo.example/sessions",
    )
    assert issuer.keys == KeySource()
    assert not issuer.signs
    assert issuer.audience == {"https://api.demo.example"}
    assert (issuer.leeway, issuer.max_lifetime) == (30, 900)
    assert issuer.roles.allow == {"customer"}
    assert issuer.scope.user == "limit"
    assert settings.fernet is not None
    assert settings.fernet.keys == (ONE,)
    assert not settings.fernet.needs_session
    assert ONE not in repr(settings.fernet)


def test_keys_come_from_everywhere_and_the_first_seals(project: Project) -> None:
    """A variable, a file, a directory (the newest name first), a password."""
    project.write("old.key", ONE + "\n")
    project.write("keys/20260102T000000Z.key", THREE + "\n")
    project.write("keys/20260101T000000Z.key", TWO + "\n")
    keys = 'keys = ["file:old.key", "dir:keys"]\n' + DERIVED
    more = FERNET.replace(KEYS, keys) + 'sid = "required"\n'
    more = more.replace(f"{SCOPE}\n", "", 1) + f"{SCOPE}\n"
    settings = with_(project, more).load().settings
    assert settings.fernet is not None
    assert settings.fernet.keys[:3] == (ONE, THREE, TWO)
    assert len(settings.fernet.keys) == 4
    assert settings.fernet.needs_session
    assert settings.fernet.directory == str(project.path / "keys")
    token = fernet_keys(settings.fernet).seal(b"{}", 0)
    assert fernet_keys(settings.fernet).open(token)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (KEYS, "", "[fernet] has no keys"),
        (KEYS, "keys = []", "[fernet] has no keys"),
        (KEYS, f'keys = ["{ONE}"]', "a secret does not stand in this file"),
        (KEYS, 'keys = ["env:NONE"]', "the environment has no variable NONE"),
        (KEYS, 'keys = ["env:P"]', "keys: a Fernet key is 32 bytes"),
        (KEYS, 'keys = ["env:ONE", "env:ONE"]', "the same key twice"),
        (KEYS, 'keys = ["dir:none"]', "cannot be read"),
        (KEYS, 'keys = ["dir:policies"]', "the directory holds no *.key"),
        (KEYS, 'keys = ["dir:many"]', "more than 16 keys"),
        (KEYS, 'keys = ["dir:bad"]', "keys: a Fernet key is 32 bytes"),
        (KEYS, 'keys = ["dir:odd"]', "cannot be read"),
        (KEYS, 'keys = ["dir:one", "dir:one"]', "one directory of keys is enough"),
        (
            KEYS,
            'derived = { password = "correct horse battery", salt = "AAAA" }',
            "a secret does not stand in this file",
        ),
        (KEYS, DERIVED.replace("ODw", ""), "derived: a salt of 16 bytes"),
        (KEYS, DERIVED.replace("AAEC", "A!EC"), "salt: expected base64url"),
        (KEYS, DERIVED.replace("}", ", iterations = 599999 }"), "at least 600000"),
        ('ttl      = "15m"', "", 'missing key "ttl"'),
        ('ttl      = "15m"', 'ttl = "0s"', "ttl: must be at least"),
        (SCOPE, "", 'missing key "scope"'),
        ('allow = ["customer"]', 'allow = ["nobody"]', 'no policy file has [roles."no'),
        (
            ROLES,
            'roles = { claim = "roles", map = { a = "b" }, allow = ["customer"] }',
            'role "b" is not in `allow`',
        ),
        (
            "https://api.demo.example/sessions",
            "https://gateway.demo.example/identity",
            "[fernet] has the same issuer",
        ),
        ("https://api.demo.example/sessions", "https://login.demo.example", "the same"),
    ],
)
def test_a_fernet_section_that_is_wrong_does_not_load(
    project: Project, old: str, new: str, said: str
) -> None:
    """R46, R51: with its place, and without the key."""
    assert old in FERNET
    for n in range(17):
        project.write(f"many/{n}.key", ONE)
    project.write("bad/1.key", "secret-of-the-file")
    project.write("one/1.key", ONE)
    (project.path / "odd" / "1.key").mkdir(parents=True)
    report = with_(project, FERNET.replace(old, new, 1)).report()
    assert said in report, report
    for secret in (ONE, "correct horse battery", "secret-of-the-file"):
        assert secret not in report


def test_keys_that_others_can_read_are_a_weakening(project: Project) -> None:
    """Whether they are a file or in a directory; and a long leeway is one."""
    project.write("keys/1.key", TWO, mode=0o644)
    project.write("old.key", ONE, mode=0o640)
    keys = 'keys = ["file:old.key", "dir:keys"]\nleeway = "45s"'
    weak = with_(project, FERNET.replace(KEYS, keys)).weak()
    assert "readable secret fernet.keys.0" in weak
    assert "readable secret fernet.keys.1" in weak
    assert "leeway of issuer fernet" in weak


def test_jwe_makes_an_issuer_for_the_claims_in_it(project: Project) -> None:
    """And names those whose signed tokens may stand in it."""
    keys = KEY + ', { alg = "ECDH-ES", enc = "A128CBC-HS256", key = "env:EC" }'
    settings = with_(project, JWE.replace(KEY, keys), ROLES).load().settings
    issuer = settings.issuers["jwe"]
    assert issuer.issuer == "https://api.demo.example/sealed"
    assert (issuer.leeway, issuer.max_lifetime) == (30, 86_400)
    assert not issuer.signs
    jwe = settings.jwe
    assert jwe is not None
    assert jwe.nested == ("demo",)
    assert [(key.key_id, key.algorithm, key.encoding) for key in jwe.keys] == [
        ("k1", "dir", "A256GCM"),
        (None, "ECDH-ES", "A128CBC-HS256"),
    ]
    found = jwe_keys(jwe, b"").find("k1", "dir", "A256GCM")
    assert found == jwe_keys(jwe, b"").keys[0]
    assert ONE not in repr(jwe.keys)


def test_without_claims_in_it_there_is_no_issuer_of_its_own(project: Project) -> None:
    """Then nested tokens alone are in it, under any key."""
    lines = [line for line in JWE.splitlines() if "issuer " not in line]
    settings = with_(project, "\n".join(lines), "\n").load().settings
    assert "jwe" not in settings.issuers
    assert settings.jwe is not None


def test_a_key_may_be_made_at_the_start(project: Project) -> None:
    """S10: nothing of it is in the settings."""
    more = JWE.replace("env:ONE", "ephemeral")
    jwe = with_(project, more).load().settings.jwe
    assert jwe is not None
    assert jwe.keys[0].material is None
    one, again, other = (jwe_keys(jwe, secret * 32) for secret in (b"a", b"a", b"b"))
    token = one.keys[0].seal(b"{}", {})
    assert again.keys[0].open(token) == b"{}"
    assert other.keys[0].open(token) is None


WRAP = '{ kid = "k2", alg = "A256KW", enc = "A256GCM", key = "env:ONE" }'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("env:ONE", ONE, "a secret does not stand in this file"),
        ("env:ONE", "env:P", "key: dir with A256GCM has 32 bytes"),
        ('"dir"', '"RSA-OAEP-256"', "no private key in PEM"),
        ('"dir"', '"RSA1_5"', 'expected "dir", '),
        ("A256GCM", "A128GCM", 'expected "A256GCM", '),
        (
            '"dir", enc = "A256GCM", key = "env:ONE"',
            '"dir", enc = "A256GCM"',
            "missing",
        ),
        (f"keys = [{KEY}]", "keys = []", "keys: "),
        (f"keys = [{KEY}]", "", 'missing key "keys"'),
        (KEY, f"{KEY}, {KEY.replace('ONE', 'TWO')}", "another key has the same kid"),
        (KEY, f"{KEY}, {WRAP}", "one key for two pairs"),
        (
            KEY,
            ", ".join(
                KEY.replace('kid = "k1", ', "").replace("ONE", name)
                for name in ("ONE", "TWO")
            ),
            "a kid of its own is needed",
        ),
        (
            '"dir", enc = "A256GCM", key = "env:ONE"',
            '"A256KW", enc = "A256GCM", key = "ephemeral"',
            '"ephemeral" is for alg = "dir"',
        ),
        (
            '"dir", enc = "A256GCM", key = "env:ONE"',
            '"ECDH-ES", enc = "A256GCM", key = "env:EC"',
            "anybody can encrypt to a public key",
        ),
        (NESTED, 'nested = ["dmo"]', "there is no [issuer.dmo]"),
        (NESTED, 'nested = ["fernet"]', "there is no [issuer.fernet]"),
        (SCOPE, "", "claims in [jwe] need scope as well"),
        ('audience = ["https://api.demo.example"]', "", "need audience as well"),
        ("https://api.demo.example/sealed", "https://login.demo.example", "the same"),
    ],
)
def test_a_jwe_section_that_is_wrong_does_not_load(
    project: Project, old: str, new: str, said: str
) -> None:
    """R40, R46, R49: with its place, and without the key."""
    assert old in JWE
    report = with_(project, JWE.replace(old, new, 1)).report()
    assert said in report, report
    assert ONE not in report


def test_a_section_in_which_nothing_may_stand_does_not_load(project: Project) -> None:
    """Neither claims nor signed tokens."""
    more = f"[jwe]\nkeys = [{KEY}]\n"
    assert "says nothing of what may stand" in with_(project, more).report()


@pytest.mark.parametrize("name", ["fernet", "jwe"])
def test_the_names_of_sealed_issuers_are_taken(project: Project, name: str) -> None:
    """[issuer.fernet] would be two issuers of one name."""
    text = project.read("gateway.toml").replace("[issuer.demo", f"[issuer.{name}")
    project.write("gateway.toml", text)
    assert f'the name "{name}" is that of the issuer of [{name}]' in project.report()


def test_a_policy_may_name_a_sealed_issuer_that_is_wrong(project: Project) -> None:
    """One mistake is one problem: the names of both sections count all the same."""
    more = FERNET.replace('ttl      = "15m"', "") + JWE.replace("env:ONE", "env:NONE")
    with_(project, more)
    project.edit("policies/orders.toml", '= ["demo"]', '= ["fernet", "jwe"]')
    owner = 'owner = { param = "customer_id", issuer = "jwe" }'
    text = re.sub(
        r'owner += "customer_id"', owner, project.read("policies/orders.toml")
    )
    project.write("policies/orders.toml", text)
    problems = [item.message for item in project.problems()]
    assert len(problems) == 2, problems


def test_a_nested_issuer_that_is_wrong_is_said_once(project: Project) -> None:
    """It is there, with a problem of its own."""
    project.edit("gateway.toml", 'algorithms  = ["ES256"]', 'algorithms = ["XX"]')
    report = with_(project, JWE).report()
    assert "there is no [issuer.demo]" not in report


def test_only_who_signs_is_nested() -> None:
    """An issuer without keys has no signed token to stand inside."""
    opaque = Issuer("opaque", "https://o.example", KeySource(), frozenset({"a"}))
    key = {"alg": "dir", "enc": "A256GCM", "key": "ephemeral"}
    table = written.Jwe.model_validate({"keys": [key], "nested": ["opaque"]})
    found = Findings([Document("gateway.toml", Path("gateway.toml"))])
    assert build_jwe(table, {"opaque": opaque}, frozenset({"opaque"}), found) is None
    assert [item.message for item in found.problems] == ["opaque signs no tokens"]

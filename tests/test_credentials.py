"""gateway.credentials: who is asked about a token, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from gateway.adapters.jwks import JwksClient
from gateway.app import CLOCK
from gateway.config.settings import Certificates
from gateway.credentials import (
    Rereading,
    authenticators,
    declared_keys,
    key_rules,
    rules_of,
)
from gateway.model import (
    ANONYMOUS,
    API_KEYS,
    CERTIFICATES,
    Denial,
    Principal,
    Reason,
)
from gateway.tokens.api_key import principal_of, token_id_of
from gateway.tokens.fernet import FernetAuthenticator
from gateway.tokens.introspection import OpaqueAuthenticator
from gateway.tokens.jwe import JweAuthenticator
from gateway.tokens.jwt import JwtAuthenticator
from tests.sealed import SealedSite
from tests.site import ISSUER, Site


def test_each_token_has_one_reader_and_opaque_is_what_nobody_else_knows(
    tmp_path: Path,
) -> None:
    """By its shape alone, in whatever order they are asked but the last."""
    site = SealedSite(tmp_path)
    settings = site.load().settings
    signing = tuple(each for each in settings.issuers.values() if each.signs)
    asked = tuple(authenticators(settings, JwksClient(signing, CLOCK), bytes(32)))
    kinds = [JwtAuthenticator, FernetAuthenticator, JweAuthenticator]

    assert isinstance(asked[-1], OpaqueAuthenticator)
    for token, kind in zip(
        (site.token(), site.fernet(), site.jwe()), kinds, strict=True
    ):
        readers = [each for each in asked[:-1] if each.recognises(token)]
        assert [type(each) for each in readers] == [kind]
    assert not any(each.recognises("opaque") for each in asked[:-1])


def test_an_issuers_rules_are_those_of_its_section(tmp_path: Path) -> None:
    """Bindings count as far as the configuration can prove them."""
    settings = Site(tmp_path).load().settings
    rules = rules_of(settings.issuers["corp"], settings)

    assert rules.role_allow == {"customer", "support"}
    assert rules.algorithms == {"ES256"}
    assert rules.binding.dpop is False


KEYS = """
[api_keys]
allow = ["customer", "support"]
scope = "ignore"
"""
KEY = """
[[api_key]]
id     = "nightly"
sha256 = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
owner  = "billing"
roles  = {roles}
expires = 2099-01-31T00:00:00Z
"""
NOW = 1_000.0  # Unix seconds


def rereading(tmp_path: Path, more: str = "") -> Rereading:
    return Rereading(Site(tmp_path, more=more).load().settings)


def corp(**claims: object) -> Principal:
    said = {"iss": ISSUER, "roles": ["customer", "auditor"], "scope": "a b", **claims}
    return Principal(
        "user",
        "corp",
        "c-1",
        roles=frozenset({"auditor"}),
        claims=MappingProxyType(said),
    )


def test_what_an_issuer_may_say_is_read_again(tmp_path: Path) -> None:
    """A role that it may no longer assert is gone, one that it may now is there."""
    found = rereading(tmp_path)(corp(), NOW)
    assert isinstance(found, Principal)
    assert found.roles == {"customer"}
    assert found.scope == {"a", "b"}
    assert found.subject == "c-1"


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (replace(corp(), issuer="partner"), Reason.ISSUER_UNTRUSTED),
        (corp(iss="https://login.other.example"), Reason.ISSUER_UNTRUSTED),
        (corp(roles=7), Reason.CLAIM_INVALID),
        (Principal("api_key", API_KEYS, "billing"), Reason.ISSUER_UNTRUSTED),
        (Principal("service", CERTIFICATES, "x"), Reason.ISSUER_UNTRUSTED),
    ],
)
def test_whoever_is_trusted_no_more_vouches_for_nobody(
    tmp_path: Path, who: Principal, reason: Reason
) -> None:
    """Its section is gone, or it is another issuer's now."""
    found = rereading(tmp_path)(who, NOW)
    assert isinstance(found, Denial)
    assert found.reason is reason


def test_nobody_stays_nobody(tmp_path: Path) -> None:
    """There is nothing to read."""
    assert rereading(tmp_path)(ANONYMOUS, NOW) is ANONYMOUS


def test_a_declared_key_is_what_is_declared_now(tmp_path: Path) -> None:
    """Its roles are read again; without its table it is unknown; a stored one stays."""
    declared = KEYS + KEY.format(roles='["support"]')
    settings = Site(tmp_path, more=declared).load().settings
    assert settings.api_keys is not None
    ((digest, key),) = declared_keys(settings.api_keys).items()
    old = principal_of(
        replace(key, roles=frozenset({"customer"})),
        key.secrets[0],
        key_rules(settings),
        NOW,
    )
    assert old.token_id == token_id_of(digest)
    found = Rereading(settings)(old, NOW)
    assert isinstance(found, Principal)
    assert found.roles == {"support"}
    assert found.subject == "billing"

    without = rereading(tmp_path, more=KEYS)
    gone = without(old, NOW)
    assert isinstance(gone, Denial)
    assert gone.reason is Reason.CREDENTIAL_UNRECOGNISED
    kept = without(replace(old, issued_at=7.0, roles=frozenset({"customer", "x"})), NOW)
    assert isinstance(kept, Principal)
    assert kept.roles == {"customer"}


def test_a_certificates_roles_are_those_of_its_holder_now(tmp_path: Path) -> None:
    """By the name that it has; none where it is named no more."""
    settings = Site(tmp_path).load().settings
    known = replace(
        settings,
        certificates=Certificates("subject", {"CN=billing": frozenset({"support"})}),
        issuers={**settings.issuers, CERTIFICATES: settings.issuers["corp"]},
    )
    for name, roles in (("CN=billing", {"support"}), ("CN=orders", set())):
        held = Principal("service", CERTIFICATES, name, roles=frozenset({"customer"}))
        found = Rereading(known)(held, NOW)
        assert isinstance(found, Principal)
        assert found.roles == roles

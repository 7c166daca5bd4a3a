"""gateway.credentials: who is asked about a token, and in which order."""

from __future__ import annotations

from pathlib import Path

from gateway.adapters.jwks import JwksClient
from gateway.app import CLOCK
from gateway.credentials import authenticators, rules_of
from gateway.tokens.fernet import FernetAuthenticator
from gateway.tokens.introspection import OpaqueAuthenticator
from gateway.tokens.jwe import JweAuthenticator
from gateway.tokens.jwt import JwtAuthenticator
from tests.sealed import SealedSite
from tests.site import Site


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

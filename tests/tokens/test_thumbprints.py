"""gateway.tokens.thumbprints: a public key has one name, whoever holds it."""

from __future__ import annotations

import pytest
from joserfc import jwk

from gateway.tokens.thumbprints import public_members, thumbprint
from tests import vectors
from tests.tokens import make


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    """The example of RFC 7638 section 3.1, whose other members do not count."""
    example = vectors.load("rfc-snippets/pkce_thumbprint_mtls.json")
    found = example["rfc7638_section_3_1"]

    assert thumbprint(found["jwk"]) == found["jkt"]


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # RFC 9864 names it anew
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_another_library_writes_the_same(algorithm: str) -> None:
    """Every kind of key that we verify with; coordinates with all their zeros."""
    key = make.key(algorithm)
    members = public_members(key.public)

    assert {**key.jwk, **members} == key.jwk
    assert thumbprint(members) == jwk.import_key({**key.jwk}).thumbprint()

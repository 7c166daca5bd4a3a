"""gateway.signers: our own keys, read from where they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.identity.keys import new_key_pem
from gateway.signers import Signers
from tests.site import Site


def test_upstreams_of_one_identity_share_what_is_remembered(tmp_path: Path) -> None:
    """And each that has one is signed for."""
    site = Site(tmp_path, more='[upstream.other]\nurls = ["http://127.0.0.1:9"]\n')
    signers = Signers(site.load().settings)

    assert signers.by_upstream["orders"] is signers.by_upstream["other"]
    assert signers.headers == {"X-Auth-Request-User"}


def test_an_identity_key_that_is_none_names_its_file(tmp_path: Path) -> None:
    """And not a byte of what is in it."""
    site = Site(tmp_path)
    loaded = site.load()
    (tmp_path / "identity" / "1.pem").write_text("secret text")

    with pytest.raises(ValueError, match=r"1\.pem") as error:
        Signers(loaded.settings)

    assert "secret text" not in str(error.value)


def test_a_directory_without_keys_says_how_to_make_one(tmp_path: Path) -> None:
    """`gateway keys generate` is named."""
    site = Site(tmp_path)
    loaded = site.load()
    (tmp_path / "identity" / "1.pem").unlink()

    with pytest.raises(ValueError, match="gateway keys generate"):
        Signers(loaded.settings)


def test_of_several_keys_the_newest_signs_and_all_are_published(
    tmp_path: Path,
) -> None:
    """Newest by name, which `gateway keys generate` makes of the time."""
    site = Site(tmp_path)
    site.write()
    (tmp_path / "identity" / "2.pem").write_bytes(new_key_pem("ES256"))

    signers = Signers(site.load().settings)

    assert signers.key_set.count(b'"kid"') == 2
    (keys,) = signers.status
    assert [key.state for key in keys.keys] == ["current", "previous"]

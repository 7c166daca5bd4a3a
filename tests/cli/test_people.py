"""gateway.cli.people: tokens for a terminal."""

from __future__ import annotations

import stat
from pathlib import Path

import jwt
import pytest

from gateway.cli.people import Person, TokenMaker, write_private

ALICE = Person("alice", "c-1", ("customer",), "orders:read")


def test_a_token_is_an_access_token_of_that_person(tmp_path: Path) -> None:
    """RFC 9068, verified by a stock library with the published keys."""
    maker = TokenMaker.kept_in(tmp_path / "k.pem", issuer="https://i", audience="a")

    token = maker.token(ALICE, now=4_000_000_000, lifetime=60)

    (published,) = maker.key_set()["keys"]
    key = jwt.PyJWK(published)
    claims = jwt.decode(
        token, key, algorithms=["ES256"], audience="a", options={"verify_iat": False}
    )
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    assert (claims["sub"], claims["roles"]) == ("c-1", ["customer"])
    assert claims["exp"] - claims["iat"] == 60


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """Tokens survive a restart; the file is its owner's alone."""
    file = tmp_path / "a" / "k.pem"

    first = TokenMaker.kept_in(file, issuer="https://i", audience="a")
    second = TokenMaker.kept_in(file, issuer="https://i", audience="a")

    assert first.key_set() == second.key_set()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(first)


def test_a_private_file_is_never_overwritten(tmp_path: Path) -> None:
    """A key that is in use would be gone."""
    write_private(tmp_path / "k", b"1")

    with pytest.raises(FileExistsError):
        write_private(tmp_path / "k", b"2")

"""gateway.tokens.describe: a token by its looks."""

from __future__ import annotations

import json

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens.api_key import key_of
from gateway.tokens.describe import MAX_SHOWN, Description, describe, since
from tests.tokens import make

NOW = 1_700_000_000


def test_a_jwt_says_who_and_when() -> None:
    """In the words that name people and times, whoever has signed it."""
    claims = {"iss": "https://i", "sub": "é", "secret": "s3", "iat": NOW - 3, "exp": 9}
    token = make.token(make.key(), claims, {"kid": "a" * 500})
    found = describe(token, NOW)

    assert found.form == "JWT"
    assert found.header[:2] == ('alg "ES256"', 'typ "at+jwt"')
    assert len(found.header[2]) == len("kid ") + MAX_SHOWN + len("...")
    assert found.claims == (
        'iss "https://i"',
        'sub "\\u00e9"',
        "issued 3 s ago",
        "expires 19676 d ago",
    )
    assert found.times == {"iat": NOW - 3, "exp": 9}


def test_a_fernet_token_says_when_it_was_sealed() -> None:
    """Its time stands in the open, its content does not."""
    token = Fernet(Fernet.generate_key()).encrypt_at_time(b"s3cret", NOW - 90)
    found = describe(token.decode(), NOW)

    assert (found.form, found.claims) == ("Fernet token", ("issued 90 s ago",))


def test_an_encrypted_jwt_shows_its_header() -> None:
    """The rest is nobody's to read."""
    header = make.b64(json.dumps({"alg": "dir", "enc": "A256GCM", "x": 1}).encode())
    found = describe(f"{header}..AAAA.AAAA.AAAA", NOW)

    assert found == Description("encrypted JWT", ('alg "dir"', 'enc "A256GCM"'))


@pytest.mark.parametrize(
    ("token", "form"),
    [
        ("a.b.c", "JWT"),
        (make.sign(make.key(), b'{"alg":"x"}', b"[]"), "JWT"),
        ("a.b.c.d.e", "encrypted JWT"),
        ("gAAAAA", "opaque token"),
        (key_of("gw", "0123456789ab", bytes(32)), "API key"),
        (f"gw_{'a' * 12}_{'b' * 49}", "API key"),
        ("gw_a", "opaque token"),
        ("", "opaque token"),
    ],
)
def test_what_can_not_be_read_is_described_by_its_form(token: str, form: str) -> None:
    """As what it may have been meant to be."""
    assert describe(token, NOW).form == form


@given(st.text())
def test_any_text_has_a_description(text: str) -> None:
    """Never an exception."""
    assert describe(text, NOW).form


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (37.4, "37 s ago"),
        (0, "0 s ago"),
        (-0.01, "0 s ago"),
        (-30, "in 30 s"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (-7200, "in 2 h"),
        (200_000, "2 d ago"),
    ],
)
def test_a_time_is_said_in_words(seconds: float, words: str) -> None:
    """In the largest unit of which there are two."""
    assert since(seconds) == words

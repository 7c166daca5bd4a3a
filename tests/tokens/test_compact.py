"""gateway.tokens.compact: a token has one spelling."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tokens.compact import (
    MAX_CHARACTERS,
    Compact,
    Encrypted,
    base64url,
    split,
    split_encrypted,
)
from tests.tokens.make import b64

HEAD = b64(b'{"alg":"ES256"}')


def test_a_token_is_taken_apart() -> None:
    """What is signed is the text of the first two segments, as received."""
    assert split(f"{HEAD}.{b64(b'pay')}.{b64(b'sig!')}") == Compact(
        {"alg": "ES256"}, b"pay", b"sig!", f"{HEAD}.cGF5".encode()
    )


def test_nothing_may_be_signed() -> None:
    """RFC 7515 allows an empty payload. It is no JWT, which is found out later."""
    found = split(f"{HEAD}..AAAA")

    assert found is not None
    assert found.payload == b""


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="nothing"),
        pytest.param("..", id="three times nothing"),
        pytest.param(f".{HEAD}.AAAA", id="no header"),
        pytest.param(f"{HEAD}.AAAA.", id="no signature"),
        pytest.param(f"{HEAD}.AAAA", id="two segments"),
        pytest.param(f"{HEAD}.AAAA.AAAA.AAAA", id="four segments"),
        pytest.param(f"{HEAD}.AAAA.AAAA.AAAA.AAAA", id="a JWE"),
        pytest.param(f"{HEAD}.AA==.AAAA", id="padding"),
        pytest.param(f"{HEAD}.AAAA.AAAA=", id="padding at the end"),
        pytest.param(f"{HEAD}.AA+A.AAAA", id="the other alphabet, plus"),
        pytest.param(f"{HEAD}.AA/A.AAAA", id="the other alphabet, slash"),
        pytest.param(f"{HEAD}.AAAA.AAAA\n", id="a line feed at the end"),
        pytest.param(f" {HEAD}.AAAA.AAAA", id="a space"),
        pytest.param(f"{HEAD}.AA\u2005AA.AAAA", id="another space"),
        pytest.param(f"{HEAD}.AAA\u00aa.AAAA", id="a letter that is not ASCII"),
        pytest.param(f"{HEAD}.A\ud800AA.AAAA", id="half a character"),
        pytest.param(f"{HEAD}.AAAAA.AAAA", id="one character left over"),
        pytest.param(f"{HEAD}.AB.AAAA", id="surplus bits after one byte"),
        pytest.param(f"{HEAD}.AAAA.AAB", id="surplus bits after two bytes"),
        pytest.param(f"{HEAD[:-1]}.AAAA.AAAA", id="a cut header"),
        pytest.param(f"{b64(b'[]')}.AAAA.AAAA", id="a header that is a list"),
        pytest.param(f"{b64(b'{')}.AAAA.AAAA", id="a header that is no JSON"),
        pytest.param(f"{HEAD}.AAAA.{'A' * MAX_CHARACTERS}", id="too long"),
    ],
)
def test_refuses(token: str) -> None:
    """No second spelling, and nothing that has to be guessed (R42)."""
    assert split(token) is None


@settings(deadline=None)
@given(st.text(alphabet="ABQgwEIk04_-=+/ \n", max_size=6) | st.text(max_size=4))
def test_canonical_means_that_encoding_again_gives_the_same(text: str) -> None:
    """The quick proof of canonical form and the slow one agree."""
    found = base64url(text)
    try:
        decoded = base64.b64decode(
            text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except ValueError:
        assert found is None
    else:
        assert found == (decoded if b64(decoded) == text else None)


@settings(deadline=None)
@given(st.binary())
def test_every_byte_string_has_a_spelling(raw: bytes) -> None:
    """What RFC 4648 section 5 writes is read."""
    assert base64url(b64(raw)) == raw


@settings(deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="ey.JAe0-_", max_size=40))
def test_any_text_has_an_answer(text: str) -> None:
    """A token or None; never an exception."""
    assert split(text) is None or text.count(".") == 2


# --- encrypted --------------------------------------------------------------------

KEYED = b64(b'{"alg":"dir"}')


def test_an_encrypted_token_is_taken_apart() -> None:
    """RFC 7516 section 7.1: its header, and how long the rest is."""
    assert split_encrypted(f"{KEYED}.AAAA.AAA.AA.AAAAAAAA") == Encrypted(
        {"alg": "dir"}, 3, 2, 6
    )
    found = split_encrypted(f"{KEYED}..AAAA.AA.AAAA")
    assert found is not None
    assert found.encrypted_key == 0


@pytest.mark.parametrize(
    "token",
    [
        "",
        "....",
        f"{KEYED}.AAAA.AAAA.AAAA",
        f"{KEYED}.AAAA.AAAA.AAAA.AAAA.AAAA",
        f".{KEYED}.AAAA.AAAA.AAAA",
        f"{KEYED}...AAAA.AAAA",
        f"{KEYED}..AAAA..AAAA",
        f"{KEYED}..AAAA.AAAA.",
        f"{KEYED}..AAAA.AAAA.AAAA=",
        f"{KEYED}..AAAA.AAAA.AAAA\n",
        f"{KEYED}..AAAA.AA+A.AAAA",
        f"{KEYED}..AAAA.AAB.AAAA",
        f"{KEYED}..AAB.AAAA.AAAA",
        f"{KEYED}.AB.AAAA.AAAA.AAAA",
        f"{KEYED}..AAAA.AAAA.AAAAA",
        f"{b64(b'[]')}..AAAA.AAAA.AAAA",
        f"{b64(b'{')}..AAAA.AAAA.AAAA",
        f"{KEYED}..AAAA.{'A' * MAX_CHARACTERS}.AAAA",
    ],
)
def test_an_encrypted_token_has_one_spelling_too(token: str) -> None:
    """R42: the encrypted key may be empty, and nothing else."""
    assert split_encrypted(token) is None

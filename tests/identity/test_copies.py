"""gateway.identity.copies: claims in plain headers (R95)."""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.copies import MAX_COPIES, MAX_COPY, copies, encode
from gateway.model import Denial, Reason
from tests import vectors

NAMES = [(b"x-name", "name"), (b"x-tenant", "tenant")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("alice", b"alice"),
        ('Alice B. (ops) <a@b.example>; q="1"', b'Alice B. (ops) <a@b.example>; q="1"'),
        ("", b""),
        ("100%", b"100%25"),
        ("%41", b"%2541"),
        ("é", b"%C3%A9"),
        ("名", b"%E5%90%8D"),
        ("a\r\nX-Admin: 1", b"a%0D%0AX-Admin: 1"),
        ("a\x00\x7f\t", b"a%00%7F%09"),
        (" a b ", b"%20a b%20"),
        ("  ", b"%20%20"),
        ("a,b", b"a,b"),
        (True, b"true"),
        (False, b"false"),
        (7, b"7"),
        (-1.5, b"-1.5"),
        (["admin", "support"], b"admin,support"),
        (["a,b", " c", "é%"], b"a%2Cb,%20c,%C3%A9%25"),
        ([""], b""),
        (["", ""], b","),
        ("\ud800", None),
        (["a", "\ud800"], None),
        (math.nan, None),
        (math.inf, None),
        ({}, None),
        ({"a": "b"}, None),
        ([1], None),
        ([["a"]], None),
        (("a",), None),
        (b"a", None),
    ],
)
def test_one_rule_for_every_value(value: object, expected: bytes | None) -> None:
    """Printable ASCII as it is, all else percent-encoded; None: there is no form."""
    assert encode(value) == expected


@given(st.text())
def test_a_string_comes_back_by_percent_decoding(text: str) -> None:
    """The rule is reversible, and its output is one header line that HTTP keeps."""
    found = encode(text)

    assert found is not None
    assert re.fullmatch(rb"[ -~]*", found)
    assert found == found.strip()
    assert unquote(found.decode("ascii"), errors="strict") == text


@given(st.lists(st.text(), min_size=1))
def test_a_list_comes_back_item_by_item(items: list[str]) -> None:
    """Split at the comma, then decode: never the other way round."""
    found = encode(items)

    assert found is not None
    assert [unquote(item) for item in found.decode("ascii").split(",")] == items


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_no_value_at_all_makes_a_second_line(value: object) -> None:
    """Whatever a token says, a copy is printable ASCII or refused."""
    found = encode(value)

    assert found is None or re.fullmatch(rb"[ -~]*", found)


def test_naughty_strings_come_back_as_they_went() -> None:
    """Each of the big list, alone and as an item of a list."""
    strings = vectors.load("naughty-strings/blns.json")
    assert len(strings) > 500

    for text in strings:
        alone, listed = encode(text), encode([text, "x"])
        assert alone is not None
        assert listed is not None
        assert unquote(alone.decode()) == text
        assert [unquote(item) for item in listed.decode().split(",")] == [text, "x"]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"name": "a", "tenant": "t"}, ((b"x-name", b"a"), (b"x-tenant", b"t"))),
        ({"name": "a"}, ((b"x-name", b"a"),)),
        ({"name": "a", "tenant": None}, ((b"x-name", b"a"),)),
        ({"name": [], "tenant": ""}, ((b"x-tenant", b""),)),
        ({"other": "a"}, ()),
        ({"name": 0, "tenant": False}, ((b"x-name", b"0"), (b"x-tenant", b"false"))),
        ({"name": "x" * MAX_COPY}, ((b"x-name", b"x" * MAX_COPY),)),
        ({"name": "x" * (MAX_COPY + 1)}, Denial(Reason.CLAIM_INVALID, "name")),
        ({"name": "é" * 171}, Denial(Reason.CLAIM_INVALID, "name")),
        ({"name": "a", "tenant": {}}, Denial(Reason.CLAIM_INVALID, "tenant")),
    ],
)
def test_a_claim_is_copied_left_out_or_refused(
    claims: dict[str, Any], expected: object
) -> None:
    """Absent means no header; what can't be said refuses the request by its name."""
    assert copies(claims, NAMES) == expected


def test_all_copies_together_are_bounded() -> None:
    """4 KiB fit; one byte more refuses the request."""
    names = [(f"x-{n}".encode(), f"c{n}") for n in range(5)]
    claims = {f"c{n}": "x" * MAX_COPY for n in range(4)}

    assert isinstance(copies(claims, names), tuple)
    assert 4 * MAX_COPY == MAX_COPIES
    assert copies({**claims, "c4": "x"}, names) == Denial(Reason.CLAIM_INVALID, "c4")

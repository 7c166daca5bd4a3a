"""gateway.tokens.tickets: what is kept opens for its holder, for one request."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Credential
from gateway.tokens import tickets
from gateway.tokens.tickets import (
    TICKET_BYTES,
    name_of,
    request_of,
    seal,
    ticket_of,
    unseal,
)
from gateway.wire.credential import extract
from tests.fakes import head_of

TICKET = ticket_of(bytes(range(TICKET_BYTES)))
TOKEN = Credential("bearer", "a.b.c")
REQUEST = request_of(head_of(b"/orders/7?a=1"))
KEPT = seal(TICKET, TOKEN, REQUEST)


@given(st.binary(min_size=TICKET_BYTES, max_size=TICKET_BYTES), st.text("abc.-_~+/="))
def test_what_was_sealed_opens_for_its_ticket(random: bytes, token: str) -> None:
    """Whatever the token; and a ticket is one to whoever looks for it in a query."""
    ticket = ticket_of(random)
    credential = Credential("bearer", token)

    assert unseal(ticket, seal(ticket, credential, REQUEST), REQUEST) == credential
    head = head_of(b"/?ticket=" + ticket.encode())
    found = extract(
        head.section, head.query, kinds=frozenset({"bearer", "ticket"}), max_token=9
    )
    assert found == Credential("ticket", ticket)


@pytest.mark.parametrize(
    "request_",
    [
        request_of(head_of(b"/orders/7?a=1", method="HEAD")),
        request_of(head_of(b"/orders/7?a=2")),
        request_of(head_of(b"/orders/7")),
        request_of(head_of(b"/orders/%37?a=1")),
        request_of(head_of(b"/orders/7?a=1", host=b"other.example")),
    ],
)
def test_it_opens_for_no_other_request(request_: bytes) -> None:
    """Another method, host, path or query; compared as bytes (R10)."""
    assert unseal(TICKET, KEPT, REQUEST) == TOKEN
    assert unseal(TICKET, KEPT, request_) is None


def test_it_opens_for_no_other_ticket() -> None:
    """Nor does its name say anything about it."""
    other = ticket_of(bytes(TICKET_BYTES))

    assert unseal(other, KEPT, REQUEST) is None
    assert len({name_of(TICKET), name_of(other)}) == 2


def test_what_is_kept_holds_no_secret() -> None:
    """Neither the token nor the ticket can be read in a store (R53)."""
    for kept in (KEPT, name_of(TICKET)):
        assert b"a.b.c" not in kept
        assert TICKET.encode() not in kept


@given(st.integers(0, len(KEPT) - 1), st.integers(1, 255))
def test_a_bit_that_was_changed_opens_nothing(at: int, bits: int) -> None:
    """A tampered value is a refusal, not an error (R53)."""
    changed = KEPT[:at] + bytes([KEPT[at] ^ bits]) + KEPT[at + 1 :]

    assert unseal(TICKET, changed, REQUEST) is None


@given(st.binary(max_size=64) | st.binary(max_size=64).map(b"1".__add__))
def test_anything_else_opens_nothing(value: bytes) -> None:
    """Also what is too short for any cipher."""
    assert unseal(TICKET, value, REQUEST) is None


@pytest.mark.parametrize("text", [b"ticket\0abc", b"basic\0abc", b""])
def test_a_kind_that_is_none_is_no_credential(text: bytes) -> None:
    """A later version may seal what this one does not know; no ticket is for one."""
    cipher: AESGCM = tickets._cipher(TICKET)
    kept = b"1" + cipher.encrypt(bytes(12), text, b"1" + REQUEST)

    assert unseal(TICKET, kept, REQUEST) is None

"""gateway.wire.client_certificate: one digest, or a refusal, of what a proxy says."""

from __future__ import annotations

import base64
from hashlib import sha256
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Denial, Reason
from gateway.wire.client_certificate import (
    Field,
    Told,
    byte_sequence,
    told_certificate,
)
from tests import vectors
from tests.certificates import Authority
from tests.fakes import fields

CA = Authority()
ALICE, BOB = CA.sign("alice"), CA.sign("bob")
DIGEST = sha256(ALICE.der).digest()
HASH, OTHER = DIGEST.hex(), sha256(BOB.der).hexdigest()
PEM = quote(ALICE.pem.decode(), safe="")
WRONG = Denial(Reason.BINDING_WRONG, "certificate field")


def told(value: str, field: Field = "xfcc") -> bytes | Denial | None:
    name = "client-cert" if field == "client-cert" else "x-forwarded-client-cert"
    found = told_certificate(fields((name, value)), field)
    return found.digest if isinstance(found, Told) else found


def b64(der: bytes) -> str:
    return base64.b64encode(der).decode()


def test_no_field_is_no_certificate() -> None:
    """Nor is the other one."""
    assert told_certificate((), "xfcc") is None
    assert told_certificate((), "client-cert") is None
    assert told_certificate(fields(("client-cert", "x")), "xfcc") is None
    assert told_certificate(fields(("client-cert-chain", "x")), "client-cert") is None


def test_a_field_twice_is_none_at_all() -> None:
    """Which of them is the proxy's?"""
    pair = ("x-forwarded-client-cert", f"Hash={HASH}")
    assert told_certificate(fields(pair, pair), "xfcc") == WRONG
    pair = ("client-cert", f":{b64(ALICE.der)}:")
    assert told_certificate(fields(pair, pair), "client-cert") == WRONG


def test_client_cert_is_a_byte_sequence() -> None:
    """RFC 9440 section 2.2."""
    assert told(f":{b64(ALICE.der)}:", "client-cert") == DIGEST
    for value in (
        *("", "::", ":", b64(ALICE.der), f":{b64(ALICE.der)}", f":{b64(ALICE.der)}:x"),
        f":{b64(ALICE.der)}:;a=1",
        f":{b64(ALICE.der)}:, :{b64(ALICE.der)}:",
        f'"{b64(ALICE.der)}"',
        f":{base64.urlsafe_b64encode(ALICE.der + b'??>').decode()}:",
    ):
        assert told(value, "client-cert") == WRONG, value


def test_a_byte_sequence_has_one_spelling() -> None:
    """Padded, and no bit is set behind the last byte."""
    assert byte_sequence(b" :YQ==: ") == b"a"
    for value in (b":YQ=:", b":YQ:", b":YR==:", b":Y===:", b":====:"):
        assert byte_sequence(value) is None


def test_byte_sequences_are_read_as_the_vectors_say() -> None:
    """Where they leave a choice, as strictly as they let."""
    for case in vectors.load("structured-fields/binary.json"):
        (raw,) = case["raw"]
        found = byte_sequence(raw.encode())
        if case.get("must_fail") or case.get("can_fail"):
            assert found is None, case["name"]
        else:
            expected = case["expected"][0]["value"]
            assert found == base64.b32decode(expected), case["name"]


@pytest.mark.parametrize(
    "value",
    [
        f"Hash={HASH}",
        f"hash={HASH.upper()}",
        f'Cert="{PEM}"',
        f'By=spiffe://a/b;Hash={HASH};Cert="{PEM}";Chain="{PEM}{PEM}"',
        f'Hash={HASH};Subject="CN=a,O=\\"b; c\\"";URI=spiffe://x/y;DNS=a;DNS=b',
        f'Hash="{HASH}";Subject=""',
        f"Hash={HASH}; URI=",
    ],
)
def test_an_element_tells_by_hash_or_certificate(value: str) -> None:
    """Both, where both are there; what else it says is not looked at."""
    assert told(value) == DIGEST
    assert told(value, "xfcc-last") == DIGEST
    assert told(f"Hash={OTHER},{value}", "xfcc-last") == DIGEST


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        f"Hash={HASH},",
        f",Hash={HASH}",
        f"Hash={HASH};",
        f"Hash={HASH[:-1]}",
        f"Hash={HASH}0",
        f"Hash=0x{HASH[2:]}",
        "Hash=",
        "Subject=a",
        f"Hash={HASH};Hash={HASH}",
        f'Hash={OTHER};Cert="{PEM}"',
        f'Cert="{PEM}";Cert="{PEM}"',
        'Cert=""',
        f'Cert="{quote(PEM, safe="")}"',
        f'Cert="{PEM}{PEM}"',
        f'Cert="{PEM.replace("%0A", "")}"',
        f'Cert="{PEM.replace("%0A", "+")}"',
        f'Cert="{b64(ALICE.der)}"',
        f'Cert="{PEM[:-40]}"',
        f'Cert="{PEM}',
        f'Hash={HASH}"',
        f'Hash={HASH};Subject="a"b"',
        f"Hash={HASH};URI=spiffe://a=b",
        f"Hash={HASH};URI=a\x00b",
        f"Hash={HASH};URI=a\x7fb",
        f'Hash={HASH};Subject="a\x00"',
        f'Hash={HASH};Subject="a\r\nb"',
        f'Hash={HASH};Subject="caf\xe9"',
        f'Hash={HASH};Subject="a\\',
        f"={HASH}",
        f"Hash {HASH}",
        f"X-Hash={HASH}",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(value: str) -> None:
    """Or in none; NUL and line ends from names in certificates too."""
    for field in ("xfcc", "xfcc-last"):
        header = ((b"x-forwarded-client-cert", value.encode("latin-1")),)
        assert told_certificate(header, field) == WRONG


def test_of_several_elements_the_position_has_to_be_named() -> None:
    """A name in a certificate may hold a comma: whose is the second element?"""
    value = f"Hash={HASH};URI=spiffe://x,Hash={OTHER}"

    assert told(value) == WRONG
    assert told(value, "xfcc-last") == bytes.fromhex(OTHER)


@given(
    st.text(st.sampled_from('Hashcert=";,\\:%20-\x00\xe9 aF')),
    st.sampled_from(["xfcc", "xfcc-last", "client-cert"]),
)
def test_any_bytes_are_a_digest_or_a_refusal(value: str, field: Field) -> None:
    """Never a failure of ours."""
    name = b"client-cert" if field == "client-cert" else b"x-forwarded-client-cert"
    found = told_certificate(((name, value.encode("latin-1")),), field)

    assert isinstance(found, Denial) or (found is not None and len(found.digest) == 32)


def test_the_certificate_is_there_where_it_was_told() -> None:
    """And not where its digest alone was."""
    by_hash = told_certificate(
        fields(("x-forwarded-client-cert", f"Hash={HASH}")), "xfcc"
    )
    whole = (
        (f'Hash={HASH};Cert="{PEM}"', "xfcc"),
        (f":{b64(ALICE.der)}:", "client-cert"),
    )

    assert by_hash == Told(DIGEST, None)
    for value, field in whole:
        name = "client-cert" if field == "client-cert" else "x-forwarded-client-cert"
        found = told_certificate(fields((name, value)), field)  # type: ignore[arg-type]
        assert found == Told(DIGEST, ALICE.der)

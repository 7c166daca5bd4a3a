"""gateway.tokens.confirmation: what a token says that it is bound to."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Binding
from gateway.tokens.confirmation import MAX_NETWORKS, BindingRules, binding_of

DIGEST = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
RULES = BindingRules(dpop=True, address_claim="ip")


def networks(*texts: str) -> tuple[Any, ...]:
    return tuple(map(ip_network, texts))


def test_a_token_may_be_bound_to_nothing() -> None:
    """An address in a claim that nobody has named is no binding."""
    assert binding_of({}, RULES) is None
    assert binding_of({"ip": "192.0.2.1"}, BindingRules(dpop=True)) is None
    assert binding_of({"": "192.0.2.1"}, BindingRules(dpop=True)) is None


def test_it_may_be_bound_to_several_things() -> None:
    """All of which have to be proven then."""
    claims = {"cnf": {"x5t#S256": DIGEST, "jkt": DIGEST}, "ip": "192.0.2.1"}

    binding = binding_of(claims, RULES)

    assert binding == Binding(DIGEST, DIGEST, networks("192.0.2.1/32"))
    assert binding.kinds == {"ip", "mtls", "dpop"}
    assert Binding(certificate=DIGEST).kinds == {"mtls"}
    assert Binding().kinds == frozenset()


@pytest.mark.parametrize(
    "confirmed",
    [
        None,
        {},
        [],
        "x",
        DIGEST,
        {"jkt": None},
        {"jkt": ""},
        {"jkt": DIGEST[:-1]},
        {"jkt": DIGEST[:-1] + "1"},
        {"jkt": DIGEST + "="},
        {"jkt": DIGEST + "AA"},
        {"jkt": [DIGEST]},
        {"x5t#S256": DIGEST.replace("A", "+")},
        {"x5t#S256": DIGEST, "jkt": "x"},
        {"x5t": DIGEST},
        {"jwk": {}},
        {"kid": "x"},
        {"jkt": DIGEST, "kid": "x"},
        {"JKT": DIGEST},
    ],
)
def test_what_nobody_here_can_prove_makes_the_claim_wrong(confirmed: object) -> None:
    """To ignore it would take the token for less bound than it is (R80)."""
    assert binding_of({"cnf": confirmed}, RULES) == "cnf"


def test_a_key_is_of_use_only_where_proofs_can_be_compared() -> None:
    """Without a public_url there is no DPoP."""
    rules = BindingRules(dpop=False)

    assert binding_of({"cnf": {"jkt": DIGEST}}, rules) == "cnf"
    assert binding_of({"cnf": {"jkt": DIGEST, "x5t#S256": DIGEST}}, rules) == "cnf"
    assert binding_of({"cnf": {"x5t#S256": DIGEST}}, rules) == Binding(DIGEST)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("192.0.2.7", ["192.0.2.7/32"]),
        ("::ffff:192.0.2.7", ["192.0.2.7/32"]),
        ("192.0.2.0/24", ["192.0.2.0/24"]),
        ("::ffff:192.0.2.0/120", ["192.0.2.0/24"]),
        ("::/0", ["::/0"]),
        ("2001:db8:0:1:2:3:4:5", ["2001:db8:0:1::/64"]),
        ("2001:DB8::1", ["2001:db8::/64"]),
        ("2001:db8::1/128", ["2001:db8::1/128"]),
        (["192.0.2.7", "2001:db8::/32"], ["192.0.2.7/32", "2001:db8::/32"]),
    ],
)
def test_addresses_and_networks(value: object, found: list[str]) -> None:
    """An IPv6 host has its /64 (RFC 6177); what is mapped is what it maps (R82)."""
    assert binding_of({"ip": value}, RULES) == Binding(networks=networks(*found))


def test_how_much_of_an_address_counts_is_the_issuers_to_say() -> None:
    """A network is as wide as it says itself."""
    rules = BindingRules(address_claim="ip", subnet_v4=24, subnet_v6=48)
    claims = {"ip": ["192.0.2.7", "2001:db8:1:2::3", "10.1.2.3/32"]}

    found = networks("192.0.2.0/24", "2001:db8:1::/48", "10.1.2.3/32")
    assert binding_of(claims, rules) == Binding(networks=found)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        [],
        {},
        {"192.0.2.7": 1},
        [""],
        ["192.0.2.7", 7],
        [["192.0.2.7"]],
        "localhost",
        "192.0.2.7 ",
        "192.0.2.7,192.0.2.8",
        "192.0.2.7:80",
        "192.0.2.256",
        "192.0.2.07",
        "192.0.2",
        "192.0.2.7/24",
        "192.0.2.0/33",
        "192.0.2.0/255.255.255.0/",
        "[2001:db8::1]",
        "fe80::1%eth0",
        "1" * 65,
        ["192.0.2.7"] * (MAX_NETWORKS + 1),
    ],
)
def test_what_is_no_address_makes_the_claim_wrong(value: object) -> None:
    """An issuer that says something odd has not said "from anywhere"."""
    assert binding_of({"ip": value}, RULES) == "address"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_claim_at_all_is_a_binding_or_wrong(value: Any) -> None:
    """And never nothing."""
    assert binding_of({"cnf": value}, RULES) is not None
    assert binding_of({"ip": value}, RULES) is not None

"""gateway.tokens.binding: whoever presents a bound token has to prove it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Binding, Credential, Denial, Peer, Principal, Reason, Route
from gateway.tokens.binding import Bindings, is_believed
from gateway.tokens.dpop import Proof, Proofs
from gateway.wire.request import peer_of
from tests import vectors
from tests.fakes import ALICE, ORDERS, head_of
from tests.tokens import make
from tests.tokens.proofs import jkt_of, proof_of

NOW = 1_562_262_620.0
KEY = make.key("ES256", "client")
DIGEST = sha256(b"certificate").digest()
PRINT = make.b64(DIGEST)
XFCC = (b"x-forwarded-client-cert", b"Hash=" + DIGEST.hex().encode())
BY_PROOF = Bindings(proofs=Proofs("https://api.example"))
ALGS = ("ES256", "EdDSA", "PS256", "RS256")
HOME = Binding(networks=(ip_network("192.0.2.0/30"), ip_network("2001:db8::/64")))


def check(
    binding: Binding | None,
    *headers: tuple[bytes, bytes],
    bindings: Bindings = BY_PROOF,
    route: Route = ORDERS,
    proof: bytes | None = None,
    client: str = "192.0.2.1",
    peer: Peer | None = None,
) -> Proof | Denial | None:
    principal: Principal = replace(ALICE, binding=binding)
    head = head_of(b"/orders/7", *headers)._replace(client=client)
    if peer is not None:
        head = head._replace(peer=peer)
    credential = Credential("bearer", "good", proof)
    return bindings.check(principal, route, credential, head, NOW)


def proof(**changes: Any) -> bytes:
    uri = "https://api.example/orders/7"
    return proof_of(KEY, "good", "GET", uri, NOW, **changes).encode()


def test_what_is_bound_to_nothing_is_anybodys() -> None:
    """Unless it comes by the scheme DPoP, which says that it is bound to a key."""
    assert check(None) is None
    assert check(None, proof=proof()) == Denial(Reason.DPOP_KEY, "cnf")
    assert check(None, proof=b"") == Denial(Reason.DPOP_KEY, "cnf")
    assert check(HOME, proof=proof()) == Denial(Reason.DPOP_KEY, "cnf")


@pytest.mark.parametrize(
    ("asked", "binding", "reason"),
    [
        ({"ip"}, HOME, None),
        ({"ip", "mtls"}, HOME, None),
        ({"mtls"}, HOME, Reason.BINDING_MISSING),
        ({"mtls", "dpop"}, None, Reason.BINDING_MISSING),
        ({"dpop"}, Binding(certificate=PRINT), Reason.BINDING_MISSING),
    ],
)
def test_a_route_may_ask_for_any_of_several(
    asked: set[str], binding: Binding | None, reason: Reason | None
) -> None:
    """One of them is enough; it tells what proofs are signed with."""
    route = replace(ORDERS, binding=frozenset(asked))

    found = check(binding, route=route)

    if reason is None:
        assert found is None
    else:
        assert found == Denial(reason, needed=ALGS if "dpop" in asked else ())


def test_only_who_takes_proofs_names_algorithms() -> None:
    """Nobody is sent after what could not be had."""
    route = replace(ORDERS, binding=frozenset({"dpop"}))

    assert BY_PROOF.algorithms(route) == ALGS
    assert BY_PROOF.algorithms(ORDERS) == ()
    assert Bindings().algorithms(route) == ()


@pytest.mark.parametrize(
    ("client", "outcome"),
    [
        ("192.0.2.0", None),
        ("192.0.2.3", None),
        ("2001:db8::ffff", None),
        ("192.0.2.4", Denial(Reason.BINDING_WRONG, "ip")),
        ("2001:db8:0:1::", Denial(Reason.BINDING_WRONG, "ip")),
        ("", Denial(Reason.BINDING_MISSING, "ip")),
    ],
)
def test_a_token_for_an_address_is_of_use_there(
    client: str, outcome: Denial | None
) -> None:
    """The client's, as R17 has it; a Unix socket's other end has none."""
    assert check(HOME, client=client) == outcome


@pytest.mark.parametrize(
    ("shown", "outcome"),
    [
        (PRINT, None),
        (None, Denial(Reason.BINDING_MISSING, "mtls")),
        (make.b64(bytes(32)), Denial(Reason.BINDING_WRONG, "mtls")),
    ],
)
def test_a_token_for_a_certificate_is_of_use_with_it(
    shown: str | None, outcome: Denial | None
) -> None:
    """What our own TLS has seen; fields of any kind are not looked at."""
    peer = Peer("127.0.0.1", trusted=True, certificate=shown)

    assert check(Binding(certificate=PRINT), XFCC, peer=peer) == outcome


def test_the_thumbprint_is_that_of_rfc_8705() -> None:
    """Appendix A, from a proxy that tells it by certificate or by hash."""
    found = vectors.load("rfc-snippets/pkce_thumbprint_mtls.json")
    found = found["rfc8705_appendix_a"]
    binding = Binding(certificate=found["x5t#S256"])
    lines = found["cert_pem"].split("\n")
    value = f":{''.join(lines[1:-1])}:".encode()
    bindings = Bindings("client-cert")
    peer = Peer("127.0.0.1", trusted=True)

    assert check(binding, (b"client-cert", value), bindings=bindings, peer=peer) is None


PROXIES = (ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"), ip_network("::1"))


@pytest.mark.parametrize(
    ("address", "certificate", "believed"),
    [
        ("127.0.0.1", None, True),
        ("::ffff:127.0.0.1", None, True),
        ("::1", None, True),
        ("10.0.0.1", "x", True),
        ("10.0.0.1", None, False),
        ("192.0.2.1", "x", False),
        ("192.0.2.1", None, False),
        ("/run/gw.sock", "x", False),
    ],
)
def test_who_is_believed_about_certificates(
    address: str, certificate: str | None, believed: bool
) -> None:
    """A trusted proxy that has shown who it is; everybody else has shown none (R81)."""
    peer = replace(peer_of(address, PROXIES), certificate=certificate)
    binding = Binding(certificate=PRINT)

    found = check(binding, XFCC, bindings=Bindings("xfcc"), peer=peer)

    assert is_believed(peer) is believed
    missing = Denial(Reason.BINDING_MISSING, "mtls")
    assert found == (None if believed else missing)


def test_a_trusted_proxy_that_tells_nothing_or_nonsense() -> None:
    """Its own certificate is not its client's."""
    peer = Peer("127.0.0.1", trusted=True, certificate=PRINT)
    binding = Binding(certificate=PRINT)
    xfcc = Bindings("xfcc")

    missing = check(binding, bindings=xfcc, peer=peer)
    nonsense = check(binding, (XFCC[0], b"x"), bindings=xfcc, peer=peer)

    assert missing == Denial(Reason.BINDING_MISSING, "mtls")
    assert nonsense == Denial(Reason.BINDING_WRONG, "certificate field")


def test_a_token_for_a_key_is_of_use_with_a_proof() -> None:
    """Which is still to be used up."""
    binding = Binding(key=jkt_of(KEY))

    found = check(binding, proof=proof())

    assert isinstance(found, Proof)
    assert found.issued_at == NOW
    for presented, at in ((None, "scheme"), (b"", "proof")):
        missing = Denial(Reason.DPOP_MISSING, at, ALGS)
        assert check(binding, proof=presented) == missing
    other = Binding(key=make.b64(bytes(32)))
    assert check(other, proof=proof()) == Denial(Reason.DPOP_KEY, "jkt", ALGS)
    nobody = Bindings()
    assert check(binding, proof=proof(), bindings=nobody) == Denial(Reason.DPOP_MISSING)


def test_all_that_it_is_bound_to_has_to_be_proven() -> None:
    """Each alone is not enough."""
    binding = Binding(PRINT, jkt_of(KEY), HOME.networks)
    shown = Peer("192.0.2.1", certificate=PRINT)

    assert isinstance(check(binding, proof=proof(), peer=shown), Proof)
    for given_, reason in (
        ({"proof": proof()}, Reason.BINDING_MISSING),
        ({"peer": shown}, Reason.DPOP_MISSING),
        (
            {"proof": proof(), "peer": shown, "client": "203.0.113.1"},
            Reason.BINDING_WRONG,
        ),
    ):
        found = check(binding, **given_)
        assert isinstance(found, Denial)
        assert found.reason is reason


def test_a_certificate_that_was_shown_or_told_whole_is_a_credential() -> None:
    """By whoever is believed; its digest alone is none."""
    shown = Peer("192.0.2.1", certificate="x", shown=b"der")
    proxy = Peer("127.0.0.1", trusted=True, certificate="x", shown=b"of the proxy")
    field = (b"client-cert", b":ZGVy:")
    found = Credential("certificate", "x509:ZGVy")

    def credential(source: Any, peer: Peer, *headers: tuple[bytes, bytes]) -> object:
        head = head_of(b"/orders/7", *headers)._replace(peer=peer)
        return Bindings(source).credential(head)

    assert credential("tls", shown) == found
    assert credential("tls", Peer("192.0.2.1"), field) is None
    assert credential("client-cert", proxy, field) == found
    assert credential("client-cert", proxy) is None
    assert credential("client-cert", shown, field) is None
    assert credential("xfcc", proxy, XFCC) is None
    wrong = Denial(Reason.CERTIFICATE_INVALID, "field")
    assert credential("xfcc", proxy, (XFCC[0], b"x")) == wrong


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_in_any_field_are_a_refusal(
    presented: bytes, client_cert: bytes, xfcc: bytes
) -> None:
    """And no failure of ours (I5)."""
    peer = Peer("127.0.0.1", trusted=True)
    for source in ("client-cert", "xfcc", "xfcc-last"):
        found = check(
            Binding(PRINT, jkt_of(KEY)),
            (b"client-cert", client_cert),
            (b"x-forwarded-client-cert", xfcc),
            proof=presented,
            bindings=Bindings(source, BY_PROOF.proofs),
            peer=peer,
        )
        assert isinstance(found, Denial)
    assert isinstance(check(Binding(key=jkt_of(KEY)), proof=presented), Denial)

"""Is a bound token presented by whom it is bound to?

Asked on every request, whatever the route says: a token that is bound is worth nothing
to whoever took it (R80-R82). A route may ask besides that a token be bound at all, to
one thing of several.

A certificate is what the client has shown to our own TLS, or what the field of a proxy
tells. A proxy counts if it is one of [server].trusted_proxies, and has shown that it
is: by a certificate of its own, or by being on this host (R81).

Imports: gateway.model, gateway.tokens.client_certificates, gateway.tokens.dpop,
gateway.tokens.thumbprints, gateway.wire.client_certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from gateway.model import (
    Binding,
    Credential,
    Denial,
    Peer,
    Principal,
    Reason,
    RequestHead,
    Route,
)
from gateway.tokens.client_certificates import text_of
from gateway.tokens.dpop import Proof, Proofs
from gateway.tokens.thumbprints import b64url
from gateway.wire.client_certificate import Field, Told, told_certificate

CertificateSource = Literal["tls"] | Field

UNBOUND = Binding()


@dataclass(frozen=True, slots=True)
class Bindings:
    """Checks bindings, in the ways that one configuration knows."""

    certificate: CertificateSource = "tls"
    proofs: Proofs | None = None  # None: there is no DPoP

    def check(
        self,
        principal: Principal,
        route: Route,
        credential: Credential,
        head: RequestHead,
        now: float,
    ) -> Proof | Denial | None:
        """Return the proof that is still to be used up, or None; or why not.

        Args:
            principal: Whose token it is.
            route: What it asks for.
            credential: As presented.
            head: Of the request.
            now: Unix seconds.
        """
        missing = self.missing(principal, route)
        if missing is not None:
            return missing
        binding = principal.binding or UNBOUND
        if binding.networks is not None:
            address = _address(head.client)
            if address is None:  # a Unix socket's other end has none
                return Denial(Reason.BINDING_MISSING, "ip")
            if not any(address in network for network in binding.networks):
                return Denial(Reason.BINDING_WRONG, "ip")
        if binding.certificate is not None:
            shown = self._shown(head)
            if isinstance(shown, Denial):
                return shown
            if shown is None:
                return Denial(Reason.BINDING_MISSING, "mtls")
            if shown != binding.certificate:
                return Denial(Reason.BINDING_WRONG, "mtls")
        if binding.key is not None:
            return self._prove(binding.key, credential, head, now)
        if credential.proof is not None:
            # As a token of the scheme DPoP it claims to be bound to a key.
            return Denial(Reason.DPOP_KEY, "cnf")
        return None

    def missing(self, principal: Principal, route: Route) -> Denial | None:
        """Return why *route* does not take a token that is bound to so little."""
        binding = principal.binding or UNBOUND
        if route.binding is not None and route.binding.isdisjoint(binding.kinds):
            return Denial(Reason.BINDING_MISSING, needed=self.algorithms(route))
        return None

    def algorithms(self, route: Route) -> tuple[str, ...]:
        """Return what a proof may be signed with; none where *route* asks for none."""
        if self.proofs is None or route.binding is None or "dpop" not in route.binding:
            return ()
        return self.proofs.names

    def _prove(
        self, key: str, credential: Credential, head: RequestHead, now: float
    ) -> Proof | Denial:
        if self.proofs is None:
            return Denial(Reason.DPOP_MISSING)
        if not credential.proof:
            at = "scheme" if credential.proof is None else "proof"
            return Denial(Reason.DPOP_MISSING, at, self.proofs.names)
        return self.proofs.read(
            credential.proof,
            token=credential.token,
            key=key,
            method=head.method,
            path=head.path,
            now=now,
        )

    def _shown(self, head: RequestHead) -> str | Denial | None:
        """Return `x5t#S256` of the client's certificate, or None."""
        if self.certificate == "tls":
            return head.peer.certificate
        if not is_believed(head.peer):
            return None
        told = told_certificate(head.headers, self.certificate)
        return b64url(told.digest) if isinstance(told, Told) else told

    def credential(self, head: RequestHead) -> Credential | Denial | None:
        """Return the client's certificate as what it presents, or None."""
        shown: bytes | None = None
        if self.certificate == "tls":
            shown = head.peer.shown
        elif is_believed(head.peer):
            told = told_certificate(head.headers, self.certificate)
            if isinstance(told, Denial):
                return Denial(Reason.CERTIFICATE_INVALID, "field")
            shown = None if told is None else told.certificate
        return None if shown is None else Credential("certificate", text_of(shown))


def is_believed(peer: Peer) -> bool:
    """Tell whether *peer* may tell what certificate its client has shown."""
    if not peer.trusted:
        return False
    address = _address(peer.address)
    is_here = address is not None and address.is_loopback
    return is_here or peer.certificate is not None


@lru_cache(maxsize=1024)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that the reader of heads has written as *text*."""
    return ip_address(text) if text else None

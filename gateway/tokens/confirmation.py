"""What a token says that it is bound to: `cnf`, and an address if its issuer names one.

RFC 7800 section 3.1 lets a reader ignore members of `cnf` that it doesn't know. It
would then take a token for less bound than it is, so that a member that nobody here can
prove makes the claim wrong (R80).

Imports: gateway.model, gateway.tokens.compact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from gateway.model import Binding
from gateway.tokens.compact import base64url

Network = IPv4Network | IPv6Network

_CERTIFICATE = "x5t#S256"  # RFC 8705 section 3.1
_KEY = "jkt"  # RFC 9449 section 6.1
_DIGEST = 32  # bytes of a SHA-256
MAX_NETWORKS = 16  # of one token
_MAX_NETWORK = 64  # characters; "45 of an IPv6 address"/128 and some
_MAPPED = 96  # bits before the IPv4 address in an IPv4-mapped one


@dataclass(frozen=True, slots=True)
class BindingRules:
    """How an issuer binds its tokens."""

    # Whether there is a URL to compare proofs with; without one no DPoP-bound token
    # counts.
    dpop: bool = False
    address_claim: str = ""  # "": it names no address
    subnet_v4: int = 32  # bits that count of a single address
    subnet_v6: int = 64
    required: frozenset[str] | None = None  # its tokens are bound to one of these


BY_DEFAULT = BindingRules()


def binding_of(claims: Mapping[str, Any], rules: BindingRules) -> Binding | str | None:
    """Return what *claims* are bound to, None for nothing; or which claim is wrong."""
    certificate = key = networks = None
    if "cnf" in claims:
        confirmed = claims["cnf"]
        known = {_CERTIFICATE, _KEY} if rules.dpop else {_CERTIFICATE}
        if not isinstance(confirmed, dict) or not confirmed or confirmed.keys() - known:
            return "cnf"
        if not all(map(_is_digest, confirmed.values())):
            return "cnf"
        certificate, key = confirmed.get(_CERTIFICATE), confirmed.get(_KEY)
    if rules.address_claim in claims and rules.address_claim:
        networks = _networks(claims[rules.address_claim], rules)
        if networks is None:
            return "address"
    elif "cnf" not in claims:
        return None
    return Binding(certificate, key, networks)


def _is_digest(value: object) -> bool:
    raw = base64url(value) if isinstance(value, str) else None
    return raw is not None and len(raw) == _DIGEST


def _networks(value: object, rules: BindingRules) -> tuple[Network, ...] | None:
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not 0 < len(named) <= MAX_NETWORKS:
        return None
    found = []
    for each in named:
        network = (
            _network(each, rules.subnet_v4, rules.subnet_v6)
            if isinstance(each, str) and len(each) <= _MAX_NETWORK
            else None
        )
        if network is None:
            return None
        found.append(network)
    return tuple(found)


@lru_cache(maxsize=1024)
def _network(text: str, v4: int, v6: int) -> Network | None:
    """Return the network that *text*, an address or a network, stands for."""
    if "%" in text:  # a zone says which interface, not who
        return None
    try:
        if "/" not in text:
            address = ip_address(text)
            if isinstance(address, IPv6Address):
                address = address.ipv4_mapped or address
            bits = v4 if address.version == 4 else v6  # noqa: PLR2004
            return ip_network((address, bits), strict=False)
        network = ip_network(text)
    except ValueError:
        return None
    if isinstance(network, IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= _MAPPED:
            return IPv4Network((mapped, network.prefixlen - _MAPPED))
    return network

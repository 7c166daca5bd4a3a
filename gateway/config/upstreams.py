"""[upstream.x]: the backends, and services whose upstream is a URL.

Imports: the standard library, gateway.config.findings, gateway.config.gateway_file,
gateway.config.identities, gateway.config.settings, gateway.config.syntax,
gateway.model, gateway.policy.spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.config import gateway_file as written
from gateway.config import syntax
from gateway.config.findings import Findings
from gateway.config.identities import build_own_identity
from gateway.config.settings import Address, Identity, Timeouts, Upstream
from gateway.model import SELF
from gateway.policy.spec import KeyPath


@dataclass(frozen=True, slots=True)
class Target:
    """What the URL of an upstream says."""

    address: Address
    authority: str


def parse_upstream(text: str) -> Target:
    """Return where the upstream URL *text* leads.

    Raises:
        ValueError: It is none, or not yet; the message doesn't repeat it.
    """
    if text.startswith("unix:"):
        return Target(syntax.address(text), "localhost")
    url = syntax.origin(text)
    if url.scheme == "https":
        raise ValueError("TLS to upstreams is not there yet: use http:// or unix:")
    return Target(Address(url.host, url.port), url.authority)


def build_upstreams(
    tables: Mapping[str, written.Upstream],
    identity: Identity | None,
    found: Findings,
) -> dict[str, Upstream]:
    """Build every [upstream.x] that has no problem."""
    upstreams = {}
    for name, table in tables.items():
        at: KeyPath = ("upstream", name)
        before = len(found.problems)
        if name == SELF:
            found.problem(at, f'"{SELF}" is the gateway itself', key=True)
        if len(table.urls) > 1:
            found.problem(
                (*at, "urls", 1), "one URL for now: balancing is not there yet"
            )
        where = (*at, "urls", 0)
        target = found.parsed(where, parse_upstream, table.urls[0])
        if table.host not in ("client", "upstream"):
            found.parsed((*at, "host"), _host_field, table.host)
        own = build_own_identity(at, table.identity, identity, found)
        if len(found.problems) > before or target is None:
            continue
        weaken_upstream(name, target, where, found)
        passes = table.credentials_to_upstream == "pass"
        if passes:
            found.weak(
                (*at, "credentials_to_upstream"), f"credentials go to upstream {name}"
            )
        upstreams[name] = Upstream(
            name=name,
            address=found.absolute(target.address, where),
            authority=target.authority,
            host=table.host,
            timeout=Timeouts(
                connect=table.timeout.connect,
                send_idle=table.timeout.send_idle,
                first_byte=table.timeout.first_byte,
                idle=table.timeout.idle,
                total=table.timeout.total,
            ),
            pass_credentials=passes,
            keep_alive=table.keep_alive,
            max_idle=table.max_idle,
            identity=own,
        )
    return upstreams


def weaken_upstream(name: str, target: Target, at: KeyPath, found: Findings) -> None:
    """Note an upstream that is reached over a network in plaintext."""
    if not target.address.path and not syntax.is_loopback(target.address.host):
        found.weak(at, f"plaintext upstream {name}")


def _host_field(text: str) -> str:
    """Check the Host to send: a host, with a port where it says one."""
    return syntax.origin(f"http://{text}").authority


def implicit_upstream(
    name: str, text: str, at: KeyPath, found: Findings
) -> Upstream | None:
    """Build the upstream of the service *name*, which says its URL *text* itself."""
    target = found.parsed(at, parse_upstream, text)
    if name == SELF:
        found.problem(at, f'"{SELF}" is the gateway itself: name the service otherwise')
        return None
    if target is None:
        return None
    weaken_upstream(name, target, at, found)
    return Upstream(name, found.absolute(target.address, at), target.authority)

"""What is decided again after a reload: who was let in, with what, and when.

A reload changes the rules, not the moment: what was let in is judged as of then. So
nothing that only time has changed, such as a token that its route lets outlive its
`exp`, is ended by one. Nor is a credential looked at again: a ticket and a proof are
used up, and the principal is verified.

Between two processes of ours a standing goes as one line of JSON, with what a decision
reads of a head, and no credential. It is read anew on the other side, by its rules.

Imports: gateway.model, gateway.wire.request.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import fields, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.model import (
    Binding,
    Denial,
    Fingerprints,
    Principal,
    Reason,
    RequestHead,
    Unavailable,
)
from gateway.wire.request import Networks, peer_of, read_head

FRAME = 4 * 1024 * 1024
"""Bytes of standings that travel together; one alone may have as many."""
# The fields that a decision reads, but for what is presented there.
_READ = frozenset({b"host", b"origin", b"x-forwarded-for", b"x-forwarded-proto"})
_SETS = ("audience", "roles", "scope")
_APART = frozenset({*_SETS, "amr", "claims", "fingerprints", "key", "binding"})
_PLAIN = tuple(each.name for each in fields(Principal) if each.name not in _APART)
_NAMES = tuple(each.name for each in fields(Fingerprints))


class Standing(NamedTuple):
    """One open stream, as far as it can be decided again."""

    principal: Principal
    head: RequestHead
    since: float  # Unix seconds, when it was decided
    is_socket: bool = False  # a WebSocket, or about to become one


Verdict = Denial | Unavailable | None
"""None: it may go on. Unavailable: nobody can tell now."""
Judge = Callable[[Sequence[Standing]], Awaitable[Sequence[Verdict]]]
"""Returns a verdict on each. Raises Unavailable: there is nobody to judge."""


def dump(standings: Sequence[Standing]) -> Iterator[tuple[int, bytes]]:
    """Yield *standings* as they travel: how many, and they, some at a time."""
    lines: list[bytes] = []
    size = 0
    for each in standings:
        line = json.dumps(_said(each), separators=(",", ":")).encode("ascii")
        if lines and size + len(line) > FRAME:
            yield len(lines), b"\n".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield len(lines), b"\n".join(lines)


def load(dumped: bytes, proxies: Networks) -> list[Standing | Denial]:
    """Return what was dumped; a Denial where such a head is not read any more.

    Args:
        dumped: By `dump`.
        proxies: [server].trusted_proxies.
    """
    return [_standing(json.loads(line), proxies) for line in dumped.split(b"\n")]


def dump_verdicts(verdicts: Sequence[Verdict]) -> bytes:
    """Return *verdicts* as they travel; they are told without route and principal."""
    said: list[Any] = []
    for each in verdicts:
        if isinstance(each, Denial):
            said.append([each.reason, each.at, each.needed])
        else:
            said.append(None if each is None else each.dependency)
    return json.dumps(said).encode("ascii")


def load_verdicts(dumped: bytes) -> list[Verdict]:
    """Return the verdicts that were dumped."""
    verdicts: list[Verdict] = []
    for each in json.loads(dumped):
        if isinstance(each, list):
            reason, at, needed = each
            verdicts.append(Denial(Reason(reason), at, tuple(needed)))
        else:
            verdicts.append(None if each is None else Unavailable(each))
    return verdicts


def _said(standing: Standing) -> dict[str, Any]:
    who, head = standing.principal, standing.head
    said: dict[str, Any] = {name: getattr(who, name) for name in _PLAIN}
    said |= {name: sorted(getattr(who, name)) for name in _SETS}
    said["amr"], said["claims"] = who.amr, dict(who.claims)
    names, bound = who.fingerprints, who.binding
    if names is not None:
        hexed = (getattr(names, name) for name in _NAMES)
        said["fingerprints"] = [each and each.hex() for each in hexed]
    if bound is not None:
        networks = bound.networks and list(map(str, bound.networks))
        said["binding"] = [bound.certificate, bound.key, networks]
    headers = [pair for pair in head.headers if pair[0] in _READ]
    return {
        "who": said,
        "kind": head.kind,
        "method": head.method,
        "scheme": head.scheme,
        "target": head.target.decode("latin-1"),
        "headers": [[text.decode("latin-1") for text in pair] for pair in headers],
        "peer": [head.peer.address, head.peer.certificate],
        "since": standing.since,
        "is_socket": standing.is_socket,
    }


def _standing(said: dict[str, Any], proxies: Networks) -> Standing | Denial:
    address, certificate = said["peer"]
    head = read_head(
        kind=said["kind"],
        method=said["method"],
        scheme=said["scheme"],
        target=said["target"].encode("latin-1"),
        headers=tuple(
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in said["headers"]
        ),
        peer=replace(peer_of(address, proxies), certificate=certificate),
        proxies=proxies,
    )
    if isinstance(head, Denial):
        return head
    who = said["who"]
    more: dict[str, Any] = {name: frozenset(who[name]) for name in _SETS}
    more["amr"] = tuple(who["amr"])
    more["claims"] = MappingProxyType(who["claims"])
    names, bound = who.get("fingerprints"), who.get("binding")
    if names is not None:
        raw = [each and bytes.fromhex(each) for each in names]
        more["fingerprints"] = Fingerprints(**dict(zip(_NAMES, raw, strict=True)))
    if bound is not None:
        certificate, key, networks = bound
        networks = networks and tuple(map(ip_network, networks))
        more["binding"] = Binding(certificate, key, networks)
    principal = Principal(**{name: who[name] for name in _PLAIN}, **more)
    return Standing(principal, head, said["since"], said["is_socket"])

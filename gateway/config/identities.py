"""[identity] and [upstream.x.identity]: what upstreams are told of a caller.

R94: an issuer and keys of its own, never those of a token issuer. R95: which plain
headers a claim may be copied to.

Imports: the standard library, gateway.config.findings, gateway.config.gateway_file,
gateway.config.settings, gateway.config.upstream_file, gateway.policy.spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from gateway.config import gateway_file as written
from gateway.config.findings import Findings
from gateway.config.settings import Identity
from gateway.config.upstream_file import UpstreamIdentity
from gateway.policy.spec import KeyPath

# What the gateway says in every assertion, or in every bound one (docs/config.md).
NAMED_BY_US = frozenset(
    {"iss", "aud", "sub", "iat", "exp", "nbf", "jti", "src", "htm", "htu", "txn"}
)


def build_identity(
    table: written.Identity, found: Findings, at: KeyPath = ("identity",)
) -> Identity | None:
    """Build [identity]; *at* is where its keys stand."""
    keys = _identity_keys(at, table.keys, found)
    _check_claims(at, table.claims, found)
    _check_copies(at, table.headers, found)
    if keys is None:
        return None
    return Identity(
        issuer=table.issuer,
        keys=keys,
        algorithm=table.algorithm,
        ttl=table.ttl,
        claims=tuple(table.claims),
        headers=MappingProxyType(dict(table.headers)),
    )


def _identity_keys(at: KeyPath, keys: str, found: Findings) -> str | None:
    kind, colon, name = keys.partition(":")
    if kind not in ("dir", "file") or not colon:
        found.problem((*at, "keys"), 'expected "dir:/path" or "file:/path"')
        return None
    path = found.existing((*at, "keys"), name, secret=True)
    if path is None:
        return None
    if path.is_dir() != (kind == "dir"):
        is_ = "a directory" if path.is_dir() else "a file"
        other = "dir" if path.is_dir() else "file"
        found.problem((*at, "keys"), f'it is {is_}: "{other}:..."')
        return None
    return f"{kind}:{path}"


def _check_claims(at: KeyPath, claims: Sequence[str], found: Findings) -> None:
    for index, claim in enumerate(claims):
        if claim in NAMED_BY_US:
            found.problem(
                (*at, "claims", index), "the gateway says this claim itself, always"
            )


def _check_copies(at: KeyPath, headers: Mapping[str, str], found: Findings) -> None:
    seen: set[str] = set()
    for name in headers:
        folded = name.lower().replace("_", "-")
        if folded in seen:
            found.problem(
                (*at, "headers", name), "the same header field twice", key=True
            )
        seen.add(folded)


def check_issuer_names(
    identities: Sequence[tuple[KeyPath, Identity]],
    issuers: Mapping[str, str],
    found: Findings,
) -> None:
    """Note an identity whose issuer also mints tokens: its word would count twice.

    Args:
        identities: With the place of each.
        issuers: The `iss` of each token issuer, by its section.
        found: Where problems go.
    """
    for at, identity in identities:
        for name, url in issuers.items():
            if url == identity.issuer:
                found.problem(
                    (*at, "issuer"),
                    f"[{name}] has the same issuer: an assertion for an upstream"
                    " would pass for a token",
                )


def build_own_identity(
    at: KeyPath,
    table: UpstreamIdentity | None,
    identity: Identity | None,
    found: Findings,
) -> Identity | None:
    """Build [upstream.x.identity]: what it says, over what [identity] says."""
    if table is None:
        return None
    at = (*at, "identity")
    keys = None
    if table.keys is not None:
        keys = _identity_keys(at, table.keys, found)
        if keys is None:
            return None
    _check_claims(at, table.claims or (), found)
    _check_copies(at, table.headers or {}, found)
    if identity is None:
        if table.issuer is None or keys is None:
            found.problem(at, "without [identity] it needs issuer and keys of its own")
            return None
        identity = Identity(table.issuer, keys)
    said = {
        "issuer": table.issuer,
        "keys": keys,
        "algorithm": table.algorithm,
        "ttl": table.ttl,
        "claims": None if table.claims is None else tuple(table.claims),
        "headers": None
        if table.headers is None
        else MappingProxyType(dict(table.headers)),
    }
    changed: dict[str, Any] = {
        name: value for name, value in said.items() if value is not None
    }
    return replace(identity, **changed)

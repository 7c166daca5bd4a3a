"""[server], [probes], [admin], [store], [outage], [headers], [log].

Every key is right by itself here; what several mean together is judged. R15 (header
rules), R17 (trusted proxies), R18 (probes and admin apart), R61 (outages), R96 (what a
log never shows).

Imports: the standard library, gateway.config.findings, gateway.config.gateway_file,
gateway.config.settings, gateway.config.store_url, gateway.config.syntax,
gateway.config.tls, gateway.config.units, gateway.policy.spec.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.config import gateway_file as written
from gateway.config import syntax, units
from gateway.config.findings import Findings
from gateway.config.settings import (
    Address,
    Admin,
    HeaderRules,
    Identity,
    Outage,
    Server,
    Store,
)
from gateway.config.store_url import StoreUrlError, parse
from gateway.config.tls import build_tls
from gateway.policy.spec import KeyPath

LEAST_ADMIN_TOKEN = 16  # characters; 96 bits in base64url
# Parameters that carry credentials or are ones (R96); no log shows them.
NEVER_LOGGED = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "client_secret",
        "code",
        "id_token",
        "password",
        "refresh_token",
    }
    | {"assertion", "client_assertion", "state", "ticket", "token"}
)


def build_server(
    table: written.Server, found: Findings, now: float | None = None
) -> Server:
    """Build [server]; *now* (Unix seconds) tells whether a certificate has expired."""
    if table.max_token >= table.max_head:
        found.problem(("server", "max_token"), "max_token has to be less than max_head")
    for index, network in enumerate(table.trusted_proxies):
        if network.prefixlen == 0:
            found.weak(("server", "trusted_proxies", index), "everybody is trusted")
    listen = tuple(
        found.absolute(address, ("server", "listen", index))
        for index, address in enumerate(table.listen)
    )
    return Server(
        listen=listen,
        public_url=table.public_url,
        client_certificate=table.client_certificate,
        hosts=frozenset(table.hosts),
        own_prefix=table.own_prefix,
        trusted_proxies=tuple(table.trusted_proxies),
        max_head=table.max_head,
        max_headers=table.max_headers,
        max_token=table.max_token,
        max_body=table.max_body,
        header_timeout=table.header_timeout,
        body_timeout=table.body_timeout,
        idle_timeout=table.idle_timeout,
        max_connections=table.max_connections,
        max_connections_per_peer=table.max_connections_per_peer,
        tls=build_tls(table.tls, listen, found, now),
        workers=table.workers,
        drain_delay=table.drain_delay,
        drain_timeout=table.drain_timeout,
    )


def build_admin(table: written.Admin, found: Findings) -> Admin | None:
    """Build [admin]: nobody but this machine gets there, and not without a token."""
    if table.listen is None:
        return None
    at = ("admin", "listen")
    listen = found.absolute(table.listen, at)
    if not listen.path:
        if not syntax.is_loopback(listen.host):
            found.problem(at, "the admin port is for a Unix socket or loopback only")
        if table.token is None:
            found.problem(
                at,
                "an admin port that is no Unix socket needs a token",
                'add token = "file:/path" or token = "env:NAME" to [admin]',
            )
    if table.token is not None:
        characters = re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", table.token)
        if characters is None or len(table.token) < LEAST_ADMIN_TOKEN:
            found.problem(
                ("admin", "token"),
                f"a token is {LEAST_ADMIN_TOKEN} or more of A-Z a-z 0-9 - . _ ~ + /"
                " (RFC 6750)",
            )
    return Admin(listen, table.token)


def check_listeners(
    server: Server, probes: Address | None, admin: Admin | None, found: Findings
) -> None:
    """Note listeners that want the same socket, or share a port with clients (R18)."""
    listeners: list[tuple[KeyPath, str, Address]] = [
        (("server", "listen", index), "[server] listen", address)
        for index, address in enumerate(server.listen)
    ]
    if probes is not None:
        listeners.append((("probes", "listen"), "[probes] listen", probes))
    if admin is not None:
        listeners.append((("admin", "listen"), "[admin] listen", admin.listen))
    for number, (at, _, address) in enumerate(listeners):
        for _, other, taken in listeners[:number]:
            if syntax.overlaps(address, taken):
                found.problem(at, f"{other} has this address already")


def build_store(table: written.Store, found: Findings) -> Store:
    """Build [store]."""
    at = ("store", "url")
    if table.url == "memory":
        found.weak(at, "revocations in memory")
        if table.replicas:
            found.problem(("store", "replicas"), "the memory store has no replicas")
        return Store(table.url)
    try:
        url = parse(table.url)
    except StoreUrlError as error:
        found.problem(at, error.message, error.hint)
        return Store()
    if not url.tls and not all(syntax.is_loopback(host) for host, _ in url.hosts):
        found.weak(at, "plaintext store")
    for name, path in url.tls_files.items():
        found.existing(at, path, secret=name == "ssl_keyfile")
    return Store(table.url, table.replicas)


def check_workers(server: Server, store: Store, found: Findings) -> None:
    """Note workers that would not know of each other's revocations."""
    if server.workers != 1 and store.is_memory:
        found.problem(
            ("server", "workers"),
            "the memory store is for one worker: the others would not know what it"
            " has revoked",
            'workers = 1, or a shared store: [store] url = "redis://..."',
        )


def build_outage(table: written.Outage, found: Findings) -> Outage:
    """Build [outage]: to decide by what was known some time ago is weaker (R61)."""
    outage = Outage(table.revocation, table.max_staleness)
    if outage.stale:
        found.weak(
            ("outage", "revocation"),
            f"allow-stale for {units.spell_duration(outage.stale)}",
        )
    return outage


def build_headers(
    table: written.Headers, identities: Sequence[Identity], found: Findings
) -> HeaderRules:
    """Build [headers]; `keep` never covers what we write ourselves (R15)."""
    ours = {name.lower() for identity in identities for name in identity.headers}
    for index, name in enumerate(table.keep):
        at = ("headers", "keep", index)
        lower = name.lower()
        prefix = lower.removesuffix("*") if lower.endswith("-*") else ""
        if "x-gateway-".startswith(prefix or "-") or lower.startswith("x-gateway-"):
            found.problem(at, "x-gateway-* is for the gateway's own fields")
        elif lower in ours or (prefix and any(own.startswith(prefix) for own in ours)):
            found.problem(at, "identity.headers writes this field")
        else:
            found.weak(at, f"keep {lower}")
    if table.underscores == "pass":
        found.weak(("headers", "underscores"), "underscores pass")
    return HeaderRules(
        strip=tuple(name.lower() for name in table.strip),
        keep=tuple(name.lower() for name in table.keep),
        underscores=table.underscores,
    )


def check_log(table: written.Log, found: Findings) -> frozenset[str]:
    """Return the query names that the log may show; no credential's (R96)."""
    if not table.access:
        found.weak(("log", "access"), "no access log")
    for index, name in enumerate(table.query):
        if name.lower() in NEVER_LOGGED:
            found.problem(
                ("log", "query", index), "this parameter carries a credential"
            )
    return frozenset(table.query)


def build_probes(table: written.Probes | None, found: Findings) -> Address | None:
    """Build [probes]."""
    if table is None:
        return None
    return found.absolute(table.listen, ("probes", "listen"))

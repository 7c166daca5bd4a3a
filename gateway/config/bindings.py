"""[dpop], [certificates], [server] client_certificate, and every `binding`.

R80 (proofs are compared with public_url, and with nothing a client sends), R81 (whose
word on a certificate counts). What is asked of tokens has to be possible here: a route
that nobody can call is a mistake, and is found before somebody opens it in haste.

Imports: the standard library, gateway.config.credential_file, gateway.config.findings,
gateway.config.settings, gateway.config.syntax, gateway.model, gateway.policy.spec,
gateway.policy.suggest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from gateway.config import credential_file as written
from gateway.config import syntax
from gateway.config.findings import Findings
from gateway.config.settings import (
    Certificates,
    Dpop,
    Issuer,
    KeySource,
    RoleMapping,
    ScopeRule,
    Server,
)
from gateway.model import CERTIFICATES
from gateway.policy.spec import KeyPath, PolicyFile, Problem
from gateway.policy.suggest import did_you_mean

LEAST_NONCE_KEY = 32  # bytes, of an HMAC with SHA-256
_CERTIFICATE: KeyPath = ("server", "client_certificate")


def build_dpop(
    table: written.Dpop | None, server: Server, found: Findings
) -> Dpop | None:
    """Build [dpop]; without it, and with a public_url, it is as by default."""
    if server.public_url is None:
        if table is not None:
            found.problem(
                ("dpop",),
                "proofs are made for a URL, and [server] public_url says none",
                'public_url = "https://..." as clients call us',
            )
        return None
    table = table or written.Dpop()
    key = None
    if table.nonce_key is not None:
        key = table.nonce_key.encode("utf-8", "surrogateescape")
        at = ("dpop", "nonce_key")
        if not table.nonce:
            found.problem(at, "no nonce is asked for", "nonce = true", key=True)
        elif len(key) < LEAST_NONCE_KEY:
            found.problem(at, f"nonce_key: {LEAST_NONCE_KEY} bytes or more")
    return Dpop(frozenset(table.algorithms), table.nonce, key)


def check_certificates(server: Server, found: Findings) -> None:
    """Note a field that would be believed without knowing who has sent it (R81)."""
    if server.client_certificate == "tls":
        return
    if not server.trusted_proxies:
        found.problem(
            _CERTIFICATE,
            "this field is believed of a trusted proxy alone, and there is none",
            'trusted_proxies = ["..."]',
        )
    elif not _asks_clients(server) and not all(
        syntax.is_loopback(str(network.network_address))
        for network in server.trusted_proxies
    ):
        found.problem(
            _CERTIFICATE,
            "a proxy that is not on this host has to show a certificate of its own",
            'client = "required" and client_ca = "file:..." in [server.tls]',
        )


def build_certificates(
    table: written.Certificates | None, server: Server, found: Findings
) -> Certificates | None:
    """Build [certificates]; somebody has to have seen to what they show."""
    if table is None:
        return None
    if server.client_certificate == "tls" and not _asks_clients(server):
        found.problem(
            ("certificates",),
            "no client is asked for a certificate",
            'client = "optional" and client_ca = "file:..." in [server.tls]',
        )
    roles = {name: frozenset(said) for name, said in table.roles.items()}
    return Certificates(table.name, MappingProxyType(roles), table.max_lifetime)


def issuer_of(certificates: Certificates) -> Issuer:
    """Return *certificates* as what all callers have: an issuer, of no tokens."""
    return Issuer(
        name=CERTIFICATES,
        issuer=CERTIFICATES,
        keys=KeySource(),
        audience=frozenset({CERTIFICATES}),
        leeway=0.0,
        max_lifetime=certificates.max_lifetime,
        roles=RoleMapping(allow=frozenset().union(*certificates.roles.values())),
        scope=ScopeRule(user="ignore", service="ignore"),
    )


def check_kinds(
    files: Sequence[PolicyFile], certificates: Certificates | None, found: Findings
) -> None:
    """Note where certificates would count that are none, or roles that are none."""
    if certificates is not None:
        declared = {role.name for file in files for role in file.roles}
        for name, roles in certificates.roles.items():
            for role in sorted(roles - declared):
                found.problem(
                    ("certificates", "roles", name),
                    f'no policy file has [roles."{role}"]: it would grant nothing',
                    did_you_mean(role, declared),
                )
        return
    for file in files:
        if file.service is None:
            continue
        asking = [((*file.service.at, "credentials"), file.service.credentials)]
        asking += [
            ((*route.at, "credentials"), route.credentials or ())
            for route in file.routes
        ]
        for at, kinds in asking:
            if "certificate" in kinds:
                say = "gateway.toml has no [certificates]: none is a credential"
                found.problems.append(Problem(file.file, at, say, value="certificate"))


def check_bindings(
    files: Sequence[PolicyFile],
    issuers: Mapping[str, Issuer],
    server: Server,
    dpop: Dpop | None,
    found: Findings,
) -> None:
    """Note every `binding` that no token could satisfy."""
    for name, issuer in issuers.items():
        kinds = sorted(issuer.binding or ())
        for _, why in _impossible(kinds, [issuer], server, dpop):
            found.problem(("issuer", name, "binding"), why)
    for file in files:
        if file.service is None:
            continue
        names = file.service.issuers
        accepted = [
            issuer for name, issuer in issuers.items() if names is None or name in names
        ]
        asking = [((*file.service.at, "binding"), file.service.binding)]
        asking += [((*route.at, "binding"), route.binding) for route in file.routes]
        for at, kinds_asked in asking:
            for kind, why in _impossible(kinds_asked or (), accepted, server, dpop):
                found.problems.append(Problem(file.file, at, why, value=kind))


def _impossible(
    kinds: Iterable[str], issuers: Sequence[Issuer], server: Server, dpop: Dpop | None
) -> Iterator[tuple[str, str]]:
    for kind in kinds:
        if kind == "dpop" and dpop is None:
            yield kind, '"dpop" needs [server] public_url, which proofs are made for'
        elif kind == "mtls" and server.client_certificate == "tls":
            if not _asks_clients(server):
                yield kind, '"mtls": no client is asked for a certificate'
        elif kind == "ip" and not any(issuer.address_claim for issuer in issuers):
            yield kind, '"ip" needs an issuer with an address_claim'


def _asks_clients(server: Server) -> bool:
    return server.tls is not None and server.tls.client != "none"

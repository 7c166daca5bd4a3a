"""[server.tls] and [upstream.x.tls]: the files, whether they are a pair, their end.

They are looked at here so that `gateway check` says what is wrong, with its place; the
data port reads them again, and again whenever they change. That is why their places
stand in the settings and not what they hold.

Imports: the standard library, gateway.config.findings, gateway.config.gateway_file,
gateway.config.settings, gateway.config.upstream_file, gateway.policy.spec,
gateway.tokens.certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from gateway.config import gateway_file as written
from gateway.config import upstream_file
from gateway.config.findings import Findings
from gateway.config.settings import Address, Tls, UpstreamTls, UpstreamUrl
from gateway.policy.spec import KeyPath
from gateway.tokens.certificates import MAX_PEM, Chain, read_chain, read_key

T = TypeVar("T")

_AT: KeyPath = ("server", "tls")


def build_tls(
    table: written.Tls | None,
    listen: tuple[Address, ...],
    found: Findings,
    now: float | None,
) -> Tls | None:
    """Build [server.tls].

    Args:
        table: As written.
        listen: [server] listen.
        found: Takes problems and weakenings.
        now: Unix seconds, to see what has expired; None: that is not looked at.
    """
    if table is None:
        return None
    before = len(found.problems)
    if all(address.path for address in listen):
        found.problem(_AT, "TLS is for TCP, and [server] listen has Unix sockets alone")
    certificate, key = _pair(_AT, table.certificate, table.key, found, now)
    client_ca = _issuers((*_AT, "client_ca"), table.client_ca, found)
    if table.client != "none" and table.client_ca is None:
        found.problem(
            (*_AT, "client"),
            f'client = "{table.client}" needs to know whose certificates count',
            'add client_ca = "file:..." with the certificates of their issuers',
        )
    if table.client == "none" and table.client_ca is not None:
        found.problem(
            (*_AT, "client_ca"),
            "no client is asked for a certificate",
            'say client = "optional" or client = "required"',
            key=True,
        )
    if certificate is None or key is None or len(found.problems) > before:
        return None
    return Tls(
        certificate=certificate,
        key=key,
        minimum=table.minimum,
        client=table.client,
        client_ca=client_ca,
    )


def build_upstream_tls(
    upstream: KeyPath,
    table: upstream_file.UpstreamTls,
    urls: Sequence[UpstreamUrl],
    found: Findings,
    now: float | None,
) -> UpstreamTls | None:
    """Build the `tls` of *upstream*; None, and a problem, if that can't be."""
    at = (*upstream, "tls")
    before = len(found.problems)
    if table.model_fields_set and not any(url.secure for url in urls):
        found.problem(at, "none of its URLs is https:")
    certificate = key = None
    if table.certificate is not None and table.key is not None:
        certificate, key = _pair(at, table.certificate, table.key, found, now)
    elif table.certificate is not None or table.key is not None:
        found.problem(at, "certificate and key belong together: say both")
    ca = _issuers((*at, "ca"), table.ca, found)
    if len(found.problems) > before:
        return None
    return UpstreamTls(
        ca=ca,
        certificate=certificate,
        key=key,
        server_name=table.server_name and table.server_name.strip("[]"),
        minimum=table.minimum,
    )


def _pair(
    table: KeyPath, certificate: str, key: str, found: Findings, now: float | None
) -> tuple[str, str] | tuple[None, None]:
    """Return the paths of a certificate and its key; Nones, and problems, if not."""
    before = len(found.problems)
    at = (*table, "certificate"), (*table, "key")
    paths = _file(at[0], certificate, found), _file(at[1], key, found, secret=True)
    chain = _read(at[0], paths[0], read_chain, found)
    public_key = _read(at[1], paths[1], read_key, found)
    if chain and public_key and chain.public_key != public_key:
        found.problem(at[1], "the key does not belong to the certificate")
    if len(found.problems) > before:
        return None, None
    if chain is not None and now is not None:
        _weaken(at[0], chain, now, found)
    return str(paths[0]), str(paths[1])


def _issuers(at: KeyPath, text: str | None, found: Findings) -> str | None:
    """Return the path of certificates to trust."""
    path = None if text is None else _file(at, text, found)
    _read(at, path, read_chain, found)
    return None if path is None else str(path)


def _file(
    at: KeyPath, text: str, found: Findings, *, secret: bool = False
) -> Path | None:
    name = at[-1]
    if not text.startswith("file:"):
        found.problem(at, f'{name}: expected "file:/path" of a PEM file')
        return None
    return found.existing(at, text.removeprefix("file:"), secret=secret)


def _read(
    at: KeyPath, path: Path | None, parse: Callable[[bytes], T], found: Findings
) -> T | None:
    if path is None:
        return None
    name = at[-1]
    try:
        with path.open("rb") as stream:
            return parse(stream.read(MAX_PEM + 1))
    except OSError as error:
        why = error.strerror or type(error).__name__
        found.problem(at, f"{name}: its file cannot be read: {why}")
    except ValueError as error:
        found.problem(at, f"{name}: {error}")
    return None


def _weaken(at: KeyPath, chain: Chain, now: float, found: Findings) -> None:
    trouble = chain.trouble(now)
    if not trouble:
        return
    if now < chain.not_before:
        what, when = "TLS certificate not valid yet", chain.not_before
    elif now >= chain.not_after:
        what, when = "expired TLS certificate", chain.not_after
    else:
        what, when = "TLS certificate expires soon", chain.not_after
    day = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")
    found.weak(at, what, day)

"""[server.tls]: the files, whether they are a pair, and when they end.

They are looked at here so that `gateway check` says what is wrong, with its place; the
data port reads them again, and again whenever they change. That is why their places
stand in the settings and not what they hold.

Imports: the standard library, gateway.config.findings, gateway.config.gateway_file,
gateway.config.settings, gateway.policy.spec, gateway.tokens.certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from gateway.config import gateway_file as written
from gateway.config.findings import Findings
from gateway.config.settings import Address, Tls
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
    certificate = _file("certificate", table.certificate, found)
    key = _file("key", table.key, found, secret=True)
    chain = _read("certificate", certificate, read_chain, found)
    public_key = _read("key", key, read_key, found)
    if chain and public_key and chain.public_key != public_key:
        found.problem((*_AT, "key"), "the key does not belong to the certificate")
    client_ca = None
    if table.client_ca is not None:
        client_ca = _file("client_ca", table.client_ca, found)
        _read("client_ca", client_ca, read_chain, found)
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
    if chain is not None and now is not None:
        _weaken(chain, now, found)
    return Tls(
        certificate=str(certificate),
        key=str(key),
        minimum=table.minimum,
        client=table.client,
        client_ca=None if client_ca is None else str(client_ca),
    )


def _file(
    name: str, text: str, found: Findings, *, secret: bool = False
) -> Path | None:
    at = (*_AT, name)
    if not text.startswith("file:"):
        found.problem(at, f'{name}: expected "file:/path" of a PEM file')
        return None
    return found.existing(at, text.removeprefix("file:"), secret=secret)


def _read(
    name: str, path: Path | None, parse: Callable[[bytes], T], found: Findings
) -> T | None:
    if path is None:
        return None
    at = (*_AT, name)
    try:
        with path.open("rb") as stream:
            return parse(stream.read(MAX_PEM + 1))
    except OSError as error:
        why = error.strerror or type(error).__name__
        found.problem(at, f"{name}: its file cannot be read: {why}")
    except ValueError as error:
        found.problem(at, f"{name}: {error}")
    return None


def _weaken(chain: Chain, now: float, found: Findings) -> None:
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
    found.weak((*_AT, "certificate"), what, day)

"""TLS to an upstream: who it has to be, what we show it, and the files behind both.

The name is checked against the certificate, always: who has an authority of its own
says which (RFC 9525; a common name counts for nothing). There is no way not to look.

The files are read again when they change. A new context is put in the place of the old
one; connections that are open go on with what they were opened with.

Imports: gateway.config.settings, gateway.tokens.certificates.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from gateway.config.settings import UpstreamTls
from gateway.tokens.certificates import MAX_PEM, read_chain, read_pair

logger = logging.getLogger(__name__)

LOOK = 10.0  # seconds between two looks at the files
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; all of 1.3 are as good


class Files:
    """Tells when one of some files has become another one.

    Through symbolic links: Kubernetes swaps a link in the middle of the path, others
    rename or overwrite.
    """

    def __init__(self, *paths: str | None) -> None:
        self._paths = [path for path in paths if path is not None]
        self._seen = self._versions()

    def have_changed(self) -> bool:
        """Tell whether they have, since the last time this was asked."""
        before, self._seen = self._seen, self._versions()
        return self._seen != before

    def _versions(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(_version, self._paths))


class Trust:
    """The context of new connections to an upstream.

    Raises:
        ValueError: The files hold nothing that works; says in words why.
        OSError: One can't be read.
    """

    def __init__(self, upstream: str, tls: UpstreamTls) -> None:
        self._upstream = upstream
        self._tls = tls
        self._files = Files(tls.ca, tls.certificate, tls.key)
        self.context = _context(tls)

    def look(self) -> None:
        """Take what the files hold now, if they changed and it works."""
        if not self._files.have_changed():
            return
        try:
            self.context = _context(self._tls)
        except (OSError, ValueError) as error:
            # Half of a pair may be written yet. The next look sees the other half.
            logger.error(  # noqa: TRY400
                "TLS to upstream %s: the old files stay, the new ones can't be used: "
                "%s",
                self._upstream,
                words_of(error),
            )
        else:
            logger.info("TLS to upstream %s: new files", self._upstream)


def _context(tls: UpstreamTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = VERSIONS[tls.minimum]
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.hostname_checks_common_name = False
    try:
        if tls.ca is None:
            context.load_default_certs()
        else:
            try:
                read_chain(read(tls.ca))
            except ValueError as error:
                raise ValueError(f"ca: {error}") from None
            context.load_verify_locations(tls.ca)
        if tls.certificate is not None and tls.key is not None:
            read_pair(read(tls.certificate), read(tls.key))
            # A password is never asked for on a terminal that nobody sits at.
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except ssl.SSLError as error:
        raise ValueError(f"OpenSSL refuses it: {error.reason}") from None
    return context


def said_goodbye(secure: ssl.SSLObject) -> bool:
    """Tell whether the other side has ended what it had to say.

    asyncio tells of the end of TCP in the same way, and that anybody on the way can
    bring about (RFC 8446 section 6.1).
    """
    try:
        return not secure.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


def words_of(error: OSError | ValueError) -> str:
    """Say what is wrong with a file, without what it holds."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)


def read(path: str) -> bytes:
    """Return what the PEM file *path* holds, as far as one is read."""
    with Path(path).open("rb") as stream:
        return stream.read(MAX_PEM + 1)


def _version(path: str) -> tuple[int, ...]:
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

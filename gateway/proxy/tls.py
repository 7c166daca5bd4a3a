"""TLS on the data port: handshakes, and certificates that change while it runs.

A connection counts from the moment it is accepted, so that those who never finish their
handshake meet the same caps as everybody (R5). Each handshake takes the context that is
current when it begins: a renewed certificate is a new context, put in the place of the
old one in one assignment, and nothing in progress notices. (To load a pair into a
context in use is not atomic: one that fails leaves half of it. And
`sslobj.context = ...` would keep the old one's session tickets.)

TLS 1.2 with AEAD and forward secrecy alone, and TLS 1.3. ALPN offers http/1.1. There is
no compression and no renegotiation.

Imports: gateway.clock, gateway.config.settings, gateway.observe.metrics,
gateway.proxy, gateway.tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Protocol, cast

from gateway.clock import Clock
from gateway.config.settings import Tls
from gateway.observe.metrics import CERTIFICATE_END, HANDSHAKES_FAILED, Sample
from gateway.proxy import front
from gateway.proxy.front import LINGER_TIME, NEVER, Front
from gateway.proxy.trust import CIPHERS, LOOK, VERSIONS, Files, read, words_of
from gateway.tokens.certificates import Chain, read_chain, read_pair

logger = logging.getLogger(__name__)

# Encrypted bytes that may wait for a slow client, as many as asyncio lets a plain
# connection have. Its default for TLS is 512 KiB.
_WRITE_BUFFER = 64 * 1024
_AT_ONCE = 64  # connections accepted before others have their turn
# Seconds between two log lines on failed handshakes: an open port is scanned all day.
_QUIET = 1.0

_VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class Certificates:
    """The context of new handshakes, made again when the files behind it change.

    Raises:
        ValueError: The files hold nothing that works; says in words why.
        OSError: One can't be read.
    """

    def __init__(self, tls: Tls, clock: Clock) -> None:
        self._tls = tls
        self._clock = clock
        self._files = Files(tls.certificate, tls.key, tls.client_ca)
        self.context, self.chain = load(tls)
        self._trouble = ""
        self._all_failures = 0  # handshakes
        self._failures = 0  # those since the last line about one
        self._told = -NEVER

    async def run(self, every: float = LOOK) -> None:
        """Look at the files from time to time, for ever."""
        while True:
            await asyncio.sleep(every)
            self.look()

    def look(self) -> None:
        """Take what the files hold now, if they changed and it works."""
        if not self._files.have_changed():
            return
        try:
            self.context, self.chain = load(self._tls)
        except (OSError, ValueError) as error:
            # Half of a pair may be written yet. The next look sees the other half.
            self._trouble = f"the new files cannot be used: {words_of(error)}"
            logger.error("TLS: the old certificate stays, %s", self._trouble)  # noqa: TRY400
        else:
            self._trouble = ""
            logger.info("TLS: the certificate was loaded anew")

    def health(self) -> str:
        """Say what is wrong with our certificate; "" when nothing is."""
        ours = self.chain.trouble(self._clock.wall())
        return "; ".join(filter(None, (self._trouble, ours)))

    def measure(self) -> Iterator[Sample]:
        """Yield how handshakes do, and until when they can."""
        yield HANDSHAKES_FAILED, (), self._all_failures
        yield CERTIFICATE_END, (), self.chain.not_after

    def failed(self, error: OSError, address: str) -> None:
        """Log a failed handshake, or count it for the next line."""
        self._all_failures += 1
        now = self._clock.monotonic()
        if now - self._told < _QUIET:
            self._failures += 1
            return
        # The library's word for it: a name, nothing that the client sent.
        why = getattr(error, "reason", None) or type(error).__name__
        more = f" ({self._failures} more before)" if self._failures else ""
        logger.info("TLS: a handshake with %s failed: %s%s", address or "-", why, more)
        self._told, self._failures = now, 0


def load(tls: Tls) -> tuple[ssl.SSLContext, Chain]:
    """Make a context of the files of *tls*.

    Raises:
        ValueError: They hold nothing that works; says in words why.
        OSError: One can't be read.
    """
    chain = read_pair(read(tls.certificate), read(tls.key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[tls.minimum]
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        # A password is never asked for on a terminal that nobody sits at.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
        if tls.client_ca is not None:
            try:
                read_chain(read(tls.client_ca))
            except ValueError as error:
                raise ValueError(f"client_ca: {error}") from None
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = _VERIFY[tls.client]
            # Who shows a certificate shows it each time, and that it holds the key.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
    except ssl.SSLError as error:
        raise ValueError(f"OpenSSL refuses it: {error.reason}") from None
    return context, chain


class Port(front.Port, Protocol):
    """What a handshake needs of the port it came in by."""

    spawn: Callable[[Coroutine[None, None, None]], object]

    def greet(self, handshake: Handshake, address: str) -> bool:
        """Count *handshake*, of the peer *address*; False: there is no room for it."""
        ...

    def greeted(self, handshake: Handshake) -> None:
        """Count it no more."""
        ...


class Listener:
    """Accepts connections, for handshakes on them. Closed as an asyncio.Server is.

    Not one: that would tell of a connection only after its handshake.
    """

    def __init__(
        self, port: Port, certificates: Certificates, sock: socket.socket, backlog: int
    ) -> None:
        self._port = port
        self._certificates = certificates
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        sock.setblocking(False)  # noqa: FBT003  (its only form)
        sock.listen(backlog)
        self._read()

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return () if self._sock.fileno() < 0 else (self._sock,)

    def close(self) -> None:
        if self._later is not None:
            self._later.cancel()
        if not self.sockets:
            return
        self._loop.remove_reader(self._sock)
        self._sock.close()

    async def wait_closed(self) -> None:
        """Return: `close` waits for nothing."""

    def _read(self) -> None:
        self._later = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, name = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor is left. The socket would say so again at once.
                logger.error("TLS: no connection can be accepted: %s", error.strerror)  # noqa: TRY400
                self._loop.remove_reader(self._sock)
                self._later = self._loop.call_later(1, self._read)
                return
            sock.setblocking(False)  # noqa: FBT003  (its only form)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handshake = Handshake(self._port, sock, name[0])
            if self._port.greet(handshake, name[0]):
                self._port.spawn(handshake.shake(self._certificates))
            else:
                sock.close()


class Handshake:
    """A client connection until it is encrypted; then a Front takes it over."""

    def __init__(self, port: Port, sock: socket.socket, address: str) -> None:
        self._port = port
        self._sock = sock
        self._address = address

    async def shake(self, certificates: Certificates) -> None:
        """See the handshake through, within [server].header_timeout."""
        port, server = self._port, self._port.gate.server
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: SecureFront(port, self),
                self._sock,
                ssl=certificates.context,
                ssl_handshake_timeout=server.header_timeout,
                # What was written has as long to go out as without TLS.
                ssl_shutdown_timeout=server.body_timeout,
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are some
            certificates.failed(error, self._address)
        finally:
            port.greeted(self)

    def end(self) -> None:
        """Make it fail now."""
        with contextlib.suppress(OSError):  # it has ended already
            self._sock.shutdown(socket.SHUT_RDWR)


class SecureFront(Front, asyncio.Protocol):
    """A client connection behind its handshake."""

    scheme = "https"

    def __init__(self, port: Port, handshake: Handshake) -> None:
        super().__init__(port)
        self._shaken = handshake
        self._greeted = port.greeted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._greeted(self._shaken)  # or it would count twice
        secure = cast("asyncio.WriteTransport", transport)
        secure.set_write_buffer_limits(high=_WRITE_BUFFER)
        super().connection_made(transport)

    def drain(self) -> None:
        super().drain()
        if self._is_closing:
            # A client that keeps an idle connection in a pool may not answer our
            # goodbye for minutes. The end of the process does not wait for it.
            self.deadline = self._monotonic() + LINGER_TIME

"""Where a line to the store leads: to one server, a master, or the owner of a slot.

Sentinels are asked for the master at each new connection. A cluster's node says MOVED,
once, for whoever asks the wrong one. Neither is believed blindly: what a replica is
asked it refuses (a script that may write is READONLY or MOVED there), and so does a
master that `min-replicas-to-write` has cut off. So to be sent to the wrong place is an
outage, and the next question goes another way.

Imports: hiredis, redis, gateway.config.store_url.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import hiredis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError

from gateway.config.store_url import Host, StoreUrl, parse

_Found = TypeVar("_Found")


class NoMaster(Exception):  # noqa: N818  (what a sentinel said)
    """A sentinel that names no master of the service."""


class Places(Protocol):
    """Who knows where to connect to."""

    async def open(self) -> AbstractConnection:
        """Return a new connection that is ready for use."""
        ...

    def moved(self, said: MovedError) -> bool:
        """Remember where the last one sent us; tell whether to go there."""
        ...

    def lost(self) -> None:
        """Go another way next time: something was wrong with the last connection."""
        ...


def places_of(url: str, *, connect_timeout: float) -> Places:
    """Return where *url* leads.

    Args:
        url: Of [store], with the passwords in it.
        connect_timeout: Seconds.

    Raises:
        ValueError: *url* is none; the message does not quote it.
    """
    parsed = parse(url)
    if parsed.kind == "sentinel":
        return _Sentinels(parsed, connect_timeout)
    if parsed.kind == "cluster":
        return _Cluster(parsed, connect_timeout)
    return _One(parsed, connect_timeout)


async def hang_up(connection: AbstractConnection, *, is_patient: bool = False) -> None:
    """Close *connection*; wait for the end of it, or don't."""
    with suppress(RedisError, OSError):
        await connection.disconnect(nowait=not is_patient)


class _Dial:
    """Makes connections to the hosts of one URL."""

    def __init__(self, url: StoreUrl, timeout: float, **options: Any) -> None:
        self._kind: type[AbstractConnection] = SSLConnection if url.tls else Connection
        self._options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            # Whoever uses a Line bounds a whole exchange, and so each part of it.
            # Another bound within costs a task for each write (Python 3.11), a fifth
            # of a check.
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
            "decode_responses": False,
            "protocol": 2,  # no pushes, and what RESP3 adds is not used
            # No CLIENT SETINFO: two round trips more for a new connection, one more
            # command to allow, and 5 ms of the loop to look up redis-py's own version.
            "driver_info": None,
        }
        if url.path:
            self._kind = UnixDomainSocketConnection
            self._options["path"] = url.path
        else:
            self._options["socket_keepalive"] = True
        if url.tls:
            # Said here, for redis-py has not always done so by itself.
            self._options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
            self._options |= url.tls_files
        self._options |= options

    async def __call__(self, host: Host | None = None) -> AbstractConnection:
        """Connect to *host*; None: to the Unix socket."""
        there: dict[str, Any] = {}
        if host is not None:
            there["host"], there["port"] = host
        connection = self._kind(**self._options, **there)
        # What ends this, cancellation too, leaves nothing open: redis-py sees to that.
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection


def _dial_to_store(url: StoreUrl, timeout: float) -> _Dial:
    return _Dial(
        url,
        timeout,
        client_name="auth-gateway",
        username=url.username or None,
        password=url.password or None,
        db=url.db,
    )


class _One:
    """One server."""

    def __init__(self, url: StoreUrl, timeout: float) -> None:
        self._dial = _dial_to_store(url, timeout)
        self._host = url.hosts[0] if url.hosts else None

    async def open(self) -> AbstractConnection:
        return await self._dial(self._host)

    def moved(self, said: MovedError) -> bool:  # noqa: ARG002
        # Of a cluster that nobody has configured: that is for people to put right.
        return False

    def lost(self) -> None:
        """Go there again: there is no other."""


class _Turns:
    """Several hosts, of which the first that answers will do.

    Each but the last has a share of the time: one that is silent, as a machine that is
    gone, must not use up the deadline of all.
    """

    def __init__(self, hosts: tuple[Host, ...], share: float) -> None:
        self._hosts = hosts
        self._share = share
        self._turn = 0  # whose it is

    async def first(
        self,
        ask: Callable[[Host], Awaitable[_Found]],
        before: Sequence[Host] = (),
    ) -> _Found:
        """Return what the first one that answers says to *ask*.

        Raises:
            Exception: Of the last one.
        """
        hosts = [*before, *self._hosts[self._turn :], *self._hosts[: self._turn]]
        for host in hosts[:-1]:
            # Whatever it is: a parser is fed with anything at all.
            with suppress(Exception):
                async with asyncio.timeout(self._share):
                    return await self._ask(ask, host)
        return await self._ask(ask, hosts[-1])

    def skip(self) -> None:
        """Begin with the next one."""
        self._turn = (self._turn + 1) % len(self._hosts)

    async def _ask(
        self, ask: Callable[[Host], Awaitable[_Found]], host: Host
    ) -> _Found:
        found = await ask(host)
        if host in self._hosts:
            self._turn = self._hosts.index(host)
        return found


class _Sentinels:
    """The master of a service, as sentinels know it."""

    def __init__(self, url: StoreUrl, timeout: float) -> None:
        self._dial = _dial_to_store(url, timeout)
        # Without a name: a sentinel that lets us ask need allow no CLIENT.
        self._dial_sentinel = _Dial(
            url,
            timeout,
            username=url.sentinel_username or None,
            password=url.sentinel_password or None,
        )
        self._sentinels = _Turns(url.hosts, timeout / (len(url.hosts) + 1))
        question: Any = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", url.service.encode())
        self._question = hiredis.pack_command(question)

    async def open(self) -> AbstractConnection:
        return await self._dial(await self._sentinels.first(self._ask))

    def moved(self, said: MovedError) -> bool:  # noqa: ARG002
        return False

    def lost(self) -> None:
        # It may have named a master that is none any more.
        self._sentinels.skip()

    async def _ask(self, sentinel: Host) -> Host:
        """Return the address of the master that *sentinel* names."""
        connection = await self._dial_sentinel(sentinel)
        try:
            await connection.send_packed_command(self._question, check_health=False)
            reply = await connection.read_response(disable_decoding=True)
        finally:
            await hang_up(connection)
        match reply:
            case [bytes(host), bytes(port)] if host and port.isdigit():
                return host.decode(), int(port)
        raise NoMaster


class _Cluster:
    """The node of a cluster that owns the slot of a line: its keys have one hash tag.

    Only MOVED is followed. ASK and TRYAGAIN say that the slot is on its way, and that
    neither end of it holds all keys: no answer, and so an outage, as CLUSTERDOWN is.
    """

    def __init__(self, url: StoreUrl, timeout: float) -> None:
        self._dial = _dial_to_store(url, timeout)
        self._seeds = _Turns(url.hosts, timeout / (len(url.hosts) + 1))
        self._owner: Host | None = None  # as far as we were told
        self._at = url.hosts[0]

    async def open(self) -> AbstractConnection:
        before = () if self._owner is None else (self._owner,)
        return await self._seeds.first(self._dial_to, before)

    def moved(self, said: MovedError) -> bool:
        # No host means the one that says so: it knows its own name as little as ours.
        self._owner = (said.host or self._at[0], said.port)
        return True

    def lost(self) -> None:
        self._owner = None
        self._seeds.skip()

    async def _dial_to(self, host: Host) -> AbstractConnection:
        connection = await self._dial(host)
        self._at = host
        return connection

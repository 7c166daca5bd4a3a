"""A gateway that listens: an engine, and the ports around it.

A Worker is one generation of the configuration at work. A Gateway is a whole one in one
process: a worker, its successors, probes and admin. `serve` runs it until a signal.

Imports: gateway.app, gateway.asgi, gateway.clock, gateway.config, gateway.door,
gateway.observe, gateway.ports, gateway.proxy, gateway.reload, gateway.signals,
gateway.stores, gateway.tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gateway.app import CLOCK, Background, Engine, Log
from gateway.asgi.api_keys import KeyOrder, Told
from gateway.asgi.probes import Check
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import Orders
from gateway.asgi.servers import SmallServer
from gateway.clock import Clock
from gateway.config.load import Loaded
from gateway.config.settings import Address
from gateway.door import own_app
from gateway.observe import process
from gateway.observe.access import unlogged
from gateway.observe.metrics import LOG_LOST, Metrics, Sample, Snapshot
from gateway.ports import private_directory, small_ports
from gateway.proxy.server import DataPort
from gateway.proxy.sockets import bind, bind_all, remove
from gateway.proxy.standing import Judge
from gateway.proxy.tls import Certificates
from gateway.reload import Reloads, checks_of_life, read_again, worse
from gateway.signals import Signals, unless
from gateway.stores import Stores
from gateway.tokens.key_status import KeyReport

logger = logging.getLogger("gateway")

# Allocations more than releases until the youngest are looked through; how often these,
# until those that were left; how often those, until everything.
_YOUNG_TO_OLD = (700, 3, 300)


class Worker:
    """One generation at work: it serves clients on sockets that others own.

    Args:
        engine: What decides; the worker's own from now on.
        log: Takes an entry for each request.
    """

    def __init__(self, engine: Engine, log: Log) -> None:
        self.settings = engine.settings
        self.engine = engine
        self._log = engine.metrics.counting(
            log if self.settings.log_access else unlogged
        )
        self._closing = contextlib.AsyncExitStack()
        self.port: DataPort | None = None
        self._is_closed = False
        self._certificates: Certificates | None = None
        self._judge: Judge | None = None  # by a newer configuration, if there is one
        self._judging: asyncio.Task[None] | None = None

    async def start(self, sockets: Sequence[socket.socket], private: Path) -> None:
        """Get the keys, then accept connections on *sockets*, its own from now on.

        Args:
            sockets: Bound.
            private: A directory that only we can enter, for the socket to ourselves.

        Raises:
            OSError: A socket can't be had.
            ValueError: The certificate or its key can't be used.
        """
        engine, closing = self.engine, self._closing
        for each in sockets:
            closing.callback(each.close)
        closing.push_async_callback(engine.aclose)
        spawn = engine.background.spawn
        if self.settings.server.tls is not None:
            self._certificates = Certificates(self.settings.server.tls, engine.clock)
            spawn(self._certificates.run())
        # Our own endpoints come first: the data port forwards to them. The name shows
        # whose socket it is: a process that is killed leaves it behind.
        path = private / f"own.{os.getpid()}.{secrets.token_hex(4)}.sock"
        at = Address(path=str(path))
        app = own_app(lambda: engine, self.settings)
        own = SmallServer(app, bind(at), spawn)
        closing.callback(path.unlink, missing_ok=True)
        await own.start()
        closing.push_async_callback(own.stop)
        await engine.start()
        gate = engine.gate(self._log, at)
        self.port = DataPort(gate, engine.clock, spawn, secrets.token_bytes)
        streams = self.port.streams
        closing.callback(engine.stores.revocations.watch(streams.revoke))
        engine.revocation_desk.count_streams = streams.count
        await self.port.start(sockets, self._certificates)
        if self._judge is not None:
            self.superseded(self._judge)

    def checks(self) -> list[Check]:
        """Say how our dependencies and our own certificate are."""
        found = self.engine.checks()
        if self._certificates is not None:
            found.append(Check("TLS certificate", self._certificates.health()))
        return found

    def measure(self) -> Iterator[Sample]:
        """Yield how our parts are."""
        yield from self.engine.measure()
        if self.port is not None:
            yield from self.port.measure()
        if self._certificates is not None:
            yield from self._certificates.measure()

    def snapshot(self, lost: Mapping[str, int]) -> Snapshot:
        """Return what this process, whose only worker this is, has counted.

        Args:
            lost: Lines, by the log's name.
        """
        return self.engine.metrics.snapshot(
            itertools.chain(self.measure(), _of_the_process(lost))
        )

    def superseded(self, judge: Judge) -> None:
        """Have *judge* decide again on what is open, and what comes, from now on."""
        self._judge = judge
        if self._judging is not None:
            self._judging.cancel()
        # Else as soon as it serves, or never again.
        if self.port is not None and not self._is_closed:
            judging = self.port.streams.keep_judged(judge)
            self._judging = self.engine.background.spawn(judging)

    def drain(self) -> None:
        """Go on serving, and tell clients to come back on another connection."""
        if self.port is not None:
            self.port.drain()

    async def retire(self, delay: float, grace: float) -> None:
        """Leave new clients to others, and end.

        Args:
            delay: How long clients are given to hear of it, seconds.
            grace: How long they have to finish after that, seconds.
        """
        if self.port is not None:
            self.port.drain()
            self.port.stop_accepting()
            await self.port.emptied(delay)
        await self.aclose(grace)

    async def aclose(self, grace: float = 0.0) -> None:
        """Stop accepting, give what is in flight *grace* seconds, close the rest."""
        self._is_closed = True
        if self.port is not None:
            await self.port.close(grace)
        await self._closing.aclose()


class Gateway:
    """A whole gateway in one process: a worker, probes and admin.

    Args:
        loaded: The configuration.
        log: Takes an entry for each request.
        clock: For claims and for durations.
        reread: Loads the configuration again. Raises ConfigError.
        lost: Says how many lines were lost, by the log's name.

    Raises:
        ValueError: A key that signs can't be used.
    """

    def __init__(
        self,
        loaded: Loaded,
        log: Log,
        *,
        clock: Clock = CLOCK,
        reread: Callable[[], Loaded] | None = None,
        lost: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.metrics = Metrics()
        self._settings = loaded.settings
        self._log = log
        self._lost = lost
        self._clock = clock
        self._reread = reread or (lambda: loaded)
        self._token_key = secrets.token_bytes(32)
        self.worker = self._made(loaded)
        self._retiring: dict[Worker, asyncio.Task[None]] = {}
        self._background = Background()
        self._sockets: list[socket.socket] = []
        self.has_started = self._is_draining = False
        self._refused = ""  # why the configuration last read is not in force
        self._reloads = Reloads()
        self._closing = contextlib.AsyncExitStack()

    @property
    def engine(self) -> Engine:
        """What decides now."""
        return self.worker.engine

    @property
    def port(self) -> DataPort | None:
        """The data port that accepts connections now."""
        return self.worker.port

    @property
    def bound(self) -> Sequence[Address]:
        """Where the data port listens."""
        return self.port.bound if self.port else ()

    async def start(self) -> None:
        """Listen on every port, the data port last.

        Raises:
            OSError: A port or a socket can't be had.
            ValueError: The certificate or its key can't be used.
        """
        closing = self._closing
        self._private = closing.enter_context(private_directory(self._settings.admin))
        self._sockets = bind_all(self._settings.server.listen)
        closing.callback(self._release)
        await closing.enter_async_context(
            small_ports(self._settings, self._background.spawn, self)
        )
        await self._start(self.worker)
        self.has_started = True

    def checks(self) -> list[Check]:
        """Say how our dependencies are, and whether we are about to go."""
        found = checks_of_life(self._refused, is_draining=self._is_draining)
        return [*found, *self.worker.checks()]

    async def snapshots(self) -> list[Snapshot]:
        """Return what each process has counted: this one."""
        ports = [each.port for each in self._retiring if each.port is not None]
        samples = itertools.chain(
            self.worker.measure(),
            # Who retires still has connections.
            *(each.measure() for each in ports),
            self._reloads.measure(),
            _of_the_process(self._lost()),
        )
        return [self.metrics.snapshot(samples)]

    async def keys(self) -> KeyReport:
        """Say how all keys are; see Engine.key_report."""
        return self.engine.key_report()

    async def revoke(self, orders: Orders) -> Told:
        """Carry *orders* out; see Engine.revoke."""
        return await self.engine.revocation_desk.carry_out(orders)

    async def inquire(self, inquiry: Inquiry) -> Told:
        """Say what the revocation list holds; see RevocationDesk.inquire."""
        return await self.engine.revocation_desk.inquire(inquiry)

    async def order_keys(self, order: KeyOrder) -> Told:
        """Carry *order* out; see Engine.order_keys."""
        return await self.engine.order_keys(order)

    async def reload(self) -> None:
        """Read the configuration again; put it in force if it is good (R103).

        A worker of the new generation takes the same sockets, and once it serves, the
        old one retires. Revocations in memory go on: they are one list.
        """
        loaded, refused = await read_again(self._reread, self._settings)
        if loaded is not None:
            refused = await self._succeed(loaded)
        self._refused = refused
        self._reloads.tell(refused, self.engine.generation)

    async def _succeed(self, loaded: Loaded) -> str:
        """Put *loaded* in force; return what is wrong with it, if it can't be."""
        old = self.worker
        goes_on = old.settings.store.is_memory and loaded.settings.store.is_memory
        try:
            new = self._made(loaded, old.engine.stores if goes_on else None)
        except ValueError as error:
            return str(error)
        try:
            await self._start(new)
            trouble = worse(old.checks(), new.checks())
        except (OSError, ValueError) as error:
            trouble = str(error)
        except BaseException:
            await new.aclose()
            raise
        if trouble:
            await new.aclose()
            return trouble
        self.worker = new
        for each in (*self._retiring, old):
            each.superseded(new.engine.judge)
        server = old.settings.server
        retiring = old.retire(server.drain_delay, server.drain_timeout)
        task = self._retiring[old] = self._background.spawn(retiring)
        task.add_done_callback(lambda _: self._retiring.pop(old, None))
        return ""

    async def stop(self) -> None:
        """Say that we go, serve on, stop accepting, finish what is in flight (R101)."""
        self._is_draining = True
        server = self.worker.settings.server
        logger.info(
            "draining: %g s, then no new connections and up to %g s for the rest",
            server.drain_delay,
            server.drain_timeout,
        )
        self.worker.drain()
        await asyncio.sleep(server.drain_delay)
        self._release()
        await asyncio.gather(
            self.worker.retire(0, server.drain_timeout), *self._retiring.values()
        )

    async def aclose(self, grace: float = 0.0) -> None:
        """Stop accepting, give what is in flight *grace* seconds, close the rest."""
        self.has_started = False
        self._release()
        retiring = dict(self._retiring)
        for task in retiring.values():
            task.cancel()
        await asyncio.gather(*retiring.values(), return_exceptions=True)
        for worker in (*retiring, self.worker):
            await worker.aclose(grace)
        await self._closing.aclose()
        await self._background.aclose()

    def _made(self, loaded: Loaded, before: Stores | None = None) -> Worker:
        """Make a worker that goes on with what *before* holds."""
        engine = Engine(
            loaded,
            clock=self._clock,
            before=before,
            token_key=self._token_key,
            metrics=self.metrics,
        )
        return Worker(engine, self._log)

    async def _start(self, worker: Worker) -> None:
        await worker.start([each.dup() for each in self._sockets], self._private)

    def _release(self) -> None:
        """Close our sockets: nobody is to wait in a queue that nobody serves."""
        for each in self._sockets:
            remove(each)
            each.close()
        self._sockets = []


def calm_collector() -> None:
    """Let Python look for garbage in small pieces, and seldom through everything.

    Of what requests and connections leave there is nothing to find. But whatever is
    alive is looked through: with 2,000 connections all of it took 40 ms, several times
    a minute, and the young ones up to 7 ms, in which nobody was served.
    """
    gc.set_threshold(*_YOUNG_TO_OLD)


async def serve(
    loaded: Loaded,
    log: Log,
    *,
    on_ready: Callable[[Gateway], None] = lambda _: None,
    reread: Callable[[], Loaded] | None = None,
    lost: Callable[[], Mapping[str, int]] = dict,
) -> None:
    """Run a gateway until SIGTERM or SIGINT; a second one ends it at once.

    Raises:
        OSError: A port or a socket can't be had.
        ValueError: A key or a certificate can't be used.
    """
    signals = Signals()
    gateway = Gateway(loaded, log, reread=reread, lost=lost)
    try:
        if await unless(signals.stop, gateway.start()):
            on_ready(gateway)
            await unless(signals.stop, signals.each_reload(gateway.reload))
            await unless(signals.force, gateway.stop())
    finally:
        await gateway.aclose()


def _of_the_process(lost: Mapping[str, int]) -> Iterator[Sample]:
    for log, lines in lost.items():
        yield LOG_LOST, (log,), lines
    yield from process.measure()

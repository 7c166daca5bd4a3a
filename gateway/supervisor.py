"""The supervisor of several workers: it has the sockets, and serves no client itself.

The listening sockets are its own for life. Each worker is lent one of its own, and its
successor inherits it with its queue: nobody who waits there is reset, whether the
worker was asked to go or was killed. The supervisor answers the probes and the admin
port for all of them, tells them to drain, starts them again, and loads a configuration
once: what it has validated is what each new worker has, by fork().

A fork copies one thread. So the loop stands still while it happens, no other thread is
there, and what the copy must not touch it never sees again (gateway.worker). In return
a successor serves at once, and workers share the memory that they don't write.

A single worker needs none of this and runs in the process that was started.

Imports: gateway.app, gateway.asgi, gateway.channel, gateway.config.load,
gateway.config.settings, gateway.model, gateway.observe, gateway.ports, gateway.proxy,
gateway.reload, gateway.signals, gateway.tokens.key_status, gateway.worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import math
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.app import CLOCK, Background
from gateway.asgi.api_keys import KeyOrder, KeyRefused, Told
from gateway.asgi.probes import Check
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import OrderRefused, Orders
from gateway.channel import Channel, Refused
from gateway.config.load import Loaded
from gateway.config.settings import Address
from gateway.model import Unavailable
from gateway.observe import process
from gateway.observe.metrics import Metrics, Snapshot, lasting, load, merge
from gateway.ports import private_directory, small_ports
from gateway.proxy.sockets import bind_each, remove
from gateway.reload import Reloads, checks_of_life, read_again, worse
from gateway.signals import Signals, Spawn, unless
from gateway.tokens import key_status
from gateway.worker import JUDGE_LIMIT, Birth, Logs, become, reported

logger = logging.getLogger("gateway")

START_LIMIT = 30.0  # seconds for a worker to get its keys and to listen
SILENCE = 15.0  # seconds without a report, after which a worker hangs
# Seconds before a worker that died young is started again, doubled each time: whatever
# kills it at its first request must not fill the machine with its successors.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
TRIES = 3  # to put a new worker into the place of one with an old configuration
STEADY = 10.0  # seconds of life after which a death is the first one again
LATE = 2.0  # seconds that workers get beyond their drain before they are killed
ORDER_LIMIT = 5.0  # seconds for a worker to carry an order out
INQUIRY_LIMIT = 30.0  # seconds for one to look through a long revocation list
SNAPSHOT_LIMIT = 1.0  # seconds for a worker to say what it has measured
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def worker_count(said: int | None, quota: Path = _QUOTA) -> int:
    """Return how many workers *said*, [server] workers, means here.

    Args:
        said: None: one for each core that we may use.
        quota: The cgroup's share of the machine, microseconds of each period.
    """
    if said is not None:
        return said
    cores = len(os.sched_getaffinity(0))
    try:
        share, period = quota.read_text(encoding="ascii").split()
        cores = min(cores, math.ceil(int(share) / int(period)))
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        pass
    return max(cores, 1)


@dataclass(eq=False)
class Child:
    """One worker process."""

    pid: int
    line: socket.socket
    loaded: Loaded  # its configuration
    born: float  # seconds of the loop's clock
    heard: float  # when it reported last
    ready: asyncio.Future[str]  # what kept it from starting, or ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    checks: list[Check] = field(default_factory=list)
    is_wrong: bool = False  # it can't start by this configuration
    channel: Channel | None = None  # once `line` is one
    measured: Snapshot = field(default_factory=dict)  # when it was asked last
    _unsaid: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def serves(self) -> bool:
        """Whether it accepts connections, as far as is known."""
        started = self.ready.done() and not self.ready.result()
        return started and not self.gone.is_set()

    def tell(self, name: str, said: bytes = b"") -> None:
        """Give an order, or keep it until there is a line."""
        if self.channel is None:
            self._unsaid.append((name, said))
        else:
            self.channel.tell(name, said)

    async def connect(self, spawn: Spawn) -> Channel:
        """Make `line` a channel."""
        channel = self.channel = await Channel.over(self.line, spawn)
        for name, said in self._unsaid:
            channel.tell(name, said)
        return channel

    async def ask(self, name: str, said: bytes = b"", *, within: float) -> bytes:
        """Ask it; see Channel.ask."""
        if self.channel is None:
            raise ConnectionError("there is no line yet")
        return await self.channel.ask(name, said, within=within)

    def settle(self, trouble: str) -> None:
        """Note whether it started, if that was not known."""
        if not self.ready.done():
            self.ready.set_result(trouble)

    def kill(self) -> None:
        """End it at once."""
        if not self.gone.is_set():
            os.kill(self.pid, signal.SIGKILL)


@dataclass(eq=False)
class Slot:
    """A place for a worker: its sockets, and who has them now."""

    number: int
    sockets: list[socket.socket]
    child: Child | None = None
    pause: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(eq=False)
class _Wanted:
    """A worker that is to be forked while the loop stands still."""

    birth: Birth
    slot: Slot
    child: asyncio.Future[Child]


def supervise(
    loaded: Loaded,
    workers: int,
    logs: Logs,
    *,
    reread: Callable[[], Loaded],
    on_ready: Callable[[Supervisor], None] = lambda _: None,
    kept: Sequence[int] = (),
) -> None:
    """Run *workers* worker processes until SIGTERM or SIGINT; a second one kills them.

    Args:
        loaded: The configuration.
        workers: How many.
        logs: Open in this process; closed around each fork, and opened in each worker.
        reread: Loads the configuration again. Raises ConfigError.
        on_ready: Called when all of them accept connections.
        kept: Descriptors that a worker needs beside its sockets.

    Raises:
        OSError: A port or a socket can't be had.
        ValueError: A key or a certificate can't be used.
    """
    with asyncio.Runner() as runner:
        supervisor = Supervisor(loaded, workers, logs, reread, kept)
        life = runner.get_loop().create_task(supervisor.run(on_ready))
        try:
            while wanted := runner.run(supervisor.next_wanted(life)):
                supervisor.fork(wanted)
            life.result()
        finally:
            supervisor.kill()


class Supervisor:
    """Keeps so many workers serving, by one configuration.

    Args:
        loaded: The configuration.
        workers: How many.
        logs: Of every process.
        reread: Loads the configuration again. Raises ConfigError.
        kept: Descriptors that a worker needs beside its sockets.
    """

    def __init__(
        self,
        loaded: Loaded,
        workers: int,
        logs: Logs,
        reread: Callable[[], Loaded],
        kept: Sequence[int],
    ) -> None:
        self.loaded = loaded
        self.slots: list[Slot] = []
        self._workers = workers
        self._logs = logs
        self._reread = reread
        self._kept = kept
        # Made once: what differs between workers would show which one had answered.
        self._token_key = secrets.token_bytes(32)
        self._children: set[Child] = set()
        self._wanted: asyncio.Queue[_Wanted] = asyncio.Queue()
        self._background = Background()
        self._ended: Snapshot = {}  # what workers that are no more have counted
        self.has_started = self._is_draining = False
        self._refused = ""  # why the configuration last read is not in force
        self._reloads = Reloads()

    # Life

    async def next_wanted(self, life: asyncio.Task[None]) -> _Wanted | None:
        """Return the next worker that is to be forked; None when *life* is over."""
        while not life.done():
            getting = asyncio.get_running_loop().create_task(self._wanted.get())
            await asyncio.wait({getting, life}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                continue
            wanted: _Wanted = getting.result()
            if self._is_draining:
                wanted.child.cancel()
            elif not wanted.child.done():  # else nobody wants it any more
                return wanted
        return None

    def fork(self, wanted: _Wanted) -> None:
        """Make a worker process. The loop stands still meanwhile."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            _settle(wanted.child, error)
            return
        self._logs.close()
        # What is there now is nobody's to collect in the copy, nor to be written to by
        # whoever looks for garbage: the pages stay shared.
        gc.freeze()
        try:
            pid = os.fork()
            if not pid:
                become(wanted.birth, theirs)
        except OSError as error:
            ours.close()
            _settle(wanted.child, error)
        else:
            child = self._adopt(pid, ours, wanted)
            if not _settle(wanted.child, child):
                child.kill()
        finally:
            gc.unfreeze()
            theirs.close()
            self._logs.open(requests=False)

    def _adopt(self, pid: int, line: socket.socket, wanted: _Wanted) -> Child:
        loop = wanted.child.get_loop()
        now = loop.time()
        loaded = wanted.birth.loaded
        child = Child(pid, line, loaded, now, now, loop.create_future())
        self._children.add(child)
        loop.call_soon(self._attend, child, wanted.slot)
        loop.call_later(START_LIMIT, child.settle, "it did not start in time")
        return child

    def _attend(self, child: Child, slot: Slot) -> None:
        self._background.spawn(self._listen_to(child, slot))
        self._reap()  # it may have died before anybody knew it

    async def run(self, on_ready: Callable[[Supervisor], None]) -> None:
        """Start them, keep them, stop them.

        Raises:
            OSError: A port or a socket can't be had.
            ValueError: A key or a certificate can't be used.
        """
        signals, spawn = Signals(), self._background.spawn
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        settings = self.loaded.settings
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._background.aclose)
            self._private = closing.enter_context(private_directory(settings.admin))
            for number, own in enumerate(
                bind_each(settings.server.listen, self._workers)
            ):
                self.slots.append(Slot(number, own))
            closing.callback(self._release)
            await closing.enter_async_context(small_ports(settings, spawn, self))
            closing.push_async_callback(self._all_gone)
            if await unless(signals.stop, self._start()):
                self.has_started = True
                on_ready(self)
                watching = spawn(self._watch())
                await unless(signals.stop, signals.each_reload(self.reload))
                watching.cancel()
                self._is_draining = True
                await unless(signals.force, self._stop())

    @property
    def bound(self) -> Sequence[Address]:
        """Where the data port listens."""
        found = []
        for sock in self.slots[0].sockets:
            name = sock.getsockname()
            is_path = sock.family == socket.AF_UNIX
            found.append(Address(path=name) if is_path else Address(name[0], name[1]))
        return found

    def kill(self) -> None:
        """End every worker that is left, at once."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        self._children.clear()

    async def _start(self) -> None:
        children = await asyncio.gather(
            *(self._born(slot, self.loaded) for slot in self.slots)
        )
        # At once: one that dies while others are still getting ready is replaced too.
        for slot, child in zip(self.slots, children, strict=True):
            slot.child = child
        for child in children:
            trouble = await child.ready
            if trouble:
                raise ValueError(trouble) if child.is_wrong else OSError(trouble)

    async def _stop(self) -> None:
        """Say that we go, serve on, stop accepting, finish what is in flight (R101)."""
        server = self.loaded.settings.server
        logger.info(
            "draining: %g s, then no new connections and up to %g s for the rest",
            server.drain_delay,
            server.drain_timeout,
        )
        for child in self._children:
            child.tell("drain")
        await asyncio.sleep(server.drain_delay)
        self._release()
        self._tell_to_retire(self._children, 0)
        try:
            async with asyncio.timeout(server.drain_timeout + LATE):
                await asyncio.gather(*(each.gone.wait() for each in self._children))
        except TimeoutError:
            logger.error("%d workers did not end", len(self._children))  # noqa: TRY400

    async def _all_gone(self) -> None:
        self._is_draining = True
        for child in self._children:
            child.kill()
        await asyncio.gather(*(child.gone.wait() for child in self._children))

    def _release(self) -> None:
        """Close our sockets: nobody is to wait in a queue that nobody serves."""
        for slot in self.slots:
            for each in slot.sockets:
                if not slot.number:
                    remove(each)
                each.close()
            slot.sockets = []

    # Workers come and go

    async def _born(self, slot: Slot, loaded: Loaded) -> Child:
        """Return a new worker for *slot*, which has still to become ready.

        Raises:
            OSError: There is no room for another process.
        """
        birth = Birth(
            loaded,
            slot.sockets,
            self._private,
            self._token_key,
            self._logs,
            self._kept,
        )
        child: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._wanted.put_nowait(_Wanted(birth, slot, child))
        return await child

    async def _listen_to(self, child: Child, slot: Slot) -> None:
        async def handle(name: str, said: bytes) -> bytes:
            child.heard = asyncio.get_running_loop().time()
            if name == "failed":
                why = json.loads(said)
                child.is_wrong = why["config"]
                child.settle(why["why"])
            elif name == "measured":
                child.measured = load(said)
            elif name == "judge":
                return await self._judged(said)
            else:
                child.checks = reported(said)
                child.settle("")
            return b""

        channel = await child.connect(self._background.spawn)
        try:
            await channel.serve(handle)
        except Exception:
            logger.exception("process %d says what nobody understands", child.pid)
            child.kill()
        await child.gone.wait()
        if slot.child is child and not self._is_draining:
            logger.error("worker %d (process %d) died", slot.number, child.pid)
            await self._restart(slot, child)

    def _reap(self) -> None:
        for child in tuple(self._children):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            self._children.discard(child)
            child.gone.set()
            code = os.waitstatus_to_exitcode(status)
            if code and not self._is_draining:
                logger.warning("process %d ended with %d", pid, code)
            child.settle("it died")
            self._ended = merge([self._ended, lasting(child.measured)])
            # Without a descriptor to look with it stays there, and harms nobody.
            with contextlib.suppress(OSError):
                for left in self._private.glob(f"own.{pid}.*.sock"):
                    left.unlink(missing_ok=True)

    async def _restart(self, slot: Slot, dead: Child) -> None:
        """Put a successor into the place of *dead*, however often it takes."""
        slot.child = None
        lived = asyncio.get_running_loop().time() - dead.born
        slot.pause = _longer(slot.pause) if lived < STEADY else 0.0
        while not self._is_draining:
            await asyncio.sleep(slot.pause)
            # Not held meanwhile: a configuration that mends it must get in.
            async with slot.lock:
                if slot.child is not None:
                    return
                trouble = await self._fill(slot, self.loaded)
            if not trouble:
                self._say_superseded()  # a reload may have come meanwhile
                return
            logger.error("worker %d is not back: %s", slot.number, trouble)
            slot.pause = _longer(slot.pause)

    async def _replace(self, slot: Slot, loaded: Loaded, *, picky: bool) -> str:
        """Put a worker by *loaded* into *slot*, and let the one there retire.

        Args:
            slot: Where.
            loaded: Its configuration.
            picky: It has to be able to do all that the old one does.

        Returns:
            Why the old one stays, or "" when it has gone.
        """
        server = self.loaded.settings.server
        async with slot.lock:
            old = slot.child
            trouble = await self._fill(slot, loaded, old if picky else None)
            if not trouble:
                # From here on who dies comes back by the new configuration.
                self.loaded = loaded
                self._say_superseded()
        if trouble or old is None:
            return trouble
        self._tell_to_retire([old], server.drain_delay)
        with contextlib.suppress(TimeoutError):
            bound = server.drain_delay + server.drain_timeout + LATE
            async with asyncio.timeout(bound):
                await old.gone.wait()
        old.kill()
        return ""

    async def _fill(
        self, slot: Slot, loaded: Loaded, measure: Child | None = None
    ) -> str:
        """Put a new worker into *slot* when it serves; return what keeps it from that.

        Args:
            slot: Where.
            loaded: Its configuration.
            measure: Whoever it must not fall short of.
        """
        try:
            child = await self._born(slot, loaded)
        except OSError as error:
            return str(error)
        trouble = await child.ready
        if not trouble and measure is not None:
            trouble = worse(measure.checks, child.checks)
        if trouble:
            child.kill()
        else:
            slot.child = child
        return trouble

    def _tell_to_retire(self, children: Iterable[Child], delay: float) -> None:
        times = [delay, self.loaded.settings.server.drain_timeout]
        for child in children:
            child.tell("retire", json.dumps(times).encode())

    def _say_superseded(self) -> None:
        """Have what is open in workers by older configurations judged again."""
        for child in self._children:
            if child.loaded is not self.loaded:
                child.tell("superseded")

    async def _watch(self) -> None:
        """Kill workers that hang: they are alive, so nobody else would notice."""
        while True:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(1)
            now = asyncio.get_running_loop().time()
            if now - before > LATE:  # we were frozen, and so, maybe, were they
                continue
            for child in filter(None, (slot.child for slot in self.slots)):
                if child.serves and now - child.heard > SILENCE:
                    logger.error("process %d hangs, and is killed", child.pid)
                    child.kill()

    # What operators ask

    async def reload(self) -> None:
        """Read the configuration again; put it in force if it is good (R103).

        One worker after another: the next is replaced when the last one has gone.
        """
        loaded, refused = await read_again(self._reread, self.loaded.settings)
        if loaded is not None:
            first, *others = self.slots
            refused = await self._replace(first, loaded, picky=True)
        self._refused = refused
        if loaded is None or refused:
            self._reloads.tell(refused, self.loaded.policy.generation)
            return
        for slot in others:
            for _ in range(TRIES):
                trouble = await self._replace(slot, loaded, picky=False)
                if not trouble:
                    break
                logger.error("worker %d is not new yet: %s", slot.number, trouble)
                await asyncio.sleep(FIRST_PAUSE)
            else:
                # Not for ever: what mends it may be the next configuration.
                self._refused = f"worker {slot.number} has the old one: {trouble}"
        self._reloads.tell(self._refused, loaded.policy.generation)

    def checks(self) -> list[Check]:
        """Say how the workers are, by what each of them reported last."""
        serving = [
            s.child for s in self.slots if s.child is not None and s.child.serves
        ]
        count = f"{len(serving)} of {len(self.slots)} serve"
        found = [
            *checks_of_life(self._refused, is_draining=self._is_draining),
            Check(
                "workers",
                count if len(serving) < len(self.slots) else "",
                fatal=not serving,
            ),
        ]
        return [*found, *merged([child.checks for child in serving])]

    async def revoke(self, orders: Orders) -> Told:
        """Have *orders* carried out; see Engine.revoke.

        By one of them: what they decide by is the store that they share.
        """
        within = ORDER_LIMIT + orders.wait
        orders = replace(orders, until=CLOCK.wall() + ORDER_LIMIT)
        told = await self._ordered("revoke", orders.dump(), within)
        if "refused" in told:
            raise OrderRefused(*told["refused"])
        if orders.dry_run:
            # The list is one, but each of them has streams of its own.
            every = await self._ask_each("revoke", orders.dump())
            found = [json.loads(answer)["orders"] for _, answer in every if answer]
            for place, each in enumerate(told["orders"]):
                each["open_streams"] = sum(a[place]["open_streams"] for a in found)
        return told

    async def inquire(self, inquiry: Inquiry) -> Told:
        """Have a worker say what the list holds; see RevocationDesk.inquire."""
        told = await self._ordered("revocations", inquiry.dump(), INQUIRY_LIMIT)
        if "refused" in told:
            raise OrderRefused(*told["refused"])
        return told

    async def order_keys(self, order: KeyOrder) -> Told:
        """Have *order* carried out by one of the workers; see Engine.order_keys."""
        told = await self._ordered("api_keys", json.dumps(asdict(order)).encode())
        if "refused" in told:
            raise KeyRefused(*told["refused"])
        return told

    async def _ordered(
        self, name: str, said: bytes, within: float = ORDER_LIMIT
    ) -> dict[str, Any]:
        """Return what the first worker that could be asked says to an order.

        Args:
            name: Of the order.
            said: The rest of it.
            within: Seconds, for each of them.

        Raises:
            Unavailable: What it depends on did not answer, or nobody could be asked.
        """
        for slot in self.slots:
            child = slot.child
            if child is None or not child.serves:
                continue
            try:
                answer = await child.ask(name, said, within=within)
            except (OSError, Refused):  # it died, it hangs, or it has a mistake
                continue
            told: dict[str, Any] = json.loads(answer)
            if "away" in told:
                raise Unavailable(told["away"])
            return told
        raise Unavailable("every worker")

    async def _judged(self, standings: bytes) -> bytes:
        """Return what a worker by the configuration in force says to *standings*.

        Raises:
            Unavailable: There is none that answers.
        """
        for slot in self.slots:
            child = slot.child
            if child is None or not child.serves or child.loaded is not self.loaded:
                continue
            # Who died or hangs: the next one may answer.
            with contextlib.suppress(OSError, Refused):
                return await child.ask("judge", standings, within=JUDGE_LIMIT)
        raise Unavailable("every worker")

    async def snapshots(self) -> list[Snapshot]:
        """Return what each process has counted, those that are no more together.

        Of one that does not answer it is what it has said before, and nothing of how it
        is now. What one that was killed counted after that is lost.
        """
        found = []
        for child, answer in await self._ask_each("snapshot"):
            if child.gone.is_set():  # its counts are among those of the ended
                continue
            if answer is not None:
                child.measured = load(answer)
                found.append(child.measured)
            else:
                found.append(lasting(child.measured))
        samples = itertools.chain(self._reloads.measure(), process.measure())
        return [Metrics().snapshot(samples), self._ended, *found]

    async def keys(self) -> key_status.KeyReport:
        """Say how all keys are, as far as the workers that answer know."""
        answers = await self._ask_each("keys")
        return key_status.merged(
            [key_status.load(answer) for _, answer in answers if answer]
        )

    async def _ask_each(
        self, name: str, said: bytes = b""
    ) -> list[tuple[Child, bytes | None]]:
        """Ask every worker that serves; None: it does not answer."""
        asked = [child for child in self._children if child.serves]
        answers = await asyncio.gather(
            *(child.ask(name, said, within=SNAPSHOT_LIMIT) for child in asked),
            return_exceptions=True,
        )
        return [
            (child, answer if isinstance(answer, bytes) else None)
            for child, answer in zip(asked, answers, strict=True)
        ]


def merged(reports: Sequence[Sequence[Check]]) -> list[Check]:
    """Return one check of each name: in trouble where any is, fatal where all are."""
    by_name: dict[str, list[Check]] = {}
    for each in reports:
        for check in each:
            by_name.setdefault(check.name, []).append(check)
    return [
        Check(
            name,
            "; ".join(dict.fromkeys(each.trouble for each in checks if each.trouble)),
            fatal=all(each.fatal and each.trouble for each in checks),
            note="; ".join(dict.fromkeys(each.note for each in checks if each.note)),
        )
        for name, checks in by_name.items()
    ]


def _settle(child: asyncio.Future[Child], outcome: Child | OSError) -> bool:
    """Tell whoever wants *child* the outcome; False: nobody does any more."""
    if child.done():
        return False
    if isinstance(outcome, OSError):
        child.set_exception(outcome)
    else:
        child.set_result(outcome)
    return True


def _longer(pause: float) -> float:
    return min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)

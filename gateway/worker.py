"""One of several worker processes: a Worker that takes its orders from the supervisor.

It begins as a copy of the supervisor, made by fork(): the configuration, already
validated, and the modules are there, in memory that both share. It ignores the signals
that a terminal or a service manager sends to everybody; it is told what to do by its
line, and when the line ends, so does it.

Imports: gateway.app, gateway.asgi, gateway.channel, gateway.config.load,
gateway.model, gateway.observe, gateway.proxy.standing, gateway.serving,
gateway.signals, gateway.tokens.key_status; uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import uvloop

from gateway.app import Background, Engine, Log
from gateway.asgi.api_keys import KeyOrder, KeyRefused, order_with
from gateway.asgi.probes import Check
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import OrderRefused, Orders
from gateway.channel import Channel, Refused
from gateway.config.load import Loaded
from gateway.model import Unavailable
from gateway.observe.metrics import dump
from gateway.proxy import standing
from gateway.proxy.standing import Standing, Verdict
from gateway.serving import Worker, calm_collector
from gateway.signals import unless
from gateway.tokens import key_status

logger = logging.getLogger("gateway")

# Seconds between two reports to the supervisor, whose probes answer by the last one.
REPORT = 1.0
# Seconds to say why there will be no worker.
LAST_WORDS = 1.0
# Seconds for another worker to judge some streams; it may have to ask somebody.
JUDGE_LIMIT = 5.0
OTHERS = "every worker"


class Logs(Protocol):
    """Where log lines go. A process has its own: threads don't survive a fork."""

    def open(self, *, requests: bool) -> None:
        """Start what writes them; *requests*: those of the access log too."""
        ...

    def close(self) -> None:
        """Write what waits, and end every thread."""
        ...

    def lost(self) -> Mapping[str, int]:
        """Return how many lines never got out, by the log's name."""
        ...

    @property
    def put(self) -> Log: ...


@dataclass(frozen=True, slots=True)
class Birth:
    """All that a worker process is made of."""

    loaded: Loaded
    sockets: Sequence[socket.socket]
    private: Path  # the directory for sockets to ourselves
    token_key: bytes  # one for all, or a token would have a name, and a key, in each
    logs: Logs
    kept: Sequence[int] = ()  # further descriptors that stay open


def become(birth: Birth, line: socket.socket) -> NoReturn:
    """Be a worker from here to the end of the process. Called right after fork().

    What the supervisor's loop holds is never touched: its descriptors are closed under
    it, and nothing of it is collected.
    """
    status = 1
    try:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        kept = [line.fileno(), *(each.fileno() for each in birth.sockets), *birth.kept]
        close_all_but(kept)
        birth.logs.open(requests=True)
        calm_collector()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(Process(birth).run(line))
            status = 0
        except BaseException:
            logger.critical("a worker was ended by a mistake", exc_info=True)
        finally:
            birth.logs.close()
    finally:
        os._exit(status)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor but the standard ones and *kept*."""
    first = 3
    for each in sorted({each for each in kept if each >= first}):
        os.closerange(first, each)
        first = each + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


class Process:
    """What a worker process does."""

    def __init__(self, birth: Birth) -> None:
        self._birth = birth
        self._background = Background()
        self._asked_to_go = asyncio.Event()
        self._times = (0.0, birth.loaded.settings.server.drain_timeout)
        self._worker: Worker | None = None
        self._channel: Channel | None = None

    async def run(self, line: socket.socket) -> None:
        """Serve until told to go, or until the supervisor is no more."""
        spawn = self._background.spawn
        channel = self._channel = await Channel.over(line, spawn)
        listening = spawn(channel.serve(self.handle))
        listening.add_done_callback(lambda _: self._asked_to_go.set())
        try:
            birth = self._birth
            engine = Engine(birth.loaded, token_key=birth.token_key)
            worker = self._worker = Worker(engine, birth.logs.put)
            starting = worker.start(birth.sockets, birth.private)
            if await unless(self._asked_to_go, starting):
                channel.tell("ready", report(worker.checks()))
                await unless(self._asked_to_go, self._report(channel, worker))
                await worker.retire(*self._times)
                # What it has counted is not to vanish with it.
                with contextlib.suppress(ConnectionError, TimeoutError):
                    said = self._measured(worker)
                    await channel.ask("measured", said, within=LAST_WORDS)
        except (OSError, ValueError) as error:
            is_config = isinstance(error, ValueError)
            said = json.dumps({"config": is_config, "why": str(error)}).encode()
            with contextlib.suppress(ConnectionError, TimeoutError):
                await channel.ask("failed", said, within=LAST_WORDS)
        finally:
            if self._worker is not None:
                await self._worker.aclose()
            await self._background.aclose()

    async def handle(self, name: str, said: bytes) -> bytes:
        """Carry out one order of the supervisor; return the answer."""
        worker = self._worker
        if name == "retire":
            delay, grace = json.loads(said)
            self._times = (delay, grace)
            self._asked_to_go.set()
        elif name == "superseded" and worker is not None:
            worker.superseded(self._judged_by_others)
        elif name == "judge" and worker is not None:
            proxies = worker.settings.server.trusted_proxies
            verdicts = await worker.engine.judge(standing.load(said, proxies))
            return standing.dump_verdicts(verdicts)
        elif name == "drain" and worker is not None:
            worker.drain()
        elif name == "snapshot" and worker is not None:
            return self._measured(worker)
        elif name == "keys" and worker is not None:
            return key_status.dump(worker.engine.key_report())
        elif name == "revoke" and worker is not None:
            desk = worker.engine.revocation_desk
            return await _told(desk.carry_out(Orders.load(said)))
        elif name == "revocations" and worker is not None:
            desk = worker.engine.revocation_desk
            return await _told(desk.inquire(Inquiry.load(said)))
        elif name == "api_keys" and worker is not None:
            return await _order_keys(
                worker, order_with(KeyOrder("list"), **json.loads(said))
            )
        return b""

    async def _judged_by_others(
        self, standings: Sequence[Standing]
    ) -> Sequence[Verdict]:
        """Have a worker by the newest configuration judge; the supervisor finds it."""
        found: list[Verdict] = []
        try:
            for count, said in standing.dump(standings):
                assert self._channel is not None, "somebody has given the order"
                answer = await self._channel.ask("judge", said, within=JUDGE_LIMIT)
                verdicts = standing.load_verdicts(answer)
                if len(verdicts) != count:
                    raise Unavailable(OTHERS)
                found += verdicts
        except (OSError, Refused):
            # It died, or there is none yet: another one may be asked again.
            raise Unavailable(OTHERS) from None
        return found

    def _measured(self, worker: Worker) -> bytes:
        return dump(worker.snapshot(self._birth.logs.lost()))

    async def _report(self, channel: Channel, worker: Worker) -> None:
        while True:
            await asyncio.sleep(REPORT)
            channel.tell("report", report(worker.checks()))


def report(checks: Sequence[Check]) -> bytes:
    """Return *checks* as they go over the line."""
    return json.dumps([asdict(check) for check in checks]).encode()


def reported(said: bytes) -> list[Check]:
    """Return the checks in a report."""
    return [Check(**check) for check in json.loads(said)]


async def _told(answer: Awaitable[dict[str, Any]]) -> bytes:
    try:
        told = await answer
    except Unavailable as outage:
        told = {"away": outage.dependency}
    except OrderRefused as refusal:
        told = {"refused": [str(refusal), refusal.name, refusal.place]}
    return json.dumps(told).encode()


async def _order_keys(worker: Worker, order: KeyOrder) -> bytes:
    told: dict[str, Any]
    try:
        told = await worker.engine.order_keys(order)
    except Unavailable as outage:
        told = {"away": outage.dependency}
    except KeyRefused as refusal:
        told = {"refused": [refusal.status, str(refusal)]}
    return json.dumps(told).encode()

"""Measure the gateway beside its peers, and beside itself: `make bench`.

Core 0 is the contestant's, core 1 the load's and the backend's. The servers of a group
run for the whole of its time and idle while it is not their turn; its contestants take
turns within each round, and each round starts with another one. What is quoted are
medians.

    make bench GROUPS=growth,memory             # only these; all: see GROUPS below
    ROUNDS=7 SECONDS=5 make bench               # longer, steadier
    PEERS="gateway,nginx plain" make bench      # of the peers only these

Everything stays on loopback and in bench/.run; every process is stopped by its id.

Imports: bench.latency, bench.lineup, bench.load, bench.pace, bench.processes,
bench.results, bench.site, bench.snapshot, bench.sockets, bench.state, bench.streams,
bench.trial.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from bench.latency import TRIES, added, paced, revocation
from bench.lineup import (
    CONTESTANTS,
    FILES,
    LIVE,
    REVOKED,
    Contestant,
    Server,
    servers,
)
from bench.load import Reading, SpoiltError, measure
from bench.pace import Pace, WrongError
from bench.processes import (
    NotStartedError,
    cpu_seconds,
    resident,
    said_version,
    started,
)
from bench.results import BROWSER, MINIMAL, Figure, Findings, chart, record, table
from bench.site import BROWSER as BROWSER_HEADERS
from bench.site import CALL, HERE, SOCKET, STREAM, STREAM_BYTES, Site, prepare
from bench.snapshot import snapshot
from bench.sockets import CONNECTIONS, LONGEST, TEXT, Chat, chat, opened_socket
from bench.state import SETTLED, memory, start_time, starts
from bench.streams import DIRECTIONS, Flow, stream
from bench.trial import UnfitError, examine

SCRATCH = HERE / ".run"
RESULTS = HERE / "results"
CORES = 2
GROUPS = (
    "peers",
    "growth",
    "tokens",
    "memory",
    "latency",
    "streams",
    "sockets",
    "start",
    "snapshot",
)
STARTS = 5


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: who takes part, where, and what was found so far."""

    site: Site
    contestants: Sequence[Contestant]
    servers: dict[str, Server]
    findings: Findings
    rounds: int
    seconds: int
    pids: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)  # answered, by each server
    idle: dict[str, int] = field(default_factory=dict)  # bytes, by each server
    lines: list[str] = field(default_factory=list)  # what the access logs held

    def run(self, groups: Collection[str]) -> None:
        """Measure *groups*, one after another."""
        if "peers" in groups:
            with self.running("peers") as fit:
                self.take_turns(fit)
        if "growth" in groups or "memory" in groups:
            self.grow(groups)
        if "tokens" in groups:
            with self.running("tokens") as fit:
                self.take_turns(fit)
        if "latency" in groups:
            with self.running("latency", ("nginx", "gateway")):
                self.add_latency()
            with self.running("latency", ("gateway",)):
                self.revoke("one worker", "gateway", "gateway")
            with self.running(
                "latency", ("redis", "gateway-redis-1", "gateway-redis-2")
            ):
                self.revoke(
                    "two instances, one Redis", "gateway-redis-1", "gateway-redis-2"
                )
        if "streams" in groups:
            with self.running("streams", ("streams", "nginx", "gateway-streams")):
                self.stream()
        if "sockets" in groups:
            with self.running("sockets", ("sockets", "nginx", "gateway-sockets")):
                self.chat()
        if "start" in groups:
            with self.running("start"):
                self.start()
        if "snapshot" in groups:
            with self.running("snapshot", ("redis",)):
                self.learn()

    @contextlib.contextmanager
    def running(
        self, group: str, also: Collection[str] = ()
    ) -> Iterator[list[Contestant]]:
        """Run the servers of *group* and *also*; give who of the group is fit."""
        _say(f"{group}, {time.strftime('%H:%M:%S')}:")
        theirs = [who for who in self.contestants if who.group == group]
        wanted = {"backend", *also, *(who.server for who in theirs)}
        counts: dict[str, Path] = {}
        self.asked.clear()
        self.pids.clear()
        with contextlib.ExitStack() as stack:
            for server in self.servers.values():
                if server.name not in wanted:
                    continue
                if server.missing:
                    self.findings.skipped[server.name] = server.missing
                    continue
                if server.counts_lines:
                    counts[server.name] = self.site.run / f"{server.name}.lines"
                process = started(
                    server.command,
                    core=server.core,
                    port=server.port,
                    log=self.site.run / f"{server.name}.out",
                    env=server.env,
                    stdout_lines=counts.get(server.name),
                    patience=server.patience,
                )
                try:
                    self.pids[server.name] = stack.enter_context(process).pid
                except NotStartedError as error:
                    self.findings.unfit[server.name] = f"did not start: {error}"
            time.sleep(SETTLED)
            self.idle.update({name: resident(pid) for name, pid in self.pids.items()})
            yield [who for who in theirs if self.is_fit(who)]
        # How many lines a gateway wrote, beside what it was asked to do.
        for name, count in counts.items():
            if name in self.asked:
                found = count.read_text(encoding="ascii").strip() or "0"
                said = f"{found} lines for {self.asked[name]} requests and the trial"
                self.lines.append(f"access log, {group}, {name}: {said}")

    def is_fit(self, who: Contestant) -> bool:
        """Tell whether *who* runs, lets pass and refuses as its row says."""
        if who.server not in self.pids:
            return False
        tokens = self.site.tokens[who.algorithm]
        try:
            examine(who, self.servers[who.server].port, tokens)
        except (UnfitError, OSError) as error:
            self.findings.unfit[who.name] = str(error)
            return False
        _say(f"  {who.name}: lets pass and refuses as it says")
        return True

    def measure(
        self, who: Contestant, kind: str, seconds: int, first: int = 0
    ) -> Reading | None:
        """Return what wrk saw of *who*; None, and a note, where there were errors."""
        fields, tokens = {}, None
        if who.tokens:
            tokens = self.site.mint(who.tokens, *FILES[who.tokens])
        else:
            fields["Authorization"] = f"Bearer {self.site.tokens[who.algorithm].good}"
        if kind == BROWSER:
            fields |= BROWSER_HEADERS
        port, pid = self.servers[who.server].port, self.pids[who.server]
        before = cpu_seconds(pid)
        try:
            reading = measure(
                port, who.path, fields, seconds=seconds, tokens=tokens, first=first
            )
        except SpoiltError as error:
            self.findings.spoilt.append(f"{who.name}, {kind}: {error}")
            return None
        self.asked[who.server] = self.asked.get(who.server, 0) + reading.requests
        used = cpu_seconds(pid) - before
        return replace(reading, cpu=used * 1e6 / max(reading.requests, 1))

    def take_turns(self, fit: Sequence[Contestant]) -> None:
        """Let everybody who is fit take turns, in each round."""
        for who in fit:  # fill pools and caches: the first round is like the others
            self.measure(who, MINIMAL, seconds=1)
        for number in range(self.rounds):
            _say(f"  round {number + 1} of {self.rounds}")
            turn = number % max(len(fit), 1)
            for who in (*fit[turn:], *fit[:turn]):
                for kind in (MINIMAL, BROWSER) if who.browser else (MINIMAL,):
                    reading = self.measure(who, kind, self.seconds)
                    if reading is not None:
                        self.findings.add(who.name, kind, reading)
                        _say(f"    {who.name}, {kind}: {reading.rate:,.0f}")

    def grow(self, groups: Collection[str]) -> None:
        """Measure what many routes, tokens and revoked entries cost."""
        with self.running("growth") as fit:
            live = next((who for who in fit if who.tokens == "live"), None)
            if live is None:
                return
            pid = self.pids[live.server]
            before = resident(pid)
            self._fill(live)
            if "memory" in groups and "gateway-revoked" in self.pids:
                self.findings.figures += memory(
                    self.idle["gateway"],
                    self.idle["gateway-revoked"],
                    before,
                    resident(pid),
                )
            if "growth" in groups:
                self.take_turns(fit)

    def _fill(self, who: Contestant) -> None:
        """Present each of its tokens once."""
        done = 0
        _say(f"  {who.name}: {LIVE:,} tokens are presented")
        while done < LIVE:
            reading = self.measure(who, MINIMAL, seconds=4, first=done)
            if reading is None:
                return
            done += reading.requests

    def add_latency(self) -> None:
        """Ask at a fixed rate: the backend, and the same through the others."""
        names = [name for name in ("backend", "nginx", "gateway") if name in self.pids]
        token = self.site.tokens["RS256"].good
        fields = {"Authorization": f"Bearer {token}"}
        found: dict[str, list[Pace]] = {name: [] for name in names}
        for number in range(-1, self.rounds):  # one round is not counted
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                port = self.servers[name].port
                try:
                    pace = paced(port, CALL, fields, seconds=self.seconds)
                except WrongError as error:
                    self.findings.spoilt.append(f"{name}, 1,000 req/s: {error}")
                    continue
                self.asked[name] = self.asked.get(name, 0) + pace.requests
                if number >= 0:
                    found[name].append(pace)
                    _say(f"  {name}: {pace.p50:.3f} {pace.p99:.3f} ms")
        for name in names[:0:-1]:
            if found[name] and found["backend"]:
                self.findings.figures += added(
                    name, found[name], found["backend"], goal=name == "gateway"
                )

    def revoke(self, how: str, ordered: str, asked: str) -> None:
        """Revoke tokens at *ordered* and see when *asked* refuses them."""
        if not {ordered, asked} <= self.pids.keys():
            return
        name = f"revoked-{ordered}"
        file = self.site.mint(name, "RS256", TRIES)
        tokens = file.read_text(encoding="ascii").split()
        try:
            self.findings.figures += revocation(
                how,
                self.site.run / ordered / "admin.sock",
                self.servers[asked].port,
                CALL,
                [(token, f"{name}-{number}") for number, token in enumerate(tokens)],
            )
        except (WrongError, OSError) as error:
            self.findings.spoilt.append(f"revocation, {how}: {error}")

    def learn(self) -> None:
        """Let mirrors learn what is revoked."""
        if "redis" not in self.pids:
            return
        port = self.servers["redis"].port
        try:
            self.findings.figures += snapshot(port, REVOKED, self.rounds)
        except (WrongError, OSError) as error:
            self.findings.spoilt.append(f"snapshot: {error}")

    def stream(self) -> None:
        """Let a gigabyte through each, in both directions, in turn."""
        token = self.site.tokens["RS256"].good
        fields = {"Authorization": f"Bearer {token}"}
        names = [name for name in ("nginx", "gateway-streams") if name in self.pids]
        found: dict[tuple[str, str], list[Flow]] = {}
        for number in range(-1, self.rounds):  # one round is not counted
            for direction in DIRECTIONS:
                for name in names if number % 2 else names[::-1]:
                    try:
                        flow = stream(
                            direction,
                            self.servers[name].port,
                            STREAM,
                            fields,
                            size=STREAM_BYTES,
                            pid=self.pids[name],
                        )
                    except (WrongError, OSError) as error:
                        self.findings.spoilt.append(f"{name}, {direction}: {error}")
                        continue
                    _say(f"  {name}, {direction}: {flow.rate:,.0f} MiB/s")
                    if number >= 0:
                        found.setdefault((name, direction), []).append(flow)
        self.findings.figures += flows(found)

    def chat(self) -> None:
        """Let messages through each and back, in turn."""
        token = self.site.tokens["RS256"].good
        fields = {"Authorization": f"Bearer {token}"}
        names = [name for name in ("nginx", "gateway-sockets") if name in self.pids]
        found: dict[str, list[Chat]] = {}
        for name in names:
            if name != "nginx" and _opens(self.servers[name].port):
                self.findings.unfit[name] = "a WebSocket opens without a token"
                return
        for number in range(-1, self.rounds):  # one round is not counted
            for name in names if number % 2 else names[::-1]:
                try:
                    one = chat(
                        self.servers[name].port,
                        SOCKET,
                        fields,
                        seconds=min(self.seconds, LONGEST),
                        pid=self.pids[name],
                    )
                except (WrongError, OSError) as error:
                    self.findings.spoilt.append(f"{name}, messages: {error}")
                    continue
                self.asked[name] = self.asked.get(name, 0) + CONNECTIONS
                _say(f"  {name}: {one.rate:,.0f} messages/s, {one.cpu:.1f} us each")
                if number >= 0:
                    found.setdefault(name, []).append(one)
        self.findings.figures += chats(found)

    def start(self) -> None:
        """Start a gateway several times."""
        token = self.site.tokens["RS256"].good
        fields = {"Authorization": f"Bearer {token}"}
        server, took = self.servers["gateway"], []
        if server.missing:
            return
        for _ in range(STARTS):
            try:
                log = self.site.run / "start.out"
                took.append(start_time(server, CALL, fields, log))
            except NotStartedError as error:
                self.findings.spoilt.append(str(error))
        if took:
            self.findings.figures.append(starts(tuple(took)))


def flows(found: Mapping[tuple[str, str], Sequence[Flow]]) -> list[Figure]:
    """Return the figures of all streams, by proxy and direction."""
    figures = []
    for direction in DIRECTIONS:
        ours = found.get(("gateway-streams", direction))
        theirs = found.get(("nginx", direction))
        if ours and theirs:
            rate = median(flow.rate for flow in theirs)
            cpu = median(flow.cpu for flow in theirs) / median(f.cpu for f in ours)
            note = f"nginx, its default buffers: {rate:,.0f} MiB/s; by cpu {cpu:.2f}"
            figures.append(
                Figure(
                    f"1 GiB {direction}, gateway / nginx plain",
                    "streams",
                    "",
                    tuple(flow.rate / rate for flow in ours),
                    least=0.5,
                    note=note,
                )
            )
        for name, each in (("gateway", ours), ("nginx plain", theirs)):
            if each:
                figures.append(
                    Figure(
                        f"1 GiB {direction}, {name}: memory grows by",
                        "streams",
                        "MiB",
                        tuple(flow.grown for flow in each),
                        most=8.0 if name == "gateway" else None,
                        note="most VmRSS meanwhile, less before",
                    )
                )
    return figures


def chats(found: Mapping[str, Sequence[Chat]]) -> list[Figure]:
    """Return the figures of all messages, by proxy."""
    figures = []
    ours, theirs = found.get("gateway-sockets"), found.get("nginx")
    how = f"{len(TEXT)} bytes of text, {CONNECTIONS} connections, there and back"
    if ours and theirs:
        rate = median(one.rate for one in theirs)
        cpu = median(one.cpu for one in theirs) / median(one.cpu for one in ours)
        figures.append(
            Figure(
                "WebSocket messages, gateway / nginx plain",
                "sockets",
                "",
                tuple(one.rate / rate for one in ours),
                note=f"nginx: {rate:,.0f} messages/s; by cpu {cpu:.2f}",
            )
        )
    for name, each in (("gateway", ours), ("nginx plain", theirs)):
        if each:
            figures.append(
                Figure(
                    f"cpu of each WebSocket message, {name}",
                    "sockets",
                    "us",
                    tuple(one.cpu for one in each),
                    note=how,
                )
            )
    return figures


def _opens(port: int) -> bool:
    """Tell whether a WebSocket opens for somebody without a token."""
    try:
        with opened_socket(port, SOCKET, {}):
            return True
    except WrongError:
        return False


def main() -> int:
    """Return 1 when a peer that is installed does not do what it says."""
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            print(f"skipped: {tool} is not installed, nothing was measured")
            return 0
    if (os.cpu_count() or 1) < CORES:
        print("skipped: one core is not enough, nothing was measured")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers = os.environ.get("PEERS", "")
    groups = chosen_groups(",".join(sys.argv[1:]) or ("peers" if peers else ""))
    rounds, seconds = _bounded("ROUNDS", 3, 50), _bounded("SECONDS", 2, 60)

    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    site = prepare(SCRATCH)
    lineup = {server.name: server for server in servers(site)}
    bench = Bench(site, _chosen(peers), lineup, Findings(), rounds, seconds)
    for who in bench.contestants:
        if who.tokens and who.group in _with_servers(groups):
            _say(f"tokens of {who.name}")
            site.mint(who.tokens, *FILES[who.tokens])
    # What runs here while something is measured keeps away from core 0.
    os.sched_setaffinity(0, {1})
    begun = time.monotonic()
    bench.run(groups)

    print(table(bench.findings, bench.contestants, lineup))
    print("\n".join(bench.lines))
    asked = {"groups": groups, "rounds": rounds, "seconds": seconds}
    _write(bench, asked | {"took": round(time.monotonic() - begun)})
    return 1 if bench.findings.unfit else 0


def chosen_groups(names: str) -> list[str]:
    """Return the groups named, all where none is; leave the program on another."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    unknown = wanted - set(GROUPS)
    if unknown:
        sys.exit(
            f"GROUPS: unknown: {', '.join(sorted(unknown))}; known: {', '.join(GROUPS)}"
        )
    return [name for name in GROUPS if not wanted or name in wanted]


def _with_servers(groups: Collection[str]) -> set[str]:
    # The memory of live tokens is that of a server that grows.
    return {*groups, "growth"} if "memory" in groups else {*groups}


def _bounded(name: str, default: int, most: int) -> int:
    return max(1, min(most, int(os.environ.get(name, default))))


def _chosen(names: str) -> Sequence[Contestant]:
    """Return everybody; of the peers only those in *names*, if it names any."""
    peers = {who.name for who in CONTESTANTS if who.group == "peers"}
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if wanted - peers:
        sys.exit(f"PEERS: unknown: {', '.join(sorted(wanted - peers))}")
    return [
        who
        for who in CONTESTANTS
        if not wanted or who.name in wanted or who.group != "peers"
    ]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _write(bench: Bench, asked: Mapping[str, object]) -> None:
    now = dt.datetime.now(dt.UTC)
    found = {
        "at": now.isoformat(timespec="seconds"),
        "connections": 64,
        **asked,
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "wrk": said_version(["wrk", "-v"]),
        },
        "access_logs": bench.lines,
        **record(bench.findings, bench.contestants, bench.servers),
    }
    RESULTS.mkdir(exist_ok=True)
    name = now.strftime("%Y-%m-%dT%H-%M-%SZ")
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    (RESULTS / f"{name}.svg").write_text(chart(bench.findings, bench.contestants))
    print(f"written: bench/results/{name}.json and .svg")


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


if __name__ == "__main__":
    sys.exit(main())

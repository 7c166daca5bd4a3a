"""Measure the gateway beside its peers: `make bench`.

Core 0 is the contestant's, core 1 the load's and the backend's. All servers run for
the whole time and idle while it is not their turn; the contestants take turns within
each round, and each round starts with another one. What is quoted are medians.

    ROUNDS=5 SECONDS=5 make bench           # longer, steadier
    PEERS="gateway,nginx plain" make bench  # only these

Everything stays on loopback and in bench/.run; every process is stopped by its id.

Imports: bench.lineup, bench.load, bench.processes, bench.results, bench.site,
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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.lineup import CONTESTANTS, Contestant, Server, servers
from bench.load import Reading, SpoiltError, measure
from bench.processes import NotStartedError, cpu_seconds, said_version, started
from bench.results import BROWSER, MINIMAL, Findings, chart, record, table
from bench.site import BROWSER as BROWSER_HEADERS
from bench.site import HERE, Site, prepare
from bench.trial import UnfitError, examine

SCRATCH = HERE / ".run"
RESULTS = HERE / "results"
LOG_COUNT = SCRATCH / "access-log-lines"
CORES = 2


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: who takes part, where, and what was found so far."""

    site: Site
    contestants: Sequence[Contestant]
    servers: dict[str, Server]
    findings: Findings
    pids: dict[str, int] = field(default_factory=dict)

    def start(self, stack: contextlib.ExitStack) -> None:
        """Start what is installed, until *stack* closes."""
        wanted = {"backend"} | {who.server for who in self.contestants}
        for server in self.servers.values():
            if server.name not in wanted:
                continue
            if server.missing:
                self.findings.skipped[server.name] = server.missing
                continue
            process = started(
                server.command,
                core=server.core,
                port=server.port,
                log=self.site.run / f"{server.name}.out",
                env=server.env,
                stdout_lines=LOG_COUNT if server.counts_lines else None,
            )
            try:
                self.pids[server.name] = stack.enter_context(process).pid
            except NotStartedError as error:
                self.findings.unfit[server.name] = f"did not start: {error}"

    def is_fit(self, who: Contestant) -> bool:
        """Tell whether *who* runs, lets pass and refuses as its row says."""
        if who.server in self.findings.skipped | self.findings.unfit:
            return False
        try:
            examine(who, self.servers[who.server].port, self.site.tokens)
        except (UnfitError, OSError) as error:
            self.findings.unfit[who.name] = str(error)
            return False
        _say(f"{who.name}: lets pass and refuses as it says")
        return True

    def measure(self, who: Contestant, kind: str, seconds: int) -> Reading | None:
        """Return what wrk saw of *who*; None, and a note, where there were errors."""
        fields = {"Authorization": f"Bearer {self.site.tokens.good}"}
        if kind == BROWSER:
            fields |= BROWSER_HEADERS
        port, pid = self.servers[who.server].port, self.pids[who.server]
        before = cpu_seconds(pid)
        try:
            reading = measure(port, who.path, fields, seconds=seconds)
        except SpoiltError as error:
            self.findings.spoilt.append(f"{who.name}, {kind}: {error}")
            return None
        asked = self.findings.asked
        asked[who.server] = asked.get(who.server, 0) + reading.requests
        used = cpu_seconds(pid) - before
        return replace(reading, cpu=used * 1e6 / max(reading.requests, 1))

    def go(self, rounds: int, seconds: int) -> None:
        """Let everybody who is fit take turns, *rounds* times."""
        with contextlib.ExitStack() as stack:
            self.start(stack)
            fit = [who for who in self.contestants if self.is_fit(who)]
            for who in fit:  # fill pools and caches: the first round is like the others
                self.measure(who, MINIMAL, seconds=1)
            for number in range(rounds):
                _say(f"round {number + 1} of {rounds}")
                turn = number % max(len(fit), 1)
                for who in fit[turn:] + fit[:turn]:
                    for kind in (MINIMAL, BROWSER) if who.browser else (MINIMAL,):
                        reading = self.measure(who, kind, seconds)
                        if reading is not None:
                            self.findings.add(who.name, kind, reading)
                            _say(f"  {who.name}, {kind}: {reading.rate:,.0f}")


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
    rounds, seconds = _bounded("ROUNDS", 3, 50), _bounded("SECONDS", 3, 60)

    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    site = prepare(SCRATCH)
    lineup = {server.name: server for server in servers(site)}
    bench = Bench(site, _chosen(os.environ.get("PEERS", "")), lineup, Findings())
    bench.go(rounds, seconds)

    print(table(bench.findings, bench.contestants, lineup))
    _compare_log(bench.findings)
    _write(bench, {"rounds": rounds, "seconds": seconds})
    return 1 if bench.findings.unfit else 0


def _bounded(name: str, default: int, most: int) -> int:
    return max(1, min(most, int(os.environ.get(name, default))))


def _chosen(names: str) -> Sequence[Contestant]:
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    unknown = wanted - {who.name for who in CONTESTANTS}
    if unknown:
        sys.exit(f"PEERS: unknown: {', '.join(sorted(unknown))}")
    return [who for who in CONTESTANTS if not wanted or who.name in wanted]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _compare_log(findings: Findings) -> None:
    """Say how many lines the gateway wrote, beside what it was asked to do."""
    if not LOG_COUNT.exists():
        return
    lines = LOG_COUNT.read_text(encoding="ascii").strip() or "0"
    asked = findings.asked.get("gateway", 0)
    print(
        f"access log of the gateway: {lines} lines for {asked} requests and the trial"
    )


def _write(bench: Bench, asked: dict[str, int]) -> None:
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

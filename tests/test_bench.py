"""The bench: what it counts, and what it refuses to count."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.lineup import CONTESTANTS, servers
from bench.load import Reading, SpoiltError, read
from bench.processes import NotStartedError, cpu_seconds, started
from bench.results import GOALS, MINIMAL, Findings, chart, record, table
from bench.site import BODY, BROWSER, TEMPLATES, Site, Tokens, free_port, prepare
from bench.trial import UnfitError, examine

REPORT = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Latency Distribution
     50%    1.23ms
     75%    1.50ms
     90%    1.70ms
     99%  450.00us
  42271 requests in 1.00s, 8.12MB read
Requests/sec:  42271.50
Transfer/sec:      8.12MB
"""
READING = Reading(rate=100.0, p50=1.0, p99=2.0, requests=100, cpu=20.0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return prepare(tmp_path_factory.mktemp("bench"))


def test_a_report_is_read_in_milliseconds() -> None:
    """The load generator chooses its units; the table has one."""
    assert read(REPORT) == Reading(rate=42271.5, p50=1.23, p99=0.45, requests=42271)


@pytest.mark.parametrize(
    "line",
    [
        "  Non-2xx or 3xx responses: 12",
        "  Socket errors: connect 0, read 1, write 0, timeout 0",
    ],
)
def test_a_run_with_errors_has_no_figure(line: str) -> None:
    """A gateway that refuses is fast; that is not what is measured."""
    with pytest.raises(SpoiltError, match=line.split(maxsplit=1)[0]):
        read(REPORT + line + "\n")


def test_what_is_compared_is_measured() -> None:
    """Every goal names two rows of the table, measured with that kind of request."""
    rows = {who.name: who for who in CONTESTANTS}
    for goal in GOALS:
        for name in (goal.of, goal.to):
            assert goal.kind == MINIMAL or rows[name].browser


def test_the_request_is_the_one_that_is_described(site: Site) -> None:
    """A token near 600 bytes, 59 bytes of JSON, 15 fields of a browser in 1.1 KB."""
    assert 580 <= len(site.tokens.good) <= 620
    assert len(BODY) == 59
    assert len(BROWSER) == 15
    size = sum(len(f"{name}: {value}\r\n") for name, value in BROWSER.items())
    assert 1000 <= size <= 1200


def test_every_name_in_a_config_is_filled_in(site: Site) -> None:
    """A config that a peer reads has no placeholder left."""
    servers(site)
    for template in TEMPLATES.glob("*.[ctky]*"):
        if template.suffix in {".conf", ".cfg", ".yaml", ".toml"}:
            written = site.fill(template.name, PORT=1, PROBES=2)
            assert not re.search(r"@[A-Z]+@", written.read_text(encoding="utf-8"))


def test_every_config_is_somebodys(site: Site) -> None:
    """bench/peers holds nothing that no server is started with."""
    used = {server.config for server in servers(site)} | {"orders.toml"}
    there = {path.name for path in TEMPLATES.iterdir() if path.is_file()}
    missing = {server.name for server in servers(site) if server.missing}
    assert used - {""} <= there
    assert missing or used == there


def test_who_is_not_installed_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that is not there is skipped by name, never counted as slow."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr("bench.lineup.BENCH_VENV", Path("/nowhere"))
    found = {server.name: server.missing for server in servers(site)}
    assert all(found[name] for name in found if name != "gateway")
    assert "httpx" in found["starlette-httpx"]


def test_a_ratio_needs_both_sides() -> None:
    """Nothing is said about a peer that was not measured."""
    findings = Findings()
    findings.add("gateway", MINIMAL, READING)
    assert {findings.ratio(goal) for goal in GOALS} == {None}
    findings.add("haproxy jwt_verify", MINIMAL, replace(READING, rate=40.0))
    findings.add("haproxy jwt_verify", MINIMAL, replace(READING, rate=60.0))
    found = {goal.to: findings.ratio(goal) for goal in GOALS if goal.kind == MINIMAL}
    assert found["haproxy jwt_verify"] == 2.0


def test_processor_time_is_compared_the_other_way_round() -> None:
    """Half the time for each request is twice the speed."""
    findings = Findings()
    findings.add("gateway", MINIMAL, READING)
    findings.add("nginx plain", MINIMAL, replace(READING, cpu=10.0))
    found = {g.to: findings.cpu_ratio(g) for g in GOALS if g.kind == MINIMAL}
    assert found["nginx plain"] == 0.5
    assert cpu_seconds(os.getpid()) > 0


def test_the_tables_name_what_was_left_out(site: Site) -> None:
    """Skipped, unfit and spoilt stand below the figures, and in the record."""
    findings = Findings(
        skipped={"nginx": "not installed"},
        unfit={"envoy plain": "a good token: 500"},
        spoilt=["backend, minimal: Socket errors"],
    )
    findings.add("gateway", MINIMAL, READING)
    lineup = {server.name: server for server in servers(site)}
    said = table(findings, CONTESTANTS, lineup)
    for words in ("nginx: not installed", "a good token: 500", "Socket errors"):
        assert words in said
    kept = record(findings, CONTESTANTS, lineup)
    assert kept["skipped"] == {"nginx": "not installed"}
    assert ">gateway<" in chart(findings, CONTESTANTS)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its last words are kept; nothing waits for the limit."""
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with (
        pytest.raises(NotStartedError, match="exit 1: no such thing"),
        started(command, core=0, port=free_port(), log=tmp_path / "log"),
    ):
        pass


class Door:
    """A peer that answers every request the same."""

    def __init__(self, body: str) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(self.answer.encode())

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.fixture
def open_door() -> Iterator[Door]:
    door = Door(BODY)
    yield door
    door.close()


def test_who_lets_everybody_pass_is_not_measured_as_a_guard(
    open_door: Door, site: Site
) -> None:
    """What a row claims to refuse is tried first, each thing by itself."""
    (plain,) = [who for who in CONTESTANTS if who.name == "nginx plain"]
    examine(plain, open_door.port, site.tokens)
    for what in ("none", "garbage", *site.tokens.bad):
        guard = replace(plain, refuses=frozenset({what}))
        with pytest.raises(UnfitError, match=f"{what}: 200, not refused"):
            examine(guard, open_door.port, site.tokens)


def test_who_answers_something_else_is_not_measured(site: Site) -> None:
    """The backend's own answer has to come back whole."""
    door = Door("{}")
    try:
        with pytest.raises(UnfitError, match="a good token"):
            examine(CONTESTANTS[0], door.port, Tokens("a.b.c", {}))
    finally:
        door.close()

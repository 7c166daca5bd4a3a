"""The bench: what it counts, and what it refuses to count."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import sockets, streams
from bench.flame import hottest
from bench.latency import added
from bench.lineup import (
    CONTESTANTS,
    FILES,
    MANY_ROUTES,
    Contestant,
    servers,
    shop_policy,
)
from bench.load import Reading, SpoiltError, read
from bench.pace import (
    Pace,
    WrongError,
    keep_pace,
    percentile,
    request_bytes,
    status_of,
)
from bench.ports import SLICE, free_port
from bench.processes import NotStartedError, cpu_seconds, resident, started
from bench.results import GOALS, MINIMAL, Figure, Findings, chart, record, table
from bench.run import GROUPS, chats, chosen_groups, flows
from bench.site import (
    BODY,
    BROWSER,
    ISSUERS,
    TEMPLATES,
    Site,
    Tokens,
    prepare,
)
from bench.snapshot import snapshot
from bench.sockets import Chat
from bench.start import filled
from bench.state import memory
from bench.streams import Flow
from bench.trial import UnfitError, examine
from gateway.app import CLOCK
from gateway.config.load import load
from gateway.wire.frames import Frames
from tests.redis_server import start_redis

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
    assert 580 <= len(site.tokens["RS256"].good) <= 620
    assert len(BODY) == 59
    assert len(BROWSER) == 15
    size = sum(len(f"{name}: {value}\r\n") for name, value in BROWSER.items())
    assert 1000 <= size <= 1200


def test_every_name_in_a_config_is_filled_in(site: Site) -> None:
    """A config that a peer reads has no placeholder left."""
    servers(site)
    for template in TEMPLATES.glob("*.[ctky]*"):
        if template.suffix in {".conf", ".cfg", ".yaml", ".toml"}:
            names = ("PORT", "PROBES", "REDIS", "NAME", "COUNT", "ISSUERS")
            values = {**dict.fromkeys(names, "1"), "ALGORITHM": "RS256", "KEY": "1"}
            written = site.fill(template.name, f"{template.name}.test", **values)
            assert not re.search(r"@[A-Z]+@", written.read_text(encoding="utf-8"))


def test_every_config_is_somebodys(site: Site) -> None:
    """bench/peers holds nothing that no server is started with."""
    used = {name for it in servers(site) for name in it.config.split(" + ")}
    used = used - {""} | {"orders.toml", "streams.toml", "sockets.toml"}  # policies
    there = {path.name for path in TEMPLATES.iterdir() if path.is_file()}
    missing = {server.name for server in servers(site) if server.missing}
    assert used <= there
    assert missing or used == there


def test_who_is_not_installed_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that is not there is skipped by name, never counted as slow."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr("bench.lineup.BENCH_VENV", Path("/nowhere"))
    found = {server.name: server.missing for server in servers(site)}
    ours = ("gateway", "streams", "sockets")
    assert all(found[name] for name in found if not name.startswith(ours))
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
    assert resident(os.getpid()) > 1 << 20


def test_the_tables_name_what_was_left_out(site: Site) -> None:
    """Skipped, unfit and spoilt stand below the figures, and in the record."""
    findings = Findings(
        skipped={"nginx": "not installed"},
        unfit={"envoy plain": "a good token: 500"},
        spoilt=["backend, minimal: Socket errors"],
    )
    findings.add("gateway", MINIMAL, READING)
    findings.figures.append(Figure("idle worker", "memory", "MB", (61.0,), most=60.0))
    lineup = {server.name: server for server in servers(site)}
    said = table(findings, CONTESTANTS, lineup)
    for words in ("nginx: not installed", "a good token: 500", "Socket errors"):
        assert words in said
    assert re.search(r"idle worker +<= 60 +61 +MB +not reached", said)
    kept = record(findings, CONTESTANTS, lineup)
    assert kept["skipped"] == {"nginx": "not installed"}
    assert [row["name"] for row in kept["contestants"]] == ["gateway"]
    assert kept["figures"][0]["value"] == 61.0
    assert kept["figures"][0]["met"] is False
    drawn = chart(findings, CONTESTANTS)
    assert ">gateway<" in drawn
    assert ">idle worker<" in drawn
    assert ">0.98<" in drawn


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its last words are kept; nothing waits for the limit."""
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with (
        pytest.raises(NotStartedError, match="exit 1: no such thing"),
        started(command, core=0, port=free_port(), log=tmp_path / "log"),
    ):
        pass


def test_no_two_runs_are_given_one_port() -> None:
    """Nor does one run get a port twice at a time, or one that is taken."""
    mine = [free_port() for _ in range(SLICE // 4)]
    asking = "from bench.ports import free_port; print(free_port())"
    command = [sys.executable, "-c", asking]
    root = str(TEMPLATES.parent.parent)
    said = subprocess.run(command, cwd=root, check=True, capture_output=True)
    assert len(set(mine)) == len(mine)
    assert int(said.stdout) not in mine
    with socket.create_server(("127.0.0.1", mine[0])):
        assert mine[0] not in {free_port() for _ in range(SLICE)}


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
    examine(plain, open_door.port, site.tokens["RS256"])
    for what in ("none", "garbage", *site.tokens["RS256"].bad):
        guard = replace(plain, refuses=frozenset({what}))
        with pytest.raises(UnfitError, match=f"{what}: 200, not refused"):
            examine(guard, open_door.port, site.tokens["RS256"])


def test_who_answers_something_else_is_not_measured(site: Site) -> None:
    """The backend's own answer has to come back whole."""
    door = Door("{}")
    try:
        with pytest.raises(UnfitError, match="a good token"):
            examine(CONTESTANTS[0], door.port, Tokens("a.b.c", {}))
    finally:
        door.close()


def test_every_row_has_its_place(site: Site) -> None:
    """A known group, a server that there is, a file of tokens that can be made."""
    names = {server.name for server in servers(site)}
    assert len({who.name for who in CONTESTANTS}) == len(CONTESTANTS)
    for who in CONTESTANTS:
        assert who.group in GROUPS
        assert who.server in names
        assert not who.tokens or FILES[who.tokens][0] == who.algorithm


def test_groups_are_chosen_by_name() -> None:
    """None named is all; an unknown one is an error, not an empty run."""
    assert chosen_groups("") == list(GROUPS)
    assert chosen_groups("tokens, peers") == ["peers", "tokens"]
    with pytest.raises(SystemExit, match="unknown: peer;"):
        chosen_groups("peer")


def test_every_gateway_has_a_valid_configuration(site: Site) -> None:
    """The many routes too, though a few of them will do here."""
    shop = site.run / f"shop-{MANY_ROUTES}.toml"
    gateways = [it for it in servers(site) if it.name.startswith("gateway")]
    shop.write_text(shop_policy(3))
    for server in gateways:
        words = server.command
        files = [Path(words[at + 1]) for at, word in enumerate(words) if word == "-c"]
        loaded = load(files, env={})
        assert loaded.settings.log_access == (server.name != "gateway-no-log")
        routes = [it for it in loaded.policy.routes if it.service == "shop"]
        assert len(routes) == {"gateway-routes-10": 10, "gateway-routes-10000": 3}.get(
            server.name, 0
        )


@pytest.mark.parametrize("algorithm", ISSUERS)
def test_no_two_tokens_of_a_file_are_the_same(site: Site, algorithm: str) -> None:
    """Each has its own caller; the file is made once."""
    file = site.mint("few", algorithm, 5)
    assert len(set(file.read_text().split())) == 5
    assert site.mint("few", algorithm, 7) == file
    file.unlink()


def test_a_list_is_filled_before_the_gateway_starts() -> None:
    """bench/start.py revokes through the same door as everybody else."""
    assert len(filled(CLOCK, count=20, issuer="https://a.example")) == 20


def test_a_mirror_learns_what_the_store_was_filled_with() -> None:
    """All of it, or there are no figures."""
    with start_redis() as store:
        took, stall, idle, size = snapshot(store.port, 2_000, 1)
        assert 0 < took.value < 60
        assert 0 < stall.value < 60_000
        assert 0 < idle.value < 60_000
        assert size.value > 0
        # What is there already is not what it was filled with.
        with pytest.raises(WrongError, match="4000 of 2000 are known"):
            snapshot(store.port, 2_000, 1)


def test_a_percentile_is_one_of_the_values() -> None:
    """The smallest that so many of them do not exceed."""
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(values, 0.5) == 3.0
    assert percentile(values, 0.99) == 5.0
    assert percentile([7.0], 0.01) == 7.0


def test_an_answer_is_read_to_its_end() -> None:
    """It has a status when its body is whole, and needs a length."""
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
    assert [status_of(whole[:end]) for end in (0, 20, len(whole) - 1)] == [None] * 3
    assert status_of(whole) == 200
    with pytest.raises(WrongError, match="without a length"):
        status_of(b"HTTP/1.1 200 OK\r\n\r\n")


class Lane:
    """Answers on every connection, from *opens* seconds after its start on."""

    def __init__(self, opens: float, status: int = 200) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.answer = f"HTTP/1.1 {status} -\r\nContent-Length: 0\r\n\r\n".encode()
        self.open = threading.Event()
        self.timer = threading.Timer(opens, self.open.set)
        self.timer.start()
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            while connection.recv(4096):
                self.open.wait()
                connection.sendall(self.answer)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in (self.timer, *self.threads):
            thread.join()


def test_a_late_answer_is_counted_from_when_it_was_due() -> None:
    """Who keeps everybody waiting is not asked less often for it."""
    lane = Lane(opens=0.5)
    try:
        request = request_bytes("GET", "/", {})
        found = keep_pace(lane.port, request, rate=100, seconds=0.2)
    finally:
        lane.close()
    assert found.requests == 20
    assert found.p50 >= 200
    assert found.late < found.p50


def test_at_a_fixed_rate_every_answer_has_to_be_right() -> None:
    """One that is not a 200 spoils the run."""
    lane = Lane(opens=0.0, status=503)
    try:
        request = request_bytes("GET", "/", {})
        with pytest.raises(WrongError, match="503"):
            keep_pace(lane.port, request, rate=100, seconds=0.1)
    finally:
        lane.close()


def test_what_is_added_is_told_beside_what_was_there() -> None:
    """The difference of medians; the goal is the gateway's alone."""
    direct = [Pace(0.2, 0.4, 0.1, 9), Pace(0.1, 0.3, 0.1, 9), Pace(0.3, 9.0, 0.1, 9)]
    half, tail = added("gateway", [Pace(0.4, 1.5, 0.1, 9)], direct, goal=True)
    assert half.value == pytest.approx(0.2)
    assert tail.value == pytest.approx(1.1)
    assert (half.is_met, tail.is_met) == (True, False)
    assert [it.is_met for it in added("nginx", direct, direct)] == [None, None]


def test_a_figure_knows_its_goal() -> None:
    """At least, at most, or none; the share is 1 where the goal is."""
    least = Figure("a", "g", "", (1.0, 2.0, 9.0), least=4.0)
    assert (least.value, least.is_met, least.share) == (2.0, False, 0.5)
    most = Figure("a", "g", "", (2.0,), most=4.0)
    assert (most.is_met, most.share) == (True, 2.0)
    assert Figure("a", "g", "", (0.0,), most=4.0).share == float("inf")
    none = Figure("a", "g", "", (2.0,))
    assert (none.is_met, none.share) == (None, None)


def test_memory_is_what_came_on_top() -> None:
    """Of a worker with many entries less an idle one; of one after less before."""
    idle, revoked, live = memory(50_000_000, 74_000_000, 60_000_000, 159_900_000)
    assert idle.value == 50.0
    assert revoked.value == 24.0
    assert live.value == 1000.0


def test_a_gigabyte_is_compared_by_rate() -> None:
    """And each proxy's memory is named, in both directions that were measured."""
    found = {
        ("nginx", "download"): [Flow(1000.0, 10.0, 0.0)],
        ("gateway-streams", "download"): [Flow(600.0, 20.0, 1.0)],
        ("gateway-streams", "upload"): [Flow(600.0, 20.0, 9.0)],
    }
    ratio, ours, theirs, up = flows(found)
    assert (ratio.value, ratio.is_met) == (0.6, True)
    assert "by cpu 0.50" in ratio.note
    assert (ours.is_met, theirs.is_met, up.is_met) == (True, None, False)


@pytest.fixture
def source() -> Iterator[int]:
    """The backend of the streams with 3 MiB, at the port it is given."""
    port = free_port()
    command = [sys.executable, "-m", "bench.streams", str(port), str(3 << 20)]
    root = str(TEMPLATES.parent.parent)
    log = Path(os.devnull)
    with started(command, core=0, port=port, log=log, env={"PYTHONPATH": root}):
        yield port


def test_all_of_a_stream_has_to_come_through(source: int) -> None:
    """Less, or another answer, spoils the run."""
    pid = os.getpid()
    for direction in streams.DIRECTIONS:
        flow = streams.stream(direction, source, "/", {}, size=3 << 20, pid=pid)
        assert flow.rate > 0
    with pytest.raises(WrongError, match="3145728 bytes promised"):
        streams.download(source, "/", {}, 1 << 20)


def test_a_refused_stream_says_so() -> None:
    """The status is the reason, not a broken pipe."""
    lane = Lane(opens=0.0, status=413)
    try:
        with pytest.raises(WrongError, match="413"):
            streams.upload(lane.port, "/", {}, 1 << 16)
    finally:
        lane.close()


def test_messages_are_compared_by_rate_and_by_time() -> None:
    """Half the time for each is twice the speed."""
    found = {
        "nginx": [Chat(1000.0, 10.0)],
        "gateway-sockets": [Chat(600.0, 20.0)],
    }
    ratio, ours, theirs = chats(found)
    assert (ratio.value, ours.value, theirs.value) == (0.6, 20.0, 10.0)
    assert "by cpu 0.50" in ratio.note
    assert [it.value for it in chats({"nginx": found["nginx"]})] == [10.0]


@pytest.fixture
def echo() -> Iterator[int]:
    """The backend of the sockets, at the port it is given."""
    port = free_port()
    command = [sys.executable, "-m", "bench.sockets", str(port)]
    root = str(TEMPLATES.parent.parent)
    log = Path(os.devnull)
    with started(command, core=0, port=port, log=log, env={"PYTHONPATH": root}):
        yield port


def test_every_message_has_to_come_back(echo: int) -> None:
    """As it was, and on a connection that was opened."""
    found = sockets.chat(echo, "/", {}, seconds=0.05, pid=os.getpid())
    assert found.rate > 0
    lane = Lane(opens=0.0, status=401)
    try:
        with pytest.raises(WrongError, match="401"):
            sockets.chat(lane.port, "/", {}, seconds=0.05, pid=os.getpid())
    finally:
        lane.close()


def test_the_message_is_one() -> None:
    """A whole text frame of a client, and its echo one of a server."""
    for said, is_masked in ((sockets.MESSAGE, True), (sockets.ECHO, False)):
        frames = Frames(masked=is_masked, max_message=1000)
        assert frames.feed(said) == [said]
        assert frames.is_between
        assert said.endswith(sockets.TEXT)


def test_the_hottest_functions_come_first() -> None:
    """Their own time, by any way to them."""
    stacks = "main;a 1\nmain;b;a 2\nmain;b 1\n"
    assert hottest(stacks) == [("a", 0.75), ("b", 0.25)]


def test_a_contestant_presents_one_kind_of_token() -> None:
    """A file of tokens and a browser's headers are not mixed."""

    def is_plain(who: Contestant) -> bool:
        return not (who.tokens and who.browser)

    assert all(map(is_plain, CONTESTANTS))

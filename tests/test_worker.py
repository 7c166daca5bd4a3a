"""gateway.worker: what a worker process does with its orders."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bench.ports import free_port
from gateway.app import Background, Log
from gateway.asgi.probes import Check
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import Orders, RevocationOrder
from gateway.channel import Channel
from gateway.model import ANONYMOUS, Denial, Reason, Unavailable
from gateway.observe.access import Entry
from gateway.observe.metrics import CONNECTIONS, LOG_LOST, load
from gateway.proxy import standing, streams
from gateway.proxy.sockets import bind_all
from gateway.proxy.standing import Standing, Verdict
from gateway.tokens import key_status
from gateway.worker import Birth, Process, report, reported
from tests.backends import Connection, running
from tests.e2e.fleet import STATUS, ask
from tests.fakes import head_of
from tests.site import Site

ROOT = Path(__file__).parent.parent
# Of ten descriptors the standard ones and two others are left.
CLOSING = """
import os
from gateway.worker import close_all_but
found = [os.dup(0) for _ in range(5)]
close_all_but([found[3], found[1], found[3], -1])
left = [fd for fd in [0, 1, 2, *found] if os.path.exists(f"/proc/self/fd/{fd}")]
assert left == [0, 1, 2, found[1], found[3]], left
"""


class Kept:
    """Logs that nobody writes."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def open(self, *, requests: bool) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError

    def lost(self) -> dict[str, int]:
        return {"access": 3}

    @property
    def put(self) -> Log:
        return self.entries.append


@dataclass
class Line:
    """The supervisor's end, and what came by it."""

    channel: Channel
    running: asyncio.Task[None]
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    verdicts: list[Verdict] | Exception = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def hears(self, name: str) -> bytes:
        """Wait for *name*; return what was said with it."""
        async with asyncio.timeout(10):
            while not (said := [said for what, said in self.heard if what == name]):
                self.news.clear()
                await self.news.wait()
        return said[0]

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self.running


@contextlib.asynccontextmanager
async def worker(site: Site) -> AsyncIterator[Line]:
    """Run the worker's side of a line in this process."""
    loaded = site.load()
    sockets = bind_all(loaded.settings.server.listen)
    birth = Birth(loaded, sockets, site.directory, b"k" * 32, Kept())
    background = Background()
    ours, theirs = socket.socketpair()
    running = background.spawn(Process(birth).run(theirs))
    line = Line(await Channel.over(ours, background.spawn), running)

    async def handle(name: str, said: bytes) -> bytes:
        line.heard.append((name, said))
        line.news.set()
        if name != "judge":
            return b""
        if isinstance(line.verdicts, Exception):
            raise line.verdicts
        return standing.dump_verdicts(line.verdicts)

    background.spawn(line.channel.serve(handle))
    try:
        yield line
    finally:
        await background.aclose()
        for each in sockets:
            each.close()


def test_all_descriptors_but_its_own_are_closed() -> None:
    """Else it would hold the lines of others open, and their end go unnoticed."""
    subprocess.run([sys.executable, "-c", CLOSING], cwd=ROOT, check=True, timeout=30)


def test_a_report_arrives_as_it_was() -> None:
    """Names, troubles, and whether they are fatal."""
    checks = [Check("keys", "away", fatal=True), Check("store")]
    assert reported(report(checks)) == checks
    assert reported(report([])) == []


async def test_it_says_when_it_serves_and_answers_what_it_is_asked(
    tmp_path: Path,
) -> None:
    """An order that can't be carried out is told from one that failed."""
    async with worker(Site(tmp_path)) as line:
        checks = reported(await line.hears("ready"))
        assert [check.trouble for check in checks] == ["", ""]
        await line.hears("report")

        ask = line.channel.ask
        measured = load(await ask("snapshot", within=5))
        assert measured[LOG_LOST.name] == {("access",): [3.0]}
        assert measured[CONNECTIONS.name]
        (corp,) = key_status.load(await ask("keys", within=5)).issuers
        assert [key.state for key in corp.keys] == ["next"]
        good = RevocationOrder("corp", "token", "t-1")
        orders = Orders((good, replace(good, value="t" * 200)))
        said = await ask("revoke", Orders((good,)).dump(), within=5)
        done = json.loads(said)
        assert done["orders"][0]["until"] > 0
        assert done["effect"]["effective"]
        wrong = json.loads(await ask("revoke", orders.dump(), within=5))
        assert wrong == {"refused": ["no token can carry this token", "jti", 1]}
        listed = await ask("revocations", Inquiry("list").dump(), within=5)
        (entry,) = json.loads(listed)["entries"]
        assert entry["kind"] == "token"
        bad = Inquiry("import", entries=({},)).dump()
        assert "refused" in json.loads(await ask("revocations", bad, within=5))


async def test_a_store_that_is_away_is_no_revocation(tmp_path: Path) -> None:
    """R62."""
    orders = Orders((RevocationOrder("corp", "token", "t-1"),))
    async with worker(Site(tmp_path, store="redis://127.0.0.1:9/0")) as line:
        await line.hears("ready")
        said = await line.channel.ask("revoke", orders.dump(), within=5)
        answer = json.loads(said)
        assert answer == {"away": "revocation store"}


def nobody(path: bytes) -> Standing:
    """Return how somebody without a name was let in."""
    return Standing(ANONYMOUS, head_of(path), time.time())


async def test_it_judges_what_others_have_let_in(tmp_path: Path) -> None:
    """By its own configuration."""
    async with worker(Site(tmp_path)) as line:
        await line.hears("ready")
        standings = [nobody(b"/api/orders/status"), nobody(b"/api/orders/me")]
        ((_, said),) = standing.dump(standings)
        answer = await line.channel.ask("judge", said, within=5)
        assert standing.load_verdicts(answer) == [
            None,
            Denial(Reason.CREDENTIAL_MISSING),
        ]


@pytest.mark.parametrize(
    "trouble",
    [Unavailable("every worker"), [], [Unavailable("policy engine")]],
    ids=["nobody", "garbled", "away"],
)
async def test_once_superseded_it_has_others_judge_what_it_has_let_in(
    tmp_path: Path,
    trouble: list[Verdict] | Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever goes wrong with that is tried again."""
    monkeypatch.setattr(streams, "AGAIN", 0.05)

    async def silent(connection: Connection) -> None:
        await connection.rest()

    async with running(silent) as backend:
        port = free_port()
        site = Site(tmp_path, f"http://127.0.0.1:{backend.port}")
        site.listen = f"127.0.0.1:{port}"
        async with worker(site) as line:
            await line.hears("ready")
            line.verdicts = trouble
            line.channel.tell("superseded")
            asking = asyncio.ensure_future(ask(port, STATUS))
            async with asyncio.timeout(10):
                while len([name for name, _ in line.heard if name == "judge"]) < 3:
                    await asyncio.sleep(0.005)
            assert not asking.done()
            line.verdicts = [Denial(Reason.PERMISSION_MISSING, "a:b")]
            assert await asking == 403
            asked = [said for name, said in line.heard if name == "judge"]
            (found,) = standing.load(asked[0], ())
            assert isinstance(found, Standing)
            assert (found.head.target, found.principal.kind) == (
                STATUS.encode(),
                "anonymous",
            )


KEYS = '[api_keys]\nscope = "ignore"'


async def test_orders_about_keys_are_carried_out(tmp_path: Path) -> None:
    """The answer comes back, or why there is none."""
    keyed = Site(tmp_path, more=KEYS)
    for site, order, answer in (
        (keyed, {"verb": "create", "owner": "a", "roles": []}, "key"),
        (keyed, {"verb": "show", "id": "nobody"}, "refused"),
        (Site(tmp_path), {"verb": "list"}, "refused"),
        (
            Site(tmp_path, more=KEYS, store="redis://127.0.0.1:9/0"),
            {"verb": "list"},
            "away",
        ),
    ):
        async with worker(site) as line:
            await line.hears("ready")
            said = json.dumps(order).encode()
            told = json.loads(await line.channel.ask("api_keys", said, within=5))
            assert answer in told


@pytest.mark.parametrize("orders", [["retire"], ["drain", "retire"], []])
async def test_it_ends_when_told_to_and_when_nobody_is_there_to_tell(
    tmp_path: Path, orders: list[str]
) -> None:
    """The end of the line is the supervisor's."""
    async with worker(Site(tmp_path)) as line:
        await line.hears("ready")
        for order in orders:
            line.channel.tell(order, b"[0, 1]")
        if not orders:
            line.channel.close()
        await line.ended()
        # Told to go, it leaves its counts; nobody is there to take them otherwise.
        said = [name for name, _ in line.heard]
        assert ("measured" in said) is bool(orders)
    assert list(tmp_path.glob("own.*.sock")) == []


async def test_it_ends_before_it_has_started_if_that_is_the_order(
    tmp_path: Path,
) -> None:
    """And never says that it serves."""
    async with worker(Site(tmp_path)) as line:
        line.channel.tell("retire", b"[0, 1]")
        await line.ended()
        assert line.heard == []


async def test_it_says_why_it_can_t_start(tmp_path: Path) -> None:
    """And whether the configuration is to blame."""
    site = Site(tmp_path)
    site.load()
    (tmp_path / "identity" / "1.pem").write_text("not a key")
    async with worker(site) as line:
        said = json.loads(await line.hears("failed"))
        await line.ended()
    assert said["config"] is True
    assert "1.pem" in said["why"]

    (tmp_path / "identity" / "1.pem").unlink()
    (tmp_path / "own.sock").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.serving.secrets.token_hex", lambda _: "x")
        (tmp_path / f"own.{os.getpid()}.x.sock").write_text("somebody's")
        async with worker(site) as line:
            said = json.loads(await line.hears("failed"))
            await line.ended()
    assert said["config"] is False

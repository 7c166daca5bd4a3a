"""gateway.adapters.redis_places: who is asked, who is believed, and what it costs.

Peers that say what they are told to say, and real sentinels and clusters. What a
failover does to the gateway is in tests/e2e/test_failover.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionBroken

from bench.ports import free_port
from gateway.adapters.api_keys import RedisApiKeys
from gateway.adapters.redis_line import Call, Line, Reply
from gateway.adapters.redis_mirror import MirroredRevocations
from gateway.adapters.redis_places import NoMaster, hang_up, places_of
from gateway.adapters.redis_store import RedisRevocations
from gateway.adapters.replays import RedisReplays
from gateway.adapters.script import Script
from gateway.adapters.tickets import RedisTickets
from gateway.model import Unavailable
from gateway.revocation.entries import key_of
from tests.adapters.principals import CLOCK, entry, principal
from tests.adapters.resp import Answer, Command, Peer, peer, says
from tests.certificates import Authority
from tests.redis_groups import (
    SERVICE,
    Cluster,
    Sentinel,
    cluster,
    replicated,
    until,
)
from tests.redis_server import binaries, start_redis

WHO = Script(b"#!lua\nreturn {ARGV[1], ARGV[2]}\n")
ASK = Call(WHO, (b"{t}:k",), (b"hello",))
MOVED = b"-MOVED 7 "
PAGE = Path(__file__).parents[2] / "docs" / "revocation.md"


@asynccontextmanager
async def line_to(url: str, *, within: float = 5.0) -> AsyncIterator[Line]:
    made = Line(url, connect_timeout=within)
    try:
        yield made
    finally:
        await made.aclose()


async def test_a_new_connection_says_nothing_about_its_library() -> None:
    """That is two round trips, and a command that not everybody may run."""
    async with peer(says(b"")) as store:
        connection = await places_of(store.url, connect_timeout=5.0).open()
        await hang_up(connection)
        assert store.greetings == [[b"CLIENT", b"SETNAME", b"auth-gateway"]]


async def ask(line: Line) -> Reply:
    """Ask as those do who use a Line: after anything wrong they drop it."""
    try:
        async with asyncio.timeout(5.0):
            (reply,) = await line.run([ASK])
    except BaseException:
        await line.drop()
        raise
    if not isinstance(reply, list):
        await line.drop()
    return reply


async def runs(command: Command, writer: asyncio.StreamWriter) -> None:
    """Answer as a master that runs scripts, and lets everybody in."""
    if command[0] == b"AUTH":
        writer.write(b"+OK\r\n")
        return
    number, text = command[-2:]
    writer.write(b"*2\r\n$%d\r\n%b\r\n" % (len(number), number))
    writer.write(b"$%d\r\n%b\r\n" % (len(text), text))


async def is_silent(_command: Command, _writer: asyncio.StreamWriter) -> None:
    """Answer nothing."""


def names(port: int, host: bytes = b"127.0.0.1") -> Answer:
    digits = b"%d" % port
    head = b"*2\r\n$%d\r\n%b\r\n" % (len(host), host)
    return says(head + b"$%d\r\n%b\r\n" % (len(digits), digits))


def sentinels(*these: Peer | int) -> str:
    """Return the URL of *these*; a number is a port."""
    ports = (each if isinstance(each, int) else each.port for each in these)
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"redis+sentinel://{hosts}/{SERVICE}"


def nodes(*these: Peer | int) -> str:
    return (
        sentinels(*these).replace("+sentinel", "+cluster").removesuffix(f"/{SERVICE}")
    )


async def test_the_master_is_asked_for_at_each_new_connection() -> None:
    """By the name of the service, and not while a connection lasts."""
    async with (
        peer(runs) as master,
        peer(names(master.port)) as sentinel,
        line_to(sentinels(sentinel)) as line,
    ):
        for _ in range(3):
            assert await ask(line) == [b"hello"]
        assert sentinel.commands == [
            [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", SERVICE.encode()]
        ]
        assert master.connections == 1
        await line.drop()
        assert await ask(line) == [b"hello"]
        assert len(sentinel.commands) == sentinel.connections == 2


@pytest.mark.parametrize(
    "bad",
    [
        says(b"*-1\r\n"),  # it knows no such service
        says(b"-IDONTKNOW x\r\n"),
        says(b"-NOPERM x\r\n"),
        says(b"-NOAUTH x\r\n"),
        says(b"$1\r\n1\r\n"),
        says(b"*2\r\n$1\r\na\r\n$2\r\n-1\r\n"),
        says(b"*2\r\n$1\r\n\xff\r\n$1\r\n1\r\n"),
        says(b"*2\r\n$0\r\n\r\n$1\r\n1\r\n"),
        says(b"nonsense\r\n"),
        is_silent,
    ],
)
async def test_a_sentinel_that_knows_nothing_is_passed_over(bad: Answer) -> None:
    """In the same exchange, and the one that knew is asked first from then on."""
    async with (
        peer(runs) as master,
        peer(bad) as first,
        peer(names(master.port)) as second,
        line_to(sentinels(free_port(), first, second), within=1.0) as line,
    ):
        assert await ask(line) == [b"hello"]
        await line._hang_up()
        assert await ask(line) == [b"hello"]
        assert first.connections == 1
        assert second.connections == 2


async def test_when_no_sentinel_knows_it_is_an_outage() -> None:
    """With the word of the last one."""
    port = free_port()
    async with (
        peer(says(b"*-1\r\n")) as sentinel,
        line_to(sentinels(port, sentinel)) as line,
    ):
        with pytest.raises(NoMaster):
            await ask(line)
        with pytest.raises(ConnectionBroken):
            await ask(line)  # the other one was the last


async def test_a_sentinel_that_names_a_replica_is_not_believed() -> None:
    """Its word is an outage, and the next one is asked: it may know better."""
    replica = says(b"-READONLY You can't write against a read only replica.\r\n")
    async with (
        peer(replica) as old,
        peer(runs) as new,
        peer(names(old.port)) as liar,
        peer(names(new.port)) as honest,
        line_to(sentinels(liar, honest)) as line,
    ):
        assert isinstance(await ask(line), ReadOnlyError)
        assert await ask(line) == [b"hello"]
        assert (liar.connections, honest.connections) == (1, 1)


async def test_real_replicas_refuse_what_they_are_asked() -> None:
    """A lying sentinel costs an exchange; where all lie, all checks are outages."""
    with replicated(1) as (master, replica):
        replies = [names(replica.port), names(master.port)]
        async with peer(replies[0]) as liar, peer(replies[1]) as honest:
            store = RedisRevocations(sentinels(liar, honest), CLOCK, deadline=5.0)
            with pytest.raises(Unavailable):
                await store.check(principal())
            assert await store.check(principal()) is False
            await store.aclose()
            store = RedisRevocations(sentinels(liar), CLOCK, deadline=5.0)
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await store.check(principal())
            await store.aclose()


async def test_a_master_without_its_replicas_answers_nothing() -> None:
    """`min-replicas-to-write 1`: cut off, it may not have heard of a revocation."""
    with replicated(1, "--min-replicas-to-write", "1") as (master, replica):
        store = RedisRevocations(master.url, CLOCK, deadline=5.0)
        until(lambda: master.command("SET", "x", "x") == b"OK", "a good replica")
        assert await store.check(principal()) is False
        replica.kill()
        until(lambda: master.command("SET", "x", "x") != b"OK", "its loss")
        with pytest.raises(Unavailable):
            await store.check(principal())
        await store.aclose()


@pytest.mark.parametrize("wrong", ["", "master", "sentinel"])
async def test_sentinels_and_master_have_each_their_own_password(wrong: str) -> None:
    """With a wrong one nobody is let in, and no message repeats it."""
    (line,) = (
        each for each in PAGE.read_text().splitlines() if each.startswith("user ")
    )
    user, rule = line.split()[1], line.replace("<password>", "s-secret")
    binary = binaries()[0]
    with start_redis("--requirepass", "m-secret") as master:
        lines = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1",
            f"sentinel auth-pass {SERVICE} m-secret",
            "user default off",
            rule,
        )
        with Sentinel(binary, *lines) as sentinel:
            given = {
                "m": "m-wrong" if wrong == "master" else "m-secret",
                "s": "s-wrong" if wrong == "sentinel" else "s-secret",
            }
            url = (
                f"redis+sentinel://:{given['m']}@127.0.0.1:{sentinel.port}/{SERVICE}"
                f"?sentinel_username={user}&sentinel_password={given['s']}"
            )
            async with line_to(url) as there:
                if not wrong:
                    assert await ask(there) == [b"hello"]
                    return
                with pytest.raises(AuthenticationError) as caught:
                    await ask(there)
    assert "secret" not in repr(caught.value)
    assert given[wrong[0]] not in f"{caught.value}{caught.value!r}"


async def test_with_tls_sentinels_are_verified_as_the_store_is(tmp_path: Path) -> None:
    """By one authority; who speaks in the clear, or is unknown, is not heard."""
    authority = Authority()
    ca = authority.write(tmp_path)
    certificate, key = authority.sign().write(tmp_path)
    port, door = free_port(), free_port()
    tls = {
        "tls-cert-file": certificate,
        "tls-key-file": key,
        "tls-ca-cert-file": ca,
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }
    options = [word for name, value in tls.items() for word in (f"--{name}", value)]
    lines = [f"{name} {value}" for name, value in tls.items()]
    lines += [f"tls-port {door}", f"sentinel monitor {SERVICE} 127.0.0.1 {port} 1"]
    with (
        start_redis("--tls-port", str(port), *options),
        Sentinel(binaries()[0], *lines),
    ):
        secure = sentinels(door).replace("redis", "rediss")
        async with line_to(f"{secure}?ssl_ca_certs={ca}") as line:
            assert await ask(line) == [b"hello"]
        for url in (secure, sentinels(door)):
            async with line_to(url) as line:
                with pytest.raises(ConnectionBroken):
                    await ask(line)


async def test_moved_is_followed_and_remembered() -> None:
    """Once; after that the seed has no more questions to answer."""
    async with (
        peer(runs) as owner,
        peer(says(MOVED + b"127.0.0.1:%d\r\n" % owner.port)) as seed,
        line_to(nodes(seed)) as line,
    ):
        for _ in range(3):
            assert await ask(line) == [b"hello"]
        assert len(seed.commands) == 1
        await line._hang_up()
        assert await ask(line) == [b"hello"]
        assert len(seed.commands) == 1
        await line.drop()
        assert await ask(line) == [b"hello"]
        assert len(seed.commands) == 2


async def test_of_several_calls_those_that_moved_are_run_again() -> None:
    """The others have been run, and keep their reply."""
    owner_runs: list[bytes] = []

    async def owner(command: Command, writer: asyncio.StreamWriter) -> None:
        owner_runs.append(command[-1])
        await runs(command, writer)

    async with peer(owner) as there:

        async def half(command: Command, writer: asyncio.StreamWriter) -> None:
            if command[-1] == b"1":
                writer.write(b"-ERR no\r\n")
            elif command[-1] == b"2":
                writer.write(MOVED + b"127.0.0.1:%d\r\n" % there.port)
            else:
                await runs(command, writer)

        calls = [Call(WHO, (b"{t}:k",), (b"%d" % number,)) for number in range(4)]
        async with peer(half) as seed, line_to(nodes(seed)) as line:
            zero, one, *more = await line.run(calls)
            assert [zero, *more] == [[b"0"], [b"2"], [b"3"]]
            assert isinstance(one, ResponseError)
        assert owner_runs == [b"2"]


async def test_no_host_in_moved_means_the_same_host() -> None:
    """Where a node does not know by what name we call it."""
    async with (
        peer(runs) as owner,
        peer(says(MOVED + b":%d\r\n" % owner.port)) as seed,
        line_to(
            f"redis+cluster://127.0.0.2:{free_port()},127.0.0.1:{seed.port}"
        ) as line,
    ):
        assert await ask(line) == [b"hello"]


async def test_two_nodes_that_name_each_other_are_an_outage() -> None:
    """Followed once an exchange, not until the deadline."""
    ports: dict[str, int] = {}

    def names_the(other: str) -> Answer:
        async def answer(_command: Command, writer: asyncio.StreamWriter) -> None:
            writer.write(MOVED + b"127.0.0.1:%d\r\n" % ports[other])

        return answer

    async with peer(names_the("b")) as a, peer(names_the("a")) as b:
        ports.update(a=a.port, b=b.port)
        async with line_to(nodes(a, b)) as line:
            assert isinstance(await ask(line), MovedError)
            assert len(a.commands) == len(b.commands) == 1


class Refusal(NamedTuple):
    said: bytes
    kind: type[Exception]


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(b"-ASK 7 127.0.0.1:1\r\n", AskError),
        Refusal(b"-TRYAGAIN Multiple keys request during rehashing\r\n", TryAgainError),
        Refusal(b"-CLUSTERDOWN Hash slot not served\r\n", ClusterDownError),
        Refusal(b"-CROSSSLOT Keys don't hash to the same slot\r\n", ResponseError),
    ],
    ids=lambda refusal: refusal.said.split()[0].decode(),
)
async def test_a_slot_that_is_not_served_is_an_outage(refusal: Refusal) -> None:
    """Nobody else is asked in its stead, and the next exchange begins elsewhere."""
    async with (
        peer(says(refusal.said)) as bad,
        peer(runs) as good,
        line_to(nodes(bad, good)) as line,
    ):
        reply = await ask(line)
        assert isinstance(reply, refusal.kind)
        assert not isinstance(reply, MovedError)
        assert good.connections == 0
        assert await ask(line) == [b"hello"]


@pytest.mark.parametrize("said", [b"7\r\n", b"7 x\r\n", b"x :y\r\n", b"7 a:x\r\n"])
async def test_a_moved_that_says_nothing_is_an_outage(said: bytes) -> None:
    """Whatever the parser makes of it."""
    async with peer(says(b"-MOVED " + said)) as node, line_to(nodes(node)) as line:
        with suppress(Exception):
            assert not isinstance(await ask(line), list)


async def test_moved_of_one_server_is_not_followed() -> None:
    """A redis:// URL names one server; that it is a cluster's is for people to see."""
    async with (
        peer(runs) as owner,
        peer(says(MOVED + b"127.0.0.1:%d\r\n" % owner.port)) as only,
        peer(names(only.port)) as sentinel,
    ):
        for url in (only.url, sentinels(sentinel)):
            async with line_to(url) as line:
                assert isinstance(await ask(line), MovedError)
        assert owner.connections == 0


async def test_seeds_that_are_gone_or_silent_are_passed_over() -> None:
    """Within one exchange, and each has its share of the time."""
    async with peer(is_silent) as silent, peer(runs) as node:
        # The first thing that is not answered is an AUTH.
        url = nodes(free_port(), silent, node).replace("//", "//:x@")
        async with line_to(url, within=1.0) as line:
            assert await ask(line) == [b"hello"]
        assert silent.connections == 1


async def test_an_owner_that_is_gone_is_asked_for_again() -> None:
    """The seeds are, in turn: one may still name the dead, the next knows better."""
    dead = free_port()
    async with (
        peer(runs) as owner,
        peer(says(MOVED + b"127.0.0.1:%d\r\n" % dead)) as behind,
        peer(says(MOVED + b"127.0.0.1:%d\r\n" % owner.port)) as aware,
        line_to(nodes(behind, aware)) as line,
    ):
        # The address it was told is dead; the seeds are asked, and it is told again.
        assert isinstance(await ask(line), MovedError)
        assert await ask(line) == [b"hello"]


async def test_whoever_is_cancelled_leaves_no_connection_open() -> None:
    """While a sentinel is asked, and while a node is connected to (R32)."""
    for url_of in (sentinels, nodes):
        async with (
            peer(is_silent) as silent,
            line_to(url_of(silent).replace("//", "//:x@")) as line,
        ):
            task = asyncio.get_running_loop().create_task(ask(line))
            while not silent.commands:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(5.0):
                await asyncio.gather(*silent._served)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


async def test_everything_that_is_kept_works_in_a_cluster(shared: Cluster) -> None:
    """Each kind under its own hash tag, from whichever node one begins."""
    for node in shared.nodes:
        url = f"redis+cluster://127.0.0.1:{node.port}"
        name = b"%d" % node.port
        revocations = MirroredRevocations(url, CLOCK, deadline=5.0)
        following = asyncio.get_running_loop().create_task(revocations.run())
        await revocations.ready(5.0)
        assert revocations.check_now(principal(name.decode())) is False
        at = await revocations.revoke(entry("token", name.decode()))
        assert (await revocations.effect(at, 5.0)).is_whole
        assert revocations.check_now(principal(name.decode())) is True
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await revocations.aclose()
        tickets = RedisTickets(url, deadline=5.0)
        kept = [b"%d" % number for number in range(20)]
        await asyncio.gather(*(tickets.keep(name, b"v", 60) for name in kept))
        found = await asyncio.gather(*(tickets.take(name) for name in kept))
        assert found == [b"v"] * len(kept)
        await tickets.aclose()
        replays = RedisReplays(url, CLOCK, deadline=5.0)
        ahead = time.time() + 1_000
        assert [await replays.use(name, ahead) for _ in "ab"] == [True, False]
        await replays.aclose()
        api_keys = RedisApiKeys(url, CLOCK, None, deadline=5.0)
        assert await api_keys.fetch(b"\x01" * 32) is None
        assert await api_keys.all() == []
        api_keys.mark("k")
        await api_keys.aclose()


async def test_while_its_slot_is_moved_a_check_is_an_outage_and_never_a_no(
    shared: Cluster,
) -> None:
    """Then its new owner answers, and knows what was revoked."""
    who, other = principal("t-1"), principal("t-2", subject="bob")
    key = key_of("token", entry("token", "t-1").name)
    store = RedisRevocations(shared.url, CLOCK, deadline=5.0)
    await store.revoke(entry("token", "t-1"))
    assert await store.check(who) is True

    slot = str(shared.slot("{gw:revocation}"))
    source = shared.owner("{gw:revocation}")
    target = next(node for node in shared.nodes if node is not source)
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    # All of its keys are missing, or one of them: neither end can tell.
    for asked in (other, who):
        with pytest.raises(Unavailable):
            await store.check(asked)
    port = str(target.port)
    moved = source.command("MIGRATE", "127.0.0.1", port, key, "0", "5000")
    assert moved == b"OK"
    with pytest.raises(Unavailable):
        await store.check(who)
    for node in (target, source):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    assert await store.check(who) is True
    assert await store.check(other) is False
    assert key in target.command("KEYS", "{gw:revocation}:*")
    await store.aclose()


async def test_a_probe_is_about_the_slot_of_the_list(shared: Cluster) -> None:
    """A node that would answer a script without keys does not end an outage."""
    slot = str(shared.slot("{gw:revocation}"))
    owner = shared.owner("{gw:revocation}")
    other = next(node for node in shared.nodes if node is not owner)
    store = RedisRevocations(shared.url, CLOCK, deadline=5.0)
    await store.probe()
    owner.command("CLUSTER", "SETSLOT", slot, "MIGRATING", other.id)
    try:
        with pytest.raises(Unavailable):
            await store.probe()
    finally:
        owner.command("CLUSTER", "SETSLOT", slot, "STABLE")
    await store.probe()
    await store.aclose()

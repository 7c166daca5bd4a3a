"""Servers that stand in for each other: Sentinels and what they watch, and a Cluster.

As `redis_server`, with times that let a failover take seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.ports import free_port
from tests.redis_server import RedisServer, binaries, start_redis

PATIENCE = 60.0  # seconds for a group to agree, on a busy machine
SERVICE = "main"
SLOTS = 16_384


def until(true: Callable[[], bool], what: str) -> None:
    """Return when it is *true*."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


class Sentinel(RedisServer):
    """One sentinel; *lines* are its configuration, which it keeps up to date."""

    def __init__(self, binary: str, *lines: str) -> None:
        self._lines = lines
        super().__init__(binary)

    def _words(self) -> list[str]:
        file = self.directory / "sentinel.conf"
        if not file.exists():
            own = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}"]
            file.write_text("\n".join([*own, *self._lines, ""]))
        return [str(file), "--sentinel"]

    def master(self) -> int:
        """Return the port of the master it names."""
        said = self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(said[1])


@dataclass(frozen=True)
class Watched:
    """A master, its replicas, and the sentinels that watch them."""

    servers: list[RedisServer]  # the master first
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def master(self) -> RedisServer:
        """Return the server that every sentinel names, when they agree."""
        ports: set[int] = set()

        def agree() -> bool:
            ports.clear()
            ports.update(each.master() for each in self.sentinels)
            return len(ports) == 1

        until(agree, "an agreement")
        (port,) = ports
        (found,) = (each for each in self.servers if each.port == port)
        return found


def in_step(replica: RedisServer) -> bool:
    """Tell whether *replica* has what its master has."""
    return b"master_link_status:up" in replica.command("INFO", "replication")


@contextmanager
def replicated(
    replicas: int, *options: str, binary: str | None = None
) -> Iterator[list[RedisServer]]:
    """Run a master and its replicas, in step."""
    with ExitStack() as stack:
        shared = ["--repl-diskless-sync-delay", "0", *options]
        master = stack.enter_context(start_redis(*shared, binary=binary))
        servers = [master]
        for _ in range(replicas):
            follow = ["--replicaof", f"127.0.0.1 {master.port}"]
            started = start_redis(*shared, *follow, binary=binary)
            servers.append(stack.enter_context(started))
        for replica in servers[1:]:
            until(lambda replica=replica: in_step(replica), "a copy")  # type: ignore[misc]
        yield servers


@contextmanager
def watched(
    *, replicas: int = 2, sentinels: int = 1, binary: str | None = None
) -> Iterator[Watched]:
    """Run a master with *replicas*, one of which it can't do without."""
    options = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"]
    with (
        replicated(replicas, *options, binary=binary) as servers,
        ExitStack() as stack,
    ):
        port, quorum = servers[0].port, sentinels // 2 + 1
        lines = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 5000",
        )
        watching = [
            stack.enter_context(Sentinel(binary or binaries()[0], *lines))
            for _ in range(sentinels)
        ]
        for each in watching:
            until(lambda each=each: _knows(each, replicas, sentinels - 1), "a watch")  # type: ignore[misc]
        yield Watched(servers, watching)


def _knows(sentinel: Sentinel, replicas: int, others: int) -> bool:
    said = sentinel.command("SENTINEL", "MASTER", SERVICE)
    found = dict(zip(said[::2], said[1::2], strict=True))
    counts = found[b"num-slaves"], found[b"num-other-sentinels"]
    return counts == (b"%d" % replicas, b"%d" % others)


class Node(RedisServer):
    """A node of a cluster."""

    def __init__(self, binary: str) -> None:
        self.bus = free_port()
        super().__init__(
            binary,
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus)),
            *("--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"),
        )
        self.id = self.command("CLUSTER", "MYID")

    def owns(self, slot: int) -> bool:
        """Tell whether *slot* is this node's, as it sees it."""
        (mine,) = (
            line
            for line in self.command("CLUSTER", "NODES").splitlines()
            if b"myself" in line
        )
        ranges = [part.split(b"-") for part in mine.split()[8:] if part[:1] != b"["]
        return any(int(each[0]) <= slot <= int(each[-1]) for each in ranges)


@dataclass(frozen=True)
class Cluster:
    """Nodes that share the slots."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}"

    def slot(self, key: str) -> int:
        found: int = self.nodes[0].command("CLUSTER", "KEYSLOT", key)
        return found

    def owner(self, key: str) -> Node:
        """Return the node that *key* lives on."""
        (found,) = (node for node in self.nodes if node.owns(self.slot(key)))
        return found

    def add_replica(self, of: Node) -> None:
        """Give one of those without slots to *of*."""
        (spare,) = (node for node in self.nodes if not _has_slots(node))
        spare.command("CLUSTER", "REPLICATE", of.id)
        until(lambda: in_step(spare), "a copy")
        # Who votes has to know whose replica it is.
        words = b" slave " + of.id
        for node in self.nodes:
            until(
                lambda node=node: (  # type: ignore[misc]
                    words
                    in node.command("CLUSTER", "NODES").replace(
                        b"myself,slave", b"slave"
                    )
                ),
                "gossip",
            )


def _has_slots(node: Node) -> bool:
    return any(node.owns(slot) for slot in (0, SLOTS // 2, SLOTS - 1))


@contextmanager
def cluster(*, spare: int = 0, binary: str | None = None) -> Iterator[Cluster]:
    """Run three masters, and *spare* nodes without slots."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(Node(binary or binaries()[0])) for _ in range(3 + spare)
        ]
        for number, node in enumerate(nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            if number < 3:
                first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
                node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            met = ("127.0.0.1", str(node.port), str(node.bus))
            if number:
                nodes[0].command("CLUSTER", "MEET", *met)
        for node in nodes:
            until(lambda node=node: _is_ready(node, len(nodes)), "a cluster")  # type: ignore[misc]
        yield Cluster(nodes)


def _is_ready(node: Node, count: int) -> bool:
    said = node.command("CLUSTER", "INFO")
    lines = said.splitlines()
    known = b"cluster_known_nodes:%d" % count
    return b"cluster_state:ok" in lines and known in lines

"""gateway.proxy.sockets: bound for whom, and removed by whom."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from bench.ports import free_port
from gateway.config.settings import Address
from gateway.proxy.sockets import bind, bind_all, bind_each, remove


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    """A crash leaves one behind; another process's is left alone."""
    path = tmp_path / "a" / "x.sock"
    with bind(Address(path=str(path))) as first:
        first.listen()
        with pytest.raises(OSError, match="another process"):
            bind(Address(path=str(path)))
    with bind(Address(path=str(path))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    """Somebody's file may have that name."""
    path = tmp_path / "x.sock"
    path.write_text("mine")

    with pytest.raises(OSError, match="in use"):
        bind(Address(path=str(path)))

    assert path.read_text() == "mine"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_named(host: str) -> None:
    """The message says which of the ports it is."""
    with bind(Address(host, 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=str(port)):
            bind(Address(host, port))


def test_a_data_socket_is_for_the_group_too(tmp_path: Path) -> None:
    """Mode 0660, its directory 0750: the services that connect share a group."""
    path = tmp_path / "run" / "data.sock"
    (sock,) = bind_all([Address(path=str(path))])
    with sock:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert not stat.S_IMODE(path.parent.stat().st_mode) & 0o027
        remove(sock)
        assert not path.exists()
        remove(sock)


def test_every_ipv6_address_is_no_ipv4_address() -> None:
    """`[::]` and `0.0.0.0` may share a port: whoever wants both says both."""
    port = free_port()  # of both, and not one that somebody's connection may have
    (six,) = bind_all([Address("::", port)])
    with six:
        six.listen()
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0
        (four,) = bind_all([Address("0.0.0.0", port)])
        with four:
            remove(four)


def test_a_name_is_all_of_its_addresses() -> None:
    """`localhost` may be 127.0.0.1, ::1 or both."""
    found = bind_all([Address("localhost", 0)])
    assert {sock.getsockname()[0] for sock in found} <= {"127.0.0.1", "::1"}
    for sock in found:
        sock.close()


def test_a_name_that_is_none_is_said() -> None:
    """Before anything listens."""
    with pytest.raises(OSError, match=r"nowhere\.invalid:80"):
        bind(Address("nowhere.invalid", 80))


def test_all_or_none_of_the_addresses_are_bound() -> None:
    """A port that is taken leaves none of the others behind."""
    with bind(Address("127.0.0.1", 0)) as taken:
        taken.listen()
        port, other = taken.getsockname()[1], free_port()
        wanted = [Address("127.0.0.1", other), Address("127.0.0.1", port)]
        with pytest.raises(OSError, match=str(port)):
            bind_all(wanted)
        bind(wanted[0]).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_worker_has_a_queue_of_its_own_at_one_port(host: str) -> None:
    """Also where the port was any free one; a second gateway gets none of it."""
    found = bind_each([Address(host, 0)], 3)
    sockets = [sock for (sock,) in found]
    try:
        (name,) = {sock.getsockname() for sock in sockets}
        for sock in sockets:
            sock.listen()
        with pytest.raises(OSError, match=str(name[1])):
            bind_each([Address(host, name[1])], 2)
        # Half of the clients would be reset, were they not spread over all three.
        callers = [socket.create_connection(name[:2]) for _ in range(48)]
        for sock in sockets:
            sock.setblocking(False)
            sock.accept()[0].close()
        for caller in callers:
            caller.close()
    finally:
        for sock in sockets:
            sock.close()


def test_of_a_unix_socket_there_is_one_for_all(tmp_path: Path) -> None:
    """Its name can't be bound twice."""
    path = tmp_path / "data.sock"
    (first,), (second,) = bind_each([Address(path=str(path))], 2)
    with first, second:
        first.listen()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            second.accept()[0].close()
        remove(first)

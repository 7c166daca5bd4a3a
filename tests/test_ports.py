"""gateway.ports: probes and admin, opened together, closed together."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from bench.ports import free_port
from gateway.app import Background
from gateway.asgi.api_keys import KeyOrder, Told
from gateway.asgi.probes import Check
from gateway.asgi.revocation_list import Inquiry
from gateway.asgi.revocations import Orders
from gateway.config.settings import Address, Admin
from gateway.observe.metrics import CONFIG, Snapshot
from gateway.ports import private_directory, small_ports
from gateway.tokens.key_status import KeyReport
from tests.site import Site


class Whole:
    """Answers with what tells that it was asked."""

    has_started = True

    def checks(self) -> list[Check]:
        return [Check("x", "away", fatal=True)]

    async def snapshots(self) -> list[Snapshot]:
        return [{CONFIG.name: {("g1",): [1.0]}}]

    async def keys(self) -> KeyReport:
        return KeyReport((), ())

    async def revoke(self, orders: Orders) -> Told:
        return {"orders": [{"until": 7.0} for _ in orders.each]}

    async def inquire(self, inquiry: Inquiry) -> Told:
        return {"verb": inquiry.verb}

    async def order_keys(self, order: KeyOrder) -> Told:
        return {"verb": order.verb}


async def test_they_answer_with_what_they_are_given(tmp_path: Path) -> None:
    """And nothing is left of them afterwards."""
    probes = Address("127.0.0.1", free_port())
    settings = replace(Site(tmp_path).load().settings, probes=probes)
    background = Background()
    path = tmp_path / "admin.sock"
    async with (
        small_ports(settings, background.spawn, Whole()),
        httpx2.AsyncClient(trust_env=False) as http,
        httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path))) as admin,
    ):
        ready = await http.get(f"http://{probes}/readyz?verbose")
        counted = await http.get(f"http://{probes}/metrics")
        done = await admin.post("http://a/-/revocations", json={"sub": "c-1"})
        listed = await admin.get("http://a/-/revocations")
        ordered = await admin.get("http://a/-/api-keys")
        known = await admin.get("http://a/-/keys")

    assert (ready.status_code, done.json()["until"]) == (503, 7.0)
    assert ordered.json() == {"verb": "list"}
    assert listed.json() == {"verb": "list"}
    assert "[-] x: away" in ready.text
    assert known.json() == {"issuers": [], "identities": []}
    assert 'gateway_config_info{generation="g1"} 1' in counted.text
    assert not path.exists()
    await background.aclose()


async def test_what_can_t_be_opened_closes_the_rest(tmp_path: Path) -> None:
    """The probes, when the admin port is taken."""
    taken = free_port()
    settings = replace(
        Site(tmp_path).load().settings,
        probes=Address("127.0.0.1", taken),
        admin=Admin(Address("127.0.0.1", taken), "0123456789abcdef"),
    )
    background = Background()
    with pytest.raises(OSError, match=str(taken)):
        async with small_ports(settings, background.spawn, Whole()):
            raise AssertionError
    async with httpx2.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get(f"http://127.0.0.1:{taken}/livez")
    await background.aclose()


def test_sockets_to_ourselves_are_in_a_directory_of_ours(tmp_path: Path) -> None:
    """Beside the admin socket, or in one that is removed again."""
    at = Admin(Address(path=str(tmp_path / "run" / "admin.sock")))
    with private_directory(at) as beside:
        assert beside == tmp_path / "run"
        assert stat.S_IMODE(beside.stat().st_mode) == 0o700
    assert beside.exists()
    for admin in (None, Admin(Address("127.0.0.1", 9), "0123456789abcdef")):
        with private_directory(admin) as made:
            assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert not made.exists()

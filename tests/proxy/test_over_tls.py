"""What holds without TLS holds with it: the same tests, once more, through a handshake.

Those are missing that close half of a connection, which TLS can't, or that send more
than a socket takes in one piece, which asyncio's TLS client takes whole. Tables of
requests are about bytes, and are read once, without.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.settings import Tls
from gateway.proxy import front, tls
from gateway.proxy.tls import Certificates
from tests.certificates import Authority
from tests.proxy import (
    harness,
    test_exchange,
    test_front,
    test_long_streams,
    test_websocket,
)
from tests.proxy.harness import once_more

CA = Authority()
OURS = CA.sign()
_WITHOUT = {
    "test_a_close_is_not_lost_to_what_is_said_behind_it",
    "test_a_slow_upstream_slows_its_client_down",
    "test_nothing_is_read_ahead_of_a_decision",
    "test_connections_have_a_cap",
}


@pytest.fixture(autouse=True)
def over_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every data port speak TLS, and every caller trust it."""
    certificates = Certificates(Tls(*OURS.write(tmp_path)), harness.CLOCK)
    monkeypatch.setattr(harness, "OVER_TLS", (certificates, CA.client()))
    # Whoever reads to the end waits for it, without TLS never; how long it takes is
    # the subject of none of these.
    for module in (front, tls):
        monkeypatch.setattr(module, "LINGER_TIME", 0.2)


for _module in (test_exchange, test_front, test_long_streams, test_websocket):
    globals().update(
        (name, found)
        for name, found in once_more(_module).items()
        if name not in _WITHOUT and not hasattr(found, "pytestmark")
    )

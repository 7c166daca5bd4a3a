"""docs/websockets.md: what it shows loads, and its codes are those that are sent."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.model import Sockets
from gateway.proxy.tunnel import CLOSE_WAIT, PING_INTERVAL
from gateway.proxy.websocket import END_WAIT, FORBIDDEN, TOKEN_ENDED
from gateway.wire import frames
from gateway.wire.websocket import tokens_in
from tests.site import POLICY, Site

PAGE = Path(__file__).parent.parent.parent / "docs" / "websockets.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_its_routes_load_and_mean_what_it_says(tmp_path: Path) -> None:
    """As they stand there."""
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    routes = {
        route.id: route
        for route in Site(tmp_path, policy=POLICY + toml).load().policy.routes
    }
    live, feed, export = (routes[f"orders.{n}"] for n in ("live", "feed", "export"))
    origins = frozenset({"https://shop.example"})
    assert live.websocket == Sockets(256 * 1024, 5, origins)
    assert (feed.stream, feed.ends_with_token) == (True, True)
    assert (export.stream, export.ends_with_token) == (True, False)


def test_its_codes_are_those_that_are_sent() -> None:
    """Each that the gateway can send of itself, and no other."""
    rows = re.findall(r"^\| (\d{4}) \|", TEXT, re.MULTILINE)
    assert {int(code) for code in rows} == {
        TOKEN_ENDED,
        FORBIDDEN,
        frames.GOING_AWAY,
        frames.PROTOCOL_ERROR,
        frames.INVALID_PAYLOAD,
        frames.TOO_BIG,
        frames.BAD_GATEWAY,
    }


def test_its_numbers_are_the_codes() -> None:
    """Pings, and the time for an answer to a Close."""
    assert f"every {PING_INTERVAL:.0f} seconds" in TEXT
    assert f"has {CLOSE_WAIT:.0f} seconds to answer" in TEXT
    assert "half a second to answer 4401 and\n4403" in TEXT
    assert END_WAIT == 0.5


def test_its_ways_to_present_a_token_are_understood() -> None:
    """Both prefixes, as they are written there."""
    prefixes = re.findall(r'"([a-z0-9.]*bearer\.[a-z0-9.]*)" \+', TEXT)
    assert len(prefixes) == 2
    for prefix, said in zip(prefixes, ("abc", "YWJj"), strict=True):
        offered = f"orders.v1, {prefix}{said}".encode()
        assert tokens_in(((b"sec-websocket-protocol", offered),)) == [b"abc"]

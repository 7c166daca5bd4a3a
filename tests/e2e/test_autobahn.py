"""The Autobahn test suite through the gateway gives what it gives without it (R93).

Client and server are both of the suite, which has a case for each rule of RFC 6455:
framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, sizes. Compression
(its sections 12 and 13) is left out: the gateway agrees on no extension.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e import autobahn
from tests.site import POLICY, Site

ROUTE = """
[[route]]
id        = "suite"
methods   = ["GET"]
path      = "/suite"
access    = "authenticated"
websocket = { max_message = "64 MiB" }
"""


@pytest.fixture
def suite() -> autobahn.Suite:
    try:
        return autobahn.installed()
    except autobahn.MissingError as missing:
        pytest.skip(f"no Autobahn test suite: {missing}")


@pytest.mark.skipif(
    os.environ.get("GATEWAY_E2E") != "full",
    reason="the Autobahn test suite takes minutes: `make e2e` runs it",
)
async def test_each_case_ends_as_without_the_gateway(
    suite: autobahn.Suite, tmp_path: Path
) -> None:
    """Whatever a client says, right or wrong, in one piece or byte by byte."""
    async with suite.echoing(tmp_path) as port:
        site = Site(tmp_path, f"http://127.0.0.1:{port}", policy=POLICY + ROUTE)
        # The suite's server wants its own port in the Host.
        site.more = 'host = "upstream"'
        async with site.running() as gateway:
            bound = gateway.bound[0]
            url = f"ws://{bound.host}:{bound.port}/api/orders/suite"
            token = "bearer." + site.token(exp=int(time.time()) + 7200)
            found = await suite.judge(
                tmp_path,
                [
                    {"agent": "direct", "url": f"ws://127.0.0.1:{port}"},
                    {"agent": "gateway", "url": url, "protocols": [token]},
                ],
                ["*"],
            )
    direct, through = found["direct"], found["gateway"]
    assert len(direct) > 290
    # Or the comparison would say little.
    assert Counter(each.behaviour for each in direct.values())["OK"] > 290
    assert _without_codes(through) == _without_codes(direct)
    # Where its server sends a Close, it is the client's. Where it sends none, and only
    # breaks off, the gateway's own may stand.
    for case, each in direct.items():
        assert each.code in {None, through[case].code}, case
    assert len(site.log) == len(through)
    assert {entry.status for entry in site.log} == {101}


def _without_codes(
    verdicts: dict[str, autobahn.Verdict],
) -> dict[str, tuple[str, str]]:
    return {case: (each.behaviour, each.close) for case, each in verdicts.items()}

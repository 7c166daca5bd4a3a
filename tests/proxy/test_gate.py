"""One generation of what the data port decides by."""

from __future__ import annotations

from tests.backends import echoing, running
from tests.proxy.harness import gate_to, request


async def test_each_entry_of_the_log_names_it() -> None:
    """Of a request that had to wait, too."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        bench.decision.delay = 0.05
        assert (await bench.call(request(b"/wait/1"))).status == 200
        assert (await bench.call(request(b"/2"))).status == 200
        assert [entry.generation for entry in bench.entries] == ["g1", "g1"]

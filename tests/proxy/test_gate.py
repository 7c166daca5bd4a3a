"""One generation of what the data port decides by."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.config.settings import Server, Timeouts
from gateway.proxy.server import SWEEP
from tests.backends import answer, echoing, running, saying, silent
from tests.proxy.harness import at, gate_to, request


async def test_a_replaced_gate_counts_from_the_next_request_on() -> None:
    """The request in hand ends by the generation it began with."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        bench.decision.delay = 0.2
        caller = await bench.caller()
        await caller.send(request(b"/wait/1"))
        await bench.seen(1)
        bench.port.replace(replace(bench.gate, generation="g2"))
        assert (await caller.answer()).status == 200
        assert (await caller.call(request(b"/2"))).status == 200
        assert [entry.generation for entry in bench.entries] == ["g1", "g2"]


@pytest.mark.parametrize("stays", [True, False])
async def test_what_waited_goes_where_its_own_generation_says(*, stays: bool) -> None:
    """Though that upstream has moved meanwhile, or is no more."""
    async with (
        running(echoing) as old,
        running(saying(answer(b"new"))) as new,
        gate_to(old) as bench,
    ):
        bench.decision.delay = 0.2
        caller = await bench.caller()
        await caller.send(request(b"/wait/1"))
        await bench.seen(1)
        moved = {"backend": at("127.0.0.1", new.port)} if stays else {}
        bench.port.replace(replace(bench.gate, upstreams=moved))
        found = await caller.answer()

    assert (found.status, found.body) == (200, b"/wait/1  ")
    assert not new.requests


async def test_an_upstream_that_is_no_more_still_has_deadlines() -> None:
    """Of a connection, too, that was opened for who had waited (R35)."""
    timeouts = Timeouts(connect=1.0, first_byte=0.3)
    async with running(silent) as backend, gate_to(backend, timeouts=timeouts) as bench:
        bench.decision.delay = 3 * SWEEP
        caller = await bench.caller()
        await caller.send(request(b"/wait/1"))
        await bench.seen(1)
        bench.port.replace(replace(bench.gate, upstreams={}))
        async with asyncio.timeout(5):
            assert (await caller.answer()).status == 504


async def test_an_upstream_that_moved_gets_new_connections() -> None:
    """Kept connections to the old place are closed, the others stay."""
    async with (
        running(echoing) as old,
        running(saying(answer(b"new"))) as new,
        gate_to(old) as bench,
    ):
        caller = await bench.caller()
        assert (await caller.call(request(b"/1"))).body == b"/1  "
        same = replace(bench.gate, server=Server(max_headers=3))
        bench.port.replace(same)
        assert (await caller.call(request(b"/2"))).body == b"/2  "
        assert len(old.connections) == 1
        moved = at("127.0.0.1", new.port)
        upstreams = {**same.upstreams, "backend": moved}
        bench.port.replace(replace(same, upstreams=upstreams))
        assert (await caller.call(request(b"/3"))).body == b"new"
        assert (await caller.call(request(b"/4", b"a: b\r\n" * 9))).status == 431

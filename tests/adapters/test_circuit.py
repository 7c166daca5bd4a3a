"""gateway.adapters.circuit: a store that is away costs nobody time but a probe."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters import circuit as module
from gateway.adapters.circuit import OPEN_AFTER, Circuit
from gateway.model import Unavailable


class Store:
    """One that is asked by probes alone; its exchanges fail as often as is told."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.probes = 0
        self.is_back = asyncio.Event()
        self.circuit = Circuit("test store", self.probe)

    async def probe(self) -> None:
        self.probes += 1
        if self.probes <= self.failures:
            self.circuit.failed("OSError")
            raise Unavailable("test store")
        self.circuit.succeeded()
        self.is_back.set()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_EVERY", 0.001)


async def test_it_opens_after_failures_in_a_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A success between them begins the count anew; both turns are told once."""
    store = Store(failures=3)
    for fault in ["TimeoutError"] * (OPEN_AFTER - 1):
        store.circuit.failed(fault)
    store.circuit.succeeded()
    for fault in ["TimeoutError"] * (OPEN_AFTER - 1):
        store.circuit.failed(fault)
    assert store.circuit.fault is None
    store.circuit.failed("TimeoutError")
    assert store.circuit.fault == "TimeoutError"

    await asyncio.wait_for(store.is_back.wait(), 10)

    assert store.circuit.fault is None
    assert store.probes == 4
    assert caplog.messages == ["test store is away: TimeoutError", "test store is back"]
    await store.circuit.aclose()


async def test_nothing_is_asked_after_its_end() -> None:
    """Whoever closes it leaves no task behind."""
    store = Store(failures=10**9)
    for _ in range(OPEN_AFTER):
        store.circuit.failed("OSError")
    while store.probes == 0:
        await asyncio.sleep(0.001)

    await store.circuit.aclose()

    (only,) = asyncio.all_tasks()
    assert only is asyncio.current_task()
    await Circuit("test store", store.probe).aclose()

"""gateway.observe.metrics: what is counted, added up and read."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.model import Reason
from gateway.observe.access import Entry
from gateway.observe.metrics import (
    BOUNDS,
    CONNECTIONS,
    CPU,
    DECISIONS,
    FAMILIES,
    KEYS,
    KEYS_AGE,
    MAX_CELLS,
    NEEDS,
    OTHER,
    REQUESTS,
    UPSTREAM_FAILURES,
    UPSTREAM_REQUESTS,
    Labels,
    Metrics,
    Sample,
    Snapshot,
    dump,
    lasting,
    load,
    merge,
    render,
)

PERMIT = Entry(
    1.0,
    "r-1",
    decision="permit",
    status=200,
    method="GET",
    route="orders.list",
    upstream="orders",
    ms=3.0,
    upstream_ms=2.0,
)
DENY = Entry(
    1.0,
    "r-2",
    decision="deny",
    reason="permission.missing:orders:read",
    status=403,
    method="GET",
    route="orders.list",
    ms=0.2,
)


def ignore(_: Entry) -> None:
    """Write nothing."""


def counted(*entries: Entry) -> Snapshot:
    """Return what is known after *entries*."""
    metrics = Metrics()
    count = metrics.counting(ignore)
    for entry in entries:
        count(entry)
    return metrics.snapshot()


def count_of(snapshot: Snapshot, labels: Labels) -> int:
    """Return how many requests have *labels*."""
    return int(sum(snapshot[REQUESTS.name][labels][:-1]))


def test_a_request_is_counted_before_it_is_logged() -> None:
    """Even a log that fails leaves the count right."""
    metrics = Metrics()
    logged: list[Entry] = []
    metrics.counting(logged.append)(PERMIT)

    def fail(_: Entry) -> None:
        raise OSError

    with pytest.raises(OSError):
        metrics.counting(fail)(PERMIT)

    assert logged == [PERMIT]
    found = metrics.snapshot()
    assert count_of(found, ("GET", "orders.list", "200")) == 2
    assert found[DECISIONS.name] == {("permit", ""): [2.0]}
    buckets = found[UPSTREAM_REQUESTS.name]["orders", "200"]
    assert sum(buckets[:-1]) == 2
    assert buckets[-1] == pytest.approx(0.004)


@pytest.mark.parametrize(
    ("ms", "bucket"),
    [(0.0, 0), (0.5, 0), (0.51, 1), (1.0, 1), (10_000.0, 13), (10_001.0, 14)],
)
def test_a_time_is_in_the_bucket_whose_bound_it_does_not_exceed(
    ms: float, bucket: int
) -> None:
    """`le` means less or equal; the last bucket has no bound."""
    found = counted(PERMIT._replace(ms=ms, upstream_ms=ms))

    for series in (
        found[REQUESTS.name]["GET", "orders.list", "200"],
        found[UPSTREAM_REQUESTS.name]["orders", "200"],
    ):
        *counts, total = series
        assert counts == [int(at == bucket) for at in range(len(BOUNDS) + 1)]
        assert total == pytest.approx(ms / 1000)


@pytest.mark.parametrize(
    ("entry", "request_labels", "decision"),
    [
        (PERMIT, ("GET", "orders.list", "200"), ("permit", "")),
        (DENY, ("GET", "orders.list", "403"), ("deny", "permission.missing")),
        (
            DENY._replace(reason="outage", decision="deny"),
            ("GET", "orders.list", "403"),
            ("deny", OTHER),
        ),
        (
            DENY._replace(method="get", route=None),
            (OTHER, "", "403"),
            ("deny", "permission.missing"),
        ),
        (
            PERMIT._replace(status=None, reason="client.gone"),
            ("GET", "orders.list", ""),
            ("permit", "client.gone"),
        ),
        (
            PERMIT._replace(status=299),
            ("GET", "orders.list", OTHER),
            ("permit", ""),
        ),
        (
            DENY._replace(decision="outage", reason="revocation store", status=503),
            ("GET", "orders.list", "503"),
            ("outage", "revocation store"),
        ),
        (Entry(1.0, "r"), (OTHER, "", ""), ("error", "")),
    ],
)
def test_labels_come_from_closed_sets(
    entry: Entry, request_labels: Labels, decision: Labels
) -> None:
    """What is none of them is the same one for all (R98)."""
    found = counted(entry, entry)

    assert list(found[REQUESTS.name]) == [request_labels]
    assert count_of(found, request_labels) == 2
    assert found[DECISIONS.name] == {decision: [2.0]}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_counted_by_its_name(reason: Reason) -> None:
    """Without what exactly it was."""
    found = counted(
        DENY._replace(reason=str(reason)), DENY._replace(reason=f"{reason}:x")
    )

    assert found[DECISIONS.name] == {("deny", str(reason)): [2.0]}


def test_how_an_upstream_failed_is_counted_for_it() -> None:
    """By its name; a request that failed otherwise is none of its."""
    found = counted(
        PERMIT._replace(reason="upstream.timed_out", status=504, upstream_ms=None),
        PERMIT._replace(reason="client.gone", status=None),
    )

    assert found[UPSTREAM_FAILURES.name] == {("orders", "timed_out"): [1.0]}
    assert list(found[UPSTREAM_REQUESTS.name]) == [("orders", "")]


def lines_of(snapshot: Snapshot) -> int:
    """Return how many series a scrape has."""
    text = "".join(render([snapshot]))
    return sum(not line.startswith("#") for line in text.splitlines())


def noise(random_: random.Random, **sure: Any) -> Entry:
    """Return what a client can make of an entry: nothing in it is of our making."""
    word = f"{random_.getrandbits(64):x}"
    return Entry(
        random_.random(),
        word,
        method=word,
        path=f"/{word}",
        host=word,
        client=word,
        trace_id=word,
        token_hash=word,
        ms=random_.random() * 1e5,
        **sure,
    )


def test_a_hundred_thousand_inventions_make_no_series() -> None:
    """Random paths, methods, hosts and kids: the count of series stays (R98)."""
    random_ = random.Random(98)
    metrics = Metrics()
    count = metrics.counting(ignore)
    kinds: list[dict[str, Any]] = [
        {"decision": "deny", "reason": "route.unknown", "status": 404},
        {"decision": "deny", "reason": "token.key", "status": 401, "route": "a"},
        {"decision": "deny", "reason": "request.malformed:syntax", "status": 400},
    ]
    for kind in kinds:
        count(noise(random_, **kind))
    before = lines_of(metrics.snapshot())
    cells = len(metrics._cells)

    for at in range(100_000):
        count(noise(random_, **kinds[at % 3]))

    found = metrics.snapshot()
    assert lines_of(found) == before
    assert len(metrics._cells) == cells
    assert count_of(found, (OTHER, "", "404")) == 33_335


def test_of_too_many_combinations_the_rest_is_one() -> None:
    """A policy of ten thousand routes costs no more than two thousand (R98)."""
    metrics = Metrics()
    count = metrics.counting(ignore)
    for at in range(MAX_CELLS + 500):
        count(PERMIT._replace(route=f"r{at}"))
    count(PERMIT._replace(route="r0"))

    found = metrics.snapshot()
    assert len(found[REQUESTS.name]) == MAX_CELLS + 1
    assert count_of(found, (OTHER, OTHER, "200")) == 500
    assert count_of(found, ("GET", "r0", "200")) == 2
    assert found[DECISIONS.name] == {("permit", ""): [MAX_CELLS + 501.0]}


def test_a_hostile_upstream_has_no_more_statuses_than_http() -> None:
    """Whatever three digits it answers with."""
    found = counted(*(PERMIT._replace(status=status) for status in range(200, 1000)))

    assert len(found[UPSTREAM_REQUESTS.name]) < 64


def test_what_a_decision_had_to_ask_for_is_timed() -> None:
    """An outage is counted apart from an answer."""
    metrics = Metrics()
    metrics.asked("revocation", 0.002, answered=True)
    metrics.asked("revocation", 0.002, answered=True)
    metrics.asked("revocation", 0.15, answered=False)

    series = metrics.snapshot()[NEEDS.name]
    assert sum(series["revocation", "answered"][:-1]) == 2
    assert series["revocation", "answered"][-1] == pytest.approx(0.004)
    assert sum(series["revocation", "unavailable"][:-1]) == 1


def sampled(*samples: Sample) -> Snapshot:
    return Metrics().snapshot(samples)


def test_several_processes_are_one() -> None:
    """Counts and gauges add up; an age is the oldest, a health the worst."""
    one = sampled(
        (CONNECTIONS, ("idle",), 3), (KEYS_AGE, ("corp",), 5), (KEYS, ("corp",), 2)
    )
    two = sampled(
        (CONNECTIONS, ("idle",), 4), (KEYS_AGE, ("corp",), 7), (KEYS, ("corp",), 0)
    )
    first, second = counted(PERMIT, DENY), counted(PERMIT)

    found = merge([one, two, first, second])

    assert found[CONNECTIONS.name] == {("idle",): [7.0]}
    assert found[KEYS_AGE.name] == {("corp",): [7.0]}
    assert found[KEYS.name] == {("corp",): [0.0]}
    assert found[REQUESTS.name] == counted(PERMIT, PERMIT, DENY)[REQUESTS.name]
    # Those that were merged are as they were.
    assert one[CONNECTIONS.name] == {("idle",): [3.0]}
    assert first == counted(PERMIT, DENY)


def test_of_a_process_that_is_gone_its_counts_remain() -> None:
    """A sum that falls would read as a restart, and all of it as new."""
    gone = merge([counted(PERMIT), sampled((CONNECTIONS, ("idle",), 3), (CPU, (), 2))])

    assert lasting(gone) == merge([counted(PERMIT), sampled((CPU, (), 2))])


def test_a_snapshot_goes_from_one_process_to_another() -> None:
    """As bytes, without loss."""
    snapshot = counted(PERMIT, DENY, Entry(1.0, "r"))

    assert load(dump(snapshot)) == snapshot


READERS: list[tuple[bool, Callable[[str], Any]]] = [
    (False, read_text),
    (True, read_openmetrics),
]


def everything() -> Snapshot:
    """Return a snapshot in which every family has series."""
    odd = 'a "b" \\ c\nd'
    entries = [
        PERMIT,
        DENY,
        PERMIT._replace(route=odd),
        PERMIT._replace(reason="upstream.refused", status=502),
    ]
    metrics = Metrics()
    for entry in entries:
        metrics.counting(ignore)(entry)
    metrics.asked("key", 0.3, answered=True)
    held = {REQUESTS, DECISIONS, UPSTREAM_REQUESTS, UPSTREAM_FAILURES, NEEDS}
    return metrics.snapshot(
        (family, (odd,) * len(family.labels), 1.5)
        for family in FAMILIES
        if family not in held
    )


@pytest.mark.parametrize(("openmetrics", "read"), READERS)
def test_what_is_rendered_is_what_others_read(
    openmetrics: bool, read: Callable[[str], list[Metric]]
) -> None:
    """Prometheus' own reader of either format finds every value again."""
    snapshot = everything()

    families = list(read("".join(render([snapshot], openmetrics=openmetrics))))

    assert len(families) == len(FAMILIES)
    for metric, family in zip(families, FAMILIES, strict=True):
        assert metric.name == family.name.removesuffix("_total")
        assert metric.type == family.kind
        assert metric.documentation == family.help
        series: dict[Labels, dict[str, float]] = {}
        for sample in metric.samples:
            labels = tuple(sample.labels[each] for each in family.labels)
            part = sample.name.removeprefix(family.name) + sample.labels.get("le", "")
            series.setdefault(labels, {})[part] = sample.value
        assert series.keys() == snapshot[family.name].keys()
        for labels, values in snapshot[family.name].items():
            if family.kind != "histogram":
                assert list(series[labels].values()) == values
                continue
            buckets = [series[labels][f"_bucket{bound}"] for bound in BOUNDS]
            assert buckets == [sum(values[: at + 1]) for at in range(len(BOUNDS))]
            whole = sum(values[:-1])
            assert series[labels]["_bucket+Inf"] == series[labels]["_count"] == whole
            assert series[labels]["_sum"] == values[-1]


def test_a_scrape_is_rendered_in_pieces() -> None:
    """No piece is long, however many series there are: requests go on between."""
    snapshot = counted(*(PERMIT._replace(route=f"r{at}") for at in range(500)))

    pieces = list(render([snapshot]))

    assert max(piece.count("\n") for piece in pieces) <= 25 * (len(BOUNDS) + 3)
    assert len(pieces) > 20


def test_no_two_families_have_one_name() -> None:
    """Counters end in _total, as both formats want it."""
    names = [family.name for family in FAMILIES]

    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert family.name.endswith("_total") is (family.kind == "counter")

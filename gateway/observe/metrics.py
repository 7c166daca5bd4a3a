"""What is counted, and how Prometheus reads it.

A request is counted where its log entry passes, so that nothing can be logged and not
counted. It costs one look-up: each combination of route, method, status, decision,
reason and upstream that has occurred has a cell with plain numbers in it, and what they
add up to is worked out when somebody asks. Labels come from closed sets, never from
what a client chose (R98): a method that nobody knows, a status that is none and what a
reason names become OTHER or go, and beyond MAX_CELLS combinations route and method do.

prometheus-client would take 1.1 microseconds for each histogram of a request, 2.4 with
a look-up, where all of it takes 0.5 here; its reader holds our text in the tests.

A Snapshot is plain data. Those of several processes are added up, and rendered as text
exposition format 0.0.4 or OpenMetrics 1.0. The series are described in docs/metrics.md.

Imports: gateway.model, gateway.observe.access.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPMethod, HTTPStatus
from itertools import accumulate
from typing import Final, Literal

from gateway.model import Reason
from gateway.observe.access import Entry, Form

OTHER: Final = "_OTHER"  # as OpenTelemetry writes it
# Combinations that have a cell of their own: some 15 lines each in the answer. Nothing
# of ours meets it but a policy with very many routes, where Prometheus would.
MAX_CELLS: Final = 2000
MAX_FORMS: Final = 1024  # of log lines, each with its cell beside it

# Seconds. As many as OpenTelemetry advises for HTTP, but from lower on: that a request
# takes two milliseconds instead of one is what one wants to see of a gateway.
BOUNDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_BOUNDS_MS: Final = tuple(1000 * bound for bound in BOUNDS)

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_METHODS: Final = frozenset({*map(str, HTTPMethod), "QUERY"})
_STATUSES: Final = frozenset(status.value for status in HTTPStatus)
_REASONS: Final = frozenset(map(str, Reason))
_PIECE: Final = 25  # series rendered at once: well below a millisecond
_TAILS: Final = tuple(f',le="{bound}"}} ' for bound in (*BOUNDS, "+Inf"))


@dataclass(frozen=True, slots=True)
class Family:
    """Series of one name."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    # Of several processes; counters and histograms are always added up.
    merge: Literal["sum", "max", "min"] = "sum"


REQUESTS = Family(
    "http_server_request_duration_seconds",
    "histogram",
    "Requests of clients, from the head's last byte to the answer's.",
    ("http_request_method", "http_route", "http_response_status_code"),
)
ACTIVE = Family(
    "http_server_active_requests", "gauge", "Requests that are being served."
)
DECISIONS = Family(
    "gateway_decisions_total",
    "counter",
    "What became of requests, in the words of the access log.",
    ("decision", "reason"),
)
UPSTREAM_REQUESTS = Family(
    "http_client_request_duration_seconds",
    "histogram",
    "Requests to upstreams, until the head of the answer.",
    ("upstream", "http_response_status_code"),
)
UPSTREAM_FAILURES = Family(
    "gateway_upstream_failures_total",
    "counter",
    "Requests that an upstream did not answer to the end.",
    ("upstream", "failure"),
)
UPSTREAM_CONNECTIONS = Family(
    "gateway_upstream_connections",
    "gauge",
    "Connections to upstreams: idle, lent to a request, or being opened.",
    ("upstream", "state"),
)
UPSTREAM_ENDPOINTS = Family(
    "gateway_upstream_endpoints",
    "gauge",
    "Endpoints of upstreams, by what is thought of them.",
    ("upstream", "state"),
)
UPSTREAM_RETRIES = Family(
    "gateway_upstream_retries_total",
    "counter",
    "Connections tried at a further endpoint, because one could not be reached.",
    ("upstream",),
)
UPSTREAM_FULL = Family(
    "gateway_upstream_full_total",
    "counter",
    "Requests refused because an upstream had as many as it may have.",
    ("upstream",),
)
CONNECTIONS = Family(
    "gateway_connections",
    "gauge",
    "Connections of clients: with a request in hand or one that waits to be seen to, "
    "idle, or in their TLS handshake.",
    ("state",),
)
CONNECTIONS_REFUSED = Family(
    "gateway_connections_refused_total",
    "counter",
    "Connections closed at once: too many in all or of one client, or at a stop.",
)
HANDSHAKES_FAILED = Family(
    "gateway_tls_handshakes_failed_total", "counter", "TLS handshakes that failed."
)
CERTIFICATE_END = Family(
    "gateway_tls_certificate_expiry_timestamp_seconds",
    "gauge",
    "When our own certificate expires.",
    merge="min",
)
NEEDS = Family(
    "gateway_need_duration_seconds",
    "histogram",
    "What a decision had to ask for, and whether it was answered.",
    ("need", "outcome"),
)
VERIFIED = Family("gateway_verified_tokens", "gauge", "Verified tokens remembered.")
VERIFIED_BYTES = Family(
    "gateway_verified_tokens_bytes", "gauge", "Memory that they take, as estimated."
)
VERIFIED_LOOKUPS = Family(
    "gateway_verified_token_lookups_total",
    "counter",
    "Tokens presented: known from before, or to be verified.",
    ("result",),
)
KEYS = Family(
    "gateway_jwks_keys",
    "gauge",
    "Usable keys held of an issuer.",
    ("issuer",),
    merge="min",
)
KEYS_AGE = Family(
    "gateway_jwks_age_seconds",
    "gauge",
    "Time since the keys of an issuer were last loaded.",
    ("issuer",),
    merge="max",
)
KEYS_REFRESHES = Family(
    "gateway_jwks_refreshes_total",
    "counter",
    "Attempts to load the keys of an issuer.",
    ("issuer", "outcome"),
)
INTROSPECTIONS = Family(
    "gateway_introspections_total",
    "counter",
    "What an issuer has said of opaque tokens, or that it was not asked.",
    ("issuer", "outcome"),
)
INTROSPECTIONS_PENDING = Family(
    "gateway_introspections_pending",
    "gauge",
    "Opaque tokens that an issuer is being asked about.",
    ("issuer",),
)
STORE_UP = Family(
    "gateway_revocation_store_up",
    "gauge",
    "Whether the revocation store answers.",
    merge="min",
)
MIRROR_LIVE = Family(
    "gateway_revocation_mirror_live",
    "gauge",
    "Whether the local mirror of the revocation list counts.",
    merge="min",
)
MIRROR_AGE = Family(
    "gateway_revocation_mirror_age_seconds",
    "gauge",
    "Time since the mirror was last known to be whole.",
    merge="max",
)
MIRROR_ENTRIES = Family(
    "gateway_revocation_mirror_entries",
    "gauge",
    "Revocations in the mirror.",
    merge="min",
)
MIRROR_RESYNCS = Family(
    "gateway_revocation_mirror_resyncs_total",
    "counter",
    "Snapshots of the revocation list that were taken.",
)
STALE_DECISIONS = Family(
    "gateway_revocation_stale_decisions_total",
    "counter",
    "Decisions by an old mirror, because the store was away.",
)
LOG_LOST = Family(
    "gateway_log_lines_lost_total",
    "counter",
    "Lines that were not written, because whoever reads them is too slow.",
    ("log",),
)
CONFIG = Family(
    "gateway_config_info",
    "gauge",
    "How many processes decide by which configuration.",
    ("generation",),
)
RELOADS = Family(
    "gateway_config_reloads_total",
    "counter",
    "Times that the configuration was read again, and put in force or refused.",
    ("result",),
)
CPU = Family("process_cpu_seconds_total", "counter", "CPU time, user and system.")
MEMORY = Family("process_resident_memory_bytes", "gauge", "Resident memory.")
OPEN_FDS = Family("process_open_fds", "gauge", "Open file descriptors.")
MAX_FDS = Family(
    "process_max_fds", "gauge", "Most file descriptors of one process.", merge="min"
)

FAMILIES: Final = (
    *(REQUESTS, ACTIVE, DECISIONS),
    *(UPSTREAM_REQUESTS, UPSTREAM_FAILURES, UPSTREAM_CONNECTIONS),
    *(UPSTREAM_ENDPOINTS, UPSTREAM_RETRIES, UPSTREAM_FULL),
    *(CONNECTIONS, CONNECTIONS_REFUSED, HANDSHAKES_FAILED, CERTIFICATE_END, NEEDS),
    *(VERIFIED, VERIFIED_BYTES, VERIFIED_LOOKUPS),
    *(KEYS, KEYS_AGE, KEYS_REFRESHES, INTROSPECTIONS, INTROSPECTIONS_PENDING),
    *(STORE_UP, MIRROR_LIVE, MIRROR_AGE, MIRROR_ENTRIES, MIRROR_RESYNCS),
    STALE_DECISIONS,
    *(LOG_LOST, CONFIG, RELOADS, CPU, MEMORY, OPEN_FDS, MAX_FDS),
)

# Route, method, status, decision, reason, upstream.
_Key = tuple[str | None, str, int | str | None, str, str | None, str | None]
Labels = tuple[str, ...]
Sample = tuple[Family, Labels, float]
Series = dict[Labels, list[float]]
"""By label values: one number, or of a histogram the count of each bucket, those above
the last bound among them, and then the sum."""
Snapshot = dict[str, Series]
"""The series of each family by its name."""


class Metrics:
    """What one process has counted since it started."""

    def __init__(self) -> None:
        self._cells: dict[_Key, _Cell] = {}
        self._by_form: dict[Form, _Cell] = {}
        self._upstreams: dict[Labels, _Histogram] = {}
        self._needs: dict[Labels, _Histogram] = {}
        self.decided_stale = 0  # by an old mirror of the revocation list

    def counting(self, log: Callable[[Entry], None]) -> Callable[[Entry], None]:
        """Return what counts an entry before it hands it to *log*."""
        by_form, cell_for = self._by_form, self._cell_for

        def count(entry: Entry) -> None:
            form, ms, upstream_ms = entry[-1], entry[5], entry[6]
            # Entries that share a form share all that a cell is known by.
            cell = by_form.get(form) if form is not None else None
            if cell is None:
                cell = cell_for(entry)
                if form is not None:
                    if len(by_form) >= MAX_FORMS:
                        by_form.clear()
                    by_form[form] = cell
            cell.counts[bisect_left(_BOUNDS_MS, ms)] += 1
            cell.ms += ms
            if upstream_ms is not None:
                upstream = cell.upstream
                upstream.counts[bisect_left(_BOUNDS_MS, upstream_ms)] += 1
                upstream.ms += upstream_ms
            log(entry)

        return count

    def asked(self, need: str, seconds: float, *, answered: bool) -> None:
        """Count a question for *need*; not *answered*: whoever was asked is away."""
        labels = (need, "answered" if answered else "unavailable")
        found = self._needs.get(labels)
        if found is None:
            found = self._needs[labels] = _Histogram()
        ms = seconds * 1000
        found.counts[bisect_left(_BOUNDS_MS, ms)] += 1
        found.ms += ms

    def snapshot(self, samples: Iterable[Sample] = ()) -> Snapshot:
        """Return all that was counted, and *samples* of what is not counted here."""
        found: Snapshot = {}
        for key, cell in self._cells.items():
            route, method, status, decision, reason, upstream = key
            values = cell.values()
            status_label = "" if status is None else str(status)
            _add(found, REQUESTS, (method, route or "", status_label), values)
            count = [float(sum(cell.counts))]
            _add(found, DECISIONS, (decision, reason or ""), count)
            kind, _, failure = (reason or "").partition(".")
            if upstream and kind == "upstream":
                _add(found, UPSTREAM_FAILURES, (upstream, failure), count)
        for family, histograms in (
            (UPSTREAM_REQUESTS, self._upstreams),
            (NEEDS, self._needs),
        ):
            for labels, histogram in histograms.items():
                if any(histogram.counts):
                    _add(found, family, labels, histogram.values())
        for family, labels, value in samples:
            _add(found, family, labels, [float(value)])
        return found

    def _cell_for(self, entry: Entry) -> _Cell:
        """Return the cell of *entry*."""
        words = entry.route, entry.method, entry.status, entry.decision, entry.reason
        known = self._cells.get((*words, entry.upstream))
        if known is not None:  # what is not of our own making is no key
            return known
        status: int | str | None = entry.status
        if status is not None and status not in _STATUSES:
            status = OTHER
        method = entry.method if entry.method in _METHODS else OTHER
        rest = (status, entry.decision, _reason(entry), entry.upstream)
        key: _Key = (entry.route, method, *rest)
        if len(self._cells) >= MAX_CELLS and key not in self._cells:
            key = (OTHER, OTHER, *rest)
        cell = self._cells.get(key)
        if cell is None:
            labels = (entry.upstream or "", "" if status is None else str(status))
            upstream = self._upstreams.get(labels)
            if upstream is None:
                upstream = self._upstreams[labels] = _Histogram()
            cell = self._cells[key] = _Cell(upstream)
        return cell


class _Histogram:
    """How often it took how long."""

    __slots__ = ("counts", "ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.ms = 0.0

    def values(self) -> list[float]:
        """Return it as a Series has it."""
        return [*self.counts, self.ms / 1000]


class _Cell(_Histogram):
    """Requests that are alike, and how long their upstream took."""

    __slots__ = ("upstream",)

    def __init__(self, upstream: _Histogram) -> None:
        super().__init__()
        self.upstream = upstream


def _reason(entry: Entry) -> str | None:
    said = entry.reason
    if said is None or entry.decision != "deny":
        return said  # a dependency or an upstream's failure, in our own words
    word = said.partition(":")[0]
    return word if word in _REASONS else OTHER


# From several processes


def merge(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Return what *snapshots* of several processes say together."""
    merged: Snapshot = {}
    for snapshot in snapshots:
        for family in FAMILIES:
            for labels, values in snapshot.get(family.name, {}).items():
                _add(merged, family, labels, values)
    return merged


def lasting(snapshot: Snapshot) -> Snapshot:
    """Return what of *snapshot* is still true when its process is no more.

    Without it a sum would fall, and Prometheus take the rest of it for news.
    """
    gauges = {family.name for family in FAMILIES if family.kind == "gauge"}
    return {name: each for name, each in snapshot.items() if name not in gauges}


def dump(snapshot: Snapshot) -> bytes:
    """Return *snapshot* as it goes from one process to another."""
    return json.dumps(
        {name: list(series.items()) for name, series in snapshot.items()},
        separators=(",", ":"),
    ).encode("ascii")


def load(dumped: bytes) -> Snapshot:
    """Return the snapshot that was dumped."""
    return {
        name: {tuple(labels): values for labels, values in series}
        for name, series in json.loads(dumped).items()
    }


def _add(to: Snapshot, family: Family, labels: Labels, values: list[float]) -> None:
    series = to.setdefault(family.name, {})
    held = series.get(labels)
    if held is None:
        series[labels] = values
    elif family.merge == "sum":
        series[labels] = [a + b for a, b in zip(held, values, strict=True)]
    else:
        series[labels] = [(max if family.merge == "max" else min)(held[0], values[0])]


# As text


def render(
    snapshots: Sequence[Snapshot], *, openmetrics: bool = False
) -> Iterator[str]:
    """Yield, in pieces, what *snapshots* say together.

    There may be a thousand series: between two pieces others have their turn.
    """
    merged = merge(snapshots)
    for family in FAMILIES:
        series = list(merged.get(family.name, {}).items())
        if not series:
            continue
        name = family.name
        # There the name of a counter is one thing, its sample's another.
        title = name.removesuffix("_total") if openmetrics else name
        yield f"# HELP {title} {family.help}\n# TYPE {title} {family.kind}\n"
        for at in range(0, len(series), _PIECE):
            yield "".join(
                _lines(family, labels, values)
                for labels, values in series[at : at + _PIECE]
            )
    if openmetrics:
        yield "# EOF\n"


def _lines(family: Family, labels: Labels, values: list[float]) -> str:
    name = family.name
    said = ",".join(
        f'{label}="{_escaped(value)}"'
        for label, value in zip(family.labels, labels, strict=True)
    )
    if family.kind != "histogram":
        return f"{name}{{{said}}} {values[0]}\n" if said else f"{name} {values[0]}\n"
    *counts, total = values
    cumulated = [int(count) for count in accumulate(counts)]
    bucket = f"{name}_bucket{{{said}"
    buckets = "".join(
        [
            f"{bucket}{tail}{count}\n"
            for tail, count in zip(_TAILS, cumulated, strict=True)
        ]
    )
    return (
        f"{buckets}{name}_sum{{{said}}} {total}\n"
        f"{name}_count{{{said}}} {cumulated[-1]}\n"
    )


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

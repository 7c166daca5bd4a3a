"""What is known of keys, for whoever operates the gateway; nothing is decided by it.

Each process knows what it has seen; together they tell the whole. Times are Unix
seconds. What verifies with a secret has no thumbprint here: it would help to guess it.

Imports: the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

# next: published, and no token has come that it verifies; previous: withdrawn.
State = Literal["current", "next", "previous"]
_ORDER: Sequence[State] = ("current", "next", "previous")


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key."""

    state: State
    key_id: str | None
    algorithms: tuple[str, ...]
    thumbprint: str  # RFC 7638; "" of a secret
    seen_at: float  # when it was first held
    gone_at: float | None = None  # when it was seen to be withdrawn


@dataclass(frozen=True, slots=True)
class KeySetStatus:
    """The keys of an issuer, or those that sign one identity of ours."""

    name: str  # of the issuer in gateway.toml; the `iss` of an identity
    source: str  # "discovery", "url", "file", "pem", "secret" or "directory"
    keys: tuple[KeyStatus, ...]
    refreshed_at: float | None = None  # last; None: never, or it stands in a file
    refresh_at: float | None = None  # next
    trouble: str = ""
    skipped: tuple[str, ...] = ()  # keys that are published and can't be used


@dataclass(frozen=True, slots=True)
class KeyReport:
    """All of them, as one process knows them or all together."""

    issuers: tuple[KeySetStatus, ...]
    identities: tuple[KeySetStatus, ...]


def dump(report: KeyReport) -> bytes:
    """Return *report* as JSON."""
    return json.dumps(asdict(report)).encode("ascii")


def load(said: bytes) -> KeyReport:
    """Return the report that was dumped."""
    told = json.loads(said)
    return KeyReport(_sets(told["issuers"]), _sets(told["identities"]))


def merged(reports: Sequence[KeyReport]) -> KeyReport:
    """Return what *reports* of several processes say together.

    A key is as new as whoever knows it best says; a set as fresh as whoever is last.
    """
    return KeyReport(
        _merged(each for report in reports for each in report.issuers),
        _merged(each for report in reports for each in report.identities),
    )


def _sets(said: Sequence[Mapping[str, Any]]) -> tuple[KeySetStatus, ...]:
    return tuple(
        KeySetStatus(
            **{
                **each,
                "skipped": tuple(each["skipped"]),
                "keys": tuple(
                    KeyStatus(**{**key, "algorithms": tuple(key["algorithms"])})
                    for key in each["keys"]
                ),
            }
        )
        for each in said
    )


def _merged(sets: Iterable[KeySetStatus]) -> tuple[KeySetStatus, ...]:
    by_name: dict[str, list[KeySetStatus]] = {}
    for each in sets:
        by_name.setdefault(each.name, []).append(each)
    return tuple(_one_set(same) for same in by_name.values())


def _one_set(same: Sequence[KeySetStatus]) -> KeySetStatus:
    by_key: dict[tuple[str | None, str], list[KeyStatus]] = {}
    for each in same:
        for key in each.keys:
            by_key.setdefault((key.key_id, key.thumbprint), []).append(key)
    keys = sorted(map(_one_key, by_key.values()), key=lambda k: _ORDER.index(k.state))
    troubles = dict.fromkeys(each.trouble for each in same if each.trouble)
    return KeySetStatus(
        same[0].name,
        same[0].source,
        tuple(keys),
        _known(min, (each.refreshed_at for each in same)),
        _known(min, (each.refresh_at for each in same)),
        "; ".join(troubles),
        tuple(dict.fromkeys(why for each in same for why in each.skipped)),
    )


def _one_key(same: Sequence[KeyStatus]) -> KeyStatus:
    state = min((each.state for each in same), key=_ORDER.index)
    gone = _known(max, (each.gone_at for each in same))
    return KeyStatus(
        state,
        same[0].key_id,
        same[0].algorithms,
        same[0].thumbprint,
        min(each.seen_at for each in same),
        gone if state == "previous" else None,
    )


def _known(
    choose: Callable[[list[float]], float], times: Iterable[float | None]
) -> float | None:
    """Return which of *times* counts; None where none is known."""
    known = [each for each in times if each is not None]
    return choose(known) if known else None

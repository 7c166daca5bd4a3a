"""gateway.tokens.key_status: what several processes know of keys, together."""

from __future__ import annotations

from gateway.tokens.key_status import (
    KeyReport,
    KeySetStatus,
    KeyStatus,
    dump,
    load,
    merged,
)

OLD = KeyStatus("current", "old", ("ES256",), "thumb-old", 100.0)
NEW = KeyStatus("next", "new", ("ES256", "RS256"), "thumb-new", 200.0)
GONE = KeyStatus("previous", "gone", ("ES256",), "thumb-gone", 10.0, 150.0)
CORP = KeySetStatus("corp", "url", (OLD, NEW, GONE), 250.0, 310.0, skipped=("key 3",))
OURS = KeySetStatus("https://api.example/identity", "file", (OLD,))


def of(*keys: KeyStatus, **more: float | str | None) -> KeyReport:
    return KeyReport((KeySetStatus("corp", "url", keys, **more),), ())  # type: ignore[arg-type]


def test_a_report_goes_from_one_process_to_another() -> None:
    """As JSON, and is what it was."""
    report = KeyReport((CORP,), (OURS,))

    assert load(dump(report)) == report


def test_one_process_alone_says_what_it_says() -> None:
    """In the order of the states."""
    (found,) = merged([of(GONE, NEW, OLD)]).issuers

    assert [key.state for key in found.keys] == ["current", "next", "previous"]


def test_a_key_that_one_process_has_used_is_in_use() -> None:
    """Tokens come to one worker first."""
    used = KeyStatus("current", "new", ("ES256", "RS256"), "thumb-new", 180.0)
    (found,) = merged([of(NEW), of(used)]).issuers

    assert found.keys == (used,)


def test_a_key_is_gone_when_nobody_holds_it() -> None:
    """And was until the last of them saw it."""
    held = KeyStatus("next", "gone", ("ES256",), "thumb-gone", 20.0)
    later = KeyStatus("previous", "gone", ("ES256",), "thumb-gone", 10.0, 160.0)

    (both,) = merged([of(GONE), of(held)]).issuers
    (neither,) = merged([of(GONE), of(later)]).issuers

    assert both.keys == (KeyStatus("next", "gone", ("ES256",), "thumb-gone", 10.0),)
    assert neither.keys == (later,)


def test_the_set_is_as_fresh_as_whoever_is_last() -> None:
    """One worker whose refreshes fail is not hidden by the others."""
    one = of(OLD, refreshed_at=250.0, refresh_at=310.0)
    two = of(OLD, refreshed_at=100.0, refresh_at=400.0, trouble="status 500")
    new = of(refreshed_at=None, refresh_at=None, trouble="status 500")

    (found,) = merged([one, two, new]).issuers

    assert (found.refreshed_at, found.refresh_at) == (100.0, 310.0)
    assert found.trouble == "status 500"


def test_nobody_knows_nothing() -> None:
    """As while no worker serves."""
    assert merged([]) == KeyReport((), ())

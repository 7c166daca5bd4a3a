"""gateway.config.units: a number has a unit, and one unit only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 B", 0),
        ("512B", 512),
        ("16 KiB", 16_384),
        ("10 MiB", 10_485_760),
        ("1GiB", 1_073_741_824),
    ],
)
def test_sizes_are_binary_and_in_bytes(text: str, expected: int) -> None:
    """KiB, MiB and GiB are powers of 1024; one space may stand before the unit."""
    assert units.size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", 0.25),
        ("0s", 0.0),
        ("10s", 10.0),
        ("5m", 300.0),
        ("24h", 86_400.0),
        ("2 d", 172_800.0),
    ],
)
def test_durations_are_in_seconds(text: str, expected: float) -> None:
    """ms, s, m, h and d; one space may stand before the unit."""
    assert units.duration(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "16", "16 KB", "16 kib", "1.5 MiB", "-1 B", "16  KiB", "１ B", "1 B\n"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """A plain number is refused too: it does not say whether it means KiB."""
    with pytest.raises(ValueError, match="with its unit"):
        units.size(text)


@pytest.mark.parametrize(
    "text", ["", "10", "10 sec", "1.5s", "-1s", "10S", "1h30m", "none"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A plain number is refused too: it does not say whether it means ms."""
    with pytest.raises(ValueError, match="with its unit"):
        units.duration(text)


def test_none_is_said_and_not_left_out() -> None:
    """A timeout may be "none" where its key says so."""
    assert units.duration_or_none("none") is None
    assert units.duration_or_none("1s") == 1.0
    with pytest.raises(ValueError, match='or "none"'):
        units.duration_or_none("0")


@given(st.integers(0, 10**11))
def test_a_size_is_what_it_is_spelt(size: int) -> None:
    """Messages spell sizes as one would write them."""
    assert units.size(units.spell_size(size)) == size


@given(st.integers(0, 10**8))
def test_a_duration_is_what_it_is_spelt(milliseconds: int) -> None:
    """Messages spell durations as one would write them."""
    assert units.duration(units.spell_duration(milliseconds / 1000)) == (
        milliseconds / 1000
    )

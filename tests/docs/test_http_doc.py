"""docs/http.md: the tables are what the gateway answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.model import Denial, Reason, Unavailable
from gateway.wire.problems import (
    Answer,
    UpstreamFailure,
    outage,
    problem,
    upstream_failure,
)

PAGE = Path(__file__).parent.parent.parent / "docs" / "http.md"


def rows() -> list[list[str]]:
    """Return the cells of every table row of the page, without the heads."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    tables = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in row] for row in tables]


def seen(answer: Answer) -> tuple[str, str, str]:
    """Return status, code and challenge of *answer*, as the page says them."""
    challenge = dict(answer.headers).get(b"www-authenticate", b"").decode()
    error = re.search(r'error="(\w+)"', challenge)
    said = error[1] if error else "without a code" if challenge else ""
    return str(answer.status), json.loads(answer.body)["code"], said


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_answered_as_the_page_says(reason: Reason) -> None:
    """One row for each; a new reason needs a new row."""
    (row,) = [row for row in rows() if row[0] == reason]

    answer = problem(Denial(reason, needed=("GET",)), request_id="r")

    assert tuple(row[1:4]) == seen(answer)
    assert row[4]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("unavailable", outage(Unavailable("x"), "r")),
        *(
            (f"upstream_{kind.value}", upstream_failure(kind, "r", "orders"))
            for kind in UpstreamFailure
        ),
    ],
)
def test_every_outage_is_answered_as_the_page_says(code: str, answer: Answer) -> None:
    """With Retry-After where to come back may help."""
    (row,) = [row for row in rows() if row[2] == code]

    assert tuple(row[1:3]) == seen(answer)[:2]
    assert (row[3] == "Retry-After") is (b"retry-after" in dict(answer.headers))

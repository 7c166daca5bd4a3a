"""docs/explain.md: what `gateway explain` prints, as it prints it."""

from __future__ import annotations

import re
import time
from pathlib import Path

from click.testing import CliRunner

from gateway.cli import main
from tests.site import AUDIENCE, ISSUER, Site
from tests.tokens import make

PAGE = Path(__file__).parent.parent.parent / "docs" / "explain.md"


def lines(text: str) -> list[str]:
    """Return the lines of *text*, less what the clock made."""
    return [re.sub(r"\d{4}-[^ ]+Z|-?\d+ s\b", "T", line) for line in text.splitlines()]


def test_the_page_shows_what_is_printed(tmp_path: Path) -> None:
    """Line by line, but for the time of day."""
    (block,) = re.findall(r"```\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    site, now = Site(tmp_path), int(time.time())
    claims = {"iss": ISSUER, "sub": "c-1", "aud": AUDIENCE, "client_id": "x"}
    token = make.token(site.key, {**claims, "iat": now - 600, "exp": now - 37})
    words = ["explain", "-c", str(site.write()), "--token-stdin"]
    outcome = CliRunner().invoke(main, words, input=token)

    assert outcome.exit_code == 1
    assert lines(outcome.output) == lines(block)


def test_the_page_names_the_options_that_there_are() -> None:
    """And both forms of the call."""
    page = PAGE.read_text("utf-8")
    said = CliRunner().invoke(main, ["explain", "--help"]).output
    for option in ("--host", "--token-stdin"):
        assert option in page
        assert option in said

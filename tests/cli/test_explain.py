"""gateway.cli.explain: the decision of the main path, in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.site import Site

ORDERS = "/api/orders/customers/c-1/orders"


def explain(
    site: Site, *words: str, token: str | None = None
) -> tuple[int, dict[str, str], str]:
    call = ["explain", "-c", str(site.write()), *words]
    if token is not None:
        call.append("--token-stdin")
    outcome = CliRunner().invoke(main, call, input=token)
    lines = dict(line.split(None, 1) for line in outcome.output.splitlines() if line)
    return outcome.exit_code, lines, outcome.output


def test_a_permit_is_explained_step_by_step(tmp_path: Path) -> None:
    """Route with its place, what it requires, who calls, what is granted and sent."""
    site = Site(tmp_path)
    token = site.token("c-1")

    status, lines, output = explain(site, "GET", ORDERS, token=token + "\n")

    assert status == 0
    assert lines["route"].startswith("orders.list (")
    assert "orders.toml:" in lines["route"]
    assert "orders:read_any" in lines["rule"]
    assert lines["caller"] == "user c-1 of corp"
    assert lines["verdict"] == f"permitted: {ORDERS} is sent to orders"
    assert token not in output
    assert token.split(".")[2] not in output


@pytest.mark.parametrize(
    ("words", "subject", "status", "verdict"),
    [
        (("GET", ORDERS), None, 1, "401 credential.missing"),
        (("GET", ORDERS), "c-2", 1, "403 condition.failed:owner"),
        (("GET", "/api/nothing"), "c-1", 1, "404 route.unknown"),
        (("DELETE", ORDERS), "c-1", 1, "405 method.not_allowed"),
        (("GET", "/api/orders/../x"), "c-1", 1, "400 target.ambiguous:dot segment"),
        (("GET", "/api/orders/status"), None, 0, "permitted: /api/orders/status"),
        (("GET", "/api/orders/catalogue"), None, 0, "permitted: "),
    ],
)
def test_a_denial_is_explained_by_its_reason(
    tmp_path: Path,
    words: tuple[str, ...],
    subject: str | None,
    status: int,
    verdict: str,
) -> None:
    """The same word as in the log; the exit code says whether it would pass."""
    site = Site(tmp_path)
    token = site.token(subject) if subject else None

    found, lines, _ = explain(site, *words, token=token)

    assert (found, lines["verdict"][: len(verdict)]) == (status, verdict)


def test_an_outage_is_explained_as_one(tmp_path: Path) -> None:
    """With the store away there is no verdict about the caller."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")

    status, lines, _ = explain(site, "GET", ORDERS, token=site.token())

    assert status == 1
    assert lines["verdict"].startswith("503 outage: revocation store")
    assert lines["caller"] == "user c-1 of corp"


@pytest.mark.parametrize("path", ["/\udcff", "/a b", "/%zz", "//", "*"])
def test_any_path_has_an_explanation(tmp_path: Path, path: str) -> None:
    """Bytes that are no text come from a shell as well."""
    status, lines, _ = explain(Site(tmp_path), "GET", path)

    assert status == 1
    assert lines["verdict"].startswith("400 target.ambiguous")

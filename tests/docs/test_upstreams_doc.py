"""docs/upstreams.md: its example loads, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.config.settings import Ejection, HealthCheck, Upstream
from gateway.proxy import exchange, health, pool, trust, upstream
from gateway.proxy.server import SWEEP
from tests.certificates import Authority
from tests.config.making import ROOT, Project, copy_to

PAGE = ROOT / "docs" / "upstreams.md"


def page() -> str:
    """Return the page in one line."""
    return " ".join(PAGE.read_text(encoding="utf-8").split())


def test_its_example_loads(tmp_path: Path) -> None:
    """As it stands, in place of the repository's own upstream."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    ca = Authority()
    ca.write(tmp_path)
    ca.sign("gateway").write(tmp_path)
    project: Project = copy_to(tmp_path)
    text = project.read("gateway.toml")
    before, _, after = text.partition("[upstream.orders]")
    rest = after[after.index("\n[") :] if "\n[" in after else ""
    example = example.replace("/run/secrets/orders", str(tmp_path))
    project.write("gateway.toml", before + example + rest)
    orders = project.load().settings.upstreams["orders"]
    assert len(orders.urls) == 2
    assert orders.tls.server_name == orders.host == "orders.internal"
    assert orders.health == HealthCheck("/healthz", interval=5.0)
    assert "plaintext upstream orders" not in project.weak()


def test_its_numbers_are_those_of_the_code() -> None:
    """Each sentence with a number in it that is no key's."""
    orders = Upstream("orders", ())
    rules, check = Ejection(), HealthCheck("/")
    trials = [health.FIRST_TRIAL]
    while trials[-1] < health.LAST_TRIAL:
        trials.append(min(2 * trials[-1], health.LAST_TRIAL))
    assert trials == [0.5, 1, 2, 4, 8, 10]
    for sentence in (
        f"`resolve_every` ({orders.resolve_every / 60:.0f} min)",
        "but not within a second",
        f"again after {pool.UNTOLD_TTL:.0f} s",
        f"After {health.LIMIT} connections in a row",
        "not tried for half a second",
        "after 1, 2, 4 and 8 seconds, then every 10",
        f"failures` ({rules.failures}) in a row",
        f"`time` ({rules.time:.0f} s)",
        f"`max_time` ({rules.max_time / 60:.0f} min)",
        f"`unhealthy` ({check.unhealthy}) in a row",
        f"`healthy` ({check.healthy})",
        f"`panic_threshold` ({orders.panic_threshold}) percent",
        f"up to {pool.TRIES} in all",
        f"`keep_alive` ({orders.keep_alive:.0f} s)",
        f"`max_connections` ({orders.max_connections})",
        f"within {trust.LOOK:.0f} seconds",
    ):
        assert sentence in page(), sentence
    assert pool.LEAST_TTL == 1
    assert (pool.RETRY_LOOKUP, upstream.UNSTEADY, SWEEP) == (1, 60, 0.25)
    assert frozenset({502, 503, 504}) == health.GATEWAY_ERRORS


def test_its_methods_are_those_that_may_be_repeated() -> None:
    """RFC 9110 section 9.2.2."""
    said = re.search(r"new connection: ([^.]+?) without a body", page())
    assert said is not None
    methods = {each.encode() for each in re.findall(r"`([A-Z]+)`", said[1])}
    assert methods == exchange._IDEMPOTENT

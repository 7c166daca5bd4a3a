"""gateway.door: the gateway is put into an application, with all that it needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.asgi.own import KEY_SET_PATH
from gateway.door import GatewayMiddleware
from gateway.observe.access import Entry
from tests.asgi.test_middleware import ORDERS, App, client, guard
from tests.site import Site


@pytest.mark.parametrize(("said", "lines"), [("true", 1), ("false", 0)])
async def test_its_own_log_is_the_access_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, lines: int
) -> None:
    """Without `log` it writes to stdout, unless `[log] access` is false."""
    site, written = Site(tmp_path), list[Entry]()
    site.more = f"[log]\naccess = {said}"
    writer = SimpleNamespace(put=written.append)
    monkeypatch.setattr("gateway.door.LogWriter", lambda *_: writer)
    made = GatewayMiddleware(App(), config=site.write(), service="orders")
    async with client(made) as http:
        await http.get("/api/orders/status")

    assert len(written) == lines


async def test_what_it_has_counted_is_for_the_application_to_show(
    tmp_path: Path,
) -> None:
    """Requests, refusals and our own parts, as on a gateway's probes port."""
    made = guard(Site(tmp_path), App())
    async with client(made) as http:
        await http.get("/api/orders/status")
        await http.get(ORDERS)
        await http.get("/api/orders/nowhere?code=s3cret")

    text = made.metrics()
    assert 'gateway_decisions_total{decision="permit",reason=""} 1.0\n' in text
    assert (
        'http_server_request_duration_seconds_count{http_request_method="GET",'
        'http_route="orders.list",http_response_status_code="401"} 1\n'
    ) in text
    assert f'gateway_config_info{{generation="{made.engine.generation}"}} 1.0' in text
    assert "process_cpu_seconds_total" in text
    assert "nowhere" not in text
    assert "s3cret" not in text


async def test_an_unknown_service_does_not_start(tmp_path: Path) -> None:
    """A misspelt name would refuse everything, quietly."""
    with pytest.raises(ValueError, match="known: orders"):
        GatewayMiddleware(App(), config=Site(tmp_path).write(), service="order")


async def test_our_own_endpoints_are_served_in_place(tmp_path: Path) -> None:
    """A backend of a backend can fetch the keys from here as well."""
    app = App()
    async with client(guard(Site(tmp_path), app)) as http:
        answer = await http.get(KEY_SET_PATH)

    assert len(answer.json()["keys"]) == 1
    assert not app.scopes

"""The gateway inside somebody's own ASGI application, and its own endpoints as one.

Imports: gateway.app, gateway.asgi, gateway.config, gateway.observe, starlette.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.app import Engine, Log
from gateway.asgi.logout import LogoutEndpoint
from gateway.asgi.middleware import Guard
from gateway.asgi.own import own_endpoints
from gateway.asgi.tickets import TicketEndpoint
from gateway.config.load import load
from gateway.config.settings import Settings
from gateway.observe import process
from gateway.observe.access import to_json, unlogged
from gateway.observe.metrics import Metrics, render
from gateway.observe.writer import LogWriter

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class GatewayMiddleware(Guard[Engine]):
    """Puts the gateway into an ASGI application (the third door).

        app = GatewayMiddleware(app, config="gateway.toml", service="orders")

    Args:
        app: The application; it receives what an upstream would.
        config: gateway.toml, or several files that overlay one another.
        service: Whose routes lead to *app*.
        log: Takes an entry for each request; default: JSON lines on stdout.

    Raises:
        ConfigError: With every problem of the configuration.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: str | Path | Sequence[str | Path] = "gateway.toml",
        service: str,
        log: Log | None = None,
    ) -> None:
        named = [config] if isinstance(config, str | Path) else config
        loaded = load([Path(each) for each in named], env=os.environ)
        services = {route.service for route in loaded.policy.routes}
        if service not in services:
            known = ", ".join(sorted(services))
            raise ValueError(f"no service {service!r} in the policies; known: {known}")
        if log is None:
            is_on = loaded.settings.log_access
            log = LogWriter(sys.stdout.fileno(), to_json).put if is_on else unlogged
        metrics = Metrics()
        super().__init__(
            app,
            make_engine=lambda: Engine(loaded, metrics=metrics),
            own=own_app(lambda: self.engine, loaded.settings),
            service=service,
            log=metrics.counting(log),
            random=secrets.token_bytes,
        )

    def metrics(self) -> str:
        """Return what was counted, for a /metrics of the application's own."""
        samples = itertools.chain(self.engine.measure(), process.measure())
        return "".join(render([self.engine.metrics.snapshot(samples)]))


def own_app(engine: Callable[[], Engine], settings: Settings) -> ASGIApp:
    """Return the app of our own endpoints, which ask whichever engine there is now."""
    server, logout = settings.server, None
    tickets = TicketEndpoint(
        lambda head: engine().give_ticket(head), server.trusted_proxies
    )
    if settings.takes_logouts:
        logout = LogoutEndpoint(lambda token: engine().log_out(token))
    return own_endpoints(server.own_prefix, lambda: engine().key_set(), tickets, logout)

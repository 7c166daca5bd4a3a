"""What several verbs share: the `-c` option, bad configs, a gateway that is asked.

Imports: gateway.app, gateway.config, gateway.model, click, httpx2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import httpx2

from gateway.app import CLOCK
from gateway.config.load import ConfigError, Loaded, load
from gateway.config.settings import Admin
from gateway.model import Unavailable

EXIT_CONFIG = 3  # R46: apart from 1 (it failed) and 2 (the call's words are off)

config_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "-c",
    "--config",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    default=("gateway.toml",),
    show_default=True,
    help="The configuration; several files overlay one another.",
)


def reading(files: Sequence[Path]) -> Callable[[], Loaded]:
    """Return what loads *files* again. It raises ConfigError."""
    return lambda: load(files, env=os.environ, now=CLOCK.wall())


def loaded_or_exit(files: Sequence[Path]) -> Loaded:
    """Return what *files* say, or print every problem and exit with code 3."""
    try:
        return reading(files)()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)


def ask_admin(
    admin: Admin | None, method: str, path: str, said: Mapping[str, Any] | None = None
) -> httpx2.Response:
    """Return what the running gateway answers, in JSON, on its admin port.

    Raises:
        Unavailable: It doesn't.
    """
    if admin is None:
        raise click.UsageError("an [admin] port is needed to talk to the gateway")
    if admin.listen.path and not Path(admin.listen.path).is_socket():
        raise Unavailable("the gateway's admin port")
    headers = {"authorization": f"Bearer {admin.token}"} if admin.token else {}
    transport = httpx2.HTTPTransport(uds=admin.listen.path or None)
    try:
        with httpx2.Client(transport=transport, trust_env=False, timeout=5) as client:
            url = _url(admin) + path
            answer = client.request(method, url, json=said, headers=headers)
            answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        raise Unavailable("the gateway's admin port") from error
    return answer


def _url(admin: Admin) -> str:
    listen = admin.listen
    if listen.path:
        return "http://admin"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"http://{host}:{listen.port}"

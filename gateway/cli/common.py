"""What several verbs share: the `-c` option, bad configs, a gateway that is asked.

Imports: gateway.app, gateway.config, gateway.model, click, httpx2.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app import CLOCK
from gateway.config import syntax, units
from gateway.config.load import ConfigError, Loaded, load
from gateway.config.settings import Admin
from gateway.model import Unavailable

if TYPE_CHECKING:
    import httpx2

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


class Parsed(click.ParamType[float]):
    """What one of gateway.config's readers makes of a word."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def moment_or_seconds(said: str) -> float:
    """Return the Unix seconds of *said*, which may be just these.

    Raises:
        ValueError: It is neither.
    """
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", said):
        return float(said)
    try:
        return syntax.moment(said)
    except ValueError as error:
        raise ValueError(f"{error}, or Unix seconds") from None


DURATION = Parsed("time", units.duration)
MOMENT = Parsed("moment", syntax.moment)


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
    admin: Admin | None,
    method: str,
    path: str,
    said: Mapping[str, Any] | None = None,
    *,
    within: float = 5.0,
) -> httpx2.Response:
    """Return what the running gateway answers, in JSON, on its admin port.

    Args:
        admin: Where that is.
        method: Of the request.
        path: Of the request.
        said: Its body.
        within: Seconds.

    Raises:
        Unavailable: It doesn't.
    """
    # 70 ms, for which whoever serves does not wait.
    import httpx2  # noqa: PLC0415

    if admin is None:
        raise click.UsageError("an [admin] port is needed to talk to the gateway")
    if admin.listen.path and not Path(admin.listen.path).is_socket():
        raise Unavailable("the gateway's admin port")
    headers = {"authorization": f"Bearer {admin.token}"} if admin.token else {}
    transport = httpx2.HTTPTransport(uds=admin.listen.path or None)
    try:
        with httpx2.Client(
            transport=transport, trust_env=False, timeout=within
        ) as client:
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

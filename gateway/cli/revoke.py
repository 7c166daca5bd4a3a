"""`gateway revoke`: end tokens before their time.

With a memory store the running gateway is told, on its admin port; with Redis the
entry is written there, and every gateway that shares it knows.

Imports: gateway.app, gateway.asgi, gateway.cli, gateway.config, click, httpx2.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import httpx2

from gateway.app import Engine
from gateway.asgi.admin import NAMES, RevocationOrder
from gateway.cli.common import ask_admin, config_option, loaded_or_exit
from gateway.config.load import Loaded
from gateway.model import Unavailable


@click.command("revoke")
@config_option
@click.option("--issuer", help="Its name in gateway.toml; needed where there are two.")
@click.option("--jti", help="One token, by its id.")
@click.option("--sid", help="A login session: every token that carries this sid.")
@click.option("--sub", help="A subject: every token issued until now.")
@click.option("--client", help="A client: every token issued to it until now.")
@click.option("--reason", default="", help="For the log, such as INC-7.")
def command(
    files: Sequence[Path], issuer: str | None, reason: str, **named: str | None
) -> None:
    """End a token, a login session, a subject's or a client's tokens."""
    loaded = loaded_or_exit(files)
    order = _order(loaded, issuer, reason, named)
    try:
        if loaded.settings.store.is_memory:
            until = _tell_the_gateway(loaded, order)
        else:
            until = asyncio.run(_write(loaded, order))
    except (Unavailable, ValueError) as error:
        click.echo(f"{error}: nothing was revoked", err=True)
        sys.exit(1)
    kept = dt.datetime.fromtimestamp(until, dt.UTC)
    click.echo(f"revoked: {order.kind} of {order.issuer}; kept until {kept:%FT%TZ}")


def _order(
    loaded: Loaded, issuer: str | None, reason: str, named: dict[str, str | None]
) -> RevocationOrder:
    issuers = loaded.settings.issuers
    if issuer is None and len(issuers) == 1:
        (issuer,) = issuers
    if issuer is None or issuer not in issuers:
        raise click.UsageError(f"--issuer must be one of: {', '.join(sorted(issuers))}")
    given = [(name, value) for name, value in named.items() if value]
    if len(given) != 1:
        wanted = ", ".join(f"--{name}" for name in NAMES)
        raise click.UsageError(f"exactly one of {wanted} is needed")
    ((name, value),) = given
    return RevocationOrder(issuer, NAMES[name], value, reason)


async def _write(loaded: Loaded, order: RevocationOrder) -> float:
    engine = Engine(loaded)
    try:
        return await engine.revoke(order)
    finally:
        await engine.aclose()


def _tell_the_gateway(loaded: Loaded, order: RevocationOrder) -> float:
    name = next(key for key, kind in NAMES.items() if kind == order.kind)
    said = {"issuer": order.issuer, name: order.value, "reason": order.reason}
    answer = ask_admin(loaded.settings.admin, "POST", "/-/revocations", said)
    told = answer.json()
    if answer.status_code != httpx2.codes.OK:
        click.echo(f"refused: {told.get('detail', answer.status_code)}", err=True)
        sys.exit(1)
    return float(told["until"])

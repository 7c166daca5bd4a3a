"""`gateway block`: refuse a subject for a time, whatever is issued to it.

Imports: gateway.asgi.revocations, gateway.cli, gateway.config, click.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.asgi.revocations import OrderRefused
from gateway.cli.common import DURATION, loaded_or_exit
from gateway.cli.orders import give, order_options, read


@click.command("block")
@order_options
@click.option("--sub", "subs", multiple=True, required=True, help="The subject.")
@click.option("--for", "life", type=DURATION, required=True, help="Such as 24h.")
def command(
    files: Sequence[Path],
    issuer: str | None,
    reason: str,
    wait: float,
    *,
    dry_run: bool,
    as_json: bool,
    subs: Sequence[str],
    life: float,
) -> None:
    """Refuse a subject for a time, whatever is issued to it."""
    loaded = loaded_or_exit(files)
    try:
        orders = [read({"block": sub, "for": life}, issuer, reason) for sub in subs]
    except OrderRefused as refusal:
        raise click.UsageError(str(refusal)) from None
    give(loaded, orders, wait=wait, dry_run=dry_run, as_json=as_json)

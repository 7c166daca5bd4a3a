"""`gateway unblock`: end what `gateway block` has begun.

Imports: gateway.asgi.revocations, gateway.cli, gateway.config, click.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.asgi.revocations import OrderRefused
from gateway.cli.common import loaded_or_exit
from gateway.cli.orders import give, order_options, read


@click.command("unblock")
@order_options
@click.option("--sub", "subs", multiple=True, required=True, help="The subject.")
def command(
    files: Sequence[Path],
    issuer: str | None,
    reason: str,
    wait: float,
    *,
    dry_run: bool,
    as_json: bool,
    subs: Sequence[str],
) -> None:
    """End a block of a subject."""
    loaded = loaded_or_exit(files)
    try:
        orders = [read({"unblock": sub}, issuer, reason) for sub in subs]
    except OrderRefused as refusal:
        raise click.UsageError(str(refusal)) from None
    give(loaded, orders, wait=wait, dry_run=dry_run, as_json=as_json)

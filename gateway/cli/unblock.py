"""`gateway unblock`: end what `gateway block` has begun.

Imports: gateway.cli, click.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from gateway.cli.orders import give_each, order_options


@click.command("unblock")
@order_options
@click.option("--sub", "subs", multiple=True, required=True, help="The subject.")
def command(subs: Sequence[str], **common: Any) -> None:
    """End a block of a subject."""
    give_each([{"unblock": sub} for sub in subs], **common)

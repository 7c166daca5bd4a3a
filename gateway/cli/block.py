"""`gateway block`: refuse a subject for a time, whatever is issued to it.

Imports: gateway.cli, click.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from gateway.cli.common import DURATION
from gateway.cli.orders import give_each, order_options


@click.command("block")
@order_options
@click.option("--sub", "subs", multiple=True, required=True, help="The subject.")
@click.option("--for", "life", type=DURATION, required=True, help="Such as 24h.")
def command(subs: Sequence[str], life: float, **common: Any) -> None:
    """Refuse a subject for a time, whatever is issued to it."""
    give_each([{"block": sub, "for": life} for sub in subs], **common)

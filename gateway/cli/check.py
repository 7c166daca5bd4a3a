"""`gateway check`: every problem and every weakening of a configuration.

Imports: gateway.cli, gateway.config, click.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.cli.common import config_option, loaded_or_exit
from gateway.cli.outages import render_outages, summary
from gateway.config.report import render_check


@click.command("check")
@config_option
@click.option(
    "--outage",
    is_flag=True,
    help="Say what happens while the store, or an issuer, is away.",
)
@click.option("--verbose", is_flag=True, help="With --outage: name each route.")
def command(files: Sequence[Path], outage: bool, verbose: bool) -> None:
    """Exit with 0 if the configuration loads, with 3 and every problem if not."""
    if verbose and not outage:
        raise click.UsageError("--verbose goes with --outage")
    loaded = loaded_or_exit(files)
    if outage:
        click.echo(render_outages(loaded, verbose=verbose))
    else:
        click.echo(f"{render_check(loaded)}\n\n{summary(loaded)}")

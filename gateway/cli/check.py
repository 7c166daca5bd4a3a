"""`gateway check`: every problem and every weakening of a configuration.

Imports: gateway.config, click.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.cli.common import config_option, loaded_or_exit
from gateway.config.report import render_check


@click.command("check")
@config_option
def command(files: Sequence[Path]) -> None:
    """Exit with 0 if the configuration loads, with 3 and every problem if not."""
    click.echo(render_check(loaded_or_exit(files)))

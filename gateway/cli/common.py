"""What several verbs share: the `-c` option, and how a bad config ends them.

Imports: gateway.app, gateway.config, click.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from gateway.app import CLOCK
from gateway.config.load import ConfigError, Loaded, load

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

"""`gateway keys`: make the keys that sign identity.

Imports: gateway.app, gateway.identity, click.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Literal

import click

from gateway.app import CLOCK
from gateway.cli.people import write_private
from gateway.identity.keys import new_key_pem, signing_key_from_pem


@click.group("keys")
def command() -> None:
    """Make keys."""


@command.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help='The directory of [identity] keys = "dir:...".',
)
@click.option(
    "--algorithm",
    type=click.Choice(["ES256", "EdDSA", "RS256"]),
    default="ES256",
    show_default=True,
)
def generate(directory: Path, algorithm: Literal["ES256", "EdDSA", "RS256"]) -> None:
    """Make a key that signs identity; the newest file signs, all are published."""
    now = dt.datetime.fromtimestamp(CLOCK.wall(), dt.UTC)
    pem = new_key_pem(algorithm)
    file = directory / f"{now:%Y%m%dT%H%M%SZ}.pem"
    write_private(file, pem)
    click.echo(f"{file}  {signing_key_from_pem(pem, algorithm).key_id}")

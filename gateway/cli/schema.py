"""`gateway schema`: the JSON Schema of a configuration file, for editors.

Imports: gateway.config, click.
"""

from __future__ import annotations

import json
from typing import Literal

import click

from gateway.config.schema import json_schema


@click.command("schema")
@click.argument("kind", type=click.Choice(["gateway", "policy"]), default="gateway")
def command(kind: Literal["gateway", "policy"]) -> None:
    """Print the JSON Schema of gateway.toml or of a policy file."""
    click.echo(json.dumps(json_schema(kind), indent=2))

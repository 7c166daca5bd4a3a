"""`gateway serve`: run the gateway until SIGTERM or SIGINT.

Imports: gateway.app, gateway.cli, gateway.observe, click, uvloop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import uvloop

from gateway.app import Gateway, serve
from gateway.cli.common import EXIT_CONFIG, config_option, loaded_or_exit
from gateway.config.load import Loaded
from gateway.observe.access import Entry, to_json
from gateway.observe.redact import install
from gateway.observe.writer import LogWriter


@click.command("serve")
@config_option
def command(files: Sequence[Path]) -> None:
    """Run the gateway until SIGTERM or SIGINT; the access log goes to stdout."""
    install()
    run(loaded_or_exit(files), to_json)


def run(
    loaded: Loaded,
    line: Callable[[Entry], bytes],
    on_ready: Callable[[Gateway], None] = lambda _: None,
) -> None:
    """Run a gateway on *loaded*, with *line* for each request on stdout."""
    writer = LogWriter(sys.stdout.fileno(), line)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(loaded, writer.put, on_ready=on_ready))
    except ValueError as error:  # a key file that holds no such key
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)
    except OSError as error:
        click.echo(f"cannot start: {error}", err=True)
        sys.exit(1)
    finally:
        writer.close()

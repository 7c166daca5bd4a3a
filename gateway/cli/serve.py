"""`gateway serve`: run the gateway until SIGTERM or SIGINT.

Imports: gateway.app, gateway.cli, gateway.observe, click, uvloop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import uvloop

from gateway.app import Gateway, serve
from gateway.cli.common import EXIT_CONFIG, config_option, loaded_or_exit
from gateway.config.load import Loaded
from gateway.observe.access import Entry, to_colour, to_json, unlogged
from gateway.observe.logs import LineHandler, install
from gateway.observe.writer import LogWriter

logger = logging.getLogger("gateway")


@click.command("serve")
@config_option
@click.option(
    "--log",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="The access log on stdout: JSON lines, or coloured lines for a person.",
)
def command(files: Sequence[Path], log: str) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    loaded = loaded_or_exit(files)
    if log == "json":
        run(loaded, to_json, _say)
    else:
        run(loaded, coloured, json_lines=False)


def coloured(entry: Entry) -> bytes:
    """Return the line of *entry* for a person, with its line end."""
    return to_colour(entry).encode("utf-8") + b"\n"


def _say(gateway: Gateway) -> None:
    for address in gateway.bound:
        logger.info("listening on %s", address)


def run(
    loaded: Loaded,
    line: Callable[[Entry], bytes],
    on_ready: Callable[[Gateway], None] = lambda _: None,
    *,
    json_lines: bool = True,
) -> None:
    """Run a gateway on *loaded*.

    Args:
        loaded: The configuration.
        line: Makes the line of a request, which goes to stdout.
        on_ready: Called when it accepts connections.
        json_lines: Whether all other logs, on stderr, are JSON too.
    """
    access = LogWriter(sys.stdout.fileno(), line)
    log = access.put if loaded.settings.log_access else unlogged
    others = LogWriter[bytes](sys.stderr.fileno(), bytes)
    install(LineHandler(others.put, json_lines=json_lines))
    failure = ""
    status = 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(loaded, log, on_ready=on_ready))
    except ValueError as error:  # a key file that holds no such key
        failure, status = str(error), EXIT_CONFIG
    except OSError as error:
        failure = f"cannot start: {error}"
    finally:
        access.close()
        others.close()
    if failure:
        click.echo(failure, err=True)
        sys.exit(status)

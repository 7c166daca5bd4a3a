"""`gateway serve`: run the gateway until SIGTERM or SIGINT.

One worker is this process itself: it starts as quickly and takes as little memory as it
can, revocations in memory outlive a reload, and whoever starts services notices its
death. Several are the supervisor's.

Imports: gateway.cli, gateway.config, gateway.observe, gateway.serving,
gateway.supervisor, click, uvloop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import click
import uvloop

from gateway.cli.common import EXIT_CONFIG, config_option, loaded_or_exit, reading
from gateway.cli.outages import summary
from gateway.config.load import Loaded
from gateway.config.settings import Address
from gateway.observe.access import Entry, to_colour, to_json
from gateway.observe.logs import LineHandler, install
from gateway.observe.turns import Turns
from gateway.observe.writer import LogWriter
from gateway.serving import calm_collector, serve

logger = logging.getLogger("gateway")


class Running(Protocol):
    """What is told of a gateway that accepts connections."""

    @property
    def bound(self) -> Sequence[Address]:
        """Where the data port listens."""
        ...


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
    """Run the gateway until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    loaded, reread = loaded_or_exit(files), reading(files)
    if log == "json":
        run(loaded, reread, to_json, _say)
    else:
        run(loaded, reread, coloured, json_lines=False)


def coloured(entry: Entry) -> bytes:
    """Return the line of *entry* for a person, with its line end."""
    return to_colour(entry).encode("utf-8") + b"\n"


def _say(gateway: Running) -> None:
    for address in gateway.bound:
        logger.info("listening on %s", address)


class Streams:
    """The log of requests on stdout, and all other logs on stderr.

    Args:
        line: Makes the line of a request.
        json_lines: Whether all other logs are JSON too.
        turns: For both, where several processes write to them.
    """

    def __init__(
        self,
        line: Callable[[Entry], bytes],
        *,
        json_lines: bool,
        turns: tuple[Turns, Turns] | None = None,
    ) -> None:
        self._line = line
        self._json_lines = json_lines
        self._turns = turns or (nullcontext(), nullcontext())
        self._writers: list[LogWriter[Entry] | LogWriter[bytes]] = []
        self._requests: LogWriter[Entry] | None = None
        self._others: LogWriter[bytes] | None = None

    def open(self, *, requests: bool) -> None:
        """Start what writes them; *requests*: those of requests too."""
        for_requests, for_others = self._turns
        others = self._others = LogWriter[bytes](
            sys.stderr.fileno(), bytes, turn=for_others
        )
        install(LineHandler(others.put, json_lines=self._json_lines))
        self._writers.append(others)
        if requests:
            self._requests = LogWriter(
                sys.stdout.fileno(), self._line, turn=for_requests
            )
            self._writers.append(self._requests)

    def close(self) -> None:
        """Write what waits, and end every thread."""
        while self._writers:
            self._writers.pop().close()

    def lost(self) -> dict[str, int]:
        """Return how many lines never got out, by the log's name."""
        found = {"other": self._others.lost} if self._others is not None else {}
        if self._requests is not None:
            found["access"] = self._requests.lost
        return found

    @property
    def put(self) -> Callable[[Entry], None]:
        """Takes an entry for each request."""
        assert self._requests is not None, "opened for requests"
        return self._requests.put


def run(
    loaded: Loaded,
    reread: Callable[[], Loaded],
    line: Callable[[Entry], bytes],
    on_ready: Callable[[Running], None] = lambda _: None,
    *,
    json_lines: bool = True,
) -> None:
    """Run a gateway on *loaded*.

    Args:
        loaded: The configuration.
        reread: Loads the configuration again, at SIGHUP. Raises ConfigError.
        line: Makes the line of a request, which goes to stdout.
        on_ready: Called when it accepts connections.
        json_lines: Whether all other logs, on stderr, are JSON too.
    """
    failure = ""
    status = 1
    workers = 1
    if loaded.settings.server.workers != 1:
        from gateway import supervisor  # noqa: PLC0415  (one worker needs none of it)

        workers = supervisor.worker_count(loaded.settings.server.workers)
    turns = (Turns(), Turns()) if workers > 1 else None
    streams = Streams(line, json_lines=json_lines, turns=turns)
    streams.open(requests=workers == 1)
    if not loaded.settings.store.is_memory:
        logger.info("%s", summary(loaded))
    try:
        if turns is not None:
            kept = [each.descriptor for each in turns]
            supervisor.supervise(
                loaded, workers, streams, reread=reread, on_ready=on_ready, kept=kept
            )
        else:

            def serving(gateway: Running) -> None:
                # What is there now stays. To look it through for garbage, again and
                # again, took 40 ms each time, in which nobody was served.
                calm_collector()
                gc.freeze()
                on_ready(gateway)

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(
                    serve(
                        loaded,
                        streams.put,
                        on_ready=serving,
                        reread=reread,
                        lost=streams.lost,
                    )
                )
    except ValueError as error:  # a key file that holds no such key
        failure, status = str(error), EXIT_CONFIG
    except OSError as error:
        failure = f"cannot start: {error}"
    finally:
        streams.close()
    if failure:
        click.echo(failure, err=True)
        sys.exit(status)

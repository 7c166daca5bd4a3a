"""`gateway health`: is it alive? For a container's HEALTHCHECK.

It reads [probes] alone and validates nothing: a probe must not fail because a secret
is not in its own environment.

Imports: click.
"""

from __future__ import annotations

import http.client
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import click

DEFAULT = "127.0.0.1:9091"
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (recognised, not bound)


@click.command("health")
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=Path("gateway.toml"),
    show_default=True,
)
@click.option("--url", help="Ask here instead of where [probes] says.")
@click.option("--ready", is_flag=True, help="Ask /readyz instead of /livez.")
@click.option("--timeout", type=float, default=2.0, show_default=True, help="Seconds.")
def command(file: Path, url: str | None, ready: bool, timeout: float) -> None:
    """Exit with 0 if the gateway answers its probe, with 1 if it does not."""
    path = "/readyz" if ready else "/livez"
    address = urlsplit(url or f"//{_listen(file)}")
    host = address.hostname or "127.0.0.1"
    connection = http.client.HTTPConnection(
        ANY.get(host, host), address.port or 9091, timeout=timeout
    )
    try:
        connection.request("GET", address.path or path)
        with connection.getresponse() as answer:
            said = answer.read(4096).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        click.echo(f"no answer: {type(error).__name__}", err=True)
        sys.exit(1)
    finally:
        connection.close()
    click.echo(said)
    sys.exit(0 if answer.status == http.client.OK else 1)


def _listen(file: Path) -> str:
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
        listen = said["probes"]["listen"]
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT
    return listen if isinstance(listen, str) else DEFAULT

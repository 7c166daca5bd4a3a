"""The `gateway` command: one line for each of its verbs.

Each verb lives in a module of its own, imported when it is called: `gateway health`
runs every few seconds in a container and should not load a data plane.

Imports: click.
"""

from __future__ import annotations

import importlib

import click

import gateway

VERBS = {
    "serve": "Run the gateway.",
    "dev": "Run it in front of a local backend, without any configuration.",
    "check": "Say what is wrong, and what is weak, in the configuration.",
    "explain": "Say how a request would be decided, and why.",
    "revoke": "End a token, a login session, a subject's or a client's tokens.",
    "block": "Refuse a subject for a time, whatever is issued to it.",
    "unblock": "End a block.",
    "revocations": "List what is revoked, count it, and take it over from elsewhere.",
    "apikey": "Make, list, rotate, revoke and import API keys.",
    "keys": "Make keys, replace them, and see how all keys are.",
    "token": "Make tokens.",
    "schema": "Print the JSON Schema of gateway.toml or of a policy file.",
    "health": "Ask a running gateway whether it is alive: exit code 0 or 1.",
}


class _Lazy(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command = importlib.import_module(f"gateway.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self, _ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gateway.__version__, prog_name="gateway")
def main() -> None:
    """An auth gateway for backends that have no database."""

"""`gateway dev`: a gateway in front of a local backend, with nothing to configure.

It writes an ordinary configuration with keys of its own below `.gateway/dev/` and
serves that, so that what one tries here is what one deploys later: copy the directory
and change it. Loopback only, since its people's tokens are printed.

Imports: gateway.app, gateway.cli, gateway.observe, click.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import click

from gateway.app import CLOCK
from gateway.cli.common import loaded_or_exit, reading
from gateway.cli.people import Person, TokenMaker, write_private
from gateway.cli.serve import Running, coloured, run
from gateway.identity.keys import new_key_pem

ISSUER = "https://dev.invalid"
AUDIENCE = "dev"
LIFETIME = 8 * 3600.0  # seconds; a working day
PEOPLE = (
    Person("alice", "alice", ("editor",), ""),
    Person("bob", "bob", ("viewer",), ""),
    Person("sam", "sam", (), ""),
)

CONFIG = """\
# Written by `gateway dev` at every start. Copy this directory to make it yours.
version  = 1
policies = ["policies/*.toml"]

[server]
listen = [{listen}]
drain_delay = "0s"    # Ctrl-C: no load balancer has to hear of it

[admin]
listen = "unix:admin.sock"

[issuer.dev]
issuer       = "{issuer}"
jwks         = "file:jwks.json"
audience     = ["{audience}"]
algorithms   = ["ES256"]
token_types  = ["at+jwt"]
[issuer.dev.roles]
claim = "roles"
allow = ["viewer", "editor"]
[issuer.dev.scope]
user    = "ignore"
service = "grant"

[identity]
issuer = "{public}/identity"
keys   = "dir:identity"

[upstream.app]
urls = [{upstream}]
"""

POLICY = """\
version = 1

[service]
name     = "app"
prefix   = "/"
upstream = "app"
read     = "app:read"
write    = "app:write"

[permissions]
"app:read"  = "Look at things: GET and HEAD"
"app:write" = "Change things: every other method"

[roles.viewer]
permissions = ["app:read"]
[roles.editor]
permissions = ["app:read", "app:write"]
"""


@click.command("dev")
@click.option("--upstream", required=True, help="Such as http://localhost:8000")
@click.option("--listen", default="127.0.0.1:8080", show_default=True)
@click.option(
    "--allow-remote", is_flag=True, help="Let --listen be more than loopback."
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".gateway/dev"),
    show_default=True,
    help="Where its configuration and keys are kept.",
)
def command(upstream: str, listen: str, allow_remote: bool, directory: Path) -> None:
    """Run the gateway in front of UPSTREAM: keys, people and policy are made here."""
    host = urlsplit(f"//{listen}").hostname or ""
    if not _is_loopback(host) and not allow_remote:
        raise click.UsageError(
            f"{listen} is not loopback, and the tokens of dev are printed:"
            " say --allow-remote if you mean it"
        )
    tokens = prepare(directory, upstream=upstream, listen=listen)
    files = [directory / "gateway.toml"]
    loaded = loaded_or_exit(files)

    def ready(gateway: Running) -> None:
        url = f"http://{gateway.bound[0]}"
        click.echo(_welcome(url, upstream, directory, tokens))

    run(loaded, reading(files), coloured, ready, json_lines=False)


def prepare(directory: Path, *, upstream: str, listen: str) -> dict[str, str]:
    """Write configuration, policy and keys; return a token for each person."""
    (directory / "policies").mkdir(parents=True, exist_ok=True, mode=0o700)
    config = CONFIG.format(
        listen=json.dumps(listen),
        issuer=ISSUER,
        audience=AUDIENCE,
        public=f"http://{listen}",
        upstream=json.dumps(upstream),
    )
    (directory / "gateway.toml").write_text(config, encoding="utf-8")
    (directory / "policies" / "app.toml").write_text(POLICY, encoding="utf-8")
    if not (directory / "identity" / "identity.pem").exists():
        write_private(directory / "identity" / "identity.pem", new_key_pem("ES256"))
    maker = TokenMaker.kept_in(
        directory / "issuer.pem", issuer=ISSUER, audience=AUDIENCE
    )
    key_set = json.dumps(maker.key_set())
    (directory / "jwks.json").write_text(key_set, encoding="utf-8")
    now = CLOCK.wall()
    return {
        person.name: maker.token(person, now=now, lifetime=LIFETIME)
        for person in PEOPLE
    }


def _welcome(url: str, upstream: str, directory: Path, tokens: dict[str, str]) -> str:
    lines = ["", f"  {url}  ->  {upstream}", ""]
    for person in PEOPLE:
        roles = ", ".join(person.roles) or "no role"
        lines += [f"# {person.name}: {roles}"]
        lines += [f"export {person.name.upper()}={tokens[person.name]}", ""]
    config = shlex.quote(str(directory / "gateway.toml"))
    lines += [
        f'curl -i -H "Authorization: Bearer $ALICE" {url}/  # passes: she may read',
        f'curl -i -H "Authorization: Bearer $ALICE" -X POST {url}/  # passes too',
        f'curl -i -H "Authorization: Bearer $BOB" -X POST {url}/  # 403 bob may read',
        f'curl -i -H "Authorization: Bearer $SAM" {url}/  # 403 sam has no role',
        f"curl -i {url}/  # 401 no token",
        "",
        f"  configuration: {config} (copy it to start your own)",
        f'  why: gateway explain -c {config} GET / --token-stdin <<< "$BOB"',
        f"  revoke: gateway revoke -c {config} --sub alice",
        "",
    ]
    return "\n".join(lines)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

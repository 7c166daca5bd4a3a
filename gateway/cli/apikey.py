"""`gateway apikey`: keys for programs, from their making to their end.

As for `gateway revoke`: with a memory store the running gateway is told, on its admin
port; with Redis the record is written there, and every gateway that shares it knows. A
key is printed once, alone on stdout, where it can be piped to where it belongs; all
else is on stderr.

Imports: gateway.app, gateway.asgi, gateway.cli, gateway.config, gateway.tokens, click.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import secrets
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from gateway.app import CLOCK, Engine
from gateway.asgi.api_keys import (
    MAY_SAY,
    KeyOrder,
    KeyRefused,
    Told,
    Verb,
    order_from,
)
from gateway.asgi.api_keys import order_with as changed
from gateway.cli.common import (
    DURATION,
    MOMENT,
    ask_admin,
    config_option,
    loaded_or_exit,
)
from gateway.config import syntax
from gateway.config.load import Loaded
from gateway.model import Unavailable
from gateway.tokens.api_key import ID_BYTES, SECRET_BYTES, key_id_of, key_of

F = TypeVar("F", bound=Callable[..., Any])

PATHS: dict[Verb, str] = {
    "create": "/-/api-keys",
    "list": "/-/api-keys",
    "show": "/-/api-keys/{id}",
    "rotate": "/-/api-keys/{id}/rotate",
    "revoke": "/-/api-keys/{id}/revoke",
}


_WHO = (
    click.option("--owner", help="The subject of whoever presents it."),
    click.option("--role", "roles", multiple=True, help="Of [api_keys] allow."),
    click.option("--scope", "scopes", multiple=True),
    click.option("--network", "networks", multiple=True, help="Such as 10.0.0.0/8."),
    click.option("--lifetime", type=DURATION, help="Such as 30d."),
    click.option("--not-before", type=MOMENT, help="Such as 2027-01-31T00:00:00Z."),
    click.option("--note", default="", help="For people."),
)


def _who(command_: F) -> F:
    for option in reversed(_WHO):
        command_ = option(command_)
    return command_


@click.group("apikey")
def command() -> None:
    """Make, list, rotate, revoke and import API keys."""


@command.command()
@config_option
@_who
@click.option("--id", "key_id", default="", help="Its name; default: at random.")
@click.option(
    "--declare",
    is_flag=True,
    help="Keep nothing: print the [[api_key]] for gateway.toml on stderr.",
)
def create(files: Sequence[Path], key_id: str, declare: bool, **who: Any) -> None:
    """Make a key, and print it: it can't be had a second time."""
    loaded = loaded_or_exit(files)
    if not who["owner"]:
        raise click.UsageError("--owner is needed: whose key is it?")
    order = changed(KeyOrder("create", id=key_id), **who)
    if declare:
        key, table = _declared(loaded, order)
        click.echo(table, err=True)
    else:
        told = _carry_out(loaded, order)
        key = told["key"]
        click.echo(_in_words(told), err=True)
    click.echo(key)


@command.command("list")
@config_option
def list_(files: Sequence[Path]) -> None:
    """List every key, one a line: id, state, owner, when it ends and was last used."""
    told = _carry_out(loaded_or_exit(files), KeyOrder("list"))
    for each in told["keys"]:
        words = (each["id"], each["state"], each["owner"], _date(each["expires"]))
        click.echo("  ".join((*words, f"used {_date(each['last_used'])}")))


@command.command()
@config_option
@click.argument("key_id")
def show(files: Sequence[Path], key_id: str) -> None:
    """Show what is kept of the key KEY_ID, as JSON."""
    told = _carry_out(loaded_or_exit(files), KeyOrder("show", id=key_id))
    click.echo(json.dumps(told, indent=2))


@command.command()
@config_option
@click.argument("key_id")
@click.option(
    "--overlap",
    type=DURATION,
    default="24h",
    show_default=True,
    help="How long the old secret lives on; 0s ends it at once.",
)
@click.option("--lifetime", type=DURATION, help="Of the key, from now on.")
def rotate(
    files: Sequence[Path], key_id: str, overlap: float, lifetime: float | None
) -> None:
    """Give the key KEY_ID another secret, and print the new key."""
    order = KeyOrder("rotate", id=key_id, overlap=overlap, lifetime=lifetime)
    told = _carry_out(loaded_or_exit(files), order)
    click.echo(_in_words(told), err=True)
    click.echo(told["key"])


@command.command()
@config_option
@click.argument("key_id")
@click.option("--reason", default="", help="For the log, such as INC-7.")
def revoke(files: Sequence[Path], key_id: str, reason: str) -> None:
    """End the key KEY_ID, with all of its secrets."""
    order = KeyOrder("revoke", id=key_id, reason=reason)
    told = _carry_out(loaded_or_exit(files), order)
    click.echo(_in_words(told), err=True)


@command.command("import")
@config_option
@_who
@click.argument("source", type=click.Path(path_type=Path, allow_dash=True))
def import_(files: Sequence[Path], source: Path, **who: Any) -> None:
    """Take over keys that exist elsewhere, by their SHA-256.

    SOURCE is a .json file (a list of objects), a .toml file ([[api_key]] tables), or
    lines of a digest and an id, which may be left out; "-" is such lines on stdin. What
    an entry doesn't say is as the options say.
    """
    loaded = loaded_or_exit(files)
    orders = list(_orders(source, {name: said for name, said in who.items() if said}))
    for done, order in enumerate(orders):
        try:
            told = _carry_out(loaded, order, what=f"entry {done + 1}: ")
        finally:
            if sys.exc_info()[0] is not None:
                click.echo(f"{done} of {len(orders)} are imported", err=True)
        click.echo(f"imported: {told['id']} of {told['owner']}", err=True)
    said = loaded.settings.api_keys
    if said is not None and not said.imported:
        click.echo(
            "[api_keys] imported = false: only keys of the gateway's own form count",
            err=True,
        )


def _carry_out(loaded: Loaded, order: KeyOrder, what: str = "") -> Told:
    """Have *order* carried out; where that fails, say why and exit with 1."""
    try:
        if loaded.settings.store.is_memory:
            return _by_the_gateway(loaded, order)
        return asyncio.run(_by_ourselves(loaded, order))
    except (KeyRefused, Unavailable) as error:
        click.echo(f"{what}{error}: nothing is said to be done", err=True)
        sys.exit(1)


def _by_the_gateway(loaded: Loaded, order: KeyOrder) -> Told:
    answer = ask_admin(loaded.settings.admin, *_request(order))
    told: Told = answer.json()
    if not answer.is_success:
        click.echo(f"refused: {told.get('detail', answer.status_code)}", err=True)
        sys.exit(1)
    return told


async def _by_ourselves(loaded: Loaded, order: KeyOrder) -> Told:
    engine = Engine(loaded)
    try:
        return await engine.order_keys(order)
    finally:
        await engine.aclose()


def _request(order: KeyOrder) -> tuple[Any, str, dict[str, Any] | None]:
    """Return method, path and body by which the admin port is told *order*."""
    path = PATHS[order.verb].format(id=quote(order.id, safe=""))
    held = {name: getattr(order, name) for name in MAY_SAY[order.verb]}
    said = {name: value for name, value in held.items() if value is not None}
    return ("POST", path, said) if said else ("GET", path, None)


def _orders(source: Path, who: dict[str, Any]) -> Iterator[KeyOrder]:
    """Read what is to be imported; what is wrong with it ends the command."""
    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"{source} can't be read: {error}") from None
    try:
        match source.suffix:
            case ".json":
                entries = json.loads(text)
            case ".toml":
                entries = tomllib.loads(text).get("api_key")
            case _:
                entries = [_line(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise click.UsageError(f"{source}: {error}") from None
    if not isinstance(entries, list):
        raise click.UsageError(f"{source} holds no list of keys")
    for number, entry in enumerate(entries, 1):
        said = entry
        if isinstance(entry, dict):
            said = {**_as_lists(who), **entry}
            try:
                if "expires" in said:
                    said["lifetime"] = syntax.moment(said.pop("expires")) - CLOCK.wall()
            except ValueError as error:
                raise click.UsageError(f"entry {number}: expires: {error}") from None
        order = order_from("create", said)
        if isinstance(order, str):
            raise click.UsageError(f"entry {number}: {order}")
        if not order.sha256:
            raise click.UsageError(f"entry {number}: sha256 is needed")
        yield order


def _line(line: str) -> dict[str, str]:
    digest, _, key_id = line.strip().partition(" ")
    return {"sha256": digest, "id": key_id.strip()}


def _as_lists(who: dict[str, Any]) -> dict[str, Any]:
    return {
        name: list(said) if isinstance(said, tuple) else said
        for name, said in who.items()
    }


def _declared(loaded: Loaded, order: KeyOrder) -> tuple[str, str]:
    """Make a key that nobody keeps; return it, and what gateway.toml says of it."""
    said = loaded.settings.api_keys
    if said is None:
        raise click.UsageError("gateway.toml has no [api_keys]")
    key_id = order.id or key_id_of(secrets.token_bytes(ID_BYTES))
    shaped = key_id_of(secrets.token_bytes(ID_BYTES)) if order.id else key_id
    key = key_of(said.prefix, shaped, secrets.token_bytes(SECRET_BYTES))
    lifetime = said.lifetime if order.lifetime is None else order.lifetime
    ends = dt.datetime.fromtimestamp(int(CLOCK.wall() + lifetime), dt.UTC)
    lines = {
        "id": key_id,
        "sha256": sha256(key.encode()).hexdigest(),
        "owner": order.owner,
        "roles": order.roles,
        "scopes": order.scopes,
        "networks": order.networks,
        "note": order.note,
    }
    # JSON's strings and lists are TOML's.
    given = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in lines.items()
        if value
    ]
    return key, "\n".join(("[[api_key]]", *given, f"expires = {ends:%FT%TZ}"))


def _in_words(told: Told) -> str:
    return (
        f"{told['id']}: {told['state']}, of {told['owner']},"
        f" until {_date(told['expires'])}"
    )


def _date(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%FT%TZ}"

"""`gateway keys`: make keys that sign identity or seal tokens, and see how all are.

A key goes into a new file that only its owner can read. None is ever printed, unless
that is asked for by name.

Imports: gateway.app, gateway.cli, gateway.config, gateway.identity, gateway.model,
gateway.tokens.key_status, click, cryptography, httpx2.
"""

from __future__ import annotations

import base64
import datetime as dt
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import click
import httpx2
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.app import CLOCK
from gateway.cli.common import ask_admin, config_option, loaded_or_exit
from gateway.cli.people import write_private
from gateway.config.load import Loaded
from gateway.config.sealed import fernet_keys
from gateway.identity.keys import new_key_pem, signing_key_from_pem
from gateway.model import Unavailable
from gateway.tokens.key_status import KeySetStatus, KeyStatus, load

_STAMP = "%Y%m%dT%H%M%SZ"
_RSA_BITS = 2048  # to open a token costs eight times as much with twice as many
_OCTETS = {"A256CBC-HS512": 64}  # 32 for the others, and for A256KW


@click.group("keys")
def command() -> None:
    """Make keys, replace them, and see how all keys are."""


@command.command()
@click.option(
    "--kind",
    type=click.Choice(["identity", "fernet", "jwe"]),
    default="identity",
    show_default=True,
    help="What it signs or seals.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help='The directory of [identity] or [fernet] keys = "dir:...".',
)
@click.option(
    "--file",
    "named",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A new file, for fernet and jwe.",
)
@click.option("--show", is_flag=True, help="Print it instead, for fernet and jwe.")
@click.option(
    "--algorithm",
    type=click.Choice(["ES256", "EdDSA", "RS256"]),
    default="ES256",
    show_default=True,
    help="Of identity.",
)
@click.option(
    "--alg",
    type=click.Choice(["dir", "A256KW", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A256KW"]),
    default="dir",
    show_default=True,
    help="Of jwe.",
)
@click.option(
    "--enc",
    type=click.Choice(["A256GCM", "A128CBC-HS256", "A256CBC-HS512"]),
    default="A256GCM",
    show_default=True,
    help="Of jwe.",
)
def generate(
    kind: str,
    directory: Path | None,
    named: Path | None,
    show: bool,
    algorithm: Literal["ES256", "EdDSA", "RS256"],
    alg: str,
    enc: str,
) -> None:
    """Make a key; of a directory the newest file signs or seals, all of them count."""
    if kind == "identity":
        if directory is None or named is not None or show:
            raise click.UsageError("an identity key goes into --dir")
        pem = new_key_pem(algorithm)
        file = directory / f"{_now():{_STAMP}}.pem"
        _write(file, pem)
        click.echo(f"{file}  {signing_key_from_pem(pem, algorithm).key_id}")
        return
    places = {"--file": named is not None, "--show": show}
    if kind == "fernet":
        places = {"--dir": directory is not None, **places}
    elif directory is not None:
        raise click.UsageError("a jwe key goes into --file")
    if sum(places.values()) != 1:
        raise click.UsageError(f"exactly one of {', '.join(places)} is needed")
    key = Fernet.generate_key() if kind == "fernet" else _jwe_key(alg, enc)
    if show:
        click.echo(key.decode("ascii"))
        return
    file = named or (directory or Path()) / f"{_now():{_STAMP}}.key"
    _write(file, key + b"\n")
    click.echo(str(file))


@command.command()
@config_option
@click.option("--kind", type=click.Choice(["fernet"]), required=True)
@click.option(
    "--token-stdin",
    is_flag=True,
    help="Make no key: seal the tokens on stdin, one a line, with the newest one.",
)
def rotate(files: Sequence[Path], kind: str, token_stdin: bool) -> None:
    """Make a new key beside those in use, and say which of them may go."""
    loaded = loaded_or_exit(files)
    if loaded.settings.fernet is None:
        raise click.UsageError(f"there is no [{kind}] in the configuration")
    if token_stdin:
        _seal_anew(loaded)
    else:
        _add_key(loaded)


@command.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(files: Sequence[Path], *, as_json: bool) -> None:
    """Show the keys of every issuer, and our own, as the running gateway has them."""
    loaded = loaded_or_exit(files)
    try:
        answer = ask_admin(loaded.settings.admin, "GET", "/-/keys")
    except Unavailable as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    if answer.status_code != httpx2.codes.OK:
        click.echo(f"refused: {answer.json().get('detail')}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(answer.text)
        return
    report, now = load(answer.content), CLOCK.wall()
    for what, sets in (("issuer", report.issuers), ("identity", report.identities)):
        for each in sets:
            click.echo("\n".join(_lines(what, each, now)))


def _add_key(loaded: Loaded) -> None:
    settings = loaded.settings
    assert settings.fernet is not None, "asked before"
    if settings.fernet.directory is None:
        raise click.UsageError(
            'the keys of [fernet] are in no directory: put a new one first in "keys",'
            ' or use keys = ["dir:..."]'
        )
    directory = Path(settings.fernet.directory)
    newer = _now()
    file = directory / f"{newer:{_STAMP}}.key"
    old = sorted(directory.glob("*.key"), reverse=True)
    _write(file, Fernet.generate_key() + b"\n")
    click.echo(f"made    {file}: it seals once the gateway has read it (SIGHUP)")
    issuer = settings.issuers["fernet"]
    lasts = dt.timedelta(seconds=issuer.max_lifetime + issuer.leeway)
    for each in old:
        # What it sealed last, it sealed when the next one was made.
        until = newer + lasts
        if until <= _now():
            click.echo(f"may go  {each}: all that it sealed has ended")
        else:
            click.echo(f"stays   {each}: what it sealed ends by {until:%FT%TZ}")
        newer = _made(each)


def _seal_anew(loaded: Loaded) -> None:
    assert loaded.settings.fernet is not None, "asked before"
    keys = fernet_keys(loaded.settings.fernet)
    failed = 0
    for number, line in enumerate(sys.stdin, 1):
        token = keys.rotate(line.rstrip("\r\n"))
        if token is None:
            failed += 1
            click.echo(f"line {number}: no key of [fernet] has sealed this", err=True)
        # A line for a line, so that the caller knows which is which.
        click.echo(token or "")
    sys.exit(1 if failed else 0)


def _jwe_key(alg: str, enc: str) -> bytes:
    """Return a new key for this pair, as [[jwe.keys]] takes it."""
    if alg in {"dir", "A256KW"}:
        size = _OCTETS.get(enc, 32) if alg == "dir" else 32
        return base64.urlsafe_b64encode(secrets.token_bytes(size)).rstrip(b"=")
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if alg == "RSA-OAEP-256":
        private = rsa.generate_private_key(65537, _RSA_BITS)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ).rstrip()


def _write(file: Path, key: bytes) -> None:
    try:
        write_private(file, key)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def _made(file: Path) -> dt.datetime:
    """Return when *file* was made: what its name says, or its time."""
    try:
        return dt.datetime.strptime(file.stem, _STAMP).replace(tzinfo=dt.UTC)
    except ValueError:
        return dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC)


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(CLOCK.wall(), dt.UTC)


def _lines(what: str, keys: KeySetStatus, now: float) -> Iterator[str]:
    """Yield *keys* as lines of a table; *now*: Unix seconds."""
    head = f"{what} {keys.name} ({keys.source})"
    if keys.refreshed_at is not None:
        head += f", refreshed {_span(now - keys.refreshed_at)} ago"
    if keys.refresh_at is not None:
        head += f", next in {_span(keys.refresh_at - now)}"
    yield head
    if keys.trouble:
        yield f"  trouble: {keys.trouble}"
    rows = [_row(key, now) for key in keys.keys]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
    if not rows:
        yield "  no keys"
    for why in keys.skipped:
        yield f"  not used: {why}"


def _row(key: KeyStatus, now: float) -> tuple[str, ...]:
    age = f"for {_span(now - key.seen_at)}"
    if key.gone_at is not None:
        age = f"withdrawn {_span(now - key.gone_at)} ago"
    # What an issuer calls its key is shown as it may go to a terminal.
    name = "-" if key.key_id is None else ascii(key.key_id)[1:-1]
    return key.state, name, ",".join(key.algorithms), key.thumbprint or "-", age


def _span(seconds: float) -> str:
    """Return a time as people say it, in its largest unit."""
    whole = max(0, round(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"

"""`gateway token`: make a token, for an operator's own calls and for tests.

By the configured keys and rules: what the gateway would refuse is not made. The token
is the one line on stdout; all else goes to stderr.

Imports: gateway.app, gateway.cli, gateway.config, gateway.tokens, click,
cryptography.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.app import CLOCK
from gateway.cli.common import config_option, loaded_or_exit
from gateway.config import units
from gateway.config.load import Loaded
from gateway.config.sealed import fernet_keys, jwe_keys
from gateway.config.settings import Issuer
from gateway.credentials import rules_of
from gateway.tokens.jwks import key_from_pem, parse_key_set
from gateway.tokens.mint import (
    MintingKey,
    Order,
    claims_for,
    minting_key,
    signed,
    to_json,
)


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    try:
        return units.duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _words(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    """Take words with commas or spaces between them."""
    return tuple(value.replace(",", " ").split())


@click.group("token")
def command() -> None:
    """Make tokens."""


@command.command()
@config_option
@click.option("--kind", type=click.Choice(["jwt", "jwe", "fernet"]), required=True)
@click.option(
    "--issuer",
    help="Its name in gateway.toml. For jwe: who signs what stands in it; without, it"
    " holds claims.",
)
@click.option("--sub", required=True, help="Who it is about.")
@click.option("--roles", default="", callback=_words, help="Such as customer,support.")
@click.option("--scope", default="", callback=_words, help="What it may do.")
@click.option("--sid", help="The login session that it is tied to.")
@click.option("--client", help="The client that it is issued to.")
@click.option(
    "--aud", multiple=True, help="For whom; default: all that its issuer may."
)
@click.option(
    "--ttl",
    callback=_seconds,
    default="10m",
    show_default=True,
    help="How long it is valid.",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The private key of an issuer that has no secret in gateway.toml, PEM.",
)
@click.option("--kid", help="The name of that key; default: as the key set has it.")
def mint(
    files: Sequence[Path],
    kind: str,
    issuer: str | None,
    sub: str,
    roles: tuple[str, ...],
    scope: tuple[str, ...],
    sid: str | None,
    client: str | None,
    aud: tuple[str, ...],
    ttl: float,
    key_file: Path | None,
    kid: str | None,
) -> None:
    """Make a token and print it, if the gateway would take it."""
    loaded = loaded_or_exit(files)
    order = Order(sub, ttl, aud, roles, scope, sid, client)
    name = _issuer_of(loaded, kind, issuer)
    try:
        token = _mint(loaded, kind, name, order, key_file, kid)
    except (ValueError, OSError) as error:
        raise click.ClickException(f"{error}: nothing was minted") from None
    until = dt.datetime.fromtimestamp(CLOCK.wall() + ttl, dt.UTC)
    click.echo(f"{kind} of {name} about {sub}, until {until:%FT%TZ}", err=True)
    click.echo(token)


def _issuer_of(loaded: Loaded, kind: str, said: str | None) -> str:
    """Return the name of the issuer whose token it is to be."""
    issuers = loaded.settings.issuers
    signers = [name for name, each in issuers.items() if each.signs]
    if kind == "jwt":
        known = signers
    elif kind == "fernet":
        known = ["fernet"] if loaded.settings.fernet else []
    else:
        jwe = loaded.settings.jwe
        known = [*(["jwe"] if "jwe" in issuers else []), *(jwe.nested if jwe else ())]
    if said is None and known and (kind != "jwt" or len(known) == 1):
        return known[0]
    if said not in known:
        names = ", ".join(known) or f"none: gateway.toml has nothing for {kind}"
        raise click.UsageError(f"--issuer must be one of: {names}")
    return said


def _mint(
    loaded: Loaded,
    kind: str,
    name: str,
    order: Order,
    key_file: Path | None,
    kid: str | None,
) -> str:
    """Return the token.

    Raises:
        ValueError: There is no key for it, or the gateway would refuse it.
    """
    settings = loaded.settings
    issuer = settings.issuers[name]
    rules = rules_of(issuer, settings)
    for each in set(order.audience) - issuer.audience:
        if not any(each in (route.audience or ()) for route in loaded.policy.routes):
            raise ValueError(f"neither {name} nor a route has the audience {each}")
    fernet, jwe = settings.fernet, settings.jwe
    claims = claims_for(
        order,
        rules,
        CLOCK.wall(),
        secrets.token_bytes,
        needs_session=name == "fernet" and fernet is not None and fernet.needs_session,
    )
    if kind == "fernet":
        assert fernet is not None, "its issuer was found"
        return fernet_keys(fernet).seal(to_json(claims), claims["iat"])
    content, header = to_json(claims), {"typ": "JWT"}
    if issuer.signs:
        token = signed(claims, rules, _signing_key(issuer, key_file, kid))
        if kind == "jwt":
            return token
        content, header["cty"] = token.encode("ascii"), "JWT"
    assert jwe is not None, "its issuer was found"
    # What a process makes for itself at its start, this one doesn't have.
    lasting = replace(jwe, keys=tuple(key for key in jwe.keys if key.material))
    for key in jwe_keys(lasting, b"").keys:
        if issuer.signs or key.is_secret:
            return key.seal(content, header)
    raise ValueError("an ephemeral key is in the running gateway alone")


def _signing_key(issuer: Issuer, key_file: Path | None, kid: str | None) -> MintingKey:
    """Return the key that signs for *issuer*, which has to be one of its own."""
    source = issuer.keys
    if source.secret is not None:
        return MintingKey(min(issuer.algorithms), kid, source.secret)
    if key_file is None:
        raise ValueError(f"{issuer.name} signs with a key of its own: --key FILE")
    key, public = minting_key(key_file.read_bytes(), issuer.algorithms)
    if source.pem is not None:
        known = key_from_pem(source.pem, issuer.algorithms).keys
    elif source.jwks_file is not None:
        raw = Path(source.jwks_file).read_bytes()
        known = parse_key_set(raw, issuer.algorithms).keys
    else:
        return replace(key, key_id=kid)  # its key set is not looked at for this
    for each in known:
        if each.algorithm == key.algorithm and _pem(each.material) == public:
            return replace(key, key_id=kid or each.key_id)
    raise ValueError(f"{key_file} holds none of the keys of {issuer.name}")


def _pem(public: Any) -> bytes:
    raw: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw

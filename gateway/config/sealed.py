"""[fernet] and [jwe]: tokens that are sealed, and the issuers that they are of.

R46 (keys that nobody guesses), R49 (one pair of algorithms for a key), R51 (`ttl`).
Each section makes an issuer of its own name, with rules like those of any [issuer.x].

Imports: the standard library, gateway.config.credential_file,
gateway.config.findings, gateway.config.gateway_file,
gateway.config.issuers, gateway.config.references, gateway.config.settings,
gateway.policy.spec, gateway.policy.suggest, gateway.tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import credential_file as written
from gateway.config.findings import Findings
from gateway.config.gateway_file import Gateway
from gateway.config.issuers import LONG_LEEWAY, build_roles
from gateway.config.references import MAX_SECRET, OTHERS
from gateway.config.settings import (
    Fernet,
    Issuer,
    Jwe,
    JweKey,
    KeySource,
    ScopeRule,
)
from gateway.policy.spec import KeyPath
from gateway.policy.suggest import did_you_mean
from gateway.tokens.compact import base64url
from gateway.tokens.fernet import FernetKeys, key_from_password, read_key

if TYPE_CHECKING:
    from gateway.tokens.jwe import SealingKeys

EPHEMERAL = "ephemeral"
MAX_KEYS = 16  # of a directory too: each is tried on a token that none has sealed


def check_names(table: Gateway, found: Findings) -> None:
    """Note an issuer that has the name, or the `iss`, of a sealed one."""
    urls = {each.issuer: name for name, each in table.issuer.items()}
    for name in ("fernet", "jwe"):
        if name in table.issuer:
            found.problem(
                ("issuer", name),
                f'the name "{name}" is that of the issuer of [{name}]',
                "give this one another name",
                key=True,
            )
        section = getattr(table, name)
        if section is None or section.issuer is None:
            continue
        if section.issuer in urls:
            found.problem(
                (name, "issuer"),
                f"{urls[section.issuer]} has the same issuer: to revoke a token of the"
                " one would revoke one of the other",
            )
        urls[section.issuer] = name


def build_fernet(
    table: written.Fernet | None, found: Findings
) -> tuple[Fernet, Issuer] | None:
    """Build [fernet] and its issuer; None where there is none, or it has a problem."""
    if table is None:
        return None
    before = len(found.problems)
    at: KeyPath = ("fernet",)
    keys: list[str] = []
    directory: Path | None = None
    for index, said in enumerate(table.keys):
        where = (*at, "keys", index)
        if not said.startswith("dir:"):
            _take(keys, said, where, found)
            continue
        path = found.existing(where, said.removeprefix("dir:"))
        if directory is not None:
            found.problem(where, "one directory of keys is enough")
        elif path is not None:
            directory = path
            for text in _read_directory(path, where, found):
                _take(keys, text, where, found)
    if table.derived is not None:
        key = _derived(table.derived, found)
        if key is not None:
            _take(keys, key, (*at, "derived"), found)
    if not table.keys and table.derived is None:
        found.problem(
            at,
            "[fernet] has no keys",
            'add keys = ["env:NAME"], keys = ["dir:/path"] or derived = { password ='
            ' "env:NAME", salt = "..." }',
        )
    issuer = _issuer("fernet", table.issuer, table, table.ttl, table.scope, found)
    if len(found.problems) > before:
        return None
    return (
        Fernet(
            tuple(keys),
            None if directory is None else str(directory),
            needs_session=table.sid == "required",
        ),
        issuer,
    )


def build_jwe(
    table: written.Jwe | None,
    issuers: Mapping[str, Issuer],
    names: frozenset[str],
    found: Findings,
) -> tuple[Jwe, Issuer | None] | None:
    """Build [jwe] and its issuer; None where there is no [jwe], or it has a problem.

    Args:
        table: [jwe].
        issuers: Those of [issuer.x] that have no problem.
        names: Of all that the files name.
        found: Where problems go.
    """
    if table is None:
        return None
    # joserfc costs 50 ms to import: whoever has no [jwe] doesn't wait for it.
    from gateway.tokens.jwe import SECRET, SealingKeys, sealing_key  # noqa: PLC0415

    before = len(found.problems)
    at: KeyPath = ("jwe",)
    keys, made = [], []
    for index, said in enumerate(table.keys):
        where = (*at, "keys", index)
        if said.key == EPHEMERAL:
            if said.alg != "dir":
                found.problem((*where, "key"), '"ephemeral" is for alg = "dir"')
            keys.append(JweKey(said.alg, said.enc, said.kid))
            continue
        material = said.key.encode("utf-8", "surrogateescape")
        try:
            made.append(sealing_key(said.alg, said.enc, said.kid, material))
        except ValueError as error:
            found.problem((*where, "key"), f"key: {error}")
            continue
        keys.append(JweKey(said.alg, said.enc, said.kid, material))
    _check_apart(keys, found)
    try:
        SealingKeys(made)
    except ValueError as error:
        found.problem((*at, "keys"), f"keys: {error}")
    for index, name in enumerate(table.nested):
        if name in issuers or name not in names:
            _check_nested(name, (*at, "nested", index), issuers, found)
    issuer = None
    if table.issuer is None:
        if not table.nested:
            found.problem(
                at,
                "[jwe] says nothing of what may stand in its tokens",
                'add issuer = "...", audience and scope for claims, or nested = ["..."]'
                " for signed tokens",
            )
    elif not table.audience or table.scope is None:
        missing = "audience" if not table.audience else "scope"
        found.problem((*at, "issuer"), f"claims in [jwe] need {missing} as well")
    else:
        if not any(each.alg in SECRET for each in table.keys):
            found.problem(
                (*at, "issuer"),
                "anybody can encrypt to a public key: claims in it say nothing",
                'use alg = "dir" or "A256KW", or sign first: nested = ["..."]',
            )
        issuer = _issuer(
            "jwe", table.issuer, table, table.max_lifetime, table.scope, found
        )
    if len(found.problems) > before:
        return None
    return Jwe(tuple(keys), tuple(table.nested)), issuer


def fernet_keys(settings: Fernet) -> FernetKeys:
    """Return the keys of [fernet], to open and to seal with."""
    return FernetKeys(settings.keys)


def jwe_keys(settings: Jwe, secret: bytes) -> SealingKeys:
    """Return the keys of [jwe], to open and to seal with.

    Args:
        settings: As they were loaded.
        secret: Of the process; its ephemeral keys are derived from it.
    """
    from gateway.tokens.jwe import (  # noqa: PLC0415  (as above)
        SealingKeys,
        ephemeral_key,
        sealing_key,
    )

    return SealingKeys(
        [
            ephemeral_key(key.encoding, key.key_id, secret)
            if key.material is None
            else sealing_key(key.algorithm, key.encoding, key.key_id, key.material)
            for key in settings.keys
        ]
    )


def _issuer(
    name: str,
    issuer: str,
    table: written.Fernet | written.Jwe,
    max_lifetime: float,
    scope: written.IssuerScope,
    found: Findings,
) -> Issuer:
    roles = build_roles((name,), table.roles, found)
    if table.leeway > LONG_LEEWAY:
        found.weak((name, "leeway"), f"leeway of issuer {name}")
    return Issuer(
        name=name,
        issuer=issuer,
        keys=KeySource(),
        audience=frozenset(table.audience),
        leeway=table.leeway,
        max_lifetime=max_lifetime,
        token_id=table.token_id,
        roles=roles,
        scope=ScopeRule(scope.claim, scope.user, scope.service),
    )


def _take(keys: list[str], text: str, at: KeyPath, found: Findings) -> None:
    try:
        key = read_key(text)
    except ValueError as error:
        found.problem(at, f"keys: {error}")
        return
    if key in keys:
        found.problem(at, "keys: the same key twice")
    keys.append(key)


def _read_directory(path: Path, at: KeyPath, found: Findings) -> list[str]:
    """Return the keys in *path*, those of the newest name first."""
    files = sorted(path.glob("*.key"), reverse=True)
    if not files:
        found.problem(
            at,
            "the directory holds no *.key",
            "gateway keys generate --kind fernet --dir ...",
        )
    if len(files) > MAX_KEYS:
        found.problem(at, f"the directory holds more than {MAX_KEYS} keys")
        return []
    texts = []
    try:
        for file in files:
            with file.open("rb") as stream:
                raw = stream.read(MAX_SECRET)
            texts.append(raw.decode("ascii", "replace").strip())
        open_ = any(file.stat().st_mode & OTHERS for file in files)
    except OSError as error:
        found.problem(at, f"cannot be read: {error.strerror or type(error).__name__}")
        return []
    if open_:
        found.weak(at, f"readable secret {'.'.join(map(str, at))}")
    return texts


def _derived(table: written.Derived, found: Findings) -> str | None:
    salt = base64url(table.salt.rstrip("="))
    if salt is None:
        found.problem(("fernet", "derived", "salt"), "salt: expected base64url")
        return None
    try:
        return key_from_password(table.password, salt, table.iterations)
    except ValueError as error:
        found.problem(("fernet", "derived"), f"derived: {error}")
        return None


def _check_apart(keys: list[JweKey], found: Findings) -> None:
    """Note keys between which a token could not choose, and one that is used twice."""
    seen: set[tuple[str, ...]] = set()
    materials: set[bytes] = set()
    for index, key in enumerate(keys):
        at: KeyPath = ("jwe", "keys", index)
        name = (key.key_id,) if key.key_id else (key.algorithm, key.encoding)
        if name in seen:
            found.problem(
                at,
                "a kid of its own is needed: another key is used with the same alg and"
                " enc"
                if key.key_id is None
                else "another key has the same kid",
            )
        seen.add(name)
        if key.material is not None and key.material in materials:
            found.problem((*at, "key"), "one key for two pairs of alg and enc (R40)")
        materials.add(key.material or b"")


def _check_nested(
    name: str, at: KeyPath, issuers: Mapping[str, Issuer], found: Findings
) -> None:
    known = issuers.get(name)
    if known is None:
        found.problem(
            at, f"there is no [issuer.{name}]", did_you_mean(name, list(issuers))
        )
    elif not known.signs:
        found.problem(at, f"{name} signs no tokens")

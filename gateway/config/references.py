"""`env:NAME` and `file:/path`: values that stand elsewhere.

`env:` works in any string. `file:` works where a secret or a key is expected, and
reads the file; elsewhere (`jwks`, `identity.keys`) it is a place that others read.
Whatever is read here is remembered as hidden: no message repeats it.

Imports: the standard library, gateway.config.documents, gateway.config.problems,
gateway.policy.spec, gateway.policy.suggest.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config.problems import SEALING, is_secret, pattern_of
from gateway.policy.spec import KeyPath, Problem
from gateway.policy.suggest import nearest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_SECRET = 64 * 1024  # bytes; a chain of certificates is a tenth of it

# Values that are read from their file; "*" is the name of an issuer, or an index.
_READ = SEALING | {
    ("issuer", "*", "secret"),
    ("issuer", "*", "pem"),
    ("issuer", "*", "introspection", "client_secret"),
    ("admin", "token"),
    ("api_keys", "pepper"),
    ("dpop", "nonce_key"),
    ("store", "url"),
}
# Of these, the ones that are no secret, so that anybody may read their file.
_PUBLIC = {("issuer", "*", "pem")}

# Permission bits of the group and of everybody.
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(slots=True)
class Resolved:
    """The outcome: the data with every reference followed."""

    data: dict[str, Any] = field(repr=False)
    problems: list[Problem]
    hidden: dict[str, str] = field(repr=False)
    outside: set[KeyPath]  # the values that did not stand in the file
    readable: list[KeyPath]  # the secrets whose file others can read


def resolve(
    data: Mapping[str, Any],
    *,
    env: Mapping[str, str],
    file_of: Callable[[KeyPath], str],
    base_of: Callable[[KeyPath], Path],
) -> Resolved:
    """Follow every reference in *data*.

    Args:
        data: As tomllib gave it.
        env: The environment.
        file_of: Names the file in which a key path stands, for messages.
        base_of: The directory that a relative path there is relative to.
    """
    out = Resolved({}, [], {}, set(), [])

    def follow(value: Any, at: KeyPath) -> Any:
        if isinstance(value, Mapping):
            return {key: follow(inner, (*at, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [follow(inner, (*at, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        pattern = _pattern(at)
        if value.startswith("env:"):
            return from_environment(value, at)
        if pattern in _READ and value.startswith("file:"):
            return from_file(value, at)
        if pattern in _READ - _PUBLIC and is_secret(at, value):
            problem(
                at,
                "a secret does not stand in this file",
                'write "env:NAME" or "file:/path" and put it there',
            )
            return None
        return value

    def problem(at: KeyPath, message: str, suggestion: str = "") -> None:
        out.problems.append(Problem(file_of(at), at, message, suggestion))

    def from_environment(reference: str, at: KeyPath) -> str | None:
        name = reference.removeprefix("env:")
        if _NAME.fullmatch(name) is None:
            problem(at, 'expected the name of a variable behind "env:"')
            return None
        value = env.get(name)
        if value is None:
            close = nearest(name, env)
            hint = f"did you mean {close}?" if close else ""
            problem(at, f"the environment has no variable {name}", hint)
            return None
        out.hidden[value] = reference
        out.outside.add(at)
        return value

    def from_file(reference: str, at: KeyPath) -> str | None:
        name = reference.removeprefix("file:")
        if not name or "\0" in name:
            problem(at, 'expected a path behind "file:"')
            return None
        path = base_of(at) / name
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_SECRET + 1)
            mode = path.stat().st_mode
        except OSError as error:
            why = error.strerror or type(error).__name__
            problem(at, f"its file cannot be read: {why}")
            return None
        if len(raw) > MAX_SECRET:
            problem(at, "its file is longer than 64 KiB")
            return None
        # Surrogates carry bytes that are not UTF-8: a key may be any bytes.
        value = raw.decode("utf-8", "surrogateescape")
        value = value.removesuffix("\n").removesuffix("\r")
        if _pattern(at) not in _PUBLIC and mode & OTHERS:
            out.readable.append(at)
        out.hidden[value] = reference
        out.outside.add(at)
        return value

    out.data = follow(data, ())
    return out


def _pattern(at: KeyPath) -> tuple[str | int, ...]:
    if len(at) > 2 and at[0] == "issuer":  # noqa: PLR2004  (issuer, its name, a key)
        return ("issuer", "*", *at[2:])
    return pattern_of(at)

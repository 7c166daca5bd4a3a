"""The URL of [store], taken apart: one server, its sentinels, or a cluster.

What stands behind `?` is a short list: whatever else redis-py would take there (longer
timeouts, retries, a certificate that nobody verifies) is settled by us.

Imports: the standard library, gateway.config.settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from gateway.config.settings import Quiet

Host = tuple[str, int]
"""A name or an address without brackets, and a port."""

Kind = Literal["one", "sentinel", "cluster"]

SENTINEL_PORT = 26379
PORT = 6379
MAX_HOSTS = 16  # each is asked in turn, and all within one deadline

_LAST_PORT = 65_535
_TLS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_SENTINEL = frozenset({"sentinel_username", "sentinel_password"})

_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[^/?#@:,\[\]\s]+)(?::[0-9]{1,5})?"
_URL = re.compile(
    r"redis(?P<tls>s?)(?:\+(?P<kind>sentinel|cluster))?://(?:(?P<user>[^/?#@]*)@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?"
    r"|unix://(?:(?P<owner>[^/?#@]*)@)?(?P<socket>/[^?#]+)(?:\?db=(?P<db>[0-9]{1,5}))?"
)
_KINDS: dict[str | None, Kind] = {
    None: "one",
    "sentinel": "sentinel",
    "cluster": "cluster",
}
_PATH = {
    "one": re.compile(r"(?P<db>[0-9]{0,5})(?P<service>)"),
    "sentinel": re.compile(r"(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>[0-9]{0,5}))?"),
    # A cluster has one database.
    "cluster": re.compile(r"(?P<db>0?)(?P<service>)"),
}


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl(Quiet):
    """Where the store is, and how one is let in."""

    kind: Kind
    hosts: tuple[Host, ...]  # of one server, of sentinels, of nodes; or none:
    path: str = ""  # of a Unix socket
    tls: bool = False
    tls_files: Mapping[str, str] = field(default_factory=dict)  # as redis-py says it
    username: str = ""
    password: str = ""
    db: int = 0
    service: str = ""  # as the sentinels call it
    sentinel_username: str = ""
    sentinel_password: str = ""


class StoreUrlError(ValueError):
    """It is none. Neither text repeats a part of it: there is a password in it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"[store] url: {message}")
        self.message = message
        self.hint = hint


def parse(text: str) -> StoreUrl:
    """Take *text* apart.

    Raises:
        StoreUrlError: It is no URL of a store.
    """
    found = _URL.fullmatch(text)
    if found is None:
        raise _none()
    if found["socket"]:
        username, password = _user(found["owner"])
        return StoreUrl(
            "one",
            (),
            unquote(found["socket"]),
            username=username,
            password=password,
            db=int(found["db"] or 0),
        )
    kind = _KINDS[found["kind"]]
    hosts = tuple(
        _host(host, SENTINEL_PORT if kind == "sentinel" else PORT)
        for host in found["hosts"].split(",")
    )
    path = _PATH[kind].fullmatch(found["path"] or "")
    if path is None and kind == "sentinel":
        raise StoreUrlError(
            "behind the sentinels stands the name of the service, and no more than a"
            " database",
            "redis+sentinel://host:port,host:port/mymaster",
        )
    if path is None or (kind == "one" and len(hosts) > 1) or len(hosts) > MAX_HOSTS:
        raise _none()
    options = _options(found["query"], tls=bool(found["tls"]), kind=kind)
    username, password = _user(found["user"])
    return StoreUrl(
        kind,
        hosts,
        tls=bool(found["tls"]),
        tls_files={name: options[name] for name in sorted(_TLS & options.keys())},
        username=username,
        password=password,
        db=int(path["db"] or 0),
        service=path["service"],
        sentinel_username=options.get("sentinel_username", ""),
        sentinel_password=options.get("sentinel_password", ""),
    )


def _none() -> StoreUrlError:
    return StoreUrlError(
        'expected "memory", "redis://host:port/db", "rediss://host:port/db",'
        ' "unix:///path", "redis+sentinel://host:port,host:port/service" or'
        ' "redis+cluster://host:port,host:port"',
        "/ ? # @ and % in a user or a password are written %2F %3F %23 %40 and %25",
    )


def _host(text: str, port: int) -> Host:
    name, colon, digits = text.rpartition(":")
    if not colon or text.endswith("]"):
        name = text
    elif 0 < int(digits) <= _LAST_PORT:
        port = int(digits)
    else:
        raise _none()
    return name.removeprefix("[").removesuffix("]").lower(), port


def _user(text: str | None) -> tuple[str, str]:
    username, _, password = (text or "").partition(":")
    return unquote(username), unquote(password)


def _options(query: str | None, *, tls: bool, kind: Kind) -> dict[str, str]:
    takes = (_TLS if tls else frozenset()) | (
        _SENTINEL if kind == "sentinel" else frozenset()
    )
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        is_good = value.startswith("/") if name in _TLS else value
        if name not in takes or name in options or not is_good:
            raise StoreUrlError(
                "behind `?` stands something that is not taken",
                "with rediss ssl_ca_certs=/path, ssl_certfile=/path, ssl_keyfile=/path;"
                " with sentinels sentinel_username, sentinel_password",
            )
        options[name] = unquote(value)
    return options

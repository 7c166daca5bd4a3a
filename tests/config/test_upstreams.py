"""gateway.config.upstreams: the backends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.settings import (
    Address,
    Ejection,
    HealthCheck,
    Timeouts,
    Upstream,
    UpstreamTls,
    UpstreamUrl,
)
from gateway.config.upstreams import parse_upstream
from tests.certificates import START, Authority
from tests.config.making import Project

URLS = 'urls    = ["http://127.0.0.1:8000"]'
SECURE = 'urls = ["https://orders"]'
NAMED = 'upstream = "orders"'


def test_the_example_upstream_is_understood(project: Project) -> None:
    """Address, authority, deadlines in seconds; what is not said is as documented."""
    upstream = project.load().settings.upstreams["orders"]
    (url,) = upstream.urls
    assert url == UpstreamUrl(Address("127.0.0.1", 8000), "127.0.0.1:8000")
    assert replace(upstream, timeout=Timeouts()) == Upstream("orders", (url,))
    assert (upstream.host, upstream.pass_credentials) == ("client", False)
    assert (upstream.timeout.connect, upstream.timeout.idle) == (2, 60)
    assert upstream.timeout.total is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://orders", UpstreamUrl(Address("orders", 80), "orders")),
        ("http://Orders:8080", UpstreamUrl(Address("orders", 8080), "orders:8080")),
        ("http://[::1]:80", UpstreamUrl(Address("::1", 80), "[::1]:80")),
        ("https://orders", UpstreamUrl(Address("orders", 443), "orders", secure=True)),
        ("unix:/run/o.sock", UpstreamUrl(Address(path="/run/o.sock"), "localhost")),
    ],
)
def test_an_upstream_is_a_host_or_a_socket(text: str, url: UpstreamUrl) -> None:
    """Its authority is what it would be called in a Host field."""
    assert parse_upstream(text) == url


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('urls = ["http://a", "http://A:80/"]', "expected no path"),
        ('urls = ["http://a", "http://A"]', "this URL stands here twice"),
        ('urls = ["http://a", "http://b"]\nhost = "upstream"', "say the name"),
        (URLS + "\nmax_connections = 0", "must be at least 1"),
        (URLS + "\npanic_threshold = 101", "must be at most 100"),
        (URLS + '\nresolve_every = "0s"', "must be at least 1s"),
        (URLS + '\nhealth = { path = "healthz" }', 'such as "/healthz"'),
        (URLS + '\nhealth = { path = "/a b" }', 'such as "/healthz"'),
        (URLS + '\nhealth = { path = "/", healthy = 0 }', "must be at least 1"),
        (URLS + '\nhealth = { path = "/", interval = "0s" }', "at least 100ms"),
        (URLS + '\nhealth = { interval = "1s" }', "path"),
        (URLS + '\nejection = { time = "10m" }', "max_time has to be time or more"),
        (URLS + '\ntls = { ca = "file:x" }', "none of its URLs is https:"),
        (URLS + "\ntls = { verify = false }", "unknown key"),
        (SECURE + '\ntls = { ca = "x" }', 'ca: expected "file:/path"'),
        (SECURE + '\ntls = { ca = "file:x" }', "cannot be read"),
        (SECURE + '\ntls = { ca = "file:gateway.toml" }', "no PEM certificate in it"),
        (SECURE + '\ntls = { key = "file:x" }', "belong together: say both"),
        (SECURE + '\ntls = { server_name = "a:1" }', "without a port"),
        ("urls = []", "urls: must not be empty"),
        ('urls = "http://a"', "urls: expected a list"),
        ('urls = ["orders:80"]', "expected a URL"),
        ('urls = ["http://a/path"]', "expected no path"),
        ('urls = ["http://u:p@a"]', "no user name and no password"),
        ('urls = ["unix:"]', "expected a path"),
        (URLS + '\nhost = "a b"', "expected a"),
        (URLS + '\nhost = "a/b"', "no path"),
        (URLS + '\nkeep_alive = "2h"', "must be at most 1h"),
        (URLS + "\nmax_idle = -1", "must be at least 0"),
        (URLS + "\ntimeouts = {}", 'did you mean "timeout"?'),
        (URLS + '\n[upstream.self]\nurls = ["http://a"]', '"self" is the gateway'),
        (URLS + '\n[upstream."a b"]\nurls = ["http://a"]', "a name is a letter"),
    ],
)
def test_each_mistake_is_named(project: Project, new: str, words: str) -> None:
    """What isn't there yet is said in words."""
    text = project.read("gateway.toml").replace(
        'timeout = { connect = "2s", first_byte = "30s" }\n', ""
    )
    project.write("gateway.toml", text)
    assert words in project.edit("gateway.toml", URLS, new).report()


def test_everything_about_an_upstream_can_be_said(project: Project) -> None:
    """A socket is relative to the file that says it."""
    new = """urls = ["unix:run/orders.sock"]
host = "orders.internal:81"
credentials_to_upstream = "pass"
keep_alive = "1s"
max_idle = 0"""
    loaded = project.edit("gateway.toml", URLS, new).load()
    upstream = loaded.settings.upstreams["orders"]
    assert upstream.urls[0].address.path == str(project.path / "run" / "orders.sock")
    assert upstream.host == "orders.internal:81"
    assert (upstream.keep_alive, upstream.max_idle) == (1, 0)
    assert upstream.pass_credentials
    assert all(route.pass_credentials for route in loaded.policy.routes)
    assert "credentials go to upstream orders" in project.weak()


@pytest.mark.parametrize(
    ("url", "weak"),
    [
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("unix:/run/x", False),
        ("http://orders:8000", True),
        ("http://10.0.0.1", True),
        ("https://orders", False),
    ],
)
def test_plaintext_over_a_network_is_a_weakening(
    project: Project, url: str, *, weak: bool
) -> None:
    """Off loopback anybody between may read and write."""
    project.edit("gateway.toml", "http://127.0.0.1:8000", url)
    assert ("plaintext upstream orders" in project.weak()) is weak


def test_a_service_may_say_its_url_itself(project: Project) -> None:
    """It makes an upstream of the service's name."""
    project.edit("gateway.toml", "[upstream.orders]", "[upstream.other]")
    project.edit("policies/orders.toml", NAMED, 'upstream = "http://orders:81"')
    settings = project.load().settings
    assert settings.upstreams["orders"].urls[0].address == Address("orders", 81)
    assert "plaintext upstream orders" in project.weak()


def test_the_url_of_a_service_may_be_secure(project: Project) -> None:
    """By the system's authorities."""
    project.edit("gateway.toml", "[upstream.orders]", "[upstream.other]")
    project.edit("policies/orders.toml", NAMED, 'upstream = "https://orders"')
    (url,) = project.load().settings.upstreams["orders"].urls
    assert url.secure
    assert "plaintext upstream orders" not in project.weak()


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("orders", "http://orders:81", "[upstream.orders] exists: a URL here would"),
        ("other", "https://orders/a", "expected no path"),
        ("other", "unix:", "expected a path"),
    ],
)
def test_a_url_in_a_service_is_held_to_the_same(
    project: Project, name: str, url: str, words: str
) -> None:
    """And no name means two upstreams."""
    project.edit("gateway.toml", "[upstream.orders]", f"[upstream.{name}]")
    project.edit("policies/orders.toml", NAMED, f'upstream = "{url}"')
    report = project.report()
    assert words in report
    assert report.endswith("\n1 problem")


def test_a_service_named_self_has_no_url(project: Project) -> None:
    """The upstream of that name answers for our own endpoints."""
    project.edit("policies/orders.toml", NAMED, 'upstream = "http://orders:81"')
    project.edit("policies/orders.toml", 'name     = "orders"', 'name     = "self"')
    assert '"self" is the gateway itself' in project.report()


def test_several_urls_stand_in_for_one_another(project: Project) -> None:
    """With all that can be said of them."""
    new = """urls = ["http://127.0.0.1:1", "http://[::1]:2", "unix:run/o.sock"]
max_connections = 7
resolve_every = "30s"
panic_threshold = 20
health = { path = "/healthz?a=b", interval = "5s", timeout = "1s", unhealthy = 4 }
ejection = { failures = 2, time = "1s", max_time = "1m" }"""
    upstream = project.edit("gateway.toml", URLS, new).load().settings.upstreams
    orders = upstream["orders"]
    assert [url.address.port for url in orders.urls] == [1, 2, 0]
    assert (orders.max_connections, orders.resolve_every) == (7, 30)
    assert orders.panic_threshold == 20
    assert orders.health == HealthCheck("/healthz?a=b", 5, 1, 2, 4)
    assert orders.ejection == Ejection(2, 1, 60)


def test_tls_to_an_upstream(project: Project) -> None:
    """Files are looked at, and a readable key is a weakening."""
    project.edit("gateway.toml", URLS, SECURE)
    assert project.load().settings.upstreams["orders"].tls == UpstreamTls()
    ca = Authority()
    ca.write(project.path)
    certificate, key = ca.sign("gateway").write(project.path, "us")
    project.edit(
        "gateway.toml",
        SECURE,
        SECURE
        + """
[upstream.orders.tls]
ca = "file:ca.crt"
certificate = "file:us.crt"
key = "file:us.key"
server_name = "Orders.internal"
minimum = "1.3"
[upstream.orders.timeout]
""",
    )
    project.edit("gateway.toml", 'timeout = { connect = "2s", first_byte = "30s" }', "")
    loaded = project.load()
    assert loaded.settings.upstreams["orders"].tls == UpstreamTls(
        ca=str(project.path / "ca.crt"),
        certificate=certificate,
        key=key,
        server_name="orders.internal",
        minimum="1.3",
    )
    Path(key).chmod(0o644)
    assert "readable secret upstream.orders.tls.key" in project.weak()
    project.write("us.key", ca.sign("another").key_pem.decode())
    assert "the key does not belong to the certificate" in project.report()


def test_one_plaintext_url_is_enough_for_a_weakening(project: Project) -> None:
    """It is told once, at the first one."""
    urls = 'urls = ["https://a", "http://b", "http://c"]'
    project.edit("gateway.toml", URLS, urls)
    weak = project.load().settings.weakenings
    (found,) = (item for item in weak if item.what == "plaintext upstream orders")
    assert found.place.startswith("gateway.toml:")


def test_a_certificate_that_has_expired_is_a_weakening(project: Project) -> None:
    """What we show to an upstream is looked at as what we show to clients."""
    ca = Authority()
    ca.sign("gateway").write(project.path, "us")
    more = '\ntls = { certificate = "file:us.crt", key = "file:us.key" }'
    project.edit("gateway.toml", URLS, SECURE + more)
    later = START.timestamp() + 91 * 86400
    loaded = load([project.path / "gateway.toml"], env=project.env, now=later)
    assert "expired TLS certificate" in {w.what for w in loaded.settings.weakenings}

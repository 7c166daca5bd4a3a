"""gateway.config.upstreams: the backends."""

from __future__ import annotations

import pytest

from gateway.config.settings import Address
from gateway.config.upstreams import parse_upstream
from tests.config.making import Project

URLS = 'urls    = ["http://127.0.0.1:8000"]'
NAMED = 'upstream = "orders"'


def test_the_example_upstream_is_understood(project: Project) -> None:
    """Address, authority, deadlines in seconds."""
    upstream = project.load().settings.upstreams["orders"]
    assert upstream.address == Address("127.0.0.1", 8000)
    assert upstream.authority == "127.0.0.1:8000"
    assert (upstream.host, upstream.pass_credentials) == ("client", False)
    assert (upstream.timeout.connect, upstream.timeout.idle) == (2, 60)
    assert upstream.timeout.total is None


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("http://orders", Address("orders", 80), "orders"),
        ("http://Orders:8080", Address("orders", 8080), "orders:8080"),
        ("http://[::1]:80", Address("::1", 80), "[::1]:80"),
        ("unix:/run/orders.sock", Address(path="/run/orders.sock"), "localhost"),
    ],
)
def test_an_upstream_is_a_host_or_a_socket(
    text: str, address: Address, authority: str
) -> None:
    """Its authority is what it would be called in a Host field."""
    target = parse_upstream(text)
    assert (target.address, target.authority) == (address, authority)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('urls = ["https://orders"]', "TLS to upstreams is not there yet"),
        ('urls = ["http://a", "http://b"]', "one URL for now: balancing"),
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
    assert upstream.address.path == str(project.path / "run" / "orders.sock")
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
    assert settings.upstreams["orders"].address == Address("orders", 81)
    assert "plaintext upstream orders" in project.weak()


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("orders", "http://orders:81", "[upstream.orders] exists: a URL here would"),
        ("other", "https://orders", "TLS to upstreams is not there yet"),
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

"""gateway.config.identities: what upstreams are told, and by whose key."""

from __future__ import annotations

import pytest

from tests.config.making import Project

KEYS = 'keys    = "dir:.gateway/identity"'
HEADERS = 'headers = { "X-Auth-Request-User" = "sub" }'
TIMEOUT = 'timeout = { connect = "2s", first_byte = "30s" }'


def test_the_example_identity_is_understood(project: Project) -> None:
    """Its keys are found wherever the gateway is started from."""
    identity = project.load().settings.identity
    assert identity is not None
    assert identity.issuer == "https://gateway.demo.example/identity"
    assert identity.keys == f"dir:{project.path}/.gateway/identity"
    assert (identity.algorithm, identity.ttl) == ("ES256", 60)
    assert dict(identity.headers) == {"X-Auth-Request-User": "sub"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (KEYS, 'keys = ".gateway/identity"', 'expected "dir:/path" or "file:/path"'),
        (
            KEYS,
            'keys = "env:.gateway"',
            'expected the name of a variable behind "env:"',
        ),
        (KEYS, 'keys = "dir:none"', "cannot be read: No such file"),
        (KEYS, 'keys = "file:.gateway/identity"', 'it is a directory: "dir:..."'),
        (KEYS, 'keys = "dir:gateway.toml"', 'it is a file: "file:..."'),
        (KEYS, "", 'missing key "keys" in [identity]'),
        (HEADERS, 'ttl = "61s"', "ttl: must be at most 1m"),
        (HEADERS, 'algorithm = "HS256"', 'expected "ES256", "EdDSA" or "RS256"'),
        (HEADERS, 'claims = ["acr", "sub"]', "the gateway says this claim itself"),
        (HEADERS, 'headers = { "TE" = "sub" }', "is for one connection"),
        (HEADERS, 'headers = { "X-Gateway-A" = "sub" }', "the gateway's own fields"),
        (
            HEADERS,
            'headers = { "X-A" = "a", "x_a" = "b" }',
            "the same header field twice",
        ),
        (HEADERS, 'headers = { "X A" = "a" }', "the name of a header field"),
        (
            "https://gateway.demo.example/identity",
            "https://login.demo.example",
            "[issuer.demo] has the same issuer: an assertion for an upstream",
        ),
        (
            TIMEOUT,
            'identity = { issuer = "https://login.demo.example" }',
            "[issuer.demo] has the same issuer: an assertion for an upstream",
        ),
        (TIMEOUT, 'identity = { keys = "dir:none" }', "cannot be read"),
        (TIMEOUT, 'identity = { claims = ["iss"] }', "says this claim itself"),
        (TIMEOUT, 'identity = { issuers = "x" }', 'did you mean "issuer"?'),
    ],
)
def test_each_mistake_is_named(
    project: Project, old: str, new: str, words: str
) -> None:
    """R94, R95: own issuer, own keys, a minute, and no header of another meaning."""
    assert words in project.edit("gateway.toml", old, new).report()


def test_an_upstream_may_be_told_otherwise(project: Project) -> None:
    """What it doesn't say is as in [identity]."""
    project.write("key.pem", "a stub")
    new = 'identity = { keys = "file:key.pem", ttl = "5s", claims = [], headers = {} }'
    settings = project.edit("gateway.toml", TIMEOUT, new).load().settings
    own = settings.upstreams["orders"].identity
    assert own is not None
    assert own.issuer == "https://gateway.demo.example/identity"
    assert own.keys == f"file:{project.path}/key.pem"
    assert (own.ttl, own.claims, dict(own.headers)) == (5, (), {})


def test_without_identity_an_upstream_says_all_of_its_own(project: Project) -> None:
    """Issuer and keys, at least."""
    text = project.read("gateway.toml")
    start, stop = text.index("[identity]"), text.index("[upstream.orders]")
    project.write("gateway.toml", text[:start] + text[stop:])
    project.edit("gateway.toml", TIMEOUT, 'identity = { issuer = "https://x.example" }')
    assert "it needs issuer and keys of its own" in project.report()
    project.edit(
        "gateway.toml", "identity = {", 'identity = { keys = "dir:.gateway/identity",'
    )
    settings = project.load().settings
    own = settings.upstreams["orders"].identity
    assert settings.identity is None
    assert own is not None
    assert (own.issuer, own.algorithm) == ("https://x.example", "ES256")


def test_keys_that_others_can_read_are_a_weakening(project: Project) -> None:
    """R103: whoever holds them is every caller."""
    project.write(".gateway/identity/stub.pem", "a stub", mode=0o644)
    assert "readable secret identity.keys" in project.weak()

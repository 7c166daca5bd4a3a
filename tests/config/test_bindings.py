"""gateway.config.bindings: what is asked of tokens can be had, and of whom."""

from __future__ import annotations

import re

import pytest

from gateway.config.settings import Certificates, Dpop
from tests.certificates import Authority
from tests.config.making import Project

CA = Authority()
ALGORITHMS = frozenset({"ES256", "EdDSA", "PS256", "RS256"})
LISTEN = 'listen     = ["127.0.0.1:8080"]'
URL = 'public_url = "http://127.0.0.1:8080"'
ISSUER = 'algorithms  = ["ES256"]'
TLS = """
[server.tls]
certificate = "file:tls.crt"
key = "file:tls.key"
client = "optional"
client_ca = "file:ca.crt"
"""
KEY = "k" * 32


def with_tls(project: Project) -> Project:
    CA.sign().write(project.path)
    CA.write(project.path)
    return project.append("gateway.toml", TLS)


def test_with_a_public_url_there_is_dpop(project: Project) -> None:
    """The section says how; without a URL there is none, and no section either."""
    assert project.load().settings.dpop == Dpop(ALGORITHMS)
    assert KEY not in repr(Dpop(ALGORITHMS, nonce=True, nonce_key=KEY.encode()))
    project.edit("gateway.toml", URL, "")
    assert project.load().settings.dpop is None
    project.append("gateway.toml", "\n[dpop]\n")
    assert "[server] public_url says none" in project.report()


def test_everything_about_proofs_can_be_said(project: Project) -> None:
    """A key of nonces is a reference."""
    project.write("nonce", KEY)
    section = """
[dpop]
algorithms = ["ES384"]
nonce      = true
nonce_key  = "file:nonce"
"""
    dpop = project.append("gateway.toml", section).load().settings.dpop
    assert dpop == Dpop(frozenset({"ES384"}), nonce=True, nonce_key=KEY.encode())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('algorithms = ["HS256"]', "algorithms"),
        ('algorithms = ["none"]', "algorithms"),
        ("algorithms = []", "algorithms"),
        ('nonce_key = "file:nonce"', "no nonce is asked for"),
        ('nonce = true\nnonce_key = "file:short"', "32 bytes or more"),
        (f'nonce = true\nnonce_key = "{KEY}"', "nonce_key"),
    ],
)
def test_what_is_wrong_with_it(project: Project, section: str, words: str) -> None:
    """Named with its place, and without the key."""
    project.write("nonce", KEY).write("short", "s" * 31)
    report = project.append("gateway.toml", f"\n[dpop]\n{section}\n").report()
    assert words in report
    assert "s" * 31 not in report


@pytest.mark.parametrize(
    ("proxies", "tls", "words"),
    [
        ([], True, "there is none"),
        (["10.0.0.0/8"], False, "has to show a certificate of its own"),
        (["127.0.0.1", "10.0.0.0/8"], False, "has to show a certificate"),
        (["10.0.0.0/8"], True, ""),
        (["127.0.0.1", "::1"], False, ""),
    ],
)
@pytest.mark.parametrize("kind", ["client-cert", "xfcc", "xfcc-last"])
def test_a_field_is_believed_of_a_proxy_that_is_known(
    project: Project, kind: str, proxies: list[str], tls: bool, words: str
) -> None:
    """By its certificate, or by being on this host (R81)."""
    text = f'{LISTEN}\nclient_certificate = "{kind}"\ntrusted_proxies = {proxies}'
    project.edit("gateway.toml", LISTEN, text)
    if tls:
        with_tls(project)
    if words:
        assert words in project.report()
    else:
        assert project.load().settings.server.client_certificate == kind


def test_an_issuer_says_how_it_binds(project: Project) -> None:
    """By default to no address, and to nothing."""
    issuer = project.load().settings.issuers["demo"]
    assert (issuer.address_claim, issuer.binding) == ("", None)
    assert (issuer.subnet_v4, issuer.subnet_v6) == (32, 64)
    more = 'address_claim = "ip"\nsubnet = { v4 = 24, v6 = 56 }\nbinding = "ip"'
    project.edit("gateway.toml", ISSUER, f"{ISSUER}\n{more}")
    issuer = project.load().settings.issuers["demo"]
    assert issuer.address_claim == "ip"
    assert issuer.binding == frozenset({"ip"})
    assert (issuer.subnet_v4, issuer.subnet_v6) == (24, 56)


IMPOSSIBLE = {
    "dpop": '"dpop" needs [server] public_url',
    "mtls": '"mtls": no client is asked for a certificate',
    "ip": '"ip" needs an issuer with an address_claim',
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
@pytest.mark.parametrize("where", ["issuer", "service", "route"])
def test_what_no_token_could_satisfy_does_not_load(
    project: Project, where: str, kind: str
) -> None:
    """Wherever it stands; the place is named. Where it can be had, it loads."""
    line = f'binding = ["{kind}"]\n'
    project.edit("gateway.toml", URL, "")
    if where == "issuer":
        project.edit("gateway.toml", ISSUER, line + ISSUER)
    elif where == "service":
        project.edit("policies/orders.toml", "[service]\n", "[service]\n" + line)
    else:
        project.edit("policies/orders.toml", "[[route]]\n", "[[route]]\n" + line)

    (problem,) = project.problems()

    assert IMPOSSIBLE[kind] in problem.message
    assert problem.at[-1] == "binding"
    if kind == "dpop":
        project.edit("gateway.toml", LISTEN, f"{LISTEN}\n{URL}")
    elif kind == "mtls":
        with_tls(project)
    else:
        project.edit("gateway.toml", ISSUER, f'{ISSUER}\naddress_claim = "ip"')
    routes = project.load().policy.routes
    asking = [each.binding for each in routes if each.binding is not None]
    assert asking == ([] if where == "issuer" else [frozenset({kind})] * len(asking))
    assert bool(asking) is (where != "issuer")


def test_a_told_certificate_is_one_too(project: Project) -> None:
    """`"mtls"` behind a proxy on this host."""
    told = 'client_certificate = "client-cert"\ntrusted_proxies = ["127.0.0.1"]'
    project.edit("gateway.toml", LISTEN, f"{LISTEN}\n{told}")
    line = '[service]\nbinding = "mtls"\n'
    project.edit("policies/orders.toml", "[service]\n", line)
    routes = project.load().policy.routes
    assert all(each.binding == frozenset({"mtls"}) for each in routes)


# Certificates as credentials

SECTION = """
[certificates]
name = "subject"
max_lifetime = "7d"
[certificates.roles]
"CN=billing" = ["support"]
"""
TAKING = 'issuers = ["demo", "certificates"]\ncredentials = ["bearer", "certificate"]\n'


def taking(project: Project) -> Project:
    """Let the service take certificates."""
    project.edit("policies/orders.toml", 'issuers  = ["demo"]\n', TAKING)
    owner = 'owner = { param = "customer_id", issuer = "demo" }'
    text = project.read("policies/orders.toml")
    text = re.sub(r'owner +=\s"customer_id"', owner, text)
    return project.write("policies/orders.toml", text)


def test_certificates_have_an_issuer_of_their_own(project: Project) -> None:
    """Which signs no tokens, and may assert the roles that are given to names."""
    loaded = taking(with_tls(project)).append("gateway.toml", SECTION).load()
    issuer = loaded.settings.issuers["certificates"]

    assert loaded.settings.certificates == Certificates(
        "subject", {"CN=billing": frozenset({"support"})}, 7 * 86400.0
    )
    assert not issuer.signs
    assert issuer.max_lifetime == 7 * 86400.0
    assert issuer.roles.allow == {"support"}
    assert "certificate" in loaded.policy.routes[0].credentials


def test_without_the_section_no_certificate_is_a_credential(project: Project) -> None:
    """And no issuer has that name."""
    assert project.load().settings.certificates is None
    line = 'credentials = ["certificate"]\n'
    project.edit("policies/orders.toml", "[[route]]\n", "[[route]]\n" + line)
    assert "has no [certificates]" in project.report()
    project.edit("policies/orders.toml", line, "")
    project.edit("policies/orders.toml", 'issuers  = ["demo"]\n', TAKING)
    assert 'unknown issuer "certificates"' in project.report()


def test_somebody_has_to_see_to_what_they_show(project: Project) -> None:
    """Our own TLS, or a proxy that tells it; and roles are those of the policies."""
    project.append("gateway.toml", SECTION)
    taking(project)
    assert "no client is asked for a certificate" in project.report()
    with_tls(project)
    project.edit("gateway.toml", '["support"]', '["suport"]')
    report = project.report()
    assert 'no policy file has [roles."suport"]' in report
    assert 'did you mean "support"?' in report


def test_an_issuer_of_tokens_may_not_take_the_name(project: Project) -> None:
    """Whose is a revocation, or a subject?"""
    for name in ("issuer.demo", "issuer.demo.roles", "issuer.demo.scope"):
        new = name.replace("demo", "certificates")
        project.edit("gateway.toml", f"[{name}]", f"[{new}]")
    assert "this name is that of callers by certificate" in project.report()

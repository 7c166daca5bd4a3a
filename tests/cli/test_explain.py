"""gateway.cli.explain: the decision of the main path, in words."""

from __future__ import annotations

import re
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.tokens.api_key import key_of
from tests.sealed import SealedSite
from tests.site import AUDIENCE, ISSUER, Site
from tests.tokens import make

ORDERS = "/api/orders/customers/c-1/orders"


def explain(
    site: Site, *words: str, token: str | None = None
) -> tuple[int, dict[str, str], str]:
    call = ["explain", "-c", str(site.write()), *words]
    if token is not None:
        call.append("--token-stdin")
    outcome = CliRunner().invoke(main, call, input=token)
    lines = dict(line.split(None, 1) for line in outcome.output.splitlines() if line)
    return outcome.exit_code, lines, outcome.output


def test_a_permit_is_explained_step_by_step(tmp_path: Path) -> None:
    """Route with its place, what it requires, who calls, what is granted and sent."""
    site = Site(tmp_path)
    token = site.token("c-1")

    status, lines, output = explain(site, "GET", ORDERS, token=token + "\n")

    assert status == 0
    assert lines["route"].startswith("orders.list (")
    assert "orders.toml:" in lines["route"]
    assert "orders:read_any" in lines["rule"]
    assert lines["caller"] == "user c-1 of corp"
    assert lines["verdict"] == f"permitted: {ORDERS} is sent to orders"
    assert token not in output
    assert token.split(".")[2] not in output


@pytest.mark.parametrize(
    ("words", "subject", "status", "verdict"),
    [
        (("GET", ORDERS), None, 1, "401 credential.missing"),
        (("GET", ORDERS), "c-2", 1, "403 condition.failed:owner"),
        (("GET", "/api/nothing"), "c-1", 1, "404 route.unknown"),
        (("DELETE", ORDERS), "c-1", 1, "405 method.not_allowed"),
        (("GET", "/api/orders/../x"), "c-1", 1, "400 target.ambiguous:dot segment"),
        (("GET", "/api/orders/status"), None, 0, "permitted: /api/orders/status"),
        (("GET", "/api/orders/catalogue"), None, 0, "permitted: "),
    ],
)
def test_a_denial_is_explained_by_its_reason(
    tmp_path: Path,
    words: tuple[str, ...],
    subject: str | None,
    status: int,
    verdict: str,
) -> None:
    """The same word as in the log; the exit code says whether it would pass."""
    site = Site(tmp_path)
    token = site.token(subject) if subject else None

    found, lines, _ = explain(site, *words, token=token)

    assert (found, lines["verdict"][: len(verdict)]) == (status, verdict)


def test_an_outage_is_explained_as_one(tmp_path: Path) -> None:
    """With the store away there is no verdict about the caller."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")

    status, lines, _ = explain(site, "GET", ORDERS, token=site.token())

    assert status == 1
    assert lines["verdict"].startswith("503 outage: revocation store")
    assert lines["caller"] == "user c-1 of corp"
    assert lines["outage"] == "the store away: 503 after 1s"


def test_what_an_outage_would_mean_is_explained_before_there_is_one(
    tmp_path: Path,
) -> None:
    """Of the store; one that is in memory is never away."""
    away = Site(tmp_path, store="redis://127.0.0.1:9/0")

    status, lines, _ = explain(away, "GET", "/api/orders/status")
    assert status == 0
    assert lines["outage"] == "the store away: served: public"

    _, lines, _ = explain(Site(tmp_path), "GET", "/api/orders/status")
    assert "outage" not in lines


@pytest.mark.parametrize("path", ["/\udcff", "/a b", "/%zz", "//", "*"])
def test_any_path_has_an_explanation(tmp_path: Path, path: str) -> None:
    """Bytes that are no text come from a shell as well."""
    status, lines, _ = explain(Site(tmp_path), "GET", path)

    assert status == 1
    assert lines["verdict"].startswith("400 target.ambiguous")


def signed(site: Site, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a token of the site's issuer, with these *claims*."""
    now = int(time.time())
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "c-1", "client_id": "x"}
    times = {"iat": now - 600, "exp": now + 600}
    return make.token(site.key, {**said, **times, **claims}, header)


def test_a_token_is_explained_check_by_check(tmp_path: Path) -> None:
    """Without a request: what it is, that each check has passed, and what it grants."""
    site = Site(tmp_path)
    token = signed(site, roles=["customer"])

    status, lines, output = explain(site, token=token + "\n")

    assert status == 0
    assert lines["token"] == f'JWT: alg "ES256", typ "at+jwt", kid "{site.key.key_id}"'
    assert lines["says"].startswith(f'iss "{ISSUER}"; sub "c-1"; aud "{AUDIENCE}"')
    assert lines["says"].endswith("; issued 10 min ago; expires in 10 min")
    assert {lines[name] for name in CHECKS} == {"ok"}
    assert lines["caller"] == "user c-1 of corp"
    assert lines["grants"] == "orders:read orders:write"
    assert lines["verdict"].startswith("believed")
    for part in token.split("."):
        assert part not in output


CHECKS = (
    "form",
    "issuer",
    "type",
    "algorithm",
    "key",
    "signature",
    "claims",
    "time",
    "audience",
    "binding",
    "revoked",
)


FETCHED = "those of corp were fetched 0 s ago"


@pytest.mark.parametrize(
    ("header", "claims", "check", "why", "verdict"),
    [
        ({}, {"iss": "https://other"}, "issuer", "refused", "token.issuer"),
        ({"typ": "dpop+jwt"}, {}, "type", "refused: typ", "token.type:typ"),
        ({"alg": "RS256"}, {}, "algorithm", "refused", "token.algorithm"),
        ({"kid": "k-9"}, {}, "key", f"refused: no such key; {FETCHED}", "token.key"),
        ({}, {"sub": ""}, "claims", "refused: sub", "token.claim:sub"),
        ({}, {"exp": 2**40}, "claims", "refused: exp", "token.lifetime:exp"),
        (
            {},
            {"aud": "shop"},
            "audience",
            f'refused: it is for "shop", not for "{AUDIENCE}"',
            "token.audience",
        ),
        (
            {},
            {"cnf": {"x5t#S256": "A" * 43}},
            "binding",
            "refused: mtls",
            "binding.missing:mtls",
        ),
    ],
)
def test_the_check_that_refuses_a_token_is_the_last_one(
    tmp_path: Path,
    header: dict[str, Any],
    claims: dict[str, Any],
    check: str,
    why: str,
    verdict: str,
) -> None:
    """What comes before it has passed, what comes behind was not asked."""
    site = Site(tmp_path)
    status, lines, _ = explain(site, token=signed(site, header, **claims))

    at = CHECKS.index(check)
    assert status == 1
    assert {lines[name] for name in CHECKS[:at]} <= {"ok"}
    assert lines[check] == why
    assert {lines[name] for name in CHECKS[at + 1 :]} == {"not asked"}
    assert lines["verdict"] == f"401 {verdict}"


def test_how_late_a_token_is_is_said(tmp_path: Path) -> None:
    """And how much of that would have been forgiven; beside a request, too."""
    site, now = Site(tmp_path), int(time.time())
    token = signed(site, exp=now - 37)
    for words in ((), ("GET", ORDERS)):
        _, lines, _ = explain(site, *words, token=token)
        assert re.fullmatch(
            r"refused: expired (3[789]|4[0-9]) s ago, leeway 30 s", lines["time"]
        )
        assert lines["caller"] == "user c-1 of corp"

    _, lines, _ = explain(site, token=signed(site, nbf=now + 3600))
    assert lines["time"] == "refused: nbf is in 60 min"


@pytest.mark.parametrize(
    ("token", "form", "verdict"),
    [
        ("a.b.c", "JWT", "token.malformed:form"),
        ("a.b.c.d.e", "encrypted JWT", "credential.unrecognised"),
        ("secret-text", "opaque token", "credential.unrecognised"),
        ("two words", "opaque token", "credential.malformed:not a b64token"),
        ("", "opaque token", "credential.malformed:not a b64token"),
    ],
)
def test_what_is_no_token_is_explained(
    tmp_path: Path, token: str, form: str, verdict: str
) -> None:
    """By its form, and never said back."""
    status, lines, output = explain(Site(tmp_path), token=token)

    assert (status, lines["token"]) == (1, form)
    assert lines["form"].startswith("refused")
    assert lines["verdict"].endswith(verdict)
    assert not token or token not in output


@pytest.mark.parametrize("kind", ["fernet", "jwe", "nested"])
def test_a_sealed_token_is_explained(tmp_path: Path, kind: str) -> None:
    """By the checks that it meets; what is in it stays in it."""
    site = SealedSite(tmp_path)
    site.write()
    token: str = getattr(site, kind)()
    form = "Fernet token" if kind == "fernet" else "encrypted JWT"
    without = {"issuer"} if kind != "fernet" else {"issuer", "type", "algorithm", "key"}

    status, lines, output = explain(site, token=token)

    assert status == 0
    assert lines["token"].startswith(form)
    assert {name for name in CHECKS if name in lines} == {*CHECKS} - without
    assert {lines[name] for name in CHECKS if name in lines} == {"ok"}
    assert lines["caller"].startswith("user c-1 of ")
    assert token not in output

    touched = token[:-9] + ("A" if token[-9] != "A" else "B") + token[-8:]
    status, lines, _ = explain(site, token=touched)
    assert (status, lines["signature"]) == (1, "refused")
    assert lines["claims"] == "not asked"


def test_an_outage_is_no_verdict_about_a_token(tmp_path: Path) -> None:
    """The store can't say whether it was revoked."""
    site = Site(tmp_path, store="redis://127.0.0.1:9/0")

    status, lines, _ = explain(site, token=signed(site))

    assert status == 1
    assert lines["verdict"].startswith("503 outage: revocation store")


def test_something_has_to_be_explained() -> None:
    """A request, a token, or both."""
    for words in ([], ["GET"]):
        outcome = CliRunner().invoke(main, ["explain", *words])
        assert outcome.exit_code == 2
        assert "METHOD and PATH" in outcome.output


DECLARED = key_of("gw", "0123456789ab", bytes(32))
KEYS = f"""
[api_keys]
scope = "ignore"

[[api_key]]
id       = "nightly"
sha256   = "{sha256(DECLARED.encode()).hexdigest()}"
owner    = "billing"
networks = ["{{network}}"]
expires  = {{ends}}
"""


@pytest.mark.parametrize(
    ("token", "network", "check", "verdict"),
    [
        (DECLARED, "127.0.0.0/8", "", "believed: what it may do, its route decides"),
        (DECLARED, "192.0.2.0/24", "binding", "401 binding.wrong:ip"),
        (
            key_of("gw", "0123456789ab", b"1" * 32),
            "127.0.0.0/8",
            "key",
            "401 token.key",
        ),
        (f"gw_{'a' * 12}_{'b' * 49}", "::/0", "form", "401 token.malformed:checksum"),
    ],
)
def test_an_api_key_is_explained(
    tmp_path: Path, token: str, network: str, check: str, verdict: str
) -> None:
    """By the checks that it meets, and never said back."""
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
    site = Site(tmp_path, more=KEYS.format(network=network, ends=ends))

    _, lines, output = explain(site, token=token)

    assert lines["token"] == "API key"
    assert lines["verdict"] == verdict
    refused = [name for name, said in lines.items() if said.startswith("refused")]
    assert refused == ([check] if check else [])
    assert check or "billing of api_keys" in lines["caller"]
    assert token.split("_")[2] not in output

"""docs/issuers.md: each snippet lets in a token of the provider's own shape."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Engine
from gateway.config.load import load
from gateway.model import Denial, Permit
from tests.fakes import bearer, head_of
from tests.site import POLICY, Site
from tests.tokens import make

PAGE = Path(__file__).parent.parent.parent / "docs" / "issuers.md"
KEY = make.key("RS256")
NOW = int(time.time())
TIMES = {"iat": NOW, "exp": NOW + 3600}

# As the providers sign them, with nothing added for us.
AUTH0 = {
    "https://shop.example/roles": ["customer"],
    "iss": "https://shop.eu.auth0.com/",
    "sub": "auth0|65f2b7d0c1",
    "aud": ["https://api.shop.example", "https://shop.eu.auth0.com/userinfo"],
    "scope": "openid profile orders:read",
    "azp": "kX81Yc2wqM",
    **TIMES,
}
AUTH0_MACHINE = {
    "iss": "https://shop.eu.auth0.com/",
    "sub": "kX81Yc2wqM@clients",
    "aud": "https://api.shop.example",
    "scope": "orders:read",
    "gty": "client-credentials",
    "azp": "kX81Yc2wqM",
    **TIMES,
}
KEYCLOAK = {
    "jti": "onrtac:6a1d2e64-5b7c-4b1e-9d59-0d8f5a3c5b21",
    "iss": "https://login.shop.example/realms/main",
    "aud": ["orders-api", "account"],
    "sub": "f1b7c5de-7f1b-4bd0-8f6e-1f0f5d1c9a11",
    "typ": "Bearer",
    "azp": "shop-web",
    "sid": "0d0f8e4b-7f5c-4b8a-9d7c-2b1c1b6f3f10",
    "auth_time": NOW - 60,
    "acr": "1",
    "allowed-origins": ["https://shop.example"],
    "realm_access": {"roles": ["offline_access", "customer", "uma_authorization"]},
    "resource_access": {"account": {"roles": ["manage-account"]}},
    "scope": "openid email profile",
    "email_verified": True,
    "preferred_username": "alice",
    **TIMES,
}
ENTRA = {
    "aud": "0f6ed3a1-0000-4000-8000-6cc0a1c5b3d7",
    "iss": "https://login.microsoftonline.com/5d1c3f6e-0000-4000-8000-2b1de1a50aa1/v2.0",
    "nbf": NOW,
    "aio": "ATQAy/8TAAAA",
    "azp": "7e6b3d5a-0000-4000-8000-3c2f9d1e0b44",
    "azpacr": "0",
    "groups": ["9a4e7c52-0000-4000-8000-000000000001", "some-other-group"],
    "name": "Alice",
    "oid": "c3a1b2d4-0000-4000-8000-0a1b2c3d4e5f",
    "preferred_username": "alice@shop.example",
    "rh": "0.AAAA.",
    "scp": "access_as_user",
    "sub": "pairwise-4Zb1",
    "tid": "5d1c3f6e-0000-4000-8000-2b1de1a50aa1",
    "uti": "mZkXyVd8Tk2",
    "ver": "2.0",
    **TIMES,
}


def snippet(name: str) -> str:
    """Return the page's snippet for the issuer *name*."""
    blocks = re.findall(
        r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    (found,) = [block for block in blocks if f"[issuer.{name}]" in block]
    assert isinstance(found, str)
    return found


def engine(tmp_path: Path, name: str) -> Engine:
    """Return an engine on the page's snippet, with keys from a file."""
    site = Site(tmp_path, policy=POLICY)
    config = site.write()
    text = config.read_text(encoding="utf-8")
    start, end = text.index("[issuer.corp]"), text.index("[identity]")
    issuer, count = re.subn(r'"discover"', '"file:provider.json"', snippet(name))
    assert count == 1
    config.write_text(text[:start] + issuer + text[end:], encoding="utf-8")
    keys = json.dumps({"keys": [KEY.jwk]})
    (tmp_path / "provider.json").write_text(keys, encoding="utf-8")
    return Engine(load([config], env={}))


@pytest.mark.parametrize(
    ("name", "claims", "kind", "roles", "client", "names_itself"),
    [
        ("auth0", AUTH0, "user", {"customer"}, "kX81Yc2wqM", False),
        ("auth0", AUTH0_MACHINE, "service", set(), "kX81Yc2wqM", False),
        ("keycloak", KEYCLOAK, "user", {"customer"}, "shop-web", True),
        (
            "entra",
            ENTRA,
            "user",
            {"customer"},
            "7e6b3d5a-0000-4000-8000-3c2f9d1e0b44",
            True,
        ),
    ],
)
def test_a_snippet_lets_its_providers_token_in(
    tmp_path: Path,
    name: str,
    claims: dict[str, Any],
    kind: str,
    roles: set[str],
    client: str,
    names_itself: bool,
) -> None:
    """Roles, client and token id are found where this provider puts them."""
    token = make.token(KEY, claims, {"typ": "JWT"})
    head = head_of(b"/api/orders/files/a", bearer(token))

    outcome = engine(tmp_path, name).decider.decide_now(head, NOW + 1.0)

    assert isinstance(outcome, Permit), outcome
    principal = outcome.principal
    assert principal.kind == kind
    assert principal.subject == claims["sub"]
    assert principal.roles == roles
    assert principal.client_id == client
    if names_itself:
        assert principal.token_id == claims.get("uti", claims.get("jti"))
    else:
        assert principal.token_id.startswith("sha256:")


@pytest.mark.parametrize(
    ("name", "claims"), [("auth0", AUTH0), ("keycloak", KEYCLOAK), ("entra", ENTRA)]
)
def test_a_token_for_somebody_else_is_refused(
    tmp_path: Path, name: str, claims: dict[str, Any]
) -> None:
    """The same provider signs for others too: the audience keeps them apart."""
    token = make.token(KEY, {**claims, "aud": "other-api"}, {"typ": "JWT"})
    head = head_of(b"/api/orders/files/a", bearer(token))

    outcome = engine(tmp_path, name).decider.decide_now(head, NOW + 1.0)

    assert isinstance(outcome, Denial)
    assert str(outcome) == "token.audience"

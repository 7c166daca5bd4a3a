"""docs/issuers.md: each snippet lets in a token of the provider's own shape."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, patch

import pytest

from gateway.adapters.introspection import Bounds
from gateway.adapters.key_sources import Timing
from gateway.app import Engine
from gateway.config.load import load
from gateway.model import Denial, Permit
from gateway.tokens.introspection import MAX_ANSWER
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
# RFC 7662 section 2.2, as Ory Hydra answers.
HYDRA = {
    "active": True,
    "aud": ["https://api.shop.example"],
    "client_id": "shop-web",
    "ext": {},
    "iss": "https://login.shop.example/",
    "nbf": NOW,
    "scope": "offline orders:read",
    "sub": "alice",
    "token_type": "Bearer",
    "token_use": "access_token",
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
    keys = json.dumps({"keys": [KEY.jwk]})
    (tmp_path / "provider.json").write_text(keys, encoding="utf-8")
    issuer, count = re.subn(r'"discover"', '"file:provider.json"', snippet(name))
    assert count == 1
    return engine_on(tmp_path, issuer)


def engine_on(tmp_path: Path, issuer: str) -> Engine:
    """Return an engine whose only issuer stands in *issuer*."""
    config = Site(tmp_path, policy=POLICY).write()
    text = config.read_text(encoding="utf-8")
    start, end = text.index("[issuer.corp]"), text.index("[identity]")
    config.write_text(text[:start] + issuer + text[end:], encoding="utf-8")
    return Engine(load([config], env={"HYDRA_SECRET": "h" * 32}))


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


async def test_the_snippet_of_an_issuer_that_is_asked_lets_its_token_in(
    tmp_path: Path,
) -> None:
    """What is said of it counts as what a JWT says of itself."""
    house = engine_on(tmp_path, snippet("hydra"))
    head = head_of(b"/api/orders/files/a", bearer("ory_at_x"))
    with patch.object(house.introspection, "ask", AsyncMock(return_value=HYDRA)):
        outcome = await house.decide(head, NOW + 1.0)
    other = {**HYDRA, "aud": ["https://other.shop.example"]}
    head = head_of(b"/api/orders/files/a", bearer("ory_at_y"))
    with patch.object(house.introspection, "ask", AsyncMock(return_value=other)):
        refused = await house.decide(head, NOW + 1.0)
    await house.aclose()

    assert isinstance(outcome, Permit), outcome
    assert (outcome.principal.issuer, outcome.principal.subject) == ("hydra", "alice")
    assert isinstance(refused, Denial)
    assert str(refused) == "token.audience"


def test_the_page_names_the_bounds_of_asking() -> None:
    """As they are in force for each issuer and worker."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    bounds = Bounds()

    assert f"{bounds.at_once} questions at a time" in text
    assert f"{bounds.waiting} tokens are waited for" in text
    assert f"after {bounds.failures} failures to reach it" in text
    assert "half a second for a turn" in text
    assert "left alone for a second" in text
    assert (bounds.turn, bounds.rest) == (0.5, 1.0)
    assert f"larger than {MAX_ANSWER // 1024} KiB" in text


def test_the_page_names_the_times_of_a_key() -> None:
    """As they are in force; tests/adapters/test_jwks.py shows each of them."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    timing = Timing()

    assert "not before a minute and not after an hour, five minutes where" in text
    assert (timing.shortest, timing.longest, timing.unsaid) == (60, 3600, 300)
    assert f"at most every {timing.asked_again:g} seconds for each issuer" in text
    assert f"up to {timing.stale / 3600:g} hours" in text
    assert timing.first == 1  # "asked every second"


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

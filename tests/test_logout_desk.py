"""gateway.logout_desk: an issuer logs out, through a whole gateway."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.model import Unavailable
from gateway.serving import Gateway
from gateway.tokens.logout import EVENT
from tests.backends import echoing, running
from tests.site import CONFIG, ISSUER, Site, url
from tests.tokens import make

PATH = "/auth/backchannel-logout"
ME = "/api/orders/me"


class LogoutSite(Site):
    """A site whose issuer sends logout tokens."""

    takes_them = True

    def write(self) -> Path:
        path = super().write()
        if self.takes_them:
            more = 'backchannel_logout = true\nlogout_audience = ["app"]'
            old = "[issuer.corp.roles]"
            path.write_text(path.read_text().replace(old, f"{more}\n{old}"))
        return path

    def logout(self, key: make.Key | None = None, **claims: Any) -> dict[str, str]:
        """Return the form with a logout token of just now."""
        said = {
            "iss": ISSUER,
            "aud": "app",
            "iat": time.time(),
            "exp": int(time.time()) + 120,
            "jti": "l-1",
            "sid": "s-1",
            "events": {EVENT: {}},
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        token = make.token(key or self.key, said, {"typ": "logout+jwt"})
        return {"logout_token": token}


class Run:
    """A running gateway and somebody to ask."""

    def __init__(
        self, site: LogoutSite, gateway: Gateway, client: httpx2.AsyncClient
    ) -> None:
        self.site = site
        self.gateway = gateway
        self.client = client

    async def get(self, bearer: dict[str, str]) -> int:
        return (await self.client.get(ME, headers=bearer)).status_code

    async def log_out(self, **claims: Any) -> httpx2.Response:
        return await self.client.post(PATH, data=self.site.logout(**claims))


@asynccontextmanager
async def run(directory: Path, site: LogoutSite | None = None) -> AsyncIterator[Run]:
    async with running(echoing) as backend:
        site = site or LogoutSite(directory)
        site.upstream = f"http://127.0.0.1:{backend.port}"
        async with (
            site.running() as gateway,
            httpx2.AsyncClient(base_url=url(gateway), trust_env=False) as client,
        ):
            yield Run(site, gateway, client)


async def test_a_session_that_its_issuer_has_ended_is_revoked(tmp_path: Path) -> None:
    """With the answer, and no other session of the same subject."""
    async with run(tmp_path) as it:
        mine, other = it.site.bearer(sid="s-1"), it.site.bearer(sid="s-2")
        assert await it.get(mine) == 200

        answer = await it.log_out(sub="c-1")

        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
        assert await it.get(mine) == 401
        assert await it.get(other) == 200


async def test_without_a_session_all_of_the_subject_ends_and_a_new_login_does_not(
    tmp_path: Path,
) -> None:
    """By what was issued until then: its own `iat`, not the time at which it came."""
    async with run(tmp_path) as it:
        now = time.time()
        # As if it had run for a while: of what was issued before, nobody can tell
        # whether it was used.
        vars(it.gateway.engine.stores.replays)["_since"] = 0
        assert await it.get(it.site.bearer(sid="s-1")) == 200

        answer = await it.log_out(sid=None, sub="c-1", iat=now - 60)

        assert answer.status_code == 200
        assert await it.get(it.site.bearer(iat=int(now) - 60)) == 401
        # A leeway is added, for clocks that differ.
        assert await it.get(it.site.bearer(iat=int(now) - 31)) == 401
        assert await it.get(it.site.bearer(iat=int(now) - 25)) == 200
        assert await it.get(it.site.bearer("c-2")) == 200


async def test_one_that_comes_again_is_refused(tmp_path: Path) -> None:
    """And one whose clock is ahead is not from the future."""
    async with run(tmp_path) as it:
        form = it.site.logout(iat=time.time() + 20, sid=None, sub="c-1")
        first = await it.client.post(PATH, data=form)
        again = await it.client.post(PATH, data=form)

        assert (first.status_code, again.status_code) == (200, 400)
        assert again.json() == {"error": "invalid_request"}


@pytest.mark.parametrize(
    "claims",
    [
        {"key": make.key("ES256", "mallory")},
        {"aud": "https://api.test.example"},
        {"events": None},
        {"sid": "s" * 300},
        {"more": "m" * 8_000},
    ],
)
async def test_what_is_not_believed_ends_nothing(
    tmp_path: Path, claims: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why; the answer does not."""
    async with run(tmp_path) as it:
        bearer = it.site.bearer(sid="s-1")

        answer = await it.log_out(**claims)

        assert answer.status_code == 400
        assert answer.json() == {"error": "invalid_request"}
        assert await it.get(bearer) == 200
    assert "a logout token was refused: " in caplog.text


@pytest.mark.parametrize(("away", "status"), [("revocations", 503), ("replays", 200)])
async def test_an_outage_is_503_and_it_can_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str, status: int
) -> None:
    """The same token is good when the store is back (R62).

    Where only the list of used ones is away it has been carried out.
    """
    async with run(tmp_path) as it:

        async def fail(*_: object) -> None:
            raise Unavailable("store")

        store = getattr(it.gateway.engine.stores, away)
        method = "revoke" if away == "revocations" else "use"
        form, bearer = it.site.logout(), it.site.bearer(sid="s-1")
        with monkeypatch.context() as patch:
            patch.setattr(store, method, fail)
            failed = await it.client.post(PATH, data=form)
        back = await it.client.post(PATH, data=form)

        assert (failed.status_code, back.status_code) == (status, 200)
        assert ("retry-after" in failed.headers) is (status == 503)
        assert await it.get(bearer) == 401


async def test_where_no_issuer_sends_any_there_is_no_such_endpoint(
    tmp_path: Path,
) -> None:
    """It is opt-in: 404."""
    site = LogoutSite(tmp_path)
    site.takes_them = False
    async with run(tmp_path, site) as it:
        assert (await it.log_out()).status_code == 404
    assert "backchannel" not in CONFIG


async def test_where_it_cannot_be_told_whether_one_was_used_it_counts(
    tmp_path: Path,
) -> None:
    """The list of used ones began later; to log out once more changes nothing."""
    async with run(tmp_path) as it:
        issued_at = time.time() - 5
        assert (await it.log_out(iat=issued_at)).status_code == 200

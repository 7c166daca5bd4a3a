"""Sealed tokens through the running gateway, from client to backend (S1-S3, S10).

What a backend receives of each kind; that a token that was revoked stays so, however it
is written (R50); that a key which is gone opens nothing (R51); that whatever is wrong
gets the same answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import jwt
import pytest
from cryptography.fernet import Fernet, MultiFernet

from gateway.asgi.revocations import RevocationOrder
from gateway.config.sealed import jwe_keys
from gateway.serving import Gateway
from tests.backends import echoing, running
from tests.sealed import SealedSite, bearer, wrapped
from tests.site import raw, url
from tests.tokens.test_fernet import other_bits, padded

FILE = "/api/orders/files/a"
KINDS: dict[str, Callable[[SealedSite], str]] = {
    "fernet": lambda site: site.fernet("c-1", sid="s-1"),
    "jwe": lambda site: site.jwe("c-1", sid="s-1"),
    "nested": lambda site: site.nested("c-1", sid="s-1"),
}
ISSUER = {"fernet": "fernet", "jwe": "jwe", "nested": "corp"}


async def status(gateway: Gateway, token: str) -> int:
    async with httpx2.AsyncClient() as http:
        answer = await http.get(url(gateway) + FILE, headers=bearer(token))
    return answer.status_code


async def reloaded(gateway: Gateway) -> None:
    """Put the configuration as it is now in force, and wait for the old one's end."""
    await gateway.reload()
    await asyncio.gather(*gateway._retiring.values())


async def revoked(gateway: Gateway, issuer: str, kind: str, value: str) -> None:
    order = RevocationOrder(issuer, kind, value)  # type: ignore[arg-type]
    await gateway.engine.revoke(order)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_backend_is_told_who_calls(tmp_path: Path, kind: str) -> None:
    """By the same assertion as for a JWT, and without the token (S1, S10)."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        async with site.running() as gateway:
            token = KINDS[kind](site)
            assert await status(gateway, token) == 200
            assert await status(gateway, token) == 200  # it is known now

    for request in backend.requests:
        assertion = request.value(b"x-gateway-assertion").decode()
        claims = jwt.decode(assertion, options={"verify_signature": False})
        assert claims["sub"] == "c-1"
        assert claims["roles"] == ["customer"]
        assert request.value(b"x-auth-request-user") == b"c-1"
        assert request.values(b"authorization") == []
    assert token not in repr(backend.raw)
    principal = site.log[0].principal
    assert principal is not None
    assert principal.issuer == ISSUER[kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_a_session_ends_its_tokens(tmp_path: Path, kind: str) -> None:
    """S2: `gateway revoke --issuer fernet --sid s-1`; another session goes on."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        async with site.running() as gateway:
            token, other = KINDS[kind](site), site.fernet("c-1", sid="s-2")
            assert await status(gateway, token) == 200
            await revoked(gateway, ISSUER[kind], "session", "s-1")
            assert await status(gateway, token) == 401
            assert await status(gateway, other) == 200


async def test_a_session_may_be_asked_of_every_token(tmp_path: Path) -> None:
    """S2: sid = "required": what is tied to no session is refused."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.more = site.more.replace(
            'ttl      = "15m"', 'ttl = "15m"\nsid = "required"'
        )
        async with site.running() as gateway:
            assert await status(gateway, site.fernet()) == 401
            assert await status(gateway, site.fernet(sid="s-1")) == 200


async def test_a_fernet_token_that_is_revoked_stays_so(tmp_path: Path) -> None:
    """R50: sealed anew with another key, and in every spelling."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        async with site.running() as gateway:
            token = padded(lambda n: site.fernet("c-1", by="old.key", n=n))
            keys = [Fernet(site.fernet_key(name)) for name in ("new.key", "old.key")]
            rotated = MultiFernet(keys).rotate(token).decode()
            assert await status(gateway, token) == await status(gateway, rotated) == 200
            assert site.log[0].principal is not None
            await revoked(gateway, "fernet", "token", site.log[0].principal.token_id)
            again = MultiFernet(keys).rotate(rotated).decode()
            for each in (token, rotated, again):
                assert await status(gateway, each) == 401
            for spelt in (
                token[:9] + "!" + token[9:],
                token[:9] + " " + token[9:],
                token[:9] + "\t" + token[9:],
                token.rstrip("="),
                token + "=",
                token.replace("-", "+").replace("_", "/") + "=",
                other_bits(token),
            ):
                request = f"GET {FILE} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
                field = f"authorization: BEARER {spelt}\r\n\r\n"
                said = await raw(gateway, (request + field).encode())
                assert said[9:12] in {b"400", b"401"}, spelt


@pytest.mark.parametrize("kind", ["jwe", "nested"])
async def test_an_encrypted_token_that_is_revoked_stays_so(
    tmp_path: Path, kind: str
) -> None:
    """R50: encrypted anew, with another key, and nested the inner one as it stands."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        async with site.running() as gateway:
            inner = site.token("c-1", jti=None)
            if kind == "nested":
                forms = [
                    inner,
                    wrapped(inner, "ec", cty="JWT"),
                    wrapped(inner, "ec", cty="JWT"),
                    wrapped(inner, "dir", cty="JWT"),
                ]
            else:
                said = json.dumps(
                    {
                        "iss": "https://api.test.example/sealed",
                        "aud": "https://api.test.example",
                        "sub": "c-1",
                        "exp": int(time.time()) + 600,
                        "roles": ["customer"],
                    }
                )
                forms = [wrapped(said, "dir") for _ in range(3)]
            assert len(set(forms)) == len(forms)
            assert {await status(gateway, each) for each in forms} == {200}
            principal = site.log[0].principal
            assert principal is not None
            await revoked(gateway, ISSUER[kind], "token", principal.token_id)
            assert {await status(gateway, each) for each in forms} == {401}


async def test_a_key_that_is_gone_opens_nothing(tmp_path: Path) -> None:
    """R51: tokens that were known die with the reload that takes the key out."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        loaded = site.load()
        gateway = Gateway(loaded, site.log.append, reread=site.load)
        await gateway.start()
        try:
            old, new = site.fernet(by="old.key"), site.fernet(by="new.key")
            sealed = site.jwe()
            for token in (old, new, sealed):
                assert await status(gateway, token) == 200
            site.more = site.more.replace(', "file:old.key"', "").replace(
                'key = "file:dir.key"', 'key = "ephemeral"'
            )
            await reloaded(gateway)
            assert await status(gateway, old) == 401
            assert await status(gateway, sealed) == 401
            assert await status(gateway, new) == 200
        finally:
            await gateway.aclose()


async def test_a_key_of_the_process_lasts_as_long_as_it(tmp_path: Path) -> None:
    """S10: over a reload, and not over a restart."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.more = site.more.replace('key = "file:dir.key"', 'key = "ephemeral"')
        tokens = []
        for _ in range(2):
            gateway = Gateway(site.load(), site.log.append, reread=site.load)
            await gateway.start()
            try:
                jwe = gateway.engine.settings.jwe
                assert jwe is not None
                key = jwe_keys(jwe, gateway._token_key).keys[0]
                tokens.append(site.jwe(by=key))
                assert await status(gateway, tokens[-1]) == 200
                await reloaded(gateway)
                assert await status(gateway, tokens[-1]) == 200
                assert len(tokens) < 2 or await status(gateway, tokens[0]) == 401
            finally:
                await gateway.aclose()


async def test_whatever_is_wrong_gets_the_same_answer(tmp_path: Path) -> None:
    """I5, R99: 401, one body, whether the form, the key, the seal or a claim is off."""
    async with running(echoing) as backend:
        site = SealedSite(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        bodies = set()
        async with site.running() as gateway, httpx2.AsyncClient() as http:
            fernet, jwe, nested = (make(site) for make in KINDS.values())
            for token in (
                *(each[:-9] + "AAAAAAAAA" for each in (fernet, jwe, nested)),
                *(each[:-4] for each in (fernet, jwe, nested)),
                site.fernet(exp=1),
                site.fernet(sub=1),
                site.fernet(iss="https://x"),
                site.fernet(aud="x"),
                site.jwe(exp=1),
                site.jwe(iss="https://x"),
                site.jwe(aud="x"),
                site.nested(exp=1, iat=0),
                wrapped(site.token(), "ec"),
                wrapped(json.dumps({"sub": "c-1"}), "ec"),
                Fernet(Fernet.generate_key()).encrypt(b"{}").decode(),
                "gAAAA",
                "a.b.c.d.e",
                "....",
            ):
                answer = await http.get(url(gateway) + FILE, headers=bearer(token))
                assert answer.status_code == 401, token
                assert "invalid_token" in answer.headers["www-authenticate"]
                body = answer.json()
                body.pop("request_id", None)
                body.pop("instance", None)
                bodies.add(json.dumps(body))
            assert (await status(gateway, fernet), len(backend.requests)) == (200, 1)
        assert len(bodies) == 1, bodies

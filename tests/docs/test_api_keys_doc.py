"""docs/api-keys.md: what it shows is done as it stands."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from hashlib import sha256
from pathlib import Path

import httpx2
from click.testing import CliRunner

from gateway.adapters import api_keys as store
from gateway.adapters import redis_queue
from gateway.adapters.api_keys import RedisApiKeys
from gateway.cli import main
from gateway.config.load import load
from gateway.key_desk import KEPT
from gateway.tokens import api_key
from gateway.tokens.api_key import FORM, ApiKey, Secret, has_checksum
from tests.adapters.principals import CLOCK
from tests.backends import echoing, running
from tests.docs.acl import let_in
from tests.redis_server import start_redis
from tests.site import POLICY, Site, url

TEXT = Path(__file__).parents[2].joinpath("docs/api-keys.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SECTION, KINDS, DECLARED, PEPPER = [text for kind, text in BLOCKS if kind == "toml"]
PLAIN = [text for kind, text in BLOCKS if not kind]
(HTTP,) = [text for kind, text in BLOCKS if kind == "http"]
(CREATE,) = [each for each in PLAIN if each.startswith("gateway apikey create --owner")]
(LATER,) = [each for each in PLAIN if each.startswith("gateway apikey list")]
ID = "0kC2lMt0Kc8Q"


def taking(policy: str) -> str:
    """Return *policy* whose service takes keys as the page shows."""
    (kinds,) = [line for line in KINDS.splitlines() if not line.startswith("#")]
    (owner,) = re.findall(r"`(owner = \{.*?\})`", TEXT, re.DOTALL)
    policy = policy.replace("[permissions]", f"{kinds}\n\n[permissions]", 1)
    return re.sub(r"owner +=.*", owner, policy)


def test_the_example_is_a_key_and_scanners_find_it() -> None:
    """By the expression of the page, which is that of the code."""
    (shown,) = [each.strip() for each in PLAIN if each.startswith("shop_")]
    (scanned,) = [each.strip() for each in PLAIN if each.startswith("[a-z]")]
    assert scanned == FORM
    assert re.fullmatch(scanned, shown)
    assert has_checksum(shown)
    assert shown.split("_")[1] == ID


async def test_a_key_is_made_and_used_as_shown(tmp_path: Path) -> None:
    """The section, the policy, the command, the request, and what comes later."""
    with start_redis() as server:
        async with running(echoing) as backend:
            site = Site(
                tmp_path,
                upstream=f"http://127.0.0.1:{backend.port}",
                store=server.url,
                policy=taking(POLICY),
                more=SECTION,
            )
            config = ["-c", str(site.write())]

            def run(line: str) -> str:
                words = shlex.split(line.replace(ID, key_id), comments=True)[1:]
                outcome = CliRunner().invoke(main, [*words[:2], *config, *words[2:]])
                assert outcome.exit_code == 0, outcome.output
                return outcome.stdout

            key_id = ""
            key = (await asyncio.to_thread(run, CREATE)).strip()
            key_id = key.split("_")[1]
            first, *fields = HTTP.strip().split("\n")
            method, path, _ = first.split(" ")
            headers = dict(field.split(": ", 1) for field in fields)
            headers["X-API-Key"] = headers["X-API-Key"].replace("<key>", key)
            async with (
                site.running() as gateway,
                httpx2.AsyncClient(base_url=url(gateway), trust_env=False) as http,
            ):
                used = await http.request(method, path, headers=headers)
                for line in LATER.splitlines():
                    await asyncio.to_thread(run, line)
                ended = await http.request(method, path, headers=headers)
    assert (used.status_code, ended.status_code) == (200, 401)
    (request,) = backend.requests
    assert request.value(b"x-auth-request-user") == b"billing"


def test_the_declared_key_loads(tmp_path: Path) -> None:
    """And says who it is."""
    pepper = tmp_path / "pepper"
    pepper.write_text(sha256(b"a pepper").hexdigest())
    pepper.chmod(0o600)
    said = PEPPER.splitlines()[1].replace("/run/secrets/gateway/pepper", str(pepper))
    site = Site(tmp_path, policy=taking(POLICY), more=f"{SECTION}{said}\n{DECLARED}")
    keys = load([site.write()], env={}).settings.api_keys
    assert keys is not None
    assert [each.id for each in keys.declared] == ["billing-nightly"]
    assert keys.pepper


async def test_an_order_by_hand_is_carried_out(tmp_path: Path) -> None:
    """The line for curl, but for curl."""
    (curl,) = [each for each in PLAIN if each.startswith("curl")]
    words = shlex.split(curl)
    site = Site(tmp_path, more=SECTION)
    async with site.running():
        transport = httpx2.AsyncHTTPTransport(uds=str(tmp_path / "admin.sock"))
        async with httpx2.AsyncClient(transport=transport) as http:
            made = await http.post(words[3], content=words[5])
    assert made.status_code == 201
    assert re.fullmatch(FORM, made.json()["key"])
    assert made.json()["owner"] == json.loads(words[5])["owner"]


async def test_the_user_of_the_page_may_do_what_is_needed() -> None:
    """Its ACL line is enough, besides what revocations take."""
    key = ApiKey("k", "o", (Secret(sha256(b"k").digest(), 0.0),), 0.0, 1e12)
    with start_redis() as server:
        there = let_in(server, "api-keys.md")
        keys = RedisApiKeys(there, CLOCK, None, deadline=5.0)
        await keys.put(key, None)
        assert await keys.fetch(key.secrets[0].digest) == key
        assert await keys.all() == [key]
        keys.mark("k")
        await keys.flush()
        assert (await keys.used()).keys() == {"k"}
        await keys.drop(key)
        assert await keys.get("k") is None
        names = {b"{gw:api_keys}:" + name for name in (b"records", b"ids", b"used")}
        await keys.put(key, None)
        keys.mark("k")
        await keys.flush()
        assert set(server.command("KEYS", "*")) == names
        assert all(f"`{name.decode()}`" in TEXT for name in names)
        await keys.aclose()


def test_the_page_says_how_many_and_how_long() -> None:
    """In the numbers of the code."""
    assert f"{store.MAX_KEYS:,} keys at most" in TEXT
    assert f"{redis_queue.MAX_CALLS} go out together" in TEXT
    assert f"{redis_queue.MAX_WAITING:,} wait at most" in TEXT
    assert f"ended {KEPT / 86_400:.0f} days ago" in TEXT
    assert f"from {api_key.LEAST_IMPORTED} characters on" in TEXT
    assert (store.FRESH, store.FLUSH_EVERY, api_key.MAX_SECRETS) == (1.0, 60.0, 4)

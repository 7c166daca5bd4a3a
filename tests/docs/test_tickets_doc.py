"""docs/tickets.md: what it shows is done as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2

from gateway.adapters import tickets as adapter
from gateway.adapters.replays import RedisReplays
from gateway.adapters.tickets import RedisTickets
from gateway.tokens.dpop import AHEAD
from gateway.tokens.tickets import LIFE
from tests.adapters.principals import CLOCK
from tests.backends import echoing, running
from tests.docs.acl import let_in
from tests.redis_server import start_redis
from tests.site import POLICY, Site, url

TEXT = Path(__file__).parents[2].joinpath("docs/tickets.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    """Return the page's one block of this kind."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    text: str = found
    return text


async def test_the_route_gives_and_takes_tickets_as_shown(tmp_path: Path) -> None:
    """The route, the request and the answer of the page, in a gateway."""
    shown = re.sub(
        r'\[\[route\]\]\nid      = "orders.file".*?\n\n', "", POLICY, flags=re.DOTALL
    )
    lines, _, body = block("http").rstrip().partition("\n\n")
    first, *fields = lines.split("\n")
    method, path, _ = first.split(" ")
    asked = dict(field.split(": ", 1) for field in fields)
    order = json.loads(body)
    async with running(echoing) as backend:
        site = Site(tmp_path, upstream=f"http://127.0.0.1:{backend.port}")
        site.policy = shown + "\n" + block("toml")
        async with (
            site.running() as gateway,
            httpx2.AsyncClient(base_url=url(gateway), trust_env=False) as http,
        ):
            answer = await http.request(
                method,
                path,
                content=body,
                headers={**asked, "Authorization": f"Bearer {site.token('c-1')}"},
            )
            given = answer.json()
            used = await http.request(
                order["method"],
                f"{order['path']}&ticket={given['ticket']}",
                headers={"host": asked["Host"]},
            )

    example = json.loads(block("json"))
    assert answer.status_code == 200
    assert given.keys() == example.keys()
    assert given["expires_in"] == example["expires_in"] == LIFE
    assert len(given["ticket"]) == len(example["ticket"])
    assert used.status_code == 200
    assert backend.requests[0].target == order["path"].encode()


async def test_the_user_of_the_page_may_do_what_is_needed() -> None:
    """Besides what revocations take, its ACL line is enough, for proofs as well."""
    with start_redis() as server:
        there = let_in(server, "tickets.md")
        tickets = RedisTickets(there, deadline=5.0)
        replays = RedisReplays(there, CLOCK, deadline=5.0)
        await tickets.keep(b"a", b"value", 30.0)
        assert await tickets.take(b"a") == b"value"
        await replays.begin()
        assert await replays.use(b"a", CLOCK.wall() + AHEAD + 1)
        await replays.aclose()
        await tickets.aclose()


def test_the_page_says_how_many_there_may_be() -> None:
    """In memory."""
    assert f"keeps {adapter.MAX_TICKETS:,} at once" in TEXT

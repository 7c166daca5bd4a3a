"""docs/middleware.md: the longer example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.backend import identity
from tests.site import Site

PAGE = Path(__file__).parent.parent.parent / "docs" / "middleware.md"


async def show(request: Request) -> Response:
    who = identity(request)
    return PlainTextResponse(who.subject if who else "nobody")


async def test_the_example_lets_the_application_know_who_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines around an application, on a gateway.toml beside it."""
    site = Site(tmp_path)
    site.write()
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {
        "app": Starlette(routes=[Route("/api/orders/me", show)]),
    }
    exec(blocks[1], names)  # noqa: S102  (our own page)
    guarded = names["guarded"]

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(guarded), base_url="http://api.example"
    ) as client:
        known = await client.get("/api/orders/me", headers=site.bearer("c-1"))
        unknown = await client.get("/api/orders/me")
    await guarded.engine.aclose()

    assert (known.status_code, known.text) == (200, "c-1")
    assert unknown.status_code == 401

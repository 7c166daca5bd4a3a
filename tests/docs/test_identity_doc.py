"""docs/identity.md: what it shows is run, against a gateway's own signer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient

from tests.backend.assertions import KEYS, fields

TEXT = (
    Path(__file__).parents[2].joinpath("docs/identity.md").read_text(encoding="utf-8")
)
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
URL = "https://api.shop.example/.well-known/gateway-identity/jwks.json"
ISSUER = "https://api.shop.example/identity"


@pytest.fixture(scope="module")
def keys_at() -> Iterator[str]:
    """A gateway's key set, at a URL that answers here."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(KEYS)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        server.shutdown()
        thread.join()


def run(needle: str, keys_at: str) -> dict[str, Any]:
    """Run the one block that holds *needle*; return the names it defines."""
    (block,) = (block for block in BLOCKS if needle in block)
    assert URL in block
    assert ISSUER in block
    names: dict[str, Any] = {}
    exec(block.replace(URL, keys_at), names)  # noqa: S102  (our own document)
    return names


def sent(**settings: Any) -> list[tuple[str, str]]:
    """Return what the gateway sends now."""
    found = fields(now=time.time(), issuer=ISSUER, **settings)
    return [(name.decode(), value.decode()) for name, value in found]


def test_every_block_is_run_here() -> None:
    """A new block needs a test of its own."""
    assert len(BLOCKS) == 4


async def test_the_asgi_app_serves_whom_the_gateway_signed(keys_at: str) -> None:
    """200 with the permission, 403 without, 401 for anybody else."""
    app = run("import IdentityMiddleware", keys_at)["app"]
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://orders") as client:
        good = await client.get("/orders", headers=sent())
        weak = await client.get("/orders", headers=sent(scope=()))
        none = await client.get("/orders")
        exempt = await client.get("/healthz")

    assert good.json() == {"issuer": "https://login.example", "subject": "alice"}
    assert (weak.status_code, none.status_code) == (403, 401)
    assert exempt.status_code == 404  # let pass; the example has no such route


def test_the_wsgi_app_compares_the_copies(keys_at: str) -> None:
    """The assertion's subject, or 401 where the copy says something else."""
    app = run("import Verifier, WsgiIdentityMiddleware", keys_at)["app"]
    environ = {
        "HTTP_" + name.upper().replace("-", "_"): value
        for name, value in sent(headers={"X-Auth-Request-User": "sub"})
    }
    statuses: list[str] = []

    def call(**changes: str) -> bytes:
        given = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **environ, **changes}
        return b"".join(app(given, lambda status, _fields: statuses.append(status)))

    assert call() == b"alice"
    assert b"alice" not in call(HTTP_X_AUTH_REQUEST_USER="bob")
    assert statuses == ["200 OK", "401 Unauthorized"]


def test_the_function_says_who_may_read(keys_at: str) -> None:
    """From the header fields alone."""
    may_read = run("def may_read", keys_at)["may_read"]

    assert may_read(sent())
    assert not may_read(sent(scope=()))
    assert not may_read([])
    assert not may_read([*sent(), *sent()])


def test_a_stock_library_reads_the_claims_that_are_documented(keys_at: str) -> None:
    """PyJWT with its own key client; every claim has its row in the tables."""
    claims_of = run("def claims_of", keys_at)["claims_of"]

    claims = claims_of(sent()[0][1])

    assert claims["src"] == {"iss": "https://login.example", "jti": "t-1"}
    for name in claims:
        assert f"`{name}`" in TEXT, name

"""A whole configuration in a directory, an issuer to sign for it, and its gateway.

site = Site(tmp_path, upstream=backend.url)
async with site.running() as gateway:
    ...  # ask gateway.bound[0] with site.bearer("alice")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config.load import Loaded, load
from gateway.identity.keys import new_key_pem
from gateway.observe.access import Entry
from gateway.serving import Gateway
from tests.tokens import make

ISSUER = "https://login.test.example"
AUDIENCE = "https://api.test.example"
IDENTITY = "https://gateway.test.example/identity"

CONFIG = """\
version  = 1
policies = ["policies/*.toml"]

[server]
listen = ["{listen}"]
{drain}
{server}

[admin]
listen = "unix:admin.sock"

[store]
url = "{store}"

[issuer.corp]
issuer      = "{issuer}"
jwks        = "file:jwks.json"
audience    = ["{audience}"]
algorithms  = ["ES256"]
token_types = ["at+jwt"]
[issuer.corp.roles]
claim = "roles"
allow = ["customer", "support"]
[issuer.corp.scope]
user    = "ignore"
service = "grant"

[identity]
issuer  = "{identity}"
keys    = "dir:identity"
headers = {{ "X-Auth-Request-User" = "sub" }}

[upstream.orders]
urls = ["{upstream}"]

{more}
"""

POLICY = """\
version = 1

[service]
name     = "orders"
prefix   = "/api/orders"
upstream = "orders"

[permissions]
"orders:read"     = "See your own orders"
"orders:write"    = "Place your own orders"
"orders:read_any" = "See every customer's orders"

[roles.customer]
permissions = ["orders:read", "orders:write"]
[roles.support]
permissions = ["orders:read", "orders:read_any"]

[[route]]
id      = "orders.list"
methods = ["GET"]
path    = "/customers/{customer_id}/orders"
owner   = "customer_id"
require = { any = ["orders:read_any", { all = ["orders:read", "@owner"] }] }

[[route]]
id       = "orders.place"
methods  = ["POST"]
path     = "/customers/{customer_id}/orders"
owner    = "customer_id"
require  = ["orders:write"]
max_body = "1 KiB"

[[route]]
id      = "orders.file"
methods = ["GET", "PUT"]
path    = "/files/{rest...}"
require = "orders:read"

[[route]]
id      = "orders.catalogue"
methods = ["GET"]
path    = "/catalogue"
access  = "optional"

[[route]]
id      = "orders.me"
methods = ["GET"]
path    = "/me"
access  = "authenticated"

[[route]]
id      = "orders.status"
methods = ["GET"]
path    = "/status"
access  = { public = "load balancers ask" }
"""


@dataclass
class Site:
    """Files in *directory*; change `policy`, `server` or `more` before `load`."""

    directory: Path
    upstream: str = "http://127.0.0.1:9"
    store: str = "memory"
    listen: str = "127.0.0.1:0"
    server: str = ""
    drain: str = 'drain_delay = "0s"'  # no test waits for load balancers
    more: str = ""
    policy: str = POLICY
    key: make.Key = field(default_factory=lambda: make.key("ES256"))
    log: list[Entry] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.directory / "gateway.toml"

    def write(self) -> Path:
        """Write every file; return the path of gateway.toml."""
        (self.directory / "policies").mkdir(exist_ok=True)
        (self.directory / "identity").mkdir(exist_ok=True)
        text = CONFIG.format(
            listen=self.listen,
            server=self.server,
            drain=self.drain,
            store=self.store,
            issuer=ISSUER,
            audience=AUDIENCE,
            identity=IDENTITY,
            upstream=self.upstream,
            more=self.more,
        )
        self.config.write_text(text, encoding="utf-8")
        policy = self.directory / "policies" / "orders.toml"
        policy.write_text(self.policy, encoding="utf-8")
        keys = json.dumps({"keys": [self.key.jwk]})
        (self.directory / "jwks.json").write_text(keys, encoding="utf-8")
        signing = self.directory / "identity" / "1.pem"
        if not signing.exists():
            signing.write_bytes(new_key_pem("ES256"))
            signing.chmod(0o600)
        return self.config

    def load(self) -> Loaded:
        """Write the files and load them."""
        return load([self.write()], env={})

    def token(self, subject: str = "c-1", *roles: str, **claims: Any) -> str:
        """Return a token that the site's issuer signed just now."""
        now = int(time.time())
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "client_id": "app",
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + 600,
            "roles": list(roles or ("customer",)),
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        return make.token(self.key, said, {"typ": "at+jwt"})

    def bearer(
        self, subject: str = "c-1", *roles: str, **claims: Any
    ) -> dict[str, str]:
        """Return the header field that presents such a token."""
        return {"authorization": f"Bearer {self.token(subject, *roles, **claims)}"}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """Run the gateway in this process; its entries are in `log`."""
        gateway = Gateway(self.load(), self.log.append)
        await gateway.start()
        try:
            yield gateway
        finally:
            await gateway.aclose(grace=0.5)


def url(gateway: Gateway) -> str:
    """Return where the data port of *gateway* listens."""
    bound = gateway.bound[0]
    return f"http://{bound.host}:{bound.port}"


async def raw(gateway: Gateway, sent: bytes, *, wait: float = 5.0) -> bytes:
    """Send *sent* as it stands; return all that comes until the connection ends."""
    bound = gateway.bound[0]
    reader, writer = await asyncio.open_connection(bound.host, bound.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(wait):
            await writer.drain()
            return await reader.read(-1)
    finally:
        writer.close()

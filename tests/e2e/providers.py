"""Token issuers that a gateway can be put behind: one of our own, and a certified one.

Both issue tokens to clients alone, publish and sign with what they are told, can be
away, and know their opaque tokens for as long as they live. The certified one is
oidc-provider, from npm: installed by its lock file into .peers/, where node, npm and
the package can be had.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

import httpx2

from bench.ports import free_port
from tests.site import AUDIENCE
from tests.tokens import make

HERE = Path(__file__).parent / "peers"
ROOT = HERE.parent.parent.parent
PEERS = ROOT / ".peers"
SECRET = "opaque-client-secret-of-the-tests"
ALGORITHMS = ("RS256", "ES256", "EdDSA")
LEAST_NODE = 20  # what oidc-provider 9 runs on
LATE = 30.0  # seconds for a peer to say something, on a busy machine


def keys(generation: str) -> list[make.Key]:
    """Return a key for each algorithm, all of one generation."""
    return [make.key(algorithm, generation + algorithm) for algorithm in ALGORITHMS]


class Issuing(Protocol):
    """Issues tokens."""

    url: str

    async def tell(
        self, published: Sequence[make.Key], signing: Sequence[make.Key]
    ) -> None:
        """Have it publish these keys, and sign with those; it is there again."""
        ...

    async def away(self) -> None:
        """Have it be where nobody answers."""
        ...

    async def issue(self, kind: str) -> str:
        """Return a new token: "opaque", or a JWT with an algorithm's name."""
        ...

    async def revoke(self, token: str) -> None:
        """End an opaque token."""
        ...


class OurProvider:
    """A small one, in this process."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._published: Sequence[make.Key] = ()
        self._signing: Mapping[str, make.Key] = {}
        self._known: dict[str, dict[str, Any]] = {}
        self._server: asyncio.Server | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[OurProvider]:
        found = cls()
        try:
            yield found
        finally:
            await found.away()

    async def tell(
        self, published: Sequence[make.Key], signing: Sequence[make.Key]
    ) -> None:
        self._published = published
        self._signing = {key.algorithm: key for key in signing}
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self._port
            )

    async def away(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def issue(self, kind: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "client_id": kind,
            "scope": "orders:read",
            "iat": now,
            "exp": now + 600,
        }
        if kind != "opaque":
            more = {"sub": kind, "jti": str(uuid.uuid4())}
            return make.token(self._signing[kind], {**claims, **more})
        token = base64.urlsafe_b64encode(uuid.uuid4().bytes * 2).decode()
        self._known[token] = {**claims, "active": True, "token_type": "Bearer"}
        return token

    async def revoke(self, token: str) -> None:
        del self._known[token]

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            size = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
            form = (await reader.readexactly(int(size or 0))).decode()
            body = json.dumps(self._answer(head, form)).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            await writer.drain()
        finally:
            writer.close()

    def _answer(self, head: str, form: str) -> Any:
        path = head.split(" ")[1]
        if path == "/jwks":
            return {"keys": [key.jwk for key in self._published]}
        if path == "/introspect":
            both = base64.b64encode(f"gateway:{SECRET}".encode()).decode()
            assert f"basic {both}".lower() in head.lower()
            (token,) = parse_qs(form)["token"]
            return self._known.get(token, {"active": False})
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "introspection_endpoint": f"{self.url}/introspect",
        }


class Missing(Exception):  # noqa: N818
    """A peer can't be had; says why."""


def installed() -> Path:
    """Return where oidc-provider is, installing it if it is not there yet.

    Raises:
        Missing: It can't be had.
    """
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            raise Missing(f"{name} is not installed")
    said = subprocess.run(["node", "--version"], capture_output=True, check=True)
    version = said.stdout.decode().strip()
    if int(version.lstrip("v").partition(".")[0]) < LEAST_NODE:
        raise Missing(f"node {version} is too old, {LEAST_NODE} is needed")
    lock = (HERE / "package-lock.json").read_bytes()
    stamp = PEERS / ".ready"
    if not stamp.exists() or stamp.read_bytes() != lock:
        PEERS.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, PEERS / name)
        call = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(
                call, cwd=PEERS, capture_output=True, timeout=180, check=False
            )
        except subprocess.TimeoutExpired:
            raise Missing("npm ci takes longer than three minutes") from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise Missing(f"npm ci failed: {lines[0] if lines else done.returncode}")
        stamp.write_bytes(lock)
    # Modules are looked for beside the file that asks for them.
    shutil.copy(HERE / "oidc.mjs", PEERS / "oidc.mjs")
    return PEERS


class OidcProvider:
    """oidc-provider, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            trust_env=False,
            timeout=LATE,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[OidcProvider]:
        """Run it until the end.

        Raises:
            Missing: It can't be had.
        """
        directory = await asyncio.to_thread(installed)
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *("node", "oidc.mjs", str(port), AUDIENCE, SECRET),
            cwd=directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        found = cls(process, port)
        try:
            yield found
        finally:
            await found._http.aclose()
            process.kill()
            await process.wait()

    async def tell(
        self, published: Sequence[make.Key], signing: Sequence[make.Key]
    ) -> None:
        await self._say(
            {
                "keys": [_private(key) for key in published],
                "signing": {key.algorithm: key.key_id for key in signing},
            }
        )

    async def away(self) -> None:
        await self._say({"away": True})

    async def issue(self, kind: str) -> str:
        form = {"grant_type": "client_credentials", "scope": "orders:read"}
        said = await self._http.post("/token", data=form, auth=(kind, SECRET))
        token: str = said.raise_for_status().json()["access_token"]
        return token

    async def revoke(self, token: str) -> None:
        said = await self._http.post(
            "/token/revocation", data={"token": token}, auth=("opaque", SECRET)
        )
        said.raise_for_status()

    async def _say(self, what: Mapping[str, Any]) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(what).encode() + b"\n")
        async with asyncio.timeout(LATE):
            assert await process.stdout.readline() == b"ok\n"


def _private(key: make.Key) -> dict[str, Any]:
    jwk = make.SIGNERS[key.algorithm].to_jwk(key.private, as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, "kid": key.key_id, "alg": key.algorithm, "use": "sig"}

"""What one writes in an afternoon: Starlette, PyJWT and httpx, under uvicorn.

It verifies the token of every request (signature, issuer, audience, expiry), checks one
role and forwards. It knows no revocation, signs no identity and writes no log.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BACKEND = os.environ["BENCH_BACKEND"]
KEY = Path(os.environ["BENCH_KEY"]).read_text(encoding="ascii")
ISSUER = os.environ["BENCH_ISSUER"]
AUDIENCE = os.environ["BENCH_AUDIENCE"]
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding"}
NOT_SENT = HOP_BY_HOP | {"authorization", "host", "upgrade", "content-length"}
NOT_RETURNED = HOP_BY_HOP | {"content-length", "content-encoding"}


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(base_url=BACKEND, limits=limits) as client:
        yield {"client": client}


async def forward(request: Request) -> Response:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return Response(status_code=401)
    try:
        claims = jwt.decode(
            token, KEY, algorithms=["RS256"], issuer=ISSUER, audience=AUDIENCE
        )
    except jwt.InvalidTokenError:
        return Response(status_code=401)
    if "customer" not in claims["roles"]:
        return Response(status_code=403)
    client: httpx.AsyncClient = request.state.client
    answer = await client.request(
        request.method,
        request.url.path,
        params=request.url.query,
        headers=[(n, v) for n, v in request.headers.items() if n not in NOT_SENT],
        content=await request.body(),
    )
    return Response(
        answer.content,
        answer.status_code,
        {n: v for n, v in answer.headers.items() if n not in NOT_RETURNED},
    )


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
app = Starlette(
    routes=[Route("/{path:path}", forward, methods=METHODS)], lifespan=lifespan
)

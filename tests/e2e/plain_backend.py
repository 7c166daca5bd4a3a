"""A backend that answers with what it received, in a process of its own."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def show(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")]
                for name, value in request.headers.raw
            ],
            "body": body.decode("latin-1"),
        }
    )


METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]

if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/{path:path}", show, methods=METHODS)]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
    )

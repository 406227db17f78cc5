"""A sample instance: `python -m gateway.demo.sample SERVICE NAME`, a program of its own.

It listens on a free port of 127.0.0.1, says which in its first line, and answers with who it is and
what it got. It ends with its standard input, so that it cannot outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

_SLOW_S = 2.0
_EVENT_EVERY_S = 1.0
_STOP_WITHIN_S = 1
_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_sample(service: str, name: str) -> Starlette:
    """Make the app: /slow takes two seconds, /events never ends, all else answers at once."""

    async def echo(request: Request) -> Response:
        return JSONResponse(
            {
                "service": service,
                "instance": name,
                "pid": os.getpid(),
                "method": request.method,
                "path": request.url.path,
                "query": request.url.query,
                "headers": request.headers.items(),
            }
        )

    async def slow(request: Request) -> Response:
        await asyncio.sleep(_SLOW_S)
        return await echo(request)

    async def events(_request: Request) -> Response:
        return StreamingResponse(_ticks(name), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/slow", slow),
            Route("/events", events),
            Route("/{path:path}", echo, methods=_ALL_METHODS),
        ]
    )


async def _ticks(name: str) -> AsyncIterator[str]:
    """Write one server-sent event a second, the first one at once."""
    count = 0
    while True:
        yield f"id: {count}\ndata: {json.dumps({'instance': name, 'tick': count})}\n\n"
        count += 1
        await asyncio.sleep(_EVENT_EVERY_S)


async def _serve(service: str, name: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio does it only where it made the socket; without it a body comes 40 ms after its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(
        uvicorn.Config(
            create_sample(service, name),
            lifespan="off",
            ws="none",
            access_log=False,
            # It would tell at length of the answers that are cut when a user ends it.
            log_level="critical",
            timeout_graceful_shutdown=_STOP_WITHIN_S,
        )
    )

    def stop_at_end_of_input() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            server.should_exit = True

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop_at_end_of_input)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))

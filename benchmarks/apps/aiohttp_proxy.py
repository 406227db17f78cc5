"""A plain proxy of aiohttp on both sides: `python -m benchmarks.apps.aiohttp_proxy PORT`.

A peer to measure by.
"""

from __future__ import annotations

import itertools
import os
import sys
import uuid
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

addresses = itertools.cycle(os.environ["INSTANCES"].split(","))
session = web.AppKey("session", ClientSession)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}


async def users(request: web.Request) -> web.StreamResponse:
    """Pass the request on and the answer back."""
    path = request.raw_path.removeprefix("/api/users")
    headers = {
        **{
            name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP
        },
        "X-Forwarded-For": request.remote or "",
        "X-Forwarded-Proto": request.scheme,
        "X-Request-Id": str(uuid.uuid4()),
    }
    url = f"http://{next(addresses)}{path}"
    body = request.content if request.can_read_body else None
    async with request.app[session].request(
        request.method, url, headers=headers, data=body, allow_redirects=False
    ) as answer:
        kept = {
            name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP
        }
        relayed = web.StreamResponse(status=answer.status, headers=kept)
        await relayed.prepare(request)
        async for chunk in answer.content.iter_any():
            await relayed.write(chunk)
        await relayed.write_eof()
        return relayed


async def connected(app: web.Application) -> AsyncIterator[None]:
    """Keep one client for as long as the application runs."""
    async with ClientSession(
        connector=TCPConnector(limit=256), cookie_jar=DummyCookieJar(), auto_decompress=False
    ) as opened:
        app[session] = opened
        yield


if __name__ == "__main__":
    app = web.Application()
    app.cleanup_ctx.append(connected)
    app.router.add_route("*", "/api/users/{rest:.*}", users)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)

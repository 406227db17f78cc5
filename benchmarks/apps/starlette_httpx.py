"""The proxy that everybody writes first: Starlette in front, httpx behind. A peer to measure by."""

from __future__ import annotations

import itertools
import os
import uuid

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

addresses = itertools.cycle(os.environ["INSTANCES"].split(","))
client = httpx.AsyncClient(limits=httpx.Limits(max_connections=256), trust_env=False)


async def users(request: Request) -> Response:
    """Pass the request on and the answer back."""
    query = f"?{request.url.query}" if request.url.query else ""
    answer = await client.request(
        request.method,
        f"http://{next(addresses)}/{request.path_params['rest']}{query}",
        headers={
            **request.headers,
            "x-forwarded-for": request.client.host if request.client else "",
            "x-forwarded-proto": request.url.scheme,
            "x-request-id": str(uuid.uuid4()),
        },
        content=await request.body(),
    )
    return Response(answer.content, answer.status_code, dict(answer.headers))


app = Starlette(routes=[Route("/api/users/{rest:path}", users, methods=["GET", "POST"])])

"""The proxy that everybody writes first: Starlette in front, httpx behind. A peer to measure by."""

import itertools
import os

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ports = itertools.cycle(os.environ["INSTANCES"].split(","))
client = httpx.AsyncClient(limits=httpx.Limits(max_connections=256), trust_env=False)


async def users(request: Request) -> Response:
    """Pass the request on and the answer back."""
    url = f"http://127.0.0.1:{next(ports)}/{request.path_params['rest']}"
    answer = await client.request(
        request.method,
        url,
        headers={**request.headers, "x-forwarded-for": request.client.host},
        content=await request.body(),
    )
    return Response(answer.content, answer.status_code, dict(answer.headers))


app = Starlette(routes=[Route("/api/users/{rest:path}", users, methods=["GET", "POST"])])

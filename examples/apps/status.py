"""A whole Starlette app that a route ends in; `routes.yaml` names it as `status:app`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
    """Start and stop with the gateway; what is yielded is `request.state`."""
    yield {"started_at_s": time.monotonic()}


async def greeting(request: Request) -> Response:
    """Say hello, and for how long the app has been there."""
    up_for_s = round(time.monotonic() - request.state.started_at_s, 1)
    assert request.client is not None
    return JSONResponse({"hello": request.client.host, "up_for_s": up_for_s})


app = Starlette(routes=[Route("/greeting", greeting)], lifespan=lifespan)

"""Apps and middleware of the gateway's process, as routes.yaml names them: `tests.fakes.apps:…`.

The rule: `puppet` does what the test that runs now has told it with `PUPPET.plays`, and notes the
scopes that it got; everything else here always does the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from starlette.applications import Starlette
from starlette.middleware.base import (  # noqa: TID251 -- users have such middleware
    BaseHTTPMiddleware,
    RequestResponseEndpoint,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.edge.asgi import AsgiApp, Message, Receive, Scope, Send

Part = Callable[[Scope, Receive, Send], Awaitable[None]]


class Puppet:
    """An app that does what it is told; `scopes` are those of its requests, newest last.

    `ended` counts its requests that are over, `lifespan` the events that it got.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all, and answer with `ok` again."""
        self.scopes: list[Scope] = []
        self.lifespan: list[str] = []
        self.ended = 0
        self.errors: list[BaseException] = []
        self.start_problem = ""
        self._part: Part = answers()

    def plays(self, part: Part) -> None:
        """Do this for each request from now on."""
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        self.scopes.append(scope)
        try:
            await self._part(scope, receive, send)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.ended += 1

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        for event in ("startup", "shutdown"):
            message = await receive()
            self.lifespan.append(message["type"])
            scope["state"]["started"] = "by its lifespan"
            if self.start_problem:
                await send({"type": "lifespan.startup.failed", "message": self.start_problem})
                return
            await send({"type": f"lifespan.{event}.complete"})


def answers(status: int = 200, body: bytes = b"ok", *fields: tuple[bytes, bytes]) -> Part:
    """Answer in full, without a word about the length."""

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status, *fields))
        await send({"type": "http.response.body", "body": body})

    return part


def start(status: int = 200, *fields: tuple[bytes, bytes]) -> Message:
    """Make the message that begins an answer."""
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def piece(body: bytes, *, more: bool = True) -> Message:
    """Make the message that has a piece of the body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


async def body_of(receive: Receive) -> bytes:
    """Receive the whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message["more_body"]
    return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the target and the body; knows no lifespan."""
    assert scope["type"] == "http"
    body = await body_of(receive)
    await answers(200, scope["raw_path"] + b" " + body)(scope, receive, send)


async def idle(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing, and take nothing of the body."""
    del receive, send
    assert scope["type"] == "http"
    await asyncio.Event().wait()


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without an end."""
    del receive
    assert scope["type"] == "http"
    await send(start())
    while True:
        await send(piece(bytes(65536)))


async def dripping(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without an end, a byte in each turn of the loop."""
    del receive
    assert scope["type"] == "http"
    await send(start())
    while True:
        await send(piece(b"x"))
        await asyncio.sleep(0)


_LARGE = bytes(8 * 1024 * 1024)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with 8 MiB in one piece, which all requests share."""
    assert scope["type"] == "http"
    await answers(200, _LARGE)(scope, receive, send)


async def spent(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the CPU time that the thread of the loop has taken so far."""
    assert scope["type"] == "http"
    await answers(200, b'{"cpu_s": %.9f}' % time.thread_time())(scope, receive, send)


async def stream_back(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, piece by piece while it comes."""
    assert scope["type"] == "http"
    await send(start())
    while True:
        message = await receive()
        await send(piece(message["body"], more=message["more_body"]))
        if not message["more_body"]:
            return


puppet = Puppet()


# --- Middleware ----------------------------------------------------------------------------------


class Adds:
    """Adds a field to the request and one to the answer, and notes in which order it was passed."""

    def __init__(self, app: AsgiApp, name: str = "x-added", value: str = "yes") -> None:
        self.app = app
        self.field = (name.encode(), value.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self.field]
            await send(message)

        scope = {**scope, "headers": [*scope["headers"], self.field]}
        await self.app(scope, receive, send_more)


class Replays:
    """Reads the whole body, and tells it again whenever it is asked: a usual way to log bodies."""

    def __init__(self, app: AsgiApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = await body_of(receive)

        async def tell_again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, tell_again, send)


class Guard:
    """Answers 401 itself where there is no Authorization."""

    def __init__(self, app: AsgiApp, *, realm: str) -> None:
        self.app = app
        self.challenge = f'Bearer realm="{realm}"'.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope.get("headers", ())}
        if scope["type"] != "http" or b"authorization" in names:
            await self.app(scope, receive, send)
        else:
            part = answers(401, b"who are you?", (b"www-authenticate", self.challenge))
            await part(scope, receive, send)


class Rewrites:
    """Asks for another path than the client did."""

    def __init__(self, app: AsgiApp, *, path: str) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "path": self.path}, receive, send)


class Decodes:
    """Decodes what the client has asked for, and passes that on as if it were encoded."""

    def __init__(self, app: AsgiApp, *, what: str) -> None:
        self.app = app
        self.what = what

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            decoded = unquote_to_bytes(scope[self.what])
            scope = {**scope, self.what: decoded, "path": unquote(scope["path"])}
        await self.app(scope, receive, send)


class Raises:
    """Raises when an answer comes back, before or after its head went on."""

    def __init__(self, app: AsgiApp, *, after: bool) -> None:
        self.app = app
        self.after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_raise(message: Message) -> None:
            if message["type"] == "http.response.body" or not self.after:
                raise KeyError("a mistake of the middleware")
            await send(message)

        await self.app(scope, receive, send_and_raise if scope["type"] == "http" else send)


def refuses_to_be_made(app: AsgiApp, *, reason: str = "no such file") -> AsgiApp:
    """Fail while it is made."""
    raise ValueError(reason)


class Times(BaseHTTPMiddleware):
    """What people write with Starlette's class: it sees a request and a response."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.seen = "by the middleware"
        response = await call_next(request)
        response.headers["x-timed"] = request.url.path
        return response


# --- A whole application -------------------------------------------------------------------------


@asynccontextmanager
async def _lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
    puppet.lifespan.append("starlette starts")
    yield {"greeting": "hello"}
    puppet.lifespan.append("starlette stops")


async def _greet(request: Request) -> Response:
    name = request.path_params["name"]
    return JSONResponse({"greeting": request.state.greeting, "name": name, "url": str(request.url)})


async def _count(request: Request) -> Response:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number
            await asyncio.sleep(0)

    return StreamingResponse(numbers(), media_type="text/plain")


async def _length(request: Request) -> Response:
    return JSONResponse({"bytes": len(await request.body())})


starlette = Starlette(
    routes=[
        Route("/greet/{name}", _greet),
        Route("/count", _count),
        Route("/length", _length, methods=["POST"]),
    ],
    lifespan=_lifespan,
)

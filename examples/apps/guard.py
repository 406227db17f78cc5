"""Plain ASGI middleware: one that answers itself, and one that wraps `send`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class ApiKey:
    """Lets those through who send one of the keys in X-Api-Key; others get 401.

    A WebSocket without one is closed before it is accepted, which its server says as 403.
    """

    def __init__(self, app: App, *, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = {key.encode() for key in keys}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Look at the fields of requests and of WebSockets; the lifespan passes on."""
        if scope["type"] == "lifespan" or self._keys & _values(scope, b"x-api-key"):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"www-authenticate", b"ApiKey"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"X-Api-Key is missing or wrong\n"})


class Timing:
    """Tells in Server-Timing how long it took until the head of the answer."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Wrap `send`, so that bodies still stream."""
        started_at_s = time.monotonic()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                took_ms = (time.monotonic() - started_at_s) * 1e3
                timing = (b"server-timing", b"gateway;dur=%.1f" % took_ms)
                message["headers"] = [*message.get("headers", ()), timing]
            await send(message)

        await self._app(scope, receive, send_timed if scope["type"] == "http" else send)


def _values(scope: Message, name: bytes) -> set[bytes]:
    return {value for key, value in scope["headers"] if key == name}

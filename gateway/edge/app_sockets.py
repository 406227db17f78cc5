"""WebSockets under an ASGI server: to the app of a route, and to nobody else.

They are ASGI's own websocket scopes, which the server makes of a connection, so there is nothing to
proxy: an app of this process gets the server's `receive` and `send`. The fast face has no such
scopes, and services are reached by its tunnels alone.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.core.failure import Failure
from gateway.core.paths import PathError
from gateway.core.routing import NoMatch
from gateway.edge.accept import accept
from gateway.edge.app_scope import http_scope
from gateway.edge.asgi import AsgiClient, AsgiFace, Message, Receive, Scope, Send, misfit
from gateway.edge.mounts import Mounted, Mounts
from gateway.proxy.attempts import Attempts
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.phase import Phase

_SCHEMES: Final = {"ws": "http", "wss": "https"}
_REFUSED: Final = 403  # what a server says to a handshake that is closed before it is accepted
_SWITCHED: Final = 101


class AppSockets:
    """Serves WebSocket scopes."""

    def __init__(self, engine: Engine, face: AsgiFace, mounts: Mounts) -> None:
        self._engine = engine
        self._face = face
        self._mounts = mounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket, and leave one line of it; raises what the app raises."""
        loop = asyncio.get_running_loop()
        scheme = _SCHEMES.get(scope.get("scheme", "ws"), "http")
        request = self._face.request_of({**scope, "method": "GET", "scheme": scheme})
        request.started_at_s = loop.time()
        exchange = self._engine.exchange(request, AsgiClient(loop))
        exchange.status = _REFUSED
        try:
            mounted = self._match(scope, exchange)
            if mounted is None:
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            else:
                await _run(mounted, exchange, scope, receive, send)
        finally:
            exchange.phase = Phase.SETTLED
            self._engine.observer.settled(exchange, loop.time())

    def _match(self, scope: Scope, exchange: Exchange) -> Mounted | None:
        """Find who answers in this process; None, with the failure noted, if nobody does."""
        engine, request = self._engine, exchange.request
        refusal = accept(request, engine.next_request_id)
        if refusal is None and (problem := misfit(scope, request)):
            refusal = Failure.BAD_REQUEST, problem
        if refusal is not None:
            exchange.failure, exchange.detail = refusal
            return None
        try:
            target = engine.match(request)
        except PathError as error:
            exchange.failure, exchange.detail = Failure.BAD_REQUEST, str(error)
            return None
        if isinstance(target, NoMatch):
            exchange.failure, exchange.detail = Failure.NO_ROUTE, "no route takes it"
            return None
        exchange.target, exchange.is_routed = target, True
        exchange.attempts = Attempts(target.fleet, engine.random, engine.observer, request)
        mounted = self._mounts.mounted.get(target)
        if mounted is None or not target.route.app:
            exchange.failure = Failure.NOT_IMPLEMENTED
            exchange.detail = "WebSocket does not pass through an ASGI server to a service"
            return None
        if b"websocket" not in target.route.upgrade:
            # Middleware that guards requests may let pass what it does not know.
            exchange.failure = Failure.NOT_IMPLEMENTED
            exchange.detail = "this route takes no WebSocket; see upgrade"
            return None
        return mounted


async def _run(
    mounted: Mounted, exchange: Exchange, scope: Scope, receive: Receive, send: Send
) -> None:
    told = http_scope(exchange.request, mounted.target.route, mounted.state)
    del told["method"]
    told["type"] = "websocket"
    told["scheme"] = "wss" if told["scheme"] == "https" else "ws"
    told["subprotocols"] = scope.get("subprotocols", [])
    told["extensions"] = scope.get("extensions", {})

    async def send_on(message: Message) -> None:
        if message["type"] == "websocket.accept":
            exchange.status = _SWITCHED
        await send(message)

    try:
        await mounted.app(told, receive, send_on)
    except Exception:
        exchange.failure, exchange.detail = Failure.APP_FAILED, "it raised an exception"
        raise

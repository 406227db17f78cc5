"""The gateway's own proxying of one route, as the app inside of its middleware.

The one rule: the request was matched already, so it goes to that route's service whatever the
middleware has made of its path. What the scope says of the client is believed, for the gateway has
written it.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from gateway.core.failure import Failure
from gateway.core.message import Request
from gateway.core.peer import Listener, Peer, TrustedProxies
from gateway.core.routing import Route
from gateway.edge.accept import Refusal
from gateway.edge.app_exchange import EXCHANGE_KEY, AppExchange
from gateway.edge.asgi import AsgiClient, AsgiFace, Receive, Scope, Send
from gateway.edge.lifespan import answer_lifespan
from gateway.edge.peers import Peers
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.pool import Spawn
from gateway.proxy.sides import ClientSide
from gateway.proxy.target import Target


class PinnedFace(AsgiFace):
    """An ASGI face whose requests all take one Target."""

    def __init__(
        self, engine: Engine, make_target: Callable[[Route], Target], route: Route, spawn: Spawn
    ) -> None:
        target = make_target(route)
        self._stripped = route.match.path[: target.strip]
        self._methods = route.match.methods
        # What is stripped is cut off here, where the middleware's own path is known.
        target.strip = 0
        super().__init__(engine.pinned_to(target), Peers(()), spawn)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope; raises AnswerBrokenOffError as the ASGI face does."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        else:
            await super().__call__(scope, receive, send)

    def request_of(self, scope: Scope) -> Request:
        """Make the request that the middleware has left, without what the route strips."""
        raw_path = scope.get("raw_path")
        if raw_path is not None and unquote(raw_path.decode("latin-1")) != scope["path"]:
            scope = {**scope, "raw_path": None}  # the middleware has rewritten one of the two
        if scope.get("root_path"):
            scope = {**scope, "root_path": ""}  # it is what is cut off here
        request = super().request_of(scope)
        if request.path == self._stripped or request.path.startswith(self._stripped + b"/"):
            request.path = request.path[len(self._stripped) :] or b"/"
        request.peer = _peer_of(scope)
        return request

    def _exchange(self, scope: Scope, request: Request, client: ClientSide) -> Exchange:
        exchange = super()._exchange(scope, request, client)
        around = scope.get(EXCHANGE_KEY)
        if isinstance(around, AppExchange):
            around.proxied = exchange
            # Not before it was accepted: its framing is that of ASGI, whatever the client speaks.
            request.is_http10 = around.request.is_http10
        return exchange

    def _refuse(self, client: AsgiClient, scope: Scope, refusal: Refusal, now_s: float) -> None:
        del scope
        client.exchange.reject(*refusal, now_s)  # what the client sent could be read in one way

    def _begin(self, exchange: Exchange, now_s: float) -> None:
        """Begin; hops were counted when the request came in.

        A preflight for another method comes here without a route for it; it is for middleware only.
        """
        method, methods = exchange.request.method, self._methods
        if method == b"OPTIONS" and methods is not None and method not in methods:
            allow = b", ".join(sorted(methods)).decode("latin-1")
            detail = f"the middleware did not answer, and the route takes {allow}"
            exchange.reject(Failure.METHOD_NOT_ALLOWED, detail, now_s)
            return
        exchange.begin(now_s)


def _peer_of(scope: Scope) -> Peer:
    """Make the peer that a scope of ours stands for: it has no address, and its word counts.

    Who of those that it names is the client depends on the same proxies as outside of here. Nothing
    else of the listener is told again.
    """
    around = scope.get(EXCHANGE_KEY)
    if isinstance(around, AppExchange):
        proxies = around.request.peer.listener.proxies
    else:
        proxies = TrustedProxies()
    scheme = scope["scheme"].encode("latin-1")
    return Peer(b"", scheme, is_trusted=True, listener=Listener(proxies=proxies))

"""The ASGI face: the gateway as an ASGI app, under any ASGI server.

An ASGI app awaits `receive` and `send`; an Exchange is moved by callbacks. In between stand two
loops for each request: one takes the client's messages and tells the Exchange, the other sends what
the Exchange has said. What ASGI cannot do is left out here, and listed in docs/http.md: interim
answers, trailers, upgrades, and cutting a connection otherwise than by ending early.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from gateway.core.failure import Failure
from gateway.core.message import NO_FIELDS, AnswerHead, Fields, Request
from gateway.edge import hops
from gateway.edge.accept import Refusal, accept
from gateway.edge.peers import Peers
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.pool import Spawn

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MOST_UNSENT_BYTES = 256 * 1024
_FEW_UNSENT_BYTES = 64 * 1024
_NOT_MODIFIED = 304
# What stands for itself in a path (RFC 3986 §3.3); where a server gives no raw one, this is it.
_NOT_ESCAPED = "/:@!$&'()*+,;=-._~"


class AnswerBrokenOffError(Exception):
    """Tells the ASGI server to cut the connection, so that the answer does not look whole."""


class AsgiFace:
    """Serves HTTP scopes by exchanges of one Engine."""

    def __init__(self, engine: Engine, peers: Peers, spawn: Spawn) -> None:
        self._engine = engine
        self._peers = peers
        self._spawn = spawn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises AnswerBrokenOffError when the answer cannot be brought to its end.
        """
        loop = asyncio.get_running_loop()
        request = self._request(scope)
        refusal = accept(request, scope["http_version"], self._engine.next_request_id)
        if request.upgrade and refusal is None:
            refusal = _without_upgrade(request)
        first = None
        if request.length == 0 and scope["http_version"] not in {"1.0", "1.1"}:
            # From HTTP/2 on, only the first message tells whether there is a body.
            first = await receive()
            if first.get("body") or first.get("more_body"):
                request.length = None
        client = _AsgiClient(loop)
        client.exchange = exchange = self._engine.exchange(request, client)
        reader: asyncio.Task[None] | None = None
        try:
            if refusal is not None:
                exchange.reject(*refusal, loop.time())
            elif request.method in hops.COUNTED:
                hops.begin(exchange, loop.time())
            else:
                exchange.begin(loop.time())
            reader = self._spawn(client.read(receive, first), name="asgi:receive")
            await client.write(send)
        finally:
            exchange.client_gone(loop.time())
            if reader is not None:
                reader.cancel()

    def _request(self, scope: Scope) -> Request:
        path, query, client = scope.get("raw_path"), scope["query_string"], scope.get("client")
        request = Request(
            scope["method"].encode("latin-1"),
            path if path is not None else quote(scope["path"], safe=_NOT_ESCAPED).encode(),
            query=b"?" + query if query else b"",
            # An ASGI server answers `Expect: 100-continue` itself, when the body is first wanted.
            fields=[field for field in scope["headers"] if field[0] != b"expect"],
            host=b"",
        )
        request.peer = self._peers.peer(client[0] if client else "", scope["scheme"])
        return request


def _without_upgrade(request: Request) -> Refusal | None:
    """Forget an offer to switch protocols; say so where the client cannot do without."""
    is_websocket = request.upgrade == b"websocket"
    request.upgrade = b""
    if is_websocket:
        return Failure.NOT_IMPLEMENTED, "WebSocket does not pass through an ASGI server"
    return None


class _AsgiClient:
    """The ClientSide of one exchange: a queue of messages, and the two loops around it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.exchange: Exchange
        self._loop = loop
        self._unsent: deque[Message] = deque()
        self._unsent_bytes = 0
        self._is_paused = False
        self._is_ended = False
        self._is_broken = False
        self._is_sending = False
        self._has_left = False
        self._task = asyncio.current_task()
        self._wake: asyncio.Future[None] | None = None
        self._may_read = asyncio.Event()
        self._may_read.set()

    # --- What the Exchange says ------------------------------------------------------------------

    def send_interim(self, status: int, fields: Fields) -> None:
        """Leave it out: ASGI has no interim answers."""

    def send_head(self, head: AnswerHead) -> None:
        """Queue the head; the server does the framing."""
        fields = [(name.lower(), value) for name, value in head.fields]
        # Servers take a length on 304 for a promise of a body.
        if head.length is not None and head.status != _NOT_MODIFIED:
            fields.append((b"content-length", b"%d" % head.length))
        self._unsent.append(
            {"type": "http.response.start", "status": head.status, "headers": fields}
        )

    def send_body(self, chunk: bytes) -> None:
        """Queue a piece of the body; ask for less when the client is slow."""
        self._unsent.append({"type": "http.response.body", "body": chunk, "more_body": True})
        self._unsent_bytes += len(chunk)
        if self._unsent_bytes > _MOST_UNSENT_BYTES and not self._is_paused:
            self._is_paused = True
            self.exchange.client_paused()

    def send_end(self, trailers: Fields) -> None:
        """Queue the end: the last piece of the body, if it is still here, becomes the last."""
        del trailers  # servers of today do not send them
        last = self._unsent[-1] if self._unsent else None
        if last is not None and last["type"] == "http.response.body":
            last["more_body"] = False
        else:
            self._unsent.append({"type": "http.response.body", "body": b"", "more_body": False})
        self._is_ended = True

    def abort(self) -> None:
        """Stop where we are, and let the server cut the connection."""
        self._is_broken = True
        if self._is_sending and self._task is not None:
            self._task.cancel()  # it waits for a client that takes nothing
        self.flush()

    def flush(self) -> None:
        """Wake the writing loop."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def pause_reading(self) -> None:
        """Let the reading loop wait."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Let the reading loop go on."""
        self._may_read.set()

    # --- The two loops ---------------------------------------------------------------------------

    async def read(self, receive: Receive, first: Message | None) -> None:
        """Tell the Exchange what the client sends, until it leaves or is cancelled."""
        while True:
            await self._may_read.wait()
            message, first = first if first is not None else await receive(), None
            if message["type"] == "http.disconnect":
                self._has_left = True
                self.exchange.client_gone(self._loop.time())
                return
            if body := message.get("body", b""):
                self.exchange.client_body(body, self._loop.time())
            if not message.get("more_body", False):
                self.exchange.client_end(NO_FIELDS, self._loop.time())

    async def write(self, send: Send) -> None:
        """Send what the Exchange says, until the answer is whole.

        Raises AnswerBrokenOffError if it cannot be, and the client is still there.
        """
        while not self._is_broken:
            await self._send_all(send)
            if self._is_ended or self._is_broken:
                break
            self._wake = self._loop.create_future()
            await self._wake
        if self._is_broken and not self._has_left:
            if self._unsent and self._unsent[0]["type"] == "http.response.start":
                # Without a head the server would make up an answer, and that one would be whole.
                await send(self._unsent.popleft())
            raise AnswerBrokenOffError(self.exchange.detail)

    async def _send_all(self, send: Send) -> None:
        while self._unsent and not self._is_broken:
            message = self._unsent.popleft()
            self._is_sending = True
            try:
                await send(message)
            except asyncio.CancelledError:
                if not self._is_broken or self._task is None:
                    raise
                self._task.uncancel()
            finally:
                self._is_sending = False
            self._has_sent(message)

    def _has_sent(self, message: Message) -> None:
        self._unsent_bytes -= len(message.get("body", b""))
        if self._is_paused and self._unsent_bytes < _FEW_UNSENT_BYTES:
            self._is_paused = False
            self.exchange.client_resumed(self._loop.time())

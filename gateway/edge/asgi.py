"""The ASGI face: the gateway as an ASGI app, under any ASGI server.

An ASGI app awaits `receive` and `send`; an Exchange is moved by callbacks. In between stand two
loops for each request: one takes the client's messages and tells the Exchange, the other sends what
the Exchange has said. What ASGI cannot do is left out here, and listed in docs/http.md: interim
answers, trailers, upgrades, and cutting a connection otherwise than by ending early.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from functools import partial
from math import inf
from typing import Any
from urllib.parse import quote

from gateway.core.failure import Failure
from gateway.core.headers import is_token
from gateway.core.message import NO_FIELDS, AnswerHead, Fields, Request, lines_of
from gateway.edge import hops
from gateway.edge.accept import Refusal, accept
from gateway.edge.peers import Peers
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.pool import Spawn
from gateway.proxy.sides import ClientSide

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HTTP_1 = frozenset({"1.0", "1.1"})
_PATIENCE_S = 0.1
# What the fast face lets through, and no more (RFC 9112 §3.2, RFC 9110 §5.1, §5.5).
_is_query = re.compile(rb"[!\"$-~]*").fullmatch  # with its question mark
_are_names = re.compile(rb"(?:\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*").fullmatch
_control_in = re.compile(rb"[^\t\r\n -~\x80-\xff]").search
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
        request = self.request_of(scope)
        refusal = self._accept(scope, request)
        first = None
        if request.length == 0 and scope["http_version"] not in _HTTP_1:
            # From HTTP/2 on, only the first message tells whether there is a body.
            first = await receive()
            if first.get("body") or first.get("more_body"):
                request.length = None
        client = AsgiClient(loop)
        client.exchange = exchange = self._exchange(scope, request, client)
        reading = _Reading(self._spawn, partial(client.read, receive, first))
        watched = self._engine.deadlines.watched
        now_s = loop.time()
        try:
            if refusal is None:
                self._begin(exchange, now_s)
            else:
                self._refuse(client, scope, refusal, now_s)
            if request.length != 0 or first is not None:
                reading.start()
            elif not client.is_ended:
                reading.deadline_s = now_s + _PATIENCE_S
                watched.add(reading)
            await client.write(send)
        finally:
            watched.discard(reading)
            client.leave(loop.time())
            reading.stop()

    def _accept(self, scope: Scope, request: Request) -> Refusal | None:
        refusal = accept(request, self._engine.next_request_id)
        if problem := misfit(scope, request):
            return Failure.BAD_REQUEST, problem
        if request.upgrade and refusal is None:
            return _without_upgrade(request)
        return refusal

    def _exchange(self, scope: Scope, request: Request, client: ClientSide) -> Exchange:
        del scope
        return self._engine.exchange(request, client)

    def _refuse(self, client: AsgiClient, scope: Scope, refusal: Refusal, now_s: float) -> None:
        """Answer a request that goes nowhere, and let its connection end.

        Where it could be read in two ways, so could what stands behind it. From HTTP/2 on frames
        keep requests apart, and Connection may not be said.
        """
        client.is_last = scope["http_version"] in _HTTP_1
        client.exchange.reject(*refusal, now_s)

    def _begin(self, exchange: Exchange, now_s: float) -> None:
        if exchange.request.method in hops.COUNTED:
            hops.begin(exchange, now_s)
        else:
            exchange.begin(now_s)

    def request_of(self, scope: Scope) -> Request:
        """Make the request that a scope tells of, as far as nothing is judged yet."""
        path, query = scope.get("raw_path"), scope["query_string"]
        client, (_, port) = scope.get("client"), scope.get("server") or ("", None)
        if path is None:
            path = _escaped(scope["path"])
        if root := scope.get("root_path"):
            path = _below(path, _escaped(root.rstrip("/")))
        request = Request(
            scope["method"].encode("latin-1"),
            path,
            b"?" + query if query else b"",
            lines_of(_crossing(scope)),
        )
        request.is_http10 = scope.get("http_version") == "1.0"  # a WebSocket's may be missing
        # Some servers give the port as text.
        request.peer = self._peers.peer(
            client[0] if client else "", scope["scheme"], int(port or 0)
        )
        return request


def _escaped(path: str) -> bytes:
    return quote(path, safe=_NOT_ESCAPED).encode()


def _below(path: bytes, root: bytes) -> bytes:
    """Cut off where the app is mounted; servers put it in front of the path (ASGI, `root_path`)."""
    rest = path.removeprefix(root)
    return (rest or b"/") if path != rest and rest[:1] in {b"", b"/"} else path


class _Reading:
    """What reads a client's messages: a task, started only where it is needed.

    Nearly always a request without a body is answered within a moment, and all that could be read
    of its client is that it has left. So that is looked at when the moment has passed.
    """

    __slots__ = ("_make", "_spawn", "_task", "deadline_s")

    def __init__(self, spawn: Spawn, make: Callable[[], Coroutine[None, None, None]]) -> None:
        self.deadline_s = inf
        self._spawn = spawn
        self._make = make
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        self._task = self._spawn(self._make(), name="asgi:receive")

    def expire(self, now_s: float) -> None:
        """Begin to read: it takes longer."""
        del now_s
        self.deadline_s = inf
        self.start()

    def break_down(self, now_s: float) -> None:
        """Read no more."""
        del now_s
        self.stop()

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()


def _crossing(scope: Scope) -> Fields:
    """Give the fields of a scope, without what its server sees to.

    That is `Expect: 100-continue`, which it answers when the body is first wanted.
    """
    return [field for field in scope["headers"] if field[0] != b"expect" or not _is_continue(field)]


def _is_continue(expectation: tuple[bytes, bytes]) -> bool:
    return expectation[1].strip(b" \t").lower() == b"100-continue"


def misfit(scope: Scope, request: Request) -> str:
    """Say what of a scope cannot have come over a wire, but for its path; empty if all can.

    Most servers parse strictly; middleware writes what it likes. All of it would be part of a head
    of ours, and end it, or begin another one. The path is judged where it is matched.
    """
    lines, fields = request.lines, _crossing(scope)
    # Each line has the two in front of it, and no more.
    if lines.count(b"\n") != len(fields) or lines.count(b"\r") != len(fields):
        return "a field with the end of a line in it"
    if _control_in(lines):
        return "a field with a control character in it"
    if not _are_names(b"".join([b"\n" + name for name, _ in fields])):
        return "the name of a field is not valid"
    if not _is_query(request.query):
        return "the query has a character that must be percent-encoded"
    return "" if is_token(request.method) else "the method is not valid"


def _without_upgrade(request: Request) -> Refusal | None:
    """Forget an offer to switch protocols; say so where the client cannot do without."""
    is_websocket = request.upgrade == b"websocket"
    request.upgrade = b""
    if is_websocket:
        return Failure.NOT_IMPLEMENTED, "WebSocket does not pass through an ASGI server"
    return None


class AsgiClient:
    """The ClientSide of one exchange: what is still to be sent, and the two loops around it.

    `is_ended` says that the answer is here to its end. `is_last` asks the server to close the
    connection behind the answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.exchange: Exchange
        self._loop = loop
        self._head: Message | None = None
        self._body = bytearray()  # joined: messages of a byte would hold many times as much
        self._is_end_sent = False
        self._is_paused = False
        self.is_ended = False
        self.is_last = False
        self._is_broken = False
        self._is_sending = False
        self._has_left = False
        self._task = asyncio.current_task()
        self._wake: asyncio.Future[None] | None = None
        self._is_held = False
        self._may_read: asyncio.Future[None] | None = None

    # --- What the Exchange says ------------------------------------------------------------------

    def send_interim(self, status: int, fields: Fields) -> None:
        """Leave it out: ASGI has no interim answers."""

    def send_head(self, head: AnswerHead) -> None:
        """Keep the head; the server does the framing."""
        fields = [(name.lower(), value) for name, value in head.fields]
        if head.status == _NOT_MODIFIED:  # servers take a length for a promise of a body
            fields = [field for field in fields if field[0] != b"content-length"]
        fields.append((b"x-request-id", self.exchange.request.request_id))
        if self.is_last:
            fields.append((b"connection", b"close"))
        self._head = {"type": "http.response.start", "status": head.status, "headers": fields}

    def send_body(self, chunk: bytes) -> None:
        """Keep a piece of the body; ask for less when the client is slow."""
        self._body += chunk
        if len(self._body) > _MOST_UNSENT_BYTES and not self._is_paused:
            self._is_paused = True
            self.exchange.client_paused()

    def send_end(self, trailers: Fields) -> None:
        """Keep the end: what is here of the body becomes the last piece of it."""
        del trailers  # servers of today do not send them
        self.is_ended = True

    def send_answer(self, head: AnswerHead, body: bytes) -> None:
        """Keep a whole answer."""
        self.send_head(head)
        self.send_body(body)
        self.send_end(NO_FIELDS)
        self.flush()

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
        self._is_held = True

    def resume_reading(self) -> None:
        """Let the reading loop go on."""
        self._is_held = False
        if self._may_read is not None and not self._may_read.done():
            self._may_read.set_result(None)

    def unsent_bytes(self) -> int | None:
        """Tell that nobody can: the server has what was sent, and says nothing of it."""
        return None

    def hand_over(self, exchange: Exchange) -> None:
        """Go on with another Exchange: an app answers."""
        self.exchange = exchange

    def shutdown(self) -> None:
        """Leave it out: connections are the server's."""

    def leave(self, now_s: float) -> None:
        """Hear that the server is done with the request; the Exchange is known no longer."""
        self.exchange.client_gone(now_s)
        del self.exchange  # which knows its client: or only the collector would free both

    # --- The two loops ---------------------------------------------------------------------------

    async def read(self, receive: Receive, first: Message | None) -> None:
        """Tell the Exchange what the client sends, until it leaves or is cancelled.

        Middleware that has read the body may tell it again, as often as it is asked, and nothing
        else: to ask on would never end, nor let anybody else have a turn.
        """
        is_whole = False
        while True:
            while self._is_held:
                self._may_read = self._loop.create_future()
                await self._may_read
            message, first = first if first is not None else await receive(), None
            if message["type"] == "http.disconnect":
                self._has_left = True
                self.exchange.client_gone(self._loop.time())
                return
            if is_whole:
                return
            if body := message.get("body", b""):
                self.exchange.client_body(body, self._loop.time())
            if not message.get("more_body", False):
                is_whole = True
                self.exchange.client_end(NO_FIELDS, self._loop.time())

    async def write(self, send: Send) -> None:
        """Send what the Exchange says, until the answer is whole.

        Raises AnswerBrokenOffError if it cannot be, and the client is still there.
        """
        while not self._is_broken:
            await self._send_all(send)
            if self.is_ended or self._is_broken:
                break
            self._wake = self._loop.create_future()
            await self._wake
        if self._is_broken and not self._has_left:
            if self._head is not None:
                # Without a head the server would make up an answer, and that one would be whole.
                await send(self._head)
            raise AnswerBrokenOffError(self.exchange.detail)

    async def _send_all(self, send: Send) -> None:
        while not self._is_broken and (message := self._next()) is not None:
            self._is_sending = True
            try:
                await send(message)
            except asyncio.CancelledError:
                if not self._is_broken or self._task is None:
                    raise
                self._task.uncancel()
            finally:
                self._is_sending = False
            self._has_sent()

    def _next(self) -> Message | None:
        """Take the next message: the head, a piece of the body, or the end; None for nothing."""
        if (head := self._head) is not None:
            self._head = None
            return head
        if self._is_end_sent or not (self._body or self.is_ended):
            return None
        body, self._body = bytes(self._body), bytearray()
        self._is_end_sent = self.is_ended
        return {"type": "http.response.body", "body": body, "more_body": not self.is_ended}

    def _has_sent(self) -> None:
        if self._is_paused and len(self._body) < _FEW_UNSENT_BYTES:
            self._is_paused = False
            self.exchange.client_resumed(self._loop.time())

"""The fast face: a client's connection that drives exchanges directly, without ASGI in between.

It is the protocol class that uvicorn is given by `gateway run`. A request becomes an Exchange as
soon as its head is read; on a warm connection that takes no task, no future and no timer. Requests
that are pipelined wait their turn: a connection has one Exchange at a time, and answers leave in
the order of the requests.

                head complete                answer whole, keep-alive
      IDLE ───────────────────▶ EXCHANGE ────────────────────────────▶ IDLE, or the next in line
                                    │
                                    │ refused, `close`, or body not read to its end
                                    ▼
                                LINGERING ──▶ closed

Lingering: what the client still sends is read and dropped for a moment, because closing with unread
bytes makes the kernel send a reset that may destroy the answer on its way (RFC 9112 §9.6).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from math import inf
from typing import cast

from gateway.core.failure import Failure
from gateway.core.message import NO_FIELDS, AnswerHead, Fields, Request
from gateway.edge.accept import Refusal
from gateway.edge.face import FaceOptions, ServerState, Waiting
from gateway.edge.peers import Peers
from gateway.edge.reader import RequestReader
from gateway.edge.wire import (
    Framing,
    chunk_bytes,
    framing_of,
    head_bytes,
    interim_bytes,
    last_chunk,
)
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange

_CLOSE = b"Connection: close\r\n"
_KEEP_ALIVE = b"Connection: keep-alive\r\n"
_UPGRADE = b"Connection: Upgrade\r\n"
_LINGER_S = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FastFace:
    """Makes the protocol of each connection; uvicorn calls it as if it were the class.

    While it `is_draining`, each answer asks its client to come back over another connection.
    """

    def __init__(self, engine: Engine, peers: Peers, options: FaceOptions) -> None:
        self.is_draining = False
        self.engine = engine
        self.peers = peers
        self.options = options

    def __call__(
        self, config: object, server_state: ServerState, app_state: object, _loop: object = None
    ) -> ClientConnection:
        """Make the protocol of a new connection."""
        del config, app_state, _loop
        return ClientConnection(self, server_state)


class ClientConnection(asyncio.Protocol):
    """One client's connection: Receiver of its reader, ClientSide of its Exchange."""

    def __init__(self, face: FastFace, server_state: ServerState) -> None:
        self.deadline_s = inf
        self._engine = face.engine
        self._face = face
        self._server_state = server_state
        self._clock = asyncio.get_running_loop().time
        self._transport: asyncio.Transport
        self._reader: RequestReader
        self._exchange: Exchange | None = None
        self._line: deque[Waiting] = deque()
        self._out: list[bytes] = []
        self._framing = Framing.NONE
        self._is_http10 = False
        self._stays = True
        self._is_read = True
        self._is_lingering = False
        self._is_starting = False
        self._is_reading = True
        self._is_held = False

    def __repr__(self) -> str:
        state = "lingering" if self._is_lingering else repr(self._exchange)
        return f"<ClientConnection {state}, {len(self._line)} in line>"

    # --- The transport tells ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, unless there are too many already."""
        self._transport = cast("asyncio.Transport", transport)
        face = self._face
        name = transport.get_extra_info("peername")
        scheme = "http" if transport.get_extra_info("ssl_object") is None else "https"
        peer = face.peers.peer(name[0] if isinstance(name, tuple) else "", scheme)
        self._reader = RequestReader(
            self, peer, limits=face.options.reader, next_id=self._engine.next_request_id
        )
        self._server_state.connections.add(self)
        self._engine.deadlines.watched.add(self)
        self.deadline_s = self._clock() + face.options.keepalive_timeout_s
        if len(self._server_state.connections) > face.options.max_connections:
            detail = f"there are {face.options.max_connections} connections already"
            self._refuse(Failure.OVER_CAPACITY, detail)

    def data_received(self, data: bytes) -> None:
        """Read what the client sent."""
        if self._is_lingering:
            return
        if self._framing is Framing.TUNNEL:
            self._pass_on(data)
            return
        try:
            wrong = self._reader.feed(data)
        except Exception:
            self.break_down(self._clock())
            raise
        if wrong is not None:
            self._refuse(*wrong)
        if self._out:
            self.flush()
        if self._exchange is None and self._reader.has_partial_head:
            # A head has so long from its first byte, however often a further byte comes.
            until_s = self._clock() + self._face.options.head_timeout_s
            self.deadline_s = min(self.deadline_s, until_s)

    def eof_received(self) -> bool:
        """Take the end of what the client sends for its leaving, as all proxies do."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the Exchange that its client left."""
        del exc
        self._server_state.connections.discard(self)
        self._engine.deadlines.watched.discard(self)
        self._line.clear()
        self._is_lingering = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone(self._clock())

    def pause_writing(self) -> None:
        """Pass on that the client takes no more for now."""
        if self._exchange is not None:
            self._exchange.client_paused()

    def resume_writing(self) -> None:
        """Pass on that the client takes more again."""
        if self._exchange is not None:
            self._exchange.client_resumed(self._clock())

    def shutdown(self) -> None:
        """Take no more requests; uvicorn calls this when it drains."""
        self._stays = False
        self._line.clear()
        if self._exchange is None and not self._is_lingering:
            self._transport.close()

    def cut(self) -> None:
        """End now: the time to finish what is in hand is over."""
        if self._exchange is not None:
            self._refuse(Failure.DRAINING, "the gateway stops, and the time to finish is over")
            self.flush()
        else:
            self._transport.abort()

    def expire(self, now_s: float) -> None:
        """Hear that the client waited too long with its request, or with leaving."""
        del now_s
        if self._is_lingering:
            self._transport.abort()
        elif self._reader.has_partial_head:
            self._refuse(Failure.REQUEST_TIMEOUT, "the head of the request did not come in time")
            self.flush()
        else:
            self._transport.close()

    def break_down(self, now_s: float) -> None:
        """End because of a mistake of ours; whoever caught the error lets it surface."""
        exchange = self._exchange
        if exchange is not None:
            exchange.break_down(now_s)
        self._transport.abort()

    # --- The reader tells ------------------------------------------------------------------------

    def request_begun(
        self, request: Request, refusal: Refusal | None, *, is_http10: bool, stays: bool
    ) -> None:
        """Start the request, or put it in line behind the one in hand."""
        waiting = Waiting(request, refusal, is_http10, stays)
        if self._exchange is None and not self._line:
            self._start(waiting)
        else:
            self._line.append(waiting)
            self._hold()

    def request_body(self, chunk: bytes) -> None:
        """Pass a piece of the body to the Exchange that it belongs to."""
        if self._line:
            self._line[-1].chunks.append(chunk)
        elif self._exchange is not None:
            self._exchange.client_body(chunk, self._clock())

    def request_ended(self, trailers: Fields) -> None:
        """Tell the Exchange that its request is whole."""
        if self._line:
            self._line[-1].trailers = trailers
            return
        self._is_read = True
        if self._exchange is not None:
            self._exchange.client_end(trailers, self._clock())

    def waits_for_switch(self) -> bool:
        """Tell whether the last request offers another protocol, and that is not decided yet."""
        if self._line:
            return bool(self._line[-1].request.upgrade)
        return self._exchange is not None and bool(self._exchange.request.upgrade)

    # --- The Exchange tells ----------------------------------------------------------------------

    def send_interim(self, status: int, fields: Fields) -> None:
        """Relay an interim answer; HTTP/1.0 knows none (RFC 9110 §15.2)."""
        if not self._is_http10:
            self._out.append(interim_bytes(status, fields))

    def send_head(self, head: AnswerHead) -> None:
        """Write the head, and decide whether the connection stays."""
        self._framing = framing_of(head, is_http10=self._is_http10)
        if not self._is_read or self._framing is Framing.CLOSE:
            self._stays = False
        connection = b""
        if self._framing is Framing.TUNNEL:
            self._stays = False
            connection = _UPGRADE
        elif not self._stays:
            connection = _CLOSE
        elif self._is_http10:
            connection = _KEEP_ALIVE
        self._out.append(head_bytes(head, self._framing, connection))
        if self._framing is Framing.TUNNEL and (held := self._reader.take_held()):
            self._pass_on(held)

    def _pass_on(self, data: bytes) -> None:
        """Pass bytes through the tunnel."""
        if self._exchange is not None:
            self._exchange.client_body(data, self._clock())

    def send_body(self, chunk: bytes) -> None:
        """Write a piece of the body."""
        self._out.append(chunk_bytes(chunk) if self._framing is Framing.CHUNKED else chunk)

    def send_end(self, trailers: Fields) -> None:
        """End the answer; close, or take the next request."""
        if self._framing is Framing.CHUNKED:
            self._out.append(last_chunk(trailers))
        self._exchange = None
        self._server_state.total_requests += 1
        if self._is_lingering:
            return  # the client has left already
        if not self._stays or not self._is_read:
            self._linger()
            return
        self.deadline_s = self._clock() + self._face.options.keepalive_timeout_s
        if self._line and not self._is_starting:
            self._start_those_in_line()
        elif self._reader.is_holding and (wrong := self._reader.resume()) is not None:
            self._refuse(*wrong)  # the offer to switch was not taken, and what follows is wrong

    def abort(self) -> None:
        """Reset the connection: a mere end could be taken for the end of the answer."""
        self._exchange = None
        self._is_lingering = True
        self._out.clear()
        sock = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def flush(self) -> None:
        """Send what was written since the last time, in one piece."""
        out = self._out
        if out:
            self._out = []
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def pause_reading(self) -> None:
        """Stop reading the client."""
        self._is_held = True
        self._set_reading()

    def resume_reading(self) -> None:
        """Go on reading the client."""
        self._is_held = False
        self._set_reading()

    # --- Turns -----------------------------------------------------------------------------------

    def _start(self, waiting: Waiting) -> None:
        request = waiting.request
        self._is_http10 = waiting.is_http10
        self._stays = self._stays and waiting.stays and not self._face.is_draining
        self._is_read = request.length == 0
        self._is_held = False
        self.deadline_s = inf
        self._exchange = exchange = self._engine.exchange(request, self)
        if waiting.refusal is None:
            exchange.begin(self._clock())
        else:
            exchange.reject(*waiting.refusal, self._clock())

    def _start_those_in_line(self) -> None:
        """Start the next in line, and the one after it if that is over at once."""
        self._is_starting = True
        while self._line and self._exchange is None and not self._is_lingering:
            waiting = self._line.popleft()
            self._start(waiting)
            self._replay(waiting)
        self._is_starting = False
        self._set_reading()

    def _replay(self, waiting: Waiting) -> None:
        """Tell the Exchange what came of its body while it was in line."""
        for chunk in waiting.chunks:
            if self._exchange is not None:
                self._exchange.client_body(chunk, self._clock())
        if waiting.trailers is not None:
            self._is_read = True
            if self._exchange is not None:
                self._exchange.client_end(waiting.trailers, self._clock())

    def _refuse(self, failure: Failure, detail: str) -> None:
        """Say what is wrong with what the client sent; after this nothing more can be read."""
        self._stays = False
        self._line.clear()
        if self._exchange is not None:
            self._exchange.client_failed(failure, detail, self._clock())
            return
        request = Request(b"-", b"", query=b"", fields=NO_FIELDS, host=b"")
        request.peer = self._reader.peer
        request.request_id = self._engine.next_request_id()
        self._is_read = False
        self._exchange = exchange = self._engine.exchange(request, self)
        exchange.reject(failure, detail, self._clock())

    def _linger(self) -> None:
        """Close in a way that lets the answer arrive."""
        self.flush()
        self._is_lingering = True
        self._line.clear()
        if self._is_read or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self.deadline_s = self._clock() + _LINGER_S

    def _hold(self) -> None:
        self._set_reading()

    def _set_reading(self) -> None:
        """Read the client only while nobody is in line and the Exchange wants more."""
        should_read = not self._line and not self._is_held
        if should_read != self._is_reading and not self._transport.is_closing():
            self._is_reading = should_read
            if should_read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

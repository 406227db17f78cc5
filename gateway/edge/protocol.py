"""The fast face: a client's connection that drives exchanges directly, without ASGI in between.

It is what `gateway.edge.fast` makes for each connection. A request becomes an Exchange as
soon as its head is read; on a warm connection that takes no task, no future and no timer. There is
one Exchange at a time: what is pipelined behind it is held, unread, until it is over.

                head complete                answer whole, keep-alive
      IDLE ───────────────────▶ EXCHANGE ────────────────────────────▶ IDLE, or the next request
                                    │
                                    │ refused, `close`, or body not read to its end
                                    ▼
                                LINGERING ──▶ closed

Lingering: what the client still sends is read and dropped for a moment, because closing with unread
bytes makes the kernel send a reset that may destroy the answer on its way (RFC 9112 §9.6). A client
that has not read its answer by then gets as long as one that is idle, no longer.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, cast

from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, Fields, Request
from gateway.edge import hops
from gateway.edge.accept import Refusal
from gateway.edge.closing import end, give_up, reset, unsent_bytes
from gateway.edge.face import ServerState
from gateway.edge.places import Place
from gateway.edge.proxy_protocol import Told
from gateway.edge.reader import RequestReader
from gateway.edge.wire import (
    Framing,
    chunk_bytes,
    framing_of,
    head_bytes,
    interim_bytes,
    last_chunk,
)
from gateway.proxy.exchange import Exchange
from gateway.runtime.backlog import LONG_READ_BYTES
from gateway.runtime.pieces import LARGE_BYTES, read_in_pieces
from gateway.runtime.unsent import Unsent

if TYPE_CHECKING:
    from gateway.edge.fast import FastFace

_CLOSE = b"\r\nConnection: close"
_KEEP_ALIVE = b"\r\nConnection: keep-alive"
_UPGRADE = b"\r\nConnection: Upgrade"
_LINGER_S = 2.0
# Looked up once: a member of an Enum costs as much as a small call.
_TUNNEL, _CHUNKED, _CLOSED = Framing.TUNNEL, Framing.CHUNKED, Framing.CLOSE


class ClientConnection(asyncio.Protocol):
    """One client's connection: Receiver of its reader, ClientSide of its Exchange.

    `told` is what the PROXY protocol said in front of it, None on a listener without. `place` is
    the one that it took when it was accepted, None where that was done by somebody else's listener.
    """

    def __init__(
        self,
        face: FastFace,
        server_state: ServerState,
        told: Told | None = None,
        place: Place | None = None,
    ) -> None:
        self.deadline_s = inf
        self._place = place
        self._engine = face.engine
        self._outbox = face.engine.outbox
        self._backlog = face.engine.backlog
        self._face = face
        self._server_state = server_state
        self._told = told
        self._keepalive_timeout_s = face.options.keepalive_timeout_s
        self._clock = asyncio.get_running_loop().time
        self._transport: asyncio.Transport
        self._unsent: Unsent
        self._reader: RequestReader
        self._exchange: Exchange | None = None
        self._request_count = 0
        self._out: list[bytes] = []
        self._framing = Framing.NONE
        self._is_http10 = False
        self._stays = True
        self._is_read = True
        self._is_lingering = False
        self._is_at_end = False
        self._is_late = False
        self._is_head_timed = False
        self._is_choked = False
        self._is_reading = True
        self._is_held = False
        self._reads_pieces = False

    def __repr__(self) -> str:
        state = "lingering" if self._is_lingering else repr(self._exchange)
        return f"<ClientConnection {state}, {self._request_count} requests>"

    # --- The transport tells ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; refuse everything where there are too many connections already."""
        self._transport = cast("asyncio.Transport", transport)
        self._unsent = Unsent(self._transport)
        face = self._face
        peer = face.peers.of(transport, self._told)
        self._reader = RequestReader(
            self, peer, limits=face.options.reader, next_id=self._engine.next_request_id
        )
        self._server_state.connections.add(self)
        self._engine.deadlines.watched.add(self)
        self.deadline_s = self._clock() + face.options.head_timeout_s
        self._place = place = self._place or face.places.enter(peer)
        if place.refusal is None:
            place.holder = self
        else:
            self._refuse(Failure.OVER_CAPACITY, place.refusal)

    def data_received(self, data: bytes) -> None:
        """Read what the client sent."""
        if self._is_lingering:
            return
        if self._framing is _TUNNEL:
            self._pass_on(data)
            return
        reader = self._reader
        try:
            wrong = reader.feed(data)
        except Exception:
            self.break_down(self._clock())
            raise
        if wrong is not None or self._out or reader.held_bytes or reader.begun:
            self._has_read(wrong)

    def _has_read(self, wrong: Refusal | None) -> None:
        """Do what is left to do after what was not just one whole request."""
        if wrong is not None and not self._is_lingering:
            self._refuse(*wrong)
        if self._out:
            self.flush()
        if self._reader.held_bytes:
            self._put_off()
        elif self._reader.begun:
            self._wait_for_head()

    def _put_off(self) -> None:
        """Look at what is held in a later turn, if nothing else has to come before that."""
        if self._reader.held_bytes > LARGE_BYTES:
            self._read_in_pieces()
        self._set_reading()
        if self._may_go_on():
            self._backlog.add(self, self._reader.peer.address)

    def _may_go_on(self) -> bool:
        """Tell whether what is held may be looked at now."""
        if self._is_lingering or self._is_held:
            return False
        return self._framing is _TUNNEL or self._reader.is_in_body or not self.is_busy()

    def go_on(self) -> None:
        """Look at the next share of what is held."""
        reader = self._reader
        if not reader.held_bytes or not self._may_go_on():
            return
        if self._framing is _TUNNEL:
            self._pass_on(reader.take_held())
            if self._is_at_end and not reader.held_bytes:
                self._let_go()
                self._transport.close()
                return
        else:
            try:
                wrong = reader.go_on()
            except Exception:
                self.break_down(self._clock())
                raise
            self._has_read(wrong)
        self._set_reading()

    def _wait_for_head(self) -> None:
        """Give a head so long from its first byte, however often a further byte comes."""
        self._outbox.send()  # nobody else waits for many that send their heads byte by byte
        if not self._is_head_timed:
            self._is_head_timed = True
            self.deadline_s = self._clock() + self._face.options.head_timeout_s

    def eof_received(self) -> bool:
        """Take the end of what the client sends for its leaving, as all proxies do.

        True keeps the connection: what of a tunnel waits for its turn goes on before it ends.
        """
        self._let_go()  # what it was told in this turn still leaves
        self._is_at_end = self._framing is _TUNNEL and bool(self._reader.held_bytes)
        return self._is_at_end

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the Exchange that its client left."""
        del exc
        self._server_state.connections.discard(self)
        self._engine.deadlines.watched.discard(self)
        assert self._place is not None, "it was made before it was lost"
        self._place.leave()
        self._backlog.discard(self, self._reader.peer.address)
        self._unsent.drop()
        self._is_lingering = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone(self._clock())
        self._reader.close()

    def pause_writing(self) -> None:
        """Join what is written from now on: the client takes no more for now."""
        self._unsent.paused()
        self._look_at_unsent()

    def resume_writing(self) -> None:
        """Write what was joined; let the Exchange go on, or go on with what the client has sent."""
        self._unsent.let_go()
        if not self._is_choked or self._unsent.is_full:
            return
        self._is_choked = False
        if self._exchange is not None:
            self._exchange.client_resumed(self._clock())
        else:
            self._read_on()

    def _keep(self, data: bytes) -> None:
        """Join this with what the client has not taken yet."""
        self._unsent.add(data)
        self._look_at_unsent()

    def _look_at_unsent(self) -> None:
        """Let the Exchange stop if too much waits for the client."""
        if not self._is_choked and self._unsent.is_full:
            self._is_choked = True
            if self._exchange is not None:
                self._exchange.client_paused()

    def _let_go(self) -> None:
        """Hand all that was written to the transport, so that it can be closed behind it."""
        self._outbox.send()
        self._unsent.let_go()

    def expire(self, now_s: float) -> None:
        """Hear that the client waited too long with its request, or with leaving."""
        if self._is_lingering:
            self._is_late = not self._is_late and self._transport.get_write_buffer_size() > 0
            self.deadline_s = now_s + self._keepalive_timeout_s
            if not self._is_late:
                give_up(self._transport)
        elif self._reader.begun:
            self._refuse(Failure.REQUEST_TIMEOUT, "the head of the request did not come in time")
            self.flush()
        elif self._waits_for_turn:
            self.deadline_s = now_s + self._keepalive_timeout_s
        else:
            self._linger()

    def break_down(self, now_s: float) -> None:
        """End because of a mistake of ours; whoever caught the error lets it surface."""
        exchange = self._exchange
        if exchange is not None:
            exchange.break_down(now_s)
        self._transport.abort()

    # --- The reader tells ------------------------------------------------------------------------

    def is_busy(self) -> bool:
        """Tell whether an answer is still on its way, or none is given any more.

        One that the client does not read counts too, or answers would pile up here.
        """
        return self._exchange is not None or self._is_lingering or self._is_choked

    def is_turn_over(self) -> bool:
        """Tell whether the time for long reads is used up in this turn of the loop."""
        return self._backlog.is_over()

    def request_begun(self, request: Request, refusal: Refusal | None) -> None:
        """Start the request."""
        face = self._face
        self._request_count += 1
        self._is_http10 = request.is_http10
        if not request.keeps_alive or face.is_draining or self._request_count == face.max_requests:
            self._stays = False
        self._is_read = request.length == 0 or request.body != b""
        self._is_head_timed = False
        self._is_held = False
        self.deadline_s = inf
        self._exchange = exchange = face.exchange(request, self)
        clock = self._clock
        now_s = clock()
        if refusal is not None:
            self._stays = self._is_read = False
            exchange.reject(*refusal, now_s)
        elif request.method in hops.COUNTED:
            hops.begin(exchange, now_s)
        else:
            exchange.begin(now_s)

    def request_body(self, chunk: bytes) -> None:
        """Pass a piece of the body to the Exchange that it belongs to."""
        if len(chunk) > LARGE_BYTES:
            self._read_in_pieces()
        if self._exchange is not None:
            self._exchange.client_body(chunk, self._clock())

    def _read_in_pieces(self) -> None:
        """Read in small pieces from now on: much has come at once."""
        if not self._reads_pieces and self._is_reading:
            self._reads_pieces = True
            read_in_pieces(self._transport, self, self._engine.buffer)

    def request_ended(self, trailers: Fields) -> None:
        """Tell the Exchange that its request is whole."""
        self._is_read = True
        if self._exchange is not None:
            self._exchange.client_end(trailers, self._clock())

    # --- The Exchange tells ----------------------------------------------------------------------

    def send_interim(self, status: int, fields: Fields) -> None:
        """Relay an interim answer; HTTP/1.0 knows none (RFC 9110 §15.2)."""
        if not self._is_http10:
            self._out.append(interim_bytes(status, fields))

    def send_head(self, head: AnswerHead) -> None:
        """Write the head, and decide whether the connection stays."""
        self._framing = framing_of(head, is_http10=self._is_http10)
        if not self._is_read or self._framing is _CLOSED:
            self._stays = False
        connection = b""
        if self._framing is _TUNNEL:
            self._stays = False
            connection = _UPGRADE
        elif not self._stays:
            connection = _CLOSE
        elif self._is_http10:
            connection = _KEEP_ALIVE
        exchange = self._exchange
        assert exchange is not None, "whoever answers is asked"
        request_id = exchange.request.request_id
        self._out.append(head_bytes(head, self._framing, request_id, connection))
        if self._framing is _TUNNEL and (early := self._reader.take_held()):
            self._pass_on(early)
            self._set_reading()

    def _pass_on(self, data: bytes) -> None:
        """Pass bytes through the tunnel, a share of them at a time."""
        exchange, reader = self._exchange, self._reader
        assert exchange is not None, "a tunnel is over when its Exchange is"
        if len(data) > LARGE_BYTES:
            self._read_in_pieces()
        if reader.held_bytes:
            reader.hold(reader.take_held() + data)
        elif len(data) > LONG_READ_BYTES and self._backlog.is_over():
            reader.hold(data)
        else:
            size_bytes = exchange.tunnel.passes_on(data)
            if size_bytes < len(data):
                reader.hold(data, size_bytes)
                data = data[:size_bytes]
            exchange.client_body(data, self._clock())
        if reader.held_bytes:
            self._put_off()

    def send_body(self, chunk: bytes) -> None:
        """Write a piece of the body."""
        self._out.append(chunk_bytes(chunk) if self._framing is _CHUNKED else chunk)

    def send_end(self, trailers: Fields) -> None:
        """End the answer; close, or take the next request."""
        if self._framing is _CHUNKED:
            self._out.append(last_chunk(trailers))
        self._has_answered()

    def send_answer(self, head: AnswerHead, body: bytes) -> None:
        """Write an answer whose body has come whole with its head, and whose length is known."""
        if not self._is_read:
            self._stays = False
        connection = b""
        if not self._stays:
            connection = _CLOSE
        elif self._is_http10:
            connection = _KEEP_ALIVE
        exchange = self._exchange
        assert exchange is not None, "whoever answers is asked"
        answer = b"HTTP/1.1 %d %b%b\r\nX-Request-Id: %b%b\r\n\r\n%b" % (
            head.status,
            head.reason,
            head.lines,
            exchange.request.request_id,
            connection,
            body,
        )
        if self._out:  # an interim answer that has not left yet
            self._out.append(answer)
            self.flush()
        elif self._unsent.is_waiting:
            self._keep(answer)
        else:
            self._outbox.write(self._transport, answer)
        self._has_answered()

    def _has_answered(self) -> None:
        """Close, or take the next request."""
        self._exchange = None
        self._is_held = False
        self._server_state.total_requests += 1
        if self._is_lingering:
            return  # the client of a tunnel has left already
        if not self._stays:  # so it is where the request was not read to its end
            self._linger()
            return
        # The coarse clock is exact enough for a time of minutes.
        self.deadline_s = self._engine.deadlines.now_s + self._keepalive_timeout_s
        if self._reader.held_bytes or not self._is_reading:
            self._read_on()

    def _read_on(self) -> None:
        """Take the next request, if it is here already."""
        self.go_on()
        self._set_reading()

    def hand_over(self, exchange: Exchange) -> None:
        """Go on with another Exchange: an app answers."""
        self._exchange = exchange

    def abort(self) -> None:
        """Reset the connection: a mere end could be taken for the end of the answer."""
        self._exchange = None
        self._is_lingering = True
        self._out.clear()
        self._outbox.send()  # what was let go already may arrive
        reset(self._transport)

    def flush(self) -> None:
        """Send what was written since the last time, in one piece."""
        out = self._out
        if out:
            self._out = []
            data = out[0] if len(out) == 1 else b"".join(out)
            if self._unsent.is_waiting:
                self._keep(data)
            else:
                self._outbox.write(self._transport, data)

    def unsent_bytes(self) -> int | None:
        """Tell how much the client has not taken yet."""
        size_bytes = unsent_bytes(self._transport)
        return None if size_bytes is None else size_bytes + self._unsent.joined_bytes

    def pause_reading(self) -> None:
        """Stop reading the client."""
        self._is_held = True
        self._set_reading()

    def resume_reading(self) -> None:
        """Go on reading the client."""
        self._is_held = False
        if self._reader.held_bytes:
            self._backlog.add(self, self._reader.peer.address)
        self._set_reading()

    # --- The drain and the limits ask, and tell -------------------------------------------------

    @property
    def is_tunnel(self) -> bool:
        """Whether it carries another protocol, such as WebSocket."""
        return self._framing is Framing.TUNNEL and self._exchange is not None

    @property
    def idle_since_s(self) -> float:
        """When its last response ended, or it was accepted (loop time); inf while it is in use.

        It follows from the deadline, so that nothing has to be noted for each request.
        """
        if self._exchange is not None or self._is_lingering or self._reader.begun:
            return inf
        if self._waits_for_turn:
            return inf
        if self._request_count:
            return self.deadline_s - self._keepalive_timeout_s
        return self.deadline_s - self._face.options.head_timeout_s

    @property
    def _waits_for_turn(self) -> bool:
        """Whether a request has come that waits for its turn of the loop."""
        return self._reader.held_bytes > 0 and self._may_go_on()

    @property
    def holds_place(self) -> bool:
        """Whether it counts as a connection: it is not being refused, and has not given way."""
        place = self._place
        return place is not None and place.is_counted

    @property
    def request_count(self) -> int:
        """How many requests it has carried."""
        return self._request_count

    @property
    def spare_since_s(self) -> float:
        """Since when it is idle (loop time), inf while it may not be closed for another one.

        One that has asked for nothing yet is left alone for a moment: that may be on its way.
        """
        since_s = self.idle_since_s
        if not self._request_count and self._clock() < since_s + self._face.options.grace_s:
            return inf
        return since_s

    @property
    def waits_for_client(self) -> bool:
        """Whether its client does not read its response, or has sent a part of a head only."""
        return self._is_choked or (self._exchange is None and bool(self._reader.begun))

    def finish(self) -> None:
        """Say `Connection: close` with the response in hand; an idle connection stays open.

        Where its head has left already, without that, the next response says it: the client may
        have sent its next request before it could know.
        """
        if self._exchange is not None and not self._exchange.status:
            self._stays = False

    def shutdown(self) -> None:
        """Take no more requests: close after the response in hand, or now."""
        self._stays = False
        if self._exchange is None and not self._is_lingering:
            self._linger()

    def leave_place(self) -> None:
        """Close it, and let another one have its place now."""
        assert self._place is not None, "it was made"
        self._place.give_way()

    def give_way(self, *, at_once: bool) -> None:
        """Close it: another one has its place now."""
        if self.idle_since_s < inf and not at_once:
            self.shutdown()
        else:
            self.drop()

    def cut(self) -> None:
        """End what is in hand: the time to finish it is over."""
        if self.is_tunnel:
            assert self._exchange is not None
            self._exchange.tunnel.close(self._exchange, self._clock())
        elif self._exchange is not None or (self._reader.begun and not self._is_lingering):
            self._refuse(Failure.DRAINING, "the gateway stops, and the time to finish is over")
            self.flush()
        else:
            self.shutdown()

    def drop(self) -> None:
        """Close at once, whatever has not been sent yet."""
        give_up(self._transport)

    # --- Ends ------------------------------------------------------------------------------------

    def _refuse(self, failure: Failure, detail: str) -> None:
        """Say what is wrong with what the client sent; after this nothing more can be read."""
        self._stays = False
        if self._exchange is not None:
            self._exchange.client_failed(failure, detail, self._clock())
            return
        self._is_read = False
        self._exchange = exchange = self._face.unread(self._reader.peer, self)
        exchange.reject(failure, detail, self._clock())

    def _linger(self) -> None:
        """Close in a way that lets the answer arrive."""
        self.flush()
        self._is_lingering = True
        is_tunnel = self._framing is _TUNNEL  # nobody can tell what is still on its way
        has_unread = is_tunnel or not self._is_read or bool(self._reader.held_bytes)
        self.deadline_s = self._clock() + _LINGER_S
        self._let_go()
        end(self._transport, has_unread=has_unread)

    def _set_reading(self) -> None:
        """Read the client only while the Exchange wants more, and little waits behind it.

        A little is read on, because only a client that is read can be seen to leave.
        """
        should_read = not self._is_held and not self._reader.holds_enough
        is_over = self._is_lingering or self._transport.is_closing()
        if should_read != self._is_reading and not is_over:
            self._is_reading = should_read
            if should_read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

"""One connection to an instance: HTTP/1.1 spoken strictly, one Exchange at a time.

What comes in is read by `gateway.proxy.answers`. Anything that could be read in two ways ends the
connection (RFC 9112 §6.3, §11). One rule keeps answers from being mixed up: a connection goes back
to its pool only when the whole read that ended an answer had nothing behind it, and an idle
connection on which anything arrives is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from gateway.core.chunked import ChunkedReader
from gateway.core.failure import Failure
from gateway.core.headers import FramingError
from gateway.core.heads import HEAD_END, end_of_head
from gateway.core.message import NO_FIELDS, AnswerHead, fields_of
from gateway.proxy.answers import (
    FIRST_FINAL,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    SWITCHING_PROTOCOLS,
    check_head,
    read_head,
)
from gateway.proxy.loss import UNASKED, loss_of
from gateway.proxy.outbox import Outbox
from gateway.proxy.tls import was_cut
from gateway.runtime.backlog import LONG_READ_BYTES, Backlog
from gateway.runtime.pieces import LARGE_BYTES, Buffer, read_in_pieces
from gateway.runtime.secured import SecuredConnection
from gateway.runtime.unread import read_unread
from gateway.runtime.unsent import Unsent

if TYPE_CHECKING:
    from gateway.proxy.sides import Carried

# A long job may say 102 again and again, and keep-alives of proxies in between come in rows.
MAX_INTERIM_ANSWERS = 128
INTERIM_ANSWERS_PER_S = 64
_MAX_TRAILERS = 100
_HEAD_END_BYTES = len(HEAD_END)
_TUNNEL_LINGER_S = 2.0
_ALL_OF_IT = 1 << 62


class _Part(IntEnum):
    """What the next byte from the instance belongs to."""

    HEAD = 0
    LENGTH = 1  # a body of known length
    CHUNKS = 2
    END = 3  # a body that ends with the connection
    TUNNEL = 4
    OVER = 5  # nothing more: the answer is whole


# RFC 9110 §15.5.9: so some servers end a connection that was idle for long. It is no response to
# a request, and none to another one follows.
_IDLE_TIMEOUTS = (b"HTTP/1.1 408", b"HTTP/1.0 408")

_HEAD, _LENGTH, _CHUNKS, _END, _TUNNEL, _OVER = _Part


class Home(Protocol):
    """Where a connection goes when it has nothing in hand: one for each instance."""

    def __hash__(self) -> int:
        """Tell it from others: its connections take turns together."""
        ...

    def take_back(self, connection: UpstreamConnection) -> None:
        """Take a connection that may carry another Exchange."""
        ...

    def keeps_idle(self, for_s: float, now_s: float) -> None:
        """Hear from the instance for how long it keeps idle connections."""
        ...

    def unasked(self, now_s: float) -> None:
        """Hear that the instance answered a request that nobody sent."""
        ...

    def lost(self, connection: UpstreamConnection, *, idle_s: float | None) -> None:
        """Hear that a connection is closed; `idle_s` is for how long it was idle, None if busy."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """A connection to one instance; its Home made it and decides who gets it.

    `was_used` says that it carried an Exchange before, so that its sudden end may be nobody's
    fault. `idle_since_s` is when it was last given back. `made_with` is the TLS context that it was
    made with, None for a plain one.
    """

    def __init__(
        self,
        home: Home,
        clock: Callable[[], float],
        outbox: Outbox,
        backlog: Backlog,
        buffer: Buffer,
    ) -> None:
        self.was_used = False
        self.idle_since_s = 0.0
        self.is_closing = False
        self.made_with: object = None
        self._home = home
        self._clock = clock
        self._outbox = outbox
        self._backlog = backlog
        self._buffer = buffer
        self._reads_pieces = False
        self._transport: asyncio.Transport
        self._unsent: Unsent
        self._exchange: Carried | None = None
        self._part: _Part = _HEAD
        self._head: AnswerHead | None = None
        self._begun = b""
        self._parser: httptools.HttpResponseParser | None = None
        self._left_bytes = 0
        self._chunks: ChunkedReader
        self._interim_count = 0.0
        self._interim_at_s = 0.0
        self._has_extra = False
        self._is_paused = False
        self._is_choked = False
        self._begun_in = -1
        self._lingering: asyncio.TimerHandle | None = None
        self._rest = b""
        self._lost_by: Exception | None = None
        self._is_lost = False

    def __repr__(self) -> str:
        state = "closing" if self.is_closing else "busy" if self._exchange else "idle"
        return f"<UpstreamConnection {state}, used before: {self.was_used}>"

    # --- The Exchange tells ----------------------------------------------------------------------

    def begin(self, exchange: Carried, request: bytes) -> None:
        """Carry this Exchange from now on, and send the first bytes of its request."""
        self._exchange = exchange
        self._part = _HEAD
        self._head = None
        self._interim_count = 0
        self._begun_in = self._outbox.round
        self._outbox.write(self._transport, request)

    def write(self, chunk: bytes) -> None:
        """Send more of the request."""
        if self._unsent.is_waiting:
            self._unsent.add(chunk)
            self._look_at_unsent()
        else:
            self._outbox.write(self._transport, chunk)

    def pause_reading(self) -> None:
        """Stop reading the answer."""
        self._is_paused = True
        if not self._is_lost:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading the answer."""
        self._is_paused = False
        if self._rest:
            self._backlog.add(self, self._home)
        elif not self._is_lost:
            self._transport.resume_reading()

    def leave(self) -> None:
        """Let the Exchange go, and close: after a tunnel by and by, else at once."""
        self._exchange = None
        if self._part is _TUNNEL:
            self._close_tunnel()
        else:
            self.abort()

    def finish(self, now_s: float) -> None:
        """Let the Exchange go, told whole both ways; go home, or close."""
        self._exchange = None
        head = self._head
        if (
            head is not None
            and head.keeps_alive
            and not (self._has_extra or self._unsent.is_waiting)
        ):
            self.was_used = True
            self.idle_since_s = now_s
            if self._is_paused:
                self.resume_reading()
            if head.idle_timeout_s is not None:
                self._home.keeps_idle(head.idle_timeout_s, now_s)
            self._home.take_back(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Let the Exchange go and close at once; nothing is told to it any more."""
        self._exchange = None
        self.is_closing = True
        self._transport.abort()

    # --- The transport tells ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._unsent = Unsent(self._transport)

    def data_received(self, data: bytes) -> None:
        """Take what the instance sent, and tell the Exchange what it means."""
        exchange = self._exchange
        now_s = self._clock()
        if exchange is None or self._begun_in == self._outbox.round:
            if exchange is None or self.was_used:
                self._let_go_unasked(exchange, data, now_s)
                return
            # It speaks first. Nobody else can be meant by that, but what it says to the request
            # that leaves now would answer the next one.
            self._has_extra = True
        try:
            try:
                start = self._read_head(exchange, data, 0, now_s) if self._part is _HEAD else 0
                if start < len(data):
                    self._read_in_time(exchange, data, start, now_s)
            except FramingError as error:
                self._went_wrong(exchange, str(error), now_s)
            if self._exchange is exchange:
                if self._part is _OVER:
                    self._tell_end(exchange, now_s)
                exchange.client.flush()
        except Exception:  # a mistake of ours: the instance is not to blame, and the loop logs it
            exchange.break_down(now_s)
            raise

    def _put_off(self, rest: bytes) -> None:
        """Keep the rest of what was read for later turns, and read no more until then."""
        if not (self._rest or self._is_paused or self._is_lost):
            self._transport.pause_reading()
        self._rest = rest
        self._backlog.add(self, self._home)

    def go_on(self) -> None:
        """Look at the next share of what was put off, unless it is held back; then read on."""
        if self._is_paused:
            return
        rest, self._rest = self._rest, b""
        if self._exchange is not None:
            self.data_received(rest)
        self._has_gone_on()

    def _has_gone_on(self) -> None:
        """Read on if all was looked at; tell that the connection is lost if it was meanwhile."""
        exchange = self._exchange
        if self._rest:
            return
        if self._is_lost and exchange is not None:
            self._end(exchange, self._clock())
        elif not self._is_paused and not self.is_closing:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """Take the end of the stream: nobody may begin on it any more."""
        self.is_closing = True
        if self._exchange is not None and self._begun_in == self._outbox.round:
            self._exchange.anything_sent = False  # the request has not left, and does not any more
        if self._part is _TUNNEL:
            self._let_go()  # what the client said last may still leave
            self._linger()
        else:
            self._transport.abort()  # no answer comes any more: the rest of a request is let go
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Find out what the end of the connection means for the Exchange in hand.

        What came before the end is looked at before it.
        """
        self.is_closing = True
        if self._lingering is not None:
            self._lingering.cancel()
        exchange, now_s = self._exchange, self._clock()
        if exchange is None:
            self._home.lost(self, idle_s=now_s - self.idle_since_s if self.was_used else None)
            return
        self._home.lost(self, idle_s=None)
        self._is_lost, self._lost_by = True, exc
        if exc is not None:
            self._read_unread()
        if not self._rest and self._exchange is exchange:
            self._end(exchange, now_s)

    def _read_unread(self) -> None:
        """Read what came before a write failed: it may be the response that refuses the request."""
        transport = self._transport
        if isinstance(transport, SecuredConnection):
            unread = transport.read_unread()
        else:
            unread = read_unread(transport)
        if self._rest or self._is_paused:
            self._rest += unread
        elif unread:
            self.data_received(unread)

    def _end(self, exchange: Carried, now_s: float) -> None:
        """Tell the Exchange in hand that the connection is lost."""
        self._exchange = None
        try:
            self._tell_lost(exchange, self._lost_by, now_s)
        except Exception:  # as above
            exchange.break_down(now_s)
            raise

    def pause_writing(self) -> None:
        """Join what is written from now on: the instance takes no more for now."""
        self._unsent.paused()
        if self._exchange is not None:
            self._look_at_unsent()
        elif not self.is_closing:
            self.abort()  # it has answered before it took the request: the next one may not follow

    def resume_writing(self) -> None:
        """Write what was joined, and let the Exchange go on."""
        self._unsent.let_go()
        if self._is_choked and not self._unsent.is_full:
            self._is_choked = False
            if self._exchange is not None:
                self._exchange.upstream_resumed(self._clock())

    def _look_at_unsent(self) -> None:
        """Let the Exchange stop if too much waits for the instance."""
        if not self._is_choked and self._unsent.is_full:
            self._is_choked = True
            if self._exchange is not None:
                self._exchange.upstream_paused()

    def _let_go(self) -> None:
        """Hand all that was written to the transport, so that it can be closed behind it."""
        self._outbox.send()
        self._unsent.let_go()

    # --- What the instance sent ------------------------------------------------------------------

    def _read_in_time(self, exchange: Carried, data: bytes, start: int, now_s: float) -> None:
        """Read on, but put a long read off that this turn of the loop has no time for."""
        if len(data) - start > LONG_READ_BYTES and self._backlog.is_over():
            self._put_off(data[start:])
        else:
            self._read(exchange, data, start, now_s)

    def _read(self, exchange: Carried, data: bytes, start: int, now_s: float) -> None:
        """Read all of it from `start` on, or until the Exchange lets go; raises FramingError."""
        size_bytes, has_read_head = len(data), False
        if size_bytes > LARGE_BYTES:
            self._read_in_pieces()
        while start < size_bytes and self._exchange is exchange:
            part = self._part
            if part is _HEAD:
                if has_read_head:
                    self._put_off(data[start:])
                    return
                start = self._read_head(exchange, data, start, now_s)
                has_read_head = True
            elif part is _LENGTH:
                start = self._read_length(exchange, data, start, now_s)
            elif part is _CHUNKS:
                start = self._read_chunks(exchange, data, start, now_s)
            elif part is _OVER:
                self._has_extra = True
                self._home.unasked(now_s)
                return
            else:
                self._read_rest(exchange, data[start:] if start else data, now_s)
                return

    def _read_in_pieces(self) -> None:
        """Read in small pieces from now on: much has come at once."""
        if not self._reads_pieces and not self._is_paused:
            self._reads_pieces = True
            read_in_pieces(self._transport, self, self._buffer)

    def _read_head(self, exchange: Carried, data: bytes, start: int, now_s: float) -> int:
        """Read on in a head; return where it ended, or the data did."""
        found = data.find(HEAD_END, start)
        if self._begun or not start <= found < start + LONG_READ_BYTES:
            end, raw = self._read_long_head(data, start)
            if not raw:
                return end
        else:
            end = found + _HEAD_END_BYTES
            raw = data[start:end]
            check_head(raw, None)
        head = read_head(raw, exchange.request)
        if head.length and head.length == len(data) - end and head.has_body:
            # Most answers are small: their body has come with their head, and nothing else.
            self._head, self._part = head, _OVER
            exchange.upstream_answer(head, data[end:], now_s)
            return len(data)
        self._take_head(exchange, head, now_s)
        return end

    def _read_long_head(self, data: bytes, start: int) -> tuple[int, bytes]:
        """Read on in a head that is long, or comes in pieces, if this turn has time for it.

        Return where it ended, or the data did, and the head: empty if it is not whole yet.
        """
        if len(data) - start > LONG_READ_BYTES and self._backlog.is_over():
            self._put_off(data[start:])
            return len(data), b""
        begun = self._begun
        end = end_of_head(begun, data, start)
        limit = start + MAX_HEAD_BYTES - len(begun)
        if not 0 < end <= limit:
            return self._begin_head(data[start:limit]), b""
        raw = data[start:end]
        check_head(raw, self._parser)
        self._begun, self._parser = b"", None
        raw = begun + raw
        if raw.count(b"\n") > MAX_FIELDS:
            raise FramingError(f"the head has more than {MAX_FIELDS} lines")
        return end, raw

    def _begin_head(self, piece: bytes) -> int:
        """Keep a piece of a head that is not whole yet; what follows the limit is not looked at."""
        self._parser = check_head(piece, self._parser)
        self._begun += piece
        if len(self._begun) >= MAX_HEAD_BYTES:
            raise FramingError("the head or the trailers are too long")
        return _ALL_OF_IT

    def _take_head(self, exchange: Carried, head: AnswerHead, now_s: float) -> None:
        """Find out what follows a head, and tell it."""
        status = head.status
        if status < FIRST_FINAL and status != SWITCHING_PROTOCOLS:
            self._count_interim(now_s)
            exchange.upstream_interim(status, fields_of(head.lines), now_s)
            return
        self._head = head
        if status == SWITCHING_PROTOCOLS:
            self._part = _TUNNEL
            exchange.upstream_switched(head, now_s)
            return
        if not head.has_body or head.length == 0:
            self._part = _OVER
        elif head.length is not None:
            self._part = _LENGTH
            self._left_bytes = head.length
        elif head.is_chunked:
            self._part = _CHUNKS
            self._chunks = ChunkedReader(
                max_trailer_bytes=MAX_HEAD_BYTES, max_trailer_fields=_MAX_TRAILERS
            )
        else:
            self._part = _END
        exchange.upstream_head(head, now_s)

    def _count_interim(self, now_s: float) -> None:
        """Count an interim answer; so many may come at once, and so many more each second."""
        earlier = self._interim_count - (now_s - self._interim_at_s) * INTERIM_ANSWERS_PER_S
        self._interim_count = max(earlier, 0.0) + 1
        self._interim_at_s = now_s
        if self._interim_count > MAX_INTERIM_ANSWERS:
            raise FramingError("endless interim answers")

    def _read_rest(self, exchange: Carried, data: bytes, now_s: float) -> None:
        """Read what has no end of its own: a tunnel, or a body that ends with the connection."""
        if self._part is _TUNNEL:
            size_bytes = exchange.tunnel.passes_back(data)
            if size_bytes < len(data):
                self._put_off(data[size_bytes:])
                data = data[:size_bytes]
        exchange.upstream_body(data, now_s)

    def _read_length(self, exchange: Carried, data: bytes, start: int, now_s: float) -> int:
        end = min(start + self._left_bytes, len(data))
        self._left_bytes -= end - start
        if not self._left_bytes:
            self._part = _OVER
        exchange.upstream_body(data if end - start == len(data) else data[start:end], now_s)
        return end

    def _read_chunks(self, exchange: Carried, data: bytes, start: int, now_s: float) -> int:
        def tell(piece: bytes) -> None:
            if self._exchange is exchange:
                exchange.upstream_body(piece, now_s)

        end = self._chunks.feed(data, start, tell)
        if self._chunks.is_over:
            self._part = _OVER
        elif end < len(data) and self._exchange is exchange:
            self._put_off(data[end:])
            return len(data)
        return end

    # --- What it means ---------------------------------------------------------------------------

    def _tell_end(self, exchange: Carried, now_s: float) -> None:
        """Tell that the answer is whole, with its trailers.

        Fields that came behind the answer must not be taken for them.
        """
        head = self._head
        is_chunked = head is not None and head.is_chunked and head.has_body
        has_trailers = is_chunked and not self._has_extra
        exchange.upstream_end(self._chunks.trailers if has_trailers else NO_FIELDS, now_s)

    def _close_tunnel(self) -> None:
        """Close when the last bytes have left and the instance has ended too, or its time is over.

        Closing with unread bytes would make the kernel send a reset, which may destroy the last.
        """
        if self.is_closing:
            return  # the instance was first
        self.is_closing = True
        self._linger()
        self._let_go()
        transport = self._transport
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # TLS cannot end one direction alone

    def _linger(self) -> None:
        if self._lingering is None:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(_TUNNEL_LINGER_S, self._transport.abort)

    def _went_wrong(self, exchange: Carried, detail: str, now_s: float) -> None:
        """End the connection, and say why."""
        self.abort()
        exchange.upstream_failed(Failure.BAD_RESPONSE, detail, now_s)

    def _tell_lost(self, exchange: Carried, exc: Exception | None, now_s: float) -> None:
        head = self._head
        is_end = head is not None and exc is None and head.ends_with_connection
        is_cut = is_end and was_cut(self._transport)
        if is_end and not is_cut:
            self._exchange = None
            exchange.upstream_end([], now_s)
            exchange.client.flush()
            return
        failure, detail = loss_of(
            exc,
            is_cut=is_cut,
            has_head=head is not None,
            has_begun=bool(self._begun or self._interim_count),
            was_used=self.was_used,
        )
        exchange.upstream_failed(failure, detail, now_s)

    def _let_go_unasked(self, exchange: Carried | None, data: bytes, now_s: float) -> None:
        """End the connection: whatever this is, it answers no request that leaves later.

        A request that was given this connection, and has not left yet, goes out on another one.
        """
        if exchange is None and self._part is _TUNNEL:
            return  # it comes behind our end
        self.abort()
        if not data.startswith(_IDLE_TIMEOUTS):
            self._home.unasked(now_s)
        if exchange is not None:
            exchange.anything_sent = False
            exchange.upstream_failed(Failure.STALE_CONNECTION, UNASKED, now_s)

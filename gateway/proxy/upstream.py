"""One connection to an instance: HTTP/1.1 spoken strictly, one Exchange at a time.

What comes in is parsed by llhttp in its strict mode and checked once more where that is lenient.
Anything that could be read in two ways ends the connection (RFC 9112 §6.3, §11). One rule keeps
answers from being mixed up: a connection goes back to its pool only when the whole read that ended
an answer had nothing behind it, and an idle connection on which anything arrives is closed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from gateway.core.failure import Failure
from gateway.core.headers import FramingError, connection_names, read_answer
from gateway.core.message import NO_FIELDS, AnswerHead, Fields
from gateway.proxy.tls import reason_of, was_cut
from gateway.proxy.tunnel import switched_to

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

MAX_HEAD_BYTES = 64 * 1024
MAX_INTERIM_ANSWERS = 32
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL = 200
_TUNNEL_LINGER_S = 2.0
_HEAD_END = b"\r\n\r\n"
_CONTROLS = frozenset(range(32)) - {9} | {127}


class Home(Protocol):
    """Where a connection goes when it has nothing in hand."""

    def take_back(self, connection: UpstreamConnection, now_s: float) -> None:
        """Take a connection that may carry another Exchange."""
        ...

    def lost(self, connection: UpstreamConnection, *, idle_s: float | None) -> None:
        """Hear that a connection is closed; `idle_s` is for how long it was idle, None if busy."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """A connection to one instance; its Home made it and decides who gets it.

    `was_used` says that it carried an Exchange before, so that its sudden end may be nobody's
    fault. `idle_since_s` is when it was last given back.
    """

    def __init__(self, home: Home, clock: Callable[[], float]) -> None:
        self.was_used = False
        self.idle_since_s = 0.0
        self.is_closing = False
        self._home = home
        self._clock = clock
        self._transport: asyncio.Transport
        self._exchange: Exchange | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._to_head = False
        self._head: AnswerHead | None = None
        self._fields: Fields = []
        self._reason = b""
        self._got_bytes = 0
        self._interim_count = 0
        self._is_complete = False
        self._has_extra = False
        self._is_tunnel = False
        self._wrong = ""

    def __repr__(self) -> str:
        state = "closing" if self.is_closing else "busy" if self._exchange else "idle"
        return f"<UpstreamConnection {state}, used before: {self.was_used}>"

    # --- The Exchange tells ----------------------------------------------------------------------

    def begin(self, exchange: Exchange, request: bytes, *, to_head: bool) -> None:
        """Carry this Exchange from now on, and send the first bytes of its request."""
        self._exchange = exchange
        self._to_head = to_head
        self._head = None
        self._fields = []
        self._reason = b""
        self._got_bytes = 0
        self._interim_count = 0
        self._is_complete = False
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)

    @property
    def idle_timeout_s(self) -> float | None:
        """For how long the instance said that it keeps this connection idle, None if it did not."""
        return self._head.idle_timeout_s if self._head is not None else None

    def write(self, chunk: bytes) -> None:
        """Send more of the request."""
        self._transport.write(chunk)

    def pause_reading(self) -> None:
        """Stop reading the answer."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading the answer."""
        self._transport.resume_reading()

    def finish(self, *, is_reusable: bool) -> None:
        """Let the Exchange go after its answer; go home, or close."""
        self._exchange = None
        head = self._head
        if self._is_tunnel:
            self._close_tunnel()
        elif is_reusable and head is not None and head.keeps_alive and not self._has_extra:
            self.was_used = True
            self._transport.resume_reading()
            self.idle_since_s = self._clock()
            self._home.take_back(self, self.idle_since_s)
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

    def data_received(self, data: bytes) -> None:
        """Take what the instance sent, and tell the Exchange what it means."""
        exchange = self._exchange
        if exchange is None:
            self.abort()  # nobody asked: whatever this is, it is no answer to the next request
            return
        self._got_bytes += len(data)
        try:
            self._feed(exchange, data)
            if self._wrong or self._got_bytes > MAX_HEAD_BYTES:
                self._went_wrong()
            if self._exchange is exchange:
                if self._is_complete:
                    if self._to_head and data.find(_HEAD_END) != len(data) - len(_HEAD_END):
                        self._has_extra = True  # the parser was dropped, it cannot say
                    # Fields that came behind the answer must not be taken for its trailers.
                    trailers = NO_FIELDS if self._has_extra else self._fields
                    exchange.upstream_end(trailers, self._clock())
                exchange.client.flush()
        except Exception:  # a mistake of ours: the instance is not to blame, and the loop logs it
            exchange.break_down(self._clock())
            raise

    def eof_received(self) -> bool:
        """Take the end of the stream: nobody may begin on it any more."""
        self.is_closing = True
        if not self._is_tunnel:
            self._transport.abort()  # no answer comes any more: the rest of a request is let go
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Find out what the end of the connection means for the Exchange in hand."""
        self.is_closing = True
        exchange, self._exchange = self._exchange, None
        self._parser = None
        now_s = self._clock()
        if exchange is None:
            self._home.lost(self, idle_s=now_s - self.idle_since_s if self.was_used else None)
            return
        self._home.lost(self, idle_s=None)
        try:
            self._tell_lost(exchange, exc, now_s)
        except Exception:  # as above
            exchange.break_down(now_s)
            raise

    def pause_writing(self) -> None:
        """Pass on that the instance takes no more for now."""
        if self._exchange is not None:
            self._exchange.upstream_paused()

    def resume_writing(self) -> None:
        """Pass on that the instance takes more again."""
        if self._exchange is not None:
            self._exchange.upstream_resumed(self._clock())

    # --- The parser tells ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Notice a second answer where one was asked for."""
        if self._is_complete:
            self._has_extra = True

    def on_status(self, reason: bytes) -> None:
        """Take (a piece of) the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the head: interim, or final."""
        if self._has_extra or self._exchange is None:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        if not self._is_acceptable(status):
            return
        try:
            head = read_answer(status, self._reason, self._fields, to_head=self._to_head)
        except FramingError as error:
            self._wrong = str(error)
            return
        if status == _SWITCHING_PROTOCOLS:
            self._switch(self._exchange, head)
            return
        if status < _FIRST_FINAL:
            self._relay_interim(self._exchange, status)
            return
        if self._parser.get_http_version() == "1.0" and not _keeps_alive_in_1_0(self._fields):
            head.keeps_alive = False
        self._head = head
        self._fields = []
        if self._to_head:
            # llhttp expects the body that the head announces; this answer has none.
            self._is_complete = True
            self._parser = None
        self._exchange.upstream_head(head, self._clock())

    def on_body(self, chunk: bytes) -> None:
        """Take a piece of the body; behind a complete answer it is extra."""
        if self._is_complete:
            self._has_extra = True
        elif self._exchange is not None and self._head is not None:
            self._got_bytes = 0  # the limit is on what is no body: heads, chunk lines, trailers
            self._exchange.upstream_body(chunk, self._clock())

    def on_message_complete(self) -> None:
        """Notice the end of the answer; it is told when the whole read was looked at."""
        if self._head is not None and not self._is_tunnel:
            self._is_complete = True

    def _feed(self, exchange: Exchange, data: bytes) -> None:
        """Let the parser read; after a switch of protocols there is nothing to parse."""
        if self._is_tunnel:
            self._got_bytes = 0
            exchange.upstream_body(data, self._clock())
            return
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            if self._is_tunnel and (rest := data[switch.args[0] :]):
                exchange.upstream_body(rest, self._clock())
        except httptools.HttpParserCallbackError:
            raise  # what was raised in a callback is no fault of the instance
        except httptools.HttpParserError as error:
            self._wrong = self._wrong or str(error)

    # --- What it means ---------------------------------------------------------------------------

    def _is_acceptable(self, status: int) -> bool:
        assert self._parser is not None
        if status == _SWITCHING_PROTOCOLS and not self._may_switch():
            self._wrong = "it switches to a protocol that nobody asked for"
        elif status < 100:  # noqa: PLR2004 -- RFC 9110 §15: a status has three digits, from 100
            self._wrong = f"status {status}"
        elif self._parser.get_http_version() not in {"1.1", "1.0"}:
            self._wrong = "it is not HTTP/1"
        elif not _CONTROLS.isdisjoint(self._reason):
            self._wrong = "control characters in the reason phrase"
        elif self._got_bytes > MAX_HEAD_BYTES and self._size_of_head() > MAX_HEAD_BYTES:
            self._wrong = "the head is too long"
        return not self._wrong

    def _may_switch(self) -> bool:
        """Tell whether a 101 is what was asked for, and in HTTP/1.1 (RFC 9110 §7.8)."""
        assert self._exchange is not None
        assert self._parser is not None
        offered = self._exchange.request.upgrade
        is_1_1 = self._parser.get_http_version() == "1.1"
        return bool(offered) and is_1_1 and switched_to(self._fields) == offered

    def _size_of_head(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self._fields)

    def _relay_interim(self, exchange: Exchange, status: int) -> None:
        self._interim_count += 1
        if self._interim_count > MAX_INTERIM_ANSWERS:
            self._wrong = "endless interim answers"
        else:
            exchange.upstream_interim(status, self._fields)
        self._fields = []
        self._reason = b""

    def _switch(self, exchange: Exchange, head: AnswerHead) -> None:
        """Become a tunnel: from here on bytes pass as they are."""
        self._is_tunnel = True
        self._head = head
        head.fields.append((b"Upgrade", exchange.request.upgrade))
        exchange.upstream_switched(head, self._clock())

    def _close_tunnel(self) -> None:
        """Close when the last bytes have left, or cannot leave."""
        self.is_closing = True
        self._transport.close()
        asyncio.get_running_loop().call_later(_TUNNEL_LINGER_S, self._transport.abort)

    def _went_wrong(self) -> None:
        """End the connection; what is wrong behind a complete answer is nobody's concern."""
        if self._is_complete:
            self._has_extra = True
            return
        exchange = self._exchange
        detail = self._wrong or "the head or the trailers are too long"
        self.abort()
        if exchange is not None:
            exchange.upstream_failed(Failure.BAD_RESPONSE, detail, self._clock())

    def _tell_lost(self, exchange: Exchange, exc: Exception | None, now_s: float) -> None:
        head = self._head
        is_end = head is not None and exc is None and head.ends_with_connection
        is_cut = is_end and was_cut(self._transport)
        if is_end and not is_cut:
            self._exchange = None
            exchange.upstream_end([], now_s)
            exchange.client.flush()
            return
        how = "reset the connection" if exc else "closed the connection"
        if isinstance(exc, ssl.SSLError):
            how = f"ended the TLS session ({reason_of(exc)})"
        elif is_cut:
            how = "closed the connection without ending the TLS session"
        if head is not None:
            failure, when = Failure.UPSTREAM_BROKE_OFF, "inside the answer"
        elif self._got_bytes:
            failure, when = Failure.DISCONNECTED_EARLY, "inside the head of the answer"
        elif self.was_used:
            failure, when = Failure.STALE_CONNECTION, "before it could read the request"
        else:
            failure, when = Failure.DISCONNECTED_EARLY, "before it answered"
        exchange.upstream_failed(failure, f"the instance {how} {when}", now_s)


def _keeps_alive_in_1_0(fields: Fields) -> bool:
    """Tell whether an HTTP/1.0 answer leaves the line open: it says so, and it is not chunked.

    RFC 9112 §9.3, and §6.1: transfer codings in HTTP/1.0 are faulty framing.
    """
    says_so = False
    for name, value in fields:
        lower = name.lower()
        if lower == b"transfer-encoding":
            return False
        if lower == b"connection" and b"keep-alive" in connection_names(value):
            says_so = True
    return says_so

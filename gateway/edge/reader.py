"""Reads requests from a client's bytes: llhttp in its strict mode, and what it lets pass.

It knows no socket and no time. Bytes go in, calls to a Receiver come out, and what is wrong comes
back as a named failure. The one rule: any bytes, split in any way, give the same requests or the
same failure. So they are cut where a head, a size line of a chunk or a body may end, the parser is
never fed past such a place, and each limit is counted on the bytes that it was fed, before more
memory is spent.

A request is read at a time: what follows one that is not answered yet is held, unread.

A method that llhttp does not know gets 400, not 501: it cannot be told from bytes that are no HTTP
at all, and those must not look like an error of ours (RFC 9110 §9.1 leaves the choice).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NoReturn, Protocol

import httptools

from gateway.core.failure import Failure
from gateway.core.headers import is_valid_host
from gateway.core.message import Fields, Peer, Request
from gateway.edge.accept import Refusal, accept

# llhttp also takes RTSP and ICE, and several spaces; a fragment is not sent (RFC 9110 §4.2.5).
_START_LINE: Final = re.compile(rb"([A-Z-]+) ([!\"$-~]+) HTTP/1\.([01])\r\n")
_ABSOLUTE: Final = re.compile(rb"https?://(?P<host>[^/?]+)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_HEAD_END: Final = b"\r\n\r\n"
_LINE_ENDS: Final = frozenset(b"\r\n")
# A size of 64 bits has 16 digits; what else is here are extensions, which nobody needs.
_MOST_SIZE_LINE_BYTES: Final = 256


class _Part(IntEnum):
    """What the next byte belongs to; HEAD is also what lies between two requests."""

    HEAD = 0
    BODY = 1  # of known length
    SIZE_LINE = 2
    CHUNK = 3  # with the line end behind it
    TRAILERS = 4
    NOTHING = 5  # no further request is read


_HEAD, _BODY, _SIZE_LINE, _CHUNK, _TRAILERS, _NOTHING = _Part


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderLimits:
    """How large the head of a request may be, as it is on the wire but without its empty line.

    `max_header_size_bytes` and `max_header_fields` bound the trailers as well.
    """

    max_request_line_bytes: int = 8 * 1024
    max_header_size_bytes: int = 64 * 1024
    max_header_fields: int = 100

    @property
    def max_head_bytes(self) -> int:
        """How long a whole head may be, with the ends of its first and its last line."""
        return self.max_request_line_bytes + self.max_header_size_bytes + len(_HEAD_END)


class Receiver(Protocol):
    """Whoever takes what a RequestReader reads."""

    def is_busy(self) -> bool:
        """Tell whether a request that was read is not answered yet: the next one must wait."""
        ...

    def request_begun(
        self, request: Request, refusal: Refusal | None, *, is_http10: bool, stays: bool
    ) -> None:
        """Take a request's head; `stays` says whether the client wants the connection kept.

        A refused one is the last: nothing more of it is read.
        """
        ...

    def request_body(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        ...

    def request_ended(self, trailers: Fields) -> None:
        """Hear that the request is whole."""
        ...


class RequestReader:
    """Reads the requests of one connection, one after the other.

    `has_partial_head` says that a request has begun whose head is not whole yet.
    """

    def __init__(
        self,
        receiver: Receiver,
        peer: Peer,
        *,
        limits: ReaderLimits,
        next_id: Callable[[], bytes],
    ) -> None:
        self._receiver = receiver
        self.peer = peer
        self._limits = limits
        self._max_head_bytes = limits.max_head_bytes
        self._next_id = next_id
        self._parser = httptools.HttpRequestParser(self)
        self._part: _Part = _HEAD
        self._piece = b""
        self._line = b""
        self._head_bytes = 0
        self._left_bytes = 0
        self._is_near_end = False
        self._fields: Fields = []
        self._stays = True
        self._held = b""
        self._wrong: Refusal | None = None
        self.has_partial_head = False

    def __repr__(self) -> str:
        return f"<RequestReader {self._part.name}, {len(self._held)} bytes held>"

    def feed(self, data: bytes) -> Refusal | None:
        """Read bytes; return what is wrong with them, after which nothing more can be read."""
        if self._held:
            self._held += data
            return None
        start, size_bytes = 0, len(data)
        while start < size_bytes and self._part is not _NOTHING:
            if self._part is _HEAD and not self.has_partial_head:
                if self._receiver.is_busy():
                    self._held = data[start:]
                    return None
                if data[start] in _LINE_ENDS:  # RFC 9112 §2.2: empty lines before a request
                    start = size_bytes - len(data[start:].lstrip(b"\r\n"))
                    continue
            end = self._end_of_piece(data, start)
            wrong = self._parse(data if end - start == size_bytes else data[start:end])
            if wrong is not None:
                self._part = _NOTHING
                return wrong
            start = end
        return None

    @property
    def is_holding(self) -> bool:
        """Whether bytes are held that came before the request in front of them was answered."""
        return bool(self._held)

    def take_held(self) -> bytes:
        """Give what is held: to be fed again, or to whoever speaks the new protocol."""
        held, self._held = self._held, b""
        return held

    # --- The bytes are cut -----------------------------------------------------------------------

    def _end_of_piece(self, data: bytes, start: int) -> int:
        """Find how far the parser may be fed: to where something may end, or to a limit."""
        part = self._part
        if part is _BODY or part is _CHUNK:
            return min(start + self._left_bytes, len(data))
        if part is _SIZE_LINE:
            return data.find(b"\n", start) + 1 or len(data)
        if self._is_near_end:
            return start + 1  # the line ends before it belong to the same empty line
        found = data.find(_HEAD_END, start)
        end = len(data) if found < 0 else found + len(_HEAD_END)
        return min(end, start + self._max_head_bytes - self._head_bytes)

    def _parse(self, piece: bytes) -> Refusal | None:
        part = self._part
        self._piece = piece
        if part is _BODY or part is _CHUNK:
            self._left_bytes -= len(piece)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._go_on_behind_an_offer()
        except httptools.HttpParserError as error:
            return self._what_is_wrong(error)
        if part is _SIZE_LINE:
            return self._has_read_of_size_line(piece)
        if part is _CHUNK:
            if self._left_bytes == 0:
                self._part = _SIZE_LINE
        elif self.has_partial_head or self._part is _TRAILERS:
            return self._has_read_of_fields(piece)
        return None

    def _has_read_of_fields(self, piece: bytes) -> Refusal | None:
        """Go on in a head or in trailers that are not whole yet, if they are not too long."""
        self._head_bytes += len(piece)
        self._is_near_end = piece[-1] in _LINE_ENDS
        if b"\r\n" not in self._line:
            self._line += piece
        if self._head_bytes < self._max_head_bytes:
            return None
        line_bytes = self._line.find(b"\r\n")
        if self.has_partial_head and not 0 <= line_bytes <= self._limits.max_request_line_bytes:
            return self._too_long_line()
        return self._too_large_fields()

    def _has_read_of_size_line(self, line: bytes) -> Refusal | None:
        self._line += line
        if len(self._line) > _MOST_SIZE_LINE_BYTES:
            return Failure.BAD_REQUEST, "there are chunk extensions without end"
        if self._line.endswith(b"\n"):
            size_bytes = int(self._line.partition(b";")[0], 16)
            self._line = b""
            self._part = _CHUNK if size_bytes else _TRAILERS
            self._left_bytes = size_bytes + len(b"\r\n") if size_bytes else 0
            self._head_bytes = self._limits.max_request_line_bytes  # trailers have no such line
            self._is_near_end = True
        return None

    def _go_on_behind_an_offer(self) -> None:
        """Go on as if no other protocol were offered; it is not decided here whether it is taken.

        The parser takes all that follows an offer for the new protocol's, even a body. So a new one
        reads that, from a head that says just how long it is.
        """
        if self._part is _HEAD:
            self._parser = httptools.HttpRequestParser(self)
            return
        framing = b"Transfer-Encoding: chunked"
        if self._part is _BODY:
            framing = b"Content-Length: %d" % self._left_bytes
        self._parser = httptools.HttpRequestParser(_BodyBehindOffer(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        self._fields = []

    def end_body_behind_offer(self) -> None:
        """Go back to reading whole requests."""
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_complete()

    def _what_is_wrong(self, error: httptools.HttpParserError) -> Refusal | None:
        """Tell what ended the parser's run; raises what a callback raised by mistake."""
        if self._wrong is not None or self._part is _NOTHING:
            return self._wrong
        if isinstance(error, httptools.HttpParserCallbackError) and error.__context__ is not None:
            raise error.__context__ from None  # a mistake of ours, not the client's
        return Failure.BAD_REQUEST, str(error)

    # --- The parser tells ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._line = b""
        self._head_bytes = 0
        self._is_near_end = False
        self.has_partial_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers; one more than may be is enough to know."""
        if len(self._fields) <= self._limits.max_header_fields:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Make the request, and say what is wrong with it, if anything is."""
        self.has_partial_head = False
        line = _START_LINE.match(self._line + self._piece if self._line else self._piece)
        fields = self._take_fields()
        if line is None:
            self._stop(Failure.BAD_REQUEST, "the request line is not valid, or not of HTTP/1")
        self._check_size(line.end())
        is_http10 = line[3] == b"0"
        request = Request(line[1], b"", query=b"", fields=fields, host=b"")
        request.peer = self.peer
        refusal = accept(request, "1.0" if is_http10 else "1.1", self._next_id)
        problem = read_target(request, line[2])
        refusal = refusal or problem
        self._stays = refusal is None and self._parser.should_keep_alive()
        if request.length != 0:
            self._left_bytes = request.length or 0
            self._part = _BODY if request.length else _SIZE_LINE
            self._line = b""
        self._receiver.request_begun(request, refusal, is_http10=is_http10, stays=self._stays)
        if refusal is not None:
            self._part = _NOTHING
            raise _StopReading

    def on_body(self, chunk: bytes) -> None:
        """Pass a piece of the body on."""
        self._receiver.request_body(chunk)

    def on_message_complete(self) -> None:
        """Pass the end of the request on."""
        if self._left_bytes or self._part is _SIZE_LINE:
            return  # what is over is the head of an offer, and its body follows
        trailers = self._take_fields()
        self._part = _HEAD if self._stays else _NOTHING
        self._receiver.request_ended(trailers)

    def _take_fields(self) -> Fields:
        fields, self._fields = self._fields, []
        if len(fields) > self._limits.max_header_fields:
            limit = self._limits.max_header_fields
            self._stop(Failure.HEADERS_TOO_LARGE, f"there are more than {limit} header fields")
        return fields

    def _check_size(self, line_end: int) -> None:
        """Refuse a head that is too large; `line_end` is where its first line ends."""
        if line_end - len(b"\r\n") > self._limits.max_request_line_bytes:
            self._stop(*self._too_long_line())
        fields_bytes = self._head_bytes + len(self._piece) - line_end - len(b"\r\n")
        if fields_bytes > self._limits.max_header_size_bytes:
            self._stop(*self._too_large_fields())

    def _too_long_line(self) -> Refusal:
        limit_bytes = self._limits.max_request_line_bytes
        return Failure.URI_TOO_LONG, f"the request line is over {limit_bytes} bytes"

    def _too_large_fields(self) -> Refusal:
        limit_bytes = self._limits.max_header_size_bytes
        return Failure.HEADERS_TOO_LARGE, f"the header fields are over {limit_bytes} bytes"

    def _stop(self, failure: Failure, detail: str) -> NoReturn:
        self._wrong = (failure, detail)
        raise _StopReading


class _BodyBehindOffer:
    """What a parser tells that reads nothing but one body."""

    def __init__(self, reader: RequestReader) -> None:
        self.on_header = reader.on_header
        self.on_body = reader.on_body
        self.on_message_complete = reader.end_body_behind_offer


class _StopReading(Exception):  # noqa: N818 -- it is caught by the parser, not by people
    """Ends the parser's run; the reason is in the reader."""


def read_target(request: Request, target: bytes) -> Refusal | None:
    """Split a request target into path and query; return why it is refused, None if it is not.

    An absolute target names the host, whatever Host says (RFC 9112 §3.2.2); it takes its place.
    OPTIONS may ask for no path at all (§3.2.4): then the path is `*`.
    """
    is_for_all = request.method == b"OPTIONS" and target == b"*"
    if not target.startswith(b"/") and not is_for_all:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or not is_valid_host(absolute["host"]):
            return Failure.BAD_REQUEST, "the target is neither a path nor a URL"
        request.host = absolute["host"]
        request.fields = [
            (name, request.host if name.lower() == b"host" else value)
            for name, value in request.fields
        ]
        target = absolute["rest"]
        is_for_all = request.method == b"OPTIONS" and not target
        if not target.startswith(b"/"):
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    request.path = b"*" if is_for_all else path
    request.query = mark + query
    return None

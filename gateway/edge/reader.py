"""Reads requests from a client's bytes: llhttp in its strict mode, and what it lets pass.

It knows no socket and no time. Bytes go in, calls to a Receiver come out, and what is wrong comes
back as a named failure. The one rule: any bytes, split in any way, give the same requests or the
same failure. So the bytes of a head are cut off at its empty line, llhttp is fed these and no
others, and each limit is counted on the bytes that it was fed, before more memory is spent.

A request is read at a time, and a share of the chunks of its body: what follows is held, unread,
until somebody asks to go on with it.

A method that llhttp does not know gets 400, not 501: it cannot be told from bytes that are no HTTP
at all, and those must not look like an error of ours (RFC 9110 §9.1 leaves the choice).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

import httptools

from gateway.core.chunked import ChunkedReader, TrailersError
from gateway.core.failure import Failure
from gateway.core.headers import FramingError
from gateway.core.heads import HEAD_END, end_of_head
from gateway.core.message import NO_FIELDS, Fields, Peer, Request
from gateway.edge.accept import Refusal, accept, read_target
from gateway.runtime.backlog import LONG_READ_BYTES

# llhttp also takes RTSP and ICE, and several spaces; a fragment is not sent (RFC 9110 §4.2.5).
_USUAL_LINE: Final = re.compile(rb"([A-Z-]+) (/[!\"$->@-~]*)(\?[!\"$-~]*)? HTTP/1\.1(?=\r\n)")
_START_LINE: Final = re.compile(rb"([A-Z-]+) ([!\"$-~]+) HTTP/1\.([01])(?=\r\n)")
_LINE_ENDS: Final = frozenset(b"\r\n")
_CR, _LF = b"\r\n"
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_BARE: Final = (Failure.BAD_REQUEST, "a bare CR or LF before a request")
# So many bytes of what comes too early are read on, so that the client is seen to leave.
_MOST_HELD_BYTES: Final = 16 * 1024


class _Part(IntEnum):
    """What the next byte belongs to; HEAD is also what lies between two requests."""

    HEAD = 0
    BODY = 1  # of known length
    CHUNKS = 2
    NOTHING = 3  # no further request is read
    OFFERED = 4  # the protocol that the last request offers: held until it is taken
    EMPTY_LINE = 5  # one before a request, of which only the CR has come


_HEAD, _BODY, _CHUNKS, _NOTHING, _OFFERED, _EMPTY_LINE = _Part
_HEAD_END_BYTES: Final = len(HEAD_END)
# llhttp checks; what a head says is read from its bytes.
_NOBODY: Final = object()


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
        return self.max_request_line_bytes + self.max_header_size_bytes + len(HEAD_END)

    @property
    def small_head_bytes(self) -> int:
        """How long a head may be without any need to look at the limits."""
        return min(self.plain_head_bytes, self.max_header_fields * len(b"a:\r\n"))

    @property
    def plain_head_bytes(self) -> int:
        """How long a head may be if only its number of fields can be over its limit."""
        return min(self.max_request_line_bytes, self.max_header_size_bytes)


class Receiver(Protocol):
    """Whoever takes what a RequestReader reads."""

    def is_busy(self) -> bool:
        """Tell whether a request that was read is not answered yet: the next one must wait."""
        ...

    def is_turn_over(self) -> bool:
        """Tell whether a long read must wait for a later turn of the loop."""
        ...

    def request_begun(self, request: Request, refusal: Refusal | None) -> None:
        """Take a request's head.

        A refused one is the last: nothing more of it is read. One whose length is 0 is whole, and
        so is one that has its body already.
        """
        ...

    def request_body(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        ...

    def request_ended(self, trailers: Fields) -> None:
        """Hear that the body of the request is whole."""
        ...


class RequestReader:
    """Reads the requests of one connection, one after the other.

    `begun` is what came of a head that is not whole yet. `held_bytes` is how much was not looked at
    yet: what came before the request in front of it was answered, and what is more than one feed
    looks at. Both are empty most of the time.
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
        self._small_head_bytes = limits.small_head_bytes
        self._plain_head_bytes = limits.plain_head_bytes
        self._max_fields = limits.max_header_fields
        self._next_id = next_id
        self._parser: httptools.HttpRequestParser | None = None
        self._part: _Part = _HEAD
        self.begun = b""
        self.held_bytes = 0
        self._held = b""  # of which the last `held_bytes` are still to be looked at
        self._left_bytes = 0
        self._chunks: ChunkedReader
        self._behind: _Part = _HEAD

    def __repr__(self) -> str:
        return f"<RequestReader {self._part.name}, {self.held_bytes} bytes held>"

    @property
    def holds_enough(self) -> bool:
        """Whether so much is held that the client should be read no further."""
        return self.held_bytes > _MOST_HELD_BYTES

    @property
    def is_in_body(self) -> bool:
        """Whether what comes next is a part of the request that was read last."""
        return self._part is _CHUNKS or self._part is _BODY

    def take_held(self) -> bytes:
        """Give what is held to whoever speaks the new protocol."""
        held, start = self._held, len(self._held) - self.held_bytes
        self._held, self.held_bytes = b"", 0
        return held[start:] if start else held

    def hold(self, data: bytes, start: int = 0) -> None:
        """Keep what stands there from `start` on, to be looked at later."""
        self._held, self.held_bytes = data, len(data) - start

    def close(self) -> None:
        """Know the receiver no longer: nothing more is read."""
        del self._receiver  # which knows its reader: or only the collector would free both

    def feed(self, data: bytes) -> Refusal | None:
        """Read one request, or on in one; return what is wrong, after which nothing can be read.

        What is more than that is held: `go_on` with it.
        """
        if self.held_bytes:
            self.hold(self.take_held() + data)
            return None
        if self._part is _HEAD and not self.begun and not self._receiver.is_busy():
            end = data.find(HEAD_END) + _HEAD_END_BYTES
            if _HEAD_END_BYTES < end <= self._max_head_bytes and data[0] not in _LINE_ENDS:
                if end > LONG_READ_BYTES and self._receiver.is_turn_over():
                    self.hold(data)
                    return None
                # Most often it is one whole head, perhaps with a body, and nothing else.
                if end == len(data):
                    wrong = self._check(data) or self._begin(data, b"")
                else:
                    head = data[:end]
                    wrong = self._check(head) or self._begin(head, data[end:])
                if wrong is not None:
                    self._part = _NOTHING
                return wrong
        return self._feed_in_time(data, takes_head=True)

    def _feed_in_time(self, data: bytes, *, takes_head: bool) -> Refusal | None:
        """Read on, but hold a long read that this turn of the loop has no time for."""
        if len(data) > LONG_READ_BYTES and self._receiver.is_turn_over():
            self.hold(data)
            return None
        return self._feed_pieces(data, 0, takes_head=takes_head)

    def go_on(self) -> Refusal | None:
        """Do the same with what is held."""
        held, start = self._held, len(self._held) - self.held_bytes
        self._held, self.held_bytes = b"", 0
        return self._feed_pieces(held, start, takes_head=True)

    def _feed_pieces(self, data: bytes, start: int, *, takes_head: bool) -> Refusal | None:
        """Read the rest of a request, and with `takes_head` one more; hold what follows."""
        size_bytes = len(data)
        wrong: Refusal | None = None
        while start < size_bytes and wrong is None and not self.held_bytes:
            part = self._part
            if part is _HEAD:
                if not self.begun and (first := self._first_of_head(data, start)) != start:
                    start = first
                elif takes_head:
                    start, wrong = self._read_head(data, start)
                    takes_head = False
                else:
                    self.hold(data, start)
            elif part is _BODY:
                start = self._read_body(data, start)
            elif part is _CHUNKS:
                start, wrong = self._read_chunks(data, start)
            else:
                start, wrong = self._pass_over(data, start)
        if wrong is not None:
            self._part = _NOTHING
        return wrong

    def _first_of_head(self, data: bytes, start: int) -> int:
        """Find where the next request begins; behind all of `data` if it has to wait."""
        if self._receiver.is_busy():
            self.hold(data, start)
            return len(data)
        if data[start] not in _LINE_ENDS:
            return start
        # RFC 9112 §2.2: empty lines before a request
        lines = _EMPTY_LINES.match(data, start)
        end = lines.end() if lines else start
        if end + 1 == len(data) and data[end] == _CR:
            self._part = _EMPTY_LINE  # the other half is still to come
            end += 1
        return end

    def _pass_over(self, data: bytes, start: int) -> tuple[int, Refusal | None]:
        """Take what is no part of a request; return where it ended, and what is wrong."""
        if self._part is _EMPTY_LINE:
            self._part = _HEAD
            return start + 1, None if data[start] == _LF else _BARE
        if self._part is _OFFERED:
            self.hold(data, start)
        return len(data), None

    # --- The head --------------------------------------------------------------------------------

    def _read_head(self, data: bytes, start: int) -> tuple[int, Refusal | None]:
        """Read on in a head; return where it ended, or the data did, and what is wrong."""
        begun, size_bytes = self.begun, len(data)
        if not begun and data[start] in _LINE_ENDS:
            return start, _BARE
        end = end_of_head(begun, data, start)
        limit = start + self._max_head_bytes - len(begun)
        is_whole = 0 < end <= limit
        if not is_whole:
            end = min(size_bytes, limit)
        piece = data[start:end]
        if (wrong := self._check(piece)) is not None:
            return end, wrong
        head = begun + piece
        if is_whole:
            self.begun = b""
            return end, self._begin(head, b"")
        self.begun = head
        return end, self._too_large() if len(head) >= self._max_head_bytes else None

    def _check(self, piece: bytes) -> Refusal | None:
        """Let the parser look at a piece of a head; it is strict, and knows no callbacks."""
        parser = self._parser
        if parser is None:
            self._parser = parser = httptools.HttpRequestParser(_NOBODY)
        try:
            parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._parser = None  # it would take what follows for the new protocol's
        except httptools.HttpParserError as error:
            return Failure.BAD_REQUEST, str(error)
        return None

    def _begin(self, head: bytes, rest: bytes) -> Refusal | None:
        """Make the request, and say what is wrong with it, or with the rest of what came."""
        line = _USUAL_LINE.match(head)
        if line is None:
            return self._begin_unusual(head, rest)
        method, path, query = line.groups(b"")
        line_bytes = line.end()
        lines = head[line_bytes:-4]
        if len(head) > self._small_head_bytes and (
            lines.count(b"\r\n") > self._max_fields or len(head) > self._plain_head_bytes
        ):
            wrong = self._what_is_too_large(line_bytes, lines)
            if wrong is not None:
                return wrong
        request = Request(method, path, query, lines)
        request.peer = self.peer
        refusal = accept(request, self._next_id)
        if request.length == 0 and not rest and refusal is None:
            if not request.keeps_alive:
                self._part = _behind_last(request)
            self._receiver.request_begun(request, None)
            return None
        return self._go_on(request, refusal, rest)

    def _begin_unusual(self, head: bytes, rest: bytes) -> Refusal | None:
        """Do the same for HTTP/1.0, and for targets that are more than a path."""
        line = _START_LINE.match(head)
        if line is None:
            return Failure.BAD_REQUEST, "the request line is not valid, or not of HTTP/1"
        method, target, minor = line.groups()
        lines = head[line.end() : -4]
        if (wrong := self._what_is_too_large(line.end(), lines)) is not None:
            return wrong
        request = Request(method, target, b"", lines)
        request.peer = self.peer
        request.is_http10 = minor == b"0"
        refusal = accept(request, self._next_id)
        problem = read_target(request, target)
        return self._go_on(request, refusal or problem, rest)

    def _go_on(self, request: Request, refusal: Refusal | None, rest: bytes) -> Refusal | None:
        """Tell of a request, and read what follows its head."""
        self._behind = _HEAD if request.keeps_alive else _behind_last(request)
        if refusal is not None:
            self._part = _NOTHING
        elif request.length == 0:
            self._part = self._behind
        elif request.length == len(rest) and not request.expects_continue:
            self._parser = None  # it waits for a body that it will not see
            self._part = self._behind
            request.body, rest = rest, b""
        else:
            self._expect_body(request.length)
        self._receiver.request_begun(request, refusal)
        return self._feed_in_time(rest, takes_head=False) if rest else None

    def _what_is_too_large(self, line_bytes: int, lines: bytes) -> Refusal | None:
        limits = self._limits
        if line_bytes > limits.max_request_line_bytes:
            return self._too_long_line()
        if lines.count(b"\r\n") > limits.max_header_fields:
            limit = limits.max_header_fields
            return Failure.HEADERS_TOO_LARGE, f"there are more than {limit} header fields"
        if len(lines) > limits.max_header_size_bytes:
            return self._too_large_fields()
        return None

    def _too_large(self) -> Refusal:
        """Tell what is too large of a head that has no end within the limit for all of it."""
        line_bytes = self.begun.find(b"\r\n")
        if 0 <= line_bytes <= self._limits.max_request_line_bytes:
            return self._too_large_fields()
        return self._too_long_line()

    def _too_long_line(self) -> Refusal:
        limit_bytes = self._limits.max_request_line_bytes
        return Failure.URI_TOO_LONG, f"the request line is over {limit_bytes} bytes"

    def _too_large_fields(self) -> Refusal:
        limit_bytes = self._limits.max_header_size_bytes
        return Failure.HEADERS_TOO_LARGE, f"the header fields are over {limit_bytes} bytes"

    # --- The body --------------------------------------------------------------------------------

    def _expect_body(self, length: int | None) -> None:
        self._parser = None  # it waits for a body that it will not see
        if length is not None:
            self._part = _BODY
            self._left_bytes = length
            return
        self._part = _CHUNKS
        self._chunks = ChunkedReader(
            max_trailer_bytes=self._limits.max_header_size_bytes,
            max_trailer_fields=self._limits.max_header_fields,
        )

    def _read_body(self, data: bytes, start: int) -> int:
        """Pass on what there is of a body of known length; return where that ended."""
        end = min(start + self._left_bytes, len(data))
        self._left_bytes -= end - start
        self._receiver.request_body(data if end - start == len(data) else data[start:end])
        if not self._left_bytes:
            self._end_request(NO_FIELDS)
        return end

    def _read_chunks(self, data: bytes, start: int) -> tuple[int, Refusal | None]:
        """Pass on what there is of a chunked body; return where that ended, and what is wrong."""
        chunks = self._chunks
        try:
            end = chunks.feed(data, start, self._receiver.request_body)
        except TrailersError as error:
            return start, (Failure.HEADERS_TOO_LARGE, str(error))
        except FramingError as error:
            return start, (Failure.BAD_REQUEST, str(error))
        if chunks.is_over:
            self._end_request(chunks.trailers)
        elif end < len(data):
            self.hold(data, end)
        return end, None

    def _end_request(self, trailers: Fields) -> None:
        self._part = self._behind
        self._receiver.request_ended(trailers)


def _behind_last(request: Request) -> _Part:
    """Tell what stands behind a request with `close`: never one more (RFC 9112 §9.6)."""
    return _OFFERED if request.upgrade and request.length == 0 else _NOTHING

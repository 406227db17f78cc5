"""Reads requests from a client's bytes: llhttp in its strict mode, and what it lets pass.

It knows no socket and no time. Bytes go in, calls to a Receiver come out, and what is wrong comes
back as a named failure: any bytes, split in any way, give the same requests or the same failure.
Limits are counted on the bytes that arrive, so they hold before memory is spent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import httptools

from gateway.core.failure import Failure
from gateway.core.message import Fields, Peer, Request
from gateway.edge.accept import Refusal, accept

_VERSIONS: Final = frozenset({"1.0", "1.1"})
_NOT_IN_TARGET: Final = re.compile(rb"[^\x21-\x7e]|#")
_ABSOLUTE: Final = re.compile(
    rb"https?://(?P<host>[^/?#@]+)(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
# What chunked framing may cost beside the body: extensions and trailers are bounded by it.
_FREE_OVERHEAD_BYTES: Final = 64 * 1024
_OVERHEAD_FOR_EACH_BYTE: Final = 8
_MOST_HELD_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderLimits:
    """How large the head of a request may be."""

    max_request_line_bytes: int = 8 * 1024
    max_header_size_bytes: int = 64 * 1024
    max_header_fields: int = 100


class Receiver(Protocol):
    """Whoever takes what a RequestReader reads."""

    def request_begun(
        self, request: Request, refusal: Refusal | None, *, is_http10: bool, stays: bool
    ) -> None:
        """Take a request's head; `stays` says whether the client wants the connection kept."""
        ...

    def request_body(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        ...

    def request_ended(self, trailers: Fields) -> None:
        """Hear that the request is whole."""
        ...

    def waits_for_switch(self) -> bool:
        """Tell whether the last request offers another protocol, and that is not decided yet."""
        ...


class RequestReader:
    """Reads the requests of one connection, one after the other."""

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
        self._next_id = next_id
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._fields: Fields = []
        self._head_bytes = 0
        self._wire_bytes = 0
        self._body_bytes = 0
        self._is_in_body = False
        self._held: bytes | None = None
        self._wrong: Refusal | None = None
        self.has_partial_head = False

    def feed(self, data: bytes) -> Refusal | None:
        """Read bytes; return what is wrong with them, after which nothing more can be read."""
        if self._held is not None:
            return self._hold(data)
        was_in_head = self.has_partial_head
        if self._is_in_body:
            self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._held = data[offer.args[0] :]
            return None if self._receiver.waits_for_switch() else self.resume()
        except httptools.HttpParserError as error:
            return self._what_is_wrong(error)
        if was_in_head and self.has_partial_head:
            # What a head begins with is not counted: it may have come with the body before it.
            self._head_bytes += len(data)
            limits = self._limits
            if self._head_bytes > limits.max_request_line_bytes + limits.max_header_size_bytes:
                return self._too_large()
        return None

    def _what_is_wrong(self, error: httptools.HttpParserError) -> Refusal:
        """Tell what ended the parser's run; raises what a callback raised by mistake."""
        if self._wrong is not None:
            return self._wrong
        if isinstance(error, httptools.HttpParserCallbackError) and error.__context__ is not None:
            raise error.__context__ from None  # a mistake of ours, not the client's
        return Failure.BAD_REQUEST, str(error)

    @property
    def is_holding(self) -> bool:
        """Whether bytes behind an offer to switch protocols are held until it is decided."""
        return self._held is not None

    def take_held(self) -> bytes:
        """Give what is held to whoever speaks the new protocol."""
        held, self._held = self._held or b"", b""
        return held

    def resume(self) -> Refusal | None:
        """Go on with what is held: the offer was not taken, so it is another request."""
        held, self._held = self._held, None
        self._parser = httptools.HttpRequestParser(self)
        return self.feed(held) if held else None

    def _hold(self, data: bytes) -> Refusal | None:
        """Keep what comes before the offer is decided; it must not pass before (RFC 9110 §7.8)."""
        self._held = (self._held or b"") + data
        if len(self._held) > _MOST_HELD_BYTES:
            return Failure.BAD_REQUEST, "more bytes than can wait for a switch of protocols"
        return None

    # --- The parser tells ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = b""
        self._fields = []
        self.has_partial_head = True

    def on_url(self, url: bytes) -> None:
        """Take (a piece of) the target."""
        self._url += url
        if len(self._url) > self._limits.max_request_line_bytes:
            limit_bytes = self._limits.max_request_line_bytes
            self._stop(Failure.URI_TOO_LONG, f"the request line is over {limit_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers."""
        self._fields.append((name, value))
        if len(self._fields) > self._limits.max_header_fields:
            limit = self._limits.max_header_fields
            self._stop(Failure.HEADERS_TOO_LARGE, f"there are more than {limit} header fields")

    def on_headers_complete(self) -> None:
        """Make the request, and say what is wrong with it, if anything is."""
        self.has_partial_head = False
        self._is_in_body = True
        self._head_bytes = self._wire_bytes = self._body_bytes = 0
        fields, self._fields = self._fields, []
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            self._stop(Failure.BAD_REQUEST, f"HTTP/{version} is not spoken here")
        if (
            sum(len(name) + len(value) for name, value in fields)
            > self._limits.max_header_size_bytes
        ):
            self._stop(*self._too_large())
        request = Request(self._parser.get_method(), b"", query=b"", fields=fields, host=b"")
        request.peer = self.peer
        refusal = read_target(request, self._url) or accept(request, version, self._next_id)
        stays = refusal is None and self._parser.should_keep_alive()
        self._receiver.request_begun(request, refusal, is_http10=version == "1.0", stays=stays)

    def on_body(self, chunk: bytes) -> None:
        """Pass a piece of the body on."""
        self._body_bytes += len(chunk)
        self._receiver.request_body(chunk)

    def on_chunk_header(self) -> None:
        """Bound what chunked framing may cost beside the body, extensions above all."""
        self._check_overhead()

    def on_message_complete(self) -> None:
        """Pass the end of the request on."""
        self._check_overhead()
        self._is_in_body = False
        trailers, self._fields = self._fields, []
        self._receiver.request_ended(trailers)

    def _check_overhead(self) -> None:
        allowed = _FREE_OVERHEAD_BYTES + _OVERHEAD_FOR_EACH_BYTE * self._body_bytes
        if self._wire_bytes - self._body_bytes > allowed:
            self._stop(Failure.BAD_REQUEST, "there is more framing than body")

    def _too_large(self) -> Refusal:
        limit_bytes = self._limits.max_header_size_bytes
        return Failure.HEADERS_TOO_LARGE, f"the header fields are over {limit_bytes} bytes"

    def _stop(self, failure: Failure, detail: str) -> NoReturn:
        self._wrong = (failure, detail)
        raise _StopReading


class _StopReading(Exception):  # noqa: N818 -- it is caught by the parser, not by people
    """Ends the parser's run; the reason is in the reader."""


def read_target(request: Request, url: bytes) -> Refusal | None:
    """Split a request target into path and query; return why it is refused, None if it is not.

    An absolute target names the host, whatever Host says (RFC 9112 §3.2.2); it takes its place.
    """
    if not url.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(url)
        if absolute is None:
            return Failure.BAD_REQUEST, "the target is neither a path nor a URL"
        request.fields = [
            (name, absolute["host"] if name.lower() == b"host" else value)
            for name, value in request.fields
        ]
        url = absolute["rest"]
        url = url if url.startswith(b"/") else b"/" + url
    path, mark, query = url.partition(b"?")
    if _NOT_IN_TARGET.search(url):
        return Failure.BAD_REQUEST, "the target has a character that must be percent-encoded"
    request.path = path
    request.query = mark + query
    return None

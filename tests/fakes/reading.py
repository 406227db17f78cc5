"""A RequestReader whose receiver writes down what it is told.

The rule: a Reading is a value. Two of them are equal when the same requests were told and the same
went wrong, however the bytes were cut, so that laws can compare them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.core.failure import Failure
from gateway.core.message import Fields, Peer, Request
from gateway.edge.accept import Refusal
from gateway.edge.reader import ReaderLimits, RequestReader

PEER = Peer(b"192.0.2.1", b"http", is_trusted=False)
ROOMY = ReaderLimits()

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"  # its framing and its empty line are still to come
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(slots=True)
class ReadRequest:
    """One request as it was told; `trailers` is None until it is whole."""

    method: bytes
    path: bytes
    query: bytes
    host: bytes
    fields: Fields
    crossing: bytes
    length: int | None
    refusal: Failure | None
    is_http10: bool
    stays: bool
    upgrade: bytes = b""
    body: bytes = b""
    trailers: Fields | None = None


@dataclass(slots=True)
class Reading:
    """All that was told, and what ended it, if anything did."""

    requests: list[ReadRequest] = field(default_factory=list)
    wrong: Failure | None = None

    @property
    def only(self) -> ReadRequest:
        """The one request that was read whole, or refused."""
        assert self.wrong is None, self
        assert len(self.requests) == 1, self
        return self.requests[0]

    @property
    def verdict(self) -> Failure | None:
        """Why the connection ends: what is wrong, or why the last request is refused."""
        return self.wrong or (self.requests[-1].refusal if self.requests else None)


class RecordingReceiver:
    """Takes what a reader tells. While `holds`, a request that was read keeps it busy.

    With `is_late` the time for long reads is used up, and `late_count` is how often that was asked.
    `mistakes` names the calls that raise, `details` are the words of each refusal.
    """

    def __init__(self) -> None:
        self.reading = Reading()
        self.holds = False
        self.is_late = False
        self.late_count = 0
        self.mistakes: set[str] = set()
        self.details: list[str] = []

    def is_busy(self) -> bool:
        return self.holds and bool(self.reading.requests)

    def is_turn_over(self) -> bool:
        self.late_count += 1
        return self.is_late

    def request_begun(self, request: Request, refusal: Refusal | None) -> None:
        if "request_begun" in self.mistakes:
            raise KeyError("a mistake")
        assert request.request_id, "every request has an id, refused or not"
        assert request.peer is PEER
        assert not (refusal and request.body), "the body of a refused request is told"
        if refusal is not None:
            self.details.append(refusal[1])
        self.reading.requests.append(
            ReadRequest(
                request.method,
                request.path,
                request.query,
                request.host,
                request.fields,
                request.crossing,
                request.length,
                refusal[0] if refusal else None,
                request.is_http10,
                refusal is None and request.keeps_alive,
                request.upgrade,
                request.body,
                [] if (request.length == 0 or request.body) and refusal is None else None,
            )
        )

    def request_body(self, chunk: bytes) -> None:
        assert chunk, "an empty piece"
        assert self._current.refusal is None, "the body of a refused request is told"
        self._current.body += chunk

    def request_ended(self, trailers: Fields) -> None:
        assert self._current.refusal is None, "the end of a refused request is told"
        self._current.trailers = trailers

    @property
    def _current(self) -> ReadRequest:
        request = self.reading.requests[-1]
        assert request.trailers is None, "more of a request that is whole"
        return request


def reader_for(receiver: RecordingReceiver, limits: ReaderLimits = ROOMY) -> RequestReader:
    """Make a reader that tells this receiver."""
    return RequestReader(receiver, PEER, limits=limits, next_id=lambda: b"id")


def read(*pieces: bytes, limits: ReaderLimits = ROOMY) -> Reading:
    """Read bytes that arrive in these pieces, until something is wrong with them."""
    receiver = RecordingReceiver()
    reader = reader_for(receiver, limits)
    for piece in pieces:
        wrong = reader.feed(piece)
        while wrong is None and reader.held_bytes:
            wrong = reader.go_on()
        if wrong is not None:
            receiver.reading.wrong = wrong[0]
            break
    return receiver.reading


def each_byte(data: bytes) -> Iterable[bytes]:
    """Cut bytes into single ones."""
    return (data[at : at + 1] for at in range(len(data)))


def read_both_ways(data: bytes, limits: ReaderLimits = ROOMY) -> Reading:
    """Read the bytes at once and one by one; the readings must be the same."""
    at_once = read(data, limits=limits)
    one_by_one = read(*each_byte(data), limits=limits)
    assert at_once == one_by_one
    return at_once


def with_field(line: bytes) -> bytes:
    """Write a GET with one more line in its head."""
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"


def asking(target: bytes, method: bytes = b"GET", host: bytes = b"a") -> bytes:
    """Write a request for this target."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, target, host)

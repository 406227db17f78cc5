"""The body of one request on its way to an instance: counted, framed anew, kept for a replay.

What came so far is kept up to the route's buffer, for as long as it may have to be sent again. A
longer body streams and can then not be replayed; it is never refused for that.
"""

from __future__ import annotations

from math import inf

from gateway.core.failure import Failure
from gateway.core.headers import trailer_fields
from gateway.core.message import Fields
from gateway.core.pace import Pace

_CONTINUE = 100


class Upload:
    """A request body. `length` is what the head declares, None for chunked.

    `last_bytes` end the body on the wire: nothing, or the last chunk with the trailers; they are
    known once it has ended. `is_held_back` says that the client waits with it for a 100. `pace` is
    that of the client while more of it is waited for.
    """

    __slots__ = (
        "_buffer_bytes",
        "_kept",
        "_max_bytes",
        "is_held_back",
        "last_bytes",
        "length",
        "pace",
        "received_bytes",
    )

    def __init__(self, length: int | None, *, buffer_bytes: int, max_bytes: float = inf) -> None:
        self.length = length
        self._max_bytes = max_bytes
        self.received_bytes = 0
        self.is_held_back = False
        self.last_bytes = b""
        self.pace: Pace | None = None
        self._buffer_bytes = buffer_bytes
        # Joined: a list would hold many times as much of pieces of a byte.
        self._kept: bytearray | None = bytearray()

    @classmethod
    def gone(cls, size_bytes: int) -> Upload:
        """Make one that is over, and of which only its length is still known."""
        upload = cls(size_bytes, buffer_bytes=0)
        upload.received_bytes = size_bytes
        upload.forget()
        return upload

    def __repr__(self) -> str:
        kept = "not kept" if self._kept is None else f"{len(self._kept)} kept"
        return f"<Upload {self.received_bytes} of {self.length}, {kept}>"

    def is_asked_for_by(self, status: int) -> bool:
        """Take note of an interim answer; True if the client need not wait any longer."""
        if status != _CONTINUE or not self.is_held_back:
            return False
        self.is_held_back = False
        return True

    @property
    def is_kept(self) -> bool:
        """Whether all that came so far can be sent again."""
        return self._kept is not None

    @property
    def stays_kept(self) -> bool:
        """Whether all of it can be sent again, what is still to come included, as far as known."""
        length = self.length
        if length is None:
            length = self.received_bytes if self.last_bytes else self._buffer_bytes + 1
        return self._kept is not None and length <= self._buffer_bytes

    @property
    def is_over_buffer(self) -> bool:
        """Whether more is kept than the buffer should hold: it must be let go once it is sent."""
        return self._kept is not None and len(self._kept) > self._buffer_bytes

    def problem(self) -> tuple[Failure, str] | None:
        """Say what is wrong with what came so far: more than was declared, or than may be."""
        if self.length is not None and self.received_bytes > self.length:
            return Failure.BAD_REQUEST, "the body is longer than it says"
        if self.received_bytes > self._max_bytes:
            return Failure.BODY_TOO_LARGE, f"the body is over {self._max_bytes} bytes"
        return None

    def add(self, chunk: bytes) -> bytes:
        """Take the next piece; return it framed."""
        self.received_bytes += len(chunk)
        self.is_held_back = False
        if self._kept is not None:
            self._kept += chunk
        return self._framed(chunk)

    def end(self, trailers: Fields) -> bool:
        """Take the end; False if less came than the head declared."""
        if self.length is not None:
            return self.received_bytes == self.length
        lines = b"".join(b"%b: %b\r\n" % field for field in trailer_fields(trailers))
        self.last_bytes = b"0\r\n%b\r\n" % lines
        return True

    def forget(self) -> None:
        """Let go of what is kept: it will not be sent again."""
        self._kept = None

    def so_far(self) -> bytes:
        """Give all that came so far, framed, for a new attempt; let go of more than the buffer."""
        assert self._kept is not None
        framed = self._framed(bytes(self._kept)) + self.last_bytes
        if self.is_over_buffer:
            self.forget()
        return framed

    def _framed(self, chunk: bytes) -> bytes:
        # RFC 9112 §7.1: a chunk of no bytes is the last one, so an empty piece must not become one.
        if self.length is not None or not chunk:
            return chunk
        return b"%x\r\n%b\r\n" % (len(chunk), chunk)

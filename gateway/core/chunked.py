"""Reads the chunked coding: the pieces of a body, its trailers, and where it ends (RFC 9112 §7.1).

It is strict: a size is hexadecimal digits and nothing else, a line ends with CRLF, and whatever has
no end is refused before it costs memory. What came in one read passes as one piece, and of many
small chunks only a share is read at a time: nobody can make the reader busy for long.

        size line          its last byte        CRLF
    SIZE ───────▶ DATA ──────────────▶ DATA_END ────▶ SIZE
      │
      └── size 0 ──▶ TRAILERS ──── empty line ──▶ over
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from gateway.core.headers import FramingError
from gateway.core.message import NO_FIELDS, Fields, fields_of

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;%b(?:=(?:%b|%b))?)*\r\n" % (_TOKEN, _TOKEN, _QUOTED)
)
_PART_OF_SIZE_LINE: Final = re.compile(
    rb"[0-9A-Fa-f]{0,16}(?:(?<=[0-9A-Fa-f])(?:;[\t -~\x80-\xff]*)?\r?)?"
)
# A usual chunk begins like this; its size is told without a look at the state.
_USUAL_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")
_CRLF: Final = b"\r\n"
# So many chunks are read at a time: about a millisecond.
MOST_CHUNKS: Final = 1024
_SHARES_OF_UNUSUAL: Final = 4  # one with an extension, or in pieces, takes four times as long
# A size of 64 bits has 16 digits; what else is here are extensions, which nobody needs.
_MOST_SIZE_LINE_BYTES: Final = 256
_FIELD_LINE: Final = re.compile(rb"(%b):[\t -~\x80-\xff]*\r\n" % _TOKEN)
# Whoever merges trailers into headers must not find another end of the body there.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class _Part(IntEnum):
    """What the next byte belongs to."""

    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILERS = 3


_SIZE, _DATA, _DATA_END, _TRAILERS = _Part


class TrailersError(FramingError):
    """Trailers that are longer, or more, than may be."""


class ChunkedReader:
    """Reads one chunked body. `is_over` once it is whole; `trailers` are known then.

    `max_trailer_bytes` bounds the lines behind the last chunk, `max_trailer_fields` their number.
    """

    __slots__ = (
        "_left_bytes",
        "_line",
        "_lines",
        "_max_bytes",
        "_max_fields",
        "_part",
        "is_over",
        "trailers",
    )

    def __init__(self, *, max_trailer_bytes: int, max_trailer_fields: int) -> None:
        self.is_over = False
        self.trailers: Fields = NO_FIELDS
        self._max_bytes = max_trailer_bytes
        self._max_fields = max_trailer_fields
        self._part = _SIZE
        self._left_bytes = 0
        self._line = b""
        self._lines = b""

    def __repr__(self) -> str:
        return f"<ChunkedReader {'over' if self.is_over else self._part.name}>"

    def feed(self, data: bytes, start: int, tell: Callable[[bytes], None]) -> int:
        """Read on from `start`, and tell the body that was found, in one piece; return the end.

        That is the end of `data`, unless the body `is_over`, or there are more chunks than are read
        at a time: then feed the rest in a later turn. Raises FramingError for what is not the
        chunked coding, TrailersError for trailers over their limits; what came before is told.
        """
        pieces: list[bytes] = []
        try:
            return self._read(data, start, pieces)
        finally:
            if pieces:
                tell(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _read(self, data: bytes, start: int, pieces: list[bytes]) -> int:
        size_bytes, shares = len(data), MOST_CHUNKS
        while start < size_bytes and shares > 0 and not self.is_over:
            part = self._part
            if part is _DATA:
                end = min(start + self._left_bytes, size_bytes)
                self._left_bytes -= end - start
                if not self._left_bytes:
                    self._part = _DATA_END
                pieces.append(data[start:end])
                start = end
            elif part is _DATA_END:
                start = self._read_data_end(data, start)
            elif part is _TRAILERS:
                start = self._read_trailers(data, start)
            elif self._line or (end := self._read_whole(data, start, pieces)) == start:
                shares -= _SHARES_OF_UNUSUAL
                start = self._read_size(data, start)
            else:
                shares -= len(pieces)
                start = end
        return start

    def _read_whole(self, data: bytes, start: int, pieces: list[bytes]) -> int:
        """Read usual chunks that are here whole, as many as may be; return where they end."""
        while len(pieces) < MOST_CHUNKS and (found := _USUAL_SIZE.match(data, start)) is not None:
            begin = found.end()
            end = begin + int(found[1], 16)
            if begin == end or data[end : end + 2] != _CRLF:
                break  # the last chunk, one that is not whole, or not well: looked at with care
            pieces.append(data[begin:end])
            start = end + len(_CRLF)
        return start

    def _take_line(self, data: bytes, start: int, limit_bytes: int) -> tuple[bytes, int]:
        """Go on with the line that was begun: what there is of it, and where it ended."""
        end = data.find(b"\n", start, start + limit_bytes - len(self._line)) + 1
        if not end:
            end = min(len(data), start + limit_bytes - len(self._line))
        self._line += data[start:end]
        return self._line, end

    def _read_size(self, data: bytes, start: int) -> int:
        line, end = self._take_line(data, start, _MOST_SIZE_LINE_BYTES)
        if line.endswith(b"\n"):
            found = _SIZE_LINE.fullmatch(line)
            if found is None:
                raise FramingError("the size of a chunk is not valid")
            self._line = b""
            self._left_bytes = int(found[1], 16)
            self._part = _DATA if self._left_bytes else _TRAILERS
        elif _PART_OF_SIZE_LINE.fullmatch(line) is None:
            raise FramingError("the size of a chunk is not valid")
        elif len(line) >= _MOST_SIZE_LINE_BYTES:
            raise FramingError("there are chunk extensions without end")
        return end

    def _read_data_end(self, data: bytes, start: int) -> int:
        line, end = self._take_line(data, start, len(b"\r\n"))
        if not b"\r\n".startswith(line):
            raise FramingError("a chunk is longer than it says")
        if line == b"\r\n":
            self._line = b""
            self._part = _SIZE
        return end

    def _read_trailers(self, data: bytes, start: int) -> int:
        """Read a line of the trailers; an empty one ends the body."""
        limit_bytes = self._max_bytes - len(self._lines) + len(b"\r\n")
        line, end = self._take_line(data, start, limit_bytes)
        if line.endswith(b"\n"):
            self._line = b""
            self._end_trailer_line(line)
        elif len(line) >= limit_bytes:
            raise TrailersError(f"the head or the trailers are over {self._max_bytes} bytes")
        return end

    def _end_trailer_line(self, line: bytes) -> None:
        if line == b"\r\n":
            self.is_over = True
            self.trailers = fields_of(self._lines)
        elif (field := _FIELD_LINE.fullmatch(line)) is None or field[1].lower() in _FRAMING:
            raise FramingError("a trailer is not a field that may stand there")
        elif self._lines.count(b"\r\n") == self._max_fields:
            raise TrailersError(f"there are more than {self._max_fields} trailers")
        else:
            self._lines += b"\r\n" + line[:-2]

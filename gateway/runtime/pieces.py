"""Large bodies, read in small pieces: so little is held when the other side takes nothing.

uvloop reads up to 256 KiB at a time, which is right for whoever takes it all at once. But what was
read has to be held until the other side takes it. So a connection on which much has come at once
reads into one buffer of 64 KiB from then on, which all of them share. It costs two more calls for
each read: nothing beside a large body, and not a part of the path of small messages.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

PIECE_BYTES: Final = 64 * 1024


class Buffer:
    """The memory that is read into; one for each loop, for nothing stays in it between calls."""

    __slots__ = ("view",)

    def __init__(self) -> None:
        self.view = memoryview(bytearray(PIECE_BYTES))


# A read of so many bytes is a part of something large.
LARGE_BYTES: Final = 32 * 1024


class Stream(Protocol):
    """A protocol of asyncio that takes bytes."""

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        ...

    def eof_received(self) -> bool | None:
        """Take the end of the stream."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection."""
        ...

    def pause_writing(self) -> None:
        """Write no more for now."""
        ...

    def resume_writing(self) -> None:
        """Write again."""
        ...


class _Pieces(asyncio.BufferedProtocol):
    """Stands between a transport and its protocol while a large body passes."""

    def __init__(self, stream: Stream, buffer: Buffer) -> None:
        self._stream = stream
        self._view = buffer.view

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the memory for the next read."""
        del sizehint
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self._stream.data_received(bytes(self._view[:nbytes]))

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._stream.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._stream.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._stream.resume_writing()


def read_in_pieces(transport: asyncio.Transport, stream: Stream, buffer: Buffer) -> None:
    """Let a connection read in small pieces from now on, where it does not do so anyway.

    It must be reading now. Connections over TLS have their own way.
    """
    if transport.is_closing() or transport.get_extra_info("ssl_object") is not None:
        return
    transport.set_protocol(_Pieces(stream, buffer))
    transport.pause_reading()  # the loop takes note of it when it begins to read
    transport.resume_reading()

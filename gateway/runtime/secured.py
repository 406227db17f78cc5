"""A TLS session over a plain connection, with bounded memory.

It is the protocol of the plain connection and the transport of its own protocol at the same time.
asyncio's and uvloop's TLS keep up to 1.5 MiB for a connection whose other side takes nothing: each
has a buffer of 256 KiB of its own for reading, and two of up to 512 KiB for what is to be written.
Here nothing is kept but what OpenSSL needs. What is read comes into one buffer that all connections
share, and is decrypted at once; what is written is encrypted at once and waits in the plain
connection, whose limits hold.

    HANDSHAKE ──▶ OPEN ──▶ ENDING ──▶ CLOSED
        │                    close_notify was sent; what still comes is dropped
        └──▶ CLOSED

A handshake costs a server a millisecond or two. So each of its steps is a share of the Backlog:
hundreds of clients that connect at once hold nobody up. For a client that has left meanwhile none
is taken, and the session is made with the first one: who waits for it holds next to nothing.

RFC 8446 §6.1: a session ends with close_notify in each direction; one that ends without it may have
been cut. Renegotiation (TLS 1.2) must be off in the context.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Hashable
from enum import IntEnum
from typing import Any, Final, cast

from gateway.runtime.backlog import LONG_READ_BYTES, Backlog
from gateway.runtime.departed import has_departed
from gateway.runtime.pieces import Buffer
from gateway.runtime.unread import read_unread

_RECORD_BYTES: Final = 16 * 1024  # RFC 8446 §5.1
# A record may hold a single byte; 64 KiB of such records take some 20 ms.
_MOST_RECORDS: Final = 256
_BROKEN_OFF: Final = "the connection was closed"


class _State(IntEnum):
    """Where a session is."""

    HANDSHAKE = 0
    OPEN = 1
    ENDING = 2
    CLOSED = 3


_HANDSHAKE, _OPEN, _ENDING, _CLOSED = _State


class SecuredConnection(asyncio.BufferedProtocol, asyncio.Transport):
    """TLS for one `protocol`, which gets this as its transport once the session stands.

    `ready` is done then; it raises ssl.SSLError or OSError where there is no session. It does not
    end by itself: whoever waits for it sets a limit and calls `abort`. `server_name` is who is
    verified, None on the side that serves. `peer` is for whom it takes its turns in the Backlog.
    `shutdown_timeout_s` is how long the other side may take to end the connection after we have
    ended the session.
    """

    def __init__(  # noqa: PLR0913 -- they are all different things
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        buffer: Buffer,
        backlog: Backlog,
        peer: Hashable,
        server_name: str | None,
        shutdown_timeout_s: float,
    ) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._protocol = protocol
        self._view = buffer.view
        self._backlog = backlog
        self._peer = peer
        self._shutdown_timeout_s = shutdown_timeout_s
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._is_server = server_name is None
        self._context = context
        self._server_name = server_name
        self._session: ssl.SSLObject
        self._has_session = False
        self._state: _State = _HANDSHAKE
        self._plain: asyncio.Transport
        self._later = b""  # that the session was not given yet
        self._is_paused = False
        self._has_put_off = False
        self._has_ended = False
        self._is_at_end = False
        self._is_end_told = False
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def __repr__(self) -> str:
        return f"<SecuredConnection {self._state.name}, {self._protocol!r}>"

    # --- The plain connection tells --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the plain connection; a client begins the handshake."""
        self._plain = cast("asyncio.Transport", transport)
        if not self._is_server:
            self._shake_hands()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the memory for the next read."""
        del sizehint
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        state = self._state
        if state is _OPEN:
            if self._is_paused or self._has_put_off:
                self._later += self._view[:nbytes]
            elif nbytes > LONG_READ_BYTES and self._backlog.is_over():
                self._later = bytes(self._view[:nbytes])
                self._put_off()
            else:
                self._read(self._view[:nbytes])
        elif state is _HANDSHAKE:
            self._incoming.write(self._view[:nbytes])
            self._put_off()

    def eof_received(self) -> bool:
        """Take the end of the plain connection: if the session has not ended, it was cut."""
        self._is_at_end = True
        if self._state is _HANDSHAKE:
            self._incoming.write_eof()
        if self._state is _OPEN and (self._has_put_off or self._is_paused):
            return True  # what is here already is looked at before the end
        if self._state is _OPEN:
            self._go_through()
        return self._state is _OPEN  # the protocol closes it when it has done its work

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol, or whoever waits for the session."""
        was_ready = self._state is not _HANDSHAKE
        self._state = _CLOSED
        self._backlog.discard(self, self._peer)
        if self._timer is not None:
            self._timer.cancel()
        if was_ready:
            self._protocol.connection_lost(self._error or exc)
        elif not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError(_BROKEN_OFF))
            self.ready.exception()  # whoever waited may have given up

    def pause_writing(self) -> None:
        """Pass on that the other side takes no more for now."""
        if self._state is _OPEN:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the other side takes more again."""
        if self._state is _OPEN:
            self._protocol.resume_writing()

    # --- The session -----------------------------------------------------------------------------

    def _put_off(self) -> None:
        """Go on in a later turn, and read no more until then."""
        if not self._has_put_off:
            self._has_put_off = True
            self._plain.pause_reading()
        self._backlog.add(self, self._peer)

    def go_on(self) -> None:
        """Take the next step of the handshake, or look at what was put off."""
        self._has_put_off = False
        if self._state is _HANDSHAKE:
            if self._is_server and has_departed(self._plain.get_extra_info("socket")):
                self._plain.abort()
            else:
                self._shake_hands()
        elif self._state is _OPEN and not self._is_paused:
            self._go_through()
        is_held = self._is_paused or self._has_put_off
        if self._state < _CLOSED and not is_held and not self._plain.is_closing():
            self._plain.resume_reading()

    def _begin_session(self) -> None:
        self._has_session = True
        self._session = self._context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=self._is_server,
            server_hostname=self._server_name,
        )

    def _shake_hands(self) -> None:
        if not self._has_session:
            self._begin_session()
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError as error:
            self._fail_handshake(error)
        else:
            self._open()

    def _fail_handshake(self, error: ssl.SSLError) -> None:
        self._send()  # the alert that says why
        if not self.ready.done():
            is_eof = isinstance(error, ssl.SSLEOFError)
            self.ready.set_exception(ConnectionResetError(_BROKEN_OFF) if is_eof else error)
            self.ready.exception()
        self._plain.close()

    def _open(self) -> None:
        self._send()
        self._state = _OPEN
        self._protocol.connection_made(self)
        if not self.ready.done():
            self.ready.set_result(None)
        if self._incoming.pending or self._session.pending():
            self._go_through()  # what came behind the handshake

    def _send(self) -> None:
        """Send what the session has to say."""
        if self._outgoing.pending:
            self._plain.write(self._outgoing.read())

    def _read(self, data: memoryview) -> None:
        """Decrypt what was just read, with nothing else before it, and pass it on."""
        pieces: list[bytes] = []
        has_more = self._decrypt_safely(data, pieces)
        self._pass_on(pieces, has_more=has_more)

    def _go_through(self) -> None:
        """Decrypt all that is here already, and pass it on."""
        pieces: list[bytes] = []
        has_more = self._decrypt_safely(b"", pieces)
        if not has_more and (later := self._later):
            self._later = b""
            has_more = self._decrypt_safely(memoryview(later), pieces)
        self._pass_on(pieces, has_more=has_more)

    def _pass_on(self, pieces: list[bytes], *, has_more: bool) -> None:
        """Pass on what was decrypted in one piece, and find out how it goes on."""
        if self._outgoing.pending:
            self._send()
        if pieces:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if has_more:
            self._put_off_rest()
        elif self._has_ended or self._is_at_end or self._error is not None:
            self._end_reading()

    def _decrypt_safely(self, data: memoryview | bytes, pieces: list[bytes]) -> bool:
        """Decrypt what the session has and this; True if there is more than one turn should take.

        The session gets a record's worth at a time: its memory grows to what it once held.
        """
        has_more, start = False, 0
        try:
            while start < len(data) and not has_more:
                self._incoming.write(data[start : start + _RECORD_BYTES])
                start += _RECORD_BYTES
                has_more = self._decrypt(pieces)
            if not len(data):
                has_more = self._decrypt(pieces)
        except ssl.SSLZeroReturnError:
            self._has_ended = True
        except ssl.SSLError as error:
            self._error = error
        if self._error is not None or self._has_ended:
            return False
        if start < len(data):
            self._later = bytes(data[start:])
        return has_more

    def _put_off_rest(self) -> None:
        """Look at the rest in a later turn; one that is paused does so when it is resumed."""
        if self._state is _OPEN and not self._is_paused:
            self._put_off()

    def _decrypt(self, pieces: list[bytes], most: int = _MOST_RECORDS) -> bool:
        """Decrypt what the session was given, up to a record that is not whole yet.

        True if there were more than `most` pieces: the rest is for a later turn.
        """
        session, incoming = self._session, self._incoming
        with contextlib.suppress(ssl.SSLWantReadError):
            while incoming.pending or session.pending():
                if len(pieces) >= most:
                    return True
                if not (data := session.read(_RECORD_BYTES)):
                    raise ssl.SSLZeroReturnError
                pieces.append(data)
        return False

    def read_unread(self) -> bytes:
        """Return what was sent before the plain connection was lost and is not passed on yet.

        To be called within `connection_lost` of the protocol. Empty if the session itself failed.
        """
        pieces: list[bytes] = []
        if self._error is None:
            with contextlib.suppress(ssl.SSLError):  # an end of the session, or a record cut short
                self._incoming.write(self._later + read_unread(self._plain))
                self._decrypt(pieces, sys.maxsize)
        return b"".join(pieces)

    def _end_reading(self) -> None:
        """Tell the protocol that the other side has ended the session, well or not."""
        if self._state is not _OPEN or self._is_end_told:
            return
        if self._error is None or isinstance(self._error, ssl.SSLEOFError):
            self._error = None  # well, or cut: the protocol can ask the session
            self._is_end_told = True
            if not self._protocol.eof_received():
                self.close()
        else:
            self._send()
            self._start_ending()
            if not self._is_server:
                self._plain.close()  # or a pool would give it out for a while

    # --- The transport of the protocol -----------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; what cannot be sent yet waits in the plain connection."""
        if self._state is not _OPEN:
            return
        session, plain, outgoing = self._session, self._plain, self._outgoing
        try:
            if len(data) <= _RECORD_BYTES:
                session.write(data)
                plain.write(outgoing.read())
                return
            rest = memoryview(data)
            while rest:
                rest = rest[session.write(rest[:_RECORD_BYTES]) :]
                plain.write(outgoing.read())
        except ssl.SSLError as error:
            self._error = error
            self.abort()

    def close(self) -> None:
        """End the session, then the connection once the other side has done so too."""
        if self._state is _OPEN:
            # It would wait for the other side's end, or will not see it: ours is written.
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._session.unwrap()
            self._send()
            self._start_ending()
        elif self._state is _HANDSHAKE:
            self.abort()

    def _start_ending(self) -> None:
        """Wait until the other side ends the connection, for as long as it takes what was sent."""
        self._state = _ENDING
        if self._has_ended or self._is_at_end or self._plain.is_closing():
            self._plain.close()
        else:
            self._is_paused = False
            self._plain.resume_reading()
        self._unsent_bytes = self._plain.get_write_buffer_size()
        self._timer = self._loop.call_later(self._shutdown_timeout_s, self._look_at_end)

    def _look_at_end(self) -> None:
        """Give up, unless the other side has taken something meanwhile."""
        unsent_bytes = self._plain.get_write_buffer_size()
        if 0 < unsent_bytes < self._unsent_bytes:
            self._unsent_bytes = unsent_bytes
            self._timer = self._loop.call_later(self._shutdown_timeout_s, self._look_at_end)
        else:
            self._plain.abort()

    def abort(self) -> None:
        """Close at once."""
        self._backlog.discard(self, self._peer)
        if self._state is _OPEN:
            self._state = _ENDING
        if hasattr(self, "_plain"):
            self._plain.abort()

    def is_closing(self) -> bool:
        """Tell whether nothing is sent any more."""
        return self._state >= _ENDING or self._plain.is_closing()

    def pause_reading(self) -> None:
        """Pass on no more for now."""
        if not self._is_paused:
            self._is_paused = True
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        """Pass on again what comes; first, in a later turn, what is here already."""
        if not self._is_paused or self._state is not _OPEN:
            return
        self._is_paused = False
        if self._is_end_told:
            return
        if self._later or self._incoming.pending or self._session.pending() or self._is_at_end:
            self._has_put_off = True
            self._backlog.add(self, self._peer)
        else:
            self._plain.resume_reading()

    def is_reading(self) -> bool:
        """Tell whether what comes is passed on."""
        return not self._is_paused

    def can_write_eof(self) -> bool:
        """TLS cannot end one direction alone in a way that all take well."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much may wait to be sent."""
        self._plain.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Tell how much waits to be sent."""
        return self._plain.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Tell how much may wait: low, high."""
        return self._plain.get_write_buffer_limits()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass on what comes to this one from now on."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Give whoever what comes is passed on to."""
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell of the session (`ssl_object`, `peercert`) or of the plain connection."""
        if name == "ssl_object":
            return self._session
        if name == "peercert":
            return self._session.getpeercert()
        return self._plain.get_extra_info(name, default)

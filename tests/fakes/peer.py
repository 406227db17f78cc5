"""One connection that a scripted upstream accepted, and the requests that came over it.

The rule: it reads only when it is told to. There is no buffer of ours ahead of the script, so a
script that does not read makes real back-pressure.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

import h11

READ_BYTES = 64 * 1024
MAX_HEAD_BYTES = 1024 * 1024


@dataclass(slots=True, kw_only=True)
class ReceivedRequest:
    """One request as it arrived; `body` grows until `is_complete`.

    `headers` keeps order, case and duplicates; `connection` is the number of its connection.
    """

    method: bytes
    target: bytes
    http_version: bytes
    headers: list[tuple[bytes, bytes]]
    connection: int
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    is_complete: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """List the values of all fields called `name`, in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Ended(Enum):
    """How a connection ended, as seen from the upstream."""

    CLOSED_BY_PEER = "closed by peer"
    RESET_BY_PEER = "reset by peer"
    BY_US = "by us"


class Peer:
    """One accepted connection; what actions act on.

    `received` holds every byte that was read from it, `ended` is None while it is open.
    """

    def __init__(self, sock: socket.socket, *, number: int, changed: Callable[[], None]) -> None:
        self.number = number
        self.received = bytearray()
        self.requests: list[ReceivedRequest] = []
        self.ended: Ended | None = None
        self._sock = sock
        self._changed = changed
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    def __repr__(self) -> str:
        ended = self.ended.value if self.ended else "open"
        return f"<Peer {self.number} {ended}, {len(self.requests)} requests>"

    def is_open(self) -> bool:
        """Whether nobody has ended it yet."""
        return self.ended is None

    @property
    def request(self) -> ReceivedRequest:
        """The newest request on this connection."""
        return self.requests[-1]

    async def read_some(self) -> bytes:
        """Read what is there, or wait for it; b"" when the other side has finished."""
        piece = await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)
        self.received += piece
        self._changed()
        return piece

    async def send(self, payload: bytes) -> None:
        """Write all of `payload`; waits for as long as the other side does not read."""
        await asyncio.get_running_loop().sock_sendall(self._sock, payload)

    def close(self, how: Ended = Ended.BY_US) -> None:
        """Close the connection; with unread bytes in its buffer the kernel sends RST, not FIN."""
        if self.is_open():
            self.ended = how
            self._sock.close()
            self._changed()

    def finish(self) -> None:
        """Send FIN and keep reading: what the other side still sends is not answered by RST."""
        # ENOTCONN: the other side has reset it already, and the next read will say so.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.reset_at_close()
        self.close()

    def reset_at_close(self) -> None:
        """Make the coming `close` an RST: lingering for 0 s throws away what is unsent."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def read_head(self) -> ReceivedRequest | None:
        """Read the next request's head, None when the connection ended instead."""
        leftover, _ = self._parser.trailing_data
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        if leftover:
            self._parser.receive_data(leftover)
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        request = ReceivedRequest(
            method=event.method,
            target=event.target,
            http_version=event.http_version,
            headers=event.headers.raw_items(),
            connection=self.number,
        )
        self.requests.append(request)
        self._changed()
        return request

    async def read_body(self) -> bool:
        """Read the rest of the newest request; False when the connection ended before its end."""
        while event := await self._next_event():
            if isinstance(event, h11.Data):
                self.request.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.request.trailers = event.headers.raw_items()
                self.request.is_complete = True
                self._changed()
                return True
        return False

    def take_unread(self) -> bytes:
        """Take what came after the newest request and was read together with it (a tunnel)."""
        leftover, _ = self._parser.trailing_data
        self._parser = h11.Connection(h11.SERVER)
        return leftover

    async def _next_event(self) -> h11.Event | None:
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            piece = await self.read_some()
            if not piece:
                self.close(Ended.CLOSED_BY_PEER)
                return None
            self._parser.receive_data(piece)
        return event if isinstance(event, h11.Event) else None


Action = Callable[[Peer], Awaitable[None]]

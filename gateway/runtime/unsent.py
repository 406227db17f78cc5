"""What one connection could not send yet, joined in one piece.

A transport keeps each write that the kernel does not take as an entry of its own, of some 800 bytes
(uvloop), whatever is in it. So thousands of tiny writes to a side that does not read hold megabytes
although they are a few KB. Here the transport gets none while it has some left: what comes
meanwhile is joined, and written in one piece when the transport has sent all that it had.

The other rule is about whose turn it is: a source is told to stop when more than MOST_UNSENT_BYTES
wait, in the transport and here, not at the first byte that does.
"""

from __future__ import annotations

import asyncio
from typing import Final

# So much may wait to be sent before its source is told to stop; asyncio's default is twice that.
MOST_UNSENT_BYTES: Final = 32 * 1024


class Unsent:
    """What waits for one transport. Whoever writes to it asks `is_waiting` first.

    While that is true everything goes to `add`. The protocol of the transport calls
    `paused` and `let_go` when it is told to pause and to resume.
    """

    __slots__ = ("_joined", "_transport", "is_waiting")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._joined = bytearray()
        self.is_waiting = False
        transport.set_write_buffer_limits(0)  # so it says at once when something is left

    def __repr__(self) -> str:
        return f"<Unsent {len(self._joined)} bytes joined>"

    @property
    def is_full(self) -> bool:
        """Whether so much waits that the source should stop."""
        waiting_bytes = len(self._joined) + self._transport.get_write_buffer_size()
        return waiting_bytes > MOST_UNSENT_BYTES

    @property
    def joined_bytes(self) -> int:
        """How much waits here, beside what waits in the transport."""
        return len(self._joined)

    def add(self, data: bytes) -> None:
        """Keep this behind what waits already."""
        self._joined += data

    def paused(self) -> None:
        """Hear that the transport could not send all that it was given."""
        self.is_waiting = True

    def let_go(self) -> None:
        """Write what waits: the transport has sent all that it had, or is about to be closed."""
        self.is_waiting = False
        joined, self._joined = self._joined, bytearray()
        if joined:
            self._transport.write(bytes(joined))  # which may say at once that it could not send it

    def drop(self) -> None:
        """Forget what waits: the connection is over."""
        self._joined = bytearray()

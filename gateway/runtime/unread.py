"""What a peer sent before its connection broke, read before the connection is closed.

A server that refuses a request sends its response and closes with the rest of the request unread.
Its kernel then answers what still arrives with a reset, so the next write fails. uvloop and asyncio
report a failed write at once and read no more, although the response is in the receive buffer:
Linux keeps there what arrived before the reset.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

# A response that refuses a request is short. More would be held for a client that does not read.
MOST_UNREAD_BYTES: Final = 64 * 1024


def read_unread(transport: asyncio.Transport) -> bytes:
    """Return what is in the receive buffer of a plain connection, at most 64 KiB.

    To be called within `connection_lost`, while the socket is still open. Empty if there is nothing
    to read, and where sockets are no files (Windows).
    """
    pieces: list[bytes] = []
    left_bytes = MOST_UNREAD_BYTES
    try:
        fd = transport.get_extra_info("socket").fileno()
        while left_bytes and (piece := os.read(fd, left_bytes)):
            pieces.append(piece)
            left_bytes -= len(piece)
    except (OSError, AttributeError):  # nothing more now, the reset, or a transport with no socket
        pass
    return b"".join(pieces)

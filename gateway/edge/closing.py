"""How a client's connection is closed: so that it can tell a whole answer from one that is not.

Closing with unread bytes makes the kernel send a reset, which may destroy what is on its way (RFC
9112 §9.6). That is just what is wanted where an answer broke off, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Final

_UNACKNOWLEDGED: Final = 0x5411  # SIOCOUTQ, which is TIOCOUTQ (tcp(7))
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """Close at once with a reset: a mere end could be taken for the end of the answer."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def give_up(transport: asyncio.Transport) -> None:
    """Close at once: with a reset if not all was sent, for what was must not look whole."""
    sock = transport.get_extra_info("socket")
    if sock is not None and transport.get_write_buffer_size() > 0:
        with contextlib.suppress(OSError):  # it may be closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def end(transport: asyncio.Transport, *, has_unread: bool) -> None:
    """End our side when all has left; with `has_unread` the other side is read on for now."""
    if not has_unread:
        transport.close()
        return
    transport.resume_reading()
    if transport.can_write_eof():
        transport.write_eof()
    else:
        # TLS cannot end one direction alone; closing it reads on until the client ends too.
        transport.close()


def unsent_bytes(transport: asyncio.Transport) -> int | None:
    """Tell how much of what was written the other side has not taken; None if nobody can.

    What is in the kernel counts too: it holds megabytes for a client that reads little.
    """
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None or transport.is_closing():
        return None
    import fcntl  # noqa: PLC0415 -- there is none on Windows

    try:
        held = fcntl.ioctl(sock.fileno(), _UNACKNOWLEDGED, bytes(struct.calcsize("i")))
    except (OSError, ValueError):  # it is closed
        return None
    return int(struct.unpack("i", held)[0]) + transport.get_write_buffer_size()

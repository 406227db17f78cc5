"""Whether the other side of a connection has left, although there is more to be read of it.

Somebody who sends and closes at once has left the last bytes in our receive buffer, so a read tells
of the end only after all work for them. The state of the connection tells at once.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

# tcp_info of Linux begins with the state in one byte; 1 is TCP_ESTABLISHED (linux/tcp.h).
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
_ESTABLISHED: Final = 1


class Socket(Protocol):
    """What a socket and a transport's view of it have in common."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """Ask for an option of so many bytes."""
        ...


def has_departed(sock: Socket | None) -> bool:
    """Tell whether the other side has closed the connection, or its half of it.

    False where the system does not tell, and for sockets that are not TCP.
    """
    if _TCP_INFO is None or sock is None:
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] != _ESTABLISHED
    except (OSError, IndexError):
        return False

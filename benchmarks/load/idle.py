"""Clients that ask once and then stay connected."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from benchmarks.layout import LOOPBACK
from benchmarks.requests import Request

_WITHIN_S = 10.0
_AT_ONCE_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)  # closing leaves no port in TIME_WAIT


@contextlib.contextmanager
def connected(port: int, count: int, request: Request) -> Iterator[None]:
    """Hold this many connections, each of which has had one answer.

    Raises OSError, and ConnectionError where an answer is not 200 or a connection has not stayed.
    """
    sent, clients = bytes(request), []
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            client = opened.enter_context(socket.create_connection((LOOPBACK, port), _WITHIN_S))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            clients.append(client)
            client.sendall(sent)
            told = client.recv(_AT_ONCE_BYTES)
            if not told.startswith(b"HTTP/1.1 200"):
                raise ConnectionError(f"the answer was {told[:100]!r}")
        yield
        if closed := sum(not _is_open(client) for client in clients):
            raise ConnectionError(f"{closed} of {count} connections were closed")


def _is_open(client: socket.socket) -> bool:
    """Tell whether a connection stands, and nothing more has come over it."""
    client.settimeout(0)
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False

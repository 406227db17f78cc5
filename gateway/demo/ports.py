"""Ports of 127.0.0.1 that nobody listens on; somebody may take one before it is used."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """Find ports that are free now, all different."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(_listen(0)) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]


def free_port(preferred: int) -> int:
    """Take the preferred port where it is free, else any other."""
    try:
        _listen(preferred).close()
    except OSError:
        return free_ports(1)[0]
    return preferred


def _listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))

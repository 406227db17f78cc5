"""Reads the PROXY protocol from the bare socket of a connection, exactly to its end.

It comes before everything else, before the TLS handshake too. Only when it is read the socket
becomes a connection; that is what makes it work in front of TLS on each event loop.
"""

from __future__ import annotations

import asyncio
import socket

from gateway.edge.proxy_protocol import MAX_SIZE_BYTES, ProxyProtocolError, Told, read_told


async def read_header(sock: socket.socket) -> Told:
    """Read what the proxy says; what follows it stays in the socket.

    Raises ProxyProtocolError, and OSError when the connection breaks.
    """
    loop = asyncio.get_running_loop()
    seen = b""
    is_readable = asyncio.Event()
    loop.add_reader(sock, is_readable.set)
    try:
        while True:
            await is_readable.wait()
            is_readable.clear()
            try:
                there = sock.recv(MAX_SIZE_BYTES, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            if not there:
                raise ProxyProtocolError("it ended before it began")
            told = read_told(seen + there)
            if told is not None:
                sock.recv(told.size_bytes - len(seen))
                return told
            seen += sock.recv(len(there))
    finally:
        loop.remove_reader(sock)

"""An instance that refuses every upload: 413 to the head, and a close with the rest unread.

`python -m tests.fakes.refuser PORT plain|FILE`: the file has a certificate and its key, for TLS.
The rule: it is a program of its own with blocking sockets, so that the kernel resets its
connections while the gateway is still writing, as it does with a real server.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading

REFUSAL = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large"
)


def _refuse(client: socket.socket, context: ssl.SSLContext | None) -> None:
    # Or the kernel would keep the answer back until the session tickets are acknowledged.
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError), client:
        peer = client if context is None else context.wrap_socket(client, server_side=True)
        with peer:
            head = b""
            while b"\r\n\r\n" not in head and (piece := peer.recv(4096)):
                head += piece
            if head:
                peer.sendall(REFUSAL)


def _serve(port: int, context: ssl.SSLContext | None) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_refuse, args=(client, context), daemon=True).start()


def _context(file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


if __name__ == "__main__":
    _serve(int(sys.argv[1]), None if sys.argv[2] == "plain" else _context(sys.argv[2]))

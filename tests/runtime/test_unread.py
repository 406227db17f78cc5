"""What was sent before a connection broke is read, and no more than a connection may hold."""

from __future__ import annotations

import asyncio
import socket

from gateway.runtime.unread import MOST_UNREAD_BYTES, read_unread


class Broken(asyncio.Transport):
    """A transport that is being lost, with the socket that it has, if it has one."""

    def __init__(self, sock: socket.socket | None) -> None:
        super().__init__(None if sock is None else {"socket": sock})


def after_a_reset(sent: bytes) -> tuple[socket.socket, Exception | None]:
    """Send this to a socket, and reset its connection; tell how its next write failed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = socket.create_connection(listener.getsockname())
        own.settimeout(0)
        peer, _ = listener.accept()
    own.send(b"not read by anybody")
    peer.sendall(sent)
    peer.close()  # with unread bytes: the kernel sends a reset
    try:
        own.send(b"more")
    except OSError as error:
        return own, error
    return own, None


def test_what_came_before_the_reset_is_read_after_a_write_failed() -> None:
    own, error = after_a_reset(b"HTTP/1.1 413 Content Too Large\r\n\r\n")

    with own:
        assert isinstance(error, ConnectionError)
        assert read_unread(Broken(own)) == b"HTTP/1.1 413 Content Too Large\r\n\r\n"
        assert read_unread(Broken(own)) == b""


def test_no_more_is_read_than_may_be_held() -> None:
    own, _ = after_a_reset(bytes(MOST_UNREAD_BYTES + 1))

    with own:
        assert len(read_unread(Broken(own))) == MOST_UNREAD_BYTES


def test_an_open_connection_on_which_nothing_came_has_nothing_unread() -> None:
    own, peer = socket.socketpair()
    own.settimeout(0)

    with own, peer:
        assert read_unread(Broken(own)) == b""


def test_a_transport_without_a_socket_has_nothing_unread() -> None:
    assert read_unread(Broken(None)) == b""

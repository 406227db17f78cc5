"""Who has left is known before what they sent is read."""

from __future__ import annotations

import socket
import struct
import sys

import pytest

from gateway.runtime.departed import has_departed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


@pytest.mark.parametrize("how", ["closed", "half closed", "reset"])
def test_who_leaves_is_seen_although_there_is_more_to_read(how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        with client, served:
            client.sendall(b"hello")
            assert not has_departed(served)
            if how == "half closed":
                client.shutdown(socket.SHUT_WR)
            elif how == "reset":
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if how != "half closed":
                client.close()
            assert has_departed(served)


def test_where_nothing_is_known_nobody_has_left() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not has_departed(one)
        assert not has_departed(None)
    assert not has_departed(one)  # closed by us

"""Opening what is listened on; how servers come up and go down is told in the flows."""

from __future__ import annotations

import socket

import pytest

from gateway.edge.server import ListenError, listen


def test_answers_leave_at_once() -> None:
    """Without TCP_NODELAY a second small write waits for the client's acknowledgement."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_an_address_in_use_is_told_with_its_reason_once() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ListenError) as refused:
            listen("127.0.0.1", port)

    assert str(refused.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use"

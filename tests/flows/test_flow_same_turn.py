"""In one turn of the loop the client asks, and then the instance speaks or ends, unasked.

The rule: both bytes are in the kernel before the gateway, which lives in the same loop, looks.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.scenes import head
from tests.fakes.waiting import PATIENCE_S

GOOD = head(200, [(b"Content-Length", b"4")]) + b"good"
EVIL = head(200, [(b"Content-Length", b"4")]) + b"evil"
TIMEOUT = head(408, [(b"Connection", b"close"), (b"Content-Length", b"0")])


async def receive(sock: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), PATIENCE_S)


async def accept(listener: socket.socket, stack: ExitStack) -> socket.socket:
    loop = asyncio.get_running_loop()
    accepted, _ = await asyncio.wait_for(loop.sock_accept(listener), PATIENCE_S)
    stack.callback(accepted.close)
    return accepted


@pytest.mark.parametrize("said", [EVIL, TIMEOUT, b""], ids=["answer", "timeout", "end"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_came_before_the_request_left_does_not_answer_it(
    serve: Serve, method: str, said: bytes
) -> None:
    """Nothing of the request has left by then, so even a POST goes out again."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(0)
        async with serve(routes_to(listener.getsockname()[1])) as gateway:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            client.settimeout(0)
            client.sendall(ask("/", method, body=b""))
            instance = await accept(listener, stack)
            await receive(instance)
            instance.sendall(GOOD)
            assert (await receive(client)).endswith(b"good")

            client.sendall(ask("/", method, body=b""))
            if said:
                instance.sendall(said)
            else:
                instance.shutdown(socket.SHUT_WR)
            instance = await accept(listener, stack)
            request = await receive(instance)
            instance.sendall(GOOD)
            answer = await receive(client)

    assert request.startswith(method.encode() + b" / HTTP/1.1\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\ngood")

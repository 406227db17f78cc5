"""A slow client stops the instance from being read, a slow instance stops the client."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.peer import Peer
from tests.fakes.scenes import head, hold, play, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import stuck_at

MIB = 1024 * 1024
PIECE = b"x" * (64 * 1024)
MOST_BYTES = 16 * MIB  # far more than all buffers of the kernel together
SMALL_BUFFER_BYTES = 128 * 1024

pytestmark = pytest.mark.slow


@pytest.mark.both_faces
async def test_a_client_that_does_not_read_stops_the_instance(serve: Serve) -> None:
    sent_bytes = [0]

    async def send_much(peer: Peer) -> None:
        await peer.send(head(200, [(b"Content-Length", b"%d" % MOST_BYTES)]))
        while sent_bytes[0] < MOST_BYTES:
            await peer.send(PIECE)
            sent_bytes[0] += len(PIECE)

    async with ScriptedUpstream() as web:
        web.on_request(send_much)
        async with (
            serve(routes_to(web)) as gateway,
            RawClient(gateway.port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as client,
        ):
            await client.send(ask())
            stuck_bytes = await stuck_at(sent_bytes)
            answer = await client.read_response()

    assert stuck_bytes < MOST_BYTES
    assert len(answer.body) == MOST_BYTES


@pytest.mark.both_faces
async def test_an_instance_that_does_not_read_stops_the_client(serve: Serve) -> None:
    may_read = asyncio.Event()
    sent_bytes = [0]

    async def upload(client: RawClient) -> None:
        while sent_bytes[0] < MOST_BYTES:
            await client.send(PIECE)
            sent_bytes[0] += len(PIECE)

    async with ScriptedUpstream(receive_buffer_bytes=SMALL_BUFFER_BYTES) as web:
        web.on_head(play(hold(may_read)))
        web.on_request(respond())
        async with (
            serve(routes_to(web)) as gateway,
            RawClient(gateway.port) as client,
            asyncio.TaskGroup() as tasks,
        ):
            await client.send(ask("/", "POST", ("Content-Length", str(MOST_BYTES))))
            tasks.create_task(upload(client))
            stuck_bytes = await stuck_at(sent_bytes)
            may_read.set()
            answer = await client.read_response()

        assert stuck_bytes < MOST_BYTES
        assert answer.status == 200
        assert len(web.requests[0].body) == MOST_BYTES

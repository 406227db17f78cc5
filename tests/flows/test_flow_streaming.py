"""Bodies stream both ways: what is sent arrives at once, and nothing is collected on the way."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.memory import GrowthOfMemory
from tests.fakes.peer import Peer
from tests.fakes.scenes import chunk, head, play, reply, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import PATIENCE_S

MIB = 1024 * 1024
BIG_BYTES = 64 * MIB
PIECE = bytes(range(256)) * 1024  # 256 KiB
PAUSE_S = 0.2
IN_TIME_S = 0.05


@pytest.mark.both_faces
@pytest.mark.slow
async def test_server_sent_events_arrive_as_they_are_sent(serve: Serve) -> None:
    is_there = [asyncio.Event() for _ in range(3)]

    async def events(peer: Peer) -> None:
        fields = [(b"Content-Type", b"text/event-stream"), (b"Transfer-Encoding", b"chunked")]
        await peer.send(head(200, fields))
        for number in range(3):
            await peer.send(chunk(b"data: %d\n\n" % number))
            await is_there[number].wait()  # the next one is not made before this one has arrived
        await peer.send(b"0\r\n\r\n")

    async with ScriptedUpstream() as web:
        web.on_request(events)
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/events", "GET", ("Accept", "text/event-stream")))
            await client.read_head()
            events_got: list[bytes] = []
            while part := await client.read_part():
                is_there[len(events_got)].set()
                events_got.append(part)

    assert events_got == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_the_head_of_an_answer_does_not_wait_for_its_body(serve: Serve) -> None:
    may_go_on = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.send(head(200, [(b"Content-Length", b"4")]))
        await may_go_on.wait()
        await peer.send(b"body")

    async with ScriptedUpstream() as web:
        web.on_request(slow)
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_head()
            may_go_on.set()
            while await client.read_part():
                pass

    assert (answer.status, answer.body) == (200, b"body")


async def test_a_chunked_upload_arrives_piece_by_piece(serve: Serve) -> None:
    pieces: list[bytes] = []
    got_one = asyncio.Event()

    async def collect(peer: Peer) -> None:
        while not peer.request.is_complete:
            before = len(peer.received)
            await peer.read_some()
            pieces.append(bytes(peer.received[before:]))
            got_one.set()
            if b"0\r\n\r\n" in pieces[-1]:
                break
        await respond(body=b"thanks")(peer)
        peer.close()

    async with ScriptedUpstream() as web:
        web.on_head(collect)
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", ("Transfer-Encoding", "chunked")))
            await web.wait_until(lambda: bool(web.requests))
            for piece in (b"one", b"two", b"three"):
                got_one.clear()
                await client.send(chunk(piece))
                async with asyncio.timeout(PATIENCE_S):
                    await got_one.wait()
            await client.send(b"0\r\n\r\n")
            answer = await client.read_response()

    assert pieces == [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"5\r\nthree\r\n", b"0\r\n\r\n"]
    assert answer.body == b"thanks"


@pytest.mark.both_faces
async def test_an_answer_may_come_before_the_body_is_whole(serve: Serve) -> None:
    """A service that refuses an upload by its head need not be sent the rest."""
    async with ScriptedUpstream() as web:
        web.on_head(play(respond(413, b"too much", [(b"Connection", b"close")])))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", ("Content-Length", "1000000")) + b"begin")
            answer = await client.read_response()

    assert (answer.status, answer.body) == (413, b"too much")


@pytest.mark.slow
async def test_a_large_answer_is_not_collected(serve: Serve) -> None:
    async def send_much(peer: Peer) -> None:
        await peer.send(head(200, [(b"Content-Length", b"%d" % BIG_BYTES)]))
        for _ in range(BIG_BYTES // len(PIECE)):
            await peer.send(PIECE)

    async with ScriptedUpstream() as web:
        web.on_request(send_much)
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            await client.read_exactly(100)  # the head, and buffers that will be used again
            memory = GrowthOfMemory()
            got_bytes = 0
            while got_bytes < BIG_BYTES - MIB:
                got_bytes += len(await client.read_some())
                memory.look()

    assert memory.largest_bytes < 20 * MIB


@pytest.mark.slow
async def test_a_large_upload_is_not_collected(serve: Serve) -> None:
    got_bytes = 0

    async def drop_much(peer: Peer) -> None:
        nonlocal got_bytes
        got_bytes = len(peer.received) - peer.received.index(b"\r\n\r\n") - 4
        while got_bytes < BIG_BYTES and (piece := await peer.read_some()):
            peer.received.clear()
            got_bytes += len(piece)
        await reply(head(200, [(b"Content-Length", b"0"), (b"Connection", b"close")]))(peer)
        peer.close()

    async with ScriptedUpstream() as web:
        web.on_head(drop_much)
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", ("Content-Length", str(BIG_BYTES))))
            memory = GrowthOfMemory()
            for _ in range(BIG_BYTES // len(PIECE)):
                await client.send(PIECE)
                memory.look()
            answer = await client.read_response()

    assert answer.status == 200
    assert got_bytes == BIG_BYTES
    assert memory.largest_bytes < 20 * MIB

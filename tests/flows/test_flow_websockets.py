"""WebSocket through the gateway, with a whole library on both ends (RFC 6455, 7692).

What bytes do in any tunnel is told in test_flow_tunnel.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from tests.fakes.gateway import RunningGateway, Serve, fast_only, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.memory import PeakOfMemory
from tests.fakes.waiting import PATIENCE_S, stuck_at, wait_until

MIB = 1024 * 1024
SIZES = (0, 1, 125, 126, 65_535, 65_536, MIB)
SOCKETS = 1000
PIECE = os.urandom(MIB)
MESSAGES = 128  # of a MiB each: far more than all buffers of the kernel together
Speak = Callable[[ServerConnection], Awaitable[None]]


async def echo(socket: ServerConnection) -> None:
    """Send each message back."""
    async for message in socket:
        await socket.send(message)


@asynccontextmanager
async def instance(speak: Speak = echo, **options: Any) -> AsyncIterator[int]:
    """Run an instance that speaks like this with each client; give its port."""
    options = {"max_size": None, **options}
    async with serve_websocket(speak, "127.0.0.1", 0, backlog=SOCKETS, **options) as listening:
        yield next(iter(listening.sockets)).getsockname()[1]


@dataclass
class Through:
    """A gateway in front of an instance."""

    gateway: RunningGateway

    def connect(self, **options: Any) -> connect:
        """Connect to the instance through the gateway."""
        return connect_to(self.gateway.port, **options)


def connect_to(port: int, **options: Any) -> connect:
    url = f"ws://127.0.0.1:{port}/chat"
    return connect(url, **{"max_size": None, "proxy": None, "open_timeout": 30, **options})


@asynccontextmanager
async def through(serve: Serve, speak: Speak = echo, **options: Any) -> AsyncIterator[Through]:
    async with instance(speak, **options) as port, serve(routes_to(port)) as gateway:
        yield Through(gateway)
        await wait_until(lambda: gateway.in_flight_count == 0)


# --- Messages ------------------------------------------------------------------------------------


@fast_only
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_pass_both_ways_whatever_they_are_made_of(
    serve: Serve, compression: str | None
) -> None:
    text = "aü€😀" * MIB
    async with through(serve) as there, there.connect(compression=compression) as socket:
        for size in SIZES:
            for message in (text[:size], os.urandom(size)):
                await socket.send(message)
                assert await socket.recv() == message


@fast_only
async def test_a_letter_may_be_cut_by_the_border_of_two_fragments(serve: Serve) -> None:
    letters = "ü€😀".encode()
    async with through(serve) as there, there.connect() as socket:
        await socket.send([letters[at : at + 1] for at in range(len(letters))], text=True)
        got = await socket.recv()

    assert got == "ü€😀"


async def fragments_with_pings(socket: Connection, pongs: list[float]) -> AsyncIterator[bytes]:
    """Make ten fragments, with a ping behind each, and wait for its pong."""
    for number in range(10):
        yield b"%d" % number * 1000
        pongs.append(await asyncio.wait_for(await socket.ping(), PATIENCE_S))


@fast_only
async def test_pings_are_answered_from_end_to_end_between_fragments_too(serve: Serve) -> None:
    whole = b"".join(b"%d" % number * 1000 for number in range(10))
    theirs: list[float] = []
    ours: list[float] = []

    async def speak(socket: ServerConnection) -> None:
        got = await socket.recv()
        assert got == whole
        await socket.send(fragments_with_pings(socket, theirs))

    async with through(serve, speak) as there, there.connect() as socket:
        await socket.send(fragments_with_pings(socket, ours))
        got = await socket.recv()

    assert got == whole
    assert (len(ours), len(theirs)) == (10, 10)


@fast_only
@pytest.mark.parametrize("forgets", [False, True], ids=["context kept", "no context takeover"])
async def test_compression_is_agreed_on_between_the_ends(serve: Serve, *, forgets: bool) -> None:
    offer = ClientPerMessageDeflateFactory(
        server_no_context_takeover=forgets, client_no_context_takeover=forgets
    )
    message = "the same again and again " * 1000
    async with through(serve) as there, there.connect(extensions=[offer]) as socket:
        (agreed,) = socket.protocol.extensions
        for _ in range(5):
            await socket.send(message)
            assert await socket.recv() == message

    assert isinstance(agreed, PerMessageDeflate)
    assert agreed.local_no_context_takeover is forgets
    assert agreed.remote_no_context_takeover is forgets


# --- The handshake -------------------------------------------------------------------------------


@fast_only
async def test_the_ends_agree_on_a_subprotocol(serve: Serve) -> None:
    known = [Subprotocol("chat.v2"), Subprotocol("chat.v1")]
    offered = [Subprotocol("chat.v1"), Subprotocol("chat.v0")]
    async with through(serve, subprotocols=known) as there:
        async with there.connect(subprotocols=offered) as socket:
            agreed = socket.subprotocol

    assert agreed == "chat.v1"


@fast_only
async def test_fields_of_the_handshake_cross_both_ways(serve: Serve) -> None:
    asked: list[Request] = []

    def process_response(_: ServerConnection, request: Request, response: Response) -> None:
        asked.append(request)
        response.headers["X-Room"] = "7"

    fields = {"Authorization": "Bearer t", "Cookie": "a=1; b=2"}
    async with through(serve, process_response=process_response) as there:
        async with there.connect(additional_headers=fields) as socket:
            answer = socket.response

    assert {name: asked[0].headers[name] for name in fields} == fields
    assert asked[0].headers["X-Forwarded-For"] == "127.0.0.1"
    assert answer is not None
    assert answer.headers["X-Room"] == "7"


@fast_only
@pytest.mark.parametrize(("origin", "status"), [("https://a.example", 101), ("https://b", 403)])
async def test_the_instance_judges_the_origin(serve: Serve, origin: str, status: int) -> None:
    async with through(serve, origins=[Origin("https://a.example")]) as there:
        try:
            async with there.connect(origin=Origin(origin)) as socket:
                assert socket.response is not None
                got = socket.response.status_code
        except InvalidStatus as refused:
            got = refused.response.status_code

    assert got == status


@fast_only
async def test_a_refusal_of_the_instance_arrives_as_it_is(serve: Serve) -> None:
    def refuse(socket: ServerConnection, _: Request) -> Response:
        return socket.respond(HTTPStatus.FORBIDDEN, "not you\n")

    async with through(serve, process_request=refuse) as there:
        with pytest.raises(InvalidStatus) as refused:
            await there.connect()

    answer = refused.value.response
    assert (answer.status_code, answer.body) == (403, b"not you\n")


# --- Ends ----------------------------------------------------------------------------------------

CLOSES = [(1000, ""), (1001, "going away"), (3000, "ünïcødé"), (4999, "x" * 123)]


@fast_only
@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_close_codes_pass_both_ways(serve: Serve, code: int, reason: str) -> None:
    seen: list[tuple[int | None, str | None]] = []

    async def speak(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await socket.recv()
            await socket.close(code, reason)
        await note_end(socket, seen)

    async with through(serve, speak) as there:
        async with there.connect() as socket:
            await socket.send("you first")
            await note_end(socket, seen)
        async with there.connect() as socket:
            await socket.close(code, reason)
        await wait_until(lambda: len(seen) == 3)

    assert seen == [(code, reason)] * 3


async def note_end(socket: Connection, seen: list[tuple[int | None, str | None]]) -> None:
    """Wait for the end, and keep the code and the reason."""
    await asyncio.wait_for(socket.wait_closed(), PATIENCE_S)
    seen.append((socket.close_code, socket.close_reason))


@fast_only
@pytest.mark.parametrize("dies", ["instance", "client"])
async def test_an_end_that_dies_is_seen_as_1006(serve: Serve, dies: str) -> None:
    seen: list[tuple[int | None, str | None]] = []

    async def speak(socket: ServerConnection) -> None:
        await socket.recv()
        if dies == "instance":
            socket.transport.abort()
        else:
            await socket.send("your turn")
            await note_end(socket, seen)

    async with through(serve, speak) as there, there.connect() as socket:
        await socket.send("hello")
        if dies == "client":
            await socket.recv()
            socket.transport.abort()
        else:
            await note_end(socket, seen)
        await wait_until(lambda: seen)

    assert seen == [(1006, "")]


# --- Many, and much ------------------------------------------------------------------------------


async def converse(port: int, number: int, all_in: asyncio.Barrier) -> None:
    """Say something three times while all the others are there too."""
    async with connect_to(port, compression=None) as socket:
        for turn in range(3):
            await asyncio.wait_for(all_in.wait(), PATIENCE_S)
            await socket.send(f"{number}.{turn}")
            assert await asyncio.wait_for(socket.recv(), PATIENCE_S) == f"{number}.{turn}"


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_a_thousand_sockets_at_once(tmp_path: Path) -> None:
    all_in = asyncio.Barrier(SOCKETS)
    async with instance() as port, GatewayRun(routes_to(port), tmp_path) as gateway:
        memory = PeakOfMemory(gateway.pid)
        before_bytes = memory.now_bytes
        async with asyncio.TaskGroup() as tasks:
            for number in range(SOCKETS):
                tasks.create_task(converse(gateway.port, number, all_in))
        growth_bytes = memory.peak_bytes - before_bytes
        await wait_until(lambda: len(gateway.requests) == SOCKETS)

    assert {one["status"] for one in gateway.requests} == {101}
    assert growth_bytes < SOCKETS * 32 * 1024


async def push(socket: Connection, count: list[int]) -> None:
    """Send a MiB after the other, and count them."""
    for _ in range(MESSAGES):
        await socket.send(PIECE)
        count[0] += 1


@pytest.mark.slow
@pytest.mark.parametrize("pushes", ["instance", "client"])
async def test_an_end_that_does_not_read_stops_the_other_and_fills_no_memory(
    tmp_path: Path, pushes: str
) -> None:
    sent = [0]
    may_read = asyncio.Event()
    got: list[bool] = []

    async def pull(socket: Connection) -> None:
        await may_read.wait()
        got.extend([await socket.recv() == PIECE for _ in range(MESSAGES)])

    async def speak(socket: ServerConnection) -> None:
        await (push(socket, sent) if pushes == "instance" else pull(socket))

    quiet = {"max_queue": 1, "compression": None, "ping_interval": None}
    async with (
        instance(speak, **quiet) as port,
        GatewayRun(routes_to(port), tmp_path) as gateway,
        connect_to(gateway.port, **quiet) as socket,
    ):
        memory = PeakOfMemory(gateway.pid)
        before_bytes = memory.now_bytes
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pull(socket) if pushes == "instance" else push(socket, sent))
            stuck = await stuck_at(sent, still_s=0.5)
            may_read.set()
        await wait_until(lambda: len(got) == MESSAGES)
        growth_bytes = memory.peak_bytes - before_bytes

    assert stuck < MESSAGES
    assert got == [True] * MESSAGES
    assert growth_bytes < 10 * MIB

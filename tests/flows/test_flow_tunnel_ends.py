"""How a tunnel ends when the gateway must: both ends are told, and read it before the end.

WebSocket peers are those of the `websockets` package, in a test that only looks at what they saw.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed

from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.peer import Ended
from tests.fakes.scenes import echo, head, play, reply, stall
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

WEBSOCKET = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
ECHO = (("Connection", "Upgrade"), ("Upgrade", "echo"))


def switch_to(protocol: bytes) -> bytes:
    return head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", protocol)])


class Seen:
    """What the instance saw of the end of its WebSockets."""

    def __init__(self) -> None:
        self.ends: list[ConnectionClosed] = []

    async def speak(self, socket: ServerConnection) -> None:
        """Echo every message, until the socket is closed."""
        try:
            while True:
                await socket.send(await socket.recv())
        except ConnectionClosed as closed:
            self.ends.append(closed)


@asynccontextmanager
async def draining_soon(folder: Path) -> AsyncIterator[tuple[GatewayRun, Seen, str]]:
    seen = Seen()
    async with serve_websocket(seen.speak, "127.0.0.1", 0) as instance:
        port = next(iter(instance.sockets)).getsockname()[1]
        async with GatewayRun(routes_to(port), folder, drain_timeout="300ms") as gateway:
            yield gateway, seen, f"ws://127.0.0.1:{gateway.port}/chat"


async def end_of(socket: ClientConnection) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(socket.recv(), PATIENCE_S)
    return closed.value


def code_of(closed: ConnectionClosed) -> int | None:
    """Tell the code of the close frame that came, None if none did."""
    return closed.rcvd.code if closed.rcvd else None


async def test_both_ends_of_a_websocket_are_told_that_the_gateway_goes(tmp_path: Path) -> None:
    async with draining_soon(tmp_path) as (gateway, seen, url):
        sockets = [await connect(url, proxy=None) for _ in range(20)]
        for number, socket in enumerate(sockets):
            await socket.send(str(number))
            assert await socket.recv() == str(number)

        gateway.signal(signal.SIGTERM)
        codes = [code_of(await end_of(socket)) for socket in sockets]
        code = await gateway.ended()

        assert codes == [1001] * 20
        assert [code_of(closed) for closed in seen.ends] == [1001] * 20
        assert code == 0
        assert "Traceback" not in gateway.said


async def test_inside_a_message_nothing_is_put_that_is_none_of_it(tmp_path: Path) -> None:
    """A close in the middle of a frame would be taken for its payload; the other end is told."""
    async with (
        ScriptedUpstream() as up,
        GatewayRun(routes_to(up), tmp_path, drain_timeout="300ms") as gateway,
        RawClient(gateway.port) as client,
    ):
        half_a_frame = b"\x81\x05hel"
        up.on_request(play(reply(switch_to(b"websocket") + half_a_frame), stall()))
        await client.send(ask("/", "GET", *WEBSOCKET))
        await client.read_response()
        assert await client.read_exactly(len(half_a_frame)) == half_a_frame

        gateway.signal(signal.SIGTERM)
        await client.expect_closed()
        await up.wait_until(lambda: not up.connections[0].is_open())

        assert bytes(up.connections[0].received).endswith(b"\r\n\r\n\x88\x82\0\0\0\0\x03\xe9")
        assert up.connections[0].ended is Ended.CLOSED_BY_PEER


async def test_another_protocol_ends_without_a_word_and_without_a_reset(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as up,
        GatewayRun(routes_to(up, upgrade=["echo"]), tmp_path, drain_timeout="300ms") as gateway,
        RawClient(gateway.port) as client,
    ):
        up.on_request(play(reply(switch_to(b"echo")), echo()))
        await client.send(ask("/", "GET", *ECHO))
        await client.read_response()
        await client.send(b"ping")
        assert await client.read_exactly(4) == b"ping"

        gateway.signal(signal.SIGTERM)
        await client.expect_closed()
        await up.wait_until(lambda: not up.connections[0].is_open())
        code = await gateway.ended()

        assert up.connections[0].ended is Ended.CLOSED_BY_PEER
        assert bytes(up.connections[0].received).endswith(b"\r\n\r\nping")
        assert code == 0


async def test_what_a_client_still_sends_does_not_destroy_the_last_words(tmp_path: Path) -> None:
    """It is read and let go: closing with unread bytes would make the kernel send a reset."""
    async with draining_soon(tmp_path) as (gateway, _, url):
        async with connect(url, proxy=None) as socket:
            gateway.signal(signal.SIGTERM)
            await gateway.wait_for("draining")
            with pytest.raises(ConnectionClosed) as closed:
                await send_on_and_on(socket)

        assert code_of(closed.value) == 1001


async def send_on_and_on(socket: ClientConnection) -> None:
    while True:
        await socket.send(bytes(65536))
        await socket.recv()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
async def test_a_second_signal_waits_for_nobody_who_does_not_read(
    tmp_path: Path, second: signal.Signals
) -> None:
    async with (
        ScriptedUpstream() as up,
        GatewayRun(routes_to(up), tmp_path, drain_timeout="10m") as gateway,
        RawClient(gateway.port) as client,
    ):
        up.on_request(play(reply(switch_to(b"websocket")), stall()))
        await client.send(ask("/", "GET", *WEBSOCKET))
        await client.read_response()
        gateway.signal(signal.SIGTERM)
        await gateway.wait_for("draining")
        gateway.signal(second)
        code = await gateway.ended()

        assert code == 0

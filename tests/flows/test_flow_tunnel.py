"""WebSocket and other upgrades: after a 101 the gateway is a pipe, and before it nothing passes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, fast_only, routes_to
from tests.fakes.scenes import echo, head, hold, play, reply, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

SWITCH = head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
OFFER = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
MIB = 1024 * 1024


async def speak(socket: ServerConnection) -> None:
    """Echo every message; "close" asks for a close with a code of its own."""
    async for message in socket:
        if message == "close":
            await socket.close(4001, "as asked")
        await socket.send(message)


@asynccontextmanager
async def echoing(serve: Serve) -> AsyncIterator[tuple[RunningGateway, str]]:
    async with serve_websocket(speak, "127.0.0.1", 0, max_size=None) as instance:
        port = next(iter(instance.sockets)).getsockname()[1]
        async with serve(routes_to(port)) as gateway:
            yield gateway, f"ws://127.0.0.1:{gateway.port}/chat"


@fast_only
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_pass_both_ways_whatever_they_are_made_of(
    serve: Serve, compression: str | None
) -> None:
    big = os.urandom(MIB)
    async with (
        echoing(serve) as (_, url),
        connect(url, max_size=None, compression=compression, proxy=None) as socket,
    ):
        for message in ("text", "ünïcødé", b"binary", "", big):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "fragments"])
        assert await socket.recv() == "in three fragments"
        await asyncio.wait_for(await socket.ping(), 5)


@fast_only
async def test_close_codes_pass_both_ways(serve: Serve) -> None:
    async with echoing(serve) as (gateway, url):
        async with connect(url, proxy=None) as socket:
            await socket.send("close")
            with pytest.raises(ConnectionClosedError) as closed:
                await socket.recv()
        async with connect(url, proxy=None) as socket:
            await socket.close(4002, "enough")

        await wait_until(lambda: gateway.in_flight_count == 0)

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")
    assert socket.close_code == 4002


@fast_only
async def test_subprotocols_and_refusals_of_the_instance_pass(serve: Serve) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(respond(403, b"not you"))

        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{gateway.port}/", subprotocols=["chat"], proxy=None)  # type: ignore[list-item]

    assert refused.value.response.status_code == 403
    assert up.requests[0].values(b"sec-websocket-protocol") == [b"chat"]


@fast_only
@pytest.mark.slow
async def test_a_thousand_sockets_at_once(serve: Serve) -> None:
    async def one(url: str, number: int, all_in: asyncio.Barrier) -> None:
        async with connect(url, proxy=None, open_timeout=30) as socket:
            await asyncio.wait_for(all_in.wait(), 30)
            await socket.send(str(number))
            assert await asyncio.wait_for(socket.recv(), 30) == str(number)

    all_in = asyncio.Barrier(1000)
    async with echoing(serve) as (gateway, url):
        await asyncio.gather(*(one(url, number, all_in) for number in range(1000)))
        await wait_until(lambda: gateway.in_flight_count == 0, within_s=10)


@fast_only
async def test_any_protocol_that_the_route_takes_may_be_switched_to(serve: Serve) -> None:
    switch = head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"Echo")])
    async with ScriptedUpstream() as up, serve(routes_to(up, upgrade=["echo"])) as gateway:
        up.on_request(play(reply(switch + b"first"), echo()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", ("Connection", "Upgrade"), ("Upgrade", "echo")))
            answer = await client.read_response()
            await client.send(b"\x00\xff raw")
            got = await client.read_exactly(10)

    assert (answer.status, answer.values(b"upgrade")) == (101, [b"echo"])
    assert got == b"first\x00\xff ra"


async def test_an_offer_that_the_route_does_not_take_is_not_passed_on(serve: Serve) -> None:
    """A client may always be answered without it (RFC 9110 §7.8); h2c would hide requests."""
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        async with RawClient(gateway.port) as client:
            offer = (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"))
            await client.send(ask("/one", "GET", *offer, ("HTTP2-Settings", "AAMAAABk")))
            first = await client.read_response()
            await client.send(ask("/two"))
            second = await client.read_response()

    assert (first.status, second.status) == (200, 200)
    assert [request.target for request in up.requests] == [b"/one", b"/two"]
    assert up.requests[0].values(b"upgrade") == []
    assert up.requests[0].values(b"http2-settings") == []


async def test_websocket_is_refused_where_the_route_does_not_take_it(serve: Serve) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up, upgrade=[])) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            answer = await client.read_response()

    assert (answer.status, answer.values(b"x-gateway-reason")) == (501, [b"not_implemented"])
    assert up.requests == []


@fast_only
async def test_nothing_passes_before_the_101(serve: Serve) -> None:
    """What stands behind the offer may be a smuggled request (CVE-2026-2833)."""
    decided = asyncio.Event()
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(play(hold(decided), reply(SWITCH), echo()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER) + b"early")
            await up.wait_until(lambda: len(up.requests) == 1)
            await client.send(b" bird")
            before = bytes(up.connections[0].received)
            decided.set()
            answer = await client.read_response()
            got = await client.read_exactly(10)

    assert before.endswith(b"\r\n\r\n")
    assert (answer.status, got) == (101, b"early bird")


@fast_only
async def test_what_stands_behind_an_offer_that_is_not_taken_is_the_next_request(
    serve: Serve,
) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask("/one", "GET", *OFFER) + ask("/two"))
            first = await client.read_response()
            second = await client.read_response()

    assert (first.status, second.status) == (200, 200)
    assert [request.target for request in up.requests] == [b"/one", b"/two"]


@fast_only
@pytest.mark.parametrize(
    "switch",
    [
        head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")]),
        head(101, [(b"Connection", b"Upgrade")]),
        SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["another protocol", "no protocol", "HTTP/1.0"],
)
async def test_only_what_was_asked_for_is_switched_to(serve: Serve, switch: bytes) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(reply(switch))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            answer = await client.read_response()

    assert (answer.status, answer.values(b"x-gateway-reason")) == (502, [b"bad_response"])


@fast_only
async def test_a_200_opens_no_tunnel(serve: Serve) -> None:
    """An instance that ignores the offer answers, and that is that (CVE-2024-23326)."""
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(respond(200, b"page", [(b"Upgrade", b"websocket")]))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            answer = await client.read_response()
            await client.send(ask("/next"))
            after = await client.read_response()

    assert (answer.status, answer.body, after.status) == (200, b"page", 200)
    assert [request.target for request in up.requests] == [b"/", b"/next"]


@fast_only
async def test_a_silent_tunnel_is_closed_and_nobody_is_blamed(serve: Serve) -> None:
    async with (
        ScriptedUpstream() as up,
        serve(routes_to(up, timeouts={"idle": "300ms"})) as gateway,
    ):
        up.on_request(play(reply(SWITCH), echo()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            await client.read_response()
            await client.expect_reset()

        breaker = gateway.member(up).breaker

    assert breaker.last_failure is None


async def fill(client: RawClient) -> int:
    """Send until nothing more is taken; tell how many bytes that were."""
    sent = 0
    while sent < 64 * MIB:
        try:
            await client.send(bytes(MIB))
        except TimeoutError:
            break
        sent += MIB
    return sent


@fast_only
async def test_a_side_that_takes_no_more_stops_the_other(serve: Serve) -> None:
    """Back-pressure holds in a tunnel as in any body: memory is bounded."""
    stuck = asyncio.Event()
    async with ScriptedUpstream(receive_buffer_bytes=4096) as up, serve(routes_to(up)) as gateway:
        up.on_request(play(reply(SWITCH), hold(stuck), echo()))
        async with RawClient(gateway.port, timeout_s=0.5) as client:
            await client.send(ask("/", "GET", *OFFER))
            await client.read_response()
            sent = await fill(client)

            stuck.set()

    assert sent < 32 * MIB


async def test_asgi_says_that_it_cannot(serve: Serve, face: str) -> None:
    """ASGI's HTTP scope has no 101; the fast face has."""
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(play(reply(SWITCH), echo()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            answer = await client.read_response()

    assert answer.status == (101 if face == "fast" else 501)

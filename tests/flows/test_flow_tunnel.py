"""Upgrades: after a 101 the gateway is a pipe for any bytes, and before it nothing passes.

What WebSocket makes of it is told in test_flow_websockets.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, fast_only, routes_to
from tests.fakes.peer import Ended
from tests.fakes.scenes import echo, finish, head, hold, play, reply, respond, stall
from tests.fakes.upstream import ScriptedUpstream

SWITCH = head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
OFFER = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
MIB = 1024 * 1024


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


@pytest.mark.both_faces
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
        serve(routes_to(up, timeouts={"tunnel": "300ms"})) as gateway,
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


@fast_only
@pytest.mark.parametrize(
    "frame",
    [
        b"\x88\x02\x03\xe7",
        b"\x88\x01\x03",
        b"\x88\x02\x03\xed",
        b"\xf2\x05bytes",
        b"\x81\x02\xc3\x28",
        b"\x89\x7e\x00\x80" + bytes(128),
    ],
    ids=["code 999", "half a code", "code 1005", "reserved bits", "not UTF-8", "a long ping"],
)
async def test_frames_that_no_websocket_may_have_are_for_the_ends_to_judge(
    serve: Serve, frame: bytes
) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(play(reply(SWITCH), echo()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            await client.read_response()
            await client.send(frame)
            got = await client.read_exactly(len(frame))

    assert got == frame


@fast_only
async def test_what_a_client_sent_before_it_closed_its_half_arrives_whole(serve: Serve) -> None:
    """After that it is taken for one that left, as everywhere."""
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(play(reply(SWITCH), stall()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            await client.read_response()
            await client.send(b"x" * MIB)
            client.half_close()
            await up.wait_until(lambda: not up.connections[0].is_open())
            await client.expect_closed()

    assert up.connections[0].ended is Ended.CLOSED_BY_PEER
    assert up.connections[0].received.endswith(b"\r\n\r\n" + b"x" * MIB)


@fast_only
async def test_what_an_instance_sent_before_it_closed_its_half_arrives_whole(serve: Serve) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(play(reply(SWITCH), reply(b"x" * MIB), finish()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            await client.read_response()
            got = await client.read_exactly(MIB)
            await client.expect_closed()

    assert got == b"x" * MIB


@pytest.mark.both_faces
async def test_asgi_says_that_it_cannot(serve: Serve, face: str) -> None:
    """ASGI's HTTP scope has no 101; the fast face has."""
    async with ScriptedUpstream() as up, serve(routes_to(up)) as gateway:
        up.on_request(play(reply(SWITCH), echo()))
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *OFFER))
            answer = await client.read_response()

    assert answer.status == (101 if face == "fast" else 501)

"""A client vanishes, at every stage: the instance is told, nobody is blamed, and nothing is left.

Each stage is met once with a close look, and then a hundred times to see that it leaves nothing
behind. `close` ends with FIN, unless something was unread; `reset` always ends with RST.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from gateway.core.breaker import BreakerState
from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, fast_only, routes_to
from tests.fakes.leftovers import expect_nothing_left
from tests.fakes.peer import Action, Ended, Peer
from tests.fakes.scenes import chunk, echo, half_body, head, interim, play, reply, respond, stall
from tests.fakes.upstream import ScriptedUpstream, blackhole
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow

PATIENT = {"circuit_breaker": {"consecutive_failures": 10**6, "min_requests": 10**6}}
CHUNKED = head(200, [(b"Transfer-Encoding", b"chunked")])
SWITCH = head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
OFFER = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
GONE = (Ended.CLOSED_BY_PEER, Ended.RESET_BY_PEER)

STALLS = stall()

Reach = Callable[[RawClient], Awaitable[object]]


async def reach_head(client: RawClient) -> None:
    await client.read_head()


async def reach_nothing(_client: RawClient) -> None:
    """Nothing comes back at this stage."""


async def reach_interim(client: RawClient) -> None:
    assert (await client.read_some()).startswith(b"HTTP/1.1 103 ")


async def reach_echo(client: RawClient) -> None:
    await client.read_head()
    await client.send(b"ping")
    assert await client.read_exactly(4) == b"ping"


async def endless(peer: Peer) -> None:
    await peer.send(CHUNKED)
    while True:
        await peer.send(chunk(b"x" * 16384))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where the client vanishes: what it has sent, what the instance does, what it has read."""

    request: bytes
    scene: Action = STALLS
    at: str = "on_request"
    reach: Reach = reach_nothing
    is_asked: bool = True
    is_whole: bool = True


STAGES = {
    "before it asks": Stage(request=b"", is_asked=False),
    "in its head": Stage(request=b"GET / HTTP/1.1\r\nHost: sh", is_asked=False),
    "in its body": Stage(
        request=ask("/", "POST", ("Content-Length", "1000")) + b"some of it", is_whole=False
    ),
    "in a chunk of its body": Stage(
        request=ask("/", "POST", ("Transfer-Encoding", "chunked")) + b"ff\r\nsome of it",
        is_whole=False,
    ),
    "while the instance thinks": Stage(request=ask()),
    "behind the head of the answer": Stage(
        request=ask(), scene=play(half_body(body=b""), stall()), reach=reach_head
    ),
    "inside the answer": Stage(request=ask(), scene=play(half_body(), stall()), reach=reach_head),
    "inside an endless answer": Stage(request=ask(), scene=endless, reach=reach_head),
    "inside an early answer": Stage(
        request=ask("/", "POST", ("Content-Length", "1000")) + b"some of it",
        at="on_head",
        scene=play(half_body(), stall()),
        reach=reach_head,
        is_whole=False,
    ),
}
# ASGI has no tunnels and no interim answers, and uvicorn reads nobody with a request behind.
ONLY_FAST = {
    "with another request behind": Stage(request=ask() + ask("/next")),
    "behind an interim answer": Stage(
        request=ask(), scene=play(interim(103), stall()), reach=reach_interim
    ),
    "while it waits for its 100": Stage(
        request=ask("/", "POST", ("Expect", "100-continue"), ("Content-Length", "4")),
        is_whole=False,
    ),
    "in a tunnel": Stage(
        request=ask("/", "GET", *OFFER),
        scene=play(reply(SWITCH), echo()),
        reach=reach_echo,
    ),
    "in a tunnel that is not open yet": Stage(request=ask("/", "GET", *OFFER) + b"early"),
}
HOW = ["close", "reset"]


async def vanish(port: int, web: ScriptedUpstream, stage: Stage, how: str) -> None:
    """Go to this stage, and from there."""
    asked = len(web.requests)
    async with RawClient(port) as client:
        if stage.request:
            await client.send(stage.request)
        if stage.is_asked:
            await web.wait_until(lambda: len(web.requests) > asked)
        await stage.reach(client)
        if how == "reset":
            client.reset()


async def expect_all_is_as_before(
    gateway: RunningGateway, web: ScriptedUpstream, stage: Stage, how: str
) -> None:
    await vanish(gateway.port, web, stage, how)
    await web.wait_until(lambda: not any(peer.is_open() for peer in web.connections))
    await wait_until(lambda: gateway.in_flight_count == 0)
    breaker = gateway.member(web).breaker
    blamed = (breaker._failed, breaker.has_trial_out)
    asked, ended = list(web.requests), [peer.ended for peer in web.connections]
    await expect_nothing_left(gateway, lambda: vanish(gateway.port, web, stage, how))

    assert blamed == (0, False)
    assert [one.is_complete for one in asked] == ([stage.is_whole] if stage.is_asked else [])
    assert set(ended) <= set(GONE)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", STAGES)
async def test_a_client_that_vanishes(serve: Serve, name: str, how: str) -> None:
    stage = STAGES[name]
    async with ScriptedUpstream() as web:
        getattr(web, stage.at)(stage.scene)
        async with serve(routes_to(web, service=PATIENT)) as gateway:
            await expect_all_is_as_before(gateway, web, stage, how)


@fast_only
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ONLY_FAST)
async def test_a_client_that_vanishes_where_asgi_has_no_such_stage(
    serve: Serve, name: str, how: str
) -> None:
    stage = ONLY_FAST[name]
    async with ScriptedUpstream() as web:
        getattr(web, stage.at)(stage.scene)
        async with serve(routes_to(web, service=PATIENT)) as gateway:
            await expect_all_is_as_before(gateway, web, stage, how)


@pytest.mark.parametrize("how", HOW)
async def test_a_client_that_vanishes_while_a_connection_is_made(serve: Serve, how: str) -> None:
    at_once = 10
    everybody = asyncio.Barrier(at_once)

    async def vanish_early(gateway: RunningGateway) -> None:
        await wait_until(lambda: gateway.in_flight_count == 0)
        await everybody.wait()
        async with RawClient(gateway.port) as client:
            await client.send(ask())
            await wait_until(lambda: gateway.in_flight_count == at_once)
            await everybody.wait()
            if how == "reset":
                client.reset()

    async with blackhole() as port, serve(routes_to(port, service=PATIENT)) as gateway:
        await asyncio.gather(*(vanish_early(gateway) for _ in range(at_once)))
        await wait_until(lambda: gateway.in_flight_count == 0)
        (member,) = gateway.gateway.engine.fleets["web"].members.values()
        await expect_nothing_left(gateway, lambda: vanish_early(gateway), at_once=at_once)

        assert member.breaker._failed == 0


@pytest.mark.both_faces
async def test_clients_that_vanish_at_any_moment_leave_nothing(serve: Serve) -> None:
    """The moment is left to chance: the connection to the instance is just made, or just not."""
    async with ScriptedUpstream() as web:
        web.on_request(play(respond(headers=[(b"Connection", b"close")]), stall()))
        async with serve(routes_to(web, service=PATIENT)) as gateway:

            async def leave_at_once() -> None:
                async with RawClient(gateway.port) as client:
                    await client.send(ask())
                    client.reset()

            await expect_nothing_left(gateway, leave_at_once)
            assert gateway.member(web).breaker._failed == 0


@fast_only
async def test_a_client_that_takes_the_answer_slower_than_the_least_rate(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut like one that stops, long before `timeouts.idle` (5 minutes)."""
    monkeypatch.setattr("gateway.core.pace.WINDOW_S", 0.2)
    async with ScriptedUpstream() as web, serve(routes_to(web, service=PATIENT)) as gateway:
        web.on_request(endless)
        async with RawClient(gateway.port, receive_buffer_bytes=16 * 1024) as client:
            await client.send(ask())
            await client.read_head()
            await web.wait_until(lambda: not web.connections[0].is_open())
        assert gateway.member(web).breaker.state(0.0) is BreakerState.CLOSED


async def test_a_client_that_stops_reading_the_answer(serve: Serve) -> None:
    """Its time is over after `timeouts.idle`; it was the client, so nobody is blamed."""

    async def stop_reading(port: int) -> None:
        async with RawClient(port, receive_buffer_bytes=16 * 1024) as client:
            await client.send(ask())
            await client.read_head()
            ended = len([one for one in web.connections if not one.is_open()])
            await web.wait_until(lambda: sum(not one.is_open() for one in web.connections) > ended)

    async with ScriptedUpstream() as web:
        web.on_request(endless)
        routes = routes_to(web, timeouts={"idle": "300ms"}, service=PATIENT)
        async with serve(routes) as gateway:
            await stop_reading(gateway.port)
            await wait_until(lambda: gateway.in_flight_count == 0)
            blamed, ended = gateway.member(web).breaker._failed, web.connections[0].ended
            await expect_nothing_left(gateway, lambda: stop_reading(gateway.port), at_once=25)

        assert blamed == 0
        assert ended in GONE

"""The client leaves: the instance is told at once, nobody is blamed, and nothing is left over.

`test_flow_faults_of_clients` goes through all stages, and counts.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.scenes import half_body, play, respond, stall
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

CLOCK_SKEW_S = 0.02  # the loop reads its clock once a turn, so its time may be a little behind


async def expect_nobody_blamed(gateway: RunningGateway, web: ScriptedUpstream) -> None:
    """Fail unless the attempt is over and the Breaker has heard nothing of it."""
    await wait_until(lambda: gateway.in_flight_count == 0)
    breaker = gateway.member(web).breaker
    assert (breaker._failed, breaker.has_trial_out) == (0, False)


@pytest.mark.both_faces
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_while_the_instance_thinks(serve: Serve, how: str) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(stall())
        async with serve(routes_to(web)) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                await web.wait_until(lambda: bool(web.requests))
                if how == "reset":
                    client.reset()
            await web.wait_until(lambda: not web.connections[0].is_open())
            await expect_nobody_blamed(gateway, web)


@pytest.mark.both_faces
async def test_inside_the_answer(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(play(half_body(), stall()))
        async with serve(routes_to(web)) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                await client.read_head()
            await web.wait_until(lambda: not web.connections[0].is_open())
            await expect_nobody_blamed(gateway, web)


async def test_between_two_requests(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                await client.read_response()
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                answer = await client.read_response()

        assert answer.status == 200
        assert len(web.connections) == 1  # it was nobody's fault, so the connection was kept


async def test_inside_its_own_head(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: sh")

        assert web.connections == []


@pytest.mark.slow
async def test_with_a_trial_out_the_next_request_is_the_trial(serve: Serve) -> None:
    """A Permit that is not given back would keep the instance away for ever."""
    breaker = {"consecutive_failures": 1, "open_for": "50ms"}
    async with ScriptedUpstream() as web:
        web.on_request(respond(503), stall(), respond())
        routes = routes_to(web, service={"circuit_breaker": breaker})
        async with serve(routes) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                await client.read_response()
            member, breakers = gateway.member(web), gateway.gateway.engine.fleets["web"].breakers

            def is_trial_due() -> bool:
                asked_at_s = time.monotonic() - CLOCK_SKEW_S
                return breakers.retry_at_s(asked_at_s) == asked_at_s

            await wait_until(is_trial_due)
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                await web.wait_until(lambda: len(web.requests) == 2)
                assert member.breaker.has_trial_out
            await wait_until(lambda: not member.breaker.has_trial_out and is_trial_due())
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                answer = await client.read_response()

    assert answer.status == 200


async def test_two_hundred_at_once(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(stall())
        async with serve(routes_to(web)) as gateway:
            clients = [RawClient(gateway.port) for _ in range(200)]
            async with asyncio.TaskGroup() as tasks:
                for client in clients:
                    tasks.create_task(client.__aenter__())
            for client in clients:
                await client.send(ask())
            await web.wait_until(lambda: len(web.requests) == 200)
            for client in clients:
                await client.__aexit__(None, None, None)
            await web.wait_until(lambda: not any(peer.is_open() for peer in web.connections))
            await expect_nobody_blamed(gateway, web)

"""Instances that are frozen, all of them that are dead, and how soon they are found again."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.instance import Instance
from tests.fakes.load import Load, hammer
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.soak

CONNECT_S, RESPONSE_S = 0.5, 0.8
TIMEOUTS = {"connect": "500ms", "response": "800ms"}


def url(gateway: RunningGateway) -> str:
    return f"http://127.0.0.1:{gateway.port}/"


async def test_a_frozen_instance_costs_a_client_one_timeout_at_most_and_then_nothing(
    serve: Serve,
) -> None:
    """A real process, stopped by SIGSTOP under load: the kernel goes on taking connections."""
    async with Instance("frozen") as frozen, Instance("well") as well:
        routes = routes_to(frozen.port, well.port, timeouts=TIMEOUTS)
        async with serve(routes) as gateway, asyncio.TaskGroup() as tasks:
            before = tasks.create_task(hammer(url(gateway), total=6000, concurrency=16))
            await asyncio.sleep(0.2)
            frozen.freeze()
            during: Load = await before
            await wait_until(lambda: gateway.logged("breaker_opened"))
            after = await hammer(url(gateway), total=500)
            frozen.thaw()

    assert during.errors == after.errors == []
    assert during.statuses == {200: 6000}
    assert after.statuses == {200: 500}
    assert during.latency_s(1.0) < 10 * (CONNECT_S + RESPONSE_S)
    assert after.latency_s(1.0) < 10 * RESPONSE_S


async def test_when_all_are_dead_one_trial_a_second_goes_round_and_the_rest_is_refused_at_once(
    serve: Serve,
) -> None:
    breaker = {"circuit_breaker": {"consecutive_failures": 2}}
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        async with serve(routes_to(one, two, service=breaker)) as gateway:
            # That of one client's closed connections would open no Breaker.
            one.on_request(respond(503))
            two.on_request(respond(503))
            await hammer(url(gateway), total=20)
            await wait_until(lambda: gateway.gateway.engine.fleets["web"].breakers.is_outage)
            before = [len(one.requests), len(two.requests)]
            began_at_s = time.monotonic()
            slowest_s, reasons, retry_after = 0.0, set(), set()
            async with RawClient(gateway.port) as client:
                while time.monotonic() < began_at_s + 3.5:
                    sent_at_s = time.monotonic()
                    await client.send(ask())
                    answer = await client.read_response()
                    slowest_s = max(slowest_s, time.monotonic() - sent_at_s)
                    reasons |= {*answer.values(b"x-gateway-reason")}
                    retry_after |= {*answer.values(b"retry-after")}
        after = [len(one.requests), len(two.requests)]

    trials = [now - then for now, then in zip(after, before, strict=True)]
    # One a second for 3.5 s, or fewer where the machine did not let us ask.
    assert 2 <= sum(trials) <= 4
    assert min(trials) >= 1
    assert b"breakers_open" in reasons
    assert retry_after == {b"1"}
    assert slowest_s < 2.0


async def test_the_only_instance_is_found_again_within_about_a_second(serve: Serve) -> None:
    async with Instance("only") as only:
        async with serve(routes_to(only.port)) as gateway:
            await hammer(url(gateway), total=50)
            only.kill()
            down = await hammer(url(gateway), total=50)
            await only.start()
            back_at_s = time.monotonic()
            async with RawClient(gateway.port) as client:
                status = 0
                while status != 200:
                    await client.send(ask())
                    status = (await client.read_response()).status
                    await asyncio.sleep(0.01)
            took_s = time.monotonic() - back_at_s
            up = await hammer(url(gateway), total=50)

    assert 200 not in down.statuses
    assert took_s < 15
    assert up.statuses == {200: 50}


async def test_after_an_outage_all_are_back_at_once(serve: Serve) -> None:
    """However often a trial failed meanwhile: what was learned in the outage does not hold on."""
    breaker = {"circuit_breaker": {"consecutive_failures": 1}}
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        both = (one, two)
        async with serve(routes_to(*both, service=breaker)) as gateway:
            for upstream in both:
                await upstream.refuse()
                await upstream.drop()
            breakers = gateway.gateway.engine.fleets["web"].breakers
            while not breakers.is_outage:
                await hammer(url(gateway), total=5)
            await asyncio.sleep(1.1)
            await hammer(url(gateway), total=5)
            for upstream in both:
                upstream.on_request(respond())
                upstream.listen()
            began_at_s = time.monotonic()
            while any(gateway.member(one).breaker.is_shut for one in both):
                await hammer(url(gateway), total=2)
            took_s = time.monotonic() - began_at_s

    assert took_s < 20

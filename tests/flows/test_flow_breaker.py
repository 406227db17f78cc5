"""An instance that keeps failing is left alone for a while, and comes back by one trial."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.load import hammer
from tests.fakes.scenes import hold, play, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

OPENS_SOON = {"circuit_breaker": {"consecutive_failures": 3, "open_for": "400ms"}}
OPENS_FOR_LONG = {"circuit_breaker": {"consecutive_failures": 3, "open_for": "30s"}}


def url(gateway: RunningGateway) -> str:
    return f"http://127.0.0.1:{gateway.port}/"


async def web_health(gateway: RunningGateway) -> Any:
    return (await gateway.ask_admin("/health"))["services"]["web"]


async def test_the_breaker_opens_and_health_says_so(serve: Serve) -> None:
    async with ScriptedUpstream() as dead, ScriptedUpstream() as alive:
        await dead.refuse()
        async with serve(routes_to(dead, alive, service=OPENS_FOR_LONG)) as gateway:
            before = await web_health(gateway)
            load = await hammer(url(gateway), total=100)
            after = await web_health(gateway)

        assert load.statuses == {200: 100}
        assert (before["status"], before["breakers"]) == ("ok", {"open": 0, "half_open": 0})
        assert (after["status"], after["breakers"]) == ("degraded", {"open": 1, "half_open": 0})
        assert after["open"][0]["instance"] == dead.authority
        assert after["open"][0]["why"] == "connect_failed"
        assert 20 < after["open"][0]["retry_in_s"] <= 30
        assert [dead.authority] == [one["address"] for one in gateway.logged("breaker_opened")]


async def test_an_open_breaker_keeps_requests_away(serve: Serve) -> None:
    async with ScriptedUpstream() as sick, ScriptedUpstream() as well:
        sick.on_request(respond(503))
        routes = routes_to(sick, well, service=OPENS_FOR_LONG)
        async with serve(routes) as gateway:
            await hammer(url(gateway), total=100)
            asked_before = len(sick.requests)
            load = await hammer(url(gateway), total=100)

        assert load.statuses == {200: 100}
        assert asked_before >= 3
        assert len(sick.requests) == asked_before


def is_trial_due(gateway: RunningGateway, web: ScriptedUpstream) -> bool:
    return gateway.member(web).breaker.would_admit(time.monotonic())


async def test_an_instance_that_is_back_gets_traffic_after_one_trial(serve: Serve) -> None:
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        await web.refuse()
        async with serve(routes_to(web, other, service=OPENS_SOON)) as gateway:
            await hammer(url(gateway), total=50)
            assert gateway.logged("breaker_opened")

            web.listen()
            await wait_until(lambda: is_trial_due(gateway, web))
            load = await hammer(url(gateway), total=200)
            after = await web_health(gateway)

        assert load.statuses == {200: 200}
        assert len(web.requests) > 50
        assert (after["status"], after["breakers"]) == ("ok", {"open": 0, "half_open": 0})
        assert len(gateway.logged("breaker_closed")) == 1


async def test_only_one_trial_is_out_at_a_time(serve: Serve) -> None:
    may_answer = asyncio.Event()
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        await web.refuse()
        async with serve(routes_to(web, other, service=OPENS_SOON)) as gateway:
            await hammer(url(gateway), total=50)
            web.on_request(play(hold(may_answer), respond()))
            web.listen()
            await wait_until(lambda: is_trial_due(gateway, web))
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(hammer(url(gateway), total=100, concurrency=20))
                await web.wait_until(lambda: bool(web.requests))
                await other.wait_until(lambda: len(other.requests) >= 149)
                asked_meanwhile = len(web.requests)
                may_answer.set()

        assert asked_meanwhile == 1
        assert asking.result().statuses == {200: 100}


async def test_a_trial_that_fails_opens_the_breaker_for_longer(serve: Serve) -> None:
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        await web.refuse()
        async with serve(routes_to(web, other, service=OPENS_SOON)) as gateway:
            await hammer(url(gateway), total=50)
            await wait_until(lambda: is_trial_due(gateway, web))
            await hammer(url(gateway), total=50)

        first, second, *_ = (event["open_for_s"] for event in gateway.logged("breaker_opened"))
        assert 0.36 <= first <= 0.4
        assert 0.72 <= second <= 0.8


async def test_when_all_are_down_clients_are_told_fast_and_when_to_come_again(
    serve: Serve,
) -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        await one.refuse()
        await two.refuse()
        reasons: list[tuple[int, bytes]] = []
        retry_after_s = 0
        async with (
            serve(routes_to(one, two, service=OPENS_FOR_LONG)) as gateway,
            RawClient(gateway.port) as client,
        ):
            for _ in range(6):
                await client.send(ask())
                answer = await client.read_response()
                retry_after_s = int(answer.values(b"retry-after")[0])
                reasons.append((answer.status, answer.values(b"x-gateway-reason")[0]))
            health = await gateway.ask_admin("/health")

    assert reasons[0] == (503, b"all_unreachable")
    assert reasons[-1] == (503, b"breakers_open")
    assert {status for status, _ in reasons} == {503}
    assert reasons.count((503, b"breakers_open")) >= 3  # of six: nobody was connected to
    assert retry_after_s == 1  # one trial a second, however long each Breaker is open
    assert (health["status"], health["services"]["web"]["status"]) == ("down", "down")

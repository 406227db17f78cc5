"""Instances that are up but not well: health checks of the gateway's own find them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.client import Answer, RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.instance import Instance
from tests.fakes.load import hammer
from tests.fakes.peer import Action, ReceivedRequest
from tests.fakes.scenes import app, respond, stall
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

CHECKED = {
    "health_check": {
        "path": "/health",
        "interval": "30ms",
        "timeout": "200ms",
        "unhealthy_after": 2,
    }
}
BY_TCP = {
    "health_check": {"type": "tcp", "interval": "30ms", "timeout": "200ms", "unhealthy_after": 2}
}


def answering(health: int, name: bytes = b"ok") -> Action:
    """Answer /health with this status, and everything else with 200 and the name."""

    def choose(request: ReceivedRequest) -> Action:
        return respond(health) if request.target == b"/health" else respond(body=name)

    return app(choose)


async def get(gateway: RunningGateway) -> Answer:
    async with RawClient(gateway.port) as client:
        await client.send(ask())
        return await client.read_response()


async def until_refused(gateway: RunningGateway, count: int) -> None:
    """Wait until so many instances are refused by their checks."""
    members = gateway.gateway.engine.fleets["web"].members
    await wait_until(lambda: sum(one.check.is_failing for one in members.values()) == count)


async def instances_of(gateway: RunningGateway) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = (await gateway.ask_admin("/api/services/web"))["instances"]
    return shown


async def test_an_instance_whose_health_page_turns_503_gets_nothing_until_it_is_well(
    serve: Serve,
) -> None:
    async with ScriptedUpstream() as sick, ScriptedUpstream() as well:
        sick.on_request(answering(200, b"sick"))
        well.on_request(answering(200, b"well"))
        async with serve(routes_to(sick, well, service=CHECKED)) as gateway:
            url = f"http://127.0.0.1:{gateway.port}/"
            both = await hammer(url, total=50)

            sick.on_request(answering(503, b"sick"))
            await until_refused(gateway, 1)
            one = await hammer(url, total=50)
            shown = {each["address"]: each for each in await instances_of(gateway)}

            sick.on_request(answering(200, b"sick"))
            await until_refused(gateway, 0)
            again = await hammer(url, total=50)

        assert set(both.bodies) == {b"sick", b"well"}
        assert one.bodies == {b"well": 50}
        assert shown[sick.authority]["refused_by"] == [
            {"who": "health_check", "why": "/health: 503"}
        ]
        assert shown[well.authority]["refused_by"] == []
        assert set(again.bodies) == {b"sick", b"well"}


async def test_when_all_fail_their_checks_the_refusal_says_so(serve: Serve) -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as other:
        for upstream in (one, other):
            upstream.on_request(answering(503))
        async with serve(routes_to(one, other, service=CHECKED)) as gateway:
            await until_refused(gateway, 2)
            answer = await get(gateway)
            health = await gateway.ask_admin("/health")

            for upstream in (one, other):
                upstream.on_request(answering(200))
            await until_refused(gateway, 0)
            well = await get(gateway)

    assert (answer.status, answer.values(b"x-gateway-reason")) == (503, [b"no_instances"])
    assert b"2 failing their health checks (/health: 503)" in answer.body
    assert (health["status"], health["services"]["web"]["failing_checks"]) == ("down", 2)
    assert len(gateway.logged("no_healthy_instance")) == 1
    assert well.status == 200


async def test_a_check_never_holds_a_request_up(serve: Serve) -> None:
    """Every check hangs until its timeout; requests do not notice."""

    def choose(request: ReceivedRequest) -> Action:
        return stall() if request.target == b"/health" else respond()

    patient = {"health_check": {"path": "/health", "interval": "10ms", "timeout": "30s"}}
    async with ScriptedUpstream() as web:
        web.on_request(app(choose))
        async with serve(routes_to(web, service=patient)) as gateway:
            await web.wait_until(lambda: bool(web.requests))
            load = await hammer(f"http://127.0.0.1:{gateway.port}/", total=50)

    assert load.statuses == {200: 50}


async def test_no_check_goes_to_a_service_that_asks_for_none(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway:
            await asyncio.sleep(0.1)  # there is no event for what does not happen
            shown = await instances_of(gateway)

    assert web.connections == []
    assert shown[0]["health_check"]["opinion"] == "unknown"


async def test_a_tcp_check_finds_who_refuses_connections(serve: Serve) -> None:
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        async with serve(routes_to(web, other, service=BY_TCP)) as gateway:
            await web.refuse()
            await until_refused(gateway, 1)
            shown = {each["address"]: each for each in await instances_of(gateway)}
            web.listen()
            await until_refused(gateway, 0)

        why = f"port {web.port}: connection refused"
        assert shown[web.authority]["refused_by"] == [{"who": "health_check", "why": why}]


@pytest.mark.soak
async def test_a_frozen_instance_is_found_by_its_check_before_a_client_finds_it(
    serve: Serve,
) -> None:
    """A real process that is stopped: its kernel still takes connections, and nobody answers."""
    async with Instance("frozen") as frozen, Instance("other") as other:
        async with serve(routes_to(frozen.port, other.port, service=CHECKED)) as gateway:
            url = f"http://127.0.0.1:{gateway.port}/"
            await wait_until(
                lambda: all(
                    one.check.changed_at_s is not None
                    for one in gateway.gateway.engine.fleets["web"].members.values()
                )
            )
            frozen.freeze()
            await until_refused(gateway, 1)
            load = await hammer(url, total=50)
            why = [one["health_check"]["why"] for one in await instances_of(gateway)]

            frozen.thaw()
            await until_refused(gateway, 0)
            after = await hammer(url, total=50)

    assert load.bodies == {b"other": 50}
    assert sorted(map(str, why)) == ["/health: no result within 200ms", "None"]
    assert set(after.bodies) == {b"frozen", b"other"}

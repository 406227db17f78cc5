"""A gateway that follows a real Consul, while instances and Consul itself come and go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.discovery.consul_registry import ConsulRegistry
from tests.fakes.client import Answer, RawClient
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.gateway import RunningGateway, ask, routes_file
from tests.fakes.instance import Instance
from tests.fakes.load import hammer
from tests.fakes.programs import find_program
from tests.fakes.scenes import respond
from tests.fakes.traffic import last_from, steady
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = [pytest.mark.consul, pytest.mark.slow]

SERVICE = "user-service"
PATH = "/api/users/42"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[ConsulAgent]:
    """Run an empty Consul that forgets everything when it is restarted."""
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")
    async with ConsulAgent(program, tmp_path) as running:
        yield running


def gateway_for(agent: ConsulAgent, folder: Path, **settings: object) -> RunningGateway:
    """Make a gateway with /api/users → user-service, whose Breakers open for half a second."""
    routes = routes_file(
        {SERVICE: {"circuit_breaker": {"open_for": "500ms", "max_open_for": "500ms"}}},
        {"match": {"path_prefix": "/api/users"}, "service": SERVICE},
    )
    consul = {"registry": "consul", "consul_address": agent.address, "consul_wait_s": 2.0}
    return RunningGateway(routes, face="fast", folder=folder / "gateway", **consul, **settings)


async def until_known(gateway: RunningGateway, count: int) -> None:
    """Wait until the gateway knows so many instances."""
    fleet = gateway.gateway.engine.fleets[SERVICE]
    await wait_until(lambda: fleet.snapshot is not None and len(fleet.members) == count)


async def register(agent: ConsulAgent, *upstreams: ScriptedUpstream | Instance) -> None:
    """Register them as user-0, user-1 and so on."""
    for number, upstream in enumerate(upstreams):
        await agent.register(SERVICE, f"user-{number}", upstream.port)


async def get(gateway: RunningGateway) -> Answer:
    """Ask once, over a connection of its own."""
    return await send(gateway, ask(PATH))


async def send(gateway: RunningGateway, request: bytes) -> Answer:
    async with RawClient(gateway.port) as client:
        await client.send(request)
        return await client.read_response()


async def service_health(gateway: RunningGateway) -> Mapping[str, Any]:
    service: Mapping[str, Any] = (await gateway.ask_admin("/health"))["services"][SERVICE]
    return service


async def registry_health(gateway: RunningGateway) -> Mapping[str, Any]:
    registry: Mapping[str, Any] = (await gateway.ask_admin("/health"))["registries"][0]
    return registry


@asynccontextmanager
async def two_named(agent: ConsulAgent) -> AsyncIterator[list[ScriptedUpstream]]:
    """Run two registered instances that answer with "0" and "1"."""
    async with AsyncExitStack() as stack:
        pair = [await stack.enter_async_context(ScriptedUpstream()) for _ in range(2)]
        for number, upstream in enumerate(pair):
            upstream.on_request(respond(body=b"%d" % number))
        await register(agent, *pair)
        yield pair


async def test_two_registered_instances_both_answer(agent: ConsulAgent, tmp_path: Path) -> None:
    async with two_named(agent), gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)

        load = await hammer(f"http://127.0.0.1:{gateway.port}{PATH}", total=200, concurrency=8)

    assert load.errors == []
    assert load.statuses == {200: 200}
    assert min(load.bodies[b"0"], load.bodies[b"1"]) > 50


@pytest.mark.soak
async def test_killing_an_instance_is_seen_by_no_client_and_it_comes_back_after_its_trial(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    """A real process, killed under 200 concurrent GETs; Consul goes on calling it healthy."""
    async with (
        Instance("killed") as killed,
        Instance("other") as other,
        gateway_for(agent, tmp_path) as gateway,
    ):
        await register(agent, killed, other)
        await until_known(gateway, 2)
        url = f"http://127.0.0.1:{gateway.port}{PATH}"

        def make_request(number: int) -> bytes:
            if number == 1500:
                killed.kill()
            return ask(PATH)

        load = await hammer(url, total=4000, concurrency=200, make_request=make_request)
        during = await service_health(gateway)
        opened = gateway.logged("breaker_opened")

        assert load.errors == []
        assert load.statuses == {200: 4000}
        assert load.bodies[b"killed"] > 0
        assert opened != []
        assert {event["instance"] for event in opened} == {"agent/user-0"}
        assert [one["instance"] for one in during["open"]] == ["agent/user-0"]
        assert (during["status"], during["passing"]) == ("degraded", 2)

        await killed.start()
        async with steady(gateway.port, ask(PATH)) as traffic:
            await wait_until(lambda: traffic.bodies()[b"killed"] > 0)
            since_s = await traffic.wait_for_more(100)

        assert traffic.errors == []
        assert traffic.statuses.keys() == {200}
        assert traffic.bodies(since_s=since_s)[b"killed"] > 10
        assert len(gateway.logged("breaker_closed")) == 1
        assert (await service_health(gateway))["status"] == "ok"


@pytest.mark.soak
async def test_a_deregistered_instance_gets_nothing_soon_after(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    async with two_named(agent) as (one, _), gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)
        took_s = []
        async with steady(gateway.port, ask(PATH)) as traffic:
            for _ in range(5):
                await wait_until(lambda: traffic.answers and traffic.answers[-1].body == b"0")
                await agent.deregister("user-0")
                deregistered_at_s = time.monotonic()
                await until_known(gateway, 1)
                await traffic.wait_for_more(50)
                took_s.append(last_from(traffic.answers, b"0") - deregistered_at_s)
                await agent.register(SERVICE, "user-0", one.port)
                await until_known(gateway, 2)

    took_s.sort()
    assert traffic.errors == []
    assert traffic.statuses.keys() == {200}
    assert took_s[2] < 1.0  # 5 to 20 ms on a quiet machine
    assert took_s[-1] < 5.0


@pytest.mark.soak
async def test_consul_may_be_killed_and_nobody_notices_but_health(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    async with two_named(agent), gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)
        async with steady(gateway.port, ask(PATH), clients=2) as traffic:
            agent.kill()
            await wait_until(lambda: gateway.logged("registry_lost"))
            early = await service_health(gateway)
            gone_since_s = await traffic.wait_for_more(100)
            lost, late = await registry_health(gateway), await service_health(gateway)

    assert traffic.errors == []
    assert traffic.statuses.keys() == {200}
    assert traffic.bodies(since_s=gone_since_s).keys() == {b"0", b"1"}
    assert (lost["name"], lost["reachable"]) == ("consul", False)
    assert lost["detail"]
    assert early["snapshot"]["fresh"] is late["snapshot"]["fresh"] is False
    assert late["snapshot"]["age_s"] > early["snapshot"]["age_s"] >= 0


@pytest.mark.soak
async def test_while_an_empty_consul_learns_its_instances_again_nothing_is_lost(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    async with two_named(agent) as pair, gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)
        async with steady(gateway.port, ask(PATH), clients=2) as traffic:
            await agent.restart()
            await wait_until(lambda: held_count(gateway) == 2)
            empty_since_s = await traffic.wait_for_more(100)
            empty = traffic.bodies(since_s=empty_since_s)
            await agent.register(SERVICE, "user-0", pair[0].port)
            await wait_until(lambda: held_count(gateway) == 1)
            half_since_s = await traffic.wait_for_more(100)
            half = traffic.bodies(since_s=half_since_s)
            await agent.register(SERVICE, "user-1", pair[1].port)
            await wait_until(lambda: held_count(gateway) == 0)
            back = await service_health(gateway)
            found = await registry_health(gateway)

    assert traffic.errors == []
    assert traffic.statuses.keys() == {200}
    assert empty.keys() == half.keys() == {b"0", b"1"}
    assert (back["status"], back["snapshot"]["fresh"], back["passing"]) == ("ok", True, 2)
    assert found["reachable"] is True


def held_count(gateway: RunningGateway) -> int:
    fleet = gateway.gateway.engine.fleets[SERVICE]
    return sum(member.instance.held for member in fleet.members.values())


@pytest.mark.soak
async def test_with_both_instances_stopped_every_request_is_refused_with_503_and_a_reason(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    """Connections cut, Breakers open, their trials, and the registry taking one of them out."""
    async with two_named(agent) as pair, gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)
        await hammer(f"http://127.0.0.1:{gateway.port}{PATH}", total=50, concurrency=8)
        for upstream in pair:
            await upstream.refuse()
            await upstream.drop()

        refusals = await refusals_until_tried(gateway, trials=2)
        await agent.put("/v1/agent/service/maintenance/user-0", enable="true")
        await wait_until(lambda: gateway.gateway.engine.fleets[SERVICE].size == 1)
        refusals += await refusals_until_tried(gateway, trials=2)
        reasons = {answer.values(b"x-gateway-reason")[0] for answer, _ in refusals}

        assert {answer.status for answer, _ in refusals} == {503}
        assert reasons == {b"all_unreachable", b"breakers_open"}
        assert all(answer.values(b"retry-after") for answer, _ in refusals)
        assert max(took_s for _, took_s in refusals) < 5.0


async def refusals_until_tried(
    gateway: RunningGateway, *, trials: int
) -> list[tuple[Answer, float]]:
    """Ask, GET and POST in turn, until so many trials failed in the outage.

    Gives each answer with the seconds it took.
    """
    refusals: list[tuple[Answer, float]] = []
    while trials > 0:
        is_outage = len(gateway.logged("breaker_opened")) >= 2
        for request in (ask(PATH), ask(PATH, "POST", body=b"money")):
            began_s = time.monotonic()
            answer = await send(gateway, request)
            refusals.append((answer, time.monotonic() - began_s))
            trials -= is_outage and answer.values(b"x-gateway-reason") == [b"all_unreachable"]
    return refusals


async def test_the_refusal_names_maintenance(agent: ConsulAgent, tmp_path: Path) -> None:
    async with two_named(agent), gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)

        await agent.put("/v1/agent/service/maintenance/user-0", enable="true")
        await wait_until(lambda: gateway.gateway.engine.fleets[SERVICE].size == 1)
        only_one = Counter([(await get(gateway)).body for _ in range(10)])
        await agent.put("/v1/agent/maintenance", enable="true", reason="upgrade")
        await wait_until(lambda: gateway.gateway.engine.fleets[SERVICE].size == 0)
        refusal = await get(gateway)
        health = await service_health(gateway)
        await agent.put("/v1/agent/maintenance", enable="false")
        await agent.put("/v1/agent/service/maintenance/user-0", enable="false")
        await wait_until(lambda: gateway.gateway.engine.fleets[SERVICE].size == 2)
        after = await get(gateway)

    assert only_one == {b"1": 10}
    assert (refusal.status, refusal.values(b"x-gateway-reason")) == (503, [b"no_instances"])
    assert b"2 maintenance" in refusal.body
    assert (health["status"], health["maintenance"]) == ("down", 2)
    assert after.status == 200


async def test_a_cold_start_without_consul_proxies_at_once_from_disk(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    state = {"state_dir": tmp_path / "state"}
    async with two_named(agent):
        async with gateway_for(agent, tmp_path, **state) as earlier:
            await until_known(earlier, 2)
        agent.kill()

        async with gateway_for(agent, tmp_path, **state) as gateway:
            answer = await get(gateway)  # the first one, which nothing was waited for
            ready = await gateway.ask_admin("/readyz")
            health = await service_health(gateway)

        assert answer.status == 200
        assert ready["ready"] is True
        assert (health["snapshot"]["source"], health["snapshot"]["fresh"]) == ("disk", False)


async def test_a_cold_start_without_anything_refuses_until_consul_comes(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    async with ScriptedUpstream() as upstream:
        agent.kill()
        async with gateway_for(agent, tmp_path) as gateway:
            refusal = await get(gateway)
            ready = await gateway.ask_admin("/readyz")
            agent.launch()
            await agent.wait_until_ready()
            await register(agent, upstream)
            fleet = gateway.gateway.engine.fleets[SERVICE]
            await wait_until(lambda: fleet.members)
            answer = await get(gateway)
            ready_then = await gateway.ask_admin("/readyz")

    assert (refusal.status, refusal.values(b"x-gateway-reason")) == (503, [b"catalog_cold"])
    assert (ready["ready"], ready["missing_snapshots"]) == (False, [SERVICE])
    assert (answer.status, ready_then["ready"]) == (200, True)


@pytest.mark.soak
async def test_a_frozen_agent_does_not_touch_traffic(agent: ConsulAgent, tmp_path: Path) -> None:
    async with two_named(agent), gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)
        url = f"http://127.0.0.1:{gateway.port}{PATH}"

        agent.freeze()
        try:
            load = await hammer(url, total=1000, concurrency=32)
        finally:
            agent.thaw()
        await agent.deregister("user-1")
        await until_known(gateway, 1)

    assert load.errors == []
    assert load.statuses == {200: 1000}


async def test_200_first_requests_at_once_cost_consul_next_to_nothing(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    async with two_named(agent), gateway_for(agent, tmp_path) as gateway:
        await until_known(gateway, 2)

        url = f"http://127.0.0.1:{gateway.port}{PATH}"
        load = await hammer(url, total=200, concurrency=200)
        (registry,) = gateway.gateway.registries
        assert isinstance(registry, ConsulRegistry)
        asked_count = registry.statuses()[SERVICE].asked_count

    assert load.errors == []
    assert load.statuses == {200: 200}
    assert asked_count <= 2


async def test_an_instance_that_moves_to_another_port_starts_afresh(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    """Scenario 29: the same id, another port; the old one's open Breaker is not inherited."""
    async with (
        ScriptedUpstream() as old,
        ScriptedUpstream() as new,
        gateway_for(agent, tmp_path) as gateway,
    ):
        old.on_request(respond(503))
        await register(agent, old)
        await until_known(gateway, 1)
        while not gateway.logged("breaker_opened"):
            await get(gateway)

        await register(agent, new)
        fleet = gateway.gateway.engine.fleets[SERVICE]
        await wait_until(
            lambda: [one.instance.port for one in fleet.members.values()] == [new.port]
        )
        answer = await get(gateway)

    assert answer.status == 200
    assert len(new.requests) == 1

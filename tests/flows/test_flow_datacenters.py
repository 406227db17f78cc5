"""Two Consuls that know each other: another datacenter serves while nobody here can."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.client import Answer, RawClient
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.gateway import RunningGateway, ask, routes_file
from tests.fakes.programs import find_program
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = [pytest.mark.consul, pytest.mark.slow]

HELD_BY_TTL = {"Check": {"TTL": "10m", "Status": "passing"}}


@dataclass
class World:
    """Two datacenters with an instance of web in each, called as they are."""

    here: ConsulAgent
    there: ConsulAgent
    near: ScriptedUpstream
    far: ScriptedUpstream


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")
    async with AsyncExitStack() as stack:
        agents = [
            await stack.enter_async_context(
                ConsulAgent(program, tmp_path, name=f"agent-{name}", datacenter=name)
            )
            for name in ("dc1", "dc2")
        ]
        here, there = agents
        near = await stack.enter_async_context(ScriptedUpstream())
        far = await stack.enter_async_context(ScriptedUpstream())
        await here.meet(there)
        for agent, upstream in ((here, near), (there, far)):
            upstream.on_request(respond(body=str(agent.datacenter).encode()))
            await agent.register("web", "web-1", upstream.port, Tags=["v1"], **HELD_BY_TTL)
        yield World(here, there, near, far)


def gateway_for(
    world: World, folder: Path, service: Mapping[str, object], **settings: object
) -> RunningGateway:
    routes = routes_file({"web": service}, {"match": {"path_prefix": "/"}, "service": "web"})
    consul = {"registry": "consul", "consul_address": world.here.address, "consul_wait_s": 2.0}
    return RunningGateway(routes, face="fast", folder=folder / "gateway", **consul, **settings)


async def get(gateway: RunningGateway) -> Answer:
    async with RawClient(gateway.port) as client:
        await client.send(ask())
        return await client.read_response()


async def until_tiers(gateway: RunningGateway, *priorities: int) -> None:
    """Wait until the tiers have instances of these priorities, one in each."""
    fleet = gateway.gateway.engine.fleets["web"]
    await wait_until(
        lambda: [one.instance.priority for tier in fleet.tiers for one in tier] == [*priorities],
    )


async def test_another_datacenter_serves_while_nobody_here_can(
    world: World, tmp_path: Path
) -> None:
    """Local gone: the other serves; that one dead too: 503; local back: local again."""
    async with gateway_for(world, tmp_path, {"datacenters": ["dc2"]}) as gateway:
        await until_tiers(gateway, 0, 1)
        normal = [(await get(gateway)).body for _ in range(10)]

        await world.here.set_check("web-1", "critical")
        await until_tiers(gateway, 1)
        away = [(await get(gateway)).body for _ in range(10)]
        health = await gateway.ask_admin("/health")
        shown = (await gateway.ask_admin("/api/services/web"))["instances"]

        world.there.kill()
        await world.far.refuse()
        await world.far.drop()
        dead = [await get(gateway) for _ in range(10)]

        await world.here.set_check("web-1", "passing")
        await until_tiers(gateway, 0, 1)
        back = [(await get(gateway)).body for _ in range(10)]
        registry = (await gateway.ask_admin("/health"))["registries"][0]

    assert set(normal) == {b"dc1"}
    assert set(away) == {b"dc2"}
    assert health["services"]["web"]["status"] == "degraded"
    assert [(one["id"], one["priority"], one["status"]) for one in shown] == [
        ("agent-dc1/web-1", 0, "critical"),
        ("dc2:agent-dc2/web-1", 1, "passing"),
    ]
    assert {answer.status for answer in dead} <= {502, 503}
    assert (dead[-1].status, dead[-1].values(b"x-gateway-reason")) == (503, [b"breakers_open"])
    assert set(back) == {b"dc1"}
    assert registry["reachable"], "a dead datacenter says nothing about the agent"


async def test_one_request_fails_over_into_the_other_datacenter(
    world: World, tmp_path: Path
) -> None:
    """Consul still calls the local instance healthy, but it takes no connections."""
    async with gateway_for(world, tmp_path, {"datacenters": ["dc2"]}) as gateway:
        await until_tiers(gateway, 0, 1)
        await world.near.refuse()
        answers = [await get(gateway) for _ in range(10)]

    assert {(answer.status, answer.body) for answer in answers} == {(200, b"dc2")}


async def test_a_health_check_sends_requests_to_the_other_datacenter_too(
    world: World, tmp_path: Path
) -> None:
    check = {"path": "/health", "interval": "50ms", "unhealthy_after": 2}
    service = {"datacenters": ["dc2"], "health_check": check}
    async with gateway_for(world, tmp_path, service) as gateway:
        await until_tiers(gateway, 0, 1)
        world.near.on_request(respond(503))
        await until_tiers(gateway, 1)
        answer = await get(gateway)

    assert answer.body == b"dc2"


async def test_what_was_known_of_the_other_datacenter_survives_a_restart_without_consul(
    world: World, tmp_path: Path
) -> None:
    kept = {"state_dir": tmp_path / "state"}
    service = {"datacenters": ["dc2"]}
    async with gateway_for(world, tmp_path, service, **kept) as gateway:
        await until_tiers(gateway, 0, 1)

    world.here.kill()
    world.there.kill()
    await world.near.refuse()
    async with gateway_for(world, tmp_path, service, **kept) as gateway:
        await until_tiers(gateway, 0, 1)
        answer = await get(gateway)

    assert answer.body == b"dc2"


async def test_a_datacenter_that_does_not_exist_disturbs_nobody(
    world: World, tmp_path: Path
) -> None:
    async with gateway_for(world, tmp_path, {"datacenters": ["nowhere", "dc2"]}) as gateway:
        await until_tiers(gateway, 0, 2)
        await wait_until(lambda: bool(gateway.logged("watch_failed")))
        answer = await get(gateway)
        registry = (await gateway.ask_admin("/health"))["registries"][0]

    assert answer.body == b"dc1"
    assert registry["reachable"]
    assert {event["service"] for event in gateway.logged("watch_failed")} == {"web@nowhere"}


async def test_only_instances_with_the_tags_serve_and_a_refusal_says_so(
    world: World, tmp_path: Path
) -> None:
    async with gateway_for(world, tmp_path, {"tags": ["v2"]}) as gateway:
        await wait_until(lambda: gateway.gateway.engine.fleets["web"].snapshot is not None)
        refused = await get(gateway)

        await world.here.register("web", "web-2", world.far.port, Tags=["v2", "blue"])
        await until_tiers(gateway, 0)
        answers = [(await get(gateway)).body for _ in range(10)]

    assert (refused.status, refused.values(b"x-gateway-reason")) == (503, [b"no_instances"])
    assert b"no healthy instance: 1 without its tags" in refused.body
    assert set(answers) == {b"dc2"}

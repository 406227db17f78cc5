"""What changes in a real Consul reaches the catalog: at once, and nothing else does."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.model import Status
from gateway.discovery.consul_options import ConsulOptions
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.following import following
from tests.fakes.waiting import wait_until

pytestmark = [pytest.mark.consul, pytest.mark.slow]

PASSING: dict[str, Any] = {"Check": {"TTL": "60s", "Status": "passing"}}


@pytest.fixture
async def agent(consul_program: Path, tmp_path: Path) -> AsyncIterator[ConsulAgent]:
    """Run an empty Consul."""
    async with ConsulAgent(consul_program, tmp_path) as running:
        yield running


def options(agent: ConsulAgent) -> ConsulOptions:
    return ConsulOptions(address=agent.address, wait_s=5)


@pytest.mark.soak
async def test_a_registration_and_a_deregistration_show_within_milliseconds(
    agent: ConsulAgent,
) -> None:
    await agent.register("web", "always")
    took_s = []
    async with following(options(agent)) as seen:
        await seen.wait_for(1)
        for _ in range(8):
            # Pacing, not waiting: this measures a quiet watch, not its limit on questions.
            await asyncio.sleep(0.2)
            await agent.register("web", "new")
            took_s.append(await seen.time_until_there_are(2))
            await asyncio.sleep(0.2)
            await agent.deregister("new")
            took_s.append(await seen.time_until_there_are(1))

    # 2 to 5 ms on a quiet machine; the watch itself would end after 5 s.
    assert statistics.median(took_s) < 0.1
    assert max(took_s) < 4.0


async def test_a_check_that_fails_and_recovers_moves_its_instance_only(agent: ConsulAgent) -> None:
    await agent.register("web", "a", **PASSING)
    await agent.register("web", "b", **PASSING)
    await agent.register("other", "c", **PASSING)
    async with following(options(agent), {"web", "other"}) as seen:
        await seen.wait_for(2)
        await seen.wait_for(1, "other")
        await wait_until(lambda: seen.asked_count("other") == 2)

        await agent.set_check("a", "critical")
        await seen.wait_for(1)
        statuses = {item.id: item.status for item in seen.instances()}
        await agent.set_check("a", "passing")
        await seen.wait_for(2)

        assert statuses == {"agent/a": Status.CRITICAL, "agent/b": Status.PASSING}
        assert seen.asked_count("other") == 2


async def test_maintenance_takes_instances_out_at_once_and_says_so(agent: ConsulAgent) -> None:
    await agent.register("web", "a")
    await agent.register("web", "b")
    async with following(options(agent)) as seen:
        await seen.wait_for(2)

        await agent.put("/v1/agent/service/maintenance/a", enable="true", reason="upgrade")
        await wait_until(lambda: seen.routable() == ["b"])
        by_service = [item.status for item in seen.instances()]
        await agent.put("/v1/agent/maintenance", enable="true", reason="new kernel")
        await seen.wait_for(0)
        by_node = [item.status for item in seen.instances()]
        await agent.put("/v1/agent/maintenance", enable="false")
        await wait_until(lambda: seen.routable() == ["b"])

        assert by_service == [Status.MAINTENANCE, Status.PASSING]
        assert by_node == [Status.MAINTENANCE, Status.MAINTENANCE]


async def test_a_warning_keeps_its_instance_with_the_weight_for_warnings(
    agent: ConsulAgent,
) -> None:
    weights: dict[str, Any] = {"Weights": {"Passing": 10, "Warning": 2}}
    await agent.register("web", "a", **PASSING, **weights)
    await agent.register("web", "b", **PASSING, **weights)
    async with following(options(agent)) as seen:
        await seen.wait_for(2)

        await agent.set_check("a", "warning")
        await wait_until(lambda: seen.instances()[0].status is Status.WARNING)

        assert [(item.status, item.weight, item.is_routable) for item in seen.instances()] == [
            (Status.WARNING, 2, True),
            (Status.PASSING, 10, True),
        ]


async def test_an_instance_that_changes_its_port_is_another_instance(agent: ConsulAgent) -> None:
    await agent.register("web", "a", 8001)
    async with following(options(agent)) as seen:
        await seen.wait_for(1)
        before = seen.instances()[0]

        await agent.register("web", "a", 8002)
        await wait_until(lambda: seen.instances()[0].port == 8002)
        after = seen.instances()

        assert len(after) == 1
        assert after[0].id == before.id
        assert after[0].key != before.key


async def test_addresses_of_every_kind_are_read(agent: ConsulAgent) -> None:
    wan: dict[str, Any] = {"TaggedAddresses": {"wan": {"Address": "198.51.100.1", "Port": 9000}}}
    await agent.register("web", "node-address", 8001, Address="")
    await agent.register("web", "six", 8002, Address="2001:db8::1", Meta=None, Tags=None)
    await agent.register("web", "tagged", 8003, **wan)
    await agent.register("web", "no-port", 0)
    async with (
        following(options(agent)) as near,
        following(ConsulOptions(address=agent.address, wait_s=5, tagged_address="wan")) as far,
    ):
        await near.wait_for(3)
        await far.wait_for(3)

        assert [item.authority for item in near.instances()] == [
            "127.0.0.1:8001",
            "[2001:db8::1]:8002",
            "127.0.0.1:8003",
        ]
        assert far.instances()[2].authority == "198.51.100.1:9000"


async def test_many_readers_of_one_service_ask_consul_once(agent: ConsulAgent) -> None:
    await agent.register("web", "a")
    async with following(options(agent)) as seen:

        async def read() -> int:
            await seen.wait_for(1)
            return len(seen.instances())

        assert await asyncio.gather(*(read() for _ in range(200))) == [1] * 200
        assert seen.asked_count() <= 2


async def test_output_of_checks_and_other_services_make_no_noise(agent: ConsulAgent) -> None:
    await agent.register("web", "a", **PASSING)
    async with following(options(agent), {"web", "missing"}) as seen:
        await seen.wait_for(1)
        await wait_until(lambda: seen.asked_count("missing") == 2)
        changes = len(seen.published)

        for number in range(60):
            await agent.put("/v1/catalog/register", _with_output(str(number)))
            await agent.register("unrelated", f"u{number}")

        assert seen.asked_count("missing") <= 15
        assert seen.asked_count("web") <= 15
        assert len(seen.published) == changes

        await agent.register("missing", "m")
        await seen.wait_for(1, "missing")


async def test_a_small_budget_of_watches_leaves_the_rest_to_polling(agent: ConsulAgent) -> None:
    services = [f"s{number:02}" for number in range(20)]
    for service in services:
        await agent.register(service, service)
    few = ConsulOptions(address=agent.address, wait_s=5, max_watches=5, poll_s=0.3)
    async with following(few, services) as seen:
        for service in services:
            await seen.wait_for(1, service)
        await wait_until(lambda: sum(seen.asked_count(name) > 1 for name in services) == 20)
        polling = [name for name, one in seen.registry.statuses().items() if one.is_polling]

        assert len(polling) == 15
        # 5 watches, 2 for control, and the one of this test
        assert agent.count_connections() <= 8

        await agent.register(polling[0], "second")
        await seen.wait_for(2, polling[0])


def _with_output(output: str) -> dict[str, object]:
    """Make a registration that changes nothing but what a check said."""
    return {
        "Node": "agent",
        "Address": "127.0.0.1",
        "SkipNodeUpdate": True,
        "Check": {
            "Node": "agent",
            "CheckID": "service:a",
            "Name": "Service 'web' check",
            "Status": "passing",
            "ServiceID": "a",
            "Output": output,
        },
    }

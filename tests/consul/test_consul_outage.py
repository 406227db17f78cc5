"""When a real Consul goes away, comes back, or comes back with less than it knew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.watch import Phase, WatchPolicy
from gateway.discovery.consul_options import Consistency, ConsulOptions
from gateway.discovery.consul_registry import ConsulPolicies
from gateway.discovery.disk import SnapshotStore
from gateway.discovery.link import LinkPolicy
from tests.fakes.consul_agent import ConsulAgent, ConsulCluster
from tests.fakes.following import QUICK, Following, following
from tests.fakes.waiting import time_until, wait_until

pytestmark = [pytest.mark.consul, pytest.mark.soak]


@pytest.fixture
async def agent(consul_program: Path, tmp_path: Path) -> AsyncIterator[ConsulAgent]:
    """Run an empty Consul that forgets everything when it is restarted."""
    async with ConsulAgent(consul_program, tmp_path) as running:
        yield running


@pytest.fixture
async def cluster(consul_program: Path, tmp_path: Path) -> AsyncIterator[ConsulCluster]:
    """Run three servers with an elected leader."""
    async with ConsulCluster(consul_program, tmp_path) as running:
        yield running


def options(agent: ConsulAgent, *, wait_s: float = 1.0, poll_s: float = 5.0) -> ConsulOptions:
    return ConsulOptions(address=agent.address, wait_s=wait_s, grace_s=0.5, poll_s=poll_s)


def fewest_routable(seen: Following) -> int:
    """Count what was routable when it was least, of all that was ever published."""
    return min(sum(item.is_routable for item in shot.instances) for shot in seen.published)


async def test_a_total_loss_of_state_takes_nothing_out_of_rotation_for_a_while(
    agent: ConsulAgent,
) -> None:
    await agent.register_many("web", 30)
    async with following(options(agent)) as seen:
        await seen.wait_for(30)

        await agent.restart()
        await wait_until(lambda: len(seen.held()) == 30)
        lost_at_s = time.monotonic()
        for number in range(10):
            await agent.register("web", f"web-{number}", 8000 + number)
        await wait_until(lambda: len(seen.held()) == 20)
        among_the_held = seen.routable()
        fewest = fewest_routable(seen)
        await seen.wait_for(10)
        held_for_s = time.monotonic() - lost_at_s

        assert len(among_the_held) == 30
        assert fewest == 30
        assert sorted(seen.routable()) == [f"web-{number}" for number in range(10)]
        assert 2.2 < held_for_s < 30


async def test_the_last_instance_deregistered_is_held_for_a_moment_only(
    agent: ConsulAgent,
) -> None:
    """Nothing more happens in Consul after it: the watcher itself sees to the end of the hold."""
    await agent.register_many("web", 2)
    async with following(options(agent, wait_s=8)) as seen:
        await seen.wait_for(2)

        await agent.deregister("web-0")
        first_s = await seen.time_until_there_are(1)
        await agent.deregister("web-1")
        await wait_until(lambda: seen.held() == ["web-1"])
        last_s = await seen.time_until_there_are(0)

        assert first_s < 5  # 5 ms on a quiet machine
        assert 0.5 < last_s < 7  # and not the 8 s after which Consul would have answered


@pytest.mark.parametrize("consistency", ["default", "stale"])
async def test_killing_the_leader_drops_nothing_and_later_changes_are_seen(
    cluster: ConsulCluster, consistency: Consistency
) -> None:
    leader = await cluster.leader()
    near, other = await cluster.followers()
    await near.register_many("web", 3)
    asked = replace(options(near, wait_s=5), consistency=consistency)
    async with following(asked) as seen:
        await seen.wait_for(3)
        seen.published.clear()

        leader.kill()
        await other.register_in_catalog("web", "after")
        took_s = await seen.time_until_there_are(4)

        assert took_s < 10.0
        assert fewest_routable(seen) >= 3


async def test_a_lost_quorum_keeps_the_view_and_says_how_old_it_is(
    cluster: ConsulCluster,
) -> None:
    near, *others = cluster.servers
    await near.register_many("web", 3)
    async with following(options(near)) as seen:
        await seen.wait_for(3)

        for other in others:
            other.kill()
        await wait_until(lambda: seen.registry.health().reachable is False)
        await wait_until(lambda: seen.phase() is Phase.DEGRADED)
        age_s = seen.catalog.age_s("web")
        await asyncio.sleep(2)  # the outage itself, of which nothing but its length matters
        later_s = seen.catalog.age_s("web")

        assert seen.entry().is_stale
        assert age_s is not None
        assert later_s is not None
        assert later_s >= age_s + 2
        assert len(seen.routable()) == 3

        for other in others:
            other.launch()
        await seen.wait_until_live()
        await wait_until(lambda: not seen.entry().is_stale)
        assert fewest_routable(seen) == 3


async def test_a_frozen_agent_is_noticed_and_traffic_goes_on(agent: ConsulAgent) -> None:
    await agent.register_many("web", 2)
    asked = options(agent)
    blind = ConsulPolicies(watcher=QUICK.watcher, link=LinkPolicy(heartbeat_s=60, resync_s=0.1))
    async with following(asked, policies=blind) as seen:
        await seen.wait_for(2)

        agent.freeze()
        longest_s = asked.wait_s * 17 / 16 + asked.grace_s
        noticed_s = await time_until(lambda: seen.phase() is Phase.DEGRADED)
        meanwhile = seen.routable()
        agent.thaw()
        await seen.wait_until_live()

        assert noticed_s < 10 * longest_s
        assert meanwhile == ["web-0", "web-1"]
        assert fewest_routable(seen) == 2


async def test_an_index_from_before_a_restart_blocks_nothing(agent: ConsulAgent) -> None:
    for number in range(30):
        await agent.register("other", "other", 8000 + number)
    await agent.register("web", "old")
    async with following(options(agent, wait_s=60)) as seen:
        await seen.wait_for(1)
        before = seen.entry().snapshot.index

        await agent.restart()
        await agent.register("web", "new")
        took_s = await time_until(lambda: "new" in seen.routable())

        assert seen.entry().snapshot.index < before
        assert took_s < 15  # the probe's back-off and the spread of the resumption


async def test_an_outage_costs_few_questions_and_all_services_come_back_soon(
    agent: ConsulAgent,
) -> None:
    services = [f"s{number:02}" for number in range(40)]
    for service in services:
        await agent.register(service, service)
    policies = ConsulPolicies(link=LinkPolicy(retry=WatchPolicy(backoff_max_s=0.5)))
    async with following(options(agent, wait_s=10), services, policies=policies) as seen:
        for service in services:
            await seen.wait_for(1, service)
        probes = seen.registry._link.probe_count

        agent.kill()
        await asyncio.sleep(2)  # the outage, whose length is what is tested
        agent.launch()
        await agent.wait_until_ready()
        back_s = await time_until(
            lambda: all(one.phase is Phase.ABSENT for one in seen.registry.statuses().values())
        )

        errors = [one.error_count for one in seen.registry.statuses().values()]
        assert max(errors) <= 2
        assert seen.registry._link.probe_count - probes <= 20
        assert back_s < 20


def polled(seen: Following) -> list[str]:
    return [name for name, one in seen.registry.statuses().items() if one.is_polling]


async def test_connections_over_the_limit_of_consul_are_replaced_by_polling(
    consul_program: Path, tmp_path: Path
) -> None:
    services = [f"s{number:02}" for number in range(24)]
    limits = {"limits": {"http_max_conns_per_client": 16}}
    async with ConsulAgent(consul_program, tmp_path, config=limits) as agent:
        for service in services:
            await agent.register(service, service)
        asked = options(agent, wait_s=5, poll_s=0.3)
        async with following(asked, services) as seen:
            for service in services:
                await seen.wait_for(1, service)
            # On a busy machine the one that asks after Consul itself may meet the limit too.
            await wait_until(lambda: seen.registry.health().reachable)
            # So may those that have an answer, and watch for the next one only now.
            await wait_until(lambda: len(polled(seen)) >= 10)
            polling = polled(seen)

            assert len(polling) <= 14

            watched = next(name for name in services if name not in polling)
            await agent.register(polling[0], "second")
            await agent.register(watched, "third")
            await seen.wait_for(2, polling[0])
            await seen.wait_for(2, watched)


async def test_a_cold_start_without_consul_serves_what_is_on_disk(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    store = SnapshotStore(
        tmp_path / "snapshot.json",
        datacenter=None,
        clock=time.monotonic,
        wall_clock=lambda: 1e9,
    )
    await agent.register_many("web", 4)
    async with following(options(agent)) as seen:
        await seen.wait_for(4)
        store.save(seen.catalog.entries())
    agent.kill()

    started_s = time.monotonic()
    async with following(options(agent), known=store.load()) as seen:
        from_disk = (seen.routable(), seen.entry().snapshot.source, seen.entry().is_stale)
        took_s = time.monotonic() - started_s
        await wait_until(lambda: seen.registry.health().reachable is False)
        agent.launch()
        await wait_until(lambda: len(seen.held()) == 4)

        assert from_disk == (["web-0", "web-1", "web-2", "web-3"], "disk", True)
        assert took_s < 1.0
        assert fewest_routable(seen) == 4
        assert seen.entry().snapshot.source == "consul"

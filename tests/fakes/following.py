"""A ConsulRegistry that runs, with its catalog and everything that was ever published."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.core.hold import HoldPolicy
from gateway.core.model import Instance, Snapshot
from gateway.core.watch import Phase, WatchPolicy
from gateway.discovery.catalog import Catalog, Entry
from gateway.discovery.consul_options import ConsulOptions
from gateway.discovery.consul_registry import ConsulPolicies, ConsulRegistry
from gateway.discovery.link import LinkPolicy
from gateway.discovery.watcher import WatcherPolicy
from tests.fakes.waiting import time_until, wait_until

# Everything that is seconds or minutes in production, scaled down.
QUICK = ConsulPolicies(
    watcher=WatcherPolicy(
        watch=WatchPolicy(backoff_max_s=0.5),
        hold=HoldPolicy(hold_for_s=3.0, empty_hold_s=1.0),
    ),
    link=LinkPolicy(
        heartbeat_s=0.5,
        heartbeat_spread_s=0.1,
        resync_s=0.2,
        retry=WatchPolicy(backoff_min_s=0.05, backoff_max_s=0.5),
    ),
)


@dataclass
class Following:
    """What a test looks at while a registry runs."""

    registry: ConsulRegistry
    catalog: Catalog
    published: list[Snapshot] = field(default_factory=list)

    def entry(self, service: str = "web") -> Entry:
        """Give the catalog's entry, which must be there."""
        entry = self.catalog.get(service)
        assert entry is not None, f"{service} was never published"
        return entry

    def instances(self, service: str = "web") -> tuple[Instance, ...]:
        """Give the newest instances; none while the service is not known."""
        entry = self.catalog.get(service)
        return entry.snapshot.instances if entry is not None else ()

    def routable(self, service: str = "web") -> list[str]:
        """Give the ids, without the name of the agent, of all that may have traffic."""
        return names(item for item in self.instances(service) if item.is_routable)

    def held(self, service: str = "web") -> list[str]:
        """Give the ids of all that are held."""
        return names(item for item in self.instances(service) if item.held)

    def phase(self, service: str = "web") -> Phase:
        """Tell where the service's watch is."""
        status = self.registry.statuses().get(service)
        return status.phase if status is not None else Phase.INIT

    def asked_count(self, service: str = "web") -> int:
        """Count the questions that were asked about a service."""
        status = self.registry.statuses().get(service)
        return status.asked_count if status is not None else 0

    async def wait_for(self, count: int, service: str = "web") -> None:
        """Wait until so many instances are routable."""
        await wait_until(lambda: len(self.routable(service)) == count)

    async def time_until_there_are(self, count: int, service: str = "web") -> float:
        """Wait until so many instances are routable; return the seconds that it took."""
        return await time_until(lambda: len(self.routable(service)) == count)

    async def wait_until_live(self, service: str = "web") -> None:
        """Wait until the registry is reachable and the watch has had an answer from it."""
        await wait_until(lambda: self.is_live(service))

    def is_live(self, service: str = "web") -> bool:
        """Tell whether the registry is reachable and the watch has had an answer from it."""
        return bool(self.registry.health().reachable) and self.phase(service) is Phase.LIVE


def names(instances: Iterable[Instance]) -> list[str]:
    """Take the names of agents away from the ids of instances."""
    return [instance.id.partition("/")[2] for instance in instances]


@asynccontextmanager
async def following(
    options: ConsulOptions,
    services: Collection[str] = ("web",),
    *,
    policies: ConsulPolicies = QUICK,
    known: Iterable[Snapshot] = (),
) -> AsyncIterator[Following]:
    """Run a registry that follows `services`; `known` is what the catalog has beforehand."""
    catalog = Catalog(clock=time.monotonic)
    catalog.restore(known)
    registry = ConsulRegistry(
        options,
        catalog=catalog,
        clock=time.monotonic,
        random=random.random,
        policies=policies,
    )
    watched = Following(registry, catalog)
    catalog.subscribe(watched.published.append)
    registry.follow(services)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(registry.run())
        try:
            yield watched
        finally:
            running.cancel()

"""Instances from the configuration as a Registry.

The one rule: the file said it, so it holds until the file says something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from gateway.core.model import Snapshot
from gateway.core.registry import RegistryHealth
from gateway.discovery.catalog import Catalog

NAME = "static"


class StaticRegistry:
    """Publishes configured instances of the services that are followed.

    `clock` is monotonic. A Snapshot of a service that nobody follows stays out of the catalog.
    """

    def __init__(
        self, snapshots: Iterable[Snapshot], *, catalog: Catalog, clock: Callable[[], float]
    ) -> None:
        self._snapshots = {snapshot.service: snapshot for snapshot in snapshots}
        self._catalog = catalog
        self._clock = clock
        self._since_s = clock()
        self._followed: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The name by which routes.yaml and `/health` know it."""
        return NAME

    def health(self) -> RegistryHealth:
        """Tell how it is: always there."""
        return RegistryHealth(name=NAME, reachable=True, since_s=self._since_s)

    def follow(self, services: Collection[str]) -> None:
        """Publish exactly these services at once, and forget those followed before.

        Raises KeyError when one of them was not configured.
        """
        wanted = frozenset(services)
        snapshots = [self._snapshots[service] for service in sorted(wanted)]
        for service in self._followed - wanted:
            self._catalog.forget(service)
        for snapshot in snapshots:
            self._catalog.publish(snapshot, confirmed_at_s=self._clock())
        self._followed = wanted

    async def run(self) -> None:
        """Do nothing until cancelled: what is configured does not change by itself."""
        await asyncio.get_running_loop().create_future()

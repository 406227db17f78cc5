"""Between the catalog and the Fleets: each service gets what is selected for it.

The one rule: the catalog has what registries said, and this makes of it what routes.yaml asks for,
anew whenever one of the two changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.config import ServiceConfig
from gateway.core.model import Snapshot
from gateway.core.registry import SnapshotListener
from gateway.core.selection import parts_of, selected
from gateway.discovery.catalog import Catalog


class Selection:
    """Tells listeners the Snapshot of a service, all its parts joined, when any of them changes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._service_of: dict[str, ServiceConfig] = {}
        self._listeners: list[SnapshotListener] = []
        catalog.subscribe(self._follow)

    def __repr__(self) -> str:
        return f"<Selection of {len(self._service_of)} parts>"

    def use(self, services: Mapping[str, ServiceConfig]) -> None:
        """Select for these services from now on, also from what is known already."""
        self._service_of = {part: one for one in services.values() for part in parts_of(one)}
        for service in services.values():
            self._tell(service)

    def subscribe(self, listener: SnapshotListener) -> None:
        """Call `listener` with every Snapshot that is selected from now on, in this order."""
        self._listeners.append(listener)

    def _follow(self, snapshot: Snapshot) -> None:
        service = self._service_of.get(snapshot.service)
        if service is not None:
            self._tell(service)

    def _tell(self, service: ServiceConfig) -> None:
        entries = [self._catalog.get(part) for part in parts_of(service)]
        found = selected(service, [entry.snapshot if entry else None for entry in entries])
        if found is not None:
            for listener in self._listeners:
                listener(found)

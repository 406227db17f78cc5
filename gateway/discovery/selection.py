"""Between the catalog and the Fleets: each service gets what is selected for it.

The one rule: the catalog has what registries said, and this makes of it what routes.yaml asks for,
anew whenever one of the two changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.core.config import ServiceConfig
from gateway.core.model import Snapshot
from gateway.core.registry import SnapshotListener, SnapshotPreparer
from gateway.core.selection import parts_of, selected
from gateway.discovery.catalog import Catalog


class Selection:
    """Tells listeners the Snapshot of a service, all its parts joined, when any of them changes.

    `prepare` is called with a large one before that.
    """

    def __init__(self, catalog: Catalog, *, prepare: SnapshotPreparer | None = None) -> None:
        self._catalog = catalog
        self._service_of: dict[str, ServiceConfig] = {}
        self._listeners: list[SnapshotListener] = []
        self._prepare = prepare
        catalog.subscribe(self._follow)
        catalog.prepare_with(self._prepare_parts)

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

    def _prepare_parts(self, snapshot: Snapshot) -> Iterator[None]:
        service = self._service_of.get(snapshot.service)
        found = self._select(service, snapshot) if service is not None else None
        if found is not None and self._prepare is not None:
            yield from self._prepare(found)

    def _follow(self, snapshot: Snapshot) -> None:
        service = self._service_of.get(snapshot.service)
        if service is not None:
            self._tell(service)

    def _tell(self, service: ServiceConfig) -> None:
        found = self._select(service)
        if found is not None:
            for listener in self._listeners:
                listener(found)

    def _select(self, service: ServiceConfig, newer: Snapshot | None = None) -> Snapshot | None:
        """Join what is known of a service; `newer` is a part that the catalog does not have yet."""
        parts: list[Snapshot | None] = []
        for part in parts_of(service):
            entry = self._catalog.get(part)
            is_newer = newer is not None and newer.service == part
            parts.append(newer if is_newer else entry.snapshot if entry is not None else None)
        return selected(service, parts)

"""The catalog: service -> the newest Snapshot, and how fresh it is.

The one rule: one writer for each service, readers never wait. A Snapshot is replaced whole, and
listeners hear of it only when its instances really differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import structlog

from gateway.core.model import Instance, Snapshot
from gateway.core.registry import SnapshotListener, SnapshotPreparer

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One service in the catalog.

    `confirmed_at_s` is the monotonic instant at which the question was sent whose answer confirmed
    the Snapshot (an answer's own words about its freshness are not to be relied on); None for one
    from disk. `is_stale` is true while the registry cannot be asked.
    """

    snapshot: Snapshot
    confirmed_at_s: float | None
    is_stale: bool

    def age_s(self, now_s: float) -> float | None:
        """How long ago the registry confirmed it; None if it never did in this run."""
        return None if self.confirmed_at_s is None else max(0.0, now_s - self.confirmed_at_s)


class Catalog:
    """service -> Entry, with listeners for changes.

    `clock` is monotonic; only the age of entries depends on it.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._listeners: list[SnapshotListener] = []
        self._preparers: list[SnapshotPreparer] = []

    def __repr__(self) -> str:
        stale = sum(1 for entry in self._entries.values() if entry.is_stale)
        return f"<Catalog services={len(self._entries)} stale={stale}>"

    def subscribe(self, listener: SnapshotListener) -> None:
        """Call `listener` with every changed Snapshot from now on."""
        self._listeners.append(listener)

    def prepare_with(self, preparer: SnapshotPreparer) -> None:
        """Call `preparer` with every large Snapshot before it is published."""
        self._preparers.append(preparer)

    def prepare(self, snapshot: Snapshot) -> Iterator[None]:
        """Do beforehand, step by step, what listeners would do at once when it is published."""
        for preparer in self._preparers:
            yield from preparer(snapshot)

    def get(self, service: str) -> Entry | None:
        """Give the newest entry; None when the service was never heard of."""
        return self._entries.get(service)

    def entries(self) -> Mapping[str, Entry]:
        """Give all entries, as a view that cannot be written."""
        return MappingProxyType(self._entries)

    def age_s(self, service: str) -> float | None:
        """How old the service's Snapshot is; None when it was never confirmed in this run."""
        entry = self._entries.get(service)
        return None if entry is None else entry.age_s(self._clock())

    def publish(self, snapshot: Snapshot, *, confirmed_at_s: float | None) -> bool:
        """Replace a service's Snapshot; tell listeners, and return true, if what it lists differs.

        `confirmed_at_s` None leaves the entry as old as it was and marks it stale: for an answer
        that admits that it may be wrong.
        """
        before = self._entries.get(snapshot.service)
        confirmed = confirmed_at_s if confirmed_at_s is not None else _confirmed_at_s(before)
        self._entries[snapshot.service] = Entry(
            snapshot=snapshot, confirmed_at_s=confirmed, is_stale=confirmed_at_s is None
        )
        if before is not None and _lists_the_same(before.snapshot, snapshot):
            return False
        _log_change(before.snapshot.instances if before else (), snapshot)
        self._tell(snapshot)
        return True

    def doubt(self, service: str) -> None:
        """Mark the service stale: the registry cannot be asked about it at present."""
        entry = self._entries.get(service)
        if entry is not None and not entry.is_stale:
            self._entries[service] = replace(entry, is_stale=True)

    def restore(self, snapshots: Iterable[Snapshot]) -> None:
        """Take Snapshots of an earlier run; never over one that is known already."""
        for snapshot in snapshots:
            if snapshot.service not in self._entries:
                self._entries[snapshot.service] = Entry(
                    snapshot=snapshot, confirmed_at_s=None, is_stale=True
                )
                self._tell(snapshot)

    def forget(self, service: str) -> None:
        """Drop a service that nobody follows any more; listeners are not told."""
        self._entries.pop(service, None)

    def _tell(self, snapshot: Snapshot) -> None:
        for listener in self._listeners:
            listener(snapshot)


def _lists_the_same(one: Snapshot, other: Snapshot) -> bool:
    return (
        one.instances == other.instances
        and one.skipped == other.skipped
        and one.skipped_count == other.skipped_count
    )


def _confirmed_at_s(entry: Entry | None) -> float | None:
    return None if entry is None else entry.confirmed_at_s


def _log_change(before: tuple[Instance, ...], snapshot: Snapshot) -> None:
    old = {instance.key for instance in before}
    new = {instance.key for instance in snapshot.instances}
    _log.info(
        "service_changed",
        service=snapshot.service,
        source=snapshot.source,
        instances=len(new),
        routable=sum(1 for instance in snapshot.instances if instance.is_routable),
        held=sum(1 for instance in snapshot.instances if instance.held),
        added=len(new - old),
        removed=len(old - new),
    )

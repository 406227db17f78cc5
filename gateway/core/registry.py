"""The Protocols between registries, the catalog they fill, and whoever shows how they are.

Registries live in `gateway.discovery`; what reads them lives elsewhere and must not import it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from gateway.core.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryHealth:
    """How one registry is: `reachable` is None until it was asked for the first time.

    `since_s` is the monotonic instant of the last change of `reachable`; `detail` is the last error
    in words, None while all is well. `address` is where it is asked, None for one that is not.
    `is_blind` is true when it has denied us everything since the start: what is known of its
    services, if anything, is from an earlier run.
    """

    name: str
    reachable: bool | None
    since_s: float
    detail: str | None = None
    address: str | None = None
    is_blind: bool = False


class SnapshotListener(Protocol):
    """Whoever wants to know at once that a service's Snapshot was replaced."""

    def __call__(self, snapshot: Snapshot, /) -> None:
        """Take the new Snapshot; must not block and must not raise."""
        ...


class SnapshotPreparer(Protocol):
    """Whoever has much to do when a large Snapshot is published, and can do a part of it before."""

    def __call__(self, snapshot: Snapshot, /) -> Iterator[None]:
        """Yield between two pieces of the work; other callbacks may run at each of them.

        The Snapshot may never be published after it.
        """
        ...


class Registry(Protocol):
    """A source of Snapshots."""

    @property
    def name(self) -> str:
        """The name by which routes.yaml and `/health` know it."""
        ...

    def health(self) -> RegistryHealth:
        """Tell how it is now."""
        ...

    def follow(self, services: Collection[str]) -> None:
        """Follow exactly these services from now on; what is not named any more is forgotten."""
        ...

    async def run(self) -> None:
        """Keep the followed services' Snapshots fresh until cancelled; never fail for an outage."""
        ...

"""What a registry knows: an Instance is one address of a service, a Snapshot is all of them.

Both are frozen. A change makes a new Snapshot, which replaces the old one whole, so a request that
read one keeps a consistent view for as long as it needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# The largest that Consul takes.
MAX_WEIGHT = 65_535


class Status(Enum):
    """What the registry says of one instance, best first.

    Untagged is one that lacks a tag which routes.yaml asks for, whatever else is said of it.
    """

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"
    UNTAGGED = "untagged"


ROUTABLE = frozenset({Status.PASSING, Status.WARNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One address that serves a service.

    `key` is the identity that breakers, pools and in-flight counts belong to: it contains the
    registry's own id and the address, so an instance that moves is another instance.
    `host` is an IP address or a name, without brackets. `weight` is the one that holds for
    `status`.
    `held` marks an instance that the registry no longer lists but that is kept for a while, because
    the answer that dropped it was not to be trusted.
    `priority` is 0 for the gateway's own datacenter, n for the n-th of the others that its service
    may go to; a higher one gets traffic only when nobody of a lower one can.
    """

    key: str
    id: str
    host: str
    port: int
    scheme: str = "http"
    weight: int = 1
    status: Status = Status.PASSING
    tags: tuple[str, ...] = ()
    meta: tuple[tuple[str, str], ...] = ()
    zone: str | None = None
    held: bool = False
    priority: int = 0

    @property
    def is_routable(self) -> bool:
        """Whether the registry lets it have traffic at all."""
        return self.status in ROUTABLE

    @property
    def authority(self) -> str:
        """host:port as it stands in a URL, IPv6 in brackets (RFC 3986 §3.2.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class Skipped:
    """An entry of the registry that cannot be used as an instance: its id, and why in words."""

    id: str
    why: str

    def __str__(self) -> str:
        return f"{self.id}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All instances of one service at one index, sick ones included, sorted by key.

    `source` says where it comes from: the registry's name, or "disk" for one that was kept from an
    earlier run. `index` is the registry's own number for this state, 0 where it has none.
    `held_until_s` is when held instances are let go (monotonic), None when there are none.
    `skipped` names some of the entries that cannot be used, `skipped_count` counts all of them.
    """

    service: str
    instances: tuple[Instance, ...]
    source: str
    index: int = 0
    held_until_s: float | None = None
    skipped: tuple[Skipped, ...] = ()
    skipped_count: int = 0

"""What the connections of the fast face share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.edge.reader import ReaderLimits
from gateway.open_files import MOST_BESIDE

# The share of the time for a head that a connection has for itself before it may have to give way.
GRACE_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceOptions:
    """What the fast face needs to know. All times are seconds; a `…_per_…` of 0 is no limit.

    When all connections are taken, one that has asked for nothing yet gives way after `grace_s`.
    `max_beside` is how many there may be beside: refused ones, those that gave way, and those of
    the admin port, of each kind.
    """

    head_timeout_s: float = 10.0
    keepalive_timeout_s: float = 75.0
    max_connections: int = 10_000
    max_connections_per_address: int = 0
    max_requests_per_connection: int = 0
    max_beside: int = MOST_BESIDE
    grace_s: float = 10.0 * GRACE_SHARE
    reader: ReaderLimits = field(default_factory=ReaderLimits)


class ServerState(Protocol):
    """What uvicorn shares among the connections of a listener."""

    total_requests: int
    connections: set[Any]
